"""Writes files that are complete or absent, whatever happens while they are written."""

from __future__ import annotations

import errno
import os
import re
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO

from gfprestore.errors import OutputError, PhotoError, printable

_RUN_ENDING = {
    errno.ENOSPC: "the disk is full; free some space",
    errno.EDQUOT: "the disk quota is used up; free some space",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission is denied",
    errno.EPERM: "permission is denied",
    errno.EIO: "the disk reports an error",
    errno.EMFILE: "too many files are open; close other programs",
    errno.ENFILE: "too many files are open; close other programs",
}
"""Errors that the next photo would meet as well, with what to say."""

_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EINVAL}
"""What file systems without hard links answer."""

_LEFTOVER = re.compile(r"\.gfprestore-([0-9a-f]{8})-(\d+)-[0-9a-f]+\.part")


class TargetExistsError(PhotoError):
    """A file stands where the result should go, and it was not asked to be overwritten."""


def _host() -> str:
    return blake2b(socket.gethostname().encode("utf-8", "surrogateescape"), digest_size=4).hexdigest()


@contextmanager
def atomic_file(target: Path, *, overwrite: bool, option: str = "--output") -> Iterator[BinaryIO]:
    """Opens a hidden temporary file beside the target, which takes the target's name when the block ends well.

    Until then the target is untouched. However the block ends, Ctrl-C included, the temporary file is gone; only a
    process that is killed leaves one, which `remove_leftovers` knows by its name. The data are on the disk before the
    name changes. Missing folders are made.

    Without `overwrite` a file that appeared meanwhile is kept: the result is given its name by a hard link, which fails
    if the name is taken. Where a file system knows no links the name is looked up just before renaming, which leaves
    an instant in which another program could slip in.

    Args:
        target: The file.
        overwrite: Replace a file that exists.
        option: The option that named the folder, for messages.

    Raises:
        TargetExistsError: The target exists and `overwrite` is False.
        OutputError: The folder cannot be written, for a reason that every photo would meet.
        PhotoError: This one file cannot be written, for instance since its name is too long.
    """
    try:
        if not overwrite and os.path.lexists(target):
            raise TargetExistsError(f"{printable(target)} exists already; use --overwrite to replace it.")
        target.parent.mkdir(parents=True, exist_ok=True)
        # Its own short name: one made from the target's could grow too long.
        temporary = target.with_name(f".gfprestore-{_host()}-{os.getpid()}-{secrets.token_hex(6)}.part")
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    except OSError as error:
        raise _failure(target, error, option) from error
    try:
        with os.fdopen(descriptor, "w+b") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        _publish(temporary, target, overwrite)
    except OSError as error:
        if error.errno is None:
            raise
        raise _failure(target, error, option) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def output_file(target: Path, *, overwrite: bool = True, option: str = "--output") -> Iterator[BinaryIO]:
    """The same for a file that is a run's own and no photo's: every failure ends the run.

    Raises:
        OutputError: The file cannot be written, or exists and `overwrite` is False.
    """
    try:
        with atomic_file(target, overwrite=overwrite, option=option) as stream:
            yield stream
    except PhotoError as error:
        raise OutputError(str(error)) from error


def _publish(temporary: Path, target: Path, overwrite: bool) -> None:
    if overwrite:
        temporary.replace(target)
        return
    try:
        target.hardlink_to(temporary)
    except FileExistsError:
        raise _exists(target) from None
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(target):
            raise _exists(target) from None
        temporary.rename(target)


def _exists(target: Path) -> TargetExistsError:
    return TargetExistsError(f"{printable(target)} appeared meanwhile and was kept; use --overwrite to replace it.")


def _failure(target: Path, error: OSError, option: str) -> OutputError | PhotoError:
    advice = _RUN_ENDING.get(error.errno or 0)
    if advice is not None:
        return OutputError(
            f"{printable(target)} cannot be written since {advice}, or name another folder with {option};"
            " run again to go on, since finished photos are skipped."
        )
    if error.errno == errno.ENAMETOOLONG:
        return PhotoError(f"The name of {printable(target)} is too long to be written.")
    reason = error.strerror or type(error).__name__
    return PhotoError(f"{printable(target)} cannot be written ({reason}).")


def remove_leftovers(folder: Path) -> int:
    """Deletes from one folder, not its sub-folders, the temporary files of this machine's processes that are gone.

    A file of a process that lives, or of another machine that shares the folder, stays. Returns the number deleted.
    """
    removed = 0
    if os.name != "posix" or not folder.is_dir():  # Elsewhere a process cannot be asked for without harm.
        return removed
    with suppress(OSError), os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.name.startswith(".gfprestore-")]
        for name in names:
            found = _LEFTOVER.fullmatch(name)
            if found and found[1] == _host() and not _lives(int(found[2])):
                with suppress(OSError):
                    (folder / name).unlink()
                    removed += 1
    return removed


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
