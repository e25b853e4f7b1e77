"""EXIF blocks become part of another file: offsets and byte order change, and nothing else."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from raw_tiffs import short, text, write_raw_tiff
from sample_photos import colours, full_metadata

from gfprestore.formats import exif, exifmoves
from gfprestore.photofile import read_photo


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 2**20), st.sampled_from(["<", ">"]))
def test_any_block_is_moved_or_refused(tail: bytes, distance: int, order: str) -> None:
    header = (b"II*\x00" if order == "<" else b"MM\x00*") + struct.pack(order + "I", 8)
    try:
        result = exifmoves.moved(header + tail, distance)
    except exif.ExifError:
        return
    assert len(result) == len(header + tail) and result[:8] == header


@pytest.mark.parametrize("order", ["<", ">"])
def test_moving_changes_offsets_and_nothing_else(order: str) -> None:
    entries = [(0x010E, exif.ASCII, 9, 50), (0x0112, exif.SHORT, 1, None), (exif.EXIF_DIRECTORY, exif.LONG, 1, 60)]
    packed = b"".join(
        struct.pack(order + "HHI", tag, kind, count)
        + (struct.pack(order + "HH", 6, 0) if value is None else struct.pack(order + "I", value))
        for tag, kind, count, value in entries
    )
    header = (b"II*\x00" if order == "<" else b"MM\x00*") + struct.pack(order + "I", 8)
    block = header + struct.pack(order + "H", 3) + packed + bytes(4)
    assert len(block) == 50
    inner = struct.pack(order + "HHHIIHHIHHI", 2, 0x9003, exif.ASCII, 20, 90, 0xA001, exif.SHORT, 1, 1, 0, 0)
    block += b"Aunt Mary\0" + inner + b"1962:07:01 12:00:00\0"
    moved = exifmoves.moved(block, 1000)
    differing = {place for place in range(0, len(block)) if block[place] != moved[place]}
    offsets = [(18, 50), (42, 60), (70, 90)]
    assert all(struct.unpack_from(order + "I", moved, place)[0] == value + 1000 for place, value in offsets)
    assert differing <= {place + byte for place, _ in offsets for byte in range(4)}


def described() -> bytes:
    """Numbers of every type."""
    made = Image.Exif()
    made.load(full_metadata().exif or b"")
    made[0x011A] = 300.5
    made[0x0129] = (2, 3)
    inner = made.get_ifd(exif.EXIF_DIRECTORY)
    inner[0x8827], inner[0x9204], inner[0x9286] = (100, 200, 300), -1.5, b"UNICODE\0K\0o\0"
    made.get_ifd(exif.GPS_DIRECTORY)[2] = (48.0, 8.0, 30.25)
    return made.tobytes()[6:]


def everything(block: bytes) -> list[dict[int, object]]:
    found = Image.Exif()
    found.load(block)
    directories = (exif.EXIF_DIRECTORY, exif.GPS_DIRECTORY, exif.INTEROPERABILITY_DIRECTORY)
    first = {tag: value for tag, value in found.items() if tag not in directories}
    inner = [dict(found.get_ifd(tag)) for tag in directories]
    return [first, *({tag: value for tag, value in entries.items() if tag not in directories} for entries in inner)]


def test_in_the_other_order_a_block_says_the_same() -> None:
    block = described()
    own = exif.byte_order(block)
    other = ">" if own == "<" else "<"
    swapped = exifmoves.in_order(block, other)
    assert exif.byte_order(swapped) == other and len(swapped) == len(block)
    assert everything(swapped) == everything(block)
    assert [len(entries) for entries in everything(block)] == [3, 5, 2, 0]
    assert exifmoves.in_order(swapped, own) == block
    assert exifmoves.in_order(block, own) is block


def test_it_is_what_a_file_in_that_order_says(tmp_path: Path) -> None:
    blocks = []
    for order in "<>":
        camera = {0x9003: text(b"2001:01:01 00:00:00"), 0xA002: short(order, 9)}
        inner = ((exif.INTEROPERABILITY_DIRECTORY, {1: text(b"R98")}), (exif.EXIF_DIRECTORY, camera))
        path = write_raw_tiff(tmp_path / "a.tif", colours(), {0x0129: short(order, 2, 3)}, *inner, order=order)
        blocks.append(read_photo(path).metadata.exif)
    assert exifmoves.in_order(blocks[0], ">") == blocks[1]
    assert exifmoves.in_order(blocks[1], "<") == blocks[0]


def test_values_that_entries_share_are_turned_once() -> None:
    entries = [(tag, exif.SHORT, 3, 8 + 2 + 24 + 4) for tag in (0x0102, 0x0153)]
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    block = b"II*\0\x08\0\0\0" + struct.pack("<H", 2) + packed + bytes(4) + struct.pack("<3H", 1, 2, 3)
    assert exifmoves.in_order(block, ">")[-6:] == struct.pack(">3H", 1, 2, 3)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=60), st.sampled_from(["<", ">"]), st.sampled_from(["<", ">"]))
def test_any_block_is_put_in_order_or_refused(tail: bytes, order: str, wanted: str) -> None:
    header = (b"II*\x00" if order == "<" else b"MM\x00*") + struct.pack(order + "I", 8)
    try:
        result = exifmoves.in_order(header + tail, wanted)
    except exif.ExifError:
        return
    assert len(result) == len(header + tail) and exif.byte_order(result) == wanted
