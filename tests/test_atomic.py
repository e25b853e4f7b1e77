"""A file is complete or absent, whatever happens while it is written."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gfprestore import atomic
from gfprestore.atomic import TargetExistsError, atomic_file, output_file, remove_leftovers
from gfprestore.errors import OutputError, PhotoError


def write(target: Path, data: bytes, *, overwrite: bool = False) -> None:
    with atomic_file(target, overwrite=overwrite) as stream:
        stream.write(data)


def test_the_target_appears_at_the_end_only(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "a.jpg"
    with atomic_file(target, overwrite=False) as stream:
        stream.write(b"half")
        stream.flush()
        assert not target.exists()
        assert [path.name.startswith(".") for path in target.parent.iterdir()] == [True]
    assert target.read_bytes() == b"half"
    assert list(target.parent.iterdir()) == [target]


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write(tmp_path / "a", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError, MemoryError, PhotoError])
@pytest.mark.parametrize("existing", [None, b"old"])
def test_a_failure_leaves_things_as_they_were(
    error: type[BaseException], existing: bytes | None, tmp_path: Path
) -> None:
    target = tmp_path / "a"
    if existing is not None:
        target.write_bytes(existing)
    with pytest.raises(error), atomic_file(target, overwrite=True) as stream:
        stream.write(b"half")
        raise error
    assert [path.read_bytes() for path in tmp_path.iterdir()] == ([existing] if existing else [])


def test_an_existing_target_is_kept_unless_asked(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_bytes(b"old")
    with pytest.raises(TargetExistsError, match="--overwrite"):
        write(target, b"new")
    assert target.read_bytes() == b"old"
    write(target, b"new", overwrite=True)
    assert target.read_bytes() == b"new"


def refuse_links(self: Path, target: Path) -> None:
    raise OSError(errno.EPERM, "no links here")


@pytest.mark.parametrize("has_links", [True, False])
def test_a_target_that_appears_meanwhile_is_kept(
    has_links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_links:
        monkeypatch.setattr(Path, "hardlink_to", refuse_links)
    target = tmp_path / "a"
    with pytest.raises(TargetExistsError, match="appeared meanwhile"), atomic_file(target, overwrite=False) as stream:
        stream.write(b"ours")
        target.write_bytes(b"theirs")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"theirs"]


def test_file_systems_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "hardlink_to", refuse_links)
    write(tmp_path / "a", b"data")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"data"]


def test_of_many_writers_one_wins(tmp_path: Path) -> None:
    target = tmp_path / "a"
    meeting = threading.Barrier(6)
    lost: list[int] = []

    def run(number: int) -> None:
        try:
            with atomic_file(target, overwrite=False) as stream:
                stream.write(bytes([number]) * 1000)
                meeting.wait()
        except TargetExistsError:
            lost.append(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = set(range(6)) - set(lost)
    assert target.read_bytes() == bytes([winner]) * 1000
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, OutputError),
        (errno.EDQUOT, OutputError),
        (errno.EROFS, OutputError),
        (errno.EACCES, OutputError),
        (errno.EIO, OutputError),
        (errno.ENAMETOOLONG, PhotoError),
        (errno.EINVAL, PhotoError),
    ],
)
@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
def test_errors_of_the_disk(
    number: int, kind: type[Exception], call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(Path if call == "replace" else os, call, fail)
        with pytest.raises(kind) as caught:
            write(tmp_path / "two\nlines.jpg", b"data", overwrite=True)
    assert str(caught.value).isprintable()
    assert str(caught.value).endswith(".")
    assert list(tmp_path.iterdir()) == []
    if number == errno.ENOSPC:
        assert "the disk is full" in str(caught.value)
        assert "--output" in str(caught.value)


def test_names_at_and_over_the_limit(tmp_path: Path) -> None:
    write(tmp_path / ("x" * 255), b"data")
    with pytest.raises(PhotoError, match="too long"):
        write(tmp_path / ("x" * 256), b"data")
    assert len(list(tmp_path.iterdir())) == 1


def test_failure_of_a_runs_own_file_ends_the_run(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    for target in (tmp_path / (300 * "n"), tmp_path / "taken"):
        with pytest.raises(OutputError, match=target.name), output_file(target) as stream:
            stream.write(b"x")
    with output_file(tmp_path / "a") as stream:
        stream.write(b"x")
    assert (tmp_path / "a").read_bytes() == b"x"


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(PhotoError, match=r"cannot be written"):
        write(tmp_path / "a" / "b.jpg", b"data")


KILLED = """
import os, sys
from pathlib import Path
from gfprestore.atomic import atomic_file
with atomic_file(Path(sys.argv[1]), overwrite=False) as stream:
    stream.write(b"half")
    stream.flush()
    os.kill(os.getpid(), 9)
"""


def test_leftovers_of_the_killed_go_and_those_of_the_living_stay(tmp_path: Path) -> None:
    project = Path(atomic.__file__).parent.parent
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "a")], cwd=project, check=False)
    assert killed.returncode == -9
    assert len(list(tmp_path.iterdir())) == 1, "what a killed process leaves"
    other = tmp_path / ".gfprestore-00000000-999999999-abc.part"
    other.write_bytes(b"another machine's")
    mine = tmp_path / ".gfprestore-notes"
    mine.write_bytes(b"a name that only begins alike")
    with atomic_file(tmp_path / "b", overwrite=False) as stream:
        stream.write(b"whole")
        assert remove_leftovers(tmp_path) == 1
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "b", other, mine])
    assert remove_leftovers(tmp_path / "none") == 0
