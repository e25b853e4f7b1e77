"""Non-maximum suppression by OpenCV, whose import this program needs anyway; torchvision's would bring torch along."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def suppress(boxes: NDArray[np.float64], scores: NDArray[np.float64], overlap: float) -> NDArray[np.intp]:
    """Leaves of boxes that overlap the one with the highest score.

    Args:
        boxes: (K, 4): left, top, right, bottom.
        scores: (K,), above 0.
        overlap: Two boxes that share more of their union than this are one.

    Returns:
        Rows of the boxes that are left, highest score first; of equal scores the first row.
    """
    sized = np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])  # left, top, width, height
    return np.asarray(cv2.dnn.NMSBoxes(sized.tolist(), scores.tolist(), 0.0, overlap), np.intp).ravel()
