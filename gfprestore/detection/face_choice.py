"""Make one face out of the many boxes around it, refuse what is no face, and choose among the faces of a photo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gfprestore.align import FACE_TEMPLATE
from gfprestore.detection.suppression import suppress
from gfprestore.photo import DetectedFace, FoundFaces, RefusedFace

SAME_FACE_OVERLAP = 0.4
"""Two boxes that share more of their union than this are one face; facexlib's threshold."""

BEST_SIDE = 96.0
"""Side of a box, in the network's pixels, at which its landmarks are most exact."""

SIDE_PENALTY = 0.05
"""What a factor of two from `BEST_SIDE` costs when one face is found at several sizes, in units of score."""

LARGEST_RESIDUAL = 0.3
"""Landmarks further from any turned and scaled mean face than this (in its eye distances) are no face to restore."""

LANDMARK_MARGIN = 0.25
"""Landmarks may lie this far outside the box, as a share of its side."""

NESTED_SHARE = 0.7
"""A smaller box of which this share lies in a larger one is nested: one of the two is wrong."""

LEAST_DISTANCE = 0.4
"""Two faces' landmarks have middles at least this far apart, in sides of the larger box: one of the two is wrong."""

NESTED_LEAD = 0.15
"""A small box must score higher than a large one by this to win: false faces in eyes and cheeks score high too."""

MOST_CANDIDATES = 20_000
"""Boxes of one photo that are looked at, the surest: a threshold near 0 calls every box a face."""

MOST_FACES = 2000
"""Boxes of different faces that are compared with each other, the surest: memory goes by the square of their number."""


FaceBox = tuple[float, float, float, float]
"""Left, top, right, bottom in photo pixel centres."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """Boxes that the network took for faces in one view of a photo."""

    scores: NDArray[np.float64]
    """(K,), 0 to 1."""

    boxes: NDArray[np.float64]
    """(K, 4): left, top, right, bottom in photo pixel centres."""

    landmarks: NDArray[np.float64]
    """(K, 5, 2): (x, y) in photo pixel centres."""

    sides: NDArray[np.float64]
    """(K,): side of the box in the network's pixels."""

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> Candidates:
        """Returns some of the candidates."""
        return Candidates(self.scores[rows], self.boxes[rows], self.landmarks[rows], self.sides[rows])


def join_candidates(parts: Sequence[Candidates]) -> Candidates:
    """Put candidates one after the other."""
    return Candidates(
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.landmarks for part in parts]),
        np.concatenate([part.sides for part in parts]),
    )


def merge_candidates(views: Sequence[Candidates]) -> FoundFaces:
    """Merge what was found in all views of one photo into its faces, and into what looked like one and is refused.

    Of more than `MOST_CANDIDATES` boxes, and of more than `MOST_FACES` that are left of them, the least sure are left
    out, and not told as refused. Thresholds that tell faces from other things come nowhere near either.
    """
    pool = _surest(join_candidates(views), MOST_CANDIDATES)
    # Before the rest: a box with impossible landmarks must not outdo a good one around the same face.
    doubts = find_doubts(pool.boxes, pool.landmarks)
    is_plausible = doubts == ""
    faces = _surest(_without_doubles(pool.take(is_plausible)), MOST_FACES)
    clashes = find_clashes(faces)
    kept = faces.take(clashes == "")
    refused = join_candidates([pool.take(~is_plausible), faces.take(clashes != "")])
    reasons = np.concatenate([doubts[~is_plausible], clashes[clashes != ""]])
    return FoundFaces(tuple(_as_faces(kept)), tuple(_apart(refused, reasons, kept.boxes)))


def _without_doubles(pool: Candidates) -> Candidates:
    """Leave one candidate for each face, the one whose size in its view makes its landmarks most exact."""
    rank = pool.scores - SIDE_PENALTY * np.abs(np.log2(pool.sides / BEST_SIDE))
    return pool.take(suppress(pool.boxes, rank, SAME_FACE_OVERLAP))


