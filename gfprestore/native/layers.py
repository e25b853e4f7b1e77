"""Convolutions of networks that upscale photos, read off their state dicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gfprestore.native.convolutions import require
from gfprestore.native.operands import Floats

CHANNELS = 3
"""Of a photo."""


@dataclass(frozen=True, eq=False)
class Layer:
    """A 3x3 convolution with zeros beyond the border."""

    weight: Floats
    """[O I 3 3]"""

    bias: Floats
    """[O]"""

    def filled(self, *, inputs: int = 1, outputs: int = 1) -> Layer:
        """The same with zeros for channels up to multiples."""
        return Layer(_fill(_fill(self.weight, 0, outputs), 1, inputs), _fill(self.bias, 0, outputs))


class LayerReader:
    """Takes what a network is expected to hold out of its state dict, so that anything unexpected shows.

    A network is known by its names and shapes alone: so it is taken for one of a kind only if every name is there, of
    the shape that goes with the others, and nothing else is.
    """

    def __init__(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Takes arrays of any float type by name."""
        self._left = dict(state)

    def take(self, name: str, shape: tuple[int, ...]) -> Floats:
        """Take one array, in float32.

        Raises:
            ValueError: It is not there, or of another shape or of no floats.
        """
        require(name in self._left)
        array = self._left.pop(name)
        require(array.shape == shape and array.dtype.kind == "f")
        return np.ascontiguousarray(array, np.float32)

    def take_layer(self, name: str, outputs: int, inputs: int) -> Layer:
        """Take a convolution's weight and bias.

        Raises:
            ValueError: It is not there or not 3x3 between so many channels.
        """
        weight = self.take(f"{name}.weight", (outputs, inputs, 3, 3))
        return Layer(weight, self.take(f"{name}.bias", (outputs,)))

    def finish(self) -> None:
        """Check that everything was taken.

        Raises:
            ValueError: Something is left.
        """
        require(not self._left)


def length_of(state: Mapping[str, NDArray[Any]], name: str, axis: int = 0) -> int:
    """Elements along an axis of an array in a state dict.

    Raises:
        ValueError: It is not there, or has fewer axes.
    """
    require(name in state and state[name].ndim > axis)
    return int(state[name].shape[axis])


def _fill(array: Floats, axis: int, multiple: int) -> Floats:
    zeros = [(0, -length % multiple if axis == index else 0) for index, length in enumerate(array.shape)]
    return np.pad(array, zeros)
