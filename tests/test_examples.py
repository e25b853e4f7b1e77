"""The sample album is what its README says, and the examples run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PROJECT = Path(__file__).resolve().parent.parent
EXAMPLES = PROJECT / "examples"
ALBUM = EXAMPLES / "album"


def photos(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def run(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(PROJECT), "XDG_CACHE_HOME": str(folder / "cache")}
    environment.pop("GFPRESTORE_WEIGHTS", None)
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_readme_lists_every_photo() -> None:
    listed = re.findall(r"^\| `([^`]+)` \|", (EXAMPLES / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert listed == list(photos(ALBUM))


def test_album_is_small() -> None:
    assert sum(path.stat().st_size for path in photos(ALBUM).values()) < 2_500_000


def test_photos_are_what_their_names_say() -> None:
    with Image.open(ALBUM / "1952 grandfather.jpg") as image:
        assert image.mode == "L"
    with Image.open(ALBUM / "1983 on its side.jpg") as image:
        assert image.getexif()[0x0112] == 6
        assert image.getexif().get_ifd(0x8769)[0x9003] == "1983:07:19 12:00:00"
        assert image.width > image.height
    with Image.open(ALBUM / "school" / "1961 sixteen bits.png") as image:
        deep = np.asarray(image)
        assert deep.dtype == np.uint16
        assert len(np.unique(deep % 257)) == 257, "16 bits that only repeat 8 show nothing"
    with Image.open(ALBUM / "school" / "1966 oval.webp") as image:
        alpha = np.asarray(image)[..., 3]
        assert alpha[0, 0] == 0
        assert alpha[alpha.shape[0] // 2, alpha.shape[1] // 2] == 255


def check_restored(source: Path, target: Path) -> None:
    assert list(photos(source)) == list(photos(target))
    for name, path in photos(source).items():
        with Image.open(path) as before, Image.open(target / name) as after:
            before.load()
            after.load()
            assert after.format == before.format
            sizes = {before.size, before.size[::-1]}
            assert (after.width // 2, after.height // 2) in sizes
            assert after.width % 2 == after.height % 2 == 0


def test_folder_is_restored_from_python(tmp_path: Path) -> None:
    """Two photos, one without a face: the smallest album that goes through every stage."""
    (tmp_path / "album").mkdir()
    for name in ("1952 grandfather.jpg", "1969 house.jpg"):
        shutil.copy(ALBUM / name, tmp_path / "album")
    ended = run(EXAMPLES / "restore_folder.py", "album", "restored", folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count(" restored -> ") == 2
    check_restored(tmp_path / "album", tmp_path / "restored")
    with Image.open(tmp_path / "restored" / "1952 grandfather.jpg") as image:
        restored = np.asarray(image.resize((image.width // 2, image.height // 2)), np.float64)
    with Image.open(ALBUM / "1952 grandfather.jpg") as image:
        change = np.abs(restored - np.asarray(image, np.float64))
    middle = change[150:400, 120:360]
    assert middle.mean() > 3 * change[:20].mean(), "the face changed, and the scanner's lid beside it did not"


@pytest.mark.slow
def test_whole_album_is_restored_from_python(tmp_path: Path) -> None:
    ended = run(EXAMPLES / "restore_folder.py", ALBUM, "restored", folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count(" restored -> ") == len(photos(ALBUM))
    check_restored(ALBUM, tmp_path / "restored")


@pytest.mark.slow
def test_album_can_be_made_again_alike(tmp_path: Path) -> None:
    """From pictures of any kind: the same ones give the same bytes."""
    (tmp_path / "faces").mkdir()
    rng = np.random.default_rng(0)
    for number in range(48):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        coarse.resize((512, 512), Image.Resampling.BICUBIC).save(tmp_path / "faces" / f"{number:02}.jpg")
    for album in ("one", "two"):
        ended = run(EXAMPLES / "make_album.py", "faces", album, folder=tmp_path)
        assert ended.returncode == 0, ended.stderr
    one, two = photos(tmp_path / "one"), photos(tmp_path / "two")
    assert list(one) == list(two) == list(photos(ALBUM))
    assert all(one[name].read_bytes() == two[name].read_bytes() for name in one)
