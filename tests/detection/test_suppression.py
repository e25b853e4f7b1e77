"""Non-maximum suppression: OpenCV's, against a slow twin and against torchvision's."""

from __future__ import annotations

import numpy as np
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st

from gfprestore.detection.suppression import suppress


def random_boxes(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    chance = np.random.default_rng(seed)
    low = chance.uniform(0, 60, (count, 2))
    return np.concatenate([low, low + chance.uniform(5, 50, (count, 2))], axis=1), chance.uniform(0, 1, count)


def overlap_of(one: np.ndarray, other: np.ndarray) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return float(shared / (sum(areas) - shared))


@given(st.integers(0, 1000), st.integers(0, 40), st.sampled_from([0.2, 0.4, 0.7]))
def test_equals_a_loop_over_all_pairs(seed: int, count: int, overlap: float) -> None:
    boxes, scores = random_boxes(seed, count)
    kept: list[int] = []
    for row in sorted(range(count), key=lambda row: -scores[row]):
        if all(overlap_of(boxes[row], boxes[other]) <= overlap for other in kept):
            kept.append(row)
    assert suppress(boxes, scores, overlap).tolist() == kept


def test_is_torchvisions() -> None:
    boxes, scores = random_boxes(0, 500)
    expected = torchvision.ops.nms(torch.from_numpy(boxes), torch.from_numpy(scores), 0.4)
    assert suppress(boxes, scores, 0.4).tolist() == expected.tolist()


def test_the_first_of_equal_scores_stays() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 1, 11, 11], [50, 50, 60, 60], [0, 1, 10, 11]], float)
    assert suppress(boxes, np.array([0.7, 0.7, 0.7, 0.9]), 0.2).tolist() == [3, 2]
    assert suppress(boxes, np.full(4, 0.7), 0.2).tolist() == [0, 2]


def test_no_boxes_give_none() -> None:
    assert suppress(np.empty((0, 4)), np.empty(0), 0.4).tolist() == []
