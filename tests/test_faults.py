"""Whatever happens: sources untouched, outputs complete or absent, everything accounted for, the next run finishes."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PROJECT = Path(__file__).resolve().parent.parent

# The whole command with a restorer that takes no time, so that a kill lands anywhere in reading, pasting and writing.
PROGRAM = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from fakes import fake_models
from gfprestore import run as run_module
run_module.load_models = lambda *_: fake_models(lambda crop: crop // 2)
from gfprestore.cli import run
run()
"""


def make_album(folder: Path, photos: int) -> None:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(photos):
        pixels = rng.integers(0, 256, (120, 160, 3), dtype=np.uint8)
        pixels[0, 0, 0] = index % 3
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


@pytest.mark.parametrize("kills", [3, pytest.param(100, marks=pytest.mark.slow)])
def test_killed_at_random_moments_and_run_again(tmp_path: Path, kills: int) -> None:
    album, out, calm = tmp_path / "album", tmp_path / "out", tmp_path / "calm"
    make_album(album, 24)
    sources = digests(album)
    assert start(album, calm).wait() == 0
    expected = digests(calm)
    chance = random.Random(1)
    for _ in range(kills):
        process = start(album, out)
        # Until the first file is there nothing can be harmed; from then on any moment will do.
        while process.poll() is None and not (out.is_dir() and any(out.iterdir())):
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.wait()
        whole = {name: digest for name, digest in digests(out).items() if not Path(name).name.startswith(".")}
        assert whole.items() <= expected.items()
        if chance.random() < 0.5:
            for path in list(out.glob("*.png"))[::2]:
                path.unlink()
    assert start(album, out).wait() == 0
    assert digests(out) == expected, "every output is whole and no litter is left"
    assert digests(album) == sources


def test_two_runs_into_one_output(tmp_path: Path) -> None:
    album, out, calm = tmp_path / "album", tmp_path / "out", tmp_path / "calm"
    make_album(album, 12)
    assert start(album, calm).wait() == 0
    runs = [start(album, out, "--report", tmp_path / f"{number}.jsonl") for number in range(2)]
    assert [run.wait() for run in runs] == [0, 0]
    assert digests(out) == digests(calm)
    for number in range(2):
        lines = [json.loads(line) for line in (tmp_path / f"{number}.jsonl").read_text().splitlines()]
        assert sum(line["kind"] == "photo" for line in lines) == 12
        assert {line["status"] for line in lines if line["kind"] == "photo"} <= {"restored", "skipped"}


def test_the_statuses_account_for_every_source(tmp_path: Path) -> None:
    album, out, report = tmp_path / "album", tmp_path / "out", tmp_path / "report.jsonl"
    make_album(album, 9)
    (album / "003.png").write_bytes(b"broken")
    (album / "005.png").write_bytes((album / "005.png").read_bytes()[:2000])
    out.mkdir()
    (out / "007.png").write_bytes(b"there already")
    assert start(album, out, "--report", report).wait() == 3
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    statuses = [line["status"] for line in lines if line["kind"] == "photo"]
    assert (len(statuses), statuses.count("failed"), statuses.count("skipped")) == (9, 2, 1)
    summary = lines[-1]
    assert sum(summary[key] for key in ("restored", "without_face", "skipped", "failed", "unreached")) == 9
    assert (out / "007.png").read_bytes() == b"there already"


def test_a_disk_that_fills_ends_the_run_with_its_code(tmp_path: Path) -> None:
    album, report = tmp_path / "album", tmp_path / "report.jsonl"
    make_album(album, 6)
    full = PROGRAM.replace(
        "from gfprestore.cli import run",
        "import errno, os\n"
        "def fsync(_): raise OSError(errno.ENOSPC, 'No space left on device')\n"
        "os.fsync = fsync\n"
        "from gfprestore.cli import run",
    )
    done = subprocess.run(
        [sys.executable, "-c", full, str(PROJECT / "tests"), str(album), "-o", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        cwd=PROJECT,
        check=False,
    )
    assert done.returncode == 7
    assert "gfprestore: error:" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []
    assert not report.exists()
