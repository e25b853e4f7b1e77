"""What earlier reports tell: nothing of it is lost, and what is done is not done again."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from commands import call
from fakes import fake_models, pair_of_faces

from gfprestore import run
from gfprestore.errors import ExitCode, WeightsError
from gfprestore.reporting.earlier import EarlierRun

Lines = list[dict[str, object]]


@pytest.fixture
def album(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return pair_of_faces(tmp_path / "album", monkeypatch)


def read(path: Path) -> Lines:
    return [json.loads(line) for line in path.read_text().splitlines()]


def restored(lines: Lines) -> Lines:
    """What is told of results, whoever made them."""
    return [
        {key: value for key, value in line.items() if key != "earlier"}
        for line in lines
        if line.get("status") == "restored"
    ]


def test_the_same_command_again_keeps_what_its_report_told(album: Path, tmp_path: Path) -> None:
    out, report = tmp_path / "out", tmp_path / "report.jsonl"
    for _ in range(3):
        assert call(album, "-o", out, "--report", report)[0] == ExitCode.OK
        before = restored(read(report))
        assert [Path(str(line["source"])).name for line in before] == ["a.png", "b.png"]
        assert all(line["faces"] for line in before)
    shutil.copy(album / "a.png", album / "c.png")
    _, result = call(album, "-o", out, "--report", report)
    assert "1 photo restored (1 face), 2 skipped since their results exist" in result.stderr
    first, *photos, last = read(report)
    assert restored(photos)[:2] == before
    assert [line["status"] for line in photos] == ["restored", "restored", "skipped", "skipped", "restored"]
    assert [line.get("earlier", False) for line in photos] == [True, True, False, False, False]
    assert (first["photos"], last["restored"], last["skipped"]) == (3, 1, 2)
    call(album, "-o", out, "--report", report, "--overwrite")
    assert not any(line.get("earlier") for line in read(report)), "every result is another now"


@pytest.mark.parametrize("error", [WeightsError("none"), KeyError("a bug"), KeyboardInterrupt()])
def test_a_run_that_ends_before_its_first_photo_keeps_what_its_report_told(
    album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    out, report = tmp_path / "out", tmp_path / "report.jsonl"
    call(album, "-o", out, "--report", report)
    before, whole = restored(read(report)), report.read_bytes()
    shutil.copy(album / "a.png", album / "c.png")

    def load(*_: object) -> None:
        assert report.read_bytes() == whole, "a kill here would lose nothing"
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(run, "load_models", load)
        if isinstance(error, KeyError):
            with pytest.raises(KeyError):
                call(album, "-o", out, "--report", report)
        else:
            assert call(album, "-o", out, "--report", report)[0] != ExitCode.OK
    assert restored(read(report)) == before
    _, result = call(album, "-o", out, "--report", report, "--resume", report)
    assert "2 of 3 photos are finished" in result.stderr


def test_photos_that_were_skipped_are_finished(album: Path, tmp_path: Path) -> None:
    out, report = tmp_path / "out", tmp_path / "report.jsonl"
    call(album, "-o", out)
    call(album, "-o", out, "--report", report)
    assert [line["status"] for line in read(report)[1:-1]] == ["skipped", "skipped"]
    again = (album, "-o", out, "--resume", report)
    assert "2 of 2 photos are finished" in call(*again)[1].stderr
    assert "0 of 2 photos are finished" in call(*again, "--overwrite")[1].stderr, "since another run made them"


def test_to_go_on_in_a_report_that_is_not_there_yet_is_to_start(
    album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    again = (album, "-o", "out", "--resume", "r.jsonl", "--report", tmp_path / "r.jsonl")
    code, result = call(*again)
    assert (code, "2 photos restored" in result.stderr) == (ExitCode.OK, True)
    code, result = call(*again)
    assert (code, "2 of 2 photos are finished" in result.stderr) == (ExitCode.OK, True)
    code, result = call(album, "-o", "out", "--resume", "none.jsonl", "--report", "r.jsonl")
    assert (code, "check --resume" in result.stderr) == (ExitCode.USAGE, True)


def test_a_photo_is_known_by_every_name_of_its_folder(
    album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tmp_path / "report.jsonl"
    call(album, "-o", tmp_path / "out", "--report", report)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("album")
    for name in ("album", "./link", "album/../album"):
        _, result = call(name, "-o", tmp_path / "out", "--resume", report)
        assert "2 of 2 photos are finished" in result.stderr


def test_options_that_change_pixels_are_told_where_they_differ(album: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.jsonl"
    arguments = (album, "-o", tmp_path / "out", "--resume", report, "--report", report)
    call(*arguments)
    assert "other options" not in call(*arguments, "--batch-size", 2, "--offline")[1].stderr
    stderr = call(*arguments, "--upscale", 1.5, "--mask", "head")[1].stderr
    assert "made with other options: upscale 2.0 (now 1.5), mask face (now head);" in stderr


def test_options_of_kept_results_go_on_from_report_to_report(album: Path, tmp_path: Path) -> None:
    out, first, second = tmp_path / "out", tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    call(album, "-o", out, "--upscale", 1, "--report", first)
    wanted = "made with other options: upscale 1.0 (now 3.0); "
    again = (album, "-o", out, "--upscale", 3)
    assert wanted + "--overwrite makes them anew" in call(*again, "--report", first)[1].stderr
    for _ in range(2):
        assert wanted + "without --resume" in call(*again, "--resume", first)[1].stderr
        assert wanted in call(*again, "--resume", first, "--report", second)[1].stderr
        first, second = second, first
    (options,) = read(second)[0]["earlier_options"]
    assert options["upscale"] == 1


def test_a_result_in_another_folder_is_another(album: Path, tmp_path: Path) -> None:
    report = tmp_path / "r.jsonl"
    call(album, "-o", tmp_path / "one", "--upscale", 1, "--report", report)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    again = (album, "-o", tmp_path / "two", "--upscale", 3)
    assert "0 of 2 photos are finished" in call(*again, "--resume", report)[1].stderr
    assert "2 photos restored" in call(*again, "--resume", report, "--overwrite")[1].stderr
    call(album, "-o", tmp_path / "one", "--report", report)
    call(album, "-o", tmp_path / "two", "--report", report)
    assert not any(line.get("earlier") for line in read(report))


def test_nothing_is_loaded_where_nothing_is_left(album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = tmp_path / "report.jsonl"
    arguments = (album, "-o", tmp_path / "out", "--resume", report, "--report", report)
    call(*arguments)
    monkeypatch.setattr(run, "load_models", pytest.fail)
    code, result = call(*arguments)
    assert (code, "0 photos restored" in result.stderr) == (ExitCode.OK, True)


def test_the_same_command_again_loads_nothing_and_tells_the_same(
    album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = {"face": {"name": "fake", "sha256": "0"}}
    monkeypatch.setattr(run, "load_models", lambda *_: replace(fake_models(), facts=facts))
    report = tmp_path / "report.jsonl"
    arguments = (album, "-o", tmp_path / "out", "--report", report)
    call(*arguments)
    once = read(report)
    monkeypatch.setattr(run, "load_models", pytest.fail)
    for _ in range(2):
        code, result = call(*arguments)
        assert code == ExitCode.OK
        assert result.stderr.startswith("0 photos restored, 2 skipped since their results exist (--overwrite writes")
        first, *photos, last = read(report)
        assert first == once[0], "it still tells what made these results"
        assert restored(photos) == restored(once)
        assert [line["status"] for line in photos] == ["restored", "restored", "skipped", "skipped"]
        assert last["skipped"] == 2
    (album / "closed").mkdir()
    monkeypatch.setattr(os, "scandir", _closed_below(album / "closed"))
    code, result = call(*arguments)
    assert code == ExitCode.SOME_FAILED
    assert "2 skipped since their results exist" in result.stderr
    assert "1 failed" in result.stderr


def _closed_below(folder: Path) -> Callable[[object], object]:
    scandir = os.scandir

    def scan(path: object) -> object:
        if Path(os.fsdecode(path)) == folder:  # type: ignore[arg-type]
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(path)  # type: ignore[call-overload]

    return scan


def test_a_later_result_replaces_what_was_told_and_a_later_failure_too() -> None:
    for statuses, last in (
        (("restored", "skipped", "unreached"), "restored"),
        (("failed", "unreached"), "unreached"),
        (("restored", "failed", "skipped"), "skipped"),
        (("skipped", "restored"), "restored"),
    ):
        earlier = EarlierRun()
        for status in statuses:
            earlier.add({"kind": "photo", "source": "a", "status": status})
        assert earlier.of(Path("a"))["status"] == last
