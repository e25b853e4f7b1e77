"""Seam: the visible edge of a pasted face.

Both measures take D, the luma (ITU-R BT.601, 0 to 255) of the whole restored photo less that of the same photo without
its faces pasted. What lies outside the faces is where D is zero, opened by 3x3 pixels, in the parts that reach the
photo's edge, and in the largest: the opening closes the lines along which D changes its sign inside a face.

Protocol `seam`: the largest |D| of a pixel that has a neighbour, left, right, above or below, outside. It is the step
by which one pixel of the border stands out against the background; a feathered mask keeps it near 1, a hard one shows
all of the difference.

Protocol `seam-ratio`: the steepest percent of luma gradients within four pixels of the border, relative to the same of
the background. A step hides where the photo has steps of its own, and there a face's own outline may come out sharper.

Both photos must be stored without loss, since a JPEG's own noise has steps everywhere.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from gfprestore.evaluation.batch import ImageBatch, as_pixels
from gfprestore.training.degradation import LUMA

_BORDER_REACH = 4
"""Pixels on both sides of the border in which its gradients are looked at."""

_STEEP_PERCENT = 99
"""The steepest percent speaks for a border: a mean would hide a seam in what is flat."""


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
    outside = _outside((change == 0).all(axis=2))
    if not outside.any():
        return float("nan")
    beside = cv2.dilate(outside.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))) > 0
    return float(luma[beside].max())


def seam_ratio(restored: NDArray[np.uint8], background: NDArray[np.uint8]) -> float:
    """Measures how much steeper the border of what was pasted is than the same place of the background.

    Args:
        restored: RGB uint8 (H, W, 3), the photo with its faces.
        background: RGB uint8 (H, W, 3), the same photo without them.

    Returns:
        1 where nothing was pasted or all is as steep as before; NaN where no pixel is left of the background. A
        background flatter than one level a pixel counts as that steep.
    """
    outside = _outside((restored == background).all(axis=2))
    if not outside.any():
        return float("nan")
    width = 2 * _BORDER_REACH + 1
    near = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    border = outside & (cv2.dilate((~outside).astype(np.uint8), near) > 0)
    border |= ~outside & (cv2.dilate(outside.astype(np.uint8), near) > 0)
    if not border.any():
        return 1.0
    after, before = (float(np.percentile(_gradient(image)[border], _STEEP_PERCENT)) for image in (restored, background))
    return after / max(before, 1.0)


def _gradient(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Larger of the luma differences to the neighbours on the right and below, (H, W)."""
    luma = image.astype(np.float32) @ LUMA
    padded = np.pad(luma, ((0, 1), (0, 1)), mode="edge")
    across, down = np.abs(padded[:-1, 1:] - luma), np.abs(padded[1:, :-1] - luma)
    return np.asarray(np.maximum(across, down), np.float32)


def _outside(is_same: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keeps the unchanged regions that touch the photo's edge, and the largest; specks inside a face drop out."""
    # Padded, so that the photo's own edge is no border.
    padded = np.pad(is_same, 1, mode="edge").astype(np.uint8)
    opened = cv2.morphologyEx(padded, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))[1:-1, 1:-1]
    count, labels, statistics, _ = cv2.connectedComponentsWithStats(np.ascontiguousarray(opened), connectivity=4)
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
        measured = {
            name: [
                [measure(image, background) for image in images]
                for images, background in zip(restored, backgrounds, strict=True)
            ]
            for name, measure in (("seam", seam_step), ("seam-ratio", seam_ratio))
        }
        return {name: np.array(values) for name, values in measured.items()}
