"""What a TIFF says about its photo goes along byte for byte, whatever types and letters it uses."""

from __future__ import annotations

import io
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from raw_tiffs import long, text, undefined, write_raw_tiff
from sample_photos import colours

from gfprestore.formats.exif import ASCII, LONG, UNDEFINED, ExifError
from gfprestore.formats.metadata import tag_as_restored
from gfprestore.formats.tifftags import describing_block
from gfprestore.photofile import read_photo, write_photo

EXIF, GPS, INTEROPERABILITY = 0x8769, 0x8825, 0xA005
COMMENT = b"UNICODE\0K\0\xf6\0l\0n\0"


def loaded(block: bytes | None) -> Image.Exif:
    found = Image.Exif()
    found.load(block or b"")
    return found


def described(path: Path, order: str = "<") -> Path:
    camera = {0x9003: text(b"2001:01:01 00:00:00"), 0x9286: undefined(COMMENT)}
    interoperability = {1: text(b"R98"), 2: undefined(b"0100")}
    tags = {271: text(b"Canon")}
    return write_raw_tiff(path, colours(), tags, (INTEROPERABILITY, interoperability), (EXIF, camera), order=order)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
@pytest.mark.parametrize("suffix", [".tif", ".jpg", ".png"])
def test_captions_keep_their_letters(order: str, encoding: str, suffix: str, tmp_path: Path) -> None:
    caption, artist = ("Großmutter in Köln".encode(encoding), "José".encode(encoding))
    path = write_raw_tiff(tmp_path / "a.tif", colours(), {270: text(caption), 315: text(artist)}, order=order)
    photo = read_photo(path)
    assert photo.warnings == ()
    write_photo(tmp_path / f"b{suffix}", replace(photo, metadata=tag_as_restored(photo.metadata, "m", "1")))
    written = (tmp_path / f"b{suffix}").read_bytes()
    assert caption + b"\0" in written and artist + b"\0" in written


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    ("kind", "swapped"), [(1, False), (ASCII, False), (UNDEFINED, False), (LONG, False), (LONG, True)]
)
@pytest.mark.parametrize("size", range(5, 9))
def test_iptc_is_read_whatever_type_it_is_said_to_have(
    order: str, kind: int, swapped: bool, size: int, tmp_path: Path
) -> None:
    record = b"\x1c\x02\x05\x00\x02No\x1c\x02\x50" + struct.pack(">H", size) + b"Bob Ross"[:size]
    stored = record + bytes(-len(record) % 4 if kind == LONG else 0)
    if swapped:
        stored = np.frombuffer(stored, "<u4").astype(">u4").tobytes()
    value = kind, len(stored) // (4 if kind == LONG else 1), stored
    page = read_photo(write_raw_tiff(tmp_path / "a.tif", colours(), {33723: value}, order=order))
    assert page.metadata.iptc == record
    for name in ("b.tif", "b.jpg"):
        write_photo(tmp_path / name, page)
        assert read_photo(tmp_path / name).metadata.iptc == record


@pytest.mark.parametrize("order", "<>")
def test_inner_directories_keep_types_and_order(order: str, tmp_path: Path) -> None:
    block = read_photo(described(tmp_path / "a.tif", order)).metadata.exif
    assert block is not None and block[:2] == (b"II" if order == "<" else b"MM")
    assert struct.pack(order + "HHI", 0x9286, 7, len(COMMENT)) in block
    found = loaded(block)
    assert found[271] == "Canon"
    assert found.get_ifd(EXIF)[0x9286] == COMMENT
    assert found.get_ifd(INTEROPERABILITY) == {1: "R98", 2: b"0100"}


def test_further_pages_keep_their_inner_directories(tmp_path: Path) -> None:
    photo = read_photo(described(tmp_path / "a.tif"))
    tagged = replace(photo, metadata=tag_as_restored(photo.metadata, "m", "1"))
    write_photo(tmp_path / "b.tif", tagged, further_pages=[tagged, tagged])
    for page in range(3):
        found = loaded(read_photo(tmp_path / "b.tif", page).metadata.exif)
        assert found.get_ifd(EXIF)[0x9286] == COMMENT
        assert found.get_ifd(INTEROPERABILITY)[1] == "R98"


def test_bigtiffs_are_described_as_well(tmp_path: Path) -> None:
    caption = [(270, 2, 0, "Köln".encode(), True)]
    tifffile.imwrite(tmp_path / "a.tif", colours(), photometric="rgb", bigtiff=True, metadata=None, extratags=caption)
    assert "Köln".encode() in (read_photo(tmp_path / "a.tif").metadata.exif or b"")


@pytest.mark.parametrize("pointer", [0, 3, 999_999])
def test_a_directory_that_is_not_there_is_left_out_and_told(pointer: int, tmp_path: Path) -> None:
    tags = {270: text(b"Oma"), EXIF: long("<", pointer)}
    photo = read_photo(write_raw_tiff(tmp_path / "a.tif", colours(), tags))
    assert loaded(photo.metadata.exif)[270] == "Oma"
    assert photo.warnings == ("A part of the EXIF data is damaged and was left out.",)


def test_values_that_claim_too_much_are_left_out(tmp_path: Path) -> None:
    """Many entries may point at one large value."""
    large = undefined(bytes(9 << 20))
    photo = read_photo(write_raw_tiff(tmp_path / "a.tif", colours(), {270: large, 271: large, 272: text(b"X")}))
    assert len(photo.metadata.exif or b"") < 10 << 20
    assert loaded(photo.metadata.exif)[272] == "X"
    assert len(photo.warnings) == 1


def test_a_tiff_that_says_nothing_has_no_block(tmp_path: Path) -> None:
    photo = read_photo(write_raw_tiff(tmp_path / "a.tif", np.zeros((8, 9), np.uint8), {}))
    assert photo.metadata.exif is None and photo.warnings == ()


def test_an_xmp_packet_of_the_wrong_type_is_read(tmp_path: Path) -> None:
    packet = "<x:xmpmeta>Köln</x:xmpmeta>".encode()
    photo = read_photo(write_raw_tiff(tmp_path / "a.tif", colours(), {700: text(packet)}))
    assert photo.metadata.xmp == packet
    assert read_photo(write_raw_tiff(tmp_path / "b.tif", colours(), {700: long("<", 5)})).metadata.xmp is None


@given(
    st.binary(max_size=120),
    st.sampled_from([b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b"II+\0\x08\0\0\0\x10" + bytes(7)]),
)
def test_any_bytes_are_copied_or_refused(tail: bytes, head: bytes) -> None:
    for frame in (0, 3):
        try:
            describing_block(io.BytesIO(head + tail), frame, (270, 271))
        except ExifError as error:
            assert str(error)
