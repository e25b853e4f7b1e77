"""Colour profiles for files that state a mere gamma, as a PNG does in its chunk gAMA (ICC.1:2001-04, version 2)."""

from __future__ import annotations

import struct

_WHITE = (0.9642, 1.0, 0.8249)
"""D50, which colours of profiles count from."""

_PRIMARIES = {
    b"rXYZ": (0.43607, 0.22249, 0.01392),
    b"gXYZ": (0.38515, 0.71687, 0.09708),
    b"bXYZ": (0.14307, 0.06061, 0.71410),
}
"""Those of sRGB, adapted to D50."""

_SRGB_GAMMA = 0.45455
_TOLERANCE = 0.005

_DESCRIPTION = b"gamma of the file\x00"

_HEADER_BYTES = 128


def gamma_profile(gamma: float, *, is_gray: bool) -> bytes | None:
    """A profile for pixels whose levels are light to the power of `gamma`, with sRGB's primaries.

    Args:
        gamma: As in gAMA: 0.45455 is the usual one, 0.55556 that of old Macintoshes, 1 is light itself.
        is_gray: The pixels have one channel.

    Returns:
        None where sRGB is meant, or an absurd number given.
    """
    if abs(gamma - _SRGB_GAMMA) <= _TOLERANCE or not 0.1 <= gamma <= 2:
        return None
    curve = b"curv" + struct.pack(">4xIHxx", 1, round(256 / gamma))
    description = b"desc" + struct.pack(">4xI", len(_DESCRIPTION)) + _DESCRIPTION + bytes(78)
    tags = {
        b"desc": description + bytes(-len(description) % 4),
        b"cprt": b"text\x00\x00\x00\x00none\x00\x00\x00\x00",
        b"wtpt": _place(_WHITE),
    }
    if is_gray:
        tags[b"kTRC"] = curve
    else:
        tags |= {name: _place(primary) for name, primary in _PRIMARIES.items()}
        tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    table, values = struct.pack(">I", len(tags)), b""
    for name, value in tags.items():
        table += name + struct.pack(">II", _HEADER_BYTES + 4 + 12 * len(tags) + len(values), len(value))
        values += value
    # Version, a monitor's, colour space, what it leads to; date; signature; white.
    head = b"\x02\x10\x00\x00mntr" + (b"GRAY" if is_gray else b"RGB ") + b"XYZ " + bytes(12) + b"acsp" + bytes(28)
    head += _place(_WHITE)[8:]
    body = bytes(4) + head + bytes(_HEADER_BYTES - 8 - len(head)) + table + values
    return struct.pack(">I", 4 + len(body)) + body


def _place(colour: tuple[float, float, float]) -> bytes:
    return b"XYZ \x00\x00\x00\x00" + b"".join(struct.pack(">i", round(part * 65536)) for part in colour)
