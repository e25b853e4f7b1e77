"""How many threads work on photos, and how many photos they hold: by the processors and the memory there are."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class WorkPlan:
    """Threads and queues of a run."""

    readers: int
    """Threads that read photos."""

    read_ahead: int
    """Photos that are read, or wait for their faces to be found."""

    found_ahead: int
    """Photos whose faces are looked for, or wait to be restored."""

    most_open: int
    """Photos that gather in one batch of faces."""

    finishers: int
    """Threads that enlarge, paste and write."""

    finish_ahead: int
    """Photos that are finished, or wait for it."""

    @property
    def threads(self) -> Mapping[str, int]:
        """Threads of each step of `gfprestore.stagetimes.STEPS`."""
        return {"open": self.readers, "find": 1, "restore": 1, "finish": self.finishers}


def plan_work(batch_size: int) -> WorkPlan:
    """Chooses threads and queues for this machine.

    Args:
        batch_size: Faces restored at once.
    """
    workers = min(4, usable_cores())
    return WorkPlan(
        readers=workers,
        read_ahead=workers,
        found_ahead=2,
        most_open=batch_size + 1,
        finishers=workers,
        finish_ahead=workers,
    )


def usable_cores() -> int:
    """Processors that this process may use, which containers and `taskset` make fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
