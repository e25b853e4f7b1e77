"""Reads what a TIFF says about its photo into an EXIF block, byte for byte (TIFF 6.0 section 2, and BigTIFF).

A reader that decodes values loses what it does not expect: captions beyond ASCII, types that a tag should not have. So
values are copied as they stand, and only the directories around them are made anew.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import BinaryIO

from gfprestore.formats.exif import (
    EXIF_DIRECTORY,
    GPS_DIRECTORY,
    INTEROPERABILITY_DIRECTORY,
    LONG,
    ORIENTATION,
    SHORT,
    SOFTWARE,
    VALUE_BYTES,
    ExifError,
    directory_bytes,
    pack,
)
from gfprestore.formats.exifmoves import INNER, Tree

DESCRIBING_TAGS = frozenset(
    {
        *(0x010D, 0x010E, 0x010F, 0x0110, 0x011D, 0x011E, 0x011F, 0x0129),
        *(ORIENTATION, SOFTWARE, 0x0132, 0x013B, 0x013C),
        *(0x4746, 0x4749, 0x8298, *range(0x9C9B, 0x9CA0), 0xC4A5),
        *(0x829A, 0x829D, 0x8822, 0x8827, *range(0x9003, 0x9300)),
    }
)
"""Tags of a first directory that describe the photo and not how its pixels are stored, and its orientation.

TIFF's own (TIFF 6.0, EXIF 2.32 table 4); ratings, copyright, Windows' captions and a printer's hints; and what EXIF has
in a directory of its own, which TIFF/EP (ISO 12234-2) has in the first one.
"""

_POINTERS = (EXIF_DIRECTORY, GPS_DIRECTORY, INTEROPERABILITY_DIRECTORY)
_DIRECTORY_TYPES = (13, 18)
"""Tags and types of values that are offsets of directories; out of place, nothing is known of what they point to."""

_STRIPS, _TILES = (273, 279), (324, 325)
"""Tags of where the parts of a page's pixels stand, and of their bytes."""

_NUMBERS = {SHORT: "H", LONG: "I", 16: "Q"}
"""Types of these tags: `struct`'s letters by number, BigTIFF's own among them."""

_MOST_BYTES = 1 << 24
"""Of all values together. Maker notes have less; entries that share one large value would fill the memory."""


@dataclass
class _Entries:
    """One directory as it was read."""

    values: dict[int, tuple[int, int, bytes]] = field(default_factory=dict)
    """Tag -> type, count and bytes in the file's order."""

    inner: dict[int, _Entries] = field(default_factory=dict)
    """Tag -> the directory that it points to."""


def describing_block(stream: BinaryIO, frame: int, tags: Collection[int]) -> tuple[bytes | None, bool]:
    """Copies the describing tags of one frame, with its Exif, GPS and interoperability directories.

    Args:
        stream: A TIFF file, open for reading.
        frame: Which directory of its chain, from 0.
        tags: Those of the frame's own directory to copy.

    Returns:
        A block for `gfprestore.formats.exif` in the file's byte order, None where there is nothing to say; and whether
        parts of it are damaged and were left out.

    Raises:
        ExifError: The frame's directory cannot be read.
    """
    file = _File(stream)
    found = file.read(file.frame_at(frame), INNER, tags)
    if not found.values and not found.inner:
        return None, file.is_damaged
    header = (b"II*\x00" if file.order == "<" else b"MM\x00*") + struct.pack(file.order + "I", 8)
    block = bytearray(header + bytes(6))
    at = _append(block, bytes(block), file.order, found)
    struct.pack_into(file.order + "I", block, 4, at)
    return bytes(block), file.is_damaged


def holds_its_pixels(stream: BinaryIO, frame: int) -> bool:
    """Whether a frame's directory and the strips or tiles that it names lie within the file.

    Args:
        stream: A TIFF file, open for reading.
        frame: Which directory of its chain, from 0.
    """
    try:
        file = _File(stream)
        place_tags, size_tags = zip(_STRIPS, _TILES, strict=True)
        numbers = file.numbers(file.frame_at(frame), {*place_tags, *size_tags})
    except ExifError:
        return False
    places = [number for tag in place_tags for number in numbers.get(tag, ())]
    sizes = [number for tag in size_tags for number in numbers.get(tag, ())]
    return 0 < len(places) == len(sizes) and all(at + size <= file.size for at, size in zip(places, sizes, strict=True))


