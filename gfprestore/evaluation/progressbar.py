"""The progress bar of `gfprestore-eval`; on a terminal only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Advance = Callable[[int], None]
"""Told how many more images are done."""


@contextmanager
def show_progress(title: str, total: int, is_shown: bool) -> Iterator[Advance]:
    """Draws a bar on stderr, where it is to be shown, and gives what moves it."""
    if not is_shown:
        yield lambda _done: None
        return
    bar = Progress(
        TextColumn(title),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("images"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task("", total=total)
        yield lambda done: bar.advance(task, done)
