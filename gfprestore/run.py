"""One run of the command: the stream of outcomes meets the progress bar, the report and the summary."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from gfprestore import __version__
from gfprestore.atomic import remove_leftovers
from gfprestore.command import Terminated
from gfprestore.download_progress import download_progress
from gfprestore.errors import ExitCode, GfprestoreError, printable
from gfprestore.job import Job
from gfprestore.machine import usable_cores
from gfprestore.options import RestoreOptions
from gfprestore.progress import RunProgress
from gfprestore.report import Failed, Outcome, Report, Restored
from gfprestore.reporting.chosenfaces import ChosenFaces
from gfprestore.reporting.reportfile import ReportFile
from gfprestore.reporting.resuming import facts_kept, is_same_file, kept_here, named_options, read_choice, unfinished
from gfprestore.settled import settle_all
from gfprestore.stagetimes import StageTimes
from gfprestore.stopping import StopRequest
from gfprestore.workplan import plan_work

if TYPE_CHECKING:
    from gfprestore.models import Models
    from gfprestore.weights import Progress

Say = Callable[[str], None]


def load_models(options: RestoreOptions, say: Say, progress: Progress | None = None) -> Models:
    """Loads what the options call for; see `gfprestore.models.load_models`."""
    # Only here, since torch takes more than a second: a run without work does without.
    from gfprestore.models import load_models

    return load_models(options, say, progress)


def run_jobs(
    jobs: Sequence[Job],
    options: RestoreOptions,
    *,
    report_name: str | None,
    resume: Path | None,
    say: Say,
    complain: Say | None = None,
    shows_progress: bool,
    profiles: bool = False,
) -> ExitCode:
    """Restores all jobs, telling the user what happens, and returns the exit status.

    The report is complete whatever ends the run: photos that were not reached have their line too. After the first
    Ctrl-C or SIGTERM photos that are being written are finished and told of, and the others dropped; a second one drops
    the faces that are being restored as well.

    Args:
        jobs: From `plan_jobs`.
        options: What to do.
        report_name: File for the JSON lines, `-` for standard output, None for none.
        resume: Report of an earlier run whose finished photos are left out.
        say: Takes one line for the user.
        complain: Takes one line about an error, which a quiet run tells too; `say` by default.
        shows_progress: Whether to draw a progress bar on stderr.
        profiles: Whether to tell where the time went.

    Raises:
        UsageError: The file of `faces_from` has no faces for these jobs, or the report would overwrite it.
        GfprestoreError: The run ended early; its summary has been said.
        KeyboardInterrupt: It was interrupted or terminated; the summary has been said too.
    """
    complain = complain or say
    chosen = read_choice(options.faces_from, jobs, report_name, resume)
    jobs, kept = unfinished(jobs, resume, report_name, options, say)
    _tidy_up(jobs, options)
    plan = plan_work(options.batch_size)
    times = StageTimes(plan.threads, usable_cores()) if profiles else None
    report = Report(planned=len(jobs), times=times)
    with ExitStack() as stack:
        lines = None
        models_here: Mapping[str, object] = {}
        goes_on = resume is not None and report_name is not None and is_same_file(Path(report_name), resume)
        if report_name is not None:
            lines = stack.enter_context(ReportFile(report_name, append=goes_on))
            if not goes_on:
                here, models_here = kept_here(report_name, jobs, options, say)
                kept += here
        stop = stack.enter_context(StopRequest())
        stack.enter_context(_accounting(report, lines, jobs, say, complain, stop))
        models, settled = None, settle_all(jobs, options)
        try:
            if settled is None:
                with download_progress(is_shown=shows_progress) as progress:
                    models = load_models(options, say, progress)
        finally:
            if lines is not None:
                facts = _run_facts(options, models.facts if models else models_here if kept.lines else {})
                if goes_on:
                    lines.start(len(jobs), facts)
                else:
                    lines.start(len(jobs), facts | facts_kept(kept, facts), kept.lines)
        stop.waits = True
        if jobs:
            written: dict[Job, Restored] = {}
            outcomes = _outcomes(jobs, settled or (), models, options, chosen, stop, written)
            _tell_all(len(jobs), outcomes, written, report, lines, say, complain, shows_progress, stop)
        stop.raise_if_asked()
    return report.exit_code


def _tidy_up(jobs: Sequence[Job], options: RestoreOptions) -> None:
    """Deletes what an earlier run was writing when it was killed."""
    folders = {job.target.parent for job in jobs}
    if options.save_faces is not None:
        folders |= {(options.save_faces / job.relative).parent for job in jobs}
    for folder in folders:
        remove_leftovers(folder)


@contextmanager
def _accounting(
    report: Report, lines: ReportFile | None, jobs: Sequence[Job], say: Say, complain: Say, stop: StopRequest
) -> Iterator[None]:
    """Closes the account of a run however it ends: the report's last lines, and the summary.

    An error before the first photo is told alone: a summary of nothing would only hide it.
    """
    exit_code: int | None = 1
    has_begun = True
    try:
        yield
        exit_code = None
    except GfprestoreError as error:
        exit_code = error.exit_code
        has_begun = report.done > 0
        raise
    except Terminated:
        exit_code = ExitCode.TERMINATED
        raise
    except KeyboardInterrupt:
        exit_code = ExitCode.INTERRUPTED
        raise
    except Exception:
        # Not held back: its traceback is what a report of the fault needs.
        complain("The run was ended by a fault in gfprestore itself; please report it with the traceback below.")
        raise
    finally:
        stop.is_over = True
        try:
            if lines is not None:
                lines.finish(report, jobs, exit_code)
        finally:
            if has_begun:
                say(report.summary())
                if report.times is not None:
                    say(report.times.table())


def _outcomes(
    jobs: Sequence[Job],
    settled: Sequence[Outcome],
    models: Models | None,
    options: RestoreOptions,
    chosen: ChosenFaces | None,
    stop: StopRequest,
    written: dict[Job, Restored],
) -> Generator[Outcome]:
    if models is None:
        yield from settled
        return
    # Only here, as with the models.
    from gfprestore.pipeline import restore_photos

    yield from restore_photos(
        jobs,
        models,
        options,
        chosen=chosen,
        should_stop=stop,
        note_written=lambda outcome: written.update({outcome.job: outcome}),
    )


def _tell_all(
    planned: int,
    outcomes: Generator[Outcome],
    written: dict[Job, Restored],
    report: Report,
    lines: ReportFile | None,
    say: Say,
    complain: Say,
    shows_progress: bool,
    stop: StopRequest,
) -> None:
    with ExitStack() as stack:
        stack.callback(_count_unseen, written, report, lines)
        progress = stack.enter_context(RunProgress(planned, is_shown=shows_progress))
        stack.enter_context(report.times or nullcontext())
        stop.say = progress.say if shows_progress else say
        for outcome in stack.enter_context(closing(outcomes)):
            report.add(outcome)
            written.pop(outcome.job, None)
            if lines is not None:
                lines.add(outcome)
            tell = progress.say if shows_progress else complain if isinstance(outcome, Failed) else say
            for line in _remarks(outcome):
                tell(line)
            progress.show(report)


def _count_unseen(written: Mapping[Job, Restored], report: Report, lines: ReportFile | None) -> None:
    """Counts results that were finished after the run had left the stream, for whatever reason it did."""
    for outcome in written.values():
        report.add(outcome)
    if lines is not None:
        for outcome in written.values():
            lines.add(outcome)


def _remarks(outcome: Outcome) -> list[str]:
    """Lines about one photo that the user should see at once."""
    source = printable(outcome.job.source)
    if isinstance(outcome, Failed):
        return [f"failed: {source}: {outcome.error}"]
    if isinstance(outcome, Restored):
        return [f"note: {source}: {warning}" for warning in outcome.warnings]
    return []


def _run_facts(options: RestoreOptions, models: Mapping[str, object]) -> dict[str, object]:
    """What the first line of a report tells beside the number of photos."""
    return {"version": __version__, "options": named_options(options), "models": dict(models)}
