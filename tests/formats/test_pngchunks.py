"""PNGs written in bands: the filter as the specification words it, and pixels that other decoders read."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin
from sample_photos import chunk, shown

from gfprestore.colour import profile_space
from gfprestore.formats import pngchunks
from gfprestore.formats.filepixels import FilePixels
from gfprestore.formats.pngchunks import encode_png
from gfprestore.photo import Photo, PhotoMetadata, Pixels
from gfprestore.photofile import read_photo, write_photo

NOTHING = PhotoMetadata("PNG")


def made(height: int, width: int, dtype: type, *, is_gray: bool, has_alpha: bool) -> Photo:
    """Rough photos, gray where asked."""
    top = np.iinfo(dtype).max
    random = np.random.default_rng(height * 100 + width)
    pixels = random.integers(0, top, (height, width, 1 if is_gray else 3), dtype, endpoint=True)
    alpha = random.integers(0, top, (height, width), dtype, endpoint=True) if has_alpha else None
    return Photo(np.repeat(pixels, 3, axis=2) if is_gray else pixels, NOTHING, alpha, is_gray)


def encoded(photo: Photo, metadata: PhotoMetadata = NOTHING, *, band_bytes: int = 1 << 20) -> bytes:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pngchunks, "_BAND_BYTES", band_bytes)
        return b"".join(encode_png(FilePixels(photo), metadata))


def chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """Names and contents, with signature and checksums looked at."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    found, at = [], 8
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        name, content = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", data, at + 8 + length) == (zlib.crc32(name + content),)
        found.append((name, content))
        at += 12 + length
    return found


def predicted(a: int, b: int, c: int) -> int:
    """The Paeth predictor in the words of section 9.4."""
    p = a + b - c
    pa, pb, pc = abs(p - a), abs(p - b), abs(p - c)
    if pa <= pb and pa <= pc:
        return a
    return b if pb <= pc else c


def filtered_slowly(photo: Photo) -> bytes:
    """Filtered rows, byte by byte."""
    gray = photo.pixels[:, :, :1] if photo.is_gray else photo.pixels
    samples = gray if photo.alpha is None else np.dstack([gray, photo.alpha])
    rows = [row.astype(row.dtype.newbyteorder(">")).tobytes() for row in samples]
    step = samples.shape[2] * samples.itemsize
    out = bytearray()
    for y, row in enumerate(rows):
        out.append(4)
        for x, value in enumerate(row):
            a = row[x - step] if x >= step else 0
            b = rows[y - 1][x] if y else 0
            c = rows[y - 1][x - step] if y and x >= step else 0
            out.append((value - predicted(a, b, c)) % 256)
    return bytes(out)


def in_order(photo: Photo) -> Pixels:
    """The pixels as OpenCV gives them."""
    bgr = photo.pixels[:, :, :1] if photo.is_gray else photo.pixels[:, :, ::-1]
    if photo.alpha is None:
        return bgr[:, :, 0] if photo.is_gray else bgr
    if photo.is_gray:
        bgr = np.repeat(bgr, 3, axis=2)
    return np.dstack([bgr, photo.alpha])


@settings(max_examples=60, deadline=None)
@given(
    *(st.integers(1, 30), st.integers(1, 25), st.sampled_from([np.uint8, np.uint16])),
    *(st.booleans(), st.booleans(), st.integers(1, 400)),
)
def test_every_byte_is_filtered_as_specified_whatever_the_bands(
    height: int, width: int, dtype: type, is_gray: bool, has_alpha: bool, band_bytes: int
) -> None:
    photo = made(height, width, dtype, is_gray=is_gray, has_alpha=has_alpha)
    data = encoded(photo, band_bytes=band_bytes)
    found = chunks(data)
    assert found[0][0] == b"IHDR" and found[-1] == (b"IEND", b"")
    packed = b"".join(content for name, content in found if name == b"IDAT")
    assert zlib.decompress(packed) == filtered_slowly(photo)
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(decoded, in_order(photo))
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert image.size == (width, height)


def test_ties_in_the_filter_go_as_specified() -> None:
    """Few levels make the three distances equal often."""
    levels = np.random.default_rng(1).integers(0, 3, (40, 50, 1)).astype(np.uint8)
    photo = Photo(np.repeat(levels * 127, 3, axis=2), NOTHING, is_gray=True)
    packed = b"".join(content for name, content in chunks(encoded(photo)) if name == b"IDAT")
    assert zlib.decompress(packed) == filtered_slowly(photo)


def test_metadata_stand_before_the_pixels() -> None:
    """Section 5.6: colour profile and resolution come before the first IDAT; ours all do."""
    metadata = PhotoMetadata("PNG", exif=b"II*\x00", icc_profile=b"p" * 200, xmp=b"<x/>", dpi=(300.0, 150.0))
    photo = made(30, 30, np.uint8, is_gray=False, has_alpha=False)
    found = chunks(encoded(photo, metadata, band_bytes=100))
    names = [name for name, _ in found]
    assert names[:5] == [b"IHDR", b"iCCP", b"pHYs", b"iTXt", b"eXIf"]
    assert set(names[5:-1]) == {b"IDAT"}
    content = dict(found)
    assert content[b"pHYs"] == struct.pack(">IIB", 11811, 5906, 1)
    assert zlib.decompress(content[b"iCCP"].removeprefix(b"ICC profile\x00\x00")) == metadata.icc_profile


