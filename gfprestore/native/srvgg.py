"""Real-ESRGAN's small network, SRVGGNetCompact (arXiv:2107.10833's code, general-x4v3), for the compiled kernels.

Convolutions at the photo's own size, one after another, and at the end every pixel's square of colours, added to the
pixel itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

import numpy as np
from torch import nn

from gfprestore.native.convolutions import require
from gfprestore.native.library import Library
from gfprestore.native.operands import Epilogue, Features, Floats
from gfprestore.native.program import ProgramBuilder
from gfprestore.native.torch_layers import CHANNELS, Layer, read_convolution


class Srvgg:
    """The convolutions of an SRVGGNetCompact, each with the slopes of what follows it."""

    shuffle = 1

    def __init__(self, network: nn.Module, library: Library) -> None:
        """Read them off spandrel's network.

        Raises:
            ValueError: It is built otherwise, or its widths do not fit the kernels.
        """
        # Its layers do not tell: another network of the same might add something else than the pixel itself.
        require(type(network).__name__ == "SRVGGNetCompact")
        body, upsampler = list(network.get_submodule("body").children()), network.get_submodule("upsampler")
        require(isinstance(upsampler, nn.PixelShuffle) and len(body) % 2 == 1)
        self.factor = int(upsampler.upscale_factor)  # type: ignore[arg-type]
        layers = [read_convolution(layer) for layer in body[::2]]
        first, *middle, last = layers
        self.width = len(first.bias)
        require(first.weight.shape[1] == CHANNELS and len(last.bias) == CHANNELS * self.factor**2)
        require(
            self.width % library.panel == 0 and all(layer.weight.shape[:2] == (self.width,) * 2 for layer in middle)
        )
        require(last.weight.shape[1] == self.width)
        self.slopes = [_read_slopes(layer, self.width) for layer in body[1::2]]
        first, *middle, last = _turn(layers, self.slopes)
        self.layers = [first.filled(inputs=library.panel), *middle]
        self.last = last.filled(outputs=library.panel)
        self.inputs = self.layers[0].weight.shape[1]
        self.bytes_per_pixel = 4.0 * (2 * self.width + len(self.last.bias) + 2 * CHANNELS * self.factor**2)

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


def _turn(layers: Sequence[Layer], slopes: Sequence[Floats]) -> list[Layer]:
    """Let channels of a slope above 1 be computed with the other sign, which the next layer takes back.

    The kernels' leaky ReLU is the larger of x and slope * x; with such a slope it is the smaller, so that of -x is
    minus that of x.
    """
    turned, before = [], np.ones(CHANNELS, np.float32)
    for layer, slope in zip_longest(layers, slopes):
        after = np.ones(len(layer.bias), np.float32) if slope is None else np.where(slope > 1, np.float32(-1), 1)
        weight = layer.weight * after[:, None, None, None] * before[:, None, None]  # [O I 3 3]
        turned.append(Layer(weight, layer.bias * after))
        before = after
    return turned


def _read_slopes(layer: nn.Module, width: int) -> Floats:
    """Slopes below zero of every channel."""
    if isinstance(layer, nn.PReLU):
        slopes = layer.weight.detach().numpy()
        require(len(slopes) in (1, width))
        return np.ascontiguousarray(np.broadcast_to(slopes, width))
    require(isinstance(layer, nn.ReLU | nn.LeakyReLU))
    return np.full(width, getattr(layer, "negative_slope", 0.0), np.float32)
