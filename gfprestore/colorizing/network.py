"""DDColor (arXiv:2212.11613) by way of spandrel."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from gfprestore.errors import WeightsError
from gfprestore.nn.tensors import as_tensors


class ColourNetwork(nn.Module):
    """DDColor on whole arrays: gray as RGB, [N, S, S, 3] float32 in [0, 1] -> a and b, [N, S, S, 2]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        """Run the network."""
        chroma: Tensor = self.network(pixels.permute(0, 3, 1, 2))  # [N 3 S S] -> [N 2 S S]
        return chroma.permute(0, 2, 3, 1).contiguous()  # [N S S 2]


def load_colour_network(state: Mapping[str, Any]) -> ColourNetwork:
    """Build DDColor from a state dict, in fp32 on the CPU.

    Raises:
        ImportError: spandrel_extra_arches is not installed.
        WeightsError: The weights are not DDColor's.
    """
    import spandrel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's remark on the way DDColor's activations are written
        from spandrel_extra_arches import EXTRA_REGISTRY

    tensors = {key: value.float() if value.is_floating_point() else value for key, value in as_tensors(state).items()}
    try:
        descriptor = spandrel.ModelLoader("cpu", EXTRA_REGISTRY).load_from_state_dict(tensors)
    except spandrel.UnsupportedModelError as error:
        raise WeightsError(
            "These are not the weights of DDColor: fetch ddcolor-tiny with gfprestore-weights."
        ) from error
    if descriptor.architecture.id != "DDColor" or descriptor.model.num_output_channels != 2:
        raise WeightsError("These weights do not colour: fetch ddcolor-tiny with gfprestore-weights.")
    return ColourNetwork(descriptor.eval().model)
