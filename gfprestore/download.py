"""Fetch one file over HTTPS: bounded, resumed, checked against its digest, complete or absent."""

from __future__ import annotations

import hashlib
import logging
import os
import queue
import re
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPMessage, HTTPResponse
from io import BufferedRandom
from pathlib import Path
from typing import IO

import gfprestore
from gfprestore.errors import WeightsError, printable

Progress = Callable[[int, int], None]
"""Told the bytes that are here so far and the bytes in all."""

ALLOWED_SCHEMES = frozenset({"https"})

_LONGEST_REDIRECTION = 5
_READ_SECONDS = 30.0
"""Silence in the middle of a file after which the connection counts as broken."""
_TRIES = 3
"""Connections opened for one file; each goes on where the one before broke."""
_CHUNK_BYTES = 1 << 20
_FORGET_SECONDS = 60.0
"""A host that did not answer is not asked again for so long: a run without network waits for it once."""

_silent_hosts: dict[str, float] = {}


class _BrokenError(Exception):
    """A transfer broke; what arrived stays in the partial file."""


class _WrongPartError(_BrokenError):
    """The host answered a range with another one."""


class _UnreachableError(WeightsError):
    """No answer from the host."""


class _CheckedRedirects(urllib.request.HTTPRedirectHandler):
    max_redirections = _LONGEST_REDIRECTION
    max_repeats = _LONGEST_REDIRECTION

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        try:
            _check_scheme(newurl)
        except WeightsError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download(
    url: str, target: Path, *, size: int, sha256: str, patience_seconds: float, progress: Progress | None = None
) -> None:
    """Fetches a file of known size and digest.

    The bytes gather in `<target>.part`, which a later call continues; it becomes `target` only when size and digest
    agree. A second process that fetches the same file waits for the first and then finds it done.

    Args:
        url: HTTPS address; redirections must stay on HTTPS.
        target: Where the file goes; its folder is made.
        size: Its bytes; not one more is accepted.
        sha256: Its digest.
        patience_seconds: How long to wait for the host's first answer, name look-up and redirections included.
        progress: Called after each part.

    Raises:
        WeightsError: The host does not answer, the answer is not the file, or it cannot be written.
    """
    _check_scheme(url)
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(part) as stream:
            if target.exists() and target.stat().st_size == size:
                stream.truncate(0)
                return
            _gather(url, stream, size=size, sha256=sha256, patience_seconds=patience_seconds, progress=progress)
            if sys.platform == "win32":
                stream.close()  # An open file cannot be renamed there.
            part.replace(target)
    except OSError as error:
        raise WeightsError(
            f"{printable(target)} cannot be written ({error.strerror or error}): "
            "make room, or set XDG_CACHE_HOME to another folder."
        ) from error


def _check_scheme(url: str) -> None:
    if urllib.parse.urlsplit(url).scheme not in ALLOWED_SCHEMES:
        raise WeightsError(f"{url} is not an HTTPS address; nothing is fetched from it.")


def _gather(
    url: str, stream: BufferedRandom, *, size: int, sha256: str, patience_seconds: float, progress: Progress | None
) -> None:
    """Fills the partial file until it is whole and right; a leftover that proves wrong is thrown away once."""
    resumed = 0 < stream.seek(0, 2) <= size
    if not resumed:
        stream.truncate(0)
    for attempt in range(_TRIES):
        try:
            _append(url, stream, size, patience_seconds, progress)
        except _BrokenError as error:
            if isinstance(error, _WrongPartError):
                stream.truncate(0)
            if attempt == _TRIES - 1:
                raise WeightsError(f"{url} broke off ({error}): run the command again to go on from there.") from error
            continue
        found = _digest(stream)
        if found == sha256:
            stream.flush()
            return
        stream.truncate(0)
        if not resumed:
            raise WeightsError(f"{url} gave a file with SHA-256 {found} where {sha256} is right; it is thrown away.")
        resumed = False
    raise WeightsError(f"{url} gave no file with SHA-256 {sha256} in {_TRIES} tries.")


def _append(url: str, stream: BufferedRandom, size: int, patience_seconds: float, progress: Progress | None) -> None:
    """Continues the partial file up to `size` bytes."""
    here = stream.seek(0, 2)
    if here == size:
        return
    headers = {"User-Agent": f"gfprestore/{gfprestore.__version__}", "Accept-Encoding": "identity"}
    if here:
        headers["Range"] = f"bytes={here}-"
    with _answer(urllib.request.Request(url, headers=headers), patience_seconds) as response:
        here = _starting_point(response, here, size)
        stream.truncate(here)
        stream.seek(here)
        while chunk := _read(response):
            here += len(chunk)
            if here > size:
                stream.truncate(0)
                raise WeightsError(f"{url} gives more than the {size} bytes that it should: it is refused.")
            stream.write(chunk)
            if progress is not None:
                progress(here, size)
    stream.flush()
    if here < size:
        raise _BrokenError(f"{here} of {size} bytes arrived")


