"""Writes BMP in bands of rows, with the header that every reader knows, BITMAPINFOHEADER."""

from __future__ import annotations

import struct
from typing import BinaryIO

import numpy as np

from gfprestore.formats.filepixels import FilePixels

_HEADERS_BYTES = 14 + 40
_PALETTE = b"".join(bytes([level, level, level, 0]) for level in range(256))
"""Gray levels; a BMP of one byte a pixel always goes through a palette."""

_INCHES_PER_METRE = 1 / 0.0254

_USUAL_DPI = (96.0, 96.0)

_BAND_BYTES = 1 << 20

_LARGEST_FILE = 2**32 - 1


def write_bmp(stream: BinaryIO, pixels: FilePixels, dpi: tuple[float, float] | None) -> None:
    """Writes a file without compression: 24 bits a pixel, or 8 for gray.

    Args:
        stream: Where to.
        pixels: uint8, gray or RGB.
        dpi: Resolution in dots per inch, (x, y); None is 96.

    Raises:
        ValueError: The file would grow over 4 GiB.
    """
    height, width = pixels.size
    channels = pixels.rows(0, 1).shape[2]
    palette = _PALETTE if channels == 1 else b""
    start = _HEADERS_BYTES + len(palette)
    row_bytes = -(-width * channels // 4) * 4
    size = start + height * row_bytes
    if size > _LARGEST_FILE:
        raise ValueError("a BMP holds up to 4 GiB; use --format png or a lower --upscale")
    x, y = (round(side * _INCHES_PER_METRE) for side in dpi or _USUAL_DPI)
    stream.write(struct.pack("<2sIHHI", b"BM", size, 0, 0, start))
    colours = len(palette) // 4
    stream.write(
        struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8 * channels, 0, height * row_bytes, x, y, colours, colours)
    )
    stream.write(palette)
    rows = max(1, _BAND_BYTES // row_bytes)
    for bottom in range(height, 0, -rows):  # The last row comes first.
        band = pixels.rows(max(0, bottom - rows), bottom)[::-1, :, ::-1]  # BGR
        lines = np.zeros((len(band), row_bytes), np.uint8)
        lines[:, : width * channels] = band.reshape(len(band), width * channels)  # [R W*C]
        stream.write(lines.tobytes())
