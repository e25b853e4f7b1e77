"""Weights in bfloat16, as the kernels read them."""

from __future__ import annotations

import torch
from torch import Tensor

from gfprestore.native.operands import Array


def pair_rows(packed: Array) -> Array:
    """A packed matrix [..., I, panel] in bfloat16, every two of its rows side by side: [..., I / 2, panel, 2]."""
    *above, inputs, panel = packed.shape
    return round_weights(torch.from_numpy(packed).reshape(*above, inputs // 2, 2, panel).transpose(-1, -2))


def round_weights(weight: Tensor) -> Array:
    """Bits of weights in bfloat16."""
    bits: Array = weight.bfloat16().contiguous().view(torch.int16).numpy()
    return bits
