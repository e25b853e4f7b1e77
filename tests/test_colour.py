"""Colour profiles: there and back, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms
from sample_photos import gray_profile, profile, scanner_profile

from gfprestore import colour
from gfprestore.colour import (
    from_srgb,
    ink_to_rgb,
    is_srgb,
    profile_space,
    to_8_bits,
    to_16_bits,
    to_srgb,
    two_way_profile,
)
from gfprestore.formats.gamma import gamma_profile

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def swapped_primaries() -> bytes:
    """sRGB with the primaries of red and green exchanged: pixels in it are sRGB with those channels exchanged."""
    return SRGB.replace(b"rXYZ", b"----").replace(b"gXYZ", b"rXYZ").replace(b"----", b"gXYZ")


def colours() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def srgb_levels(light: np.ndarray) -> np.ndarray:
    """sRGB's curve, 0 to 1 (IEC 61966-2-1)."""
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * np.maximum(light, 0) ** (1 / 2.4) - 0.055)


def test_exchanged_primaries_exchange_channels() -> None:
    found = to_srgb(colours(), swapped_primaries())
    np.testing.assert_allclose(found, colours()[:, :, [1, 0, 2]].astype(int), atol=1)
    assert found.flags.c_contiguous


def test_there_and_back() -> None:
    back = from_srgb(to_srgb(colours(), swapped_primaries()), swapped_primaries())
    np.testing.assert_allclose(back, colours().astype(int), atol=2)


def ramp() -> np.ndarray:
    """Every level of gray of 16 bits."""
    return np.repeat(np.arange(65536, dtype=np.uint16)[None, :, None], 3, axis=2)


@pytest.mark.parametrize("is_gray", [False, True])
@pytest.mark.parametrize("gamma", [0.3, 0.7, 1 / 1.8, 1.0])
def test_sixteen_bits_against_the_formula(gamma: float, is_gray: bool) -> None:
    own = gamma_profile(gamma, is_gray=is_gray)
    assert own is not None
    light = (ramp() / 65535) ** (round(256 / gamma) / 256)
    np.testing.assert_allclose(to_srgb(ramp(), own), 65535 * srgb_levels(light), atol=24)
    # The way back loses nothing but what many dark levels of one profile share in the other.
    back = to_srgb(from_srgb(ramp(), own), own)
    bright = ramp()[0, :, 0] > 3000
    np.testing.assert_allclose(back[0, bright].astype(int), ramp()[0, bright], atol=130)


