"""Weights in bfloat16, as the kernels read them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gfprestore.native.operands import Array


def pair_rows(packed: NDArray[np.float32]) -> Array:
    """A packed matrix [..., I, panel] in bfloat16, every two of its rows side by side: [..., I / 2, panel, 2]."""
    *above, inputs, panel = packed.shape
    return round_weights(packed.reshape(*above, inputs // 2, 2, panel).swapaxes(-1, -2))


def round_weights(weight: NDArray[np.float32]) -> Array:
    """Bits of finite weights in bfloat16, the nearest, of two equally near ones the even."""
    bits = np.ascontiguousarray(weight).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
