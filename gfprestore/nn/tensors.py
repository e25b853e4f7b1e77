"""Weights between arrays, which files are read as, and tensors, which torch computes with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def as_tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Tensors that share the memory of arrays; tensors stay."""
    return {
        name: array if isinstance(array, Tensor) else torch.from_numpy(array)  # dtype and shape as they are
        for name, array in state.items()
    }


def as_arrays(state: Any) -> Any:
    """Arrays that share the memory of tensors, where they can; whatever else there is stays."""
    if isinstance(state, Tensor):
        tensor = state.detach()
        return (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).numpy()  # numpy has no such floats
    if isinstance(state, Mapping):
        return {name: as_arrays(value) for name, value in state.items()}
    return state
