"""Encodes PNG at 8 and 16 bits with its metadata chunks (PNG specification, third edition, sections 5 and 11)."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator

import cv2
import numpy as np
from PIL import Image

from gfprestore.photo import PhotoMetadata, Pixels

_HEADER_BYTES = 33
"""Signature and the IHDR chunk, after which the other chunks may come."""

_INCHES_PER_METRE = 1 / 0.0254

_SETTINGS = (
    *(cv2.IMWRITE_PNG_COMPRESSION, 4),
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_FILTERED),
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_PAETH),
)
"""Measured on a 6 MP photo: level 6 takes 3 times as long for 7 % less, and trying all filters gains nothing."""


def encode_png(channels: Pixels, metadata: PhotoMetadata) -> Iterator[bytes | memoryview]:
    """Yields the parts of a PNG file.

    Args:
        channels: uint8 or uint16, (H, W) gray or (H, W, C) with C = 2 gray and opacity, 3 RGB, 4 RGB and opacity.
            Two channels of 16 bits are stored as four, since neither encoder at hand writes them.
        metadata: EXIF, XMP, colour profile and resolution become chunks.

    Raises:
        ValueError: The encoder failed.
    """
    encoded = _encode_pixels(channels)
    yield encoded[:_HEADER_BYTES]
    if metadata.icc_profile is not None:
        yield _chunk(b"iCCP", b"ICC profile\x00\x00" + zlib.compress(metadata.icc_profile))
    if metadata.dpi is not None:
        per_metre = [round(side * _INCHES_PER_METRE) for side in metadata.dpi]
        yield _chunk(b"pHYs", struct.pack(">IIB", *per_metre, 1))
    if metadata.xmp is not None:
        # Keyword, no compression, no language, no translated keyword.
        yield _chunk(b"iTXt", b"XML:com.adobe.xmp\x00" + bytes(4) + metadata.xmp)
    if metadata.exif is not None:
        yield _chunk(b"eXIf", metadata.exif)
    yield encoded[_HEADER_BYTES:]


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _encode_pixels(channels: Pixels) -> memoryview:
    count = 1 if channels.ndim == 2 else channels.shape[2]
    if count == 2 and channels.dtype == np.uint8:
        buffer = io.BytesIO()
        Image.fromarray(channels).save(buffer, "PNG")
        return buffer.getbuffer()
    if count == 2:
        channels = channels[:, :, [0, 0, 0, 1]]
    elif count > 2:
        channels = channels[:, :, [2, 1, 0, 3][:count]]  # OpenCV wants BGR.
    done, encoded = cv2.imencode(".png", np.ascontiguousarray(channels), _SETTINGS)
    if not done:
        raise ValueError("PNG encoder failed")
    return memoryview(encoded.tobytes())
