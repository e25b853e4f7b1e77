"""Real-ESRGAN's small network, SRVGGNetCompact (arXiv:2107.10833's code, general-x4v3), for the compiled kernels.

Convolutions at the photo's own size, one after another, and at the end every pixel's square of colours, added to the
pixel itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gfprestore.native.convolutions import Kernel, Layers, require, up
from gfprestore.native.library import Library
from gfprestore.native.operands import CHANNELS, Epilogue, Features, Floats
from gfprestore.native.program import ProgramBuilder


class Srvgg:
    """The convolutions of an SRVGGNetCompact, each with the slopes of the PReLU that follows it."""

    shuffle = 1

    def __init__(self, state: Mapping[str, NDArray[Any]], library: Library) -> None:
        """Read them.

        Args:
            state: Bare state dict: convolutions and PReLUs in turn, as `body.0`, `body.1` and so on.
            library: The kernels.

        Raises:
            KeyError, ValueError: It is another network's, or its widths do not fit the kernels.
        """
        reader = Layers(state, library, half=False)
        self.width = width = state["body.0.bias"].size
        # Of every layer but the last a weight and a bias, and one weight for what follows it.
        count = (len(state) - 2) // 3
        self.factor = math.isqrt(state[f"body.{2 * count}.bias"].size // CHANNELS)
        require(self.factor > 0 and width > 0 and width % library.panel == 0)
        layers = [reader.convolution("body.0", width, CHANNELS)]
        layers += [reader.convolution(f"body.{2 * index}", width, width) for index in range(1, count)]
        layers += [reader.convolution(f"body.{2 * count}", CHANNELS * self.factor**2, width)]
        self.slopes = [reader.read(f"body.{2 * index + 1}.weight", width) for index in range(count)]
        reader.require_all_read()
        first, *middle, last = _turn(layers, self.slopes)
        self.inputs = library.panel
        self.layers = [reader.widen(first, self.inputs, width), *middle]
        self.last = reader.widen(last, width, up(len(last.bias), library.panel))
        self.reach = len(layers)
        self.bytes_per_pixel = 4.0 * (2 * width + len(self.last.bias) + 2 * CHANNELS * self.factor**2)

    def write(self, builder: ProgramBuilder, x: Features) -> Features:
        """Write the network's steps; see `TileNetwork.write`."""
        for layer, slopes in zip(self.layers, self.slopes, strict=True):
            x = builder.convolve(x, layer.weight, Epilogue(bias=layer.bias, slopes=slopes))
        return builder.convolve(x, self.last.weight, Epilogue(bias=self.last.bias))

    def finish(self, found: Floats, tile: Floats) -> Floats:
        """Lay out the squares and add each pixel to its own; see `TileNetwork.finish`."""
        height, width = tile.shape[:2]
        factor = self.factor
        # As torch's pixel_shuffle: channel (c, i, j) goes to row i, column j of the square.
        squares = found[..., : CHANNELS * factor**2].reshape(height, width, CHANNELS, factor, factor)  # [H W C i j]
        picture = np.ascontiguousarray(squares.transpose(0, 3, 1, 4, 2))  # [H i W j C]
        picture += tile[:, None, :, None]
        return picture.reshape(height * factor, width * factor, CHANNELS)


def _turn(layers: Sequence[Kernel], slopes: Sequence[Floats]) -> list[Kernel]:
    """Let channels of a slope above 1 be computed with the other sign, which the next layer takes back.

    The kernels' leaky ReLU is the larger of x and slope * x; with such a slope it is the smaller, so that of -x is
    minus that of x.
    """
    turned, before = [], np.ones(CHANNELS, np.float32)
    for layer, slope in zip_longest(layers, slopes):
        after = np.ones(len(layer.bias), np.float32) if slope is None else np.where(slope > 1, np.float32(-1), 1)
        weight = layer.weight * after[:, None, None, None] * before[:, None, None]  # [O I 3 3]
        turned.append(Kernel(weight, layer.bias * after))
        before = after
    return turned
