"""Where a run's time goes: the seconds of every photo by stage, and their sum for `--profile`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

STEPS: Mapping[str, tuple[str, ...]] = {
    "open": ("read",),
    "find": ("detect",),
    "restore": ("restore",),
    "finish": ("retouch", "background", "paste", "colour", "pages", "write"),
}
"""The steps of the pipeline, each with threads of its own, and the stages that those threads do for one photo. `pages`
is further pages read, searched and their faces restored, while the file is written."""


class Stopwatch:
    """Tells the time that one photo takes by stage; used by one thread at a time."""

    def __init__(self, seconds: Mapping[str, float] | None = None) -> None:
        """Begins to count.

        Args:
            seconds: What the photo took before, by stage.
        """
        self.seconds = dict(seconds or {})
        """Time spent by stage."""
        self._since = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Counts the time since the last lap for a stage."""
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._since
        self._since = now


class StageTimes:
    """Sums the time of a run by stage; its block is the run's wall time.

    A stage works from the moment its photo is taken up until it is handed on. Where more threads are at work than there
    are processors this counts the wait for a processor too, and so the share of all processors in use is told beside.
    """

    def __init__(self, threads: Mapping[str, int], cores: int) -> None:
        """Begins with nothing.

        Args:
            threads: Threads of each of `STEPS`.
            cores: Processors that this process may use.
        """
        self._threads = dict(threads)
        self._cores = cores
        self._working = {stage: 0.0 for stages in STEPS.values() for stage in stages}
        self._start = (0.0, 0.0)
        self.wall = 0.0
        """Seconds from the first photo to the last; 0 for a run that came to none."""
        self.processor = 0.0
        """Seconds of all processors together in the meantime."""

    def __enter__(self) -> Self:
        """Begins to count the wall's time."""
        self._start = time.perf_counter(), time.process_time()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the count."""
        self.wall = time.perf_counter() - self._start[0]
        self.processor = time.process_time() - self._start[1]

    def add(self, seconds: Mapping[str, float]) -> None:
        """Adds the times of one photo."""
        for stage, spent in seconds.items():
            self._working[stage] = self._working.get(stage, 0.0) + spent

    def working(self, step: str) -> float:
        """Seconds that the threads of a step worked, all together."""
        return sum(self._working[stage] for stage in STEPS[step])

    def share(self, step: str) -> float:
        """Share of their time that the threads of a step worked, 0 to 1."""
        return self.working(step) / (self._threads[step] * self.wall) if self.wall else 0.0

    @property
    def slowest(self) -> str:
        """The step that the others wait for: the one whose threads wait least."""
        return max(STEPS, key=self.share)

    def facts(self) -> dict[str, object]:
        """What the report's last line tells; see `gfprestore.reporting.reportfile`."""
        steps = {
            step: {
                "threads": self._threads[step],
                "working": {stage: round(self._working[stage], 3) for stage in stages},
                "waiting": round(self._waiting(step), 3),
                "share": round(self.share(step), 4),
            }
            for step, stages in STEPS.items()
        }
        return {
            "wall": round(self.wall, 3),
            "processor": round(self.processor, 3),
            "cores": self._cores,
            "slowest": self.slowest,
            "steps": steps,
        }

    def _waiting(self, step: str) -> float:
        return max(0.0, self._threads[step] * self.wall - self.working(step))

    def table(self) -> str:
        """What is said to the user: a row for each stage, and below the stages of one step how long it waited."""
        busy = self.processor / self.wall if self.wall else 0.0
        lines = [
            f"Where {self.wall:.1f} s of photos went, with {busy:.2f} of {self._cores} processors at work:",
            f"{'':10} {'seconds':>9} {'share':>6}",
        ]
        for step, stages in STEPS.items():
            count = self._threads[step]
            whole = count * self.wall or 1.0
            lines += [f"{stage:10} {self._working[stage]:9.2f} {self._working[stage] / whole:6.1%}" for stage in stages]
            note = f"{count} thread{'' if count == 1 else 's'}"
            if step == self.slowest and self.wall:
                note += ", the slowest"
            waiting = self._waiting(step)
            lines.append(f"  {'waiting':8} {waiting:9.2f} {waiting / whole:6.1%}  ({note})")
        return "\n".join(lines)
