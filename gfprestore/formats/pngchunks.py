"""Encodes PNG at 8 and 16 bits with its metadata chunks, in bands of rows (PNG specification, third edition).

Sections 5 and 11 describe the chunks, 9 the filters. Encoders at hand hold the whole photo once more, in their own
order of channels, and the whole file; this one holds a band.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Collection, Iterator
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from gfprestore.formats.filepixels import FilePixels
from gfprestore.formats.pngprofiles import iptc_text
from gfprestore.formats.substitutes import comment_text
from gfprestore.photo import PhotoMetadata

_SIGNATURE = b"\x89PNG\r\n\x1a\n"

_CHUNK_FRAME = 12
"""Bytes of a chunk beside its content: length, name and checksum."""

_TEXT_NAMES = (b"tEXt", b"zTXt", b"iTXt")
_XMP_KEYWORD = "XML:com.adobe.xmp"

_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
"""By the number of channels: gray, gray and opacity, RGB, RGB and opacity (table 8)."""

_INCHES_PER_METRE = 1 / 0.0254

_BAND_BYTES = 1 << 20
"""Filtered and compressed at once."""

_PAETH = 4
"""The filter of every row: measured on photos, trying all filters gains nothing."""

_LEVEL, _MEMORY_LEVEL = 4, 9
"""Measured on a 6 MP photo: level 6 takes 3 times as long for 7 % less."""


def encode_png(pixels: FilePixels, metadata: PhotoMetadata) -> Iterator[bytes]:
    """Yields the parts of a PNG file.

    Args:
        pixels: uint8 or uint16.
        metadata: EXIF, XMP, IPTC, colour profile, resolution, comment and text become chunks.
    """
    height, width = pixels.size
    first = pixels.rows(0, 1)
    channels = first.shape[2]
    yield _SIGNATURE
    # Deflate, the filters of section 9, no interlacing.
    header = struct.pack(">IIBBBBB", width, height, 8 * first.itemsize, _COLOUR_TYPES[channels], 0, 0, 0)
    yield _chunk(b"IHDR", header)
    yield from _metadata_chunks(metadata)
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, zlib.MAX_WBITS, _MEMORY_LEVEL, zlib.Z_FILTERED)
    row_bytes = width * channels * first.itemsize
    above = np.zeros((1, row_bytes), np.uint8)
    for band in pixels.bands(max(1, _BAND_BYTES // row_bytes)):
        in_order = band.astype(band.dtype.newbyteorder(">"), copy=False)
        current = in_order.view(np.uint8).reshape(len(band), row_bytes)  # [R W*C*bytes]
        packed = packer.compress(_filtered(current, above, channels * first.itemsize))
        above = current[-1:]
        if packed:
            yield _chunk(b"IDAT", packed)
    yield _chunk(b"IDAT", packer.flush())
    yield _chunk(b"IEND", b"")


def _metadata_chunks(metadata: PhotoMetadata) -> Iterator[bytes]:
    if metadata.icc_profile is not None:
        yield _chunk(b"iCCP", b"ICC profile\x00\x00" + zlib.compress(metadata.icc_profile))
    if metadata.dpi is not None:
        per_metre = [round(side * _INCHES_PER_METRE) for side in metadata.dpi]
        yield _chunk(b"pHYs", struct.pack(">IIB", *per_metre, 1))
    if metadata.xmp is not None:
        # Keyword and its end, no compression, no language, no translated keyword.
        yield _chunk(b"iTXt", _XMP_KEYWORD.encode() + bytes(5) + metadata.xmp)
    if metadata.exif is not None:
        yield _chunk(b"eXIf", metadata.exif)
    if metadata.iptc is not None:
        yield _chunk(b"zTXt", iptc_text(metadata.iptc))
    comment = comment_text(metadata.comment)
    if comment:
        yield _comment(comment)
    yield from (_chunk(name, data) for name, data in metadata.png_text)


def _comment(text: bytes) -> bytes:
    """A JPEG's comment as international text where it looks like it, else as Latin-1, which any bytes are."""
    try:
        is_international = not text.isascii() and bool(text.decode("utf-8"))
    except UnicodeDecodeError:
        is_international = False
    return _chunk(b"iTXt", b"Comment" + bytes(5) + text) if is_international else _chunk(b"tEXt", b"Comment\x00" + text)


def text_chunks(stream: BinaryIO, kept_otherwise: Collection[str] = ()) -> tuple[tuple[bytes, bytes], ...]:
    """Reads the text chunks of a PNG as they stand: name and content.

    Args:
        stream: A PNG file of whose chunks none is longer than the file.
        kept_otherwise: Keywords in lower case of chunks to leave out, beside that of XMP.
    """
    size = stream.seek(0, os.SEEK_END)
    at, found = len(_SIGNATURE), []
    while at + _CHUNK_FRAME <= size:
        stream.seek(at)
        length, name = struct.unpack(">I4s", stream.read(8))
        at += _CHUNK_FRAME + length
        if name in _TEXT_NAMES and at <= size:
            text = name, stream.read(length)
            if keyword(text).lower() not in (_XMP_KEYWORD.lower(), *kept_otherwise):
                found.append(text)
    return tuple(found)


def keyword(text: tuple[bytes, bytes]) -> str:
    """What a text chunk says it is, such as `Description`."""
    return text[1].partition(b"\x00")[0].decode("latin-1")


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(name)))


def _filtered(current: NDArray[np.uint8], above: NDArray[np.uint8], step: int) -> bytes:
    """Rows less what the Paeth predictor (section 9.4) expects of each byte, with the filter's number before each.

    Args:
        current: Bytes of the rows, (R, B).
        above: The row before them, (1, B).
        step: Bytes of a pixel.
    """
    up = np.concatenate([above, current[:-1]])
    left, corner = _shifted(current, step), _shifted(up, step)
    # How far left, up and corner lie from left + up - corner.
    over_left = up.astype(np.int16) - corner
    over_up = left.astype(np.int16) - corner
    from_corner = np.abs(over_left + over_up)
    from_left, from_up = np.abs(over_left), np.abs(over_up)
    expected = np.where(from_up <= from_corner, up, corner)
    expected = np.where((from_left <= from_up) & (from_left <= from_corner), left, expected)
    lines = np.empty((current.shape[0], 1 + current.shape[1]), np.uint8)
    lines[:, 0] = _PAETH
    np.subtract(current, expected, out=lines[:, 1:])
    return lines.tobytes()


def _shifted(rows: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
    """For each byte the one of the pixel on its left, zero at the border."""
    shifted = np.zeros_like(rows)
    shifted[:, step:] = rows[:, :-step]
    return shifted
