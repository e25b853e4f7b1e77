"""Affine transforms between pixel frames, in the one convention of the package: pixel centres, (x, y).

A transform is a float64 (2, 3) matrix that maps source pixel centres to target pixel centres, as `cv2.warpAffine` with
`WARP_INVERSE_MAP` unset expects it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Transform = NDArray[np.float64]


def scaling(source_size: tuple[int, int], target_size: tuple[int, int]) -> Transform:
    """Returns the transform of a resize: `x' = s * x + (s - 1) / 2` on each axis.

    Args:
        source_size: (W, H) in pixels.
        target_size: (W, H) in pixels; s is the ratio to `source_size`, so it may differ a little between the axes.
    """
    scale_x, scale_y = (target / source for source, target in zip(source_size, target_size, strict=True))
    return np.array([[scale_x, 0.0, (scale_x - 1) / 2], [0.0, scale_y, (scale_y - 1) / 2]])


def compose(second: Transform, first: Transform) -> Transform:
    """Returns the transform that applies `first`, then `second`."""
    linear = second[:, :2] @ first[:, :2]
    offset = second[:, :2] @ first[:, 2] + second[:, 2]
    return np.column_stack([linear, offset])


def invert(transform: Transform) -> Transform:
    """Returns the transform back.

    Raises:
        numpy.linalg.LinAlgError: The transform flattens the plane.
    """
    linear = np.linalg.inv(transform[:, :2])
    return np.column_stack([linear, -linear @ transform[:, 2]])


def map_points(transform: Transform, points: ArrayLike) -> NDArray[np.float64]:
    """Returns points (N, 2), (x, y) moved by a transform."""
    return np.asarray(points, dtype=np.float64) @ transform[:, :2].T + transform[:, 2]


def magnification(transform: Transform) -> float:
    """Returns the factor on lengths: target pixels per source pixel, the geometric mean of both axes."""
    return float(np.sqrt(abs(np.linalg.det(transform[:, :2]))))
