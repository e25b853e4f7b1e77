"""facexlib's RetinaFace as a program for the compiled kernels: photos whose sides are multiples of 32.

Nothing is ever concatenated or copied: what the next convolution reads together lies side by side.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gfprestore.native.convolutions import Product, Writer
from gfprestore.native.library import Library, library_for
from gfprestore.native.operands import CHANNELS, Features, Flag, Kind
from gfprestore.native.program import ProgramBuilder
from gfprestore.native.retinaface import LEAK, PRIORS, ROW, Bottleneck, Retinaface, Separable
from gfprestore.native.running import Crew, Memory, Program
from gfprestore.outofmemory import out_of_memory

MOST_PROGRAMS = 8
"""Programs that are kept, each for one size of photos: without the memory they share, some kilobytes each."""


class DetectionProgram:
    """The network for photos of one size."""

    def __init__(
        self,
        network: Retinaface,
        builder: ProgramBuilder,
        size: tuple[int, int],
        mean: NDArray[np.float32],
        pool: ThreadPoolExecutor,
        memory: Memory,
    ) -> None:
        """Write the program.

        Args:
            network: What to run.
            builder: With the kernels that an earlier program packed.
            size: (H, W) of the photo, multiples of the largest stride.
            mean: RGB, taken off every pixel.
            pool: Packs kernels.
            memory: For the features.
        """
        self._network, self._size = network, size
        self._builder, self._write = builder, Writer(builder)
        self._input = builder.buffer(size[0] * size[1] * CHANNELS + 4 * builder.library.panel)
        self._levels = [self._look_around(level, x) for level, x in enumerate(self._pyramid(mean))]
        for level in self._levels:
            level.buffer.last = len(builder.steps)
        builder.pack_kernels(pool)
        self.program: Program = builder.build(memory)

    def given(self) -> NDArray[np.uint8]:
        """Where the photo goes: RGB [H W 3]."""
        height, width = self._size
        return self.program.view(self._input)[: height * width * CHANNELS].reshape(height, width, CHANNELS)

    @property
    def count(self) -> int:
        """Priors of the photo."""
        return sum(PRIORS * level.height * level.width for level in self._levels)

    def give(self, rows: NDArray[np.float32]) -> None:
        """Write what was found into `rows`, (P, 15), the score as its logit."""
        start = 0
        for level in self._levels:
            pixels = level.height * level.width
            floats = self.program.view(level.buffer).view(np.float32)[: pixels * level.stride]
            end = start + PRIORS * pixels
            found = floats.reshape(pixels, level.stride)[:, : PRIORS * ROW]
            rows[start:end].reshape(pixels, PRIORS * ROW)[:] = found  # [HW A15] is [HWA 15]
            start = end

    def _pyramid(self, mean: NDArray[np.float32]) -> list[Features]:
        """Features of the three levels, finest first."""
        network = self._network
        size = self._size[0] // 2, self._size[1] // 2
        slope = LEAK if network.is_mobile else 0
        # With MobileNet what a chain's first step gives is as large as the photo, and read only once: it is never kept.
        x = self._write.filter_pixels(self._input, network.stem, size, slope, mean, feeds=network.is_mobile)
        if not network.is_mobile:
            x = self._write.pool(x)
        levels = []
        for stage in network.stages:
            for block in stage:
                if isinstance(block, Separable):
                    x = self._separable(x, block, feeds=block is network.stages[0][0])
                else:
                    x = self._bottleneck(x, block)
            levels.append(x)
        third = self._write.multiply(levels[2], network.laterals[2], network.slope)
        second = self._merge(levels[1], third, 1)
        return [self._merge(levels[0], second, 0), second, third]

    def _merge(self, x: Features, coarser: Features, level: int) -> Features:
        network = self._network
        y = self._write.multiply(x, network.laterals[level], network.slope, coarser, Flag.REPEATS_RESIDUAL)
        return self._write.tiled(y, network.merges[level], slope=network.slope)

    def _look_around(self, level: int, x: Features) -> Features:
        """What the heads of a level say; its features lie as [third's input | 5x5 | 3x3 | second's input, then 7x7]."""
        network, context = self._network, self._network.contexts[level]
        width = context.width
        together = self._builder.features(x.size, 4 * width + len(context.third.bias))
        first = together.part(2 * width, len(context.first.bias))
        self._write.tiled(x, context.first, slopes=context.slopes[0], into=first, exact=True)
        second = together.part(0, len(context.second.bias))
        self._write.tiled(
            together.part(4 * width, width), context.second, slopes=context.slopes[1], into=second, exact=True
        )
        third = together.part(4 * width, len(context.third.bias))
        self._write.tiled(together.part(0, width), context.third, slope=0, into=third, exact=True)
        return self._write.multiply(together.part(width, 4 * width), network.heads[level], 1)

    def _separable(self, x: Features, block: Separable, feeds: bool) -> Features:
        size = x.height // block.pace, x.width // block.pace
        own: dict[str, Any] = {"filters": block.filters, "slope_between": LEAK, "depth": block.product.depth}
        own |= {"channels_in": x.channels, "side": 3, "pace": block.pace}
        return self._write.product(Kind.SEPARABLE, x, block.product, size, LEAK, feeds=feeds, **own)

    def _bottleneck(self, x: Features, block: Bottleneck) -> Features:
        residual = x if block.shortcut is None else self._write.convolve(x, block.shortcut, block.pace, 1)
        y = self._write.multiply(x, block.narrow, 0)
        if isinstance(block.middle, Product):
            y = self._write.convolve(y, block.middle, block.pace, 0)
        else:
            y = self._write.tiled(y, block.middle, slope=0)
        return self._write.multiply(y, block.wide, 0, residual, Flag.ADDS_FIRST)


class NativeDetectionEngine:
    """RetinaFace on photos: uint8 RGB [N H W 3] -> [N P 15]; see `gfprestore.engine.Engine`."""

    device = "cpu"

    def __init__(self, network: Retinaface, library: Library, mean: tuple[float, float, float]) -> None:
        """Take over the network.

        Args:
            network: What to run.
            library: The kernels that it was packed for.
            mean: RGB, taken off every pixel.
        """
        self._network, self._library = network, library
        self.precision = "bf16" if network.half else "fp32"
        self._mean = np.array(mean, np.float32)
        self._crew = Crew()
        self._lock = threading.Lock()
        self._kernels = ProgramBuilder(library, half=network.half).kernels
        self._programs: OrderedDict[tuple[int, int], DetectionProgram] = OrderedDict()
        self._memory = Memory()

    def run(self, batch: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]:
        """Look for faces; see `gfprestore.engine.Engine.run`. H and W are multiples of the largest stride, 32."""
        with self._lock:
            try:
                program = self._program((batch.shape[1], batch.shape[2]))
                rows = np.empty((len(batch), program.count, ROW), np.float32)
                for photo, found in zip(batch, rows, strict=True):
                    self._look(program, photo, found)
                return (rows,)
            except MemoryError as error:
                self._programs.clear()
                raise out_of_memory(self.device) from error

    def _look(self, program: DetectionProgram, photo: NDArray[np.uint8], rows: NDArray[np.float32]) -> None:
        program.given()[:] = photo
        self._crew.run(program.program)
        program.give(rows)
        with np.errstate(over="ignore"):  # the exponential of what is surely none: the score is 0 then
            rows[:, 0] = 1 / (1 + np.exp(-rows[:, 0]))

    def _program(self, size: tuple[int, int]) -> DetectionProgram:
        if size not in self._programs:
            builder = ProgramBuilder(self._library, half=self._network.half, kernels=self._kernels, smallest_tiled=1)
            program = DetectionProgram(self._network, builder, size, self._mean, self._crew.pool, self._memory)
            sizes = {other.program.memory_size for other in self._programs.values()}
            if sizes - {program.program.memory_size}:  # the others still hold memory that was too small for this one
                self._programs.clear()
            self._programs[size] = program
            if len(self._programs) > MOST_PROGRAMS:
                self._programs.popitem(last=False)
        self._programs.move_to_end(size)
        return self._programs[size]


def build_native_detector(
    state: Mapping[str, NDArray[Any]], mean: tuple[float, float, float], precision: str
) -> NativeDetectionEngine | None:
    """The engine, or None where something else runs the network better or at all.

    Args:
        state: Of facexlib's RetinaFace.
        mean: RGB, taken off every pixel.
        precision: `fp32`, or `bf16` for what gains by it and stays exact; see `Retinaface`.
    """
    library = library_for(precision)
    if library is None and precision != "fp32":
        precision = "fp32"
        library = library_for(precision)
    if library is None:
        return None
    try:
        return NativeDetectionEngine(Retinaface(state, library, precision), library, mean)
    except (KeyError, ValueError):  # another network
        return None
