"""The folder of compiled models, each with the digest of its bytes beside it.

OpenVINO notices a truncated model but runs one with wrong bytes in its middle, and gives wrong pixels.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

MOST_CACHED = 8
"""Compiled models kept on disk; a full-width one takes 350 MB."""

_checked: set[tuple[Path, int, int]] = set()


def open_cache(folder: Path) -> set[Path]:
    """Make the folder ready: drop the damaged models.

    Returns:
        The models that are left.

    Raises:
        OSError: The folder cannot be made or changed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    whole = {blob for blob in folder.glob("*.blob") if _is_whole(blob)}
    _drop_all_but(whole, folder)
    return whole


def seal_new(folder: Path, known: set[Path]) -> None:
    """Write the digests of models that came since `open_cache`, and drop the oldest where they are too many.

    Only then: a run that finds its models here must not push one out that it will want next.

    Args:
        folder: Of the models.
        known: What `open_cache` returned.

    Raises:
        OSError: A file cannot be read or written.
    """
    blobs = set(folder.glob("*.blob"))
    for blob in blobs - known:
        blob.with_suffix(".sha256").write_text(_digest(blob), encoding="ascii")
        _checked.add(_state(blob))
    if blobs - known and len(blobs) > MOST_CACHED:
        _drop_all_but(set(sorted(blobs, key=lambda blob: blob.stat().st_mtime, reverse=True)[:MOST_CACHED]), folder)


def _drop_all_but(kept: set[Path], folder: Path) -> None:
    for file in folder.iterdir():
        if file.suffix in (".blob", ".sha256") and file.with_suffix(".blob") not in kept:
            with suppress(PermissionError):  # another run has it open, on a system that then keeps it
                file.unlink(missing_ok=True)


def _is_whole(blob: Path) -> bool:
    """Whether a model has the bytes that it had when it was new; looked at once per process."""
    try:
        state = _state(blob)
        if state not in _checked:
            if blob.with_suffix(".sha256").read_text(encoding="ascii", errors="replace") != _digest(blob):
                return False
            _checked.add(state)
    except FileNotFoundError:  # no digest: it was never finished; or another run has just dropped it
        return False
    return True


def _state(blob: Path) -> tuple[Path, int, int]:
    status = blob.stat()
    return blob, status.st_mtime_ns, status.st_size


def _digest(blob: Path) -> str:
    with blob.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
