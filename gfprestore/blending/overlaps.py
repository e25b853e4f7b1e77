"""Faces that touch: how much of each counts where they overlap, in canvas space."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from gfprestore.blending.masks import Mask

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in whole canvas pixels; right and bottom lie outside."""


def shared_box(first: Box, second: Box) -> Box | None:
    """Find what two boxes have in common, or None where they do not touch."""
    left, top = max(first[0], second[0]), max(first[1], second[1])
    right, bottom = min(first[2], second[2]), min(first[3], second[3])
    return None if left >= right or top >= bottom else (left, top, right, bottom)


def leave_room(box: Box, larger: Iterable[tuple[Box, Callable[[Box], Mask]]]) -> Mask | None:
    """Let larger faces win where masks overlap, so that no pixel shows two restorations of one edge.

    A larger face stands nearer and covers the smaller one. A mask is weakened by what larger ones leave free, squared:
    pasted smallest first, the place where two faces meet goes through the photo's own pixels, which both agree with,
    instead of through a mixture of two restorations.

    Args:
        box: Where a face's mask lies on the canvas.
        larger: Of each face that is to win, where its mask lies, and what tells the weights 0..1 of any part of that
            box, (bottom - top, right - left). It is asked for no more than the two faces share.

    Returns:
        Factors of the face's mask, 0 to 1 and smooth where the masks are; None where it meets no larger one.
    """
    room = None
    for other, weigh in larger:
        shared = shared_box(box, other)
        if shared is None:
            continue
        weights = weigh(shared)
        if not weights.any():
            continue
        if room is None:
            room = np.ones((box[3] - box[1], box[2] - box[0]), np.float32)
        left, top, right, bottom = shared
        room[top - box[1] : bottom - box[1], left - box[0] : right - box[0]] *= np.square(1 - weights)
    return room
