"""Where face crops must not go: among the originals, or over a result."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import call

from gfprestore.errors import ExitCode, OutputError
from gfprestore.folders import plan_jobs


def make(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"the user's own")


@pytest.mark.parametrize(
    ("given", "crops"),
    [
        ("in", "in"),
        ("in", "in/faces"),
        ("in", "in/sub/new/deep"),
        ("in", "link/faces"),
        ("in/b.png", "in"),
        ("in/b.png", "link"),
        ("in/*.png", "in"),
        ("linked.png", "in"),
        ("in/sub", "in/sub"),
    ],
)
def test_crops_of_faces_among_the_photos_are_refused(tmp_path: Path, given: str, crops: str) -> None:
    make(tmp_path / "in", "b.png", "b.png.1.after.png", "sub/c.png")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    (tmp_path / "linked.png").symlink_to(tmp_path / "in" / "b.png")
    before = sorted(tmp_path.rglob("*"))
    code, result = call(tmp_path / given, "-o", tmp_path / "out", "--save-faces", tmp_path / crops)
    assert code == ExitCode.OUTPUT
    assert result.stderr.startswith("gfprestore: error: ")
    assert result.stderr.rstrip().endswith("with --save-faces.")
    assert sorted(tmp_path.rglob("*")) == before


def test_crops_go_beside_results_but_not_over_them(tmp_path: Path) -> None:
    make(tmp_path / "in", "a.png", "sub/b.tif")
    assert len(plan_jobs([tmp_path / "in"], tmp_path / "out", save_faces=tmp_path / "out")) == 2
    make(tmp_path / "in", "sub/b.tif.page2.1.before.png")
    assert len(plan_jobs([tmp_path / "in"], tmp_path / "out", save_faces=tmp_path / "out" / "faces")) == 3
    with pytest.raises(OutputError, match=r"could overwrite the result .*--save-faces"):
        plan_jobs([tmp_path / "in"], tmp_path / "out", save_faces=tmp_path / "out")


def test_crops_below_the_folder_of_a_named_photo_are_fine(tmp_path: Path) -> None:
    make(tmp_path / "in", "b.png")
    assert len(plan_jobs([tmp_path / "in" / "b.png"], tmp_path / "out", save_faces=tmp_path / "in" / "faces")) == 1


def test_a_folder_of_crops_must_be_writable(tmp_path: Path) -> None:
    make(tmp_path, "in/b.png", "file")
    with pytest.raises(OutputError, match=r"is not a folder; .*--save-faces"):
        plan_jobs([tmp_path / "in"], tmp_path / "out", save_faces=tmp_path / "file" / "x")


def test_a_pattern_passes_over_the_crops_of_an_earlier_run(tmp_path: Path) -> None:
    make(tmp_path / "in", "a.png", "faces/a.png.1.before.png")
    jobs = plan_jobs([tmp_path / "in" / "**" / "*.png"], tmp_path / "out", save_faces=tmp_path / "in" / "faces")
    assert [str(job.relative) for job in jobs] == ["a.png"]


def test_a_link_out_of_the_folder_of_crops_is_refused(tmp_path: Path) -> None:
    make(tmp_path, "in/sub/a.png", "private/x", "faces/x")
    (tmp_path / "faces" / "sub").symlink_to(tmp_path / "private")
    with pytest.raises(OutputError, match=r"leads out of the folder of face crops; .*--save-faces"):
        plan_jobs([tmp_path / "in"], tmp_path / "out", save_faces=tmp_path / "faces")
