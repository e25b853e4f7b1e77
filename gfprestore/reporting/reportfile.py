r"""The JSON lines that account for every source of a run.

A report file holds one JSON object a line, ASCII only. Schema 1:

- The first line tells about the run, for all photos that follow: `{"schema": 1, "kind": "run", "photos": N, "version":
  text, "options": {...}, "models": {...}}`. The options are the fields of `RestoreOptions`. The models are `device`,
  `precision`, `face`, `detector`, `parser` and `recogniser` (each `{"name": text, "sha256": text}`, where there is
  one), `background` and `colour` (what they are, in words) and `weights` (name -> SHA-256 of what those two read). The
  models are those of the report that the file held before where none were loaded, since the run ended before or had
  nothing to do, and `{}` where it held none.
- What an earlier report told and is still true follows, with `"earlier": true`: where a run resumes another, whose
  report is another file, that one's lines of the photos that are finished; and where the file held a report before, its
  lines of the photos that are skipped now since their results exist. Neither `photos` nor the last line counts these.
  Where those runs had other options, the first line has them as `earlier_options`: [{...}, ...].
- One line per source, written as soon as it is known: `{"kind": "photo", "status": S, "source": path, "target": path,
  ...}`. The status `restored` adds `size` ([width, height] of the result in pixels), `coloured` (whether the photo, or
  one of its pages, was given colours; reports of earlier versions lack it), `faces`, `seconds` (by stage) and
  `warnings`; `skipped` adds `reason`; `failed` adds `error`; `unreached`, for photos that the run did not come to, adds
  nothing. A face is `{"box": [left, top, right, bottom], "score": s, "action": "restored" or "kept", "reason": text,
  "strength": s}` and further facts, such as angles of identity in degrees. `refused` lists what was taken for a face
  and left alone as none: `{"box": ..., "score": s, "reason": text}`. Both have a `page`, from 2, on further pages.
- The last line counts: `{"kind": "summary", "restored": n, "without_face": n, "skipped": n, "failed": n,
  "unreached": n, "faces": n, "seconds": s, "exit_code": n}`. A run without it was killed. With `--profile` it adds
  `profile`: `wall` and `processor` seconds from the first photo to the last, `cores` that could be used, the `slowest`
  step, and by step its `threads`, the seconds that they were `working` by stage and `waiting`, and their `share`, which
  is working / (threads * wall).

Undecodable bytes in a path are surrogates such as `\udcff`, as Python's `os.fsencode` understands them. A file may hold
several runs one after the other.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from gfprestore.errors import OutputError, printable
from gfprestore.job import Job
from gfprestore.report import FaceRecord, Failed, Outcome, RefusedRecord, Report, Skipped

if sys.platform == "win32":
    fcntl = None
else:
    import fcntl

FaceBox = tuple[float, float, float, float]
"""Left, top, right, bottom in photo pixel centres."""

SCHEMA = 1
"""Version of the lines; raised when a field changes its meaning or goes."""


class ReportFile:
    """Writes a run's lines as they come; use it as a context manager.

    Every line is flushed, so that a killed run loses at most the line it was writing, and the file is synced to disk
    at the end. What the file held stays until `start`, so that a run that is killed before loses nothing of it.

    Args:
        name: The file, or `-` for standard output.
        append: Go on in a file that holds earlier runs instead of starting anew.

    Raises:
        OutputError: The file cannot be written, another run is writing it, or it holds something else than a report and
            would be lost.
    """

    def __init__(self, name: str | Path, *, append: bool = False) -> None:
        self._name = str(name)
        self._seen: set[Job] = set()
        self._replaces = not append and self._name != "-"
        self._stream: IO[str]
        if self._name == "-":
            self._stream = sys.stdout
            return
        try:
            torn = _check_replaceable(Path(name))
            # Such as the output folder, before the first result is there.
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            self._stream = Path(name).open("a", encoding="ascii", newline="\n")  # noqa: SIM115
            if not _lock(self._stream):
                self._stream.close()
                raise OutputError(
                    f"Another run is writing the report {printable(name)}; name another file with --report."
                )
            if append and torn:
                self._stream.write("\n")
        except OSError as error:
            raise self._failure(error) from error

    def __enter__(self) -> Self:
        """Gives the report itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the file; what was written stays."""
        self.close()

    def start(self, photos: int, run: Mapping[str, object], earlier: Iterable[Mapping[str, object]] = ()) -> None:
        """Writes the first line, and those of photos that an earlier run finished.

        Args:
            photos: How many sources there are to do.
            run: Facts about the run, such as version and options.
            earlier: Lines of earlier reports that stay true, for the sources that are left out or skipped.
        """
        if self._replaces:
            try:
                if stat.S_ISREG(os.fstat(self._stream.fileno()).st_mode):
                    self._stream.truncate(0)
            except OSError as error:
                raise self._failure(error) from error
        self._write({"schema": SCHEMA, "kind": "run", "photos": photos, **run})
        for line in earlier:
            self._write({**line, "earlier": True})

    def add(self, outcome: Outcome) -> None:
        """Writes the line of one photo."""
        self._seen.add(outcome.job)
        self._write(outcome_line(outcome))

    def finish(self, report: Report, jobs: Iterable[Job] = (), exit_code: int | None = None) -> None:
        """Writes a line for every job that has none yet, then the summary, and syncs the file to disk.

        Args:
            report: The count of the run.
            jobs: All jobs of the run.
            exit_code: Exit status where the run ended early; else the report's own.
        """
        for job in jobs:
            if job not in self._seen:
                self._write({"kind": "photo", "status": "unreached", **_paths(job)})
        self._write(summary_line(report, exit_code))
        if self._name != "-":
            try:
                os.fsync(self._stream.fileno())
            except OSError as error:
                raise self._failure(error) from error

    def close(self) -> None:
        """Closes the file; may be called twice."""
        if self._name != "-":
            # Every line was flushed, so what could fail here was told already.
            with contextlib.suppress(OSError):
                self._stream.close()

    def _write(self, line: Mapping[str, object]) -> None:
        try:
            self._stream.write(json.dumps(line) + "\n")
            self._stream.flush()
        except OSError as error:
            raise self._failure(error) from error

    def _failure(self, error: OSError) -> OutputError:
        reason = error.strerror or type(error).__name__
        return OutputError(
            f"The report {printable(self._name)} cannot be written ({reason}); name another file with --report."
        )


def _check_replaceable(path: Path) -> bool:
    """Refuses a file that is no report, so that a photo named by mistake is not lost; says if its last line is torn."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        start = stream.read(10)
        if not start:
            return False
        if start != b'{"schema":':
            raise OutputError(f"{printable(path)} exists and is not a report; name another file with --report.")
        stream.seek(-1, os.SEEK_END)
        return stream.read(1) != b"\n"


