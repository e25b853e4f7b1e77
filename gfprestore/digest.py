"""SHA-256 of weights files, each hashed once, and the user's cache folder that remembers it."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from gfprestore.errors import WeightsError, printable

_SETTLED_SECONDS = 2.0
"""A file changed more recently than this may change again within the same tick of its time stamp."""

_RECORD = "digests.json"

_ABANDONED_SECONDS = 3600.0
"""Nothing in the cache is written for so long."""


def user_cache_folder() -> Path:
    """Folder that gfprestore keeps between runs: fetched weights, converted weights, digests.

    `$XDG_CACHE_HOME/gfprestore` where that variable is set, else the platform's own place. It need not exist.

    Raises:
        WeightsError: The user has no home folder.
    """
    named = os.environ.get("XDG_CACHE_HOME")
    if named and Path(named).is_absolute():
        return Path(named) / "gfprestore"
    try:
        home = Path.home()
    except RuntimeError as error:
        raise WeightsError("There is no home folder to keep weights in: set XDG_CACHE_HOME to a folder.") from error
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return (Path(local) if local else home / "AppData" / "Local") / "gfprestore" / "Cache"
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "gfprestore"
    return home / ".cache" / "gfprestore"


def weights_digest(path: Path, *, trust_record: bool = True) -> str:
    """SHA-256 of a file as 64 hexadecimal digits.

    A 350 MB file is hashed once: the digest is kept in the user's cache with the file's path, size, time of change in
    nanoseconds and inode, and holds while these do. Damage in transfer, truncation and replacement all change them.
    Somebody who sets them back by hand can write as this user, and so could change the record, or this program, just
    as well: hashing each time would not stop them.

    Args:
        path: The file.
        trust_record: Whether an earlier digest may be taken; otherwise the file is read again.

    Raises:
        WeightsError: The file cannot be read.
    """
    try:
        path = path.resolve()
        before = _state(path)
        record = _read_record()
        known = record.get(str(path))
        if trust_record and known is not None and known[:-1] == before:
            return str(known[-1])
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        after = _state(path)
    except OSError as error:
        raise WeightsError(f"The weights {printable(path)} cannot be read: {error.strerror}.") from error
    if before == after and time.time() - before[1] / 1e9 > _SETTLED_SECONDS:
        _write_record(record | {str(path): [*after, digest]})
    return digest


def sweep_parts(folder: Path, pattern: str) -> None:
    """Deletes files of a cache folder that processes were writing when they were killed.

    Args:
        folder: The folder.
        pattern: Their names; younger ones than an hour stay, since a process may be writing them.
    """
    for part in folder.glob(pattern):
        with suppress(OSError):
            if time.time() - part.stat().st_mtime > _ABANDONED_SECONDS:
                part.unlink()


def _state(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def _read_record() -> dict[str, list[int | str]]:
    try:
        record = json.loads((user_cache_folder() / _RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError, WeightsError):
        return {}
    if not isinstance(record, dict):
        return {}
    return {path: state for path, state in record.items() if isinstance(state, list) and len(state) == 4}


def _write_record(record: dict[str, list[int | str]]) -> None:
    """Replaces the record whole; two runs at once lose at most a line, which is hashed again."""
    existing = {path: state for path, state in record.items() if Path(path).exists()}
    try:
        folder = user_cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        sweep_parts(folder, f"{_RECORD}-*.part")
        with tempfile.NamedTemporaryFile(
            "w", dir=folder, prefix=f"{_RECORD}-", suffix=".part", delete=False, encoding="utf-8"
        ) as stream:
            json.dump(existing, stream, indent=0)
        Path(stream.name).replace(folder / _RECORD)
    except (OSError, WeightsError, UnicodeEncodeError):
        # The record only saves time: a cache that cannot be written costs a hash at each start.
        return
