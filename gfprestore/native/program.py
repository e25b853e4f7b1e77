"""Writes programs for the compiled kernels: steps, packed weights, and memory that features share one after another."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
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
    REPEATS_INPUT = 8


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
    """Float features [H W C] in a buffer, or a vector where both sides are 1."""

    buffer: Buffer
    height: int
    width: int
    channels: int
    stride: int
    """Floats from one pixel to the next: more than the channels where several features lie side by side."""

    offset: int = 0
    """Floats before the first pixel."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width

    def part(self, start: int, channels: int) -> Features:
        """Some of the channels."""
        return replace(self, channels=channels, offset=self.offset + start)


Operand = Features | Array | None

STRIDES = {"x": "stride_in", "y": "stride_out", "residual": "stride_residual"}
"""Operands and the fields that tell how far apart their pixels lie."""


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
    kernels: dict[int, tuple[Array, Array, Tensor]] = field(default_factory=dict)
    """By address: kernels in the order that packing reads, room for the packed ones, and what keeps the address."""

    def buffer(self, size: int) -> Buffer:
        """Memory that the next step writes."""
        made = Buffer(size, len(self.steps), len(self.steps))
        self.buffers.append(made)
        return made

    def features(self, size: tuple[int, int], channels: int) -> Features:
        """Features of a height and width that the next step writes."""
        height, width = size
        return Features(self.buffer(4 * channels * (height * width + SPARE_PIXELS)), height, width, channels, channels)

    def add(self, kind: Kind, y: Features | Buffer, **fields: Any) -> None:
        """Append a step; how its features lie in memory follows from them."""
        for name, operand in {"y": y, **fields}.items():
            if isinstance(operand, Features):
                operand.buffer.last = len(self.steps)
            if isinstance(operand, Features) and name in STRIDES:
                fields.setdefault(STRIDES[name], operand.stride)
        if isinstance(y, Features):
            shape = {"height": y.height, "width": y.width, "channels_out": y.channels}
            fields = shape | fields
        self.steps.append({"kind": int(kind), "y": y, **fields})

    def convolve(
        self,
        x: Features | Array,
        weight: Tensor,
        after: Epilogue,
        *,
        style: Operand = None,
        wider: Flag | None = None,
        halves: bool = False,
        into: Features | None = None,
    ) -> Features:
        """A 3x3 convolution with zeros beyond the border.

        Args:
            x: Input [H W I].
            weight: [O I 3 3].
            after: What follows it.
            style: Factors of the input's channels.
            wider: `DOUBLES_INPUT` or `REPEATS_INPUT` to convolve the input at twice its size.
            halves: Give means of 2x2 results.
            into: Where the result goes; None takes new features.
        """
        factor = 2 if wider else 1
        height, width = x.size if isinstance(x, Features) else x.shape[:2]
        size = height * factor, width * factor
        if min(size) < SMALLEST_TILED or not isinstance(x, Features):
            return self._convolve_small(x, weight, after, style, bool(wider), halves)
        outputs, inputs = weight.shape[:2]
        packed = self.pack(weight)
        flags = (wider or Flag(0)) | Flag.HALVES_OUTPUT * halves
        if after.residual is not None and after.residual.height < size[0]:
            flags |= Flag.DOUBLES_RESIDUAL
        y = into or self.features((size[0] // 2, size[1] // 2) if halves else size, outputs)
        shape = {"height": size[0], "width": size[1], "channels_in": inputs, "channels_out": outputs}
        self._convolution(Kind.WINOGRAD, x, y, packed, after, flags=int(flags), style=style, **shape)
        return y

    def pack(self, weight: Tensor) -> Array:
        """Room for a kernel [O I 3 3] in the form that tiles are multiplied with; every kernel is packed once."""
        key = weight.data_ptr()
        if key not in self.kernels:
            outputs, inputs = weight.shape[:2]
            packed = np.empty(TILED_PRODUCTS * outputs * inputs, np.uint16 if self.half else np.float32)
            self.kernels[key] = weight.permute(2, 3, 1, 0).contiguous().numpy(), packed, weight  # [3 3 I O]
        return self.kernels[key][1]

    def _convolve_small(
        self, x: Features | Array, weight: Tensor, after: Epilogue, style: Operand, doubles: bool, halves: bool
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
        y = self.multiply(around, weight.permute(0, 2, 3, 1).flatten(1), after)  # [O 9I]
        return self.resample(Kind.HALVE, y) if halves else y

    def multiply(self, x: Features, weight: Tensor, after: Epilogue) -> Features:
        """A 1x1 convolution of features [H W I] with a matrix [O I]."""
        outputs, inputs = weight.shape
        panel = self.library.panel
        packed = np.ascontiguousarray(weight.numpy().reshape(outputs // panel, panel, inputs).transpose(0, 2, 1))
        y = self.features(x.size, outputs)
        self._convolution(Kind.MATMUL, x, y, packed, after, channels_in=inputs)
        return y

    def _convolution(self, kind: Kind, x: Features, y: Features, packed: Array, after: Epilogue, **fields: Any) -> None:
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

    def linear(self, x: Features, weight: Tensor, bias: Tensor) -> Features:
        """A matrix [O I] times all of x, plus a bias [O]."""
        outputs, inputs = weight.shape
        y = self.features((1, 1), outputs)
        operands = {"weight": weight.contiguous().numpy(), "bias": bias.contiguous().numpy()}
        self.add(Kind.LINEAR, y, x=x, channels_in=inputs, **operands)
        return y

    def inverse_norm(self, style: Features, energy: Tensor) -> Features:
        """Demodulation of a style [I] by the kernels' energies [O I], times the gain of the activation."""
        y = self.features((1, 1), energy.shape[0])
        self.add(Kind.INVERSE_NORM, y, x=style, weight=energy.contiguous().numpy(), channels_in=energy.shape[1])
        return y

    def pack_kernels(self, pool: ThreadPoolExecutor) -> None:
        """Fill the room that `pack` made."""

        def fill(kernel: tuple[Array, Array, Tensor]) -> None:
            weight, packed, _ = kernel  # [3 3 I O]
            outputs, inputs = weight.shape[3], weight.shape[2]
            pack = self.library.pack_winograd
            pack(weight.ctypes.data, outputs, inputs, packed.ctypes.data, int(self.half))

        for _ in pool.map(fill, self.kernels.values()):
            pass

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
