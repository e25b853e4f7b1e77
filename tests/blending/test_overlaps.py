"""Faces that touch: larger ones win, smoothly, and no edge shows twice."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gfprestore.blending.overlaps import leave_room


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


def _room(index, boxes, masks, sizes):
    """Factors of one mask beside those of larger faces; of equals the first is the larger."""

    def weights(other):
        x, y = boxes[other][:2]
        return lambda box: masks[other][box[1] - y : box[3] - y, box[0] - x : box[2] - x]

    mine = (sizes[index], -index)
    larger = [other for other in range(len(sizes)) if (sizes[other], -other) > mine]
    return leave_room(boxes[index], [(boxes[other], weights(other)) for other in larger])


@settings(max_examples=60, deadline=None)
@given(_patches())
def test_masks_leave_room_for_larger_faces(patches):
    boxes, masks, sizes = patches
    copies = [mask.copy() for mask in masks]
    largest = max(range(len(sizes)), key=lambda index: (sizes[index], -index))
    assert _room(largest, boxes, masks, sizes) is None
    total = np.zeros((100, 100))
    for index, (box, mask) in enumerate(zip(boxes, copies, strict=True)):
        room = _room(index, boxes, masks, sizes)
        if room is not None:
            assert room.shape == mask.shape
            assert (room <= 1).all() and (room >= 0).all()
            mask = mask * room
        total[box[1] : box[3], box[0] : box[2]] += mask
    assert total.max() <= 1 + 1e-5
    assert all(np.array_equal(mask, before) for mask, before in zip(masks, copies, strict=True))


def test_faces_that_do_not_touch_are_left_as_they_are():
    boxes, masks = [(0, 0, 20, 20), (20, 0, 50, 30)], [_bump(20, 20), _bump(30, 30)]
    assert _room(0, boxes, masks, [20.0, 30.0]) is None


def test_a_box_whose_mask_is_empty_takes_no_room():
    boxes, masks = [(0, 0, 20, 20), (10, 0, 40, 30)], [_bump(20, 20), np.zeros((30, 30), np.float32)]
    assert _room(0, boxes, masks, [20.0, 30.0]) is None


def test_where_two_faces_meet_neither_shows_twice_and_nothing_steps():
    large, small = _bump(80, 80), _bump(60, 60)
    room = _room(1, [(0, 0, 80, 80), (50, 10, 110, 70)], [large, small], [80.0, 60.0])
    settled = small * room
    covering = large[10:70, 50:80]
    assert not settled[:, :30][covering == 1].any()
    # The product of both weights is what makes a double edge: a plain overlay lets it reach a quarter.
    assert (settled[:, :30] * covering).max() <= 4 / 27 + 1e-6
    # The slopes of both masks may add up, threefold for the square's own slope and the mask's.
    assert _steepest(settled) < 3 * max(_steepest(large), _steepest(small))
