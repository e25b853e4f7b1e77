"""Finds the photos among the inputs and plans where each result goes, before any work is done.

Names are kept as the file system gives them: undecodable bytes travel as surrogates (PEP 383), so newlines, invalid
UTF-8, trailing dots and names of 255 bytes survive; only messages show them escaped.
"""

from __future__ import annotations

import logging
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from gfprestore.errors import NoPhotosError, UsageError, printable
from gfprestore.job import Job
from gfprestore.places import (
    check_crops,
    check_folder,
    check_outside,
    check_sources_kept,
    check_targets_inside,
)
from gfprestore.walk import FoundPhoto, split_suffix, walk_photos

log = logging.getLogger(__name__)

FORMAT_SUFFIXES = {
    "jpg": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "png": (".png",),
    "tiff": (".tiff", ".tif"),
    "webp": (".webp",),
}
"""Formats that can be asked for, each with its suffixes; the first is given to sources of another format."""

KEPT_SUFFIXES = frozenset(suffix for family in FORMAT_SUFFIXES.values() for suffix in family) | {".bmp"}
"""Suffixes that the format `auto` keeps, since such files can be written."""

REPLACED_SUFFIXES = {
    ".dib": ".bmp",
    ".gif": ".png",
    ".heic": ".jpg",
    ".heif": ".jpg",
    ".avif": ".jpg",
    ".jxl": ".png",
}
"""What the format `auto` writes for photos that are only read: lossy camera formats become JPEG, others PNG.

HEIC, AVIF and JPEG XL are not written: their encoders take from ten seconds to minutes for a photo of 12 megapixels,
and Pillow's package for JPEG XL stores neither colour profiles nor XMP.
"""

PHOTO_SUFFIXES = KEPT_SUFFIXES | REPLACED_SUFFIXES.keys()
"""Suffixes, in lower case, by which a file inside a folder counts as a photo."""

_NAMES_SHOWN = 3


def plan_jobs(
    inputs: Sequence[Path],
    output: Path,
    *,
    format: str = "auto",
    suffixes: frozenset[str] = frozenset(PHOTO_SUFFIXES),
    follows_links: bool = False,
    reads_only: bool = False,
    shares_targets: bool = False,
    save_faces: Path | None = None,
) -> list[Job]:
    """Lists the photos of the inputs in order, each with its target below the output folder. Writes nothing.

    A file is always taken, and so is a named link that leads nowhere, as a photo that will fail. A folder is walked in
    sorted order and its sub-folders are kept below the output; in it only `suffixes` count, in any case. A name with
    `*`, `?` or `[` that no file has is a pattern, `**` standing for any number of folders; the folders after its fixed
    part are kept. Hidden files and folders are passed over, linked folders are not entered, and a linked file counts
    only if it leads to a file of the same tree.

    With the format `auto` the target's suffix is decided by the source's name alone: kept where such files can be
    written, else `REPLACED_SUFFIXES`, and `.png` is added to a name whose suffix says nothing. With another format a
    suffix of that format is kept and any other photo suffix replaced. A suffix is kept before the new one, as in
    `x.heic.jpg`, where the result would else have the name of a photo that lies beside the source or of another result.

    Args:
        inputs: Files, folders and patterns in any mix.
        output: Folder for the results; need not exist.
        format: `auto` or a key of `FORMAT_SUFFIXES`.
        suffixes: Lower-case suffixes of the files taken from folders and patterns.
        follows_links: Enter linked folders and take linked files, wherever they lead.
        reads_only: Targets are only names, nothing is written there: the output may lie among the inputs.
        shares_targets: Photos may share a target, named by the source alone: whoever writes it tells them apart.
        save_faces: Folder for crops of the faces, which must keep off the photos as well; need not exist.

    Returns:
        The jobs. A folder inside that cannot be read has one too, with its `fault`.

    Raises:
        UsageError: An input is missing or unreadable, or two sources would share one target.
        NoPhotosError: The inputs hold no photo.
        OutputError: The output is not a writable folder, lies inside an input folder, holds a link out of itself where
            a result should go, or a target is a source; or crops of faces would go among the photos.
    """
    _check_inputs(inputs)
    check_folder(output, "--output")
    for folder in inputs:
        if not reads_only and os.path.isdir(folder):  # noqa: PTH112
            check_outside(folder, output, "--output")
    written_to = frozenset(
        folder.resolve() for folder in (None if reads_only else output, save_faces) if folder is not None
    )
    links: list[Path] = []
    walk = partial(walk_photos, suffixes=suffixes, follows_links=follows_links, links=links)
    jobs: dict[tuple[Path, Path], Job] = {}
    for given in inputs:
        for found in _find(given, written_to, walk):
            job = _job(found, output, format)
            jobs.setdefault((job.source, job.relative), job)
    planned = list(jobs.values()) if shares_targets else _keep_suffixes(list(jobs.values()), output, format)
    photos = [job for job in planned if job.fault is None]
    if not photos:
        raise NoPhotosError(_nothing_found(inputs, planned, links))
    if links:
        log.warning("%s", _about_links(links))
    if not reads_only:
        check_sources_kept(photos)
    check_targets_inside(photos, output)
    if not shares_targets:
        _check_targets_differ(photos, output)
    if save_faces is not None:
        check_crops(save_faces, inputs, photos)
    return planned


