"""Edits EXIF blocks in place, as the TIFF structures they are (TIFF 6.0 section 2, EXIF 2.32 section 4.6).

Values are never moved: maker notes hold offsets from the block's start that nobody but the camera's maker knows, so a
block that is parsed and written anew loses them. New entries are appended with a new copy of the first directory.
A block here starts with the byte order mark, without JPEG's `Exif` prefix.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

EMPTY_BLOCK = b"II*\x00\x08\x00\x00\x00" + bytes(6)
"""A block with no entries."""

_PREFIX = b"Exif\x00\x00"
"""What a JPEG's segment APP1 holds before the block."""

ASCII, SHORT, LONG, RATIONAL, UNDEFINED = 2, 3, 4, 5, 7
"""Types of values, TIFF 6.0 page 15."""

DESCRIPTION = 0x010E
ORIENTATION = 0x0112
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 0x011A, 0x011B, 0x0128
SOFTWARE = 0x0131

EXIF_DIRECTORY, GPS_DIRECTORY, INTEROPERABILITY_DIRECTORY = 0x8769, 0x8825, 0xA005
"""Tags whose value is the offset of another directory."""

VALUE_BYTES = {
    1: 1,
    ASCII: 1,
    SHORT: 2,
    LONG: 4,
    RATIONAL: 8,
    6: 1,
    UNDEFINED: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
}
"""Bytes of one value of each type."""

_FIRST_SIZE, _INNER_SIZE = (0x0100, 0x0101), (0xA002, 0xA003)
"""Tags of width and height in the first directory and in that of Exif."""

_THUMBNAIL_AT, _THUMBNAIL_BYTES = 0x0201, 0x0202
ENTRY_BYTES = 12


class ExifError(ValueError):
    """The block is not the structure it should be."""


@dataclass(frozen=True)
class Directory:
    """One list of entries."""

    order: str
    """`<` or `>`, as `struct` writes it."""

    places: dict[int, int]
    """Tag -> where its 12 bytes stand in the block."""

    start: int
    """Where the number of its entries stands."""

    end: int
    """Where the offset of the next directory stands, or would: some programs leave it out of a block's last one."""


def without_prefix(block: bytes) -> bytes:
    """The block from its byte order mark on; some programs write JPEG's prefix where none belongs, or twice."""
    while block.startswith(_PREFIX):
        block = block[len(_PREFIX) :]
    return block


def byte_order(block: bytes) -> str:
    """Byte order of a block's numbers: `<` or `>`.

    Raises:
        ExifError: The block has no TIFF header.
    """
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(bytes(block[:4]))
    if order is None or len(block) < 8:
        raise ExifError("no TIFF header")
    return order


def directory_at(block: bytes | bytearray, order: str, at: int) -> Directory:
    """The directory that stands at an offset.

    Raises:
        ExifError: It is not within the block.
    """
    if not 8 <= at <= len(block) - 2:
        raise ExifError("directory outside the block")
    (count,) = struct.unpack_from(order + "H", block, at)
    end = at + 2 + ENTRY_BYTES * count
    if end > len(block):
        raise ExifError("directory longer than the block")
    places = {}
    for place in range(at + 2, end, ENTRY_BYTES):
        places[struct.unpack_from(order + "H", block, place)[0]] = place
    return Directory(order, places, at, end)


def first_directory(block: bytes | bytearray) -> Directory:
    """The directory that the header names.

    Raises:
        ExifError: The block is damaged.
    """
    order = byte_order(bytes(block[:8]))
    return directory_at(block, order, struct.unpack_from(order + "I", block, 4)[0])


def whole_number(block: bytes | bytearray, directory: Directory, tag: int) -> int | None:
    """The single whole number of an entry; None where there is none such."""
    place = directory.places.get(tag)
    if place is None:
        return None
    kind, count = struct.unpack_from(directory.order + "HI", block, place + 2)
    if count != 1 or kind not in (SHORT, LONG):
        return None
    return int(struct.unpack_from(directory.order + ("H" if kind == SHORT else "I"), block, place + 8)[0])


def orientation(block: bytes) -> int | None:
    """The orientation, 1 to 8; 1 where the block names an absurd one, None where it names none.

    Raises:
        ExifError: The block is damaged.
    """
    first = first_directory(block)
    if ORIENTATION not in first.places:
        return None
    number = whole_number(block, first, ORIENTATION)
    return number if number is not None and 1 <= number <= 8 else 1


