"""The progress bar of a run: photos, faces, time left; on a terminal only."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gfprestore.report import Report


class RunProgress:
    """Shows how far a run is, on stderr; use it as a context manager.

    Args:
        total: Number of photos.
        is_shown: Whether to draw at all; without it every method does nothing.
    """

    def __init__(self, total: int, *, is_shown: bool) -> None:
        self._total = total
        self._bar: Progress | None = None
        if is_shown:
            self._bar = Progress(
                TextColumn("Restoring"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("photos"),
                TextColumn("{task.fields[faces]} faces"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )

    def __enter__(self) -> Self:
        """Draws the empty bar."""
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task("", total=self._total, faces=0)
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
            self._bar.update(self._task, completed=report.done, faces=report.faces)

    def say(self, line: str) -> None:
        """Prints a line above the bar; does nothing where no bar is shown."""
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