def test_files_are_not_larger_than_another_encoders() -> None:
    """OpenCV's at the same level and filter, on a slope with grain."""
    y, x = np.mgrid[:200, :300]
    grain = np.random.default_rng(0).normal(0, 3, (200, 300, 3))
    pixels = np.clip((x * 0.5 + y * 0.3)[:, :, None] + grain, 0, 255).astype(np.uint8)
    filters = [cv2.IMWRITE_PNG_COMPRESSION, 4, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_PAETH]
    _, other = cv2.imencode(".png", pixels, [*filters, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_FILTERED])
    assert len(encoded(Photo(pixels, NOTHING))) < 1.02 * len(other)


def test_text_of_a_png_stays_as_it_was(tmp_path: Path) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Author", "José")
    text.add_text("Comment", "long " * 99, zip=True)
    text.add_itxt("Description", "Großmutter 祖母", lang="de", tkey="Beschreibung")
    text.add_itxt("XML:com.adobe.xmp", "<x/>")
    text.add_text("Raw profile type APP1", "not the digits it should be")
    Image.fromarray(np.zeros((8, 9, 3), np.uint8)).save(tmp_path / "a.png", pnginfo=text)
    photo = read_photo(tmp_path / "a.png")
    assert photo.metadata.xmp == b"<x/>"
    assert write_photo(tmp_path / "b.png", photo) == ()
    names = (b"tEXt", b"zTXt", b"iTXt")
    before, after = ([c for c in chunks((tmp_path / f).read_bytes()) if c[0] in names] for f in ("a.png", "b.png"))
    assert [c for c in after if b"xmp" not in c[1]] == [c for c in before if b"xmp" not in c[1]]
    assert len(after) == 5
    with Image.open(tmp_path / "b.png") as image:
        assert image.info["Description"] == "Großmutter 祖母" and image.info["Description"].lang == "de"
    for suffix in ("jpg", "webp", "tif"):
        (note,) = write_photo(tmp_path / f"b.{suffix}", photo)
        assert note.startswith("Text of the PNG (Author, Comment, Description, Raw profile type APP1) was left out")


@given(st.binary(max_size=60))
def test_any_bytes_have_text_chunks_or_none(tail: bytes) -> None:
    for name in (b"tEXt", b"iTXt"):
        data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", len(tail) // 2) + name + tail
        assert len(pngchunks.text_chunks(io.BytesIO(data))) <= 6


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("gamma", [55556, 100000])
def test_a_png_with_a_gamma_of_its_own_looks_as_before(mode: str, gamma: int, tmp_path: Path) -> None:
    ramp = np.repeat(np.linspace(60, 250, 48).astype(np.uint8)[None], 48, axis=0)
    image = Image.fromarray(ramp.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(ramp).convert(mode)
    chunk = PngImagePlugin.PngInfo()
    chunk.add(b"gAMA", struct.pack(">I", gamma))
    image.save(tmp_path / "a.png", pnginfo=chunk)
    light = (ramp / 255) ** (100000 / gamma)
    expected = 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    photo = read_photo(tmp_path / "a.png")
    assert photo.is_gray is (mode not in ("RGB", "RGBA"))
    for suffix in ("bmp", "webp", *(() if mode == "I;16" else ("png", "tif"))):
        write_photo(tmp_path / f"b.{suffix}", photo)
        if suffix in ("png", "tif"):
            with Image.open(tmp_path / f"b.{suffix}") as written:
                assert written.mode == mode
        if "A" not in mode:
            np.testing.assert_allclose(shown(tmp_path / f"b.{suffix}")[..., 1], expected, atol=4)


def test_deep_gray_with_opacity_and_a_gamma_of_its_own_stays_gray(tmp_path: Path) -> None:
    data = encoded(made(20, 30, np.uint16, is_gray=True, has_alpha=True))
    header = 8 + 12 + 13
    path = tmp_path / "a.png"
    path.write_bytes(data[:header] + chunk(b"gAMA", struct.pack(">I", 100000)) + data[header:])
    photo = read_photo(path)
    assert profile_space(photo.metadata.icc_profile) == "GRAY"
    write_photo(tmp_path / "b.png", photo)
    assert (tmp_path / "b.png").read_bytes()[25] == 4, "gray with opacity"
    np.testing.assert_array_equal(read_photo(tmp_path / "b.png").pixels, photo.pixels)


@pytest.mark.parametrize("gamma", [45455, 45000, 0, 4_000_000_000])
def test_the_usual_gamma_and_absurd_ones_are_srgb(gamma: int, tmp_path: Path) -> None:
    chunk = PngImagePlugin.PngInfo()
    chunk.add(b"gAMA", struct.pack(">I", gamma))
    Image.fromarray(np.zeros((8, 9, 3), np.uint8)).save(tmp_path / "a.png", pnginfo=chunk)
    assert read_photo(tmp_path / "a.png").metadata.icc_profile is None
