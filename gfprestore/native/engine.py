"""Runs GFP-GAN with the compiled kernels, every face on all threads."""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from gfprestore.native.library import Library, library_for
from gfprestore.native.network import Generator, fits
from gfprestore.native.running import Crew
from gfprestore.nn.gfpgan import Gfpgan
from gfprestore.outofmemory import out_of_memory


class NativeEngine:
    """GFP-GAN on uint8 faces; see `gfprestore.engine.Engine`."""

    device = "cpu"

    def __init__(self, network: Gfpgan, library: Library, precision: str) -> None:
        self.precision = precision
        self.generator: Generator
        """The network with its memory; its `image` is the last face before it was rounded."""
        self._lock = threading.Lock()
        self._crew = Crew()
        try:
            self.generator = Generator(network, library, precision == "bf16", self._crew.pool)
        except MemoryError as error:
            raise out_of_memory(self.device) from error

    def run(self, batch: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], ...]:
        """Restore faces, uint8 RGB [N S S 3]; see `gfprestore.engine.Engine.run`."""
        generator = self.generator
        restored = np.empty_like(batch)
        with self._lock:
            for face, out in zip(batch, restored, strict=True):
                generator.pixels[:] = face
                self._crew.run(generator.program)
                out[:] = generator.restored
        return (restored,)


def build_native_engine(network: Gfpgan, precision: str) -> NativeEngine | None:
    """The engine, or None where something else runs the network better or at all."""
    library = library_for(precision)
    return NativeEngine(network, library, precision) if library and fits(network.shape, library) else None
