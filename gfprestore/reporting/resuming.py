"""What a run takes over from reports before it: photos that are finished, their lines, and faces chosen by hand."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from gfprestore.errors import UsageError, printable
from gfprestore.job import Job
from gfprestore.options import RestoreOptions
from gfprestore.reporting.chosenfaces import ChosenFaces, read_faces_of
from gfprestore.reporting.earlier import EarlierRun, Kept, read_report

Say = Callable[[str], None]


def unfinished(
    jobs: Sequence[Job], resume: Path | None, report_name: str | None, options: RestoreOptions, say: Say
) -> tuple[Sequence[Job], Kept]:
    """The jobs that are left, and what the report that a run resumes, if it resumes any, tells of the others.

    Raises:
        UsageError: The file of `resume` is no report that can be read.
    """
    if resume is None or _is_first_run(resume, report_name):
        return jobs, Kept()
    run = read_report(resume)
    finished = run.with_results(jobs, counts_skipped=not options.overwrite)
    say(f"{len(finished)} of {len(jobs)} photos are finished according to {printable(resume)}.")
    kept = run.keep(finished.values())
    _tell_differences(run, kept, options, say, "without --resume, --overwrite does all")
    return [job for job in jobs if job not in finished], kept


def kept_here(
    report_name: str, jobs: Sequence[Job], options: RestoreOptions, say: Say
) -> tuple[Kept, Mapping[str, object]]:
    """What the report in the place of the new one tells of results that stay: the same command again.

    Returns:
        What is kept, and the models that the last run in the file loaded.

    Raises:
        UsageError: The file is no report that can be read.
    """
    path = Path(report_name)
    if options.overwrite or report_name == "-" or not path.is_file() or not path.stat().st_size:
        return Kept(), {}
    run = read_report(path, option="--report")
    kept = run.keep(run.with_results(jobs, counts_skipped=False).values())
    _tell_differences(run, kept, options, say, "--overwrite makes them anew")
    return kept, run.models


def read_choice(
    faces_from: Path | None, jobs: Sequence[Job], report_name: str | None, resume: Path | None
) -> ChosenFaces | None:
    """Reads a choice of faces, once since it may be a pipe, and refuses one that would come to nothing.

    That is done before any of its photos is written without a restored face.

    Raises:
        UsageError: The file has no faces for these jobs, or the report would overwrite it.
    """
    if faces_from is None:
        return None
    chosen = read_faces_of(faces_from, (job.source for job in jobs))
    goes_on = resume is not None and is_same_file(resume, faces_from)
    if report_name is not None and is_same_file(Path(report_name), faces_from) and not goes_on:
        raise UsageError("--report would overwrite the file of --faces-from; name another file with --report.")
    return chosen


def facts_kept(kept: Kept, facts: Mapping[str, object]) -> dict[str, object]:
    """What the first line tells of earlier runs: their options, each once, where they were others."""
    others: list[Mapping[str, object]] = []
    for options in kept.options:
        if options != facts["options"] and options not in others:
            others.append(options)
    return {"earlier_options": others} if others else {}


def named_options(options: RestoreOptions) -> dict[str, object]:
    """The options as JSON can hold them."""
    chosen = dataclasses.asdict(options)
    return {key: str(value) if isinstance(value, Path) else value for key, value in chosen.items()}


def is_same_file(one: Path, other: Path) -> bool:
    """Whether both are there and one file."""
    return os.path.lexists(one) and os.path.lexists(other) and one.samefile(other)


def _is_first_run(resume: Path, report_name: str | None) -> bool:
    """Whether a run goes on in a report that is not there yet: a command that is repeated until all is done."""
    is_one = report_name is not None and os.path.realpath(resume) == os.path.realpath(report_name)
    return is_one and not os.path.lexists(resume)


def _tell_differences(run: EarlierRun, kept: Kept, options: RestoreOptions, say: Say, advice: str) -> None:
    """Warns of results that stay though they were made with other options."""
    differences = run.differences(named_options(options)) if kept.lines else []
    if differences:
        say(f"These were made with other options: {', '.join(differences)}; {advice}.")