def _starting_point(response: HTTPResponse, here: int, size: int) -> int:
    """The byte that the answer begins with: where the partial file ends, or 0 if the host knows no ranges."""
    if response.status == 206:
        given = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if given is None or int(given[1]) != here or given[2] not in ("*", str(size)):
            # Whole and from the start next time, for this host's ranges cannot be relied on.
            raise _WrongPartError(f"{response.url} answers with another part than the one asked for")
        return here
    length = response.headers.get("Content-Length")
    if response.status != 200 or (length is not None and length != str(size)):
        raise WeightsError(f"{response.url} is not the file: it says {length} bytes where {size} are right.")
    return 0


def _read(response: HTTPResponse) -> bytes:
    try:
        return response.read(_CHUNK_BYTES)
    except (OSError, HTTPException) as error:
        raise _BrokenError(str(error) or type(error).__name__) from error


def _answer(request: urllib.request.Request, patience_seconds: float) -> HTTPResponse:
    """Opens a request, waiting no longer than told for name look-up, connection, redirections and headers together.

    A socket's timeout covers none of the look-up and each of the others anew, so a thread does the opening; one that
    comes too late closes what it opened.
    """
    host = urllib.parse.urlsplit(request.full_url).netloc
    if time.monotonic() - _silent_hosts.get(host, -_FORGET_SECONDS) < _FORGET_SECONDS:
        raise _UnreachableError(f"{host} did not answer before in this run.")
    answers: queue.SimpleQueue[HTTPResponse | BaseException] = queue.SimpleQueue()
    too_late = threading.Event()

    def open_request() -> None:
        opener = urllib.request.build_opener(_CheckedRedirects)
        try:
            response = opener.open(request, timeout=_READ_SECONDS)
        except (OSError, HTTPException, WeightsError) as error:
            answers.put(error)
            return
        answers.put(response)
        if too_late.is_set():
            response.close()

    threading.Thread(target=open_request, name="gfprestore-connect", daemon=True).start()
    try:
        answer = answers.get(timeout=patience_seconds)
    except queue.Empty:
        too_late.set()
        answer = TimeoutError(f"no answer in {patience_seconds:g} s")
    if isinstance(answer, BaseException):
        raise _as_weights_error(answer, request.full_url, host)
    return answer


def _as_weights_error(error: BaseException, url: str, host: str) -> WeightsError:
    if isinstance(error, WeightsError):
        return error
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        return WeightsError(f"{url} answers {error.code} {error.reason}.")
    _silent_hosts[host] = time.monotonic()
    reason = getattr(error, "reason", None) or error
    return _UnreachableError(f"{host} cannot be reached ({reason}).")


def _digest(stream: BufferedRandom) -> str:
    stream.flush()
    stream.seek(0)
    return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def _locked(part: Path) -> Iterator[BufferedRandom]:
    """Opens the partial file for this process alone; the lock goes with the process, however it ends."""
    while True:
        part.touch()
        try:
            stream = part.open("r+b")
        except FileNotFoundError:
            continue
        with stream:
            _lock(stream, part)
            # The process that held the lock may have renamed the file meanwhile: then this is no longer `part`.
            if not _is_same_file(stream, part):
                continue
            try:
                yield stream
            finally:
                if sys.platform != "win32" and _is_same_file(stream, part) and stream.seek(0, 2) == 0:
                    part.unlink()
            return


def _is_same_file(stream: BufferedRandom, path: Path) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(stream.fileno()))
    except FileNotFoundError:
        return False


def _lock(stream: BufferedRandom, part: Path) -> None:
    told = False
    while not _try_lock(stream):
        if not told:
            logging.getLogger("gfprestore").warning("Another process is fetching %s: waiting for it.", part.stem)
            told = True
        time.sleep(0.2)


if sys.platform == "win32":
    import msvcrt

    _LOCKED_BYTE = 1 << 40
    """Locked bytes cannot be written by others, so the one that stands for the lock lies beyond any file."""

    def _try_lock(stream: BufferedRandom) -> bool:
        stream.seek(_LOCKED_BYTE)
        try:
            msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _try_lock(stream: BufferedRandom) -> bool:
        try:
            fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
