"""How sharp a face is, and whether a restoration could only make it blurrier.

A generator draws in a frame of its own, 512 pixels for the released weights. A face photographed larger than that holds
detail which no such restoration can: where it is sharp it is left alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from gfprestore.blending.bands import FloatImage
from gfprestore.blending.masks import oval_mask

FRAME_SAMPLING = 0.9
"""Photo pixels per crop pixel from which a face fills the generator's frame. Smaller faces cannot be sharp in it."""

LEAST_OCTAVES = 3
"""Octaves of the smallest crop whose sharpness is told, one of 128 pixels: it compares the first with the third."""

SHARP_ENOUGH = 0.36
"""Least sharpness of a face that is left alone. 16 faces in focus measure 0.38 to 0.65 and large phone photos 0.37 to
0.49; the same faces blurred by one crop pixel 0.23 to 0.34, under three scratches and dust 0.27 to 0.43."""

NEARLY_SHARP = 0.3
"""Sharpness from which a restoration must not cost gradient energy. Below it what it takes away is grain and dust."""

SQUARE_PIXELS = 16
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
    finest, coarser, on_face = _energies(bands, grain)
    return _sharpness_within(finest, coarser, on_face)


def _energies(
    bands: Sequence[FloatImage], grain: NDArray[np.float32]
) -> tuple[FloatImage, FloatImage, NDArray[np.bool_]]:
    """Energy of the finest octave and of that two octaves coarser, in squares, and which squares lie on the face."""
    side = max(1, bands[0].shape[0] // SQUARE_PIXELS)
    finest, coarser = (energy_in_squares(bands[octave], float(grain[octave, 0]), side) for octave in (0, 2))
    return finest, coarser, _shrink(oval_mask(bands[0].shape[0]), side) > 0.5


def _sharpness_within(finest: FloatImage, coarser: FloatImage, squares: NDArray[np.bool_]) -> float:
    structured = squares & (coarser >= np.quantile(coarser[squares], _FLATTER_PART)) & (coarser > 0)
    return float(np.sqrt(np.median(finest[structured] / coarser[structured]))) if structured.any() else 0.0


@dataclass(frozen=True, eq=False)
class Edges:
    """The strongest edges of a face."""

    rows: NDArray[np.intp]
    """(E,)."""

    columns: NDArray[np.intp]
    """(E,)."""

    slopes: NDArray[np.float32]
    """(E,): their slope under a slight blur, along the direction that they have under a strong one, relative to their
    slope under that one: noise has no part in that direction, and what is small in that blur."""

    def steepness(self, half: NDArray[np.bool_] | None = None) -> float:
        """Returns the median of the slopes in a part of the crop, (S, S), or in all of it.

        A step blurred by s has sqrt((s^2 + 2.4^2) / (s^2 + 0.8^2)): 1 and a little for a blurred face, 1.4 to 2 in
        focus. 0 where there are no edges.
        """
        slopes = self.slopes if half is None else self.slopes[half[self.rows, self.columns]]
        return float(np.median(slopes)) if slopes.size else 0.0


def find_edges(lightness: FloatImage) -> Edges:
    """Find a face's edges and how steep they are, whatever its noise, dust and scratches.

    Args:
        lightness: (S, S), any range.
    """
    (fine_x, fine_y), (coarse_x, coarse_y) = (_slopes(lightness, radius) for radius in (_FINE_PIXELS, _COARSE_PIXELS))
    coarse = np.hypot(coarse_x, coarse_y)
    on_face = oval_mask(lightness.shape[0]) > 0.5
    crests = coarse >= 0.98 * cv2.dilate(coarse, np.ones((5, 5), np.uint8))
    rows, columns = np.nonzero(on_face & crests & (coarse >= np.quantile(coarse[on_face], 1 - _EDGE_PART)))
    at = rows, columns
    along = fine_x[at] * coarse_x[at] + fine_y[at] * coarse_y[at]
    strong = coarse[at] > 0
    return Edges(rows[strong], columns[strong], along[strong] / coarse[at][strong] ** 2)


def measure_halves(
    bands: Sequence[FloatImage], grain: NDArray[np.float32], edges: Edges, sampling: float
) -> tuple[float, float]:
    """Measure the left, right, upper and lower half of a face.

    Args:
        bands: Pyramid of the crop, levels (h, w, C); channel 0 is lightness.
        grain: (K, C) from `measure_grain`.
        edges: Of the same crop.
        sampling: Photo pixels per crop pixel.

    Returns:
        As `measure_sharpness`: that of the softest half, and that of the sharpest whose edges are crisp, 0 for none.
    """
    size = bands[0].shape[0]
    finest, coarser, on_face = _energies(bands, grain)
    measured, crisp = [], [0.0]
    for axis in (0, 1):
        for low, high in ((0.0, 0.5), (0.5, 1.0)):
            crop_half, squares_half = (_stripe(n, axis, low, high) for n in (size, len(on_face)))
            measured.append(_sharpness_within(finest, coarser, on_face & squares_half))
            if is_crisp(edges.steepness(crop_half), sampling):
                crisp.append(measured[-1])
    return min(measured), max(crisp)


def _stripe(size: int, axis: int, low: float, high: float) -> NDArray[np.bool_]:
    stripe = np.zeros((size, size), np.bool_)
    stripe[(slice(None),) * axis + (slice(round(low * size), round(high * size)),)] = True
    return stripe


def is_crisp(steepness: float, sampling: float) -> bool:
    """Tell whether a face's edges are as steep as those of a face in focus.

    Args:
        steepness: Of its edges.
        sampling: Photo pixels per crop pixel.
    """
    return steepness >= float(np.interp(sampling, _CRISP_SAMPLINGS, _CRISP_STEEPNESS))


def _slopes(lightness: FloatImage, radius: float) -> tuple[FloatImage, FloatImage]:
    blurred = cv2.GaussianBlur(lightness, (0, 0), radius)
    return (
        np.asarray(cv2.Sobel(blurred, cv2.CV_32F, 1, 0), np.float32),
        np.asarray(cv2.Sobel(blurred, cv2.CV_32F, 0, 1), np.float32),
    )


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


def energy_in_squares(band: FloatImage, noise: float, side: int) -> FloatImage:
    """Mean square of one octave of lightness without its noise, (side, side)."""
    energy = _shrink(np.square(band[..., 0]), side) - np.float32(noise**2)
    return np.asarray(np.maximum(energy, 0), np.float32)


def _shrink(image: FloatImage, side: int) -> FloatImage:
    return np.asarray(cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA), np.float32)
