"""Writes programs for the compiled kernels: steps, packed weights, and memory that features share one after another."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum, IntFlag
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gfprestore.native.library import Library, Step

SMALLEST_TILED = 16
"""Side from which tiles pay: below it the transformed weights, four times as many, take longer to read."""

TILED_PRODUCTS = 36
"""Products of one tile of 4x4 outputs."""

BLOCK_MEMORY = 1 << 19
"""Bytes of a thread's block of tiles: half of what a core keeps near itself."""

FEWEST_TILES = 24
"""Tiles that a block has at least, whatever memory they take: `FEWEST_TILES` of program.c."""

SPARE_PIXELS = 48
"""Pixels after the last that a block of a product may read: its results are dropped."""

ALIGNMENT = 64
"""Bytes of a cache line."""

Array = NDArray[Any]


class Kind(IntEnum):
    """Kinds of steps, in the order of program.h."""

    WINOGRAD = 0
    MATMUL = 1
    GATHER = 2
    HALVE = 3
    DOUBLE = 4
    ADD = 5
    LINEAR = 6
    INVERSE_NORM = 7
    FROM_PIXELS = 8
    TO_RGB = 9
    TO_PIXELS = 10


class Flag(IntFlag):
    """Flags of a tiled convolution, as in program.h."""

    DOUBLES_INPUT = 1
    HALVES_OUTPUT = 2
    DOUBLES_RESIDUAL = 4


@dataclass(eq=False)
class Buffer:
    """Memory for what a step writes."""

    size: int
    """In bytes."""

    first: int
    """Step that writes it."""

    last: int
    """Last step that reads it."""


@dataclass(frozen=True, eq=False)
class Features:
    """Float features [H W C] in a buffer, or a vector where `side` is 1."""

    buffer: Buffer
    side: int
    channels: int
    stride: int
    """Floats from one pixel to the next: more than the channels where several features lie side by side."""

    offset: int = 0
    """Floats before the first pixel."""

    def part(self, start: int, channels: int) -> Features:
        """Some of the channels."""
        return replace(self, channels=channels, offset=self.offset + start)


Operand = Features | Array | None


@dataclass
class Epilogue:
    """What is done to the result of a convolution, in this order."""

    gain: Operand = None
    """Factor of every channel."""

    bias: Operand = None
    """Added to every channel."""

    noise: Operand = None
    """Added to every pixel."""

    slope: float = 1.0
    """Of the leaky ReLU below zero."""

    scale: Operand = None
    """Factors of the last channels."""

    shift: Operand = None
    """Added to the last channels."""

    residual: Features | None = None
    """Features to add, of the same size or, doubled on the way, of half of it."""


