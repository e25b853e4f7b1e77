"""Profiles of curves and primaries as numbers, to convert 16 bits in full: the colour engine at hand knows RGB of 8.

Such a profile leads from levels through a curve for each channel to light, and through three primaries to CIE XYZ
(ICC.1:2022, sections 8.3.3, 8.4.2, 10.6, 10.18 and appendix F). Both ways are followed in bands.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

_LEVELS = np.linspace(0, 1, 65536)

_CURVES = {b"RGB ": (b"rTRC", b"gTRC", b"bTRC"), b"GRAY": (b"kTRC",)}
_PRIMARIES = (b"rXYZ", b"gXYZ", b"bXYZ")
_TABLES = (b"A2B", b"B2A", b"D2B", b"B2D")
"""Starts of the names of tags that count before curves."""

_HEADER_BYTES = 128
_MOST_TAGS = 100
"""As many as the colour engine reads."""

_LEAST_VOLUME = 1e-6
"""Of the box that three primaries span in XYZ; those of sRGB span 0.2."""

_PARAMETERS = {0: 1, 1: 3, 2: 4, 3: 5, 4: 7}
"""How many numbers a parametric curve of each type has (table 68)."""


@dataclass(frozen=True, eq=False)
class Curves:
    """What a profile says of its pixels."""

    light: NDArray[np.float32]
    """Light, 0 to 1, of each level of 16 bits, (3, 65536), never falling."""

    levels: NDArray[np.uint16]
    """Levels, (3, 65536), by the square root of light, which spreads tones as the eye does."""

    to_xyz: NDArray[np.float64] | None
    """Light of red, green and blue to XYZ, (3, 3); None in a profile for gray, which counts for each channel."""


def read_curves(icc_profile: bytes) -> Curves | None:
    """Reads a profile for RGB or gray; None where it does not rest on curves alone, or is damaged."""
    try:
        with np.errstate(divide="raise", over="raise", invalid="raise"):
            return _read(icc_profile)
    except (struct.error, KeyError, ValueError, ArithmeticError):
        return None


def _read(icc_profile: bytes) -> Curves | None:
    (count,) = struct.unpack_from(">I", icc_profile, _HEADER_BYTES)
    entries = [
        struct.unpack_from(">4sII", icc_profile, _HEADER_BYTES + 4 + 12 * number)
        for number in range(min(count, _MOST_TAGS))
    ]
    tags = {name: slice(at, at + size) for name, at, size in entries}
    if icc_profile[20:24] != b"XYZ " or any(name.startswith(_TABLES) for name in tags):
        return None
    curves = np.stack([_curve(icc_profile[tags[name]]) for name in _CURVES[icc_profile[16:20]]])
    if (np.diff(curves) < 0).any() or (np.ptp(curves, axis=1) == 0).any():
        return None
    to_xyz = None
    if icc_profile[16:20] == b"RGB ":
        primaries = [struct.unpack_from(">3i", icc_profile[tags[name]], 8) for name in _PRIMARIES]
        to_xyz = np.array(primaries).T / 65536  # [XYZ RGB]
        if abs(np.linalg.det(to_xyz)) < _LEAST_VOLUME:
            return None
    levels = np.stack([np.interp(_LEVELS**2, curve, _LEVELS) for curve in curves])
    return Curves(
        np.broadcast_to(curves.astype(np.float32), (3, len(_LEVELS))),
        np.broadcast_to(np.rint(levels * 65535).astype(np.uint16), (3, len(_LEVELS))),
        to_xyz,
    )


def _curve(tag: bytes) -> NDArray[np.float64]:
    """Light of each level of 16 bits, float64 (65536,), clipped to 0 to 1."""
    if tag[:4] == b"para":
        return np.clip(_parametric(tag), 0, 1)
    (count,) = struct.unpack_from(">I", tag, 8)
    if tag[:4] != b"curv":
        raise ValueError("no curve")
    if count == 0:
        return _LEVELS
    if count == 1:
        return np.asarray(_LEVELS ** (struct.unpack_from(">H", tag, 12)[0] / 256))
    table = np.frombuffer(tag, ">u2", count, 12)
    return np.interp(_LEVELS, np.linspace(0, 1, count), table / 65535)


def _parametric(tag: bytes) -> NDArray[np.float64]:
    """Section 10.18, table 68: Y = (aX + b)^g + e from d on, cX + f below."""
    (kind,) = struct.unpack_from(">H", tag, 8)
    numbers = np.array(struct.unpack_from(f">{_PARAMETERS[kind]}i", tag, 12)) / 65536
    power, a, b, c, d, e, f = np.concatenate([numbers, [1.0, 0, 0, 0, 0, 0][len(numbers) - 1 :]])
    if kind in (1, 2):
        # What type 2 calls c is added above -b / a and stands alone below; type 1 has none.
        c, d, e, f = 0.0, -b / a, c, c
    above = np.maximum(a * _LEVELS + b, 0) ** power + e
    return np.asarray(np.where(d <= _LEVELS, above, c * _LEVELS + f))


def convert_deep(pixels: NDArray[np.uint16], source: Curves, target: Curves) -> NDArray[np.uint16]:
    """Pixels in one profile as another holds them; what lies outside its colours is clipped.

    Args:
        pixels: RGB, (H, W, 3); takes forty bytes a pixel beside the result.
        source: The profile that they are in.
        target: The profile that they shall be in.
    """
    light = np.stack([source.light[channel][pixels[..., channel]] for channel in range(3)], axis=-1)  # [H W RGB]
    if source.to_xyz is not None and target.to_xyz is not None:
        turned = (np.linalg.inv(target.to_xyz) @ source.to_xyz).astype(np.float32)
        light = np.clip(light @ turned.T, 0, 1)
    places = (np.sqrt(light) * np.float32(65535) + np.float32(0.5)).astype(np.uint16)
    result = [target.levels[channel][places[..., channel]] for channel in range(3)]
    return cast("NDArray[np.uint16]", np.stack(result, axis=-1))
