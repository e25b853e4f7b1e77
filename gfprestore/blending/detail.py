"""Where a photo's own detail stands against its restoration's: never a blurrier face.

A face that fills the generator's frame may hold detail which no restoration can. It keeps its detail wherever there is
more of it than in the restoration, and it is no noise.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from gfprestore.blending.bands import FloatImage
from gfprestore.blending.grain import measure_grain
from gfprestore.blending.masks import oval_mask, smoothstep
from gfprestore.blending.sharpness import FRAME_SAMPLING, SQUARE_PIXELS, energy_in_squares, find_edges

_FRAME_SAMPLING_START = 0.7
"""Photo pixels per crop pixel from which the photo's detail begins to count against the restoration's."""

_KEPT_OCTAVES = 3
"""Octaves in which the photo's detail may stand; coarser ones tell sharp from blurred no longer."""

_TELLING_OCTAVES = 2
"""Octaves by which a part of a face is judged sharper than its restoration: blur shows in the finest."""

_NOISE_MARGIN = 1.25
"""What is no more than the measured noise times this is not detail: noise is a little stronger in mid-tones."""

_CRISP_SMALL = (1.6, 1.75)
"""Edge steepness from which faces below the frame's size have parts that stand. Enlarged to the frame, two sharp small
faces measure 1.8, soft and grainy ones 1.1 to 1.6."""

_EMPTY = 0.6
"""Amplitude of the photo's octave, relative to the restoration's, below which it is empty."""

_KEEP_FROM, _KEEP_FULL = 0.7, 1.0
"""Amplitude of the photo's detail, relative to the restoration's, from which it begins to stand and wholly stands."""


def photo_shares(
    photo: Sequence[FloatImage],
    restored: Sequence[FloatImage],
    grain: NDArray[np.float32],
    lightness: FloatImage,
    sampling: float,
) -> list[FloatImage | None]:
    """Weigh where the photo's own detail stands against the restoration's.

    Detail stands octave by octave in a large face. Where a whole part of a face is sharper than its restoration, as in
    a half-blurred one, that part stands in all octaves: a restoration that falls short of the fine ones has only
    guessed the coarse ones. Of smaller faces only crisp ones have such parts, whatever passes for detail elsewhere.

    Args:
        photo: Pyramid of the original crop, levels (h, w, C); channel 0 is lightness.
        restored: Pyramid of the restored crop.
        grain: (K, C), noise of the photo by its sampling.
        lightness: Of the original crop, (S, S), 0..100.
        sampling: Photo pixels per crop pixel.

    Returns:
        For each octave, finest first, the photo's share (h, w, 1), 0..1 and smooth; None where it is zero everywhere.
    """
    octaves = len(photo) - 1
    empty = count_empty_octaves(photo, restored, grain)
    noise = grain
    if empty:
        # Enlarged before, the photo's noise is as much coarser as in a face that is so much smaller, and spotty.
        noise = np.float32(_NOISE_MARGIN) * measure_grain(photo, lightness, sampling / 2**empty)
    large = _ramp(sampling, _FRAME_SAMPLING_START, FRAME_SAMPLING)
    parts = sharper_parts(photo, restored, noise)
    if parts.any() and large < 1:
        parts = parts * np.float32(max(large, _ramp(find_edges(lightness).steepness(), *_CRISP_SMALL)))
    has_parts = bool(parts.any())
    shares: list[FloatImage | None] = []
    for octave in range(octaves):
        share = None
        if has_parts:
            height, width = photo[octave].shape[:2]
            share = np.asarray(cv2.resize(parts, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
        if large > 0 and empty <= octave < _KEPT_OCTAVES:
            fine = _local_share(photo[octave], restored[octave], float(noise[octave, 0])) * np.float32(large)
            share = fine if share is None else np.maximum(fine, share)
        shares.append(None if share is None else share[..., None])
    return shares


def count_empty_octaves(photo: Sequence[FloatImage], restored: Sequence[FloatImage], grain: NDArray[np.float32]) -> int:
    """Count the finest octaves in which a photo holds next to nothing: it is blurred, or was enlarged before.

    Args:
        photo: Pyramid of the original crop, levels (h, w, C); channel 0 is lightness.
        restored: Pyramid of the restored crop.
        grain: (K, C), noise of the photo.

    Returns:
        How many from the first on.
    """
    most = min(_KEPT_OCTAVES, len(grain))
    for octave in range(most):
        weight = oval_mask(photo[octave].shape[0])
        own, drawn = (float((np.square(bands[octave][..., 0]) * weight).sum()) for bands in (photo, restored))
        own -= float(grain[octave, 0] ** 2 * weight.sum())
        if own >= _EMPTY**2 * drawn:
            return octave
    return most


def sharper_parts(
    photo: Sequence[FloatImage], restored: Sequence[FloatImage], grain: NDArray[np.float32]
) -> FloatImage:
    """Weigh the parts of a face that are sharper than their restoration, whatever scratches and dust run through them.

    Args:
        photo: Pyramid of the original crop, levels (h, w, C); channel 0 is lightness.
        restored: Pyramid of the restored crop.
        grain: (K, C), noise of the photo.

    Returns:
        (S / 16, S / 16), 0..1: the median over five by five squares, of the octave that tells less of sharpness.
    """
    side = max(1, photo[0].shape[0] // SQUARE_PIXELS)
    ratios = []
    for octave in range(min(_TELLING_OCTAVES, len(photo) - 1)):
        own = energy_in_squares(photo[octave], _NOISE_MARGIN * float(grain[octave, 0]), side)
        drawn = energy_in_squares(restored[octave], 0.0, side) + np.float32(1e-6)
        ratios.append(cv2.medianBlur(np.sqrt(own / drawn), 5))
    share = _standing(np.min(ratios, axis=0))
    return np.asarray(cv2.GaussianBlur(share, (0, 0), 1.0), np.float32)


def _local_share(photo: FloatImage, restored: FloatImage, noise: float) -> FloatImage:
    """Weigh one octave of the photo by its energy nearby, noise taken off, against the restoration's; (h, w)."""
    own = np.maximum(_local_energy(photo) - np.float32(noise**2), 0)
    return _standing(np.sqrt(own / (_local_energy(restored) + np.float32(1e-6))))


def _standing(ratio: FloatImage) -> FloatImage:
    return smoothstep((ratio - np.float32(_KEEP_FROM)) / np.float32(_KEEP_FULL - _KEEP_FROM))


def _ramp(value: float, start: float, full: float) -> float:
    return min(max((value - start) / (full - start), 0.0), 1.0)


def _local_energy(band: FloatImage) -> FloatImage:
    # Nine samples wide: a feature and its surroundings, so that the share does not follow single edges.
    lightness = np.ascontiguousarray(band[..., 0])
    return np.asarray(cv2.boxFilter(np.square(lightness), -1, (9, 9)), np.float32)
