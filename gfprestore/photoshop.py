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


def iptc_record(resources: bytes) -> bytes | None:
    """The IPTC-IIM record among resources; None where there is none."""
    return next((content for number, content in _resources(resources) if number == _IPTC and content), None)


def iptc_resource(record: bytes) -> bytes:
    """The resource that holds an IPTC-IIM record."""
    return _SIGNATURE + struct.pack(">HHI", _IPTC, 0, len(record)) + record + bytes(len(record) % 2)


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