@dataclass
class ProgramBuilder:
    """Collects steps."""

    library: Library
    half: bool
    """Whether tiled convolutions multiply in bfloat16."""

    steps: list[dict[str, Any]] = field(default_factory=list)
    buffers: list[Buffer] = field(default_factory=list)
    kernels: list[tuple[Array, Array]] = field(default_factory=list)
    """Convolutions' weights and where they are packed for tiles, which `build` does."""

    def buffer(self, size: int) -> Buffer:
        """Memory that the next step writes."""
        made = Buffer(size, len(self.steps), len(self.steps))
        self.buffers.append(made)
        return made

    def features(self, side: int, channels: int) -> Features:
        """Features that the next step writes."""
        return Features(self.buffer(4 * channels * (side * side + SPARE_PIXELS)), side, channels, channels)

    def add(self, kind: Kind, y: Features | Buffer, **fields: Any) -> None:
        """Append a step."""
        for operand in fields.values():
            if isinstance(operand, Features):
                operand.buffer.last = len(self.steps)
        self.steps.append({"kind": int(kind), "y": y, **fields})

    def convolve(
        self,
        x: Features | Array,
        weight: Tensor,
        after: Epilogue,
        *,
        style: Operand = None,
        doubles: bool = False,
        halves: bool = False,
    ) -> Features:
        """A 3x3 convolution with zeros beyond the border.

        Args:
            x: Input [H W I].
            weight: [O I 3 3].
            after: What follows it.
            style: Factors of the input's channels.
            doubles: Convolve the bilinear double of the input.
            halves: Give means of 2x2 results.
        """
        side = (x.side if isinstance(x, Features) else x.shape[0]) * (2 if doubles else 1)
        if side < SMALLEST_TILED or not isinstance(x, Features):
            return self._convolve_small(x, weight, after, style, doubles, halves)
        outputs, inputs = weight.shape[:2]
        packed = np.empty(TILED_PRODUCTS * outputs * inputs, np.uint16 if self.half else np.float32)
        self.kernels.append((weight.permute(2, 3, 1, 0).contiguous().numpy(), packed))  # [3 3 I O]
        flags = Flag.DOUBLES_INPUT * doubles | Flag.HALVES_OUTPUT * halves
        if after.residual is not None and after.residual.side < side:
            flags |= Flag.DOUBLES_RESIDUAL
        y = self.features(side // 2 if halves else side, outputs)
        self._convolution(Kind.WINOGRAD, x, y, side, inputs, packed, after, flags=int(flags), style=style)
        return y

    def _convolve_small(
        self, x: Features | Array, weight: Tensor, after: Epilogue, style: Operand, doubles: bool, halves: bool
    ) -> Features:
        """The same as one matrix product over every pixel's neighbours."""
        inputs = weight.shape[1]
        if doubles and isinstance(x, Features):
            x = self.resample(Kind.DOUBLE, x)
        side, stride = (x.side, x.stride) if isinstance(x, Features) else (x.shape[0], x.shape[2])
        if after.residual is not None and after.residual.side < side:
            after = replace(after, residual=self.resample(Kind.DOUBLE, after.residual))
        around = self.features(side, 9 * inputs)
        shape = {"height": side, "width": side, "channels_in": inputs, "channels_out": 9 * inputs, "stride_in": stride}
        self.add(Kind.GATHER, around, x=x, style=style, **shape)
        y = self.multiply(around, weight.permute(0, 2, 3, 1).flatten(1), after)  # [O 9I]
        return self.resample(Kind.HALVE, y) if halves else y

    def multiply(self, x: Features, weight: Tensor, after: Epilogue) -> Features:
        """A 1x1 convolution of features [H W I] with a matrix [O I]."""
        outputs, inputs = weight.shape
        panel = self.library.panel
        packed = np.ascontiguousarray(weight.numpy().reshape(outputs // panel, panel, inputs).transpose(0, 2, 1))
        y = self.features(x.side, outputs)
        self._convolution(Kind.MATMUL, x, y, x.side, inputs, packed, after)
        return y

    def _convolution(
        self,
        kind: Kind,
        x: Features,
        y: Features,
        side: int,
        inputs: int,
        packed: Array,
        after: Epilogue,
        **fields: Any,
    ) -> None:
        reached = after.scale.channels if isinstance(after.scale, Features) else 0
        self.add(
            kind,
            y,
            x=x,
            weight=packed,
            height=side,
            width=side,
            channels_in=inputs,
            channels_out=y.channels,
            stride_in=x.stride,
            kept=y.channels - reached,
            **vars(after),
            **fields,
        )

    def resample(self, kind: Kind, x: Features) -> Features:
        """Halve or double features."""
        side = x.side // 2 if kind is Kind.HALVE else 2 * x.side
        y = self.features(side, x.channels)
        self.add(kind, y, x=x, height=side, width=side, channels_in=x.channels, stride_in=x.stride)
        return y

    def sum(self, first: Features, second: Features) -> Features:
        """Add features of one shape."""
        y = self.features(first.side, first.channels)
        self.add(Kind.ADD, y, x=first, residual=second, height=y.side, width=y.side, channels_in=y.channels)
        return y

    def linear(self, x: Features, weight: Tensor, bias: Tensor) -> Features:
        """A matrix [O I] times all of x, plus a bias [O]."""
        outputs, inputs = weight.shape
        y = self.features(1, outputs)
        shape = {"channels_in": inputs, "channels_out": outputs}
        self.add(Kind.LINEAR, y, x=x, weight=weight.contiguous().numpy(), bias=bias.contiguous().numpy(), **shape)
        return y

    def inverse_norm(self, style: Features, energy: Tensor) -> Features:
        """Demodulation of a style [I] by the kernels' energies [O I], times the gain of the activation."""
        y = self.features(1, energy.shape[0])
        shape = {"channels_in": energy.shape[1], "channels_out": energy.shape[0]}
        self.add(Kind.INVERSE_NORM, y, x=style, weight=energy.contiguous().numpy(), **shape)
        return y

    def build(self) -> Program:
        """Give every buffer memory and every step its addresses."""
        places, size = _share(self.buffers)
        return Program(self, places, size)


class Program:
    """Steps ready to run. Not for several threads at once, but on several threads itself."""

    def __init__(self, builder: ProgramBuilder, places: dict[int, int], size: int) -> None:
        self._library = builder.library
        self._half = builder.half
        self.memory_size = size
        """Bytes of all features together."""
        self._memory = aligned(size)
        self._constants: list[Array] = []
        self._places = places
        self._steps = (Step * len(builder.steps))(*(self._bind(step) for step in builder.steps))
        self._progress = np.zeros((len(builder.steps), 2), np.int32)
        widest = max(
            (step.channels_in + step.channels_out for step in self._steps if step.kind == Kind.WINOGRAD), default=0
        )
        self.scratch_size = max(BLOCK_MEMORY, 4 * TILED_PRODUCTS * (FEWEST_TILES * widest + ALIGNMENT))
        """Bytes of every thread's scratch memory."""

    def _bind(self, fields: dict[str, Any]) -> Step:
        return Step(**{name: self._address(value) for name, value in fields.items()})

    def _address(self, value: Any) -> Any:
        if isinstance(value, Features):
            return self._memory.ctypes.data + self._places[id(value.buffer)] + 4 * value.offset
        if isinstance(value, Buffer):
            return self._memory.ctypes.data + self._places[id(value)]
        if isinstance(value, np.ndarray):
            self._constants.append(value)  # the address is all that the step keeps
            return value.ctypes.data
        return value

    def view(self, buffer: Buffer) -> NDArray[np.uint8]:
        """Bytes of a buffer: where a program's input goes and its output is found."""
        place = self._places[id(buffer)]
        return self._memory[place : place + buffer.size]

    def prepare(self) -> None:
        """Set the progress of all steps to none."""
        self._progress[:] = 0

    def run(self, threads: int, scratch: NDArray[np.uint8]) -> None:
        """Take part in a run.

        Args:
            threads: How many call this at once, after one `prepare`.
            scratch: Memory of this thread's own.
        """
        self._library.run_program(
            ctypes.addressof(self._steps),
            len(self._steps),
            self._progress.ctypes.data,
            threads,
            scratch.ctypes.data,
            BLOCK_MEMORY // 4,
            int(self._half),
        )


def aligned(size: int) -> NDArray[np.uint8]:
    """Bytes that begin at a cache line."""
    memory = np.zeros(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size]


def _share(buffers: Sequence[Buffer]) -> tuple[dict[int, int], int]:
    """Places for buffers such that those in use at one step do not overlap, and the bytes that takes."""
    places: dict[int, int] = {}
    placed: list[Buffer] = []
    total = 0
    for buffer in sorted(buffers, key=lambda one: -one.size):
        rivals = [one for one in placed if one.first <= buffer.last and buffer.first <= one.last]
        start = 0
        for rival in sorted(rivals, key=lambda one: places[id(one)]):
            if start + buffer.size <= places[id(rival)]:
                break
            start = max(start, _round_up(places[id(rival)] + rival.size))
        places[id(buffer)] = start
        placed.append(buffer)
        total = max(total, start + buffer.size)
    return places, total


def _round_up(size: int) -> int:
    # A page and a line: features that are read side by side would otherwise share their places in the cache.
    return -(-size // 4096) * 4096 + ALIGNMENT
