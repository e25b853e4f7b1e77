"""Film grain and sensor noise: measured in the photo, given back to the restored face.

A restoration is clean, and a clean face in a grainy photo looks pasted from another camera. The photo's noise is
measured octave by octave, and each octave of the face is topped up to it, so that the grain's size is right however
large the face is in the photo: the octaves below the photo's own sampling hold no noise and get none.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from gfprestore.blending.bands import FloatImage, join_bands, scale_channels, split_bands
from gfprestore.blending.masks import oval_mask

MAD_OF_NORMAL = 0.6745
"""Median absolute value of a normal distribution of standard deviation 1."""

_BLOCK_PIXELS = 16
"""Flatness is judged in squares of this side, in crop pixels: small enough to fit between the features of a face."""

_FLAT_PART = 0.3
"""The flattest part of the squares, by the next coarser octave, in which noise is measured."""

_SHADOW, _HIGHLIGHT = 4.0, 96.0
"""Lightness beyond which a scan clips, so that what is flat there says nothing about noise."""

_LEAST_OCTAVES = 2
"""Octaves read as noise in a crop that is no larger than the photo. An upsampled crop adds those the photo is too small
to fill; coarser ones hold too much of the face, and noise in them looks like blotched skin."""

_MOST_OCTAVES = 4
"""Octaves, from the crop's finest, that may hold noise at all: waves longer than an eye are shading."""

_PAPER = 20.0
"""Distance from white, in lightness, within which noise fades."""

_LEAST_GRAIN = 0.2
"""Part of the noise that remains in the deepest shadow and in white."""

_MANY_ROWS = 256
"""Rows of a level from which every other one is enough to measure its noise."""

_MOST_GRAIN = 8.0
"""Largest noise believed, in Lab units: above it, it is texture."""


