"""Real-ESRGAN's RRDBNet (arXiv:1809.00219, section 3.1) for the compiled kernels.

The features of a dense block lie side by side in one buffer, so that nothing is ever concatenated.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gfprestore.native.convolutions import Kernel, Layers, require, up
from gfprestore.native.library import Library
from gfprestore.native.operands import CHANNELS, Epilogue, Features, Flag, Floats
from gfprestore.native.program import ProgramBuilder

GROWTH = 32
"""Channels that every convolution of a dense block adds."""

RESIDUAL_SHARE = 0.2
"""Of what a block adds to its input."""

LEAK = 0.2
"""Slope of every leaky ReLU below zero."""

_UNSHUFFLED = {CHANNELS * side**2: side for side in (1, 2, 4)}
"""Channels of the input -> side of the photo's squares that they are."""

# BSRGAN's names and those of ESRGAN's first form -> Real-ESRGAN's. In the latter all after the blocks is counted.
_SPELLINGS = (
    (re.compile(r"RRDB_trunk\.(\d+)\.RDB(\d)\.(conv\d)\."), r"body.\1.rdb\2.\3."),
    (re.compile(r"trunk_conv\."), "conv_body."),
    (re.compile(r"upconv(\d)\."), r"conv_up\1."),
    (re.compile(r"HRconv\."), "conv_hr."),
    (re.compile(r"model\.0\."), "conv_first."),
    (re.compile(r"model\.1\.sub\.(\d+)\.RDB(\d)\.(conv\d)\.0\."), r"body.\1.rdb\2.\3."),
    (re.compile(r"model\.1\.sub\.\d+\."), "conv_body."),
)


class Rrdb:
    """The convolutions of an RRDBNet."""

    def __init__(self, state: Mapping[str, NDArray[Any]], library: Library) -> None:
        """Read them.

        Args:
            state: Bare state dict, under the names of Real-ESRGAN, BSRGAN or ESRGAN.
            library: The kernels.

        Raises:
            KeyError, ValueError: It is another network's, or its widths do not fit the kernels.
        """
        state = _with_released_names(state)
        layers = Layers(state, library, half=False)
        width, given = state["conv_first.weight"].shape[:2]
        require(width > 0 and given in _UNSHUFFLED)
        self.width = width
        self.shuffle = _UNSHUFFLED[given]
        first = layers.convolution("conv_first", width, given)
        self.blocks = [_dense_blocks(layers, f"body.{index}", width) for index in range(len(_numbers(state, "body.")))]
        self.last_of_trunk = layers.convolution("conv_body", width, width)
        ups = len(_numbers(state, "conv_up"))
        self.upsampled = [layers.convolution(f"conv_up{index}", width, width) for index in range(1, ups + 1)]
        self.before_last = layers.convolution("conv_hr", width, width)
        last = layers.convolution("conv_last", CHANNELS, width)
        layers.require_all_read()
        self.factor, rest = divmod(2**ups, self.shuffle)
        require(rest == 0 and len(self.blocks) > 0)
        require(width % library.panel == 0 and library.panel <= GROWTH)
        self.inputs = up(given, library.panel)
        self.first, self.last = layers.widen(first, self.inputs, width), layers.widen(last, width, library.panel)
        self.reach = 1 + 15 * len(self.blocks) + 1 + ups + 2
        self.bytes_per_pixel = 2.0 * 4 * width * self.factor**2

    def write(self, builder: ProgramBuilder, x: Features) -> Features:
        """Write the network's steps; see `TileNetwork.write`."""
        return _Writer(builder, self.width).write(self, x)

    def finish(self, found: Floats, _tile: Floats) -> Floats:
        """The picture itself; see `TileNetwork.finish`."""
        return found


def _with_released_names(state: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The state dict under the names of Real-ESRGAN's weights, where its own are known; raises as `Rrdb` does."""
    last = max(_numbers(state, "model."), default=0)
    named = {_released_name(name, last): array for name, array in state.items()}
    require(len(named) == len(state))  # not twice the same
    return named


def _released_name(name: str, last: int) -> str:
    for pattern, released in _SPELLINGS:
        if found := pattern.match(name):
            return found.expand(released) + name[found.end() :]
    if found := re.match(r"model\.(\d+)\.", name):
        # Convolution k of those that enlarge is number 3 k; two more follow, with an activation between.
        up, rest = divmod(int(found[1]), 3)
        counted = {last - 2: "conv_hr.", last: "conv_last."}
        return counted.get(int(found[1]), f"conv_up{up}." if rest == 0 else found[0]) + name[found.end() :]
    return name


def _numbers(state: Mapping[str, Any], prefix: str) -> set[int]:
    """The numbers that follow a prefix in the names."""
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.")
    return {int(found[1]) for name in state if (found := pattern.match(name))}


def _dense_blocks(layers: Layers, name: str, width: int) -> list[list[Kernel]]:
    """The five convolutions of each of the three dense blocks."""
    return [
        [
            layers.convolution(
                f"{name}.rdb{block}.conv{index}", GROWTH if index < 5 else width, width + (index - 1) * GROWTH
            )
            for index in range(1, 6)
        ]
        for block in (1, 2, 3)
    ]


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

    def _block(self, x: Features, block: Sequence[Sequence[Kernel]]) -> Features:
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
        layer: Kernel,
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
