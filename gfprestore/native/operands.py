"""What steps of a program work on: features in shared memory, constants, and what follows a convolution."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum, IntFlag
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

Floats = NDArray[np.float32]

CHANNELS = 3
"""Of a photo."""


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
    FILTER_PIXELS = 11
    CONVOLVE = 12
    SEPARABLE = 13
    POOL = 14
    PIXELS_TO_BLOCKS = 15
    BLOCKS_TO_RGB = 16
    BORDER = 17
    READ_TILES = 18
    MULTIPLY_TILES = 19
    WRITE_TILES = 20
    MEAN = 21
    SIGMOID = 22
    ACTIVATE = 23
    CLASSES = 24


class Flag(IntFlag):
    """Flags of convolutions, as in program.h."""

    DOUBLES_INPUT = 1
    HALVES_OUTPUT = 2
    DOUBLES_RESIDUAL = 4
    REPEATS_INPUT = 8
    REPEATS_RESIDUAL = 16
    ADDS_FIRST = 32
    FEEDS_NEXT = 64
    CLAMPS_INPUT = 128
    LARGE_TILES = 256
    ROUNDED_INPUT = 512
    ROUNDED_OUTPUT = 1024
    ROUNDED_TRANSFORM = 2048
    ROUNDED_WEIGHT = 4096


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
    """Features [H W C] in a buffer, or a vector where both sides are 1."""

    buffer: Buffer
    height: int
    width: int
    channels: int
    stride: int
    """Values from one pixel to the next: more than the channels where several features lie side by side."""

    offset: int = 0
    """Values before the first pixel."""

    rounded: bool = False
    """Whether the values are bfloat16 instead of floats."""

    @property
    def value_size(self) -> int:
        """Bytes of a value."""
        return 2 if self.rounded else 4

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width

    def part(self, start: int, channels: int) -> Features:
        """Some of the channels."""
        return replace(self, channels=channels, offset=self.offset + start)


def buffer_of(operand: Features | Buffer) -> Buffer:
    """The memory that it lies in."""
    return operand.buffer if isinstance(operand, Features) else operand


Operand = Features | Array | None

STRIDES = {"x": "stride_in", "y": "stride_out", "residual": "stride_residual"}
"""Operands and the fields that tell how far apart their pixels lie."""


@dataclass(kw_only=True)
class Epilogue:
    """What is done to the result of a convolution, in this order."""

    gain: Operand = None
    """Factor of every channel."""

    bias: Operand = None
    """Added to every channel."""

    noise: Operand = None
    """Added to every pixel."""

    stride_noise: int = 0
    """Values of noise for every pixel, in turn for its channels; 0 is one for all of them."""

    slope: float = 1.0
    """Of the leaky ReLU below zero, at most 1: the kernels take the larger of a value and its multiple."""

    scale: Operand = None
    """Factors of the last channels."""

    shift: Operand = None
    """Added to the last channels."""

    slopes: Operand = None
    """Instead of `slope`, one for every channel, at most 1 as well."""

    residual: Features | None = None
    """Features to add, of the same size or, doubled on the way, of half of it."""
