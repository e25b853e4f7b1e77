"""Makes an EXIF block part of a larger file, where offsets count from elsewhere and bytes may have another order.

What a maker note holds is known to nobody but the camera's maker, so the offsets and numbers in it stay as they are.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

from gfprestore.formats.exif import (
    EXIF_DIRECTORY,
    GPS_DIRECTORY,
    INTEROPERABILITY_DIRECTORY,
    VALUE_BYTES,
    Directory,
    ExifError,
    byte_order,
    directory_at,
    first_directory,
)

Tree = Mapping[int, "Tree"]

INNER: Tree = {EXIF_DIRECTORY: {INTEROPERABILITY_DIRECTORY: {}}, GPS_DIRECTORY: {}}
"""Tags that point to directories, and those in them that do so again."""

_HEADER_BYTES = 8

_NUMBER_BYTES = {3: 2, 4: 4, 5: 4, 8: 2, 9: 4, 10: 4, 11: 4, 12: 8, 13: 4}
"""Bytes of one number of each type that has an order; a rational is two of them."""


def moved(block: bytes, distance: int) -> bytes:
    """The block as part of a larger file, in which offsets count from the file's start.

    The offset in its header stays, for `gfprestore.formats.exif` to find its first directory.

    Args:
        block: To stand in the file.
        distance: Where it stands.

    Raises:
        ExifError: The block is damaged.
    """
    edited = bytearray(block)
    for directory, pointers in _directories(block):
        for tag, place in directory.places.items():
            kind, count, value = struct.unpack_from(directory.order + "HII", block, place + 2)
            if tag in pointers or VALUE_BYTES.get(kind, 1) * count > 4:
                if value + distance >= 1 << 32:
                    raise ExifError("offset beyond the file")
                struct.pack_into(directory.order + "I", edited, place + 8, value + distance)
    return bytes(edited)


def in_order(block: bytes, order: str) -> bytes:
    """The block with its numbers in a byte order, `<` or `>`.

    Raises:
        ExifError: The block is damaged.
    """
    if byte_order(block) == order:
        return block
    edited = bytearray(block)
    edited[:4] = b"II*\x00" if order == "<" else b"MM\x00*"
    fields = {(4, 4, 1)}  # Offset, bytes of a number, how many; a set, since entries may share a value.
    for directory, _ in _directories(block):
        fields |= set(_fields(block, directory))
    for at, size, count in fields:
        for byte in range(size):
            edited[at + byte : at + size * count : size] = block[at + size - 1 - byte : at + size * count : size]
    return bytes(edited)


def _fields(block: bytes, directory: Directory) -> Iterator[tuple[int, int, int]]:
    """Where the numbers of a directory and its values stand, the bytes of one and how many there are."""
    yield directory.start, 2, 1
    if directory.end + 4 <= len(block):
        yield directory.end, 4, 1
    for place in directory.places.values():
        kind, count, value = struct.unpack_from(directory.order + "HII", block, place + 2)
        yield place, 2, 2
        yield place + 4, 4, 1
        size, whole = _NUMBER_BYTES.get(kind, 1), VALUE_BYTES.get(kind, 1) * count
        if whole > 4:
            yield place + 8, 4, 1
        at = value if whole > 4 else place + 8
        if size > 1 and _HEADER_BYTES <= at <= len(block) - whole:
            yield at, size, whole // size


def _directories(block: bytes) -> Iterator[tuple[Directory, Tree]]:
    """Yields the directories of a block that are known, each once, and the tags in them that point to others."""
    waiting: list[tuple[Directory, Tree]] = [(first_directory(block), INNER)]
    done = set()
    while waiting:
        directory, pointers = waiting.pop()
        if directory.end in done:
            continue
        done.add(directory.end)
        yield directory, pointers
        for tag in pointers.keys() & directory.places.keys():
            (at,) = struct.unpack_from(directory.order + "I", block, directory.places[tag] + 8)
            waiting.append((directory_at(block, directory.order, at), pointers[tag]))