def value_bytes(stream: BinaryIO, frame: int, tag: int) -> bytes | None:
    """The value of a tag as it stands in the file, whatever type it is said to have; None where there is none.

    Args:
        stream: A TIFF file, open for reading.
        frame: Which directory of its chain, from 0.
        tag: Of that directory.
    """
    try:
        file = _File(stream)
        found = file.read(file.frame_at(frame), {}, {tag}).values.get(tag)
    except ExifError:
        return None
    return None if found is None else found[2]


def _append(block: bytearray, empty: bytes, order: str, directory: _Entries) -> int:
    """Adds a directory after those that it points to, and returns where it stands."""
    entries = dict(directory.values)
    for tag, inner in directory.inner.items():
        entries[tag] = pack(order, LONG, [_append(block, empty, order, inner)])
    at = len(block)
    block += directory_bytes(empty, entries, at)
    return at


class _File:
    """A TIFF file of untrusted numbers."""

    def __init__(self, stream: BinaryIO) -> None:
        """Reads the header; raises `ExifError` where it is none."""
        self._stream = stream
        self.size = stream.seek(0, os.SEEK_END)
        self._left = _MOST_BYTES
        start = self._bytes(0, 8)
        order = {b"II": "<", b"MM": ">"}.get(start[:2])
        if order is None:
            raise ExifError("no TIFF header")
        self.order = order
        self._is_big = struct.unpack(order + "H", start[2:4])[0] == 43
        self._offset = "Q" if self._is_big else "I"
        self._first_at = 8 if self._is_big else 4
        self.is_damaged = False

    def frame_at(self, frame: int) -> int:
        """Where the directory of a frame stands."""
        at = self._number(self._first_at, self._offset)
        for _ in range(frame):
            places = self._places(at)
            at = self._number(places.stop, self._offset)
        return at

    def read(self, at: int, inner: Tree, tags: Collection[int] | None = None) -> _Entries:
        """Reads a directory: the tags asked for, or all that are whole, and the directories that it points to."""
        found = _Entries()
        for place in self._places(at):
            tag = self._number(place, "H")
            try:
                if tag in inner:
                    pointer = self._number(place + (12 if self._is_big else 8), self._offset)
                    found.inner[tag] = self.read(pointer, inner[tag])
                elif (tags is None and not self._is_pointer(place, tag)) or (tags is not None and tag in tags):
                    found.values[tag] = self._value(place)
            except ExifError:
                self.is_damaged = True
        return found

    def _is_pointer(self, place: int, tag: int) -> bool:
        return tag in _POINTERS or self._number(place + 2, "H") in _DIRECTORY_TYPES

    def numbers(self, at: int, tags: Collection[int]) -> dict[int, tuple[int, ...]]:
        """Reads whole numbers of a directory: tag -> values."""
        found = {}
        for place in self._places(at):
            tag, kind = self._number(place, "H"), self._number(place + 2, "H")
            if tag in tags and kind in _NUMBERS:
                letter, count = _NUMBERS[kind], self._number(place + 4, self._offset)
                data = self._bytes(*self._extent(place, struct.calcsize("=" + letter) * count))
                found[tag] = struct.unpack(f"{self.order}{count}{letter}", data)
        return found

    def _places(self, at: int) -> range:
        """Where the entries of a directory stand, up to the offset of the next one."""
        counter, entry = ("Q", 20) if self._is_big else ("H", 12)
        count = self._number(at, counter)
        start = at + struct.calcsize("=" + counter)
        if start + entry * count > self.size:
            raise ExifError("directory longer than the file")
        return range(start, start + entry * count, entry)

    def _value(self, place: int) -> tuple[int, int, bytes]:
        kind, count = self._number(place + 2, "H"), self._number(place + 4, self._offset)
        if kind not in VALUE_BYTES:
            raise ExifError("a type that EXIF does not know")
        size = VALUE_BYTES[kind] * count
        return kind, count, self._bytes(*self._extent(place, size))

    def _extent(self, place: int, size: int) -> tuple[int, int]:
        """Where the value of an entry stands, in it or elsewhere, and its bytes."""
        at = place + (12 if self._is_big else 8)
        if size > struct.calcsize("=" + self._offset):
            at = self._number(at, self._offset)
        if size > self._left:
            raise ExifError("values larger than any camera's")
        self._left -= size
        return at, size

    def _number(self, at: int, form: str) -> int:
        return int(struct.unpack(self.order + form, self._bytes(at, struct.calcsize("=" + form)))[0])

    def _bytes(self, at: int, size: int) -> bytes:
        if at + size > self.size:
            raise ExifError("value outside the file")
        self._stream.seek(at)
        return self._stream.read(size)
