"""Programs ready to run: memory that features share one after another, and the steps' addresses in it."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gfprestore.machine import physical_cores, usable_cores
from gfprestore.native.alignment import ALIGNMENT, aligned
from gfprestore.native.library import Library, Step
from gfprestore.native.operands import Array, Buffer, Features

BLOCK_MEMORY = 1 << 19
"""Bytes of a thread's block of tiles: half of what a core keeps near itself."""


class Memory:
    """Memory for the features of programs, which grows with what they need."""

    def __init__(self) -> None:
        self._bytes = aligned(0)

    def take(self, size: int) -> NDArray[np.uint8]:
        """At least `size` bytes that begin at a cache line."""
        if size > len(self._bytes):
            self._bytes = aligned(size)
        return self._bytes


class Program:
    """Steps ready to run. Not for several threads at once, but on several threads itself."""

    def __init__(
        self,
        library: Library,
        steps: Sequence[dict[str, Any]],
        places: dict[int, int],
        memory: NDArray[np.uint8],
    ) -> None:
        self._library = library
        self._fields = steps
        self.memory_size = len(memory)
        """Bytes of the memory that its features lie in."""
        self._memory = memory
        self._constants: list[Array] = []
        self._places = places
        self._steps = (Step * len(steps))(*(self._bind(step) for step in steps))
        self._progress = np.zeros((len(steps), 2), np.int32)
        self.scratch_size: int = library.scratch_size(ctypes.addressof(self._steps), len(steps), BLOCK_MEMORY)
        """Bytes of every thread's scratch memory."""

    def sibling(self) -> Program:
        """The same program with features of its own, so that both may run at once."""
        return Program(self._library, self._fields, self._places, aligned(self.memory_size))

    def _bind(self, fields: dict[str, Any]) -> Step:
        return Step(**{name: self._address(value) for name, value in fields.items()})

    def _address(self, value: Any) -> Any:
        if isinstance(value, Features):
            return self._memory.ctypes.data + self._places[id(value.buffer)] + value.value_size * value.offset
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
            BLOCK_MEMORY,
        )


class Crew:
    """The threads that run programs, each with scratch memory of its own."""

    def __init__(self) -> None:
        self.threads = count_threads()
        self.pool = ThreadPoolExecutor(self.threads, thread_name_prefix="kernels")
        self._scratch: list[NDArray[np.uint8]] = []

    def run(self, *programs: Program) -> None:
        """Run programs from their first step to their last, at most as many as there are threads, which they share."""
        size = max(program.scratch_size for program in programs)
        if not self._scratch or len(self._scratch[0]) < size:
            self._scratch = [aligned(size) for _ in range(self.threads)]
        runs = []
        for index, program in enumerate(programs):
            program.prepare()
            own = self._scratch[index :: len(programs)]
            runs += [self.pool.submit(program.run, len(own), scratch) for scratch in own]
        for run in runs:
            run.result()


def count_threads() -> int:
    """One for every core of this process, whose hardware threads would only share it, or as many as the user allows."""
    allowed = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    most = int(allowed) if allowed.isdecimal() and int(allowed) else physical_cores()
    return min(most, usable_cores())


def share(buffers: Sequence[Buffer]) -> tuple[dict[int, int], int]:
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