def _job(found: FoundPhoto, output: Path, format: str) -> Job:
    if found.fault is not None:
        return Job(found.source, output / found.below, found.below, found.fault)
    relative = found.below.with_name(target_name(found.below.name, format))
    return Job(found.source, output / relative, relative)


def _nothing_found(inputs: Sequence[Path], unreadable: Sequence[Job], links: Sequence[Path]) -> str:
    names = _listed([printable(given) for given in inputs])
    closed = _listed([printable(job.source) for job in unreadable])
    return (
        f"No photo was found in {names}; name files, or folders that hold {_listed_suffixes()}."
        + (f" Access is missing to {closed}." if closed else "")
        + (f" {_about_links(links)}" if links else "")
    )


def _about_links(links: Sequence[Path]) -> str:
    what = f"{len(links)} links out of the input folders were" if len(links) > 1 else "A link out of the folder was"
    takes = "--follow-links takes " + ("them" if len(links) > 1 else "it")
    return f"{what} left out, such as {printable(links[0])}; {takes}."


def target_name(name: str, format: str, *, keeps_suffix: bool = False) -> str:
    """File name of the result of a source of this name; see `plan_jobs`.

    Args:
        name: File name of the source.
        format: `auto` or a key of `FORMAT_SUFFIXES`.
        keeps_suffix: Keep a suffix that would be replaced, before the new one.

    Example:
        >>> [target_name(name, "auto") for name in ("a.JPEG", "a.gif", "a", "scan.0001")]
        ['a.JPEG', 'a.png', 'a.png', 'scan.0001.png']
        >>> target_name("a.JPEG", "jpg"), target_name("a.tif", "jpg")
        ('a.JPEG', 'a.jpg')
        >>> target_name("a.heic", "auto", keeps_suffix=True)
        'a.heic.jpg'
    """
    stem, suffix = split_suffix(name)
    lowered = suffix.lower()
    kept = KEPT_SUFFIXES if format == "auto" else FORMAT_SUFFIXES[format]
    if lowered in kept:
        return name
    if keeps_suffix or lowered not in PHOTO_SUFFIXES:
        stem = name
    if format == "auto":
        return stem + REPLACED_SUFFIXES.get(lowered, ".png")
    return stem + FORMAT_SUFFIXES[format][0]


