"""Which images belong together: those of the same path below their folders, whatever their suffixes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from gfprestore.errors import UsageError, printable
from gfprestore.folders import PHOTO_SUFFIXES
from gfprestore.walk import split_suffix, walk_photos

_NAMES_SHOWN = 5


@dataclass(frozen=True)
class ImageGroup:
    """The files of one image."""

    name: str
    """Path below the folders, without suffix, with forward slashes."""

    paths: tuple[Path, ...]
    """One file per folder, in the order of the folders."""


@dataclass(frozen=True)
class Pairing:
    """The images of several folders, put together."""

    groups: tuple[ImageGroup, ...]
    """Images that every folder has, in order of their names."""

    unpaired: tuple[str, ...]
    """A sentence for each image that some folders lack, and for what could not be looked into."""


class Listing(NamedTuple):
    """What lies below a folder."""

    images: dict[str, Path]
    """Images by name without suffix."""

    faults: tuple[str, ...]
    """A sentence for each folder or file that could not be looked into."""


def list_images(folder: Path) -> Listing:
    """Lists the images below a folder.

    Raises:
        UsageError: The folder is missing or unreadable, or two files in it differ in their suffixes alone.
    """
    if not folder.is_dir():
        raise UsageError(f"{printable(folder)} is not a folder.")
    images: dict[str, Path] = {}
    faults = []
    for found in walk_photos(folder, PHOTO_SUFFIXES):
        if found.fault is not None:
            faults.append(f"{printable(found.source)}: {found.fault}")
            continue
        name = (found.below.parent / split_suffix(found.below.name)[0]).as_posix()
        if name in images:
            raise UsageError(
                f"{printable(images[name])} and {printable(found.source)} differ in their suffixes alone, "
                "so that it is unclear which one to measure: move one of them."
            )
        images[name] = found.source
    return Listing(images, tuple(faults))


def pair_images(folders: Sequence[tuple[str, Path]]) -> Pairing:
    """Puts the images of folders together by their names.

    Args:
        folders: Label and folder, such as ("truth", Path("clean")).

    Raises:
        UsageError: No image is in all folders, or a folder cannot be listed.
    """
    listings = [(label, list_images(folder)) for label, folder in folders]
    listed = [(label, listing.images) for label, listing in listings]
    names = sorted({name for _, images in listed for name in images})
    groups, unpaired = [], [fault for _, listing in listings for fault in listing.faults]
    for name in names:
        missing = [label for label, images in listed if name not in images]
        if missing:
            unpaired.append(f"{printable(name)} is missing in {', '.join(missing)}.")
        else:
            groups.append(ImageGroup(name, tuple(images[name] for _, images in listed)))
    if not groups:
        raise UsageError(_nothing_paired(folders, listed))
    return Pairing(tuple(groups), tuple(unpaired))


def _nothing_paired(folders: Sequence[tuple[str, Path]], listed: Sequence[tuple[str, dict[str, Path]]]) -> str:
    for (label, folder), (_, images) in zip(folders, listed, strict=True):
        if not images:
            return f"The folder of {label}, {printable(folder)}, holds no image."
    examples = " and ".join(f"{printable(min(images))} in {label}" for label, images in listed[:_NAMES_SHOWN])
    return f"No image has the same name below all folders: {examples}."
