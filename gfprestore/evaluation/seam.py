"""Seam: the visible edge of a pasted face.

Protocol `seam`: with D the luma (ITU-R BT.601, 0 to 255) of the whole restored photo less that of the same photo
without its faces pasted, the border is where D leaves zero, seen from outside: the seam is the largest |D| of a pixel
that has a neighbour, left, right, above or below, in the region that reaches the photo's edge, or is the largest, and
in which D is zero. It is the step by which one pixel of the border stands out against the background; a feathered mask
keeps it near 1, a hard one shows all of the difference. Both photos must be stored without loss, since a JPEG's own
noise has steps everywhere.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from gfprestore.evaluation.batch import ImageBatch, as_pixels
from gfprestore.training.degradation import LUMA


def seam_step(restored: NDArray[np.uint8], background: NDArray[np.uint8]) -> float:
    """Measures the largest luma step across the border of what was pasted.

    Args:
        restored: RGB uint8 (H, W, 3), the photo with its faces.
        background: RGB uint8 (H, W, 3), the same photo without them.

    Returns:
        0 to 255, 0 where nothing was pasted; NaN where no pixel is left of the background.
    """
    change = restored.astype(np.int16) - background
    luma = np.abs(change.astype(np.float32) @ LUMA)
    is_same = (change == 0).all(axis=2)
    outside = _outside(is_same)
    if not outside.any():
        return float("nan")
    beside = cv2.dilate(outside.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))) > 0
    return float(luma[beside].max())


def _outside(is_same: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keeps the unchanged regions that touch the photo's edge, and the largest; specks inside a face drop out."""
    count, labels, statistics, _ = cv2.connectedComponentsWithStats(is_same.astype(np.uint8), connectivity=4)
    if count == 1:
        return np.zeros_like(is_same)
    largest = 1 + int(np.argmax(statistics[1:, cv2.CC_STAT_AREA]))
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    kept = np.zeros(count, dtype=bool)
    kept[edge] = True
    kept[largest] = True
    kept[0] = False
    return np.asarray(kept[labels], dtype=np.bool_)


class SeamMetric:
    """Steps at the borders of pasted faces, against the photo without them."""

    def measure(self, batch: ImageBatch) -> dict[str, NDArray[np.float64]]:
        """Measures a batch; see `Metric`."""
        backgrounds, restored = as_pixels(batch.background), as_pixels(batch.restored)
        steps = [
            [seam_step(image, background) for image in images]
            for images, background in zip(restored, backgrounds, strict=True)
        ]
        return {"seam": np.array(steps)}
