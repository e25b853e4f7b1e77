"""What a run does for one photo."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Job:
    """One photo to restore: where it is and where the result goes."""

    source: Path
    """The photo file, as it was named or found."""

    target: Path
    """The file to write: `output / relative`."""

    relative: Path
    """Path of the target below the output folder; no two jobs of a run share one."""

    fault: str | None = None
    """For a folder whose photos nobody knows since it cannot be read: a sentence about it. Such a job fails."""
