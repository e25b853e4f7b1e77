"""Profiles of curves: every kind of curve against its formula, and nothing read out of what is damaged."""

from __future__ import annotations

import struct
import tracemalloc

import numpy as np
import pytest
from PIL import ImageCms
from sample_photos import profile, scanner_profile

from gfprestore.curves import convert_deep, read_curves
from gfprestore.formats.gamma import gamma_profile

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LEVELS = np.linspace(0, 1, 65536)


def with_curve(curve: bytes) -> bytes:
    """A profile for gray whose curve is the last thing in it."""
    plain = gamma_profile(1.0, is_gray=True)
    assert plain is not None
    at = plain.index(b"kTRC")
    (start,) = struct.unpack_from(">I", plain, at + 4)
    assert start == len(plain) - 16
    return plain[: at + 4] + struct.pack(">II", start, len(curve)) + plain[at + 12 : start] + curve


def parametric(kind: int, *numbers: float) -> bytes:
    return b"para" + struct.pack(f">4xHxx{len(numbers)}i", kind, *(round(number * 65536) for number in numbers))


def table(*entries: int) -> bytes:
    return b"curv" + struct.pack(f">4xI{len(entries)}H", len(entries), *entries)


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        (table(), LEVELS),
        (table(512), LEVELS**2),
        (table(0, 13107, 65535), np.where(LEVELS <= 0.5, LEVELS * 0.4, LEVELS * 1.6 - 0.6)),
        (parametric(0, 1.5), LEVELS**1.5),
        (parametric(1, 2, 1.25, -0.25), np.maximum(1.25 * LEVELS - 0.25, 0) ** 2),
        (parametric(2, 2, 1.125, -0.25, 0.125), np.maximum(1.125 * LEVELS - 0.25, 0) ** 2 + 0.125),
        (parametric(3, 2, 1, 0, 0.25, 0.25), np.where(LEVELS >= 0.25, LEVELS**2, LEVELS / 4)),
        (parametric(4, 2, 0.75, 0, 0.25, 0, 0.25, 0), (0.75 * LEVELS) ** 2 + 0.25),
    ],
)
def test_curves_are_the_formula(curve: bytes, expected: np.ndarray) -> None:
    found = read_curves(with_curve(curve))
    assert found is not None and found.to_xyz is None
    np.testing.assert_allclose(found.light, np.broadcast_to(expected, (3, 65536)), atol=2e-5)
    # The way back finds a level of the same light.
    light = np.linspace(expected[0], expected[-1], 999)
    levels = found.levels[1][np.rint(np.sqrt(light) * 65535).astype(int)]
    np.testing.assert_allclose(expected[levels], light, atol=1e-4)


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        SRGB[:140],
        SRGB[:128] + b"\xff\xff\xff\xff" + SRGB[132:],
        SRGB.replace(b"gTRC", b"xTRC"),
        SRGB.replace(b"rXYZ", b"xXYZ"),
        SRGB.replace(b"RGB XYZ ", b"RGB Lab "),
        SRGB.replace(b"RGB XYZ ", b"CMYKXYZ "),
        scanner_profile(1.8),
        with_curve(table(65535, 0)),
        with_curve(table(7, 7)),
        with_curve(b"curv" + struct.pack(">4xI", 1 << 31)),
        with_curve(b"else" + bytes(20)),
        with_curve(parametric(9, 1)),
        with_curve(parametric(1, 2, 0, 0)),
        with_curve(parametric(0, -1)),
    ],
)
def test_what_does_not_rest_on_sound_curves_is_not_read(damaged: bytes) -> None:
    assert read_curves(damaged) is None


def test_memory_follows_the_band() -> None:
    own, srgb = read_curves(profile("wide")), read_curves(SRGB)
    assert own is not None and srgb is not None
    pixels = np.random.default_rng(0).integers(0, 65536, (1000, 300, 3), np.uint16)
    tracemalloc.start()
    convert_deep(pixels, own, srgb)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 60 * 1000 * 300
