"""The prints of a scan without the scanner's bed around them, as far as the bed is flat and neutral."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

NEUTRAL = 4.0
"""Chroma, in Lab units, up to which a bed is gray, white or black."""

FLAT = 3.0
"""How much the lightness of a bed differs at most from one pixel of the small copy to its neighbours."""

ONE_LIGHTNESS = 10.0
"""Furthest that a bed's lightness lies from its median: a white sky and a gray street are no one bed."""

BARE_SIDES = 2
"""Sides of the scan that show bed from end to end at least: two where a print lies in the corner, while skies and walls
in a picture mostly take one."""

_BARE_SHARE = 0.95

LEAST_FILL = 0.85
"""Part of its tilted rectangle that a print fills at least; somebody before a white wall fills less."""

LEAST_PRINT = 0.02
"""Part of the scan below which something on the bed is no print, such as a speck of dust."""

_EDGE = 2
"""Pixels of the small copy next to the bed that are of both."""


def find_prints(lab: NDArray[np.float32]) -> NDArray[np.bool_] | None:
    """Tell the prints of a scan from the bed that they lie on.

    Args:
        lab: A small copy of the scan, float32 (H, W, 3).

    Returns:
        (H, W), the pixels of the prints without their outermost ones; None where no bed is seen, or where what lies on
        it are no rectangles.
    """
    bed = _find_bed(lab)
    if bed is None:
        return None
    around = cv2.dilate(bed.astype(np.uint8), np.ones((2 * _EDGE + 1, 2 * _EDGE + 1), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(1 - around, connectivity=4)
    least = LEAST_PRINT * bed.size
    pieces = [labels == label for label in range(1, count) if stats[label, cv2.CC_STAT_AREA] >= least]
    if not pieces or not all(_is_rectangle(piece) for piece in pieces):
        return None
    return np.asarray(np.logical_or.reduce(pieces), np.bool_)


def _find_bed(lab: NDArray[np.float32]) -> NDArray[np.bool_] | None:
    """Select flat neutral pixels of one lightness that are joined to the scan's border; None where it shows few."""
    light = np.ascontiguousarray(lab[..., 0])
    around = np.ones((3, 3), np.uint8)
    is_flat = cv2.dilate(light, around) - cv2.erode(light, around) <= FLAT
    is_bare = is_flat & (np.hypot(lab[..., 1], lab[..., 2]) <= NEUTRAL)
    border = np.zeros(light.shape, np.bool_)
    border[[0, -1]] = border[:, [0, -1]] = True
    if not (is_bare & border).any():
        return None
    is_bare &= np.abs(light - np.median(light[is_bare & border])) <= ONE_LIGHTNESS
    _, labels = cv2.connectedComponents(is_bare.astype(np.uint8), connectivity=4)
    bed = is_bare & np.isin(labels, np.unique(labels[is_bare & border]))
    sides = bed[0], bed[-1], bed[:, 0], bed[:, -1]
    return bed if sum(side.mean() >= _BARE_SHARE for side in sides) >= BARE_SIDES else None


def _is_rectangle(piece: NDArray[np.bool_]) -> bool:
    """Tell whether a connected region fills the smallest tilted rectangle around it."""
    (_, (width, height), _) = cv2.minAreaRect(np.argwhere(piece).astype(np.float32))
    return bool(piece.sum() >= LEAST_FILL * (width + 1) * (height + 1))
