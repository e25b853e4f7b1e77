"""What an earlier run told in its report: what a later one need not do again, and must not lose."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gfprestore.errors import UsageError, printable
from gfprestore.job import Job
from gfprestore.reporting.bysource import BySource
from gfprestore.reporting.reportfile import SCHEMA

Line = dict[str, object]

_RESULT_KEPT = frozenset({"skipped", "unreached"})
"""Statuses of a run that left a photo's result as it was: what an earlier line tells of it stays true."""

_NOT_IN_PIXELS = frozenset(
    {"weights", "offline", "device", "precision", "batch_size", "tile_pixels", "save_faces", "tag", "preserve_times"}
    | {"overwrite", "follow_links"}
)
"""Options that decide where and how fast the work is done, or what lies beside the pixels."""


@dataclass(frozen=True)
class Kept:
    """What stays true of earlier reports in a new one."""

    lines: tuple[Line, ...] = ()
    """Those of the photos whose results stay."""

    options: tuple[Mapping[str, object], ...] = ()
    """Those that these may have been made with."""

    def __add__(self, other: Kept) -> Kept:
        """Both."""
        return Kept(self.lines + other.lines, self.options + other.options)


@dataclass(frozen=True)
class EarlierRun:
    """The lines of a report file, the last of every source that tells what its result is."""

    lines: BySource[Line] = field(default_factory=BySource)

    options: list[Mapping[str, object]] = field(default_factory=list)
    """Those of each run in the file, and of earlier ones whose results it tells of."""

    models: dict[str, object] = field(default_factory=dict)
    """Those that the last run loaded which loaded any."""

    def of(self, source: Path) -> Line:
        """The line of a photo; empty where there is none."""
        return self.lines.of(source) or {}

    def add(self, line: Line) -> None:
        """Takes one line of the file."""
        if line.get("kind") == "run":
            earlier = line.get("earlier_options")
            told = [line.get("options"), *(earlier if isinstance(earlier, list) else ())]
            self.options.extend(options for options in told if isinstance(options, dict))
        if line.get("kind") == "run" and isinstance(models := line.get("models"), dict) and models:
            self.models.clear()
            self.models.update(models)
        if line.get("kind") != "photo" or "source" not in line:
            return
        source = Path(str(line["source"]))
        if line.get("status") in _RESULT_KEPT and self.of(source).get("status") == "restored":
            return
        self.lines.add(source, line)

    def with_results(self, jobs: Sequence[Job], *, counts_skipped: bool) -> dict[Job, Line]:
        """The lines of the jobs whose results are there.

        Args:
            jobs: Those to look for.
            counts_skipped: Whether a photo counts too that was skipped since its result was there already.
        """
        done = {"restored", "skipped"} if counts_skipped else {"restored"}
        found = {job: self.of(job.source) for job in jobs if os.path.lexists(job.target)}
        return {job: line for job, line in found.items() if line.get("status") in done and _tells_of(line, job)}

    def keep(self, lines: Iterable[Line]) -> Kept:
        """What of the file goes with some of its lines."""
        chosen = tuple(lines)
        return Kept(chosen, tuple(self.options)) if chosen else Kept()

    def differences(self, options: Mapping[str, object]) -> list[str]:
        """The options that change pixels and that an earlier run had otherwise, each as `name was (now is)`."""
        told = {}
        for earlier in self.options:
            for name, now in options.items():
                if name not in _NOT_IN_PIXELS and name in earlier and earlier[name] != now:
                    told[name] = f"{name.replace('_', ' ')} {printable(earlier[name])} (now {printable(now)})"
        return list(told.values())


def _tells_of(line: Line, job: Job) -> bool:
    """Whether a line is of the result that a job would make, and not of one in another folder."""
    return os.path.realpath(str(line.get("target"))) == os.path.realpath(job.target)


def read_report(path: Path, *, option: str = "--resume") -> EarlierRun:
    """Reads a report file; a line torn by a kill is passed over.

    Args:
        path: The file.
        option: The option that names it, for the messages.

    Raises:
        UsageError: The file is missing or no report of this schema.
    """
    run = EarlierRun()
    try:
        with path.open(encoding="ascii", errors="replace") as stream:
            lines = (_parse(line) for line in stream)
            first = next(lines, {})
            if first.get("schema") != SCHEMA:
                raise UsageError(
                    f"{printable(path)} is not a report of schema {SCHEMA}; name one that --report wrote with {option}."
                )
            run.add(first)
            for line in lines:
                run.add(line)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UsageError(f"The report {printable(path)} cannot be read ({reason}); check {option}.") from error
    return run


def _parse(text: str) -> Line:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return line if isinstance(line, dict) else {}
