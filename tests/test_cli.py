"""The command: every option, every error, exit codes, stdout and stderr apart; and a real process."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import call
from fakes import fake_models
from PIL import Image

from gfprestore import __version__, run
from gfprestore.cli import main
from gfprestore.cli_options import OPTIONS
from gfprestore.errors import DeviceError, ExitCode, WeightsError
from gfprestore.options import RestoreOptions
from gfprestore.photofile import read_photo
from gfprestore.reporting.reportfile import SCHEMA


def write_photo_file(path: Path, faces: int = 1, size: tuple[int, int] = (90, 60)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(faces).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    pixels[0, 0, 0] = faces
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def album(tmp_path: Path) -> Path:
    write_photo_file(tmp_path / "album" / "a.png", faces=1)
    write_photo_file(tmp_path / "album" / "sub" / "b.png", faces=2)
    write_photo_file(tmp_path / "album" / "c.png", faces=0)
    return tmp_path / "album"


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[RestoreOptions]]:
    """Replaces the networks by stand-ins and keeps the options of each run."""
    options_seen: list[RestoreOptions] = []

    def load(options: RestoreOptions, *_: object) -> object:
        options_seen.append(options)
        return fake_models()

    monkeypatch.setattr(run, "load_models", load)
    yield options_seen


def test_a_folder_is_restored_with_its_sub_folders(album: Path, tmp_path: Path, seen: list[RestoreOptions]) -> None:
    code, result = call(album, "-o", tmp_path / "out")
    assert code == ExitCode.OK
    assert sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.png")) == [
        "a.png",
        "c.png",
        f"sub{os.sep}b.png",
    ]
    assert result.stdout == ""
    assert result.stderr.startswith("2 photos restored (3 faces), 1 without a face, in ")


def test_defaults_are_those_of_the_options(album: Path, tmp_path: Path, seen: list[RestoreOptions]) -> None:
    call(album, "-o", tmp_path / "out")
    assert seen == [RestoreOptions()]


def test_every_option_arrives(album: Path, tmp_path: Path, seen: list[RestoreOptions]) -> None:
    given = {
        "--upscale": 1.5,
        "--model": "compact",
        "--detector": "resnet50",
        "--weights": tmp_path,
        "--device": "cpu",
        "--batch-size": 7,
        "--precision": "fp32",
        "--detection-threshold": 0.75,
        "--min-face": 33.0,
        "--format": "webp",
        "--quality": 80,
    }
    flags = ("--only-center", "--aligned", "--overwrite", "--offline")
    arguments = [part for pair in given.items() for part in pair]
    code, result = call(album, "-o", tmp_path / "out", *arguments, *flags)
    assert code == ExitCode.OK, result.stderr
    (options,) = seen
    for name, value in given.items():
        assert getattr(options, name.lstrip("-").replace("-", "_")) == value
    for name in flags:
        assert getattr(options, name.lstrip("-").replace("-", "_")) is True


def test_every_option_has_help_and_a_section() -> None:
    context = main.make_context("gfprestore", ["x", "-o", "y"], resilient_parsing=True)
    options = [p for p in main.get_params(context) if hasattr(p, "section")]
    assert len(options) == len(OPTIONS)
    assert all(option.help and option.help.rstrip().endswith(".") for option in options)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--upscale", "0"], "--upscale"),
        (["--upscale", "nan"], "--upscale"),
        (["--batch-size", "0"], "--batch-size"),
        (["--precision", "fp16"], "--precision"),
        (["--quality", "101"], "--quality"),
        (["--detection-threshold", "1.5"], "--detection-threshold"),
        (["--min-face", "-1"], "--min-face"),
        (["--format", "gif"], "--format"),
        (["--sharpen"], "--sharpen"),
        (["-q", "-v"], "--quiet and --verbose"),
        (["--weights", "/no/such/folder"], "--weights"),
        (["-o", ""], "'--output': The name is empty"),
        ([""], "The name is empty"),
        (["--save-faces", ""], "'--save-faces': The name is empty"),
        (["--colorize", "in/"], "--colorize must be followed by another option or by --, or be written as"),
    ],
)
def test_wrong_usage(album: Path, tmp_path: Path, arguments: list[str], said: str) -> None:
    code, result = call(album, "-o", tmp_path / "out", *arguments)
    assert code == ExitCode.USAGE
    assert said in result.stderr
    assert result.stdout == ""
    assert not (tmp_path / "out").exists()


def test_missing_output_and_missing_input(album: Path, tmp_path: Path) -> None:
    code, result = call(album)
    assert (code, result.stdout) == (ExitCode.USAGE, "")
    assert "--output" in result.stderr
    code, result = call(tmp_path / "nowhere", "-o", tmp_path / "out")
    assert code == ExitCode.USAGE
    assert "nowhere" in result.stderr


def test_named_photos_that_cannot_be_read_fail_alone(
    album: Path, tmp_path: Path, seen: list[RestoreOptions], monkeypatch: pytest.MonkeyPatch
) -> None:
    closed, dangling, loop = album / "c.png", tmp_path / "dangling.jpg", tmp_path / "loop.jpg"
    dangling.symlink_to(tmp_path / "nothing.jpg")
    loop.symlink_to(loop)
    # As root every file can be read, so that the refusal is played.
    access, opened = os.access, os.open
    monkeypatch.setattr(os, "access", lambda path, *how: Path(path) != closed and access(path, *how))

    def refuse(path: Any, *more: Any, **settings: Any) -> int:
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied")
        return opened(path, *more, **settings)

    monkeypatch.setattr(os, "open", refuse)
    report = tmp_path / "report.jsonl"
    code, result = call(album / "a.png", closed, dangling, loop, "-o", tmp_path / "out", "--report", report)
    assert code == ExitCode.SOME_FAILED, result.stderr
    failed = [line for line in result.stderr.splitlines() if line.startswith("failed: ")]
    assert [line.split(": ")[1] for line in failed] == [str(closed), str(dangling), str(loop)]
    statuses = [json.loads(line).get("status") for line in report.read_text().splitlines()]
    assert statuses[1:-1] == ["restored", "failed", "failed", "failed"]


def test_a_folder_inside_that_cannot_be_read_is_a_failure(
    album: Path, tmp_path: Path, seen: list[RestoreOptions], monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = os.scandir

    def refuse(path: Any) -> object:
        if Path(path) == album / "sub":
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    (tmp_path / "out" / "sub").mkdir(parents=True)  # Of a run that had access.
    report = tmp_path / "report.jsonl"
    told = f"failed: {album / 'sub'}: The folder cannot be read (Permission denied)"
    for more in (["--dry-run"], ["-q", "--report", report]):
        code, result = call(album, "-o", tmp_path / "out", *more)
        assert code == ExitCode.SOME_FAILED
        assert result.stderr.startswith(told)
        assert len(result.stderr.splitlines()) == 1
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    assert [(line["source"], line["status"]) for line in lines[1:-1]][2] == (str(album / "sub"), "failed")
    assert (lines[-1]["restored"], lines[-1]["failed"], lines[-1]["exit_code"]) == (1, 1, ExitCode.SOME_FAILED)


def test_the_package_runs_as_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "gfprestore", "--version"], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (f"gfprestore {__version__}\n", "")


def test_no_photos(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, result = call(tmp_path / "empty", "-o", tmp_path / "out")
    assert code == ExitCode.NO_PHOTOS
    assert "gfprestore: error:" in result.stderr


def test_output_inside_the_input(album: Path) -> None:
    code, result = call(album, "-o", album / "restored")
    assert code == ExitCode.OUTPUT
    assert "--output" in result.stderr
    assert not (album / "restored").exists()


@pytest.mark.parametrize(("error", "expected"), [(WeightsError, ExitCode.WEIGHTS), (DeviceError, ExitCode.DEVICE)])
def test_errors_of_the_run_end_it_with_their_code(
    album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception], expected: ExitCode
) -> None:
    def fail(*_: object) -> None:
        raise error("That is how it is.")

    monkeypatch.setattr(run, "load_models", fail)
    report = tmp_path / "report.jsonl"
    code, result = call(album, "-o", tmp_path / "out", "--report", report)
    assert code == expected
    assert result.stderr == "gfprestore: error: That is how it is.\n"
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    assert [line.get("status") for line in lines if line["kind"] == "photo"] == ["unreached"] * 3
    assert lines[-1]["exit_code"] == expected


def test_a_device_that_is_not_there(album: Path, tmp_path: Path) -> None:
    code, result = call(album, "-o", tmp_path / "out", "--device", "abacus")
    assert code == ExitCode.DEVICE
    assert "--device" in result.stderr


def test_some_failed(album: Path, tmp_path: Path, seen: list[RestoreOptions]) -> None:
    (album / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 nothing")
    code, result = call(album, "-o", tmp_path / "out")
    assert code == ExitCode.SOME_FAILED
    lines = result.stderr.splitlines()
    assert sum(line.startswith("failed: ") and "broken.jpg" in line for line in lines) == 1
    assert lines[-1].startswith("2 photos restored (3 faces), 1 without a face, 1 failed, in ")
    assert len(list((tmp_path / "out").rglob("*.png"))) == 3


def test_a_second_run_skips_what_is_done(album: Path, tmp_path: Path, seen: list[RestoreOptions]) -> None:
    call(album, "-o", tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.png")}
    code, result = call(album, "-o", tmp_path / "out")
    assert code == ExitCode.OK
    assert "3 skipped" in result.stderr
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.png")}


def test_dry_run_writes_nothing(album: Path, tmp_path: Path) -> None:
    code, result = call(album, "-o", tmp_path / "out", "--dry-run")
    assert code == ExitCode.OK
    assert len(result.stdout.splitlines()) == 3
    assert f"{album / 'a.png'} -> {tmp_path / 'out' / 'a.png'}" in result.stdout
    assert not (tmp_path / "out").exists()


def test_dry_run_lists_what_a_resumed_run_would_do(album: Path, tmp_path: Path, seen: list[RestoreOptions]) -> None:
    report = tmp_path / "report.jsonl"
    (album / "broken.png").write_bytes(b"nothing")
    call(album, "-o", tmp_path / "out", "--report", report)
    code, result = call(album, "-o", tmp_path / "out", "--dry-run", "--overwrite", "--resume", report)
    assert code == ExitCode.OK
    assert result.stdout == f"{album / 'broken.png'} -> {tmp_path / 'out' / 'broken.png'}\n"
    assert "3 of 4 photos are finished" in result.stderr


@pytest.mark.parametrize("option", ["--resume", "--faces-from"])
def test_dry_run_refuses_the_files_that_a_run_refuses(album: Path, tmp_path: Path, option: str) -> None:
    code, result = call(album, "-o", tmp_path / "out", "--dry-run", option, tmp_path / "nowhere")
    assert (code, result.stdout) == (ExitCode.USAGE, "")
    assert "nowhere" in result.stderr


def test_dry_run_lists_names_that_the_encoding_of_stdout_lacks(tmp_path: Path) -> None:
    write_photo_file(tmp_path / "album" / "Käthe \u4e2d.png")
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    process = start(tmp_path / "album", "-o", tmp_path / "out", "--dry-run", env=environment, encoding="cp1252")
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert "Käthe \\u4e2d.png -> " in out


def test_verbose_shows_escapes_in_names(album: Path, tmp_path: Path, seen: list[RestoreOptions]) -> None:
    write_photo_file(album / "red\x1b[31m.png", faces=1)
    code, result = call(album, "-o", tmp_path / "out", "-v", "--strength", 0)
    assert code == ExitCode.OK
    # Both what was found and what was decided about it are told.
    assert result.stderr.count("red\\x1b[31m.png: ") == 2
    assert "\x1b" not in result.stderr


def test_report_on_stdout_is_all_of_stdout(album: Path, tmp_path: Path, seen: list[RestoreOptions]) -> None:
    code, result = call(album, "-o", tmp_path / "out", "--report", "-")
    assert code == ExitCode.OK
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert (lines[0]["schema"], lines[0]["photos"], lines[0]["version"]) == (SCHEMA, 3, __version__)
    assert [line["status"] for line in lines[1:-1]] == ["restored"] * 3
    assert lines[-1]["faces"] == 3


@pytest.mark.skipif(sys.platform == "win32", reason="no shell of this kind")
def test_a_report_to_a_closed_stdout_is_refused_before_any_work(album: Path, tmp_path: Path) -> None:
    line = "exec " + shlex.join([sys.executable, "-m", "gfprestore", str(album), "-o", str(tmp_path / "out")])
    for options, code in (("--report -", ExitCode.OUTPUT), ("--report - --dry-run", ExitCode.OK)):
        done = subprocess.run(["sh", "-c", f"{line} {options} >&-"], capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        told = (
            "gfprestore: error: The report cannot go to standard output, which is closed; name a file with --report.\n"
        )
        assert done.stderr == (told if code else "")
        assert not (tmp_path / "out").exists()


def test_resume_leaves_out_what_is_done(album: Path, tmp_path: Path, seen: list[RestoreOptions]) -> None:
    broken = album / "broken.png"
    broken.write_bytes(b"nothing")
    report = tmp_path / "report.jsonl"
    call(album, "-o", tmp_path / "out", "--report", report)
    write_photo_file(broken, faces=1)
    code, result = call(album, "-o", tmp_path / "out", "--report", report, "--resume", report)
    assert code == ExitCode.OK
    assert "3 of 4 photos are finished" in result.stderr
    assert "1 photo restored (1 face)" in result.stderr
    statuses = [json.loads(line) for line in report.read_text().splitlines()]
    assert sum(line["kind"] == "run" for line in statuses) == 2


def test_quiet_says_nothing(album: Path, tmp_path: Path, seen: list[RestoreOptions]) -> None:
    code, result = call(album, "-o", tmp_path / "out", "-q")
    assert (code, result.stdout, result.stderr) == (ExitCode.OK, "", "")


def test_quiet_tells_of_failed_photos(album: Path, tmp_path: Path, seen: list[RestoreOptions]) -> None:
    (album / "broken.jpg").write_bytes(b"nothing")
    code, result = call(album, "-o", tmp_path / "out", "-q")
    assert code == ExitCode.SOME_FAILED
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"failed: {album / 'broken.jpg'}: ")


def test_quiet_tells_of_a_fault(
    album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(*_: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(run, "load_models", load)
    with pytest.raises(KeyError):
        main([str(album), "-o", str(tmp_path / "out"), "-q"], standalone_mode=False)
    (line,) = capsys.readouterr().err.splitlines()
    assert "a fault in gfprestore itself" in line


def test_version_and_help() -> None:
    assert call("--version")[1].stdout == f"gfprestore {__version__}\n"
    code, result = call("-h")
    assert code == ExitCode.OK
    for heading in ("Files:", "Result:", "Faces:", "Model and machine:", "Talk and help:"):
        assert heading in result.stdout


# A process that is started in a shell's background ignores Ctrl-C, and its children inherit that.
START = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\nfrom gfprestore.cli import run; run()"


def start(*arguments: object, encoding: str = "utf-8", **settings: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", START, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding=encoding,
        **settings,  # type: ignore[call-overload]
    )


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from gfprestore.cli import main; main(['--help'], standalone_mode=False); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert not loaded & {"torch", "numpy", "cv2", "PIL", "rich", "facexlib", "openvino", "tqdm"}
    assert "gfprestore.cli" in loaded


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_process_leaves_whole_files_and_a_summary(tmp_path: Path, number: int, expected: int) -> None:
    for index in range(100):
        write_photo_file(tmp_path / "album" / f"{index:03d}.png", faces=0, size=(250, 200))
    out, report = tmp_path / "out", tmp_path / "report.jsonl"
    process = start(tmp_path / "album", "-o", out, "--report", report, "--offline", "--model", "compact")
    while process.poll() is None and not (out.is_dir() and any(out.iterdir())):
        time.sleep(0.02)
    process.send_signal(number)
    _, err = process.communicate()
    assert process.returncode == expected, err
    assert "not reached, in " in err
    for path in out.rglob("*"):
        assert read_photo(path).pixels.shape == (400, 500, 3)
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    assert sum(line["kind"] == "photo" for line in lines) == 100
    assert lines[-1]["exit_code"] == expected
    assert "Traceback" not in err