def _surest(pool: Candidates, most: int) -> Candidates:
    """Leave the candidates with the highest scores, in the order given; of equal scores the first."""
    rows = np.argsort(-pool.scores, kind="stable")[:most]
    return pool.take(np.sort(rows))


def _as_faces(pool: Candidates) -> list[DetectedFace]:
    order = np.argsort(-box_areas(pool.boxes), kind="stable")
    return [DetectedFace(pool.boxes[row], pool.landmarks[row], float(pool.scores[row])) for row in order]


def _apart(refused: Candidates, reasons: NDArray[np.str_], kept: NDArray[np.float64]) -> list[RefusedFace]:
    """Leave of the refused one for each place, the surest, where no face stands; largest first."""
    # The faces come first of all, so that they take their places.
    boxes = np.concatenate([kept, refused.boxes])
    scores = np.concatenate([np.full(len(kept), np.inf), refused.scores])
    rows = suppress(boxes, scores, SAME_FACE_OVERLAP) - len(kept)
    rows = rows[rows >= 0]
    rows = rows[np.argsort(-box_areas(refused.boxes[rows]), kind="stable")]
    return [
        RefusedFace(
            DetectedFace(refused.boxes[row], refused.landmarks[row], float(refused.scores[row])), str(reasons[row])
        )
        for row in rows
    ]


