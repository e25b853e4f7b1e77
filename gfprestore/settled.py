"""What becomes of photos for which nothing is to be done: known without a network, and before one is loaded."""

from __future__ import annotations

import os
from collections.abc import Iterable

from gfprestore.job import Job
from gfprestore.options import RestoreOptions
from gfprestore.report import Failed, Skipped

Settled = Failed | Skipped
"""An outcome that no work leads to."""


def settle(job: Job, options: RestoreOptions) -> Settled | None:
    """The outcome of a job whose result is there, or whose source nobody can read; None where there is work to do."""
    if job.fault is not None:
        return Failed(job, job.fault)
    if not options.overwrite and os.path.lexists(job.target):
        return Skipped(job, "the result exists already (--overwrite writes it anew)")
    return None


def settle_all(jobs: Iterable[Job], options: RestoreOptions) -> list[Settled] | None:
    """The outcomes of all jobs, in order, where none of them is work to do; else None, known at the first that is."""
    outcomes: list[Settled] = []
    for job in jobs:
        outcome = settle(job, options)
        if outcome is None:
            return None
        outcomes.append(outcome)
    return outcomes
