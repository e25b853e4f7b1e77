"""Writes programs for the compiled kernels: steps and packed weights."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gfprestore.native.library import Library
from gfprestore.native.operands import (
    STRIDES,
    Array,
    Buffer,
    Epilogue,
    Features,
    Flag,
    Floats,
    Kind,
    Operand,
    buffer_of,
)
from gfprestore.native.packing import pair_rows, round_weights
from gfprestore.native.running import Memory, Program, share

SMALLEST_TILED = 16
"""Side from which tiles pay: below it the transformed weights, four times as many, take longer to read."""

SMALL_TILE, LARGE_TILE = 4, 6
"""Outputs along a tile's side. Large tiles take a fifth less products, but 64 weights where small ones take 36, and an
error that is too large for bfloat16."""

SMALLEST_LARGE = 64
"""Side from which large tiles pay: below it weights are read for few of them, and many reach beyond the border."""

NEAR_WEIGHTS = 1 << 24
"""Bytes of a tiled convolution's weights up to which every block of tiles reads them all; larger ones would come from
the main memory each time, and the convolution is three steps, which read them once for many tiles (fp32 -5 %)."""

TILE_MEMORY = 1 << 24
"""Bytes of values and products that such steps pass on at once: the cache that cores share has room for them."""

MOST_ROWS = 12
"""What every kind of kernels multiplies at once is a divisor of this."""

PLANE_PADDING = 32
"""Floats after each of the planes of values or products, at most."""

SMALLEST_ROUNDED = 128
"""Side from which features that only tiles and colours are read from are kept in bfloat16: smaller ones stay near."""

SPARE_PIXELS = 48
"""Pixels after the last that a block of a product may read: its results are dropped."""


@dataclass
class ProgramBuilder:
    """Collects steps."""

    library: Library
    half: bool
    """Whether convolutions in tiles and of 1x1 multiply in bfloat16, where nothing else is said, and linear steps have
    weights in it."""

    steps: list[dict[str, Any]] = field(default_factory=list)
    buffers: list[Buffer] = field(default_factory=list)
    kernels: dict[tuple[int, int, bool], tuple[Floats, Array]] = field(default_factory=dict)
    """By a kernel's address, the tile's side and whether it is bfloat16: the kernel, which so keeps it, and the packed
    one."""

    smallest_tiled: int = SMALLEST_TILED
    """Least side of what is convolved in tiles."""

    smallest_large: int = SMALLEST_LARGE
    """Least side of what is convolved in large tiles."""

    near_weights: int = NEAR_WEIGHTS
    """Most bytes of weights of a tiled convolution that is one step."""

    tile_memory: int = TILE_MEMORY
    """Bytes that the steps of one that is three pass on."""

    smallest_rounded: int = SMALLEST_ROUNDED
    """Least side of features that are kept in bfloat16."""

    _unpacked: list[tuple[Floats, Array, int, bool]] = field(default_factory=list)

    def buffer(self, size: int) -> Buffer:
        """Memory that the next step writes."""
        made = Buffer(size, len(self.steps), len(self.steps))
        self.buffers.append(made)
        return made

    def features(self, size: tuple[int, int], channels: int, *, rounded: bool = False) -> Features:
        """Features of a height and width that the next step writes."""
        height, width = size
        bytes_of_all = (2 if rounded else 4) * channels * (height * width + SPARE_PIXELS)
        return Features(self.buffer(bytes_of_all), height, width, channels, channels, rounded=rounded)

    def passing(self, size: tuple[int, int], channels: int) -> Features:
        """Features that only the next step of a chain reads, without memory; see `Flag.FEEDS_NEXT`."""
        return Features(self.buffer(0), *size, channels, channels)

    def add(self, kind: Kind, y: Features | Buffer, **fields: Any) -> None:
        """Append a step; how its features lie in memory follows from them."""
        for name, operand in {"y": y, **fields}.items():
            if isinstance(operand, Features | Buffer):
                buffer_of(operand).last = len(self.steps)
            if isinstance(operand, Features) and name in STRIDES:
                fields.setdefault(STRIDES[name], operand.stride)
        if isinstance(y, Features):
            shape = {"height": y.height, "width": y.width, "channels_out": y.channels}
            fields = shape | fields
        self.steps.append({"kind": int(kind), "y": y, **fields})

    def convolve(
        self,
        x: Features | Array,
        weight: Floats,
        after: Epilogue,
        *,
        style: Operand = None,
        wider: Flag | None = None,
        halves: bool = False,
        clamps: bool = False,
        into: Features | None = None,
        rounds: bool = False,
        exact: bool = False,
        adds_first: bool = False,
        for_colours: bool = False,
    ) -> Features:
        """A 3x3 convolution with zeros beyond the border.

        Args:
            x: Input [H W I].
            weight: [O I 3 3].
            after: What follows it.
            style: Factors of the input's channels.
            wider: `DOUBLES_INPUT` or `REPEATS_INPUT` to convolve the input at twice its size.
            halves: Give means of 2x2 results.
            clamps: Beyond its border the input goes on as it ends; only for what is convolved in tiles.
            into: Where the result goes; None takes new features.
            rounds: Keep the result in bfloat16, where that pays: if it is read by convolutions in tiles, as scale or
                shift, and for colours alone.
            exact: Multiply in float even where the program does not.
            adds_first: Add the residual, which has the result's size, before the activation; only for what is convolved
                in tiles.
            for_colours: Only the next step reads the result, for colours: in float it is kept nowhere.
        """
        factor = 2 if wider else 1
        height, width = x.size if isinstance(x, Features) else x.shape[:2]
        size = height * factor, width * factor
        if min(size) < self.smallest_tiled or not isinstance(x, Features):
            assert not (clamps or exact or adds_first)
            return self._convolve_small(x, weight, after, style, bool(wider), halves)
        outputs, inputs = weight.shape[:2]
        half = self.half and not exact
        is_large = not half and min(size) >= self.smallest_large
        packed = self.pack(weight, LARGE_TILE if is_large else SMALL_TILE, half)
        flags = (
            (wider or Flag(0)) | Flag.HALVES_OUTPUT * halves | Flag.CLAMPS_INPUT * clamps | Flag.LARGE_TILES * is_large
        )
        if after.residual is not None and after.residual.height < size[0]:
            flags |= Flag.DOUBLES_RESIDUAL
        # The kernels have no such case: it would be computed otherwise, not refused.
        assert not (adds_first and flags & (Flag.DOUBLES_RESIDUAL | Flag.HALVES_OUTPUT))
        flags |= Flag.ADDS_FIRST * adds_first
        rounded = rounds and half and min(size) >= self.smallest_rounded and outputs % self.library.panel == 0
        assert not rounded or not (halves or after.residual)
        assert not x.rounded or not (clamps or wider is Flag.REPEATS_INPUT)
        if for_colours and not half and packed.nbytes <= self.near_weights:
            assert not after.residual and not halves
            flags |= Flag.FEEDS_NEXT
            y = self.passing(size, outputs)
        else:
            y = into or self.features((size[0] // 2, size[1] // 2) if halves else size, outputs, rounded=rounded)
        flags |= Flag.ROUNDED_WEIGHT * half | Flag.ROUNDED_INPUT * x.rounded | Flag.ROUNDED_OUTPUT * y.rounded
        flags |= Flag.ROUNDED_TRANSFORM * (isinstance(after.scale, Features) and after.scale.rounded)
        shape = {"height": size[0], "width": size[1], "channels_in": inputs, "channels_out": outputs}
        fields = {"flags": int(flags), "style": style, **shape}
        if packed.nbytes <= self.near_weights:
            self._convolution(Kind.WINOGRAD, x, y, packed, after, **fields)
        else:
            self._convolve_apart(x, y, packed, after, LARGE_TILE if is_large else SMALL_TILE, fields)
        return y

    def _convolve_apart(
        self, x: Features, y: Features, packed: Array, after: Epilogue, tile: int, fields: dict[str, Any]
    ) -> None:
        """A tiled convolution in three steps for some tiles after others: to values, to products, to results."""
        inputs, outputs, products = fields["channels_in"], fields["channels_out"], (tile + 2) ** 2
        tiles = -(-fields["height"] // tile) * -(-fields["width"] // tile)
        parts = -(-tiles * 4 * products * (inputs + outputs) // self.tile_memory)
        at_once = -(-tiles // (parts * MOST_ROWS)) * MOST_ROWS
        for first in range(0, tiles, at_once):
            part = {**fields, "first_tile": first, "tiles": min(at_once, tiles - first)}
            values = self.buffer(4 * products * (at_once * inputs + PLANE_PADDING))
            self.add(Kind.READ_TILES, values, x=x, **part)
            made = self.buffer(4 * products * (at_once * outputs + PLANE_PADDING))
            self.add(Kind.MULTIPLY_TILES, made, x=values, weight=packed, **part)
            self._convolution(Kind.WRITE_TILES, made, y, packed, after, **part)

    def pack(self, weight: Floats, tile: int, half: bool) -> Array:
        """Room for a kernel [O I 3 3] in the form that tiles are multiplied with; every kernel is packed once."""
        key = weight.ctypes.data, tile, half
        if key not in self.kernels:
            outputs, inputs = weight.shape[:2]
            channels = self.count_panels(outputs) * self.library.panel
            packed = np.empty((tile + 2) ** 2 * channels * inputs, np.uint16 if half else np.float32)
            self.kernels[key] = weight, packed
            self._unpacked.append((weight, packed, tile, half))
        return self.kernels[key][1]

    def _convolve_small(
        self, x: Features | Array, weight: Floats, after: Epilogue, style: Operand, doubles: bool, halves: bool
    ) -> Features:
        """The same as one matrix product over every pixel's neighbours."""
        inputs = weight.shape[1]
        if doubles and isinstance(x, Features):
            x = self.resample(Kind.DOUBLE, x)
        size = x.size if isinstance(x, Features) else (x.shape[0], x.shape[1])
        if after.residual is not None and after.residual.height < size[0]:
            after = replace(after, residual=self.resample(Kind.DOUBLE, after.residual))
        around = self.features(size, 9 * inputs)
        stride = x.stride if isinstance(x, Features) else x.shape[2]
        self.add(Kind.GATHER, around, x=x, style=style, channels_in=inputs, stride_in=stride)
        y = self.multiply(around, _neighbours_first(weight), after)
        return self.resample(Kind.HALVE, y) if halves else y

    def multiply(self, x: Features, weight: Floats, after: Epilogue) -> Features:
        """A 1x1 convolution of features [H W I] with a matrix [O I]."""
        outputs, inputs = weight.shape
        y = self.features(x.size, outputs)
        packed = self.pack_matrix(weight)
        fields = {"channels_in": inputs, "flags": int(Flag.ROUNDED_WEIGHT * self.half)}
        self._convolution(Kind.MATMUL, x, y, pair_rows(packed) if self.half else packed, after, **fields)
        return y

    def mend_border(self, x: Features, y: Features, weights: Floats, after: Epilogue, *, style: Operand = None) -> None:
        """Convolve the outermost pixels once more, with weights of their own; beyond the border the input goes on.

        Args:
            x: Input [H W I].
            y: Result of a convolution of x [H W O], whose outermost pixels are replaced.
            weights: Of the corners, row by row, the top, the bottom, the left and the right: [8 O I 3 3].
            after: What follows.
            style: Factors of the input's channels.
        """
        packed = np.stack([self.pack_matrix(_neighbours_first(weight)) for weight in weights])
        self._convolution(Kind.BORDER, x, y, packed, after, style=style, channels_in=weights.shape[2])

    def count_panels(self, outputs: int) -> int:
        """Panels that hold so many channels; the last need not be whole."""
        return -(-outputs // self.library.panel)

    def pack_matrix(self, weight: Floats) -> Array:
        """A matrix [O I] in the form of products, with zeros for what the last panel has beyond it."""
        outputs, inputs = weight.shape
        panel, panels = self.library.panel, self.count_panels(outputs)
        packed = np.zeros((panels * panel, inputs), np.float32)
        packed[:outputs] = weight
        return np.ascontiguousarray(packed.reshape(panels, panel, inputs).transpose(0, 2, 1))

    def _convolution(
        self, kind: Kind, x: Features | Buffer, y: Features, packed: Array, after: Epilogue, **fields: Any
    ) -> None:
        reached = after.scale.channels if isinstance(after.scale, Features) else 0
        self.add(kind, y, x=x, weight=packed, kept=y.channels - reached, **vars(after), **fields)

    def resample(self, kind: Kind, x: Features) -> Features:
        """Halve or double features."""
        size = (x.height // 2, x.width // 2) if kind is Kind.HALVE else (2 * x.height, 2 * x.width)
        y = self.features(size, x.channels)
        self.add(kind, y, x=x, channels_in=x.channels)
        return y

    def sum(self, first: Features, second: Features, factor: float = 1.0) -> Features:
        """Add features of one shape, the second times a factor."""
        y = self.features(first.size, first.channels)
        self.add(Kind.ADD, y, x=first, residual=second, channels_in=y.channels, slope=factor)
        return y

    def linear(self, x: Features, weight: Floats, bias: Floats) -> Features:
        """A matrix [O I] times all of x, plus a bias [O]; I is a multiple of 64."""
        outputs, inputs = weight.shape
        y = self.features((1, 1), outputs)
        packed = round_weights(weight) if self.half else np.ascontiguousarray(weight)
        operands = {"weight": packed, "bias": np.ascontiguousarray(bias)}
        self.add(Kind.LINEAR, y, x=x, channels_in=inputs, flags=int(Flag.ROUNDED_WEIGHT * self.half), **operands)
        return y

    def inverse_norm(self, style: Features, energy: Floats) -> Features:
        """Demodulation of a style [I] by the kernels' energies [O I], times the gain of the activation."""
        y = self.features((1, 1), energy.shape[0])
        self.add(Kind.INVERSE_NORM, y, x=style, weight=np.ascontiguousarray(energy), channels_in=energy.shape[1])
        return y

    def pack_kernels(self, pool: ThreadPoolExecutor) -> None:
        """Fill the room that `pack` made."""

        def fill(kernel: tuple[Floats, Array, int, bool]) -> None:
            weight, packed, tile, half = kernel
            outputs, inputs = weight.shape[:2]
            source = np.ascontiguousarray(weight.transpose(2, 3, 1, 0))  # [3 3 I O]
            self.library.pack_winograd(source.ctypes.data, outputs, inputs, packed.ctypes.data, tile, int(half))

        for _ in pool.map(fill, self._unpacked):
            pass
        self._unpacked.clear()

    def _hold_through_chains(self) -> None:
        """Keep what a chain's first step reads until its last, since they all run together."""
        for number, step in enumerate(self.steps):
            if step.get("flags", 0) & Flag.FEEDS_NEXT:
                follower = self.steps[number + 1]["kind"]
                assert follower == Kind.TO_RGB if step["kind"] == Kind.WINOGRAD else follower == Kind.SEPARABLE
                for buffer in self.buffers:
                    if buffer.last == number:
                        buffer.last = number + 1

    def build(self, memory: Memory | None = None) -> Program:
        """Give every buffer memory and every step its addresses.

        Args:
            memory: For the features of several programs that never run at once; None takes new memory.
        """
        self._hold_through_chains()
        places, size = share(self.buffers)
        return Program(self.library, self.steps, places, (memory or Memory()).take(size))


def _neighbours_first(weight: Floats) -> Floats:
    """A 3x3 convolution [O I 3 3] as a matrix on every pixel's neighbours [O 9I]."""
    return weight.transpose(0, 2, 3, 1).reshape(len(weight), -1)
