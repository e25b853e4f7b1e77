"""Downloads from a server on this machine that also breaks off, lies, redirects and keeps silent."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from file_server import FileServer, serve

from gfprestore import download as module
from gfprestore.download import download
from gfprestore.errors import WeightsError

CONTENT = np.random.default_rng(0).bytes(3_000_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setattr(module, "ALLOWED_SCHEMES", frozenset({"http"}))
    monkeypatch.setattr(module, "_silent_hosts", {})
    with serve(CONTENT) as state:
        yield state


def fetch(server: FileServer, target: Path, **changes: object) -> None:
    settings = {"size": len(CONTENT), "sha256": DIGEST, "patience_seconds": 10.0} | changes
    download(server.url, target, **settings)  # type: ignore[arg-type]


def test_whole_file_arrives_and_nothing_else_is_left(server: FileServer, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    fetch(server, tmp_path / "new" / "file.pth", progress=lambda here, total: seen.append((here, total)))
    assert (tmp_path / "new" / "file.pth").read_bytes() == CONTENT
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file.pth"]
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [here for here, _ in seen] == sorted({here for here, _ in seen})
    assert server.ranges == [None]


def test_broken_transfer_goes_on_where_it_broke(server: FileServer, tmp_path: Path) -> None:
    server.breaks_after = [1_500_000, 700_000]
    fetch(server, tmp_path / "file.pth")
    assert (tmp_path / "file.pth").read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=1500000-", "bytes=2200000-"]


def test_run_after_a_broken_run_goes_on(server: FileServer, tmp_path: Path) -> None:
    server.breaks_after = [1000, 1000, 1000]
    with pytest.raises(WeightsError, match=r"broke off .3000 of 3000000 bytes arrived.*again"):
        fetch(server, tmp_path / "file.pth")
    assert [path.name for path in tmp_path.iterdir()] == ["file.pth.part"]
    fetch(server, tmp_path / "file.pth")
    assert server.ranges[-1] == "bytes=3000-"
    assert (tmp_path / "file.pth").read_bytes() == CONTENT


def test_host_without_ranges_starts_over(server: FileServer, tmp_path: Path) -> None:
    server.knows_ranges = False
    (tmp_path / "file.pth.part").write_bytes(CONTENT[:5000])
    fetch(server, tmp_path / "file.pth")
    assert (tmp_path / "file.pth").read_bytes() == CONTENT


def test_host_that_answers_another_part_is_asked_from_the_start(server: FileServer, tmp_path: Path) -> None:
    server.wrong_part = True
    (tmp_path / "file.pth.part").write_bytes(CONTENT[:5000])
    fetch(server, tmp_path / "file.pth")
    assert server.ranges == ["bytes=5000-", None]
    assert (tmp_path / "file.pth").read_bytes() == CONTENT


@pytest.mark.parametrize("leftover", [b"\0" * 5000, b"\0" * len(CONTENT), b"\0" * (len(CONTENT) + 1)])
def test_leftover_of_something_else_is_thrown_away(server: FileServer, tmp_path: Path, leftover: bytes) -> None:
    (tmp_path / "file.pth.part").write_bytes(leftover)
    fetch(server, tmp_path / "file.pth")
    assert (tmp_path / "file.pth").read_bytes() == CONTENT


def test_whole_leftover_needs_no_connection(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file.pth.part").write_bytes(CONTENT)
    fetch(server, tmp_path / "file.pth")
    assert server.ranges == []
    assert (tmp_path / "file.pth").read_bytes() == CONTENT


def test_wrong_digest_is_refused_and_leaves_nothing(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=f"SHA-256 {DIGEST} where {'0' * 64} is right"):
        fetch(server, tmp_path / "file.pth", sha256="0" * 64)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [len(CONTENT) - 1, len(CONTENT) + 1, 10])
def test_other_length_is_refused_before_the_body(server: FileServer, tmp_path: Path, size: int) -> None:
    with pytest.raises(WeightsError, match="says 3000000 bytes"):
        fetch(server, tmp_path / "file.pth", size=size)
    assert list(tmp_path.iterdir()) == []


def test_body_without_end_is_cut_at_the_known_size(server: FileServer, tmp_path: Path) -> None:
    server.endless = True
    with pytest.raises(WeightsError, match="more than the 2000000 bytes"):
        fetch(server, tmp_path / "file.pth", size=2_000_000)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/x", "file:///etc/hostname", "ftp://127.0.0.1/x", "data:,x"])
def test_only_https_is_spoken(tmp_path: Path, url: str) -> None:
    with pytest.raises(WeightsError, match="not an HTTPS address"):
        download(url, tmp_path / "x", size=1, sha256=DIGEST, patience_seconds=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("to", ["https://127.0.0.1:1/x", "ftp://127.0.0.1/x", "file:///etc/hostname"])
def test_redirect_to_another_scheme_is_refused(server: FileServer, tmp_path: Path, to: str) -> None:
    server.redirects_to = to
    with pytest.raises(WeightsError, match=r"not an HTTPS address|not allowed|cannot be reached \(.*redirect"):
        fetch(server, tmp_path / "file.pth")
    assert list(tmp_path.iterdir()) == []


def test_redirects_are_bounded(server: FileServer, tmp_path: Path) -> None:
    server.redirects_to = server.url
    with pytest.raises(WeightsError, match="302"):
        fetch(server, tmp_path / "file.pth")
    assert len(server.ranges) <= 6


def test_redirect_is_followed_with_its_range(server: FileServer, tmp_path: Path) -> None:
    with serve(b"") as first:
        first.redirects_to = server.url
        (tmp_path / "file.pth.part").write_bytes(CONTENT[:1234])
        fetch(first, tmp_path / "file.pth")
    assert server.ranges == ["bytes=1234-"]
    assert (tmp_path / "file.pth").read_bytes() == CONTENT


@pytest.mark.parametrize("status", [403, 404, 416, 503])
def test_error_status_is_told(server: FileServer, tmp_path: Path, status: int) -> None:
    server.status = status
    with pytest.raises(WeightsError, match=f"answers {status}"):
        fetch(server, tmp_path / "file.pth")
    assert list(tmp_path.iterdir()) == []


def test_silent_host_is_waited_for_once(server: FileServer, tmp_path: Path) -> None:
    server.silent = threading.Event()
    with pytest.raises(WeightsError, match=r"no answer in 0\.2 s"):
        fetch(server, tmp_path / "a.pth", patience_seconds=0.2)
    with pytest.raises(WeightsError, match="did not answer before"):
        fetch(server, tmp_path / "b.pth", patience_seconds=3600.0)
    assert list(tmp_path.iterdir()) == []


def test_silent_host_is_forgiven_after_a_while(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = server.url.split("/")[2]
    monkeypatch.setattr(module, "_silent_hosts", {host: time.monotonic() - 61})
    fetch(server, tmp_path / "file.pth")
    assert (tmp_path / "file.pth").exists()


def test_refused_connection_is_told(server: FileServer, tmp_path: Path) -> None:
    gone = FileServer(b"", url="http://127.0.0.1:1/file.pth")
    with pytest.raises(WeightsError, match=r"127\.0\.0\.1:1 cannot be reached"):
        fetch(gone, tmp_path / "file.pth")


def test_folder_that_cannot_be_made_is_told(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(WeightsError, match="XDG_CACHE_HOME"):
        fetch(server, tmp_path / "file" / "file.pth")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_full_disk_is_told(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_to_full_disk(_url: str, _stream: object, *_: object) -> None:
        with Path("/dev/full").open("wb") as full:
            full.write(b"x")

    monkeypatch.setattr(module, "_append", write_to_full_disk)
    with pytest.raises(WeightsError, match=r"No space left.*make room"):
        fetch(server, tmp_path / "file.pth")


def test_two_at_once_fetch_once(server: FileServer, tmp_path: Path) -> None:
    target = tmp_path / "file.pth"
    server.silent = threading.Event()
    threads = [threading.Thread(target=fetch, args=(server, target)) for _ in range(3)]
    for thread in threads:
        thread.start()
    server.silent.set()
    for thread in threads:
        thread.join()
    assert target.read_bytes() == CONTENT
    assert len(server.ranges) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file.pth"]


HOLDER = """
import pathlib, sys
from gfprestore.download import _locked
with _locked(pathlib.Path(sys.argv[1])) as stream:
    stream.write(b"x" * 10)
    stream.flush()
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_waits_for_another_process_and_goes_on_from_what_it_left(
    server: FileServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    program = HOLDER.replace('b"x" * 10', f"bytes.fromhex('{CONTENT[:10].hex()}')")
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "file.pth.part")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == b"held"
        thread = threading.Thread(target=fetch, args=(server, tmp_path / "file.pth"))
        thread.start()
        while "waiting for it" not in caplog.text:
            time.sleep(0.01)
        holder.kill()
        thread.join()
    assert server.ranges == ["bytes=10-"]
    assert (tmp_path / "file.pth").read_bytes() == CONTENT
