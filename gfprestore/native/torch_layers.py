"""Convolutions read off torch networks that upscale photos."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import nn

from gfprestore.native.convolutions import require
from gfprestore.native.operands import Floats

CHANNELS = 3
"""Of a photo."""


@dataclass(frozen=True, eq=False)
class Layer:
    """A 3x3 convolution."""

    weight: Floats
    """[O I 3 3]"""

    bias: Floats
    """[O]"""

    def filled(self, *, inputs: int = 1, outputs: int = 1) -> Layer:
        """The same with zeros for channels up to multiples."""
        return Layer(_fill(_fill(self.weight, 0, outputs), 1, inputs), _fill(self.bias, 0, outputs))


def read_convolution(layer: nn.Module) -> Layer:
    """Read a 3x3 convolution with zeros beyond the border.

    Raises:
        ValueError: It is something else.
    """
    require(isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3) and layer.padding == (1, 1))
    assert isinstance(layer, nn.Conv2d)
    require(layer.stride == (1, 1) and layer.bias is not None)
    assert layer.bias is not None
    return Layer(layer.weight.detach().numpy(), layer.bias.detach().numpy())


def _fill(array: Floats, axis: int, multiple: int) -> Floats:
    zeros = [(0, -length % multiple if axis == index else 0) for index, length in enumerate(array.shape)]
    return np.pad(array, zeros)
