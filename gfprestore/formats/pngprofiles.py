"""Profiles in a PNG's text, `Raw profile type ...`: where ImageMagick and exiftool put what had no chunk of its own.

The keyword names the kind, not always rightly; the text is an empty line, one with a name, one with the number of
bytes, and the bytes as hexadecimal digits.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from gfprestore.colour import profile_space
from gfprestore.formats import exif
from gfprestore.formats.photoshop import SEGMENT_PREFIX, iptc_record, iptc_resource

_KEYWORD = "raw profile type "

_XMP_PREFIX = b"http://ns.adobe.com/xap/1.0/\x00"
"""Of a JPEG's segment with XMP."""

_LINE_DIGITS = 72


def raw_profiles(info: Mapping[str | tuple[int, int], object]) -> dict[str, tuple[str, bytes]]:
    """Decodes the profiles in a PNG's text.

    Args:
        info: Of an image that Pillow has loaded, with the text by keyword.

    Returns:
        Keyword in lower case -> the field of `PhotoMetadata` that its content is for, and the content. A profile that
        is damaged or unknown is left out.
    """
    found = {}
    for keyword, text in info.items():
        if isinstance(keyword, str) and keyword.lower().startswith(_KEYWORD) and isinstance(text, str):
            profile = _decoded(keyword.lower().removeprefix(_KEYWORD), text)
            if profile is not None:
                found[keyword.lower()] = profile
    return found


def _decoded(kind: str, text: str) -> tuple[str, bytes] | None:
    parts = text.split("\n", 3)  # Nothing, a name, the number of bytes, digits.
    try:
        size, data = int(parts[2]), bytes.fromhex(parts[3])
    except (LookupError, ValueError):
        return None
    return _sorted(kind, data[:size]) if 0 < size <= len(data) else None


def _sorted(kind: str, data: bytes) -> tuple[str, bytes] | None:
    """What a profile is, and its bytes without the marks of the segment that it once was."""
    if kind in ("exif", "app1", "xmp") and data.startswith(_XMP_PREFIX):
        return "xmp", data.removeprefix(_XMP_PREFIX)
    if kind == "exif" or (kind == "app1" and exif.without_prefix(data) != data):
        return "exif", exif.without_prefix(data)
    if kind == "xmp":
        return "xmp", data
    if kind in ("icc", "icm") and profile_space(data):
        return "icc_profile", data
    if kind in ("iptc", "8bim"):
        record = data if data.startswith(b"\x1c") else iptc_record(data.removeprefix(SEGMENT_PREFIX))
        return None if record is None else ("iptc", record)
    return None


def iptc_text(record: bytes) -> bytes:
    """Content of the chunk `zTXt` that holds an IPTC-IIM record as other programs write it."""
    data = iptc_resource(record)
    digits = data.hex()
    lines = [digits[at : at + _LINE_DIGITS] for at in range(0, len(digits), _LINE_DIGITS)]
    text = "\n".join(["", "iptc", f"{len(data):8}", *lines, ""])
    return b"Raw profile type iptc\x00\x00" + zlib.compress(text.encode("ascii"))
