"""Convolutions with their normalisations: read off a state dict, packed for the kernels, and written as steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gfprestore.native.library import Library
from gfprestore.native.operands import Array, Buffer, Epilogue, Features, Flag, Floats, Kind, Operand
from gfprestore.native.packing import pair_rows
from gfprestore.native.program import ProgramBuilder

EPSILON = 1e-5
"""Of every normalisation; torch's default."""


class Kernel(NamedTuple):
    """A convolution with its normalisation."""

    weight: Floats
    """[O I K K]"""

    bias: Floats
    """[O]"""


@dataclass(frozen=True, eq=False)
class Product:
    """A convolution packed for products."""

    packed: Array
    """[panels][depth][panel]"""

    bias: Array
    """Of all channels of the panels."""

    outputs: int
    """Channels that are stored."""

    side: int = 1

    depth: int = 0
    """Channels of the input that have weights."""

    half: bool = False
    """Whether the weights are bfloat16."""


class Layers:
    """Reads convolutions off a state dict and fills their channels up with zeros to what the kernels take."""

    def __init__(self, state: Mapping[str, NDArray[Any]], library: Library, half: bool) -> None:
        self._state, self._half = state, half
        self._unread = {name for name in state if not name.endswith("num_batches_tracked")}
        self.panel = library.panel
        self.lanes = library.lanes
        """Channels of features are multiples of this, a vector."""

    def read(self, name: str, *shape: int) -> Floats:
        """An array as float32.

        Raises:
            KeyError: There is none of that name.
            ValueError: It has another shape.
        """
        self._unread.discard(name)
        array = self._state[name]
        require(array.shape == shape)
        return array.astype(np.float32, copy=False)

    def ignore(self, *prefixes: str) -> None:
        """Take arrays for read whose names start so: what is only trained with."""
        self._unread = {name for name in self._unread if not name.startswith(prefixes)}

    def require_all_read(self) -> None:
        """Raise ValueError where more is there than was read: another network, which only shares some names."""
        require(not self._unread)

    def convolution(self, name: str, outputs: int, inputs: int) -> Kernel:
        """A 3x3 convolution with a bias; raises as `read` does."""
        return Kernel(self.read(f"{name}.weight", outputs, inputs, 3, 3), self.read(f"{name}.bias", outputs))

    def fused(self, name: str, normalisation: str, outputs: int, inputs: int, side: int) -> Kernel:
        """A convolution without bias and the normalisation after it; raises as `read` does."""
        weight = self.read(f"{name}.weight", outputs, inputs, side, side)
        factor, shift, mean, variance = (
            self.read(f"{normalisation}.{part}", outputs) for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = factor / np.sqrt(variance + np.float32(EPSILON))
        return Kernel(weight * scale[:, None, None, None], shift - mean * scale)

    def widen(self, kernel: Kernel, inputs: int, outputs: int) -> Kernel:
        """Zeros after the channels there are."""
        weight, bias = kernel
        zeros = ((0, outputs - weight.shape[0]), (0, inputs - weight.shape[1]))
        return Kernel(np.pad(weight, (*zeros, (0, 0), (0, 0))), np.pad(bias, zeros[0]))

    def tiled(self, *kernels: Kernel) -> Kernel:
        """3x3 convolutions of one input as one, for tiles."""
        weight, bias = (np.concatenate(parts) for parts in zip(*kernels, strict=True))
        return self.widen(Kernel(weight, bias), up(weight.shape[1], self.lanes), up(len(bias), self.panel))

    def product(self, kernel: Kernel, exact: bool = False) -> Product:
        """Any convolution, for products; `exact` leaves the input's channels as they are."""
        outputs, inputs, side = kernel.weight.shape[:3]
        depth = inputs if exact else up(inputs, self.lanes)
        kernel = self.widen(kernel, depth, up(outputs, self.panel))
        rows = kernel.weight.transpose(2, 3, 1, 0).reshape(-1, len(kernel.bias))  # [O I K K] -> [K K I O] -> [KKI O]
        packed = rows.reshape(len(rows), -1, self.panel).transpose(1, 0, 2)
        stored = up(outputs, self.lanes)
        return Product(np.ascontiguousarray(packed), kernel.bias, stored, side, depth)

    def backbone_product(self, kernel: Kernel) -> Product:
        """The same for what may multiply in bfloat16."""
        product = self.product(kernel)
        return replace(product, packed=pair_rows(product.packed), half=True) if self._half else product

    def filters(self, kernel: Kernel) -> NDArray[np.float32]:
        """A convolution of every channel by itself, [O 1 3 3] -> [10][O]: nine weights and what is added."""
        rows = np.concatenate([kernel.weight.reshape(-1, 9).T, kernel.bias[None]])
        return np.ascontiguousarray(np.pad(rows, ((0, 0), (0, -rows.shape[1] % self.lanes))))


class Writer:
    """Writes convolutions, and what stands between them, into a program."""

    def __init__(self, builder: ProgramBuilder) -> None:
        self.builder = builder

    def tiled(
        self,
        x: Features,
        kernel: Kernel,
        into: Features | None = None,
        *,
        style: Operand = None,
        wider: Flag | None = None,
        exact: bool = False,
        adds_first: bool = False,
        **after: Any,
    ) -> Features:
        """A 3x3 convolution in tiles; see `ProgramBuilder.convolve` and `Epilogue`."""
        epilogue = Epilogue(bias=kernel.bias, **after)
        return self.builder.convolve(
            x, kernel.weight, epilogue, style=style, wider=wider, into=into, exact=exact, adds_first=adds_first
        )

    def multiply(
        self, x: Features, product: Product, slope: float, residual: Features | None = None, flags: int = 0
    ) -> Features:
        """A 1x1 convolution."""
        own: dict[str, Any] = {"channels_in": x.channels, "residual": residual}
        return self.product(Kind.MATMUL, x, product, x.size, slope, flags=flags, **own)

    def convolve(self, x: Features, product: Product, pace: int, slope: float) -> Features:
        """A convolution of any side at every `pace`th pixel."""
        size = x.height // pace, x.width // pace
        own: dict[str, Any] = {"channels_in": x.channels, "side": product.side, "pace": pace}
        return self.product(Kind.CONVOLVE, x, product, size, slope, **own)

    def filter_pixels(
        self, pixels: Buffer, stem: Product, size: tuple[int, int], slope: float, mean: Array, *, feeds: bool = False
    ) -> Features:
        """A convolution of every second pixel of bytes RGB, less their mean."""
        rows = np.tile(mean, 2 * self.builder.library.panel)
        own: dict[str, Any] = {"channels_in": len(mean), "side": stem.side, "pace": 2, "mean": rows}
        return self.product(Kind.FILTER_PIXELS, pixels, stem, size, slope, feeds=feeds, **own)

    def pool(self, x: Features) -> Features:
        """The largest of 3x3 pixels, at every second one."""
        y = self.builder.features((x.height // 2, x.width // 2), x.channels)
        self.builder.add(Kind.POOL, y, x=x, channels_in=x.channels, side=3, pace=2)
        return y

    def product(
        self,
        kind: Kind,
        x: Features | Buffer,
        product: Product,
        size: tuple[int, int],
        slope: float,
        *,
        flags: int = 0,
        feeds: bool = False,
        **own: Any,
    ) -> Features:
        """A step that multiplies; where it `feeds` the next one in a chain, what it gives is not kept."""
        y = self.builder.passing(size, product.outputs) if feeds else self.builder.features(size, product.outputs)
        flags |= Flag.FEEDS_NEXT * feeds | Flag.ROUNDED_WEIGHT * product.half
        operands = {"weight": product.packed, "bias": product.bias, "slope": slope, "flags": int(flags)}
        self.builder.add(kind, y, x=x, **operands, **own)
        return y

    def mean(self, x: Features) -> Features:
        """The mean of all pixels."""
        y = self.builder.features((1, 1), x.channels)
        self.builder.add(Kind.MEAN, y, x=x, channels_in=x.channels, height=x.height, width=x.width)
        return y

    def sigmoid(self, x: Features, plus: float = 0.0) -> Features:
        """The logistic function of a vector, and something more."""
        y = self.builder.features((1, 1), x.channels)
        self.builder.add(Kind.SIGMOID, y, x=x, slope=plus)
        return y

    def activate(self, x: Features, after: Epilogue) -> Features:
        """What follows a convolution, without one."""
        y = self.builder.features(x.size, x.channels)
        self.builder.add(Kind.ACTIVATE, y, x=x, kept=y.channels, **vars(after))
        return y

    def classes(self, scores: Features, count: int, pace: int) -> Buffer:
        """Of the first `count` channels the one with the highest value, at `pace` times the size, a byte a pixel.

        Values in between are interpolated, the outermost pixels lying on the outermost ones.
        """
        height, width = scores.height * pace, scores.width * pace
        y = self.builder.buffer(height * width)
        self.builder.add(Kind.CLASSES, y, x=scores, height=height, width=width, pace=pace, depth=count)
        return y


def up(number: int, multiple: int) -> int:
    """The next multiple."""
    return -(-number // multiple) * multiple


def require(condition: bool) -> None:
    """Raise ValueError where a network is another than the kernels know."""
    if not condition:
        raise ValueError("this is no network that the kernels know")
