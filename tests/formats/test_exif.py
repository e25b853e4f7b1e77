"""EXIF blocks are edited where they stand: nothing else moves, and damage is told."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gfprestore.formats import exif
from gfprestore.formats.exifresolution import resolution, resolution_entries


def block(order: str, *entries: tuple[int, int, int, bytes], following: int = 0, tail: bytes = b"") -> bytes:
    header = (b"II*\x00" if order == "<" else b"MM\x00*") + struct.pack(order + "I", 8)
    packed = b"".join(struct.pack(order + "HHI", *entry[:3]) + entry[3].ljust(4, b"\0") for entry in entries)
    return header + struct.pack(order + "H", len(entries)) + packed + struct.pack(order + "I", following) + tail


def orientation_entry(order: str, number: int) -> tuple[int, int, int, bytes]:
    return (exif.ORIENTATION, exif.SHORT, 1, struct.pack(order + "H", number))


def loaded(data: bytes) -> Image.Exif:
    found = Image.Exif()
    found.load(data)
    return found


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("number", range(12))
def test_orientation_is_read_and_reset(order: str, number: int) -> None:
    data = block(order, orientation_entry(order, number), (0x010F, exif.ASCII, 3, b"ab\0"))
    assert exif.orientation(data) == (number if 1 <= number <= 8 else 1)
    edited = exif.upright(data)
    assert exif.orientation(edited) == 1
    assert len(edited) == len(data)
    assert sum(a != b for a, b in zip(data, edited, strict=True)) <= 1
    assert loaded(edited)[0x010F] == "ab"


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("tail", [b"", b"maker note"])
def test_the_thumbnail_goes_and_nothing_moves(order: str, tail: bytes) -> None:
    thumbnail = b"\xff\xd8thumbnail\xff\xd9"
    first = block(order, orientation_entry(order, 6), following=0)
    at = len(first) + 2 + 24 + 4
    second = struct.pack(order + "H", 2)
    second += struct.pack(order + "HHII", 0x0201, exif.LONG, 1, at)
    second += struct.pack(order + "HHII", 0x0202, exif.LONG, 1, len(thumbnail)) + bytes(4)
    data = block(order, orientation_entry(order, 6), following=len(first), tail=second + thumbnail + tail)
    edited = exif.upright(data)
    assert b"thumbnail" not in edited
    assert edited.endswith(tail)
    assert not loaded(edited).get_ifd(1)
    if tail:
        assert edited.index(tail) == data.index(tail)


@pytest.mark.parametrize("missing", range(1, 5))
def test_a_block_that_ends_with_its_directory_is_completed(missing: int) -> None:
    whole = block("<", orientation_entry("<", 6), (0x010F, exif.ASCII, 3, b"ab\0"))
    edited = exif.upright(whole[:-missing])
    assert edited == exif.upright(whole)
    assert exif.orientation(whole[:-missing]) == 6
    with pytest.raises(exif.ExifError):
        exif.upright(whole[:-5])


@given(st.text(max_size=40), st.binary(max_size=9), st.sampled_from("<>"))
def test_text_is_added_and_values_stay(text: str, tail: bytes, order: str) -> None:
    text = text.replace("\0", "")
    data = block(order, (0x010F, exif.ASCII, 6, struct.pack(order + "I", 26)), tail=b"maker\0" + tail)
    edited = exif.with_text(data, exif.SOFTWARE, text)
    assert edited[8 : len(data)] == data[8:]
    found = loaded(edited)
    assert found[0x010F] == "maker"
    assert found[exif.SOFTWARE] == text.encode("ascii", "replace").decode()
    assert loaded(exif.with_text(edited, exif.SOFTWARE, "again"))[exif.SOFTWARE] == "again"


def test_text_in_an_empty_block() -> None:
    assert dict(loaded(exif.with_text(exif.EMPTY_BLOCK, exif.SOFTWARE, "tool 1"))) == {exif.SOFTWARE: "tool 1"}


@pytest.mark.parametrize("kind", [exif.SHORT, exif.LONG])
def test_pixel_dimensions_become_the_results(kind: int) -> None:
    made = Image.Exif()
    made.get_ifd(exif.EXIF_DIRECTORY)[0xA002] = 100 if kind == exif.SHORT else 70000
    made.get_ifd(exif.EXIF_DIRECTORY)[0xA003] = 50
    made.get_ifd(exif.EXIF_DIRECTORY)[0x9003] = "1962:07:01 12:00:00"
    made[0x0100], made[0x0101] = 100, 50
    sized = loaded(exif.with_size(made.tobytes()[6:], 80000, 40000))
    assert (sized[0x0100], sized[0x0101]) == (80000, 40000)
    found = sized.get_ifd(exif.EXIF_DIRECTORY)
    assert (found[0xA002], found[0xA003]) == (80000, 40000)
    assert found[0x9003] == "1962:07:01 12:00:00"
    assert exif.with_size(exif.EMPTY_BLOCK, 1, 1) == exif.EMPTY_BLOCK
    alone = block("<", (0x0101, exif.SHORT, 1, b"\x05\0"))
    assert dict(loaded(exif.with_size(alone, 80000, 40000))) == {0x0101: 40000}


@pytest.mark.parametrize("order", "<>")
def test_resolutions_are_set_and_read(order: str) -> None:
    empty = block(order)
    assert resolution(empty) is None
    edited = exif.with_entries(empty, resolution_entries(order, (300.0, 72.5)))
    assert resolution(edited) == (300.0, 72.5)
    for unit, expected in ((1, None), (3, (300 * 2.54, 72.5 * 2.54))):
        entry = {exif.RESOLUTION_UNIT: exif.pack(order, exif.SHORT, [unit])}
        assert resolution(exif.with_entries(edited, entry)) == expected
    nothing = {exif.X_RESOLUTION: exif.pack(order, exif.RATIONAL, [1, 0])}
    assert resolution(exif.with_entries(edited, nothing)) is None


@given(st.binary(max_size=80), st.sampled_from([b"", b"II*\x00\x08\x00\x00\x00", b"MM\x00*\x00\x00\x00\x08"]))
def test_any_bytes_are_edited_or_refused(tail: bytes, head: bytes) -> None:
    data = head + tail
    for edit in (
        exif.orientation,
        exif.upright,
        resolution,
        lambda b: exif.text(b, 0x010E),
        lambda b: exif.with_text(b, 305, "t"),
        lambda b: exif.with_size(b, 9, 9),
    ):
        try:
            edit(data)
        except exif.ExifError as error:
            assert str(error)
