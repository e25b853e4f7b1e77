"""Runs GFP-GAN with the compiled kernels, every face on all threads."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from gfprestore.engine import out_of_memory
from gfprestore.native.library import Library, has_matrix_unit, load_library
from gfprestore.native.network import Generator, fits
from gfprestore.native.running import aligned
from gfprestore.nn.gfpgan import Gfpgan


class NativeEngine:
    """GFP-GAN on uint8 faces; see `gfprestore.engine.Engine`."""

    device = "cpu"

    def __init__(self, network: Gfpgan, library: Library, precision: str) -> None:
        self.precision = precision
        self.generator: Generator
        """The network with its memory; its `image` is the last face before it was rounded."""
        self._threads = count_threads()
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="generator")
        try:
            self.generator = Generator(network, library, precision == "bf16", self._pool)
            self._scratch = [aligned(self.generator.program.scratch_size) for _ in range(self._threads)]
        except MemoryError as error:
            raise out_of_memory(self.device) from error

    def run(self, batch: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], ...]:
        """Restore faces, uint8 RGB [N S S 3]; see `gfprestore.engine.Engine.run`."""
        generator, program = self.generator, self.generator.program
        restored = np.empty_like(batch)
        with self._lock:
            for face, out in zip(batch, restored, strict=True):
                generator.pixels[:] = face
                program.prepare()
                runs = [self._pool.submit(program.run, self._threads, scratch) for scratch in self._scratch]
                for run in runs:
                    run.result()
                out[:] = generator.restored
        return (restored,)


def build_native_engine(network: Gfpgan, precision: str) -> NativeEngine | None:
    """The engine, or None where something else runs the network better or at all."""
    library = load_library()
    if library is None or not fits(network.shape, library):
        return None
    if precision == "bf16" and (not library.has_half or has_matrix_unit()):
        return None
    return NativeEngine(network, library, precision)


def count_threads() -> int:
    """As many as torch would use, but no more than there are processors for this process."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(torch.get_num_threads(), here)
