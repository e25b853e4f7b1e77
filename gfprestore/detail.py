"""Never a blurrier face: how sharp a face is, and where the photo is sharper than its restoration.

A generator draws in a frame of its own, 512 pixels for the released weights. A face photographed larger than that holds
detail which no such restoration can: the face is left alone where it is sharp, and elsewhere keeps its detail wherever
there is more of it than in the restoration.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from gfprestore.bands import FloatImage
from gfprestore.masks import oval_mask, smoothstep

FRAME_SAMPLING = 0.9
"""Photo pixels per crop pixel from which a face fills the generator's frame. Smaller faces cannot be sharp in it."""

_FRAME_SAMPLING_START = 0.7
"""Photo pixels per crop pixel from which the photo's detail begins to count against the restoration's."""

SHARP_ENOUGH = 0.42
"""Least sharpness of a face that is left alone. 24 faces in focus measure 0.49 to 0.79 and large phone photos 0.48 to
0.60; the same faces blurred by one crop pixel 0.28 to 0.38, and faces upsampled from 16 to 54 % 0.12 to 0.42."""

LEAST_GRADIENT = 0.98
"""Part of a sharp face's gradient energy that its result must keep."""

_KEPT_OCTAVES = 3
"""Octaves in which the photo's detail may stand; coarser ones tell sharp from blurred no longer."""

_KEEP_FROM, _KEEP_FULL = 0.7, 1.0
"""Amplitude of the photo's detail, relative to the restoration's, from which it begins to stand and wholly stands."""


def measure_sharpness(bands: Sequence[FloatImage], grain: NDArray[np.float32]) -> float:
    """Measure how sharp a face is in its crop, whatever its contrast, noise or the model.

    The amplitude of the finest octave relative to that two octaves coarser, noise taken off both, inside the face's
    oval. A natural picture in focus loses little from octave to octave; a blurred one loses most.

    Args:
        bands: Pyramid of the crop, levels (h, w, C); channel 0 is lightness.
        grain: (K, C) from `measure_grain`.

    Returns:
        0 for no detail at all, about 0.5 to 0.8 in focus.
    """
    finest, coarser = (_face_energy(bands, grain, octave) for octave in (0, 2))
    return float(np.sqrt(finest / coarser)) if coarser > 0 else 0.0


def photo_shares(
    photo: Sequence[FloatImage], restored: Sequence[FloatImage], grain: NDArray[np.float32], sampling: float
) -> list[FloatImage | None]:
    """Weigh where the photo's own detail stands against the restoration's.

    Args:
        photo: Pyramid of the original crop, levels (h, w, C); channel 0 is lightness.
        restored: Pyramid of the restored crop.
        grain: (K, C), noise of the photo.
        sampling: Photo pixels per crop pixel.

    Returns:
        For each octave, finest first, the photo's share (h, w, 1), 0..1 and smooth; None where it is zero everywhere.
    """
    octaves = len(photo) - 1
    reach = (sampling - _FRAME_SAMPLING_START) / (FRAME_SAMPLING - _FRAME_SAMPLING_START)
    if reach <= 0:
        return [None] * octaves
    shares: list[FloatImage | None] = []
    for octave in range(octaves):
        if octave >= _KEPT_OCTAVES:
            shares.append(None)
            continue
        own = np.maximum(_local_energy(photo[octave]) - grain[octave, 0] ** 2, 0.0)
        drawn = _local_energy(restored[octave]) + np.float32(1e-6)
        ratio = np.sqrt(own / drawn)
        share = smoothstep((ratio - _KEEP_FROM) / (_KEEP_FULL - _KEEP_FROM)) * np.float32(min(reach, 1.0))
        shares.append(share[..., None])
    return shares


def gradient_energy(lightness: FloatImage) -> float:
    """Sum up squared differences between neighbours inside the face's oval.

    Args:
        lightness: (S, S), any range.

    Returns:
        Mean over the oval, in squared units of `lightness`.
    """
    weight = oval_mask(lightness.shape[0])
    across = np.square(np.diff(lightness, axis=1))[:-1] + np.square(np.diff(lightness, axis=0))[:, :-1]
    return float((across * weight[:-1, :-1]).sum() / weight.sum())


def _face_energy(bands: Sequence[FloatImage], grain: NDArray[np.float32], octave: int) -> float:
    """Mean square of one octave of lightness inside the oval, without its noise."""
    band = bands[octave][..., 0]
    weight = np.asarray(cv2.resize(oval_mask(bands[0].shape[0]), band.shape[::-1], interpolation=cv2.INTER_AREA))
    energy = float((np.square(band) * weight).sum() / weight.sum())
    return max(0.0, energy - float(grain[octave, 0]) ** 2)


def _local_energy(band: FloatImage) -> FloatImage:
    # Nine samples wide: a feature and its surroundings, so that the share does not follow single edges.
    lightness = np.ascontiguousarray(band[..., 0])
    return np.asarray(cv2.boxFilter(np.square(lightness), -1, (9, 9)), np.float32)
