"""Dots per inch in an EXIF block: read, and put into entries (TIFF 6.0, page 38)."""

from __future__ import annotations

import struct

from gfprestore.formats.exif import (
    RATIONAL,
    RESOLUTION_UNIT,
    SHORT,
    X_RESOLUTION,
    Y_RESOLUTION,
    Directory,
    first_directory,
    pack,
    whole_number,
)

_INCHES, _CENTIMETRES = 2, 3
_PER_INCH = {_INCHES: 1.0, _CENTIMETRES: 2.54}
"""Units that a block may name, and how many an inch has."""

_DENOMINATOR = 1000
"""Of the fractions that are written."""


def resolution(block: bytes) -> tuple[float, float] | None:
    """Dots per inch, (x, y); None where the block names none.

    Raises:
        ExifError: The block is damaged.
    """
    first = first_directory(block)
    per_inch = _PER_INCH.get(whole_number(block, first, RESOLUTION_UNIT) or _INCHES)
    sides = [_rational(block, first, tag) for tag in (X_RESOLUTION, Y_RESOLUTION)]
    if per_inch is None or sides[0] is None or sides[1] is None:
        return None
    return sides[0] * per_inch, sides[1] * per_inch


def _rational(block: bytes, directory: Directory, tag: int) -> float | None:
    place = directory.places.get(tag)
    if place is None:
        return None
    kind, count, at = struct.unpack_from(directory.order + "HII", block, place + 2)
    if kind != RATIONAL or count != 1 or at + 8 > len(block):
        return None
    above, below = struct.unpack_from(directory.order + "II", block, at)
    return above / below if below else None


def resolution_entries(order: str, dpi: tuple[float, float]) -> dict[int, tuple[int, int, bytes]]:
    """Entries that name a resolution in dots per inch, (x, y)."""
    sides = zip((X_RESOLUTION, Y_RESOLUTION), dpi, strict=True)
    found = {tag: pack(order, RATIONAL, [round(side * _DENOMINATOR), _DENOMINATOR]) for tag, side in sides}
    return found | {RESOLUTION_UNIT: pack(order, SHORT, [_INCHES])}
