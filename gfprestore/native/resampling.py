"""Enlarging and warping of images by the kernels: 8-tap Lanczos, sinc(x) sinc(x / 4), its weights made to sum to 1.

Both divide their rows among a few threads. Every pixel is a sum of its own in one order, so that results depend neither
on the number of threads nor on what lies beside them.
"""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from gfprestore.geometry import Transform, invert
from gfprestore.native.alignment import aligned
from gfprestore.native.library import Library
from gfprestore.photo import Pixels

TAPS = 8
"""Samples that one output is a sum of, along each axis: TAPS of program.h."""

POWERS = 10
"""Coefficients of the polynomials that are a warp's weights: POWERS of program.h."""

BORDER = TAPS // 2
"""Pixels of mirrored border about an image to warp: BORDER of program.h."""

PIXELS_OF_A_BAND = 1 << 16
"""Fewest pixels of a result that are worth a thread: a tenth of a millisecond of work or more."""


class _Task(ctypes.Structure):
    """What the kernels are told, in addresses."""

    arrays: tuple[NDArray[Any], ...]
    """What lies at these: threads may still be at work on it when their caller has been interrupted."""


class _Enlargement(_Task):
    """`Enlargement` of program.h, field for field."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("x", "y")),
        ("stride", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("first_rows", "first_columns", "row_weights", "column_weights")),
        *((name, ctypes.c_int32) for name in ("height", "width", "new_height", "new_width", "channels", "bytes")),
    )


class _Warp(_Task):
    """`Warp` of program.h, field for field."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("x", "y", "quads")),
        ("stride", ctypes.c_int64),
        *((name, ctypes.c_double * 3) for name in ("to_x", "to_y")),
        ("powers", ctypes.c_void_p),
        *((name, ctypes.c_int32) for name in ("height", "width", "side", "bytes")),
    )


