"""Reads single images for measuring, and tells of those that cannot be measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gfprestore.photo import Pixels
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
    return to_8_bit(read_photo(path).pixels)


def to_8_bit(pixels: Pixels) -> NDArray[np.uint8]:
    """Rounds 16-bit pixels to 8 bits."""
    if pixels.dtype == np.uint8:
        return pixels.astype(np.uint8, copy=False)
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
