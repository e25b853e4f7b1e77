"""Runs networks on faces with the compiled kernels, a face on all threads or several side by side."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from gfprestore.native.generator import Generator
from gfprestore.native.library import Library, library_for
from gfprestore.native.network import fits
from gfprestore.native.operands import Array
from gfprestore.native.running import Crew, Program
from gfprestore.nn.weights import GfpganWeights
from gfprestore.outofmemory import out_of_memory

MEMORY_AT_ONCE = 1 << 27
"""Bytes of features of faces that are worked on at once: several of a narrow network, one of a wide one."""


class FaceProgram(Protocol):
    """A network's program with its input and output."""

    program: Program

    @property
    def pixels(self) -> Array:
        """Where the face goes: uint8 RGB (S, S, 3)."""
        ...

    @property
    def result(self) -> Array:
        """Where the result is found after a run: uint8 (S, S, ...)."""
        ...

    def sibling(self) -> Self:
        """The same network with features of its own."""
        ...


AnyProgram = TypeVar("AnyProgram", bound=FaceProgram)


class FaceEngine(Generic[AnyProgram]):
    """A network on uint8 faces; see `gfprestore.engine.Engine`."""

    device = "cpu"

    def __init__(self, write: Callable[[ThreadPoolExecutor], AnyProgram], precision: str) -> None:
        """Write the program.

        Args:
            write: Writes it, with threads that pack kernels.
            precision: What it computes in.

        Raises:
            OutOfMemoryError: There is no memory for it.
        """
        self.precision = precision
        self._lock = threading.Lock()
        self._crew = Crew()
        try:
            self._programs = [write(self._crew.pool)]
        except MemoryError as error:
            raise out_of_memory(self.device) from error

    def run(self, batch: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], ...]:
        """Run the network on faces, uint8 RGB [N S S 3]; see `gfprestore.engine.Engine.run`."""
        results = np.empty((len(batch), *self._programs[0].result.shape), np.uint8)
        with self._lock:
            at_once = self._count_at_once(len(batch))
            for start in range(0, len(batch), at_once):
                self._run_at_once(batch[start : start + at_once], results[start : start + at_once])
        return (results,)

    def _count_at_once(self, faces: int) -> int:
        """How many faces to run side by side: threads that share one wait for each other at every step."""
        most = max(1, MEMORY_AT_ONCE // self._programs[0].program.memory_size)
        return min(faces, most, self._crew.threads)

    def _run_at_once(self, faces: NDArray[np.uint8], results: NDArray[np.uint8]) -> None:
        while len(self._programs) < len(faces):
            self._programs.append(self._programs[0].sibling())
        programs = self._programs[: len(faces)]
        for program, face in zip(programs, faces, strict=True):
            program.pixels[:] = face
        self._crew.run(*(program.program for program in programs))
        for program, out in zip(programs, results, strict=True):
            out[:] = program.result


class NativeEngine(FaceEngine[Generator]):
    """GFP-GAN."""

    def __init__(self, weights: GfpganWeights, library: Library, precision: str) -> None:
        super().__init__(lambda pool: Generator(weights, library, precision == "bf16", pool), precision)

    @property
    def generator(self) -> Generator:
        """The network with its memory; its `image` is a face before it was rounded: the first of the last few."""
        return self._programs[0]


def build_native_engine(weights: GfpganWeights, precision: str) -> NativeEngine | None:
    """The engine, or None where something else runs the network better or at all."""
    library = library_for(precision)
    return NativeEngine(weights, library, precision) if library and fits(weights.shape) else None
