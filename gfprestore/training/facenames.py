"""Names for the faces of photos: the photo's own, and one more where another photo of that name has its faces there."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Container
from pathlib import Path

from gfprestore.atomic import output_file
from gfprestore.errors import UsageError, printable
from gfprestore.job import Job

PHOTOS_FILE = "photos.json"
"""Beside the faces: name -> what tells the photo that has it."""

_READ_BYTES = 1 << 16
"""Of each photo: with its size they tell it from others, and thousands of photos need not be read whole."""

_MARK_DIGITS = 8


class FaceNames:
    """Which photo has which name in a folder of faces.

    A photo is known by its content, so an album may be moved, and its faces are still found where they are.

    Args:
        folder: That of the faces; need not exist.

    Raises:
        UsageError: The folder's file of photos is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / PHOTOS_FILE
        self._marks: dict[str, str] = {}
        if self._path.is_file():
            try:
                self._marks = {str(name): str(mark) for name, mark in json.loads(self._path.read_bytes()).items()}
            except (ValueError, AttributeError) as error:
                raise UsageError(f"{printable(self._path)} is damaged; give another folder with --output.") from error

    def choose(self, job: Job, taken: Container[str]) -> str:
        """The name for a photo's faces; always the same one, unless the photo whose name it shares has no face.

        Args:
            job: The photo.
            taken: Names of photos that have faces in the folder; one of them that is not told of in its file of photos,
                which older versions did not write, is taken to be this photo's.
        """
        plain = job.relative.with_suffix("").as_posix()
        known = self._marks.get(plain) if plain in taken else None
        mark = _mark_of(job.source) if known is not None else None
        return plain if mark is None or known == mark else f"{plain}.{mark[:_MARK_DIGITS]}"

    def keep(self, name: str, job: Job) -> None:
        """Notes that a photo has faces of this name there."""
        mark = _mark_of(job.source)
        if mark is not None:
            self._marks[name] = mark

    def write(self) -> None:
        """Writes the folder's file of photos.

        Raises:
            OutputError: The folder cannot be written.
        """
        with output_file(self._path) as stream:
            stream.write(json.dumps(self._marks, indent=1).encode("ascii"))


def _mark_of(path: Path) -> str | None:
    """What tells a photo from others, 64 hexadecimal digits; None for one that cannot be read."""
    try:
        with path.open("rb") as stream:
            start = stream.read(_READ_BYTES)
            size = stream.seek(0, os.SEEK_END)
    except OSError:
        return None
    return hashlib.sha256(start + size.to_bytes(8, "big")).hexdigest()
