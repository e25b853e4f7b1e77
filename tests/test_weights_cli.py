"""`gfprestore-weights`: every command, its exit codes, stdout and stderr apart."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import click
import pytest
from file_server import FileServer, serve

from gfprestore import download, manifest, weights_cli
from gfprestore.manifest import MANIFEST
from gfprestore.weights import shipped_folder

CONTENT = b"weights" * 1000
COMPACT = "gfprestore_compact_fp16.safetensors"


@dataclass
class Ended:
    status: object
    stdout: str
    stderr: str


class Command:
    """Runs the command in this process, as its console script does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch = monkeypatch
        self.capsys = capsys

    def __call__(self, *arguments: str) -> Ended:
        self.monkeypatch.setattr(sys, "argv", ["gfprestore-weights", *arguments])
        with pytest.raises(SystemExit) as stopped:
            weights_cli.run()
        return Ended(stopped.value.code, *self.capsys.readouterr())


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("GFPRESTORE_WEIGHTS", raising=False)
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return Command(monkeypatch, capsys)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """Serves a 1.4 of a few bytes."""
    with serve(CONTENT) as state:
        small = {"bytes": len(CONTENT), "sha256": hashlib.sha256(CONTENT).hexdigest(), "url": state.url}
        entries = tuple(replace(entry, **small) if entry.name == "1.4" else entry for entry in MANIFEST)  # type: ignore[arg-type]
        monkeypatch.setattr(manifest, "MANIFEST", entries)
        monkeypatch.setattr(download, "ALLOWED_SCHEMES", frozenset({"http"}))
        monkeypatch.setattr(download, "_silent_hosts", {})
        yield state


def test_list_has_one_line_per_file(command: Command) -> None:
    ended = command("list")
    rows = [line.split("\t") for line in ended.stdout.splitlines()]
    assert [row[0] for row in rows] == [entry.name for entry in MANIFEST]
    compact = next(row for row in rows if row[0] == "compact")
    assert compact[1:5] == [
        "face",
        str((shipped_folder() / COMPACT).stat().st_size),
        "here",
        str(shipped_folder() / COMPACT),
    ]
    assert rows[0][3:5] == ["absent", ""]
    assert (ended.status, ended.stderr) == (0, "")


def test_list_shows_damaged_files(command: Command, tmp_path: Path) -> None:
    (tmp_path / "GFPGANv1.4.pth").write_bytes(b"short")
    ended = command("list", "--weights", str(tmp_path))
    assert f"1.4\tface\t348632874\tdamaged\t{tmp_path / 'GFPGANv1.4.pth'}" in ended.stdout


def test_list_is_a_table_on_a_terminal(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    ended = command("list")
    assert click.unstyle(ended.stdout.splitlines()[0]).split() == ["name", "what", "MB", "state", "licence"]
    assert all(entry.note in ended.stdout for entry in MANIFEST)
    assert "\t" not in ended.stdout


def test_fetch_prints_the_path(command: Command, server: FileServer, tmp_path: Path) -> None:
    ended = command("fetch", "1.4")
    path = tmp_path / "cache" / "gfprestore" / "GFPGANv1.4.pth"
    assert (ended.status, ended.stdout, ended.stderr) == (0, f"{path}\n", "")
    assert path.read_bytes() == CONTENT


def test_fetch_into_a_folder(command: Command, server: FileServer, tmp_path: Path) -> None:
    ended = command("fetch", "GFPGANv1.4.pth", "--into", str(tmp_path / "mine"))
    assert ended.status == 0
    assert (tmp_path / "mine" / "GFPGANv1.4.pth").read_bytes() == CONTENT
    assert not (tmp_path / "cache" / "gfprestore" / "GFPGANv1.4.pth").exists()


def test_fetch_draws_a_bar_on_a_terminal(command: Command, server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    ended = command("fetch", "1.4")
    assert "Fetching GFPGANv1.4.pth" in ended.stderr
    assert ended.stdout.count("\n") == 1


def test_fetch_that_fails_is_status_five(command: Command, server: FileServer, tmp_path: Path) -> None:
    server.status = 404
    ended = command("fetch", "1.4")
    assert (ended.status, ended.stdout) == (5, "")
    assert ended.stderr.startswith("gfprestore-weights: error: The weights 1.4 cannot be fetched")
    assert server.url in ended.stderr
    assert str(tmp_path / "cache" / "gfprestore") in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_unknown_name_fetches_nothing(command: Command, server: FileServer) -> None:
    ended = command("fetch", "1.4", "1.5")
    assert ended.status == 5
    assert "'1.5'" in ended.stderr
    assert server.ranges == []


def test_verify_reads_every_copy(command: Command, server: FileServer, tmp_path: Path) -> None:
    for folder, content in (("weights", CONTENT), ("option", b"W" + CONTENT[1:])):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "GFPGANv1.4.pth").write_bytes(content)
    command.monkeypatch.chdir(tmp_path)
    ended = command("verify", "--weights", str(tmp_path / "option"))
    lines = ended.stdout.splitlines()
    assert ended.status == 5
    assert lines[0].startswith(f"damaged  {tmp_path / 'option' / 'GFPGANv1.4.pth'} has SHA-256")
    assert lines[1] == f"right    {Path('weights') / 'GFPGANv1.4.pth'}"
    assert f"right    {shipped_folder() / COMPACT}" in lines


def test_verify_of_what_ships_is_right(command: Command) -> None:
    ended = command("verify", "compact")
    assert (ended.status, ended.stdout) == (0, f"right    {shipped_folder() / COMPACT}\n")


def test_verify_of_an_absent_file_is_status_five(command: Command) -> None:
    ended = command("verify", "1.3")
    assert (ended.status, ended.stdout) == (5, "missing  GFPGANv1.3.pth\n")


def test_path_of_a_file_and_of_the_cache(command: Command, tmp_path: Path) -> None:
    assert command("path", "compact").stdout == f"{shipped_folder() / COMPACT}\n"
    assert command("path").stdout == f"{tmp_path / 'cache' / 'gfprestore'}\n"


def test_path_of_an_absent_file_is_status_five(command: Command) -> None:
    ended = command("path", "1.3")
    assert (ended.status, ended.stdout) == (5, "")
    assert "`gfprestore-weights fetch 1.3`" in ended.stderr


@pytest.mark.parametrize(
    "arguments", [["fetch"], ["nonsense"], ["list", "--weights", "/no/such"], ["path", "--weights", "."], ["list", "x"]]
)
def test_wrong_usage_is_status_two(command: Command, arguments: list[str]) -> None:
    ended = command(*arguments)
    assert (ended.status, ended.stdout) == (2, "")
    assert ended.stderr


def test_every_command_has_help(command: Command) -> None:
    assert isinstance(weights_cli.main, click.Group)
    for name in weights_cli.main.commands:
        ended = command(name, "-h")
        assert ended.status == 0
        assert f"Usage: gfprestore-weights {name}" in ended.stdout
    assert command("--version").stdout.startswith("gfprestore-weights ")


def test_list_imports_nothing_heavy(tmp_path: Path) -> None:
    program = (
        "import sys; sys.argv = ['gfprestore-weights', 'list']\n"
        "from gfprestore.weights_cli import run\n"
        "try: run()\n"
        "finally: print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert not {"torch", "numpy", "cv2", "PIL", "rich", "tqdm", "safetensors"} & set(ended.stderr.split())
