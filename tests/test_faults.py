"""Whatever happens: sources untouched, outputs complete or absent, everything accounted for, the next run finishes."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PROJECT = Path(__file__).resolve().parent.parent
EXAMPLES = PROJECT / "examples" / "album"

# Starts the command for a list of arguments, and waits for the process of a number, without importing everything anew.
# Stand-ins for the networks take no time, so that a kill lands anywhere in reading, pasting and writing.
PROGRAM = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from fakes import fake_models
from gfprestore import run as run_module
from gfprestore.cli import run
if sys.argv[2] == "fake":
    run_module.load_models = lambda *_: fake_models(lambda crop: crop // 2)
for line in sys.stdin:
    asked = json.loads(line)
    if isinstance(asked, int):
        print(os.waitstatus_to_exitcode(os.waitpid(asked, 0)[1]), flush=True)
        continue
    process = os.fork()
    if process == 0:
        sys.argv = ["gfprestore", *asked]
        run()
    print(process, flush=True)
"""


class Runs:
    """Runs of the command, each in a process of its own."""

    def __init__(self, starter: subprocess.Popen[str], log: Path) -> None:
        assert starter.stdin is not None
        assert starter.stdout is not None
        self._in, self._out, self._log = starter.stdin, starter.stdout, log

    def _ask(self, what: object) -> int:
        self._in.write(json.dumps(what) + "\n")
        self._in.flush()
        return int(self._out.readline())

    def start(self, *arguments: object) -> int:
        """Number of the new process."""
        return self._ask([str(argument) for argument in arguments])

    def wait(self, process: int) -> int:
        """Exit status; that of a process ended by a signal is the signal's number, negative."""
        return self._ask(process)

    def run(self, *arguments: object, code: int = 0) -> None:
        """Runs to the end, which has to be the given one."""
        ended = self.wait(self.start(*arguments))
        assert ended == code, self._log.read_text(errors="replace")[-3000:]


@contextmanager
def runs_with(models: str, log: Path) -> Iterator[Runs]:
    """Starts runs that write to one log what they say."""
    with (
        log.open("ab") as stderr,
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(PROJECT / "tests"), models],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            cwd=PROJECT,
        ) as starter,
    ):
        yield Runs(starter, log)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """With stand-ins for the networks."""
    with runs_with("fake", tmp_path_factory.mktemp("log") / "log") as made:
        yield made


def make_album(folder: Path, photos: int) -> None:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(photos):
        pixels = rng.integers(0, 256, (120, 160, 3), dtype=np.uint8)
        pixels[0, 0, 0] = index % 8 == 0  # faces that the stand-in finds: each takes a while to blend
        Image.fromarray(pixels).save(folder / f"{index:03d}.png")


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def start(album: Path, out: Path, *more: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(PROJECT / "tests"), str(album), "-o", str(out), *map(str, more)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=PROJECT,
    )


def make_small_album(folder: Path) -> None:
    """Photos with faces that the shipped networks find, small enough to be quick."""
    folder.mkdir()
    for path in sorted(EXAMPLES.rglob("*.jpg")):
        with Image.open(path) as photo:
            photo.reduce(max(1, max(photo.size) // 250)).save(folder / f"{path.stem}.png")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def wait_for_files(folder: Path, before: set[str], process: int) -> None:
    """Waits until something is written into a folder, or the process has ended."""
    while names(folder) <= before and "Z (zombie)" not in Path(f"/proc/{process}/status").read_text():
        time.sleep(0.001)


def check_kills(runs: Runs, kills: int, album: Path, scratch: Path, *options: object) -> None:
    """Kills run after run at a random moment; then one more gives what an undisturbed run gives."""
    out, calm = scratch / "out", scratch / "calm"
    sources = digests(album)
    chance = random.Random(1)
    took = 0.0
    for _ in range(2):  # The second finds compiled networks in the cache, as those that are killed do.
        began = time.monotonic()
        runs.run(album, "-o", calm, "--overwrite", *options)
        took = time.monotonic() - began
    expected = digests(calm)
    written = sorted(path.stat().st_mtime for path in calm.iterdir())
    ends: list[int] = []
    while ends.count(-signal.SIGKILL) < kills:
        assert len(ends) < 4 * kills, "too few meet a run at work"
        before = names(out)
        process = runs.start(album, "-o", out, *options)
        if len(ends) % 5 == 0:
            time.sleep(chance.uniform(0, took))
        else:
            # Most of them once it writes: at what moment it begins to depends on what else the machine does.
            wait_for_files(out, before, process)
            time.sleep(chance.uniform(0, written[-1] - written[0]))
        os.kill(process, signal.SIGKILL)  # Of a process that has ended there is a zombie until it is waited for.
        ends.append(runs.wait(process))
        assert ends[-1] in (0, -signal.SIGKILL)
        there = digests(out) if out.is_dir() else {}
        whole = {name: digest for name, digest in there.items() if not Path(name).name.startswith(".")}
        assert whole.items() <= expected.items()
        if whole == expected or chance.random() < 0.5:
            for path in list(out.glob("*.png"))[::2]:
                path.unlink()
    runs.run(album, "-o", out, *options)
    assert digests(out) == expected, "every output is whole and no litter is left"
    assert digests(album) == sources


@pytest.mark.parametrize("kills", [3, pytest.param(100, marks=pytest.mark.slow)])
def test_killed_at_random_moments_and_run_again(tmp_path: Path, runs: Runs, kills: int) -> None:
    make_album(tmp_path / "album", 24)
    check_kills(runs, kills, tmp_path / "album", tmp_path)


@pytest.mark.slow
def test_killed_a_hundred_times_with_the_networks_that_ship(tmp_path: Path) -> None:
    make_small_album(tmp_path / "album")
    options = ("--model", "compact", "--detector", "detector-compact", "--offline", "--precision", "fp32")
    with runs_with("real", tmp_path / "log") as runs:
        check_kills(runs, 100, tmp_path / "album", tmp_path, *options, "--upscale", 1)


def test_two_runs_into_one_output(tmp_path: Path, runs: Runs) -> None:
    album, out, calm = tmp_path / "album", tmp_path / "out", tmp_path / "calm"
    make_album(album, 12)
    runs.run(album, "-o", calm)
    at_once = [runs.start(album, "-o", out, "--report", tmp_path / f"{number}.jsonl") for number in range(2)]
    assert [runs.wait(process) for process in at_once] == [0, 0]
    assert digests(out) == digests(calm)
    for number in range(2):
        lines = [json.loads(line) for line in (tmp_path / f"{number}.jsonl").read_text().splitlines()]
        assert sum(line["kind"] == "photo" for line in lines) == 12
        assert {line["status"] for line in lines if line["kind"] == "photo"} <= {"restored", "skipped"}


def test_the_statuses_account_for_every_source(tmp_path: Path, runs: Runs) -> None:
    album, out, report = tmp_path / "album", tmp_path / "out", tmp_path / "report.jsonl"
    make_album(album, 9)
    (album / "003.png").write_bytes(b"broken")
    (album / "005.png").write_bytes((album / "005.png").read_bytes()[:2000])
    out.mkdir()
    (out / "007.png").write_bytes(b"there already")
    runs.run(album, "-o", out, "--report", report, code=3)
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    statuses = [line["status"] for line in lines if line["kind"] == "photo"]
    assert (len(statuses), statuses.count("failed"), statuses.count("skipped")) == (9, 2, 1)
    summary = lines[-1]
    assert sum(summary[key] for key in ("restored", "without_face", "skipped", "failed", "unreached")) == 9
    assert (out / "007.png").read_bytes() == b"there already"
