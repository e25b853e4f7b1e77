"""Faces chosen by hand: whatever a user does to the report, no photo loses its faces in silence."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from commands import call
from fakes import fake_models
from PIL import Image

from gfprestore import run
from gfprestore.chosenfaces import NOT_LISTED, read_faces, read_faces_of
from gfprestore.errors import ExitCode, UsageError


def photo_line(source: Path | str, faces: int = 1) -> str:
    boxes = [{"box": [10.0 * index, 1, 10 * index + 8, 9]} for index in range(faces)]
    return json.dumps({"kind": "photo", "status": "restored", "source": str(source), "faces": boxes})


def write_report(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(['{"schema": 1, "kind": "run"}', *lines]) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def album(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two photos with one face each, and stand-ins for the networks."""
    (tmp_path / "album").mkdir()
    for name in ("a.png", "b.png"):
        pixels = np.random.default_rng(1).integers(0, 256, (60, 90, 3), dtype=np.uint8)
        pixels[0, 0, 0] = 1
        Image.fromarray(pixels).save(tmp_path / "album" / name)
    monkeypatch.setattr(run, "load_models", lambda *_: fake_models())
    return tmp_path / "album"


@pytest.mark.parametrize(
    ("damaged", "said"),
    [
        (photo_line("b.png") + ",", "Line 3 of .* is not JSON"),
        (photo_line("b.png")[:-20], "Line 3 of .* is not JSON"),
        ("[" * 100_000, "Line 3 of .* is not JSON"),
        ("[1, 2]", "Line 3 of .* is no line of a report"),
        ('{"kind": "photo", "faces": []}', "Line 3 of .* names no source"),
        ('{"kind": "photo", "source": "b.png", "faces": [{}]}', "Line 3 of .* without a box"),
    ],
)
def test_a_line_that_was_damaged_is_named(tmp_path: Path, damaged: str, said: str) -> None:
    path = write_report(tmp_path / "chosen.jsonl", photo_line("a.png"), damaged)
    with pytest.raises(UsageError, match=said + ".*--faces-from"):
        read_faces(path)


def test_empty_lines_and_a_byte_order_mark_do_no_harm(tmp_path: Path) -> None:
    path = write_report(tmp_path / "chosen.jsonl", "", photo_line("a.png"), "  ")
    path.write_text("\ufeff" + path.read_text(encoding="utf-8"), encoding="utf-8")
    assert read_faces(path).of(Path("a.png")) == {0: [(0.0, 1.0, 8.0, 9.0)]}


def test_a_photo_is_found_by_every_name_of_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "in")
    monkeypatch.chdir(tmp_path)
    path = write_report(tmp_path / "chosen.jsonl", photo_line("in/a.png"))
    chosen = read_faces(path)
    for name in (Path("in/a.png"), tmp_path / "in" / "a.png", Path("link/a.png"), Path("link/../in/a.png")):
        assert chosen.of(name) == {0: [(0.0, 1.0, 8.0, 9.0)]}
    assert chosen.of(Path("in/b.png")) is None
    read_faces_of(path, [Path("b.png"), tmp_path / "link" / "a.png"])
    with pytest.raises(UsageError, match=r"the faces of none of these photos.*--faces-from"):
        read_faces_of(path, [Path("a.png"), Path("b.png")])


def test_of_two_names_of_one_file_each_has_its_own_choice(tmp_path: Path) -> None:
    (tmp_path / "b.png").symlink_to("a.png")
    lines = photo_line(tmp_path / "a.png", faces=1), photo_line(tmp_path / "b.png", faces=2)
    chosen = read_faces(write_report(tmp_path / "chosen.jsonl", *lines))
    for name, count in (("a.png", 1), ("b.png", 2)):
        boxes = chosen.of(tmp_path / name)
        assert boxes is not None
        assert len(boxes[0]) == count


def test_a_photo_that_the_report_does_not_list_is_told(album: Path, tmp_path: Path) -> None:
    chosen, again = tmp_path / "chosen.jsonl", tmp_path / "again.jsonl"
    assert call(album, "-o", tmp_path / "out", "--report", chosen)[0] == ExitCode.OK
    lines = chosen.read_text().splitlines()
    chosen.write_text("\n".join(line for line in lines if "b.png" not in line))
    arguments = ("-o", tmp_path / "out", "--overwrite", "--faces-from", chosen, "--report", again)
    code, result = call(album / ".." / "album", *arguments)
    assert code == ExitCode.OK
    assert f"note: {album / '..' / 'album' / 'b.png'}: {NOT_LISTED}" in result.stderr
    assert f"a.png: {NOT_LISTED}" not in result.stderr
    photos = [json.loads(line) for line in again.read_text().splitlines()][1:-1]
    assert [len(line["faces"]) for line in photos] == [1, 0]


@pytest.mark.parametrize("lines", [("not JSON",), (), (photo_line("elsewhere/a.png"),)])
def test_nothing_is_written_where_the_choice_is_of_no_use(album: Path, tmp_path: Path, lines: tuple[str, ...]) -> None:
    chosen = write_report(tmp_path / "chosen.jsonl", *lines)
    code, result = call(album, "-o", tmp_path / "out", "--faces-from", chosen)
    assert code == ExitCode.USAGE
    assert "--faces-from" in result.stderr
    assert not (tmp_path / "out").exists()


def test_the_new_report_may_not_take_the_place_of_the_choice(album: Path, tmp_path: Path) -> None:
    chosen = tmp_path / "chosen.jsonl"
    call(album, "-o", tmp_path / "out", "--report", chosen)
    before = chosen.read_bytes()
    arguments = (album, "-o", tmp_path / "out", "--overwrite", "--faces-from", chosen, "--report", chosen)
    code, result = call(*arguments)
    assert code == ExitCode.USAGE
    assert "name another file with --report" in result.stderr
    assert chosen.read_bytes() == before
    assert call(*arguments, "--resume", chosen)[0] == ExitCode.OK, "which goes on in the file"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_the_choice_may_come_through_a_pipe(album: Path, tmp_path: Path) -> None:
    chosen, again, pipe = tmp_path / "chosen.jsonl", tmp_path / "again.jsonl", tmp_path / "pipe"
    assert call(album, "-o", tmp_path / "out", "--report", chosen)[0] == ExitCode.OK
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(chosen.read_bytes()))
    writer.start()
    code, _ = call(album, "-o", tmp_path / "out", "--overwrite", "--faces-from", pipe, "--report", again)
    writer.join()
    assert code == ExitCode.OK
    photos = [json.loads(line) for line in again.read_text().splitlines()][1:-1]
    assert [len(line["faces"]) for line in photos] == [1, 1]