@pytest.mark.parametrize("kind", ["linear", "gray", "steep", "wide", "swapped", "table", "steep table"])
@pytest.mark.parametrize("forth", [True, False])
@pytest.mark.parametrize("by_curves", [True, False])
def test_rising_ramps_stay_rising(kind: str, forth: bool, by_curves: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not by_curves:
        monkeypatch.setattr(colour, "_curves", lambda icc_profile: None)
    own = {
        "linear": gamma_profile(1.0, is_gray=False),
        "gray": gamma_profile(1.0, is_gray=True),
        "steep": gamma_profile(0.3, is_gray=False),
        "wide": profile("wide"),
        "swapped": swapped_primaries(),
        "table": scanner_profile(1.8),
        "steep table": scanner_profile(1.0),
    }[kind]
    found = (to_srgb if forth else from_srgb)(ramp(), own).astype(int)[0]
    assert (np.diff(found, axis=0) >= 0).all()
    # Nor do they jump, but in the darkest tones of a steep curve.
    assert np.diff(found, axis=0)[1000:].max() <= (60 if by_curves else 130)
    assert len(np.unique(found[..., 1])) > 15000


@pytest.mark.parametrize("is_gray", [False, True])
def test_a_linear_profile_of_sixteen_bits_holds_whatever_is_drawn_at_eight(is_gray: bool) -> None:
    """Of its levels of 8 bits thirteen dark ones of sRGB would share one."""
    linear = gamma_profile(1.0, is_gray=is_gray)
    levels = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    for drawn in (levels, colours()):
        np.testing.assert_array_equal(to_8_bits(to_srgb(from_srgb(to_16_bits(drawn), linear), linear)), drawn)


@pytest.mark.parametrize("own", [profile("wide"), swapped_primaries(), scanner_profile(1.8)])
def test_sixteen_bits_of_any_colour_lie_where_eight_do(own: bytes) -> None:
    deep = colours().astype(np.uint16) * 257
    found = to_srgb(deep, own)
    assert found.dtype == np.uint16 and found.flags.c_contiguous
    np.testing.assert_allclose(found / 257, to_srgb(colours(), own).astype(int), atol=1)
    between = np.random.default_rng(1).integers(0, 65536, (40, 30, 3), np.uint16)
    np.testing.assert_allclose(to_srgb(between, own) / 257, to_srgb(to_8_bits(between), own).astype(int), atol=9)


@given(st.integers(0, 10**6))
@settings(deadline=None, max_examples=20)
def test_tables_are_followed_without_jumps(seed: int) -> None:
    """Along any line of colours no step is wider than what neighbours of 8 bits differ by."""
    ends = np.random.default_rng(seed).integers(0, 65536, (2, 3))
    line = np.rint(np.linspace(*ends, 70000)).astype(np.uint16)[None]
    steps = np.abs(np.diff(to_srgb(line, scanner_profile(1.8)).astype(int)[0], axis=0))
    assert steps.max() <= 30


@pytest.mark.parametrize("gamma", [1.0, 1.8, 2.6])
def test_gray_profiles_against_the_formula(gamma: float) -> None:
    levels = np.arange(256)
    light = (levels / 255) ** gamma
    expected = 255 * srgb_levels(light)
    gray = np.repeat(levels.astype(np.uint8)[None, :, None], 3, axis=2)
    assert not is_srgb(gray_profile(gamma))
    found = to_srgb(gray, gray_profile(gamma))
    np.testing.assert_allclose(found[0], np.repeat(expected[:, None], 3, axis=1), atol=1)
    bright = levels[(expected > 60) & (light > 0.05)]
    back = from_srgb(found, gray_profile(gamma))
    np.testing.assert_allclose(back[0, bright, 0], bright, atol=2)


@pytest.mark.parametrize("profile", [None, SRGB, b"damaged", SRGB[:200], b""])
def test_srgb_and_unusable_profiles_change_nothing(profile: bytes | None) -> None:
    assert is_srgb(profile)
    pixels = colours()
    assert to_srgb(pixels, profile) is pixels
    assert from_srgb(pixels, profile) is pixels


@pytest.mark.parametrize("gamma", [1.0, 1.8, 3.0])
def test_a_profile_without_a_way_back_leads_to_srgb_all_the_same(gamma: float) -> None:
    """Those of scanners often lead from the device only."""
    one_way = scanner_profile(gamma)
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    expected = 255 * srgb_levels((ramp / 255) ** gamma)
    np.testing.assert_allclose(to_srgb(ramp, one_way), expected, atol=2)
    assert not is_srgb(one_way)
    assert two_way_profile(one_way) is None
    assert from_srgb(ramp, one_way) is ramp
    assert two_way_profile(swapped_primaries()) == swapped_primaries()


def test_wide_profiles_are_not_srgb() -> None:
    assert not is_srgb(swapped_primaries())
    assert profile_space(SRGB) == "RGB"
    assert profile_space(SRGB[:16] + b"GRAY" + SRGB[20:]) == "GRAY"


def test_rounding_to_8_bits_is_exact_for_every_value() -> None:
    every = np.arange(65536, dtype=np.uint16)
    np.testing.assert_array_equal(to_8_bits(every), np.floor(every / 257 + 0.5))
    shallow = every.astype(np.uint8)
    np.testing.assert_array_equal(to_8_bits(shallow), shallow)


def test_lab_white_and_black() -> None:
    # Lab in 8 bits: L 0 to 255, a and b signed.
    image = Image.frombytes("LAB", (2, 1), bytes([255, 0, 0, 0, 0, 0]))
    found, note = ink_to_rgb(image, None)
    np.testing.assert_allclose(np.asarray(found)[0], [[255] * 3, [0] * 3], atol=2)
    assert note is None


@pytest.mark.parametrize("profile", [None, SRGB, b"damaged"])
def test_cmyk_without_a_usable_profile_is_converted_plainly(profile: bytes | None) -> None:
    image = Image.new("CMYK", (2, 2), (255, 0, 0, 0))
    found, note = ink_to_rgb(image, profile)
    assert found.getpixel((0, 0)) == (0, 255, 255)
    assert note is not None
