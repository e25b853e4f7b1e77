"""What is known of photos, found again by whatever name a photo is given."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Generic, TypeVar

Known = TypeVar("Known")


class BySource(Generic[Known]):
    """One thing for every source, found by its name, else by its real path: a folder is `in`, `../in`, `/photos/in`."""

    def __init__(self) -> None:
        """Begins empty."""
        self.named: dict[Path, Known] = {}
        self._by_file: dict[str, Known] = {}

    def of(self, source: Path) -> Known | None:
        """What is known of a source; None where nothing is."""
        named = self.named.get(source)
        return self._by_file.get(os.path.realpath(source)) if named is None else named

    def add(self, source: Path, known: Known) -> None:
        """Takes what is known of a source, in place of what was."""
        self.named[source] = self._by_file[os.path.realpath(source)] = known