def upright(block: bytes) -> bytes:
    """The block with orientation 1, a whole first directory and no thumbnail, which would show the photo as it was.

    Raises:
        ExifError: The block is damaged.
    """
    edited = bytearray(block)
    first = first_directory(edited)
    place = first.places.get(ORIENTATION)
    if place is not None:
        struct.pack_into(first.order + "HIHH", edited, place + 2, SHORT, 1, 1, 0)
    edited += bytes(max(0, first.end + 4 - len(edited)))
    (following,) = struct.unpack_from(first.order + "I", edited, first.end)
    if following:
        struct.pack_into(first.order + "I", edited, first.end, 0)
        _erase_thumbnail(edited, first, following)
    return bytes(edited)


def _erase_thumbnail(edited: bytearray, first: Directory, at: int) -> None:
    try:
        second = directory_at(edited, first.order, at)
    except ExifError:
        return
    start = whole_number(edited, second, _THUMBNAIL_AT)
    size = whole_number(edited, second, _THUMBNAIL_BYTES)
    # A thumbnail that claims a place among the directories is a lie that would erase them.
    if start is None or size is None or start < max(first.end, second.end) or start + size > len(edited):
        return
    if start + size == len(edited):
        del edited[start:]
    else:
        edited[start : start + size] = bytes(size)


def with_size(block: bytes, width: int, height: int) -> bytes:
    """The block with the pixel dimensions that it names, if any, set to the photo's.

    Raises:
        ExifError: The block is damaged.
    """
    edited = bytearray(block)
    first = first_directory(edited)
    places = [first.places.get(tag) for tag in _FIRST_SIZE]
    at = whole_number(edited, first, EXIF_DIRECTORY)
    if at is not None:
        inner = directory_at(edited, first.order, at)
        places += [inner.places.get(tag) for tag in _INNER_SIZE]
    for place, number in zip(places, (width, height) * 2, strict=False):
        if place is not None:
            struct.pack_into(first.order + "HII", edited, place + 2, LONG, 1, number)
    return bytes(edited)


def pack(order: str, kind: int, numbers: Iterable[int]) -> tuple[int, int, bytes]:
    """An entry's type, count and bytes from whole numbers; a rational is two of them."""
    listed = list(numbers)
    data = struct.pack(order + {SHORT: "H", LONG: "I", RATIONAL: "I"}[kind] * len(listed), *listed)
    return kind, len(listed) // (2 if kind == RATIONAL else 1), data


def text(block: bytes, tag: int) -> bytes:
    """The text of an entry of the first directory, without what pads it; empty where there is none.

    Raises:
        ExifError: The block is damaged.
    """
    first = first_directory(block)
    place = first.places.get(tag)
    if place is None:
        return b""
    kind, count, at = struct.unpack_from(first.order + "HII", block, place + 2)
    size = VALUE_BYTES.get(kind, 1) * count
    if size <= 4:
        at = place + 8
    return block[at : at + size].strip(b"\x00 ")


def with_text(block: bytes, tag: int, text: str) -> bytes:
    """The block with a text entry set in its first directory; characters beyond ASCII become `?`.

    Raises:
        ExifError: The block is damaged.
    """
    data = text.encode("ascii", "replace") + b"\x00"
    return with_entries(block, {tag: (ASCII, len(data), data)})


def with_entries(block: bytes, entries: Mapping[int, tuple[int, int, bytes]]) -> bytes:
    """The block with entries set in its first directory: tag -> type, count and bytes in the block's byte order.

    Raises:
        ExifError: The block is damaged.
    """
    padded = block + bytes(len(block) % 2)
    directory = directory_bytes(padded, entries, len(padded))
    return padded[:4] + struct.pack(byte_order(block) + "I", len(padded)) + padded[8:] + directory


def directory_bytes(
    block: bytes, entries: Mapping[int, tuple[int, int, bytes]], at: int, tags: Collection[int] | None = None
) -> bytes:
    """A new first directory: the block's entries, replaced or joined by others, to stand at `at`, followed by values.

    Args:
        block: Whose values stay where they are.
        entries: Tag -> type, count and bytes in the block's byte order.
        at: Offset, even, at which the result will stand.
        tags: Those of the block's entries to keep; None keeps all.

    Raises:
        ExifError: The block is damaged.
    """
    first = first_directory(block)
    order = first.order
    kept = {
        tag: block[place : place + ENTRY_BYTES]
        for tag, place in first.places.items()
        if tag not in entries and (tags is None or tag in tags)
    }
    values = bytearray()
    values_at = at + 2 + ENTRY_BYTES * (len(kept) + len(entries)) + 4
    for tag, (kind, count, data) in entries.items():
        if len(data) <= 4:
            field = data.ljust(4, b"\x00")
        else:
            field = struct.pack(order + "I", values_at + len(values))
            values += data + bytes(len(data) % 2)
        kept[tag] = struct.pack(order + "HHI", tag, kind, count) + field
    return struct.pack(order + "H", len(kept)) + b"".join(kept[tag] for tag in sorted(kept)) + bytes(4) + values