def _keep_suffixes(jobs: Sequence[Job], output: Path, format: str) -> list[Job]:
    """Tells apart results that only lost what told their sources apart, such as an iPhone's x.heic and x.jpg.

    What already lies in the output has no say, or the next run would choose other names; what lies beside the source
    has one, or x.heic restored alone would take the place of x.jpg's result.
    """
    folds = _ignores_case(output)
    names = Counter(_place(job.relative, folds) for job in jobs if job.fault is None)

    def kept(job: Job) -> Job:
        if job.fault is not None or job.relative.name == job.source.name:
            return job
        if names[_place(job.relative, folds)] == 1 and not _lies_beside(job):
            return job
        relative = job.relative.with_name(target_name(job.source.name, format, keeps_suffix=True))
        return Job(job.source, output / relative, relative)

    return [kept(job) for job in jobs]


def _lies_beside(job: Job) -> bool:
    """Whether another photo beside the source has the result's name, and is not that result of an earlier run."""
    beside = job.source.with_name(job.relative.name)
    return os.path.lexists(beside) and os.path.realpath(beside.parent) != os.path.realpath(job.target.parent)


def _place(relative: Path, folds: bool) -> str:
    """What two results in one place have in common."""
    text = str(relative)
    return unicodedata.normalize("NFC", text).casefold() if folds else text


def _is_pattern(given: Path) -> bool:
    return any(c in str(given) for c in "*?[") and not os.path.lexists(given)


def _check_inputs(inputs: Sequence[Path]) -> None:
    missing = [printable(given) for given in inputs if not (_is_pattern(given) or os.path.lexists(given))]
    if missing:
        raise UsageError(f"There is no {_listed(missing)}; check the name of the input.")


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _listed_suffixes() -> str:
    return ", ".join(sorted(PHOTO_SUFFIXES))


def _find(given: Path, written: frozenset[Path], walk: Callable[..., Iterator[FoundPhoto]]) -> Iterator[FoundPhoto]:
    if _is_pattern(given):
        yield from _find_pattern(given, written, walk)
    elif os.path.isdir(given):  # noqa: PTH112 - where the method raises an error, a link leads to what is closed.
        # A link may lead to the results of an earlier run.
        yield from walk(given, skipped=written)
    elif os.path.isfile(given) or not os.path.exists(given):  # noqa: PTH110, PTH113
        # A link that leads nowhere too: reading it fails, and the photo is accounted for.
        yield FoundPhoto(given, Path(given.name))
    else:
        raise UsageError(f"{printable(given)} is neither a file nor a folder; name photo files or folders.")


def _find_pattern(
    given: Path, written: frozenset[Path], walk: Callable[..., Iterator[FoundPhoto]]
) -> Iterator[FoundPhoto]:
    parts = given.parts
    fixed = next(i for i, part in enumerate(parts) if any(c in part for c in "*?["))
    # A folder may be called `Album [1962]`: as with files, a name that exists is no pattern.
    while fixed + 1 < len(parts) and Path(*parts[: fixed + 1]).is_dir():
        fixed += 1
    root = Path(*parts[:fixed])
    found = list(walk(root, pattern=parts[fixed:], skipped=written)) if root.is_dir() else []
    if not found:
        log.warning("%s matches no photo.", printable(given))
    yield from found


def _check_targets_differ(jobs: Sequence[Job], output: Path) -> None:
    folds = _ignores_case(output)
    taken: dict[str, Job] = {}
    for job in jobs:
        other = taken.setdefault(_place(job.relative, folds), job)
        if other is not job:
            raise UsageError(
                f"{printable(other.source)} and {printable(job.source)} would both be written to"
                f" {printable(job.target)}; restore them in two runs with different --output folders."
            )


def _ignores_case(output: Path) -> bool:
    """Whether the file system of the output takes two names that differ in case for one, found without writing."""
    real = output.resolve()
    for folder in (real, *real.parents):
        swapped = folder.with_name(folder.name.swapcase()) if folder.name else folder
        if swapped != folder and folder.exists():
            return swapped.exists() and swapped.samefile(folder)
    return False
