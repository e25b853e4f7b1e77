"""Where results and crops of faces must not go, found before any work: among the originals, or over them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from gfprestore.errors import OutputError, printable
from gfprestore.job import Job

_CROP_NAME = re.compile(r"(.+?)(?:\.page\d+)?\.\d+\.(?:before|after)\.png", re.DOTALL)
"""What a crop of a face is called, with the name that its photo's result has."""


def crop_path(folder: Path, relative: Path, number: int, when: str) -> Path:
    """Where the crop of a photo's face goes: `folder/sub/photo.jpg.1.before.png`.

    Args:
        folder: That of all crops.
        relative: Path of the photo below its own output folder.
        number: Of the face, from 1.
        when: `before` or `after`.
    """
    return folder / relative.with_name(f"{relative.name}.{number}.{when}.png")


def check_folder(folder: Path, option: str) -> None:
    """Refuses a folder that cannot be had or written.

    Raises:
        OutputError: It is so; the message names the option.
    """
    existing = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
    if not existing.is_dir():
        raise OutputError(f"{printable(existing)} is not a folder; name another with {option}.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(f"The folder {printable(existing)} cannot be written; name another with {option}.")


def check_outside(folder: Path, inner: Path, option: str) -> None:
    """Refuses to write into an input folder, by inode, so that links, bind mounts and letters' case do not matter.

    Args:
        folder: The input folder.
        inner: Where something is to be written; need not exist.
        option: The option that named it.

    Raises:
        OutputError: It is or lies inside the input folder.
    """
    inside = folder.stat()
    real = inner.resolve()
    for ancestor in (real, *real.parents):
        if ancestor.exists() and os.path.samestat(ancestor.stat(), inside):
            what = "output" if option == "--output" else "folder of face crops"
            raise OutputError(
                f"The {what} {printable(inner)} lies in the input folder {printable(folder)};"
                f" name a folder outside it with {option}."
            )


def check_crops(folder: Path, inputs: Iterable[Path], jobs: Sequence[Job]) -> None:
    """Refuses a folder of face crops where they would lie among the originals, or over a result.

    Crops replace and delete what has their names, and the next run would take them for photos.

    Args:
        folder: What `--save-faces` names.
        inputs: As the user named them.
        jobs: All photos of the run.

    Raises:
        OutputError: It is such a folder, or cannot be written.
    """
    check_folder(folder, "--save-faces")
    for given in inputs:
        if os.path.isdir(given):  # noqa: PTH112 - where the method raises an error, a link leads to what is closed.
            check_outside(given, folder, "--save-faces")
    _check_inside({(folder / job.relative).parent for job in jobs}, folder, "folder of face crops", "--save-faces")
    _check_beside_no_source(folder, jobs)
    _check_over_no_result(folder, jobs)


def _check_beside_no_source(folder: Path, jobs: Sequence[Job]) -> None:
    places = {place for job in jobs if (place := _identity((folder / job.relative).parent))}
    linked = {job.source.resolve().parent for job in jobs if job.source.is_symlink()}
    for parent in {job.source.parent for job in jobs} | linked:
        if _identity(parent) in places:
            raise OutputError(
                f"The crops of faces would lie among the photos of {printable(parent)};"
                " name another folder with --save-faces."
            )


def _check_over_no_result(folder: Path, jobs: Sequence[Job]) -> None:
    named = [(job, match[1]) for job in jobs if (match := _CROP_NAME.fullmatch(job.target.name))]
    if not named:
        return
    real = folder.resolve()
    photos = {real / job.relative for job in jobs}
    for job, photo in named:
        if job.target.parent.resolve() / photo in photos:
            raise OutputError(
                f"A face's crop could overwrite the result {printable(job.target)};"
                " name another folder with --save-faces."
            )


def _identity(folder: Path) -> tuple[int, int] | None:
    status = status_of(folder)
    return None if status is None else (status.st_dev, status.st_ino)


def check_sources_kept(jobs: Sequence[Job]) -> None:
    """Refuses a result that would overwrite a source of the run.

    Raises:
        OutputError: There is one.
    """
    existing = [(job, status) for job in jobs if (status := status_of(job.target)) is not None]
    if not existing:
        return
    sources = {(s.st_dev, s.st_ino): job for job in jobs if (s := status_of(job.source)) is not None}
    for job, status in existing:
        taken = sources.get((status.st_dev, status.st_ino))
        if taken is not None:
            raise OutputError(
                f"The result of {printable(job.source)} would overwrite the source {printable(taken.source)};"
                " name another folder with --output."
            )


def check_targets_inside(jobs: Sequence[Job], output: Path) -> None:
    """A link among the folders of the output must not lead the results out of it.

    Raises:
        OutputError: One does.
    """
    _check_inside({job.target.parent for job in jobs}, output, "output folder", "--output")


def _check_inside(folders: Iterable[Path], outer: Path, what: str, option: str) -> None:
    real = outer.resolve()
    for folder in folders:
        if not folder.resolve().is_relative_to(real):
            raise OutputError(f"The folder {printable(folder)} leads out of the {what}; name another with {option}.")


def status_of(path: Path) -> os.stat_result | None:
    """The status of the file behind a name, or None where there is none that can be asked."""
    try:
        return path.stat()
    except OSError:
        return None
