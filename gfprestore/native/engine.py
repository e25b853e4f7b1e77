"""Runs GFP-GAN with the compiled kernels, a face on all threads or several side by side."""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from gfprestore.native.generator import Generator
from gfprestore.native.library import Library, library_for
from gfprestore.native.network import fits
from gfprestore.native.running import Crew
from gfprestore.nn.gfpgan import Gfpgan
from gfprestore.outofmemory import out_of_memory

MEMORY_AT_ONCE = 1 << 27
"""Bytes of features of faces that are restored at once: several of a narrow network, one of a wide one."""


class NativeEngine:
    """GFP-GAN on uint8 faces; see `gfprestore.engine.Engine`."""

    device = "cpu"

    def __init__(self, network: Gfpgan, library: Library, precision: str) -> None:
        self.precision = precision
        self.generator: Generator
        """The network with its memory; its `image` is a face before it was rounded: the first of the last few."""
        self._lock = threading.Lock()
        self._crew = Crew()
        try:
            self.generator = Generator(network, library, precision == "bf16", self._crew.pool)
        except MemoryError as error:
            raise out_of_memory(self.device) from error
        self._generators = [self.generator]

    def run(self, batch: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], ...]:
        """Restore faces, uint8 RGB [N S S 3]; see `gfprestore.engine.Engine.run`."""
        restored = np.empty_like(batch)
        with self._lock:
            at_once = self._count_at_once(len(batch))
            for start in range(0, len(batch), at_once):
                self._run_at_once(batch[start : start + at_once], restored[start : start + at_once])
        return (restored,)

    def _count_at_once(self, faces: int) -> int:
        """How many faces to restore side by side: threads that share one wait for each other at every step."""
        most = max(1, MEMORY_AT_ONCE // self.generator.program.memory_size)
        return min(faces, most, self._crew.threads)

    def _run_at_once(self, faces: NDArray[np.uint8], restored: NDArray[np.uint8]) -> None:
        while len(self._generators) < len(faces):
            self._generators.append(self.generator.sibling())
        generators = self._generators[: len(faces)]
        for generator, face in zip(generators, faces, strict=True):
            generator.pixels[:] = face
        self._crew.run(*(generator.program for generator in generators))
        for generator, out in zip(generators, restored, strict=True):
            out[:] = generator.restored


def build_native_engine(network: Gfpgan, precision: str) -> NativeEngine | None:
    """The engine, or None where something else runs the network better or at all."""
    library = library_for(precision)
    return NativeEngine(network, library, precision) if library and fits(network.shape) else None
