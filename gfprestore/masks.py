"""Where a restored face replaces the photo: smooth weights in the crop frame.

Every mask here is the smoothstep of a distance, so that it has no step and no kink, and is exactly zero well before the
crop's border: whatever the restoration drew there never meets the photo at an edge.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.float32]

BORDER_MARGIN = 0.03
"""Part of the crop's side along each border where every mask is exactly zero: generators draw worst at their border."""

BORDER_FEATHER = 0.14
"""Part of the crop's side over which the border mask rises: 72 px of 512, so at most 5.3/255 per crop pixel."""


def smoothstep(ramp: Mask) -> Mask:
    """Bend a linear ramp so that it starts and ends level: 3 t^2 - 2 t^3, with t clipped to 0..1.

    Args:
        ramp: float32, any shape, any range.

    Returns:
        float32 of the same shape, 0..1, once continuously differentiable in `ramp`, slope at most 1.5.
    """
    clipped = np.clip(ramp, 0.0, 1.0)
    return np.asarray(clipped * clipped * (3.0 - 2.0 * clipped), np.float32)


@lru_cache(maxsize=8)
def border_mask(size: int, feather: float = BORDER_FEATHER) -> Mask:
    """Weigh a whole square crop: one inside, falling smoothly to zero before the border, with round corners.

    The weight is the smoothstep of the distance to a rounded square. Its corners are rounder than the feather is wide,
    so the distance has no kink inside the feather.

    Args:
        size: Side S of the crop in pixels.
        feather: Width of the falling edge as a part of `size`, above 0, at most 0.5 - BORDER_MARGIN.

    Returns:
        float32 (S, S), 0..1, read-only; exactly zero within BORDER_MARGIN * S of the border.

    Raises:
        ValueError: The feather does not fit into the crop.
    """
    if not 0.0 < feather <= 0.5 - BORDER_MARGIN:
        raise ValueError(f"feather must be above 0 and at most {0.5 - BORDER_MARGIN}, not {feather}")
    centre = (size - 1) / 2
    offsets = np.abs(np.arange(size, dtype=np.float32) - np.float32(centre))
    half = np.float32(size / 2 - BORDER_MARGIN * size)
    radius = np.float32(feather * size)
    beyond = np.maximum(offsets - (half - radius), 0.0)
    from_straight_part = np.hypot(beyond[:, None], beyond[None, :])
    mask = smoothstep((radius - from_straight_part) / radius)
    mask.setflags(write=False)
    return mask
