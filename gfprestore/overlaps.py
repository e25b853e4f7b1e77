"""Faces that touch: which of their masks counts where they overlap, in canvas space."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gfprestore.masks import Mask

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in whole canvas pixels; right and bottom lie outside."""


def settle_overlaps(boxes: Sequence[Box], masks: Sequence[Mask], sizes: Sequence[float]) -> list[Mask]:
    """Let larger faces win where masks overlap, so that no pixel shows two restorations of one edge.

    A larger face stands nearer and covers the smaller one. Each mask is weakened by what larger ones leave free,
    squared: pasted smallest first, the place where two faces meet goes through the photo's own pixels, which both
    agree with, instead of through a mixture of two restorations.

    Args:
        boxes: Where each mask lies on the canvas.
        masks: Weights 0..1, (bottom - top, right - left) of their boxes.
        sizes: Size of each face on the canvas, in any one unit; of equals the first wins.

    Returns:
        New masks in the same order; one that meets no larger face is the same array. Every result is at most its mask,
        and smooth where the masks are.
    """
    order = sorted(range(len(masks)), key=lambda index: -sizes[index])
    settled = list(masks)
    for rank, index in enumerate(order):
        for larger in order[:rank]:
            left, top = (max(boxes[index][axis], boxes[larger][axis]) for axis in (0, 1))
            right, bottom = (min(boxes[index][axis], boxes[larger][axis]) for axis in (2, 3))
            if left >= right or top >= bottom:
                continue
            if settled[index] is masks[index]:
                settled[index] = masks[index].copy()
            x, y = boxes[index][:2]
            other_x, other_y = boxes[larger][:2]
            covering = masks[larger][top - other_y : bottom - other_y, left - other_x : right - other_x]
            settled[index][top - y : bottom - y, left - x : right - x] *= np.square(1 - covering)
    return settled