def box_areas(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the areas (K,) of boxes (K, 4)."""
    area: NDArray[np.float64] = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    return area


def box_overlaps(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns what each of boxes (K, 4) shares with each of boxes (M, 4), as a part of their union: (K, M)."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared: NDArray[np.float64] = np.prod(np.clip(high - low, 0, None), axis=2)
    return shared / (box_areas(first)[:, None] + box_areas(second)[None] - shared)


def alignment_residuals(landmarks: NDArray[np.float64]) -> NDArray[np.float64]:
    """`gfprestore.align.alignment_residual` of many sets of landmarks at once.

    As complex numbers a rotation with a scale is one factor, and its least-squares value a quotient of inner products.

    Args:
        landmarks: (K, 5, 2).

    Returns:
        (K,); infinite where all five points coincide.
    """
    points = landmarks @ np.array([1, 1j])  # [K 5]
    template = FACE_TEMPLATE @ np.array([1, 1j])
    points = points - points.mean(axis=1, keepdims=True)
    template = template - template.mean()
    spread = (np.abs(points) ** 2).sum(axis=1)
    factor = (points.conj() @ template) / np.where(spread > 0, spread, 1)
    misses = np.abs(factor[:, None] * points - template)
    eye_distance = np.linalg.norm(FACE_TEMPLATE[1] - FACE_TEMPLATE[0])
    residual = np.sqrt((misses**2).mean(axis=1)) / eye_distance
    return np.where(spread > 0, residual, np.inf)


NOT_FROM_THE_FRONT = "its eyes, nose and mouth do not lie as in a face seen from the front"
LANDMARKS_OUTSIDE = "its eyes, nose and mouth lie outside it"
INSIDE_A_FACE = "it lies inside a larger face"
AROUND_A_FACE = "a surer face lies inside it"
ACROSS_A_FACE = "it lies across a surer face"


def find_doubts(boxes: NDArray[np.float64], landmarks: NDArray[np.float64]) -> NDArray[np.str_]:
    """Tell why candidates cannot be faces: landmarks not like a turned mean face, or not inside their box.

    Args:
        boxes: (K, 4).
        landmarks: (K, 5, 2).

    Returns:
        (K,), empty where nothing speaks against it.
    """
    margin = LANDMARK_MARGIN * (boxes[:, 2:] - boxes[:, :2])[:, None]
    inside = (landmarks >= boxes[:, None, :2] - margin) & (landmarks <= boxes[:, None, 2:] + margin)
    is_frontal = alignment_residuals(landmarks) <= LARGEST_RESIDUAL
    return np.where(~is_frontal, NOT_FROM_THE_FRONT, np.where(~inside.all(axis=(1, 2)), LANDMARKS_OUTSIDE, ""))


def find_clashes(faces: Candidates) -> NDArray[np.str_]:
    """Tell which faces cannot stand beside another one, such as a face found in an eye or across two cheeks.

    Of a pair that cannot both be right, the smaller one goes unless it scores higher by a lead: none between boxes of
    equal size, `NESTED_LEAD` over a much larger one.

    Args:
        faces: K boxes that are not the same face by `SAME_FACE_OVERLAP`.

    Returns:
        (K,), empty where a face may stand.
    """
    boxes, areas = faces.boxes, box_areas(faces.boxes)
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=2)  # [K K]
    middles = faces.landmarks.mean(axis=1)
    distances = np.linalg.norm(middles[:, None] - middles[None, :], axis=2)
    is_nested = shared >= NESTED_SHARE * areas[:, None]
    is_clash = is_nested | (distances < LEAST_DISTANCE * np.sqrt(areas)[None, :])
    rows = np.arange(len(areas))
    is_smaller = (areas[:, None] < areas[None, :]) | ((areas[:, None] == areas[None, :]) & (rows[:, None] > rows))
    is_clash &= is_smaller
    lead = NESTED_LEAD * (1 - areas[:, None] / areas[None, :])
    inner_wins = faces.scores[:, None] > faces.scores[None, :] + lead
    beaten = is_clash & ~inner_wins
    conditions = [
        (beaten & is_nested).any(axis=1),
        (is_clash & is_nested & inner_wins).any(axis=0),
        beaten.any(axis=1) | (is_clash & inner_wins).any(axis=0),
    ]
    return np.asarray(np.select(conditions, [INSIDE_A_FACE, AROUND_A_FACE, ACROSS_A_FACE], ""), np.str_)


def choose_faces(
    faces: Sequence[DetectedFace],
    photo_size: tuple[int, int],
    *,
    only_center: bool = False,
    largest: int | None = None,
) -> list[DetectedFace]:
    """Choose among the faces of one photo.

    Args:
        faces: All that were found.
        photo_size: (W, H) in pixels.
        only_center: Keep only the face whose box's middle is nearest to the photo's.
        largest: Keep only this many, those with the largest boxes.

    Returns:
        The chosen faces, in the order given.
    """
    chosen = list(range(len(faces)))
    if largest is not None:
        chosen = sorted(sorted(chosen, key=lambda row: -float(box_areas(faces[row].box[None])[0]))[:largest])
    if only_center and chosen:
        middle = (np.array(photo_size) - 1) / 2
        distances = [np.linalg.norm(faces[row].box.reshape(2, 2).mean(axis=0) - middle) for row in chosen]
        chosen = [chosen[int(np.argmin(distances))]]
    return [faces[row] for row in chosen]


def box_of(face: DetectedFace) -> FaceBox:
    """Returns a face's box as plain numbers."""
    left, top, right, bottom = (float(side) for side in face.box)
    return left, top, right, bottom


def faces_at(faces: Sequence[DetectedFace], boxes: Sequence[FaceBox]) -> tuple[list[DetectedFace], int]:
    """Keep the faces that lie where somebody chose them: those that share `SAME_FACE_OVERLAP` with a box.

    Returns:
        These faces, and the number of boxes at which there is none.
    """
    if not faces or not boxes:
        return [], len(boxes)
    overlap = box_overlaps(np.stack([face.box for face in faces]), np.array(boxes, np.float64))  # [faces boxes]
    kept = [face for face, best in zip(faces, overlap.max(axis=1), strict=True) if best > SAME_FACE_OVERLAP]
    return kept, int((overlap.max(axis=0) <= SAME_FACE_OVERLAP).sum())
