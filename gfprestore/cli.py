"""`gfprestore`: restores the faces in folders of scanned photos.

Only click is imported before the arguments are known: `--help` must not wait for torch.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gfprestore import __version__
from gfprestore.cli_options import A_PATH, OPTIONS
from gfprestore.command import run_command, stdout_was_closed, tell
from gfprestore.errors import ExitCode, OutputError, UsageError, printable
from gfprestore.options import RestoreOptions
from gfprestore.sections import SectionCommand

if TYPE_CHECKING:
    from gfprestore.job import Job

EPILOG = """\b
Examples:
  gfprestore album/ -o restored/
  gfprestore scans/*.jpg portraits/ -o restored/ --upscale 1 --report run.jsonl
  gfprestore album/ -o restored/ --dry-run

\b
Exit status: 0 done, 2 wrong usage, 3 some photos failed, 4 no photos found, 5 weights,
6 device, 7 output, 130 interrupted, 143 terminated.
"""


def _with_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(OPTIONS):
        function = option(function)
    return function


@click.command(
    cls=SectionCommand,
    name="gfprestore",
    epilog=EPILOG,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
@click.argument("inputs", nargs=-1, required=True, type=A_PATH, metavar="INPUTS...")
@_with_options
@click.version_option(__version__, message="%(prog)s %(version)s")
def main(
    inputs: tuple[Path, ...],
    output: Path,
    report: str | None,
    resume: Path | None,
    dry_run: bool,
    profile: bool,
    quiet: bool,
    verbose: bool,
    **chosen: Any,
) -> int:
    """Restore the faces in photos, and write the whole photos to a folder.

    INPUTS are photos, folders of photos (walked with their sub-folders) and patterns such as 'scans/**/*.jpg', in any
    mix. The originals are only ever read.
    """
    if quiet and verbose:
        raise UsageError("--quiet and --verbose exclude each other; give one of them.")
    if report == "-" and not dry_run and stdout_was_closed():
        raise OutputError("The report cannot go to standard output, which is closed; name a file with --report.")
    _set_up_logging(quiet, verbose)
    options = RestoreOptions(**chosen)
    from gfprestore.folders import plan_jobs

    jobs = plan_jobs(
        inputs,
        output,
        format=options.format,
        follows_links=options.follow_links,
        save_faces=options.save_faces,
    )
    if dry_run:
        return _list_jobs(_left_to_do(jobs, options, report, resume, _ignore if quiet else tell), options)
    from gfprestore.run import run_jobs

    shows_progress = not quiet and sys.stderr.isatty()
    return run_jobs(
        jobs,
        options,
        report_name=report,
        resume=resume,
        say=_ignore if quiet else tell,
        complain=tell,
        shows_progress=shows_progress,
        profiles=profile,
    )


def _left_to_do(
    jobs: Sequence[Job], options: RestoreOptions, report: str | None, resume: Path | None, say: Callable[[str], None]
) -> Sequence[Job]:
    """What a run would begin with; it also refuses the files that a run would refuse."""
    if resume is None and options.faces_from is None:
        return jobs
    # Only now, since all that a run needs comes along.
    from gfprestore.reporting.resuming import read_choice, unfinished

    read_choice(options.faces_from, jobs, report, resume)
    return unfinished(jobs, resume, report, options, say)[0]


def _list_jobs(jobs: Sequence[Job], options: RestoreOptions) -> ExitCode:
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A pipe may have an encoding that lacks letters of the names.
        sys.stdout.reconfigure(errors="backslashreplace")
    for job in jobs:
        if job.fault is not None:
            tell(f"failed: {printable(job.source)}: {job.fault}")
            continue
        note = "" if options.overwrite or not os.path.lexists(job.target) else "  (exists: would be skipped)"
        click.echo(f"{printable(job.source)} -> {printable(job.target)}{note}")
    return ExitCode.SOME_FAILED if any(job.fault for job in jobs) else ExitCode.OK


def _ignore(_line: str) -> None:
    """A quiet run says nothing but errors."""


def _set_up_logging(quiet: bool, verbose: bool) -> None:
    import logging  # here, since --help should not wait for it

    logger = logging.getLogger("gfprestore")
    logger.setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else logging.WARNING)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("gfprestore: %(message)s"))
    # In place of what an earlier call in the same process put here.
    logger.handlers = [handler]


def run() -> None:
    """Entry point of the console script."""
    run_command(main)
