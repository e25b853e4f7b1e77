"""Merging of candidates, refusal of false faces, choice among faces."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st

from gfprestore.align import FACE_TEMPLATE, alignment_residual
from gfprestore.detection.face_choice import (
    ACROSS_A_FACE,
    AROUND_A_FACE,
    INSIDE_A_FACE,
    LANDMARKS_OUTSIDE,
    MOST_CANDIDATES,
    MOST_FACES,
    NOT_FROM_THE_FRONT,
    SAME_FACE_OVERLAP,
    Candidates,
    alignment_residuals,
    box_overlaps,
    choose_faces,
    find_clashes,
    find_doubts,
    merge_candidates,
)
from gfprestore.photo import DetectedFace


def face_at(x: float, y: float, side: float) -> tuple[np.ndarray, np.ndarray]:
    """Box and landmarks of an upright mean face whose box has its middle at (x, y)."""
    box = np.array([x - side / 2, y - side / 2, x + side / 2, y + side / 2])
    landmarks = (FACE_TEMPLATE - FACE_TEMPLATE.mean(axis=0)) * (side / 280) + [x, y]
    return box, landmarks


def candidates(*faces: tuple[float, float, float, float], side: float = 96.0) -> Candidates:
    """Candidates from (x, y, side, score), all seen at one size."""
    parts = [face_at(x, y, extent) for x, y, extent, _ in faces]
    return Candidates(
        np.array([face[3] for face in faces]),
        np.array([box for box, _ in parts]).reshape(-1, 4),
        np.array([landmarks for _, landmarks in parts]).reshape(-1, 5, 2),
        np.full(len(faces), side),
    )


def middles(faces: Sequence[DetectedFace]) -> list[tuple[float, float]]:
    return [tuple(face.box.reshape(2, 2).mean(axis=0)) for face in faces]


@given(seed=st.integers(0, 2**32 - 1))
def test_residuals_are_those_of_the_alignment(seed: int) -> None:
    landmarks = np.random.default_rng(seed).normal(0, 50, (4, 5, 2))
    expected = [alignment_residual(points) for points in landmarks]
    np.testing.assert_allclose(alignment_residuals(landmarks), expected, rtol=1e-9)


def test_turned_and_scaled_mean_faces_are_plausible_and_mirrored_or_flat_ones_are_not() -> None:
    box, landmarks = face_at(50, 40, 100)
    turn = np.array([[0.0, -1.0], [1.0, 0.0]])
    middle = landmarks.mean(axis=0)
    turned = (landmarks - middle) @ turn.T + middle
    upside_down = np.stack([landmarks[:, 0], 2 * middle[1] - landmarks[:, 1]], axis=1)
    flat = landmarks.copy()
    flat[:, 0] = middle[0]
    points = np.stack([landmarks, turned, upside_down, flat, np.full((5, 2), 50.0), landmarks + 200])
    boxes = np.repeat(box[None], len(points), axis=0)
    refused = [NOT_FROM_THE_FRONT, NOT_FROM_THE_FRONT, NOT_FROM_THE_FRONT, LANDMARKS_OUTSIDE]
    assert find_doubts(boxes, points).tolist() == ["", "", *refused]


def test_no_candidates_are_no_faces() -> None:
    found = merge_candidates([candidates(), candidates()])
    assert (found.faces, found.refused) == ((), ())


def test_hundreds_of_faces_with_many_boxes_each() -> None:
    rng = np.random.default_rng(0)
    grid = [(60.0 * column, 70.0 * row) for column in range(25) for row in range(16)]
    rows = [
        (x + jitter[0], y + jitter[1], 40.0 + jitter[2], float(rng.uniform(0.6, 1)))
        for x, y in grid
        for jitter in rng.normal(0, 1.0, (12, 3))
    ]
    found = merge_candidates([candidates(*rows[::2]), candidates(*rows[1::2])]).faces
    assert len(found) == len(grid) == 400
    assert {(round(x / 60) * 60.0, round(y / 70) * 70.0) for x, y in middles(found)} == set(grid)
    areas = [np.prod(face.box[2:] - face.box[:2]) for face in found]
    assert areas == sorted(areas, reverse=True)


def test_a_hundred_thousand_boxes_take_little_memory_and_the_surest_faces_stay() -> None:
    rng = np.random.default_rng(5)
    rows = rng.uniform((0, 0, 5, 0), (9000, 6000, 60, 0.3), (100_000, 4))
    rows[::200, 3] += 0.5
    pool = candidates(*map(tuple, rows))
    tracemalloc.start()
    found = merge_candidates([pool])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 600e6
    assert 500 < len(found.faces) <= MOST_FACES
    assert len(found.refused) <= MOST_CANDIDATES
    sure = pool.take(pool.scores >= 0.5)
    kept = {tuple(face.box) for face in found.faces}
    assert {tuple(face.box) for face in merge_candidates([sure]).faces} <= kept


def test_of_two_sizes_the_fitting_one_gives_the_face() -> None:
    fitting = candidates((100, 100, 50, 0.97), side=90.0)
    tiny = candidates((104, 100, 50, 0.99), side=12.0)
    for views in ([fitting, tiny], [tiny, fitting]):
        assert middles(merge_candidates(views).faces) == [(100.0, 100.0)]


@pytest.mark.parametrize(
    ("inner", "outer", "kept", "reason"),
    [
        ((130, 90, 40, 0.95), (100, 100, 200, 0.98), [(100, 100)], INSIDE_A_FACE),  # a face in an eye
        ((130, 90, 40, 0.99), (100, 100, 200, 0.95), [(100, 100)], INSIDE_A_FACE),  # which scores a little higher
        ((130, 90, 40, 0.99), (100, 100, 200, 0.70), [(130, 90)], AROUND_A_FACE),  # a face before a false one
        ((100, 60, 80, 0.62), (118, 80, 90, 0.99), [(118, 80)], None),  # across two cheeks, nearly the same place
        ((100, 55, 80, 0.62), (118, 80, 90, 0.99), [(118, 80)], ACROSS_A_FACE),
        ((0, 0, 80, 0.9), (90, 0, 90, 0.8), [(90, 0), (0, 0)], None),  # cheek to cheek
    ],
)
def test_of_two_faces_that_cannot_both_be_there_one_goes_and_the_reason_is_told(
    inner: tuple[float, float, float, float],
    outer: tuple[float, float, float, float],
    kept: list[tuple[float, float]],
    reason: str | None,
) -> None:
    for order in ((inner, outer), (outer, inner)):
        found = merge_candidates([candidates(*order)])
        assert middles(found.faces) == kept
        assert [item.reason for item in found.refused] == ([] if reason is None else [reason])


def test_of_many_boxes_around_one_implausible_face_one_is_told() -> None:
    pool = candidates((100, 100, 80, 0.7), (102, 101, 82, 0.9), (98, 99, 79, 0.8), (400, 100, 90, 0.95))
    middle = pool.landmarks[:3].mean(axis=(0, 1))
    pool.landmarks[:3, :, 0] = middle[0]  # A profile: all in one line.
    found = merge_candidates([pool])
    assert middles(found.faces) == [(400.0, 100.0)]
    assert [(item.reason, item.face.score) for item in found.refused] == [(NOT_FROM_THE_FRONT, 0.9)]


def test_an_implausible_box_around_a_good_face_is_not_told() -> None:
    pool = candidates((100, 100, 80, 0.7), (102, 101, 82, 0.9))
    pool.landmarks[1, :, 0] = 100
    found = merge_candidates([pool])
    assert middles(found.faces) == [(100.0, 100.0)]
    assert found.refused == ()


def test_equal_twins_leave_one() -> None:
    twins = candidates((100, 100, 50, 0.9), (100, 100, 50, 0.9))
    assert (find_clashes(twins) != "").sum() == 1


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 12))
def test_beaten_faces_are_those_of_the_plain_loop(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    faces = candidates(*[(*rng.uniform(0, 200, 2), rng.uniform(10, 150), rng.uniform(0.5, 1)) for _ in range(count)])
    expected = np.zeros(count, bool)
    area = np.prod(faces.boxes[:, 2:] - faces.boxes[:, :2], axis=1)
    for small in range(count):
        for large in range(count):
            if area[small] >= area[large]:
                continue
            a, b = faces.boxes[small], faces.boxes[large]
            shared = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
            distance = np.linalg.norm(faces.landmarks[small].mean(axis=0) - faces.landmarks[large].mean(axis=0))
            if shared < 0.7 * area[small] and distance >= 0.4 * area[large] ** 0.5:
                continue
            lead = 0.15 * (1 - area[small] / area[large])
            expected[large if faces.scores[small] > faces.scores[large] + lead else small] = True
    np.testing.assert_array_equal(find_clashes(faces) != "", expected)


def detected(*faces: tuple[float, float, float]) -> list[DetectedFace]:
    return [DetectedFace(*face_at(*face), score=0.9) for face in faces]


def test_only_the_face_nearest_to_the_centre() -> None:
    faces = detected((10, 10, 30), (55, 45, 10), (90, 50, 60))
    assert choose_faces(faces, (100, 100), only_center=True) == [faces[1]]
    assert choose_faces([], (100, 100), only_center=True, largest=3) == []


def test_the_largest_faces_keep_their_order() -> None:
    faces = detected((10, 10, 30), (55, 45, 10), (90, 50, 60))
    assert choose_faces(faces, (100, 100), largest=2) == [faces[0], faces[2]]
    assert choose_faces(faces, (100, 100), largest=9) == faces
    assert choose_faces(faces, (100, 100), largest=2, only_center=True) == [faces[2]]
    assert choose_faces(faces, (100, 100)) == faces


def test_shares_of_unions_are_torchvisions() -> None:
    rng = np.random.default_rng(3)
    low = rng.uniform(0, 50, (40, 2))
    boxes = np.concatenate([low, low + rng.uniform(1, 40, (40, 2))], axis=1)
    expected = torchvision.ops.box_iou(torch.from_numpy(boxes[:15]), torch.from_numpy(boxes[15:])).numpy()
    np.testing.assert_allclose(box_overlaps(boxes[:15], boxes[15:]), expected, rtol=1e-12)


def test_a_crowd_of_implausible_boxes_leaves_what_a_loop_over_them_would() -> None:
    rng = np.random.default_rng(4)
    rows = [
        (float(x), float(y), float(side), float(score))
        for x, y, side, score in rng.uniform((0, 0, 30, 0.6), (400, 300, 90, 1.0), (300, 4))
    ]
    pool = candidates(*rows)
    is_profile = rng.uniform(size=300) < 0.8
    pool.landmarks[is_profile, :, 0] = pool.landmarks[is_profile, :, 0].mean(axis=1, keepdims=True)
    found = merge_candidates([pool])
    taken = [face.box for face in found.faces]
    told = {tuple(item.face.box) for item in found.refused}
    clashing = [item for item in found.refused if item.reason != NOT_FROM_THE_FRONT]
    refused = [(pool.scores[row], pool.boxes[row]) for row in np.flatnonzero(is_profile)]
    refused += [(item.face.score, item.face.box) for item in clashing]
    expected = set()
    for _, box in sorted(refused, key=lambda item: -item[0]):
        if not taken or box_overlaps(box[None], np.array(taken)).max() <= SAME_FACE_OVERLAP:
            taken.append(box)
            expected.add(tuple(box))
    assert told == expected
    areas = [np.prod(item.face.box[2:] - item.face.box[:2]) for item in found.refused]
    assert areas == sorted(areas, reverse=True)
