"""Walks a folder for photos, in order, within its tree, and matches shell patterns on the way."""

from __future__ import annotations

import fnmatch
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gfprestore.errors import UsageError, printable

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FoundPhoto:
    """A photo file and its place below the input that it came from."""

    source: Path
    """The file."""

    below: Path
    """Its path below the folder, or below the fixed part of the pattern, that it was found in."""

    fault: str | None = None
    """For a folder that cannot be read, in place of its photos: a sentence about it."""


def split_suffix(name: str) -> tuple[str, str]:
    """Stem and suffix of a file name, the same in every Python version; a leading or a last dot makes no suffix.

    Example:
        >>> split_suffix("a.b.JPG"), split_suffix(".jpg"), split_suffix("dots..")
        (('a.b', '.JPG'), ('.jpg', ''), ('dots..', ''))
    """
    stem, dot, suffix = name.rpartition(".")
    return (stem, dot + suffix) if stem.strip(".") and suffix else (name, "")


def walk_photos(
    root: Path,
    suffixes: frozenset[str],
    pattern: tuple[str, ...] = (),
    skipped: frozenset[Path] = frozenset(),
    *,
    follows_links: bool = False,
    links: list[Path] | None = None,
) -> Iterator[FoundPhoto]:
    """Yields the photos below a folder in order of their names, each folder's content at the folder's place.

    Hidden files and folders are passed over, linked folders are not entered, and a link counts only if it leads to a
    file of the same tree. What is left out for that reason is counted in one logged warning. A folder inside that
    cannot be read, such as `lost+found`, is yielded itself with its fault, and the others are walked on.

    Args:
        root: The folder.
        suffixes: Lower-case suffixes of the files that count.
        pattern: Parts of a shell pattern; only files that it matches, or whose folder it matches, count.
        skipped: Resolved paths of folders to pass over, such as the output of `**/*.jpg`.
        follows_links: Enter linked folders and take linked files, wherever they lead. Of several links to a folder the
            first is entered, and none that lies in that folder, so that the walk ends soon.
        links: Takes the links out of the folder, to photos and to folders, in place of the count in the warning.

    Raises:
        UsageError: The folder itself cannot be read.
    """
    real_root = root.resolve()
    left_out = 0
    # A stack instead of recursion: a path may hold more folders than Python allows nested calls.
    stack = [_scan_root(root, _expand({0}, pattern))]
    trail, linked = [real_root], set[Path]()
    while stack:
        step = next(stack[-1], None)
        if step is None:
            stack.pop()
            trail.pop()
            continue
        entry, below, states = step
        matched = _advance(states, entry.name, pattern)
        is_folder = _is_folder(entry, follows_links)
        if is_folder is None:
            left_out += bool(matched)
        elif is_folder:
            folder = trail[-1] / entry.name
            if entry.is_symlink() and matched:
                folder = folder.resolve()
                if folder in trail or folder in linked:
                    continue
                linked.add(folder)
            if not matched or folder in skipped:
                continue
            try:
                stack.append(_scan(Path(entry.path), below / entry.name, matched))
                trail.append(folder)
            except OSError as error:
                yield FoundPhoto(Path(entry.path), below / entry.name, _unreadable(error))
        elif matched and links is not None and not follows_links and _leads_out(entry, real_root, suffixes):
            links.append(Path(entry.path))
        elif len(pattern) in matched and _suffix(entry) in suffixes:
            if _belongs(entry, None if follows_links else real_root):
                yield FoundPhoto(Path(entry.path), below / entry.name)
            else:
                left_out += 1
    if left_out:
        log.warning("Left out in %s, since no file of that folder is behind the name: %d.", printable(root), left_out)


Entries = Iterator[tuple[os.DirEntry[str], Path, frozenset[int]]]
"""What is in one folder: each entry, the folder's path below the root, and the parts of the pattern matched so far."""


def _scan(folder: Path, below: Path, states: frozenset[int]) -> Entries:
    with os.scandir(folder) as entries:
        visible = sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
    return ((entry, below, states) for entry in visible)


def _scan_root(root: Path, states: frozenset[int]) -> Entries:
    try:
        return _scan(root, Path(), states)
    except OSError as error:
        raise UsageError(
            f"The folder {printable(root)} cannot be read ({_reason(error)}); grant access or name other inputs."
        ) from error


def _unreadable(error: OSError) -> str:
    return f"The folder cannot be read ({_reason(error)}); grant access and run again for the photos in it."


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__


def _is_folder(entry: os.DirEntry[str], follows_links: bool) -> bool | None:
    """None where nobody can tell: a link to itself, or one into a folder without access."""
    try:
        return entry.is_dir(follow_symlinks=follows_links)
    except OSError:
        return None


def _suffix(entry: os.DirEntry[str]) -> str:
    return split_suffix(entry.name)[1].lower()


def _leads_out(entry: os.DirEntry[str], real_root: Path, suffixes: frozenset[str]) -> bool:
    """Whether an entry is a link out of the tree, with the name of a photo or to a folder."""
    if not entry.is_symlink():
        return False
    try:
        real = Path(entry.path).resolve()
        return not real.is_relative_to(real_root) and (_suffix(entry) in suffixes or real.is_dir())
    except (OSError, RuntimeError):  # As in `_belongs`.
        return False


def _belongs(entry: os.DirEntry[str], real_root: Path | None) -> bool:
    """Whether an entry that is no folder is a file of the tree: a link out of it, a pipe or a device is not.

    A link that leads nowhere inside the tree stays, so that reading it fails and the photo is accounted for. Without a
    root a link may lead anywhere.
    """
    if not entry.is_symlink():
        return entry.is_file()
    try:
        real = Path(entry.path).resolve()
        return (real_root is None or real.is_relative_to(real_root)) and (real.is_file() or not real.exists())
    except (OSError, RuntimeError):  # No access, or a loop of links: RuntimeError up to Python 3.12.
        return False


def _expand(states: Iterable[int], pattern: tuple[str, ...]) -> frozenset[int]:
    """Adds to the numbers of parts matched so far those reached because `**` also stands for no folder at all."""
    closed = set(states)
    for state in sorted(closed):
        following = state
        while following < len(pattern) and pattern[following] == "**":
            following += 1
            closed.add(following)
    return frozenset(closed)


def _advance(states: frozenset[int], name: str, pattern: tuple[str, ...]) -> frozenset[int]:
    """Numbers of pattern parts matched after one more name of the path; `len(pattern)`, once reached, stays."""
    reached = set()
    for state in states:
        if state == len(pattern) or pattern[state] == "**":
            reached.add(state)
        elif fnmatch.fnmatch(name, pattern[state]):
            reached.add(state + 1)
    return _expand(reached, pattern)
