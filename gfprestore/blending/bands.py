"""Frequency bands: the Laplacian pyramid that every step of blending works on.

Burt and Adelson, "The Laplacian Pyramid as a Compact Image Code", 1983. One split serves strength, colour matching,
grain and sharpness; each level holds one octave, at the smallest size that carries it, so that all of it is cheap.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

FloatImage = NDArray[np.float32]

RESIDUAL_SIDE = 16
"""Side of the coarsest level. It holds waves longer than an eighth of the crop: the light on the face, not the face."""


def count_octaves(size: int) -> int:
    """Count the octaves above the residual in a crop of this side.

    Args:
        size: Side S of the crop in pixels, at least twice RESIDUAL_SIDE.

    Returns:
        5 for S = 512.

    Raises:
        ValueError: The crop is too small to be split.
    """
    octaves = int(np.log2(max(size, 1) / RESIDUAL_SIDE))
    if octaves < 1:
        raise ValueError(f"a crop of side {size} cannot be split into bands; the least is {2 * RESIDUAL_SIDE}")
    return octaves


def band_gains(strength: float, octaves: int) -> tuple[float, ...]:
    """Say how much of a change each octave takes at a strength, finest first.

    Strength moves a limit from fine to coarse waves instead of fading two pictures into each other: at 0.5 the finest
    octave is the restoration's alone, so no edge is seen twice, and the coarsest is still the photo's, so the features
    keep their places.

    Args:
        strength: 0 to 1.
        octaves: Levels K of the pyramid, without the residual.

    Returns:
        K gains in 0..1, each of which never falls as the strength rises; all 0 at 0 and all 1 at 1.

    Raises:
        ValueError: The strength is out of range.
    """
    if not 0.0 <= strength <= 1.0:
        raise ValueError(f"strength must be between 0 and 1, not {strength}")
    coarseness = [octave / max(octaves - 1, 1) for octave in range(octaves)]
    return tuple(min(1.0, max(0.0, 2.0 * strength - coarse)) for coarse in coarseness)


def split_bands(image: FloatImage, octaves: int) -> list[FloatImage]:
    """Split an image into octaves, finest first, and what remains below them.

    Args:
        image: float32 (H, W) or (H, W, C), any range.
        octaves: Levels K before the residual.

    Returns:
        K + 1 arrays; level k is (ceil(H / 2^k), ceil(W / 2^k)[, C]) and `join_bands` of them is `image`.
    """
    bands: list[FloatImage] = []
    current = image
    for _ in range(octaves):
        # cv2 drops an axis of one channel.
        coarser = np.asarray(cv2.pyrDown(current), np.float32)
        coarser = coarser.reshape(*coarser.shape[:2], *image.shape[2:])
        bands.append(current - _enlarge(coarser, current))
        current = coarser
    return [*bands, current]


def join_bands(bands: Sequence[FloatImage]) -> FloatImage:
    """Put the bands of `split_bands` together again.

    Args:
        bands: Levels, finest first; the last is the residual.

    Returns:
        float32, the shape of the first level.
    """
    current = bands[-1]
    for band in reversed(bands[:-1]):
        current = _enlarge(current, band)
        current += band
    return current


def scale_channels(band: FloatImage, gains: NDArray[np.float32]) -> None:
    """Multiply the channels of a band (h, w, C) by gains (C,), in place."""
    # Repeated for a row: numpy takes nine times as long to repeat three numbers itself, for every pixel.
    band *= np.tile(gains, (band.shape[1], 1))


def _enlarge(coarser: FloatImage, like: FloatImage) -> FloatImage:
    height, width = like.shape[:2]
    return np.asarray(cv2.pyrUp(coarser, dstsize=(width, height)), np.float32).reshape(like.shape)
