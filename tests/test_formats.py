"""HEIC, AVIF and JPEG XL: read where their packages are installed, refused with one clear sentence where not."""

from __future__ import annotations

import importlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from fakes import fake_models
from PIL import Image, features
from sample_photos import full_metadata

from gfprestore import photofile
from gfprestore.errors import PhotoError
from gfprestore.folders import plan_jobs
from gfprestore.options import RestoreOptions
from gfprestore.photofile import read_photo
from gfprestore.pipeline import restore_photos
from gfprestore.report import Restored

METADATA = full_metadata()

FORMATS = ("heic", "avif", "jxl")


def written(path: Path, mode: str = "RGB", orientation: int = 1) -> np.ndarray:
    """Writes a smooth photo with the format's own package and returns its pixels; skips where there is none."""
    noise = np.random.default_rng(0).integers(0, 256, (80, 121, 3), dtype=np.uint8)
    pixels = cv2.GaussianBlur(noise, (0, 0), 6)
    block = Image.Exif()
    block.load(METADATA.exif or b"")
    block[0x0112] = orientation
    if path.suffix == ".avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    if path.suffix == ".heic":
        pytest.importorskip("pillow_heif").register_heif_opener()
    if path.suffix == ".jxl":
        pytest.importorskip("pillow_jxl")
    image = Image.fromarray(pixels).convert(mode)
    image.save(path, quality=95, exif=block.tobytes(), icc_profile=METADATA.icc_profile, xmp=METADATA.xmp)
    return np.asarray(image)


@pytest.mark.parametrize("format", FORMATS)
def test_pixels_and_what_stands_beside_them_are_read(format: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{format}"
    pixels = written(path)
    photo = read_photo(path)
    assert photo.pixels.dtype == np.uint8 and np.abs(photo.pixels.astype(int) - pixels).mean() < 2
    assert photo.warnings == () and not photo.is_gray and photo.alpha is None
    assert b"Aunt Mary" in (photo.metadata.exif or b"")
    if format != "jxl":  # Its package writes neither.
        assert photo.metadata.icc_profile == METADATA.icc_profile
        assert photo.metadata.xmp == METADATA.xmp


@pytest.mark.parametrize("format", FORMATS)
def test_they_come_upright(format: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{format}"
    pixels = written(path, orientation=6)
    photo = read_photo(path)
    assert np.abs(photo.pixels.astype(int) - np.rot90(pixels, -1)).mean() < 2


@pytest.mark.parametrize("format", FORMATS)
def test_gray_stays_gray(format: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{format}"
    written(path, "L")
    assert read_photo(path).is_gray


def test_bits_that_are_lost_are_told(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    deep = (np.mgrid[:64, :64].sum(axis=0)[..., None] * [500, 300, 100]).astype(np.uint16)
    heif.from_bytes(mode="RGB;16", size=(64, 64), data=deep.tobytes()).save(tmp_path / "a.heic")
    (note,) = read_photo(tmp_path / "a.heic").warnings
    assert note.startswith("10 bits a channel were read as 8")


@pytest.mark.parametrize(("format", "suffix"), [("heic", ".jpg"), ("avif", ".jpg"), ("jxl", ".png")])
def test_a_run_writes_them_in_a_format_that_everybody_reads(format: str, suffix: str, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    written(folder / f"a.{format}")
    jobs = plan_jobs([folder], tmp_path / "out")
    (outcome,) = restore_photos(jobs, fake_models(), RestoreOptions(upscale=1))
    assert isinstance(outcome, Restored)
    assert jobs[0].target.name == f"a{suffix}"
    assert b"Aunt Mary" in (read_photo(jobs[0].target).metadata.exif or b"")


@pytest.mark.parametrize(
    ("start", "format", "package"),
    [
        (b"\x00\x00\x00\x18ftypheic", "HEIF", "pillow_heif"),
        (b"\x00\x00\x00\x18ftypmif1", "HEIF", "pillow_heif"),
        (b"\xff\x0a", "JXL", "pillow_jxl"),
        (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "JXL", "pillow_jxl"),
    ],
)
def test_without_the_package_the_photo_is_refused_and_the_extra_named(
    start: bytes, format: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = importlib.import_module

    def missing(name: str) -> object:
        if name == package:
            raise ImportError(name)
        return usual(name)

    Image.init()
    monkeypatch.delitem(Image.OPEN, format, raising=False)
    monkeypatch.setattr(photofile.importlib, "import_module", missing)
    path = tmp_path / "photo.jpg"
    path.write_bytes(start + bytes(100))
    with pytest.raises(PhotoError, match=rf"is a {format} file; to read it, install gfprestore with \[formats\]\.$"):
        read_photo(path)


def test_without_avif_in_pillow_the_photo_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photofile.features, "check", lambda name: False)
    (tmp_path / "a.avif").write_bytes(b"\x00\x00\x00\x18ftypavif" + bytes(100))
    with pytest.raises(PhotoError, match="AVIF file, which the installed Pillow cannot read; install a newer one"):
        read_photo(tmp_path / "a.avif")
