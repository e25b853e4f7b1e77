"""State dict in, network out: the weights are checked as arrays, then become the network's parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from gfprestore.nn.gfpgan import Gfpgan
from gfprestore.nn.tensors import as_arrays, as_tensors
from gfprestore.nn.weights import GfpganWeights, read_gfpgan_weights, unwrap


def load_gfpgan(state: Mapping[str, Any]) -> Gfpgan:
    """Build the network that a state dict belongs to.

    Args:
        state: As `read_gfpgan_weights` takes it, of arrays or of tensors on the CPU.

    Returns:
        The network on the CPU, float32, in evaluation mode. Its parameters share memory with `state` where that is
        float32 already, so that a memory-mapped file is not copied.

    Raises:
        WeightsError: The state dict is damaged or of another network.
    """
    return build_gfpgan(read_gfpgan_weights(as_arrays(unwrap(state))))


def build_gfpgan(weights: GfpganWeights) -> Gfpgan:
    """Build the network of weights that were read; they share its memory."""
    with torch.device("meta"):
        network = Gfpgan(weights.shape)
    network.load_state_dict(as_tensors(weights.arrays), strict=True, assign=True)
    return network.eval().requires_grad_(False)