def measure_grain(
    bands: Sequence[FloatImage], lightness: FloatImage, sampling: float, *, in_doubt_more: bool = False
) -> NDArray[np.float32]:
    """Measure noise by octave and channel, robustly, where the picture is flat.

    Args:
        bands: Pyramid of a crop from `split_bands`, levels (h, w, C); channel 0 is lightness.
        lightness: (S, S), 0..100, of the same crop.
        sampling: Photo pixels per crop pixel.
        in_doubt_more: In the octaves where even flat skin is hardly told from noise, believe the larger of two
            measurements instead of the smaller.

    Returns:
        float32 (K, C): standard deviation of each octave's coefficients that is noise, in their own units; zero in
        octaves too coarse to tell noise from the picture.
    """
    octaves = len(bands) - 1
    channels = bands[0].shape[2]
    grain = np.zeros((octaves, channels), np.float32)
    side = max(1, lightness.shape[0] // _BLOCK_PIXELS)
    level = _shrink(lightness, side)
    # On the face alone: noise follows the light, and a dark background has less of it.
    on_face = _shrink(oval_mask(lightness.shape[0]), side) > 0.5
    unclipped = (level > _SHADOW) & (level < _HIGHLIGHT)
    if not (unclipped & on_face).any():
        return grain
    own_octave = int(np.ceil(np.log2(1 / sampling)))
    for octave in range(min(octaves, _MOST_OCTAVES, max(_LEAST_OCTAVES, own_octave + 1))):
        # In the coarser octaves all squares of a small face hold some of it, and some backgrounds are no flatter.
        places = [unclipped & on_face] if octave < _LEAST_OCTAVES else [unclipped & on_face, unclipped]
        found = [_flat_deviation(bands[octave], bands[octave + 1], place) for place in places]
        believed = np.max(found, axis=0) if in_doubt_more else np.min(found, axis=0)
        grain[octave] = np.minimum(believed, _MOST_GRAIN)
    return grain


def _flat_deviation(band: FloatImage, coarser: FloatImage, squares: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Measure the robust deviation of a level's channels, (C,), in the flattest of the given squares."""
    structure = _shrink(np.abs(coarser[..., 0]), squares.shape[0])
    limit = np.quantile(structure[squares], _FLAT_PART)
    flattest = ((structure <= limit) & squares).astype(np.uint8)
    # A few ten thousand coefficients fix a median well enough: every other row where there are more.
    band = band[:: 2 if band.shape[0] >= _MANY_ROWS else 1]
    height, width = band.shape[:2]
    flat = np.asarray(cv2.resize(flattest, (width, height), interpolation=cv2.INTER_NEAREST)) > 0
    return np.asarray(np.median(np.abs(band[flat].T), axis=1) / MAD_OF_NORMAL, np.float32)


def draw_grain(amounts: NDArray[np.float32], lightness: FloatImage, seed: int) -> FloatImage:
    """Draw noise that measures as `amounts` in the light that the face is in, and less in its shadows.

    Args:
        amounts: (K, C), standard deviation of each octave's coefficients, as `measure_grain` gives them.
        lightness: (S, S), 0..100, of the crop that gets the noise.
        seed: Chooses the pattern; the same seed gives the same bytes.

    Returns:
        float32 (S, S, C), to be added.
    """
    size = lightness.shape[0]
    channels = amounts.shape[1]
    deviations = _deviations(amounts, _leakage(size, len(amounts)))
    bands = []
    for octave, deviation in enumerate(deviations):
        side = -(-size >> octave)
        if deviation.any():
            shift = (seed % side, (seed // side) % side)
            pattern = np.roll(_noise_octave(side)[..., :channels], shift, axis=(0, 1))
            scale_channels(pattern, deviation)
            bands.append(pattern)
        else:
            bands.append(np.zeros((side, side, channels), np.float32))
    bands.append(np.zeros((-(-size >> len(deviations)),) * 2 + (channels,), np.float32))
    noise = join_bands(bands)
    light = _light_of_face(lightness)
    # Stacked by cv2: numpy takes five times as long to spread one channel over three.
    noise *= light[..., None] if channels == 1 else cv2.merge([light] * channels)
    return noise


def _light_of_face(lightness: FloatImage) -> FloatImage:
    """Weigh noise by light, (S, S), about 1 on the face: a print's shadows and its white paper hold less of it."""
    size = lightness.shape[0]
    small = _shrink(lightness, max(1, size // _BLOCK_PIXELS))
    weight = _shrink(oval_mask(size), small.shape[0])
    usual = float((small * weight).sum() / weight.sum())
    light = np.clip(np.minimum(small / max(usual, 1.0), (100 - small) / _PAPER), _LEAST_GRAIN, 1.0)
    return np.asarray(cv2.resize(light, (size, size), interpolation=cv2.INTER_LINEAR), np.float32)


def _deviations(amounts: NDArray[np.float32], leakage: NDArray[np.float32]) -> NDArray[np.float32]:
    """Find the coefficients' deviation (K, C) that shows as `amounts` after joining and splitting again."""
    wanted = np.square(amounts)
    power = wanted.copy()
    # Octaves leak into each other, so this is a system of equations whose unknowns cannot be negative.
    for _ in range(12):
        power *= wanted / np.maximum(leakage @ power, 1e-12)
    return np.sqrt(power)


@lru_cache(maxsize=4)
def _leakage(size: int, octaves: int) -> NDArray[np.float32]:
    """Measure the variance that octave i shows where octave j alone holds noise of deviation 1, (K, K)."""
    leakage = np.eye(octaves, dtype=np.float32)
    empty = split_bands(np.zeros((size, size, 1), np.float32), octaves)
    for source in range(min(octaves, _MOST_OCTAVES)):
        bands = list(empty)
        bands[source] = _noise_octave(bands[source].shape[0])[..., :1]
        shown = split_bands(join_bands(bands), octaves)
        leakage[:, source] = [float(np.square(band).mean()) for band in shown[:-1]]
    return leakage


@lru_cache(maxsize=16)
def _noise_octave(side: int) -> FloatImage:
    """Draw one octave of white noise, standard deviation 1, (side, side, 3); always the same."""
    white = np.random.default_rng(side).standard_normal((side, side, 3), np.float32)
    # White noise without its coarser octaves, as a Laplacian level of noise is.
    octave = split_bands(white, 1)[0]
    octave /= octave.std(axis=(0, 1))
    octave.setflags(write=False)
    return octave


def _shrink(image: FloatImage, side: int) -> FloatImage:
    return np.asarray(cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA), np.float32)
