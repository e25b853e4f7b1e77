"""Real-ESRGAN's RRDBNet (arXiv:1809.00219, section 3.1) for the compiled kernels.

The features of a dense block lie side by side in one buffer, so that nothing is ever concatenated.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import nn

from gfprestore.native.convolutions import require
from gfprestore.native.library import Library
from gfprestore.native.operands import Epilogue, Features, Flag, Floats
from gfprestore.native.program import ProgramBuilder
from gfprestore.native.torch_layers import CHANNELS, Layer, read_convolution

GROWTH = 32
"""Channels that every convolution of a dense block adds."""

RESIDUAL_SHARE = 0.2
"""Of what a block adds to its input."""

LEAK = 0.2
"""Slope of every leaky ReLU below zero."""


class Rrdb:
    """The convolutions of an RRDBNet."""

    def __init__(self, network: nn.Module, library: Library) -> None:
        """Read them off spandrel's network.

        Raises:
            ValueError: It is built otherwise, or its widths do not fit the kernels.
        """
        self.shuffle = int(getattr(network, "shuffle_factor", None) or 1)
        layers = list(network.get_submodule("model").children())
        trunk = list(layers[1].get_submodule("sub").children())
        first = read_convolution(layers[0])
        self.blocks = [_dense_blocks(block) for block in trunk[:-1]]
        self.last_of_trunk = read_convolution(trunk[-1])
        tail = layers[2:]
        self.upsampled = []
        while tail and isinstance(tail[0], nn.Upsample):
            require(tail[0].scale_factor == 2 and tail[0].mode == "nearest" and _is_leaky(tail[2]))
            self.upsampled.append(read_convolution(tail[1]))
            tail = tail[3:]
        require(len(tail) == 3 and _is_leaky(tail[1]))
        self.before_last, last = read_convolution(tail[0]), read_convolution(tail[2])
        self.factor = 2 ** len(self.upsampled)
        self.width = first.weight.shape[0]
        require(self.width % library.panel == 0 and library.panel <= GROWTH and last.weight.shape[0] == CHANNELS)
        self.first, self.last = first.filled(inputs=library.panel), last.filled(outputs=library.panel)
        self.inputs = self.first.weight.shape[1]
        self.bytes_per_pixel = 2.0 * 4 * self.width * (self.factor / self.shuffle) ** 2

    def write(self, builder: ProgramBuilder, x: Features) -> Features:
        """Write the network's steps; see `TileNetwork.write`."""
        return _Writer(builder, self.width).write(self, x)

    def finish(self, found: Floats, _tile: Floats) -> Floats:
        """The picture itself; see `TileNetwork.finish`."""
        return found


def _is_leaky(layer: nn.Module) -> bool:
    return isinstance(layer, nn.LeakyReLU) and layer.negative_slope == LEAK


def _dense_blocks(block: nn.Module) -> list[list[Layer]]:
    """The five convolutions of each of the three dense blocks."""
    found = []
    for one in (getattr(block, name, None) for name in ("RDB1", "RDB2", "RDB3")):
        require(isinstance(one, nn.Module) and getattr(one, "conv1x1", None) is None)
        assert isinstance(one, nn.Module)
        parts = [list(one.get_submodule(f"conv{index}").children()) for index in range(1, 6)]
        require(all(len(part) == 2 and _is_leaky(part[1]) for part in parts[:4]) and len(parts[4]) == 1)
        found.append([read_convolution(part[0]) for part in parts])
        require(all(layer.weight.shape[0] == GROWTH for layer in found[-1][:4]))
    return found


class _Writer:
    def __init__(self, builder: ProgramBuilder, width: int) -> None:
        self._builder, self._width = builder, width

    def write(self, network: Rrdb, x: Features) -> Features:
        first = self._convolve(x, network.first, into=self._dense(x.size).part(0, self._width))
        features = first
        for block in network.blocks:
            features = self._block(features, block)
        features = self._convolve(features, network.last_of_trunk, residual=first)
        for layer in network.upsampled:
            features = self._convolve(features, layer, slope=LEAK, wider=Flag.REPEATS_INPUT)
        features = self._convolve(features, network.before_last, slope=LEAK)
        return self._convolve(features, network.last, into=self._builder.features(features.size, CHANNELS))

    def _dense(self, size: tuple[int, int]) -> Features:
        return self._builder.features(size, self._width + 4 * GROWTH)

    def _block(self, x: Features, block: Sequence[Sequence[Layer]]) -> Features:
        """Three dense blocks; `x` lies in the first one's buffer."""
        start, width = x, self._width
        for index, layers in enumerate(block):
            dense = Features(x.buffer, x.height, x.width, width + 4 * GROWTH, x.stride)
            for number, layer in enumerate(layers[:4]):
                reach = width + number * GROWTH
                self._convolve(dense.part(0, reach), layer, slope=LEAK, into=dense.part(reach, GROWTH))
            share, residual = RESIDUAL_SHARE, x
            if index == len(block) - 1:
                # start + 0.2 (x + 0.2 y): what does not depend on y is added first.
                share, residual = RESIDUAL_SHARE**2, self._builder.sum(start, x, RESIDUAL_SHARE)
            into = self._dense(x.size).part(0, width)
            x = self._convolve(dense, layers[4], share=share, residual=residual, into=into)
        return x

    def _convolve(
        self,
        x: Features,
        layer: Layer,
        *,
        slope: float = 1.0,
        share: float = 1.0,
        residual: Features | None = None,
        wider: Flag | None = None,
        into: Features | None = None,
    ) -> Features:
        gain = None if share == 1 else np.full(len(layer.bias), share, np.float32)
        bias = np.ascontiguousarray(share * layer.bias)
        after = Epilogue(gain=gain, bias=bias, slope=slope, residual=residual)
        return self._builder.convolve(x, layer.weight, after, wider=wider, into=into)
