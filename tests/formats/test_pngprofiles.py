"""Profiles in a PNG's text become what they are, and stay text where they are not understood."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sample_photos import chunk, colours, full_metadata, profile, saved

from gfprestore.formats.photoshop import SEGMENT_PREFIX, iptc_resource
from gfprestore.formats.pngprofiles import raw_profiles
from gfprestore.photo import PhotoMetadata
from gfprestore.photofile import read_photo, write_photo

FULL = full_metadata()
XMP = b'<a tiff:Orientation="1"/>'
IPTC = FULL.iptc or b""
EXIF = FULL.exif or b""
RESOLUTION = b"8BIM" + struct.pack(">HHI", 0x03ED, 0, 2) + b"ab"


def raw(kind: str, data: bytes, *, size: int | None = None) -> bytes:
    """A chunk as ImageMagick writes it."""
    digits = data.hex()
    lines = [digits[at : at + 72] for at in range(0, len(digits), 72)]
    text = "\n".join(["", kind.lower(), f"{len(data) if size is None else size:8}", *lines, ""])
    return chunk(b"zTXt", f"Raw profile type {kind}".encode() + b"\0\0" + zlib.compress(text.encode()))


def png(path: Path, *chunks: bytes, **settings: object) -> Path:
    data = saved(path, Image.fromarray(colours()), **settings).read_bytes()
    path.write_bytes(data[:33] + b"".join(chunks) + data[33:])
    return path


def fields(metadata: PhotoMetadata) -> dict[str, bytes]:
    found = {name: getattr(metadata, name) for name in ("exif", "xmp", "iptc", "icc_profile")}
    return {name: data for name, data in found.items() if data is not None}


@pytest.mark.parametrize(
    ("kind", "data", "field", "expected"),
    [
        ("exif", EXIF, "exif", EXIF),
        ("exif", b"Exif\0\0" + EXIF, "exif", EXIF),
        ("APP1", b"Exif\0\0Exif\0\0" + EXIF, "exif", EXIF),
        ("APP1", b"http://ns.adobe.com/xap/1.0/\0" + XMP, "xmp", XMP),
        ("xmp", XMP, "xmp", XMP),
        ("icc", profile("wide"), "icc_profile", profile("wide")),
        ("icm", profile("wide"), "icc_profile", profile("wide")),
        ("iptc", IPTC, "iptc", IPTC),
        ("iptc", SEGMENT_PREFIX + RESOLUTION + iptc_resource(IPTC), "iptc", IPTC),
        ("8bim", RESOLUTION + iptc_resource(IPTC), "iptc", IPTC),
    ],
)
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_a_profile_in_the_text_is_kept_as_what_it_is(
    kind: str, data: bytes, field: str, expected: bytes, suffix: str, tmp_path: Path
) -> None:
    found = read_photo(png(tmp_path / "a.png", raw(kind, data)))
    assert fields(found.metadata) == {field: expected}
    assert found.metadata.png_text == found.warnings == ()
    assert write_photo(tmp_path / f"b{suffix}", found) == ()
    again = read_photo(tmp_path / f"b{suffix}").metadata
    assert fields(again).keys() == {field}
    assert again.png_text == ()
    if suffix != ".tif":
        assert fields(again) == {field: expected}


def test_its_orientation_turns_the_photo(tmp_path: Path) -> None:
    block = Image.Exif()
    block[0x0112] = 6
    for chunks in (raw("APP1", block.tobytes()), raw("xmp", b'<a tiff:Orientation="6"/>')):
        found = read_photo(png(tmp_path / "a.png", chunks))
        np.testing.assert_array_equal(found.pixels, np.rot90(colours(), -1))


def test_chunks_of_their_own_count_more(tmp_path: Path) -> None:
    chunks = [raw("icc", profile("srgb")), raw("xmp", XMP), raw("exif", b"other")]
    packet = chunk(b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + b"<own/>")
    path = png(tmp_path / "a.png", *chunks, packet, icc_profile=profile("wide"), exif=EXIF)
    metadata = read_photo(path).metadata
    assert fields(metadata) == {"exif": EXIF, "xmp": b"<own/>", "icc_profile": profile("wide")}
    assert metadata.png_text == ()


def test_a_profile_beside_a_chunk_that_says_srgb_stays_text(tmp_path: Path) -> None:
    metadata = read_photo(png(tmp_path / "a.png", chunk(b"sRGB", b"\0"), raw("icc", profile("wide")))).metadata
    assert metadata.icc_profile is None
    assert [content[:20] for _, content in metadata.png_text] == [b"Raw profile type icc"]


@pytest.mark.parametrize(
    "chunks",
    [
        raw("icc", b"no profile"),
        raw("8bim", RESOLUTION),
        raw("APP1", b"neither"),
        raw("generic", b"unknown"),
        raw("xmp", XMP, size=len(XMP) + 1),
        raw("xmp", b""),
        chunk(b"tEXt", b"Raw profile type xmp\0\nxmp\n  3\nabcde\n"),
        chunk(b"tEXt", b"Raw profile type exif\0\nexif\n  " + b"9" * 5000 + b"\nabcd\n"),
    ],
)
def test_what_is_not_understood_stays_text(chunks: bytes, tmp_path: Path) -> None:
    metadata = read_photo(png(tmp_path / "a.png", chunks)).metadata
    assert fields(metadata) == {}
    assert [chunk(name, content) for name, content in metadata.png_text] == [chunks]


@given(st.text(max_size=60), st.sampled_from(["exif", "APP1", "xmp", "icc", "iptc", "8bim"]))
def test_any_text_is_a_profile_or_none(text: str, kind: str) -> None:
    for content in (text, f"\n{kind}\n  3\n{text}", f"\n{kind}\n3\n{text.encode().hex()}"):
        assert len(raw_profiles({f"Raw profile type {kind}": content})) <= 1
