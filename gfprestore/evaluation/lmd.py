"""LMD: how far the landmarks of a restored face have moved from those of the truth.

Protocol `lmd`: the detector's five landmarks (eyes, nose, corners of the mouth) in both images; the mean of the five
distances, in pixels of the image. In the truth the largest face counts, in the restored image the one whose landmarks
are nearest to it. An image in which either has no face is left out, so set `lmd` beside the number of images it is the
mean of. Published landmark distances use 68 or 98 landmarks of other detectors: their figures are not comparable.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gfprestore.evaluation.batch import ImageBatch, as_pixels
from gfprestore.photo import DetectedFace, Pixels


class Detector(Protocol):
    """Finds faces, as `gfprestore.detect.FaceDetector` does."""

    def detect(self, photos: Sequence[Pixels]) -> list[list[DetectedFace]]:
        """Finds the faces in each photo, largest first."""
        ...


def landmark_distance(restored: Sequence[DetectedFace], truth: Sequence[DetectedFace]) -> float:
    """Measures the mean distance of five landmarks, in pixels; NaN where either side has no face."""
    if not restored or not truth:
        return float("nan")
    wanted = truth[0].landmarks
    return min(float(np.linalg.norm(face.landmarks - wanted, axis=1).mean()) for face in restored)


class LmdMetric:
    """Landmark distances of the restored images to the truth."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector

    def measure(self, batch: ImageBatch) -> dict[str, NDArray[np.float64]]:
        """Measures a batch; see `Metric`."""
        images = as_pixels(batch.truth_and_restored)  # [N K H W 3]
        rows = []
        for kinds in images:
            truth, *restored = self._detector.detect(list(kinds))
            rows.append([landmark_distance(faces, truth) for faces in restored])
        return {"lmd": np.array(rows)}
