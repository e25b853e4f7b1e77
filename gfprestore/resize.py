"""Exact-size resampling of photos: Lanczos up, area average down, pixel centres kept in place.

The frame: scaling by s moves a pixel centre x to `s * x + (s - 1) / 2`, with s the ratio of the two sizes on that axis,
so the photo's outer edges stay its outer edges.
"""

from __future__ import annotations

from typing import Any, Literal, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from gfprestore.native.library import load_library
from gfprestore.native.resampling import enlarge_lanczos
from gfprestore.photo import Pixels

Enlargement = Literal["lanczos", "linear"]

_FLAGS: dict[Enlargement, int] = {"lanczos": cv2.INTER_LANCZOS4, "linear": cv2.INTER_LINEAR}

# Rows compared at once when looking for gray photos: a coloured photo is told apart after the first block.
_GRAY_CHECK_ROWS = 256


def output_size(width: int, height: int, scale: float) -> tuple[int, int]:
    """Give the exact size (W, H) of a photo scaled by `scale`: each side rounded on its own, at least 1.

    Example:
        >>> output_size(639, 480, 1.5)
        (958, 720)
    """
    return max(1, round(width * scale)), max(1, round(height * scale))


def has_equal_channels(pixels: Pixels) -> bool:
    """Tell whether red, green and blue are equal in every pixel of (H, W, 3), any dtype."""
    for top in range(0, pixels.shape[0], _GRAY_CHECK_ROWS):
        rows = pixels[top : top + _GRAY_CHECK_ROWS]
        if not (np.array_equal(rows[..., 0], rows[..., 1]) and np.array_equal(rows[..., 0], rows[..., 2])):
            return False
    return True


def resize_photo(pixels: Pixels, size: tuple[int, int], enlargement: Enlargement = "lanczos") -> Pixels:
    """Resample a photo, or one plane of it, to exactly `size`.

    An axis that grows is interpolated, one that shrinks is averaged over the area each new pixel covers, which is free
    of aliasing. Values are clipped to the dtype's range, never wrapped. Beside the result it needs no more than a
    half-done photo of the smaller size, and that only where one axis grows and the other shrinks.

    Args:
        pixels: uint8 or uint16, (H, W, 3) or (H, W).
        size: New (W, H), in pixels, each at least 1.
        enlargement: Kernel for growing axes: Lanczos with 8 taps, or bilinear.

    Returns:
        Array of `size` with the dtype and number of axes of `pixels`, C-contiguous; always a new array. Where the three
        channels of `pixels` are equal so are those of the result.
    """
    if pixels.ndim == 3 and has_equal_channels(pixels):
        plane = _resize_axes(np.ascontiguousarray(pixels[..., 0]), size, enlargement)
        return cv2.merge([plane, plane, plane])  # type: ignore[return-value]  # the dtype is that of pixels
    return _resize_axes(pixels, size, enlargement)


def _resize_axes(pixels: NDArray[Any], size: tuple[int, int], enlargement: Enlargement) -> Pixels:
    """Shrink the axes that shrink, then enlarge those that grow; each with a kernel of its own."""
    width, height = size
    if width < 1 or height < 1:
        raise ValueError(f"a photo cannot be resized to {width} x {height} pixels")
    small = min(width, pixels.shape[1]), min(height, pixels.shape[0])
    result: NDArray[Any] = pixels
    if small != (pixels.shape[1], pixels.shape[0]):
        result = cv2.resize(result, small, interpolation=cv2.INTER_AREA)
    if small != size:
        return _enlarge(result, size, enlargement)
    return result.copy() if result is pixels else result


def _enlarge(pixels: Pixels, size: tuple[int, int], enlargement: Enlargement) -> Pixels:
    library = load_library() if enlargement == "lanczos" else None
    if library is not None:
        return enlarge_lanczos(library, pixels, size)
    # Lanczos takes OpenCV eight times as long.
    return cast(Pixels, cv2.resize(pixels, size, interpolation=_FLAGS[enlargement]))
