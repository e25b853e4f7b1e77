"""Writes TIFF files whose every tag is as a test wants it."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from gfprestore.formats.exif import ASCII, LONG, SHORT, UNDEFINED, directory_bytes

Tags = Mapping[int, tuple[int, int, bytes]]


def text(value: bytes) -> tuple[int, int, bytes]:
    return ASCII, len(value) + 1, value + b"\0"


def undefined(value: bytes) -> tuple[int, int, bytes]:
    return UNDEFINED, len(value), value


def short(order: str, *values: int) -> tuple[int, int, bytes]:
    return SHORT, len(values), struct.pack(f"{order}{len(values)}H", *values)


def long(order: str, *values: int) -> tuple[int, int, bytes]:
    return LONG, len(values), struct.pack(f"{order}{len(values)}I", *values)


def write_raw_tiff(path: Path, pixels: np.ndarray, tags: Tags, *inner: tuple[int, Tags], order: str = "<") -> Path:
    """Writes one uncompressed page, (H, W) or (H, W, C).

    Args:
        path: The file.
        pixels: uint8 or uint16; tags may give them another meaning.
        tags: Added to what the pixels need, or in place of it.
        inner: Directories; each but the last holds the pointer, its number, to the one before.
        order: Byte order.
    """
    empty = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8) + bytes(6)
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    height, width, channels = (*pixels.shape, 1)[:3]
    body = empty + data + bytes(len(data) % 2)
    pointers: dict[int, tuple[int, int, bytes]] = {}
    for pointer, entries in inner:
        at = len(body)
        body += directory_bytes(empty, {**entries, **pointers}, at)
        pointers = {pointer: long(order, at)}
    usual = {
        256: long(order, width),
        257: long(order, height),
        258: short(order, *[8 * pixels.itemsize] * channels),
        259: short(order, 1),
        262: short(order, 1 if channels < 3 else 2),
        273: long(order, len(empty)),
        277: short(order, channels),
        278: long(order, height),
        279: long(order, len(data)),
    }
    at = len(body)
    body += directory_bytes(empty, {**usual, **tags, **pointers}, at)
    path.write_bytes(body[:4] + struct.pack(order + "I", at) + body[8:])
    return path
