"""A photo in work: the record that the stages of the pipeline hand on, and the faults that are this photo's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import cv2

from gfprestore.detection.face_choice import FaceBox
from gfprestore.dropping import DroppedError
from gfprestore.errors import GfprestoreError, PhotoError, printable
from gfprestore.job import Job
from gfprestore.photo import AlignedFace, Photo
from gfprestore.report import RefusedRecord

Wanted = Mapping[int, Sequence[FaceBox]]
"""Boxes of faces by page."""


@dataclass(frozen=True, eq=False)
class OpenPhoto:
    """A photo in work."""

    job: Job
    """Where it comes from and goes to."""

    photo: Photo
    """The whole photo, or the page of it that is in work."""

    stamp: tuple[int, int]
    """Size and time of change of the file, so that its pages are known to belong together."""

    page: int = 0
    """Which page that is."""

    wanted: Wanted | None = None
    """The faces chosen by hand; None is no such choice."""

    faces: tuple[AlignedFace, ...] = ()
    """Its faces, once they were looked for."""

    refused: tuple[RefusedRecord, ...] = ()
    """What was taken for a face and is none to restore."""

    seconds: dict[str, float] = field(default_factory=dict)
    """Time spent on it so far, by stage."""


def stamp_of(path: Path) -> tuple[int, int]:
    """What tells that a file was written anew: its size and time of change; zeros for a file that is gone."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


@contextmanager
def in_hand(job: Job) -> Iterator[None]:
    """Makes memory that runs out a fault of this photo, since the next may be smaller; names it in a bug's traceback.

    Raises:
        PhotoError: There is not enough memory for this photo.
    """
    name = printable(job.source)
    try:
        yield
    except MemoryError as error:
        raise PhotoError(f"{name} needs more memory than there is; close other programs or lower --upscale.") from error
    except cv2.error as error:
        if error.code != cv2.Error.StsNoMem:
            raise
        raise PhotoError(f"{name} needs more memory than there is; close other programs or lower --upscale.") from error
    except (PhotoError, GfprestoreError, DroppedError):
        raise
    except Exception as error:
        error.add_note(f"while {name} was restored")
        raise
