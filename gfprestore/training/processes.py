"""The processes of a run: one, or those that torchrun started."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType

import torch
import torch.distributed as dist
from torch import Tensor

from gfprestore.command import Terminated
from gfprestore.engine import resolve_device
from gfprestore.errors import UsageError

PATIENCE = timedelta(hours=6)
"""How long processes wait for each other; they do while the first one validates and writes checkpoints."""

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""glibc's names for its settings: M_TRIM_THRESHOLD and M_MMAP_MAX of malloc.h."""


@dataclass(frozen=True)
class Process:
    """This process among those of the run."""

    rank: int
    """Number of the process; 0 writes files and talks."""

    world: int
    """How many there are."""

    device: torch.device
    """Where its networks are."""

    @property
    def leads(self) -> bool:
        """Whether it writes files and talks."""
        return self.rank == 0


@contextmanager
def join_processes(device: str) -> Iterator[Process]:
    """Joins the other processes that torchrun started; alone without torchrun.

    Args:
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`; under torchrun `cuda` is the GPU of the local rank.

    Raises:
        DeviceError: There is no such device.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    resolved = resolve_device(device)
    if world == 1:
        yield Process(0, 1, torch.device(resolved))
        return
    if resolved.startswith("cuda"):
        resolved = resolve_device(f"cuda:{os.environ['LOCAL_RANK']}")
        torch.cuda.set_device(resolved)
    dist.init_process_group("nccl" if resolved.startswith("cuda") else "gloo", timeout=PATIENCE)
    try:
        yield Process(dist.get_rank(), world, torch.device(resolved))
    finally:
        dist.destroy_process_group()


def keep_freed_memory() -> None:
    """Keeps memory that tensors leave for the next ones, where the system's allocator is glibc's.

    It would give large ones back and take their like anew in every step, page by page: 7 % of a step of the compact
    network on the CPU, for 4 % more memory.
    """
    try:
        configure = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another allocator, or Windows
        return
    configure(_MMAP_MAX, 0)
    configure(_TRIM_THRESHOLD, -1)  # never


def share_of(batch: int, accumulate: int, world: int) -> int:
    """Returns the faces of a micro-batch of one process.

    Raises:
        UsageError: The batch does not split evenly.
    """
    if batch % (world * accumulate):
        raise UsageError(
            f"run.batch = {batch} does not split into {world} processes of {accumulate} micro-batches:"
            f" set run.batch to a multiple of {world * accumulate}."
        )
    return batch // (world * accumulate)


def mean_over_processes(values: dict[str, Tensor]) -> dict[str, float]:
    """Means of scalars over the processes, by name; every process must call it."""
    if not values:
        return {}
    flat = torch.stack([value.detach().float() for value in values.values()])
    if dist.is_initialized():
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
    return dict(zip(values, flat.tolist(), strict=True))


def any_process(wants: bool, device: torch.device) -> bool:
    """Whether any process wants something; every process must ask, after the same steps."""
    if not dist.is_initialized():
        return wants
    flag = torch.tensor(float(wants), device=device)
    dist.all_reduce(flag, dist.ReduceOp.MAX)
    return bool(flag.item())


def wait_for_all(device: torch.device) -> None:
    """Waits until every process is here: one that ended while the first writes a file would take it down with it."""
    any_process(False, device)


class StopRequest:
    """Ctrl-C and SIGTERM ask for an end after the current step; a second one ends at once."""

    def __init__(self) -> None:
        self._signal: int | None = None

    @contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Takes both signals until the block ends."""
        previous = {number: signal.signal(number, self._take) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    @property
    def is_asked(self) -> bool:
        """Whether a signal has come to this process."""
        return self._signal is not None

    def finish(self) -> None:
        """Ends the program as the signal would have.

        Raises:
            Terminated: SIGTERM came, here or in another process.
            KeyboardInterrupt: Ctrl-C came.
        """
        if self._signal == signal.SIGINT:
            raise KeyboardInterrupt
        raise Terminated

    def _take(self, number: int, _frame: FrameType | None) -> None:
        if self._signal is not None:
            raise KeyboardInterrupt if number == signal.SIGINT else Terminated
        self._signal = number
