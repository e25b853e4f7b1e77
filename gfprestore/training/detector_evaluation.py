"""Compare a face detector with its teacher on the same photos, both run as the tool runs them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gfprestore.detect import FaceDetector
from gfprestore.photo import DetectedFace, Pixels

MATCH_DISTANCE = 0.5
"""Two faces are one if the middles of their landmarks are nearer than this, in the teacher's eye distances."""


@dataclass(frozen=True)
class Agreement:
    """How a student's faces relate to the teacher's; agreements add up."""

    wanted: int = 0
    """Faces that the teacher is sure of."""

    found: int = 0
    """Of these, those that the student finds."""

    false: int = 0
    """Faces of the student where the teacher has none, not even an unsure one."""

    errors: tuple[float, ...] = ()
    """Mean distance of the five landmarks of each face found, in the teacher's eye distances."""

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(
            self.wanted + other.wanted,
            self.found + other.found,
            self.false + other.false,
            self.errors + other.errors,
        )

    @property
    def recall(self) -> float:
        """Share of the teacher's faces that the student finds; 1 where there are none."""
        return self.found / self.wanted if self.wanted else 1.0

    @property
    def mean_error(self) -> float:
        """Mean of `errors`; 0 where nothing is found."""
        return float(np.mean(self.errors)) if self.errors else 0.0

    @property
    def median_error(self) -> float:
        """Median of `errors`; 0 where nothing is found."""
        return float(np.median(self.errors)) if self.errors else 0.0


def compare_faces(
    student: Sequence[DetectedFace], teacher: Sequence[DetectedFace], *, sure: float = 0.8, accepted: float = 0.6
) -> Agreement:
    """Match the faces of one photo.

    Args:
        student: The student's faces, of any score.
        teacher: The teacher's faces down to scores well below `accepted`, so that what it half sees is not held
            against the student.
        sure: Least score of the teacher's faces that must be found.
        accepted: Least score at which the student counts as having found a face.
    """
    claimed = [face for face in student if face.score >= accepted]
    wanted = [face for face in teacher if face.score >= sure]
    errors = []
    for face in wanted:
        distances = [_landmark_distance(other, face) for other in claimed if _same_face(other, face)]
        errors += [min(distances)] if distances else []
    false = sum(not any(_same_face(face, other) for other in teacher) for face in claimed)
    return Agreement(len(wanted), len(errors), false, tuple(errors))


def _eye_distance(face: DetectedFace) -> float:
    return float(np.linalg.norm(face.landmarks[1] - face.landmarks[0]))


def _same_face(face: DetectedFace, reference: DetectedFace) -> bool:
    shift = face.landmarks.mean(axis=0) - reference.landmarks.mean(axis=0)
    return float(np.linalg.norm(shift)) < MATCH_DISTANCE * _eye_distance(reference)


def _landmark_distance(face: DetectedFace, reference: DetectedFace) -> float:
    misses = np.linalg.norm(face.landmarks - reference.landmarks, axis=1)
    return float(misses.mean()) / _eye_distance(reference)


def compare_detectors(student: FaceDetector, teacher: FaceDetector, photos: Iterable[Pixels]) -> Agreement:
    """Add up `compare_faces` over photos; both detectors should have a threshold well below 0.6."""
    total = Agreement()
    for photo in photos:
        (found,), (wanted,) = student.detect([photo]), teacher.detect([photo])
        total = total + compare_faces(found, wanted)
    return total


def cut_quarters(photo: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Cut a photo into four overlapping parts, each of three quarters of both sides; RGB uint8 (H, W, 3)."""
    height, width = (side * 3 // 4 for side in photo.shape[:2])
    return [
        np.ascontiguousarray(photo[top : top + height, left : left + width])
        for top in (0, photo.shape[0] - height)
        for left in (0, photo.shape[1] - width)
    ]
