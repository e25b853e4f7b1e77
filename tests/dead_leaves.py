"""The dead leaves model: pictures in focus, at any size, that hold no photo of anybody."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np


@cache
def leaves(seed=0, size=256, count=900):
    """Overlapping discs of many sizes: the statistics of natural pictures in focus. Lightness, float32 (S, S)."""
    rng = np.random.default_rng(seed)
    # Drawn at twice the size and averaged, as a lens and a sensor do.
    canvas = np.full((2 * size, 2 * size), 50, np.float32)
    for _ in range(count):
        radius = int(np.clip(6 / np.sqrt(rng.uniform(0.002, 1)), 5, 120))
        centre = tuple(int(value) for value in rng.integers(0, 2 * size, 2))
        cv2.circle(canvas, centre, radius, float(rng.uniform(25, 80)), -1)
    lightness = np.asarray(cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA), np.float32)
    lightness.setflags(write=False)
    return lightness
