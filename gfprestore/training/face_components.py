"""Finds the facial components of training faces: in the file that a configuration names, or beside the faces."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from gfprestore.errors import UsageError, printable
from gfprestore.training.regions import Components, read_components
from gfprestore.training.sources import FaceSet

logger = logging.getLogger(__name__)


def find_components(faces: FaceSet, given: Path | None) -> tuple[Components | None, ...]:
    """Looks up the components of every face by its name.

    Args:
        faces: The faces.
        given: A file for all sources, or None. Faces that it lacks, or all without it, are looked up in the
            `components.json` of their own folder.

    Returns:
        Components for crops of 512 pixels, or None where no file has the face.

    Raises:
        UsageError: A file holds something else, or the given one has none of the faces.
    """
    shared = {} if given is None else read_components(given)
    if given is not None and not any(faces.name(index) in shared for index in range(len(faces))):
        theirs = next(iter(shared), "none")
        raise UsageError(
            f"data.components {printable(given)} has none of the {len(faces)} faces: its names are like"
            f" {printable(theirs)}, the faces' like {printable(faces.name(0))}."
        )
    files = {source.components_file for source, _ in faces.places}
    own = {file: read_components(file) for file in files if file is not None}
    return tuple(_look_up(faces, index, shared, own) for index in range(len(faces)))


def tell_missing(components: tuple[Components | None, ...]) -> None:
    """Tells how many faces will have the mean face's components instead of their own."""
    missing = sum(entry is None for entry in components)
    if missing:
        logger.warning(
            "%d of %d faces have no components of their own and get the mean face's: see data.components.",
            missing,
            len(components),
        )


def _look_up(
    faces: FaceSet, index: int, shared: Mapping[str, Components], own: Mapping[Path, Mapping[str, Components]]
) -> Components | None:
    name, file = faces.name(index), faces.places[index][0].components_file
    if name in shared or file is None:
        return shared.get(name)
    return own[file].get(name)