def enlarge_lanczos(library: Library, pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Enlarge an image; beyond its edges their pixels go on.

    Args:
        library: The kernels.
        pixels: uint8 or uint16, (H, W, 3) or (H, W), at least one pixel; may be a view.
        size: New (W, H), neither side smaller than it is.

    Returns:
        Array of `size`, otherwise like `pixels`, C-contiguous. Where its channels were equal they are.

    Raises:
        ValueError: The image or the size is another.
    """
    pixels = _with_whole_rows(pixels, dimensions=(2, 3))
    height, width = pixels.shape[:2]
    if size[0] < width or size[1] < height:
        raise ValueError(f"{width} x {height} pixels cannot be enlarged to {size[0]} x {size[1]}")
    result = np.empty((size[1], size[0], *pixels.shape[2:]), pixels.dtype)
    task = _describe_enlargement(pixels, result)

    def enlarge_rows(first: int, last: int) -> None:
        scratch = aligned(4 * library.enlarge_scratch)
        library.enlarge(ctypes.byref(task), first, last, scratch.ctypes.data)

    _in_bands(enlarge_rows, size[1], size[0])
    return result


def warp_lanczos(library: Library, pixels: Pixels, to_square: Transform, side: int) -> Pixels:
    """Warp a square out of an image, which beyond its edges is mirrored about their pixels.

    Args:
        library: The kernels.
        pixels: RGB, uint8 or uint16, (H, W, 3), at least one pixel; may be a view. Sixteen bytes are taken for every
            pixel of it, so it should be no more than the square shows.
        to_square: Image pixel centres -> pixel centres of the square.
        side: Side of the square in pixels, at least 1.

    Returns:
        RGB, dtype of `pixels`, (side, side, 3).

    Raises:
        ValueError: The image or the side is another, or the transform is not finite.
        numpy.linalg.LinAlgError: The transform flattens the image.
    """
    pixels = _with_whole_rows(pixels, dimensions=(3,))
    if side < 1 or not np.isfinite(to_square).all():
        raise ValueError(f"no square of side {side} can be warped by {to_square.tolist()}")
    result = np.empty((side, side, 3), pixels.dtype)
    quads = np.empty((pixels.shape[0] + 2 * BORDER, pixels.shape[1] + 2 * BORDER, 4), np.float32)
    task = _describe_warp(pixels, result, quads, invert(to_square))
    _in_bands(lambda first, last: library.convert_rows(ctypes.byref(task), first, last), *quads.shape[:2])
    _in_bands(lambda first, last: library.warp_rows(ctypes.byref(task), first, last), side, side)
    return result


def _describe_enlargement(pixels: Pixels, result: Pixels) -> _Enlargement:
    first_rows, row_weights = _lanczos_taps(result.shape[0], pixels.shape[0])
    first_columns, column_weights = _lanczos_taps(result.shape[1], pixels.shape[1])
    task = _Enlargement(
        x=pixels.ctypes.data,
        y=result.ctypes.data,
        stride=pixels.strides[0],
        first_rows=first_rows.ctypes.data,
        first_columns=first_columns.ctypes.data,
        row_weights=row_weights.ctypes.data,
        column_weights=column_weights.ctypes.data,
        height=pixels.shape[0],
        width=pixels.shape[1],
        new_height=result.shape[0],
        new_width=result.shape[1],
        channels=math.prod(pixels.shape[2:]),
        bytes=pixels.itemsize,
    )
    task.arrays = (pixels, result, first_rows, first_columns, row_weights, column_weights)
    return task


def _describe_warp(pixels: Pixels, result: Pixels, quads: NDArray[np.float32], to_image: Transform) -> _Warp:
    powers = _lanczos_polynomials()
    task = _Warp(
        x=pixels.ctypes.data,
        y=result.ctypes.data,
        quads=quads.ctypes.data,
        stride=pixels.strides[0],
        to_x=tuple(to_image[0]),
        to_y=tuple(to_image[1]),
        powers=powers.ctypes.data,
        height=pixels.shape[0],
        width=pixels.shape[1],
        side=result.shape[0],
        bytes=pixels.itemsize,
    )
    task.arrays = (pixels, result, quads, powers)
    return task


def _with_whole_rows(pixels: Pixels, dimensions: tuple[int, ...]) -> Pixels:
    """The image itself where the pixels of every row lie side by side, as in a window of a photo, else a copy."""
    is_image = pixels.ndim in dimensions and pixels.shape[2:] in ((), (3,)) and pixels.size > 0
    if not is_image or pixels.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"{pixels.dtype} of shape {pixels.shape} is not an image that the kernels know")
    return pixels if pixels[0].flags.c_contiguous else cast(Pixels, np.ascontiguousarray(pixels))


def _lanczos(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The kernel at distances within -4 to 4 pixels, before its weights are made to sum to 1."""
    return np.asarray(np.sinc(x) * np.sinc(x / (TAPS // 2)))


def _weights_at(fraction: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights (N, TAPS) of the pixels around positions that lie `fraction` (N,) after the middle two's first."""
    taps = np.arange(1 - TAPS // 2, 1 + TAPS // 2)
    weights = _lanczos(fraction[:, None] - taps)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


@lru_cache(maxsize=8)  # an album's photos have few sizes
def _lanczos_taps(new: int, old: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The first pixel (new,) that every new one is a sum of, which may lie outside, and the weights (new, TAPS).

    Positions are whole multiples of 1 / (2 * new), so that they are exact, and their weights recur.
    """
    positions = (2 * np.arange(new, dtype=np.int64) + 1) * old - new
    first = positions // (2 * new) + 1 - TAPS // 2
    period = new // math.gcd(new, old)
    weights = _weights_at(positions[:period] % (2 * new) / (2 * new)).astype(np.float32)
    return first.astype(np.int32), np.tile(weights, (new // period, 1))


@cache
def _lanczos_polynomials() -> NDArray[np.float32]:
    """Coefficients (POWERS, TAPS) of the weights in powers of `fraction - 0.5`, lowest first.

    They go through the weights at Chebyshev's nodes and are nowhere further from them than 1e-7.
    """
    nodes = np.polynomial.chebyshev.chebpts1(POWERS) / 2
    powers = np.vander(nodes, increasing=True)
    return np.ascontiguousarray(np.linalg.solve(powers, _weights_at(nodes + 0.5)), np.float32)


def _in_bands(work: Callable[[int, int], None], rows: int, columns: int) -> None:
    """Call `work(first, last)` such that all rows are done, in as many threads as OpenCV would take."""
    bands = max(1, min(cv2.getNumThreads(), rows, rows * columns // PIXELS_OF_A_BAND))
    limits = [rows * band // bands for band in range(bands + 1)]
    others = [_pool(os.getpid()).submit(work, limits[band], limits[band + 1]) for band in range(1, bands)]
    work(limits[0], limits[1])
    for other in others:
        other.result()


@cache
def _pool(process: int) -> ThreadPoolExecutor:
    """The threads of a process: one that was forked has lost those of its parent."""
    return ThreadPoolExecutor(max(1, os.cpu_count() or 1), thread_name_prefix="resampling")
