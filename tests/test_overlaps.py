"""Faces that touch: larger ones win, smoothly, and no edge shows twice."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gfprestore.overlaps import settle_overlaps


def _steepest(mask):
    return max(np.abs(np.diff(mask, axis=0)).max(), np.abs(np.diff(mask, axis=1)).max())


def _bump(width, height):
    y, x = np.mgrid[:height, :width]
    ramp = np.clip(1.3 - np.hypot((x - width / 2) / (width / 2), (y - height / 2) / (height / 2)) * 1.3, 0, 1)
    return (ramp**2 * (3 - 2 * ramp)).astype(np.float32)


@st.composite
def _patches(draw):
    count = draw(st.integers(1, 4))
    boxes, masks, sizes = [], [], []
    for _ in range(count):
        left, top = draw(st.integers(0, 40)), draw(st.integers(0, 40))
        width, height = draw(st.integers(8, 40)), draw(st.integers(8, 40))
        boxes.append((left, top, left + width, top + height))
        masks.append(_bump(width, height))
        sizes.append(draw(st.floats(1, 100)))
    return boxes, masks, sizes


@settings(max_examples=60, deadline=None)
@given(_patches())
def test_settled_masks_leave_room_for_larger_faces(patches):
    boxes, masks, sizes = patches
    copies = [mask.copy() for mask in masks]
    settled = settle_overlaps(boxes, masks, sizes)
    largest = max(range(len(sizes)), key=lambda index: (sizes[index], -index))
    assert settled[largest] is masks[largest]
    total = np.zeros((100, 100))
    for box, mask, before, result in zip(boxes, masks, copies, settled, strict=True):
        assert np.array_equal(mask, before)
        assert (result <= mask).all() and (result >= 0).all()
        total[box[1] : box[3], box[0] : box[2]] += result
    assert total.max() <= 1 + 1e-5


def test_faces_that_do_not_touch_are_left_as_they_are():
    masks = [_bump(20, 20), _bump(30, 30)]
    settled = settle_overlaps([(0, 0, 20, 20), (20, 0, 50, 30)], masks, [20.0, 30.0])
    assert all(one is other for one, other in zip(settled, masks, strict=True))


def test_where_two_faces_meet_neither_shows_twice_and_nothing_steps():
    large, small = _bump(80, 80), _bump(60, 60)
    settled = settle_overlaps([(0, 0, 80, 80), (50, 10, 110, 70)], [large, small], [80.0, 60.0])[1]
    covering = large[10:70, 50:80]
    assert not settled[:, :30][covering == 1].any()
    # The product of both weights is what makes a double edge: a plain overlay lets it reach a quarter.
    assert (settled[:, :30] * covering).max() <= 4 / 27 + 1e-6
    # The slopes of both masks may add up, threefold for the square's own slope and the mask's.
    assert _steepest(settled) < 3 * max(_steepest(large), _steepest(small))
