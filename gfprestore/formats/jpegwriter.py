"""Writes JPEG in bands of rows, so that an enlarged scan is not held twice (ITU-T T.81).

Pillow's encoder holds four bytes a pixel of whatever it is given, so it is given a band at a time, with the same
tables. A restart marker ends what came before it: the bits are filled up to a byte, and the differences of the mean
values start from zero again (E.1.4), just as at the start of a file. So the bands' entropy-coded data, joined by
restart markers under the first one's header, are one baseline JPEG. Bands are whole rows of coded units, so no block
knows whether it was encoded in a band or in the whole, and the decoded pixels are the same to the bit.
"""

from __future__ import annotations

import io
from contextlib import suppress
from typing import Any, BinaryIO

from PIL import Image

from gfprestore.formats import exif, xmp
from gfprestore.formats.filepixels import FilePixels
from gfprestore.formats.photoshop import SEGMENT_PREFIX, iptc_resource
from gfprestore.photo import PhotoMetadata, Pixels

BAND_PIXELS = 1 << 20
"""Encoded at once. At most 16 rows of 65500 pixels, 16376 units, which the restart interval's 16 bits can count."""

_BEST_QUALITY = 95
"""Quality where none is asked for and the source has no JPEG tables: beyond it files grow and nothing is seen."""

_LARGEST_SEGMENT = 65533
"""Bytes of content in a JPEG segment."""

_XMP_PREFIX_BYTES = 29
"""What a JPEG's XMP segment holds before the packet."""

_PART_NAMES = {"exif": "EXIF", "xmp": "XMP", "comment": "comment", "extra": "IPTC"}

_BLOCK, _TALLEST_UNIT = 8, 16
"""Rows of a block, and of a coded unit whose colours have half the height."""

_HALF_HEIGHT = 2
"""Pillow's number of the subsampling 4:2:0."""

_RESTART_MARKERS = 8
"""RST0 to RST7 take turns."""

_START_OF_FRAMES = (0xC0, 0xC1)
_START_OF_SCAN = 0xDA
_MARKER_BYTES = 2
_HEIGHT_AT = 5
"""Of the height in a frame's segment: after the marker, the length and the precision (T.81, B.2.2)."""


def write_jpeg(stream: BinaryIO, pixels: FilePixels, metadata: PhotoMetadata, quality: int | None) -> list[str]:
    """Writes a baseline JPEG; up to `BAND_PIXELS` pixels it is byte for byte the one that Pillow writes.

    Args:
        stream: Where to.
        pixels: uint8, gray or RGB.
        metadata: EXIF, XMP, IPTC, colour profile, comment and resolution become segments. Without `quality` the tables
            and the subsampling of a JPEG source are used again.
        quality: 1 to 100, without subsampling.

    Returns:
        What was lost, one sentence each.

    Raises:
        ValueError: The encoder does not take these tables.
        OSError: The encoder failed, or the disk did.
    """
    notes: list[str] = []
    settings: dict[str, Any] = {"quality": quality or _BEST_QUALITY, "subsampling": 0}
    if quality is None and metadata.jpeg_tables:
        settings = {"qtables": metadata.jpeg_tables, "subsampling": metadata.jpeg_subsampling or 0}
    parts = _parts(metadata, pixels.size, notes)
    if metadata.dpi is not None:
        parts["dpi"] = metadata.dpi
    if metadata.icc_profile is not None:
        parts["icc_profile"] = metadata.icc_profile

    height, width = pixels.size
    rows = max(_TALLEST_UNIT, BAND_PIXELS // width // _TALLEST_UNIT * _TALLEST_UNIT)
    for number, band in enumerate(pixels.bands(rows)):
        if number == 0:
            if height > rows:
                is_tall = band.shape[2] == 3 and settings["subsampling"] == _HALF_HEIGHT
                parts["restart_marker_rows"] = rows // (_TALLEST_UNIT if is_tall else _BLOCK)
            header, data = _encoded(band, settings | parts)
            stream.write(_with_height(header, height))
        else:
            _, data = _encoded(band, settings)
            stream.write(bytes([0xFF, 0xD0 + (number - 1) % _RESTART_MARKERS]))
        stream.write(data)
    stream.write(b"\xff\xd9")
    return notes


def _parts(metadata: PhotoMetadata, size: tuple[int, int], notes: list[str]) -> dict[str, Any]:
    """What goes into a segment of its own, where it fits into one; with a tag where that fits as well."""
    parts = {}
    plain = {} if metadata.untagged is None else _contents(metadata.untagged, size)
    for name, content in _contents(metadata, size).items():
        tagged, untagged = _fitting(name, content), _fitting(name, plain.get(name, b""))
        if tagged is not None:
            parts[name] = tagged
        elif untagged:
            parts[name] = untagged
            notes.append(f"The {_PART_NAMES[name]} data have no room for the tag that the photo was restored.")
        else:
            notes.append(f"The {_PART_NAMES[name]} data are too long for a JPEG and were left out.")
    if "extra" in parts:
        parts["extra"] = b"\xff\xed" + (len(parts["extra"]) + 2).to_bytes(2, "big") + parts["extra"]
    return dict(parts)


def _contents(metadata: PhotoMetadata, size: tuple[int, int]) -> dict[str, bytes]:
    """By Pillow's name what segments are to hold, whatever its length."""
    height, width = size
    block = metadata.exif
    if block is not None:
        with suppress(exif.ExifError):
            block = exif.with_size(block, width, height)
    contents = {
        "exif": None if block is None else b"Exif\x00\x00" + block,
        "xmp": metadata.xmp,
        "comment": metadata.comment,
        "extra": None if metadata.iptc is None else SEGMENT_PREFIX + iptc_resource(metadata.iptc),
    }
    return {name: content for name, content in contents.items() if content is not None}


def _fitting(name: str, content: bytes) -> bytes | None:
    """The content if it fits, XMP without its padding if only that does."""
    if name != "xmp":
        return content if len(content) <= _LARGEST_SEGMENT else None
    variants = (content, xmp.without_padding(content))
    return next((packet for packet in variants if len(packet) + _XMP_PREFIX_BYTES <= _LARGEST_SEGMENT), None)


def _encoded(band: Pixels, settings: dict[str, Any]) -> tuple[bytes, memoryview]:
    """A band as a JPEG of its own: all before the entropy-coded data, and those data."""
    # In memory: Pillow writes to a real file without telling a full disk from any other fault.
    buffer = io.BytesIO()
    Image.fromarray(band[:, :, 0] if band.shape[2] == 1 else band).save(buffer, "JPEG", **settings)
    whole = buffer.getvalue()
    at = _segment(whole, (_START_OF_SCAN,))
    start = at + _MARKER_BYTES + _length(whole, at)
    return whole[:start], memoryview(whole)[start:-_MARKER_BYTES]


def _with_height(header: bytes, height: int) -> bytes:
    at = _segment(header, _START_OF_FRAMES) + _HEIGHT_AT
    return header[:at] + height.to_bytes(2, "big") + header[at + 2 :]


def _segment(data: bytes, codes: tuple[int, ...]) -> int:
    """Where the first segment with one of these codes starts."""
    at = _MARKER_BYTES  # Start of image.
    while data[at + 1] not in codes:
        at += _MARKER_BYTES + _length(data, at)
    return at


def _length(data: bytes, at: int) -> int:
    """Bytes of a segment after its marker."""
    return int.from_bytes(data[at + 2 : at + 4], "big")
