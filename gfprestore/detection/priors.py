"""RetinaFace's prior boxes, and what the network says about them turned into faces."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

MEAN = (123.0, 117.0, 104.0)
"""Subtracted from RGB in 0..255; facexlib's `mean_tensor`, there in BGR order."""

LEVELS = ((8, (16, 32)), (16, (64, 128)), (32, (256, 512)))
"""Stride and sides of the square priors of each pyramid level, in pixels; facexlib's `generate_config`."""

STRIDE = 32
"""Largest stride; photos whose sides are multiples of it have levels that lie exactly over each other."""

CENTRE_VARIANCE = 0.1
SIZE_VARIANCE = 0.2
"""Units of the network's offsets, relative to the prior's side; facexlib's `variance`."""

LARGEST_GROWTH = 8.0
"""A box is at most e to this times its prior: beyond any face, short of overflow."""


@lru_cache(maxsize=64)
def prior_boxes(height: int, width: int) -> NDArray[np.float32]:
    """Make the priors of a photo, in the order of the network's rows.

    Returns:
        (P, 3), read-only: centre x, centre y, side. In corner coordinates, where the first pixel spans 0 to 1.
    """
    levels = []
    for stride, sides in LEVELS:
        rows, columns = -(-height // stride), -(-width // stride)
        grid = np.empty((rows, columns, len(sides), 3), np.float32)
        grid[..., 0] = ((np.arange(columns) + 0.5) * stride)[None, :, None]
        grid[..., 1] = ((np.arange(rows) + 0.5) * stride)[:, None, None]
        grid[..., 2] = sides
        levels.append(grid.reshape(-1, 3))  # [H W A 3] -> [P 3]
    priors = np.concatenate(levels)
    priors.setflags(write=False)
    return priors


def decode_faces(
    output: NDArray[np.float32], size: tuple[int, int], threshold: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Decode the priors that score over the threshold.

    facexlib's boxes and landmarks are in corner coordinates: its priors' centres are half a stride into their cell and
    mirroring sends x to W - x. A pixel's centre there is its index plus a half, which is taken off here.

    Args:
        output: (P, 15), as `DetectionNetwork` gives it.
        size: (H, W) of the photo that the network saw.
        threshold: Least score, exclusive.

    Returns:
        Scores (K,), boxes (K, 4) as left, top, right, bottom, and landmarks (K, 5, 2), in pixel centres.
    """
    rows = np.flatnonzero(output[:, 0] > threshold)
    priors = prior_boxes(*size)[rows].astype(np.float64)
    found = output[rows].astype(np.float64)
    centres, sides = priors[:, :2], priors[:, 2:]
    middle = centres + found[:, 1:3] * CENTRE_VARIANCE * sides
    half = sides * np.exp(np.minimum(found[:, 3:5] * SIZE_VARIANCE, LARGEST_GROWTH)) / 2
    boxes = np.concatenate([middle - half, middle + half], axis=1) - 0.5
    offsets = found[:, 5:].reshape(-1, 5, 2)  # [K 5 2]
    landmarks = centres[:, None] + offsets * CENTRE_VARIANCE * sides[:, None] - 0.5
    return found[:, 0], boxes, landmarks
