"""The progress bar of a download; on a terminal only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from gfprestore import weights
from gfprestore.manifest import WeightsFile


@contextmanager
def download_progress(*, is_shown: bool) -> Iterator[weights.Progress]:
    """Gives the callback for `ensure_weights` and its kin, and draws one bar per file on stderr while it is called.

    Args:
        is_shown: Whether to draw at all.
    """
    if not is_shown:
        yield lambda _entry, _here: None
        return
    bar = Progress(
        TextColumn("Fetching {task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    tasks = {}

    def show(entry: WeightsFile, here: int) -> None:
        if entry.name not in tasks:
            bar.start()
            tasks[entry.name] = bar.add_task(entry.file, total=entry.bytes)
        bar.update(tasks[entry.name], completed=here)

    try:
        yield show
    finally:
        bar.stop()
