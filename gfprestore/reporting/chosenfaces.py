"""The faces that somebody chose by hand: those that are left in a report file, photo by photo."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from gfprestore.errors import UsageError, printable
from gfprestore.reporting.bysource import BySource
from gfprestore.reporting.reportfile import FaceBox

NOT_LISTED = "The report of --faces-from does not list this photo's faces, so none was restored."
"""What is told of a photo that a choice of faces says nothing about."""


def not_found(missed: int) -> str:
    """What is told of a photo in which chosen faces are not found again."""
    faces = "1 face" if missed == 1 else f"{missed} faces"
    verb = "was" if missed == 1 else "were"
    return (
        f"{faces} that the report of --faces-from lists {verb} not found again; use that run's --detector, "
        "--detection-threshold and --min-face."
    )


ChosenFaces = BySource[Mapping[int, Sequence[FaceBox]]]
"""Boxes of the chosen faces of every photo that a report lists: by page, from 0, in photo pixel centres."""


def read_faces(path: Path) -> ChosenFaces:
    """Reads the boxes of every face in a report file; whoever wants fewer faces deletes the others from it.

    Raises:
        UsageError: The file is missing or a line is not what a report holds: were it passed over, the faces of its
            photo would be lost in silence.
    """
    chosen = ChosenFaces()
    try:
        # Editors on Windows put a byte order mark before the first line.
        with path.open(encoding="utf-8-sig", errors="replace") as stream:
            for number, text in enumerate(stream, start=1):
                line = _parse(text, path, number)
                if line.get("kind") == "photo" and "faces" in line:
                    chosen.add(_source_of(line, path, number), _boxes_of(line, path, number))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UsageError(f"The faces in {printable(path)} cannot be read ({reason}); check --faces-from.") from error
    return chosen


def read_faces_of(path: Path, sources: Iterable[Path]) -> ChosenFaces:
    """Reads a choice of faces as `read_faces` does, and refuses one that has nothing to do with the photos of a run.

    Raises:
        UsageError: The file cannot be read, or lists the faces of none of the photos.
    """
    chosen = read_faces(path)
    if all(chosen.of(source) is None for source in sources):
        raise UsageError(
            f"{printable(path)} lists the faces of none of these photos; name a report of the same photos with "
            "--faces-from, and start where that run was started if it names them without a full path."
        )
    return chosen


def _parse(text: str, path: Path, number: int) -> Mapping[str, object]:
    if not text.strip():
        return {}
    try:
        line = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"Line {number} of {printable(path)} is not JSON; correct or delete it, or name another --faces-from."
        ) from error
    if not isinstance(line, dict):
        raise UsageError(f"Line {number} of {printable(path)} is no line of a report; check --faces-from.")
    return line


def _source_of(line: Mapping[str, object], path: Path, number: int) -> Path:
    source = line.get("source")
    if not isinstance(source, str):
        raise UsageError(f"Line {number} of {printable(path)} names no source; check --faces-from.")
    return Path(source)


def _boxes_of(line: Mapping[str, object], path: Path, number: int) -> dict[int, list[FaceBox]]:
    faces = line["faces"]
    found: dict[int, list[FaceBox]] = {}
    for face in faces if isinstance(faces, list) else [None]:
        described = face if isinstance(face, dict) else {}
        box, page = _box(described.get("box")), described.get("page", 1)
        if box is None:
            raise UsageError(
                f"Line {number} of {printable(path)} has a face without a box of four numbers, left and top before "
                "right and bottom; check --faces-from."
            )
        if type(page) is not int or page < 1:
            raise UsageError(
                f"Line {number} of {printable(path)} has a face whose page is no whole number from 1; "
                "check --faces-from."
            )
        found.setdefault(page - 1, []).append(box)
    return found


def _box(sides: object) -> FaceBox | None:
    """A box as JSON holds it; None where it is none, such as text, whose letters would else be taken one by one."""
    if not isinstance(sides, list) or len(sides) != 4 or any(type(side) not in (int, float) for side in sides):
        return None
    try:
        left, top, right, bottom = (float(side) for side in sides)
    except OverflowError:
        return None
    is_box = all(map(math.isfinite, (left, top, right, bottom))) and left < right and top < bottom
    return (left, top, right, bottom) if is_box else None
