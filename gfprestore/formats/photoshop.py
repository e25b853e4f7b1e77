"""Photoshop's image resources, in which JPEG and PNG files hold the IPTC-IIM record (Adobe's file formats).

A resource is `8BIM`, a number, a name of even length with its count, and content of even length with its own.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

SEGMENT_PREFIX = b"Photoshop 3.0\x00"
"""What a JPEG's segment APP13 holds before the resources."""

_SIGNATURE = b"8BIM"
_IPTC = 0x0404

_DATA_SET, _DATA_SET_HEADER = b"\x1c", 5
"""What a data set of a record begins with, and bytes before its content, of which the last two count it (IIM 4.1)."""


def iptc_record(resources: bytes) -> bytes | None:
    """The IPTC-IIM record among resources; None where there is none."""
    return next((content for number, content in _resources(resources) if number == _IPTC and content), None)


def iptc_resource(record: bytes) -> bytes:
    """The resource that holds an IPTC-IIM record."""
    return _SIGNATURE + struct.pack(">HHI", _IPTC, 0, len(record)) + record + bytes(len(record) % 2)


def bare_record(value: bytes) -> bytes:
    """An IPTC-IIM record that may be stored as numbers of 32 bits: in its own order, without what fills the last one.

    Some programs turn such numbers into the file's byte order as if they were any.

    Args:
        value: As it stands in a TIFF file.
    """
    if value[:1] != _DATA_SET and value[3:4] == _DATA_SET and len(value) % 4 == 0:
        value = b"".join(value[at : at + 4][::-1] for at in range(0, len(value), 4))
    end = 0
    while value[end : end + 1] == _DATA_SET and end + _DATA_SET_HEADER <= len(value):
        (size,) = struct.unpack_from(">H", value, end + 3)
        end += _DATA_SET_HEADER + size
    return value[:end] if len(value) - 4 < end < len(value) and not any(value[end:]) else value


def _resources(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Numbers and contents, up to the first that is damaged."""
    at = 0
    while data[at : at + 4] == _SIGNATURE and at + 12 <= len(data):
        (number,) = struct.unpack_from(">H", data, at + 4)
        name = data[at + 6] + 1
        at += 6 + name + name % 2
        if at + 4 > len(data):
            return
        (size,) = struct.unpack_from(">I", data, at)
        yield number, data[at + 4 : at + 4 + size]
        at += 4 + size + size % 2
