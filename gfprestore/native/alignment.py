"""Memory that begins at a cache line, which makes vectors of it quicker to read."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ALIGNMENT = 64
"""Bytes of a cache line."""


def aligned(size: int) -> NDArray[np.uint8]:
    """Bytes that begin at a cache line, zero at first."""
    memory = np.zeros(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size]
