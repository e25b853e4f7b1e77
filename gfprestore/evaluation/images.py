"""Reads single images for measuring, and tells of those that cannot be measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gfprestore.colour import to_8_bits
from gfprestore.photofile import read_photo


@dataclass(frozen=True)
class FailedImage:
    """An image that could not be measured."""

    name: str
    """Its name."""

    reason: str
    """One sentence."""


def read_image(path: Path) -> NDArray[np.uint8]:
    """Reads a file, upright, RGB uint8 (H, W, 3); 16 bits are rounded to 8, since metrics are defined on 0 to 255.

    Raises:
        PhotoError: It cannot be read.
    """
    return to_8_bits(read_photo(path).pixels)
