"""The progress bar of a run: photos, faces, time left; on a terminal only."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn
from rich.table import Column

from gfprestore.report import Report, duration

LEAST_WINDOW = 200
"""Photos that the time left is estimated by, at least: fewer say little where photos differ tenfold."""

LEAST_WIDTH_FOR_NUMBERS = 40
"""Columns of a terminal that hold 10000/10000, 9999 faces and 59 min 59 s left beside each other."""

LEAST_WIDTH_FOR_WORDS = 64
"""Columns that hold `Restoring` and `photos` as well, and some bar."""


class TimeLeft:
    """Estimates how long a run still takes.

    By the mean time of the later half of the photos so far: many, since photos differ much by their size and faces, and
    the later ones, since a machine gets busy and idle again. Photos that were skipped took no time and count for
    nothing.

    Args:
        clock: Seconds; begins to count when this object is made, which is when the first photo is begun.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ends = array("d", [clock()])
        """When the work began, and when each photo was done."""

    def seconds(self, report: Report) -> float | None:
        """Seconds until the last photo is done; None before the first one is. Call it after each outcome."""
        worked_on = report.done - report.skipped
        now = self._clock()
        self._ends.extend([now] * (worked_on + 1 - len(self._ends)))
        if not worked_on:
            return None
        first = max(0, min(worked_on // 2, worked_on - LEAST_WINDOW))
        return (now - self._ends[first]) / (worked_on - first) * report.unreached


def _columns(width: int) -> list[ProgressColumn]:
    """What is shown on a terminal of so many columns: the bar gives way first, then words, and the count never."""
    count = MofNCompleteColumn(table_column=Column(no_wrap=True))
    if width < LEAST_WIDTH_FOR_NUMBERS:
        return [BarColumn(), count]
    numbers = [TextColumn("{task.fields[faces]} faces"), TextColumn("{task.fields[left]}")]
    if width < LEAST_WIDTH_FOR_WORDS:
        return [BarColumn(), count, *numbers]
    return [TextColumn("Restoring"), BarColumn(), count, TextColumn("photos"), *numbers]


class RunProgress:
    """Shows how far a run is, on stderr; use it as a context manager.

    Args:
        total: Number of photos.
        is_shown: Whether to draw at all; without it every method does nothing.
    """

    def __init__(self, total: int, *, is_shown: bool) -> None:
        self._total = total
        self._time_left = TimeLeft()
        self._bar: Progress | None = None
        if is_shown:
            console = Console(stderr=True)
            self._bar = Progress(*_columns(console.width), console=console, transient=True)

    def __enter__(self) -> Self:
        """Draws the empty bar."""
        self._time_left = TimeLeft()
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task("", total=self._total, faces=0, left="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Takes the bar away, so that the summary stands alone."""
        if self._bar is not None:
            self._bar.stop()

    def show(self, report: Report) -> None:
        """Draws the state of the run."""
        if self._bar is not None:
            seconds = self._time_left.seconds(report)
            left = "" if seconds is None else f"{duration(seconds)} left"
            self._bar.update(self._task, completed=report.done, faces=report.faces, left=left)

    def say(self, line: str) -> None:
        """Prints a line above the bar; does nothing where no bar is shown."""
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
