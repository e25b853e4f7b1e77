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

SHARP_ENOUGH = 0.36
"""Least sharpness of a face that is left alone. 16 faces in focus measure 0.38 to 0.65 and large phone photos 0.37 to
0.49; the same faces blurred by one crop pixel 0.23 to 0.34, under three scratches and dust 0.27 to 0.43."""

NEARLY_SHARP = 0.3
"""Sharpness from which a restoration must not cost gradient energy. Below it what it takes away is grain and dust."""

_SQUARE_PIXELS = 16
"""Side of the squares, in crop pixels, that sharpness is measured in: a scratch spoils only those it crosses."""

_FLATTER_PART = 0.6
"""Part of the face's squares, the flatter ones, that say nothing about focus."""

_FINE_PIXELS, _COARSE_PIXELS = 0.8, 2.4
"""Standard deviations, in crop pixels, of the blurs between which edges are compared: a lens's and a loupe's."""

_EDGE_PART = 0.03
"""Part of the face's oval that its strongest edges take: eyelids, brows, nostrils, the line of the mouth."""

_CRISP_SAMPLINGS, _CRISP_STEEPNESS = (1.2, 2.0), (1.5, 1.35)
"""Least steepness of the edges of a face that is left alone, by photo pixels per crop pixel. Of 32 faces in focus that
just fill the frame 28 measure 1.5 to 2.0 and the rest 1.45 and more; old prints of that size with grain and scratches,
blurred by one to two pixels, 1.33 to 1.47. Averaging down sharpens: a phone portrait that is four times as large
measures 1.39, and its restoration could only lose."""

LEAST_GRADIENT = 0.98
"""Part of a sharp face's gradient energy that its result must keep."""

_KEPT_OCTAVES = 3
"""Octaves in which the photo's detail may stand; coarser ones tell sharp from blurred no longer."""

_KEEP_FROM, _KEEP_FULL = 0.7, 1.0
"""Amplitude of the photo's detail, relative to the restoration's, from which it begins to stand and wholly stands."""


def measure_sharpness(bands: Sequence[FloatImage], grain: NDArray[np.float32]) -> float:
    """Measure how sharp a face is in its crop, whatever its contrast, its noise or the model.

    The amplitude of the finest octave relative to that two octaves coarser, noise taken off both: a picture in focus
    loses little from octave to octave, a blurred one most. It is the median over the squares of the face that hold
    most structure, so that a few scratches do not pass for detail.

    Args:
        bands: Pyramid of the crop, levels (h, w, C); channel 0 is lightness.
        grain: (K, C) from `measure_grain`.

    Returns:
        0 for no detail at all, about 0.4 to 0.65 in focus.
    """
    side = max(1, bands[0].shape[0] // _SQUARE_PIXELS)
    finest, coarser = (_energy_in_squares(bands[octave], float(grain[octave, 0]), side) for octave in (0, 2))
    on_face = _shrink(oval_mask(bands[0].shape[0]), side) > 0.5
    structured = on_face & (coarser >= np.quantile(coarser[on_face], _FLATTER_PART)) & (coarser > 0)
    return float(np.sqrt(np.median(finest[structured] / coarser[structured]))) if structured.any() else 0.0


def edge_steepness(lightness: FloatImage) -> float:
    """Measure how steep a face's edges are, whatever its noise, dust and scratches.

    The slope of the strongest edges under a slight blur, along the direction that they have under a strong one,
    relative to their slope under that one: noise has no part in that direction, and what is small in that blur. A step
    blurred by s has sqrt((s^2 + 2.4^2) / (s^2 + 0.8^2)).

    Args:
        lightness: (S, S), any range.

    Returns:
        The median over the edges: 1 and a little for a blurred face, 1.4 to 2 in focus; 0 for a flat one.
    """
    (fine_x, fine_y), (coarse_x, coarse_y) = (_slopes(lightness, radius) for radius in (_FINE_PIXELS, _COARSE_PIXELS))
    coarse = np.hypot(coarse_x, coarse_y)
    on_face = oval_mask(lightness.shape[0]) > 0.5
    crests = coarse >= 0.98 * cv2.dilate(coarse, np.ones((5, 5), np.uint8))
    edges = on_face & crests & (coarse >= np.quantile(coarse[on_face], 1 - _EDGE_PART)) & (coarse > 0)
    if not edges.any():
        return 0.0
    along = fine_x[edges] * coarse_x[edges] + fine_y[edges] * coarse_y[edges]
    return float(np.median(along / coarse[edges] ** 2))


def is_crisp(lightness: FloatImage, sampling: float) -> bool:
    """Tell whether a face's edges are as steep as those of a face in focus.

    Args:
        lightness: (S, S), any range.
        sampling: Photo pixels per crop pixel.
    """
    return edge_steepness(lightness) >= float(np.interp(sampling, _CRISP_SAMPLINGS, _CRISP_STEEPNESS))


def _slopes(lightness: FloatImage, radius: float) -> tuple[FloatImage, FloatImage]:
    blurred = cv2.GaussianBlur(lightness, (0, 0), radius)
    return (
        np.asarray(cv2.Sobel(blurred, cv2.CV_32F, 1, 0), np.float32),
        np.asarray(cv2.Sobel(blurred, cv2.CV_32F, 0, 1), np.float32),
    )


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


def _energy_in_squares(band: FloatImage, noise: float, side: int) -> FloatImage:
    """Mean square of one octave of lightness without its noise, (side, side)."""
    energy = _shrink(np.square(band[..., 0]), side) - np.float32(noise**2)
    return np.asarray(np.maximum(energy, 0), np.float32)


def _shrink(image: FloatImage, side: int) -> FloatImage:
    return np.asarray(cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA), np.float32)


def _local_energy(band: FloatImage) -> FloatImage:
    # Nine samples wide: a feature and its surroundings, so that the share does not follow single edges.
    lightness = np.ascontiguousarray(band[..., 0])
    return np.asarray(cv2.boxFilter(np.square(lightness), -1, (9, 9)), np.float32)