def _lock(stream: IO[str]) -> bool:
    """Keeps other runs from a file until it is closed, where the system can; says if none has it.

    Two runs in one file would each empty or mix what the other told.
    """
    if fcntl is None or not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        return True
    try:
        fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # Such as a network folder without locks.
        return True
    return True


def refused_line(item: RefusedRecord) -> dict[str, object]:
    """One refused face as a report line holds it."""
    page = {"page": item.page} if item.page > 1 else {}
    return {**page, "box": _rounded(item.box), "score": round(float(item.score), 4), "reason": item.reason}


def _rounded(box: FaceBox) -> list[float]:
    return [round(float(side), 2) for side in box]


def face_line(face: FaceRecord) -> dict[str, object]:
    """One face as a report line holds it."""
    return {
        **face.facts,
        "box": _rounded(face.box),
        "score": round(float(face.score), 4),
        "action": face.action,
        "reason": face.reason,
        "strength": float(face.strength),
    }


def outcome_line(outcome: Outcome) -> dict[str, object]:
    """One outcome as its line of the report file."""
    line: dict[str, object] = {"kind": "photo", "status": type(outcome).__name__.lower(), **_paths(outcome.job)}
    if isinstance(outcome, Skipped):
        line["reason"] = outcome.reason
    elif isinstance(outcome, Failed):
        line["error"] = outcome.error
    else:
        line["size"] = list(outcome.size)
        line["coloured"] = outcome.is_coloured
        line["faces"] = [face_line(face) for face in outcome.faces]
        line["refused"] = [refused_line(item) for item in outcome.refused]
        line["seconds"] = {stage: round(seconds, 4) for stage, seconds in outcome.seconds.items()}
        line["warnings"] = list(outcome.warnings)
    return line


def summary_line(report: Report, exit_code: int | None = None) -> dict[str, object]:
    """The last line of a run; the exit code is the outcomes' own unless the run ended early."""
    profile = {} if report.times is None else {"profile": report.times.facts()}
    return {
        "kind": "summary",
        "restored": report.restored,
        "without_face": report.without_face,
        "skipped": report.skipped,
        "failed": report.failed,
        "unreached": report.unreached,
        "faces": report.faces,
        "seconds": round(report.seconds, 3),
        "exit_code": int(report.exit_code if exit_code is None else exit_code),
        **profile,
    }


def _paths(job: Job) -> dict[str, object]:
    return {"source": str(job.source), "target": str(job.target)}
