"""A photo's pixels as its file holds them, made a few rows at a time.

The pixels of an enlarged scan fill gigabytes. A whole copy of them with the channels in another number, order or depth
would take as much again, so encoders ask for bands of rows and no copy is larger than one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from gfprestore.photo import Photo, Pixels


def _unchanged(photo: Photo) -> Photo:
    return photo


@dataclass(frozen=True, eq=False)
class FilePixels:
    """The pixels of a photo in the channels of its file: gray or RGB, and opacity last where there is any."""

    photo: Photo
    """The whole photo."""

    change: Callable[[Photo], Photo] = _unchanged
    """What the format needs done first, such as a lower depth. It must change each row by itself and keep the size."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self.photo.pixels.shape[:2]
        return height, width

    def rows(self, top: int, bottom: int) -> Pixels:
        """The rows from `top` up to `bottom`, which may lie below the photo.

        Returns:
            uint8 or uint16, (R, W, C), C-contiguous; C is 1 gray, 2 gray and opacity, 3 RGB, 4 RGB and opacity.
        """
        photo = self.photo
        alpha = None if photo.alpha is None else photo.alpha[top:bottom]
        band = self.change(replace(photo, pixels=photo.pixels[top:bottom], alpha=alpha))
        pixels = band.pixels[:, :, :1] if band.is_gray else band.pixels
        if band.alpha is not None:
            pixels = np.concatenate([pixels, band.alpha[:, :, None]], axis=2)  # [R W C]
        return cast("Pixels", np.ascontiguousarray(pixels))

    def bands(self, rows: int) -> Iterator[Pixels]:
        """Yields all rows from the top in bands of so many, the last of which may have fewer; see `rows`."""
        for top in range(0, self.size[0], rows):
            yield self.rows(top, top + rows)
