"""Faces chosen by hand: whatever a user does to the report, no photo loses its faces in silence."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from commands import call
from fakes import fake_models, pair_of_faces
from PIL import Image

from gfprestore import run
from gfprestore.errors import ExitCode, UsageError
from gfprestore.reporting.chosenfaces import NOT_LISTED, not_found, read_faces, read_faces_of


def photo_line(source: Path | str, faces: int = 1) -> str:
    boxes = [{"box": [10.0 * index, 1, 10 * index + 8, 9]} for index in range(faces)]
    return json.dumps({"kind": "photo", "status": "restored", "source": str(source), "faces": boxes})


def face_line(box: str, page: str = "1") -> str:
    return f'{{"kind": "photo", "source": "b.png", "faces": [{{"box": {box}, "page": {page}}}]}}'


NO_BOXES = (
    '"1234"',
    '["0", "0", "9", "9"]',
    "[0, 0, 9]",
    "[0, 0, 9, true]",
    "[NaN, 0, 9, 9]",
    "[0, 0, Infinity, 9]",
    f"[0, 0, 9, 1{400 * '0'}]",
    "[9, 0, 9, 9]",
    "[0, 9, 9, 0]",
)
NO_PAGES = ("0", "-1", "1.5", '"2"', "true", "null")


def write_report(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(['{"schema": 1, "kind": "run"}', *lines]) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def album(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return pair_of_faces(tmp_path / "album", monkeypatch)


@pytest.mark.parametrize(
    ("damaged", "said"),
    [
        (photo_line("b.png") + ",", "Line 3 of .* is not JSON"),
        (photo_line("b.png")[:-20], "Line 3 of .* is not JSON"),
        ("[" * 100_000, "Line 3 of .* is not JSON"),
        ("[1, 2]", "Line 3 of .* is no line of a report"),
        ('{"kind": "photo", "faces": []}', "Line 3 of .* names no source"),
        ('{"kind": "photo", "source": "b.png", "faces": [{}]}', "Line 3 of .* without a box"),
        ('{"kind": "photo", "source": "b.png", "faces": "none"}', "Line 3 of .* without a box"),
        *((face_line(box), "Line 3 of .* without a box") for box in NO_BOXES),
        *((face_line("[0, 0, 9, 9]", page), "Line 3 of .* whose page is no whole number") for page in NO_PAGES),
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


def report_without(path: Path, name: str) -> None:
    """Takes all faces of one photo out of a report."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    emptied = [{**line, "faces": []} if Path(str(line.get("source"))).name == name else line for line in lines]
    path.write_text("\n".join(json.dumps(line) for line in emptied) + "\n")


def test_chosen_faces_that_are_not_found_again_are_told(album: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.jsonl"
    off = [{"box": [500, 500, 510, 510]}, {"box": [1, 1, 3, 3]}, {"box": [30, 10, 60, 40], "page": 2}]
    lines = [
        json.dumps({"kind": "photo", "source": str(album / name), "faces": faces})
        for name, faces in (("a.png", off), ("b.png", off[:1]))
    ]
    chosen = write_report(tmp_path / "chosen.jsonl", *lines)
    code, result = call(album, "-o", tmp_path / "out", "--faces-from", chosen, "--report", again)
    assert code == ExitCode.OK
    assert f"note: {album / 'a.png'}: {not_found(3)}" in result.stderr
    assert f"note: {album / 'b.png'}: {not_found(1)}" in result.stderr
    assert "1 face that the report of --faces-from lists was not found again; use that run's --detector" in not_found(1)
    assert "3 faces that the report of --faces-from lists were not" in not_found(3)


def test_faces_that_were_left_out_by_hand_are_not_told_as_missing(album: Path, tmp_path: Path) -> None:
    chosen = tmp_path / "chosen.jsonl"
    call(album, "-o", tmp_path / "out", "--report", chosen)
    report_without(chosen, "b.png")
    _, result = call(album, "-o", tmp_path / "out", "--overwrite", "--faces-from", chosen)
    assert "note:" not in result.stderr
    assert "1 photo restored (1 face), 1 without a face" in result.stderr


def test_crops_whose_face_was_left_out_keep_their_own_pixels(
    album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "load_models", lambda *_: fake_models(lambda crop: crop // 2))
    chosen, out = tmp_path / "chosen.jsonl", tmp_path / "out"
    arguments = (album, "-o", out, "--aligned", "--upscale", 1)
    call(*arguments, "--report", chosen)
    report_without(chosen, "b.png")
    code, result = call(*arguments, "--overwrite", "--faces-from", chosen)
    assert code == ExitCode.OK
    assert "1 photo restored (1 face), 1 without a face" in result.stderr
    assert "note:" not in result.stderr
    is_same = {
        name: bool((np.asarray(Image.open(out / name)) == np.asarray(Image.open(album / name))).all())
        for name in ("a.png", "b.png")
    }
    assert is_same == {"a.png": False, "b.png": True}


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
