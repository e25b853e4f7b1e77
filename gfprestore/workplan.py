"""How many threads work on photos, and how many photos wait for them: by the processors and the memory there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gfprestore.machine import usable_cores, usable_memory

MOST_WORKERS = 4
"""Threads that read, and threads that finish photos: more only wait for the networks."""

QUEUE_SHARE = 1 / 32
"""Share of the machine's memory that the photos of one queue may fill; there are three: those whose faces are looked
for, those that gather in a batch, and those that are finished, with their results."""


@dataclass(frozen=True)
class WorkPlan:
    """Threads and queues of a run."""

    readers: int
    """Threads that read photos."""

    read_ahead: int
    """Photos that are read, or wait for their faces to be found."""

    found_ahead: int
    """Photos whose faces are looked for, or wait to be restored: a whole batch of them while another is restored."""

    most_open: int
    """Photos that gather in one batch of faces."""

    finishers: int
    """Threads that enlarge, paste and write."""

    finish_ahead: int
    """Photos that are finished, or wait for it: two batches beside those in work. With one, the next would wait while a
    few large photos hold up the small ones, and with it the search for faces."""

    queue_bytes: float
    """Pixels of the photos from which on a queue takes no more, however few they are."""

    @property
    def threads(self) -> Mapping[str, int]:
        """Threads of each step of `gfprestore.stagetimes.STEPS`."""
        return {"open": self.readers, "find": 1, "restore": 1, "finish": self.finishers}

    @property
    def most_photos(self) -> int:
        """Photos that are held at once, whatever their size."""
        return self.read_ahead + self.found_ahead + self.most_open + self.finish_ahead + 1


def plan_work(batch_size: int) -> WorkPlan:
    """Chooses threads and queues for this machine.

    Args:
        batch_size: Faces restored at once.
    """
    workers = min(MOST_WORKERS, usable_cores())
    return WorkPlan(
        readers=workers,
        read_ahead=workers,
        found_ahead=batch_size + 1,
        most_open=batch_size + 1,
        finishers=workers,
        finish_ahead=2 * batch_size + workers,
        queue_bytes=QUEUE_SHARE * usable_memory(),
    )
