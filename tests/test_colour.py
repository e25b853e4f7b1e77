"""Colour profiles: there and back, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageCms
from sample_photos import gray_profile, scanner_profile

from gfprestore.colour import from_srgb, ink_to_rgb, is_srgb, profile_space, to_8_bits, to_srgb, two_way_profile

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def swapped_primaries() -> bytes:
    """sRGB with the primaries of red and green exchanged: pixels in it are sRGB with those channels exchanged."""
    return SRGB.replace(b"rXYZ", b"----").replace(b"gXYZ", b"rXYZ").replace(b"----", b"gXYZ")


def colours() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def test_exchanged_primaries_exchange_channels() -> None:
    found = to_srgb(colours(), swapped_primaries())
    np.testing.assert_allclose(found, colours()[:, :, [1, 0, 2]].astype(int), atol=1)
    assert found.flags.c_contiguous


def test_there_and_back() -> None:
    back = from_srgb(to_srgb(colours(), swapped_primaries()), swapped_primaries())
    np.testing.assert_allclose(back, colours().astype(int), atol=2)


def test_sixteen_bits_go_through_eight() -> None:
    deep = colours().astype(np.uint16) * 257
    found = to_srgb(deep, swapped_primaries())
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, to_srgb(colours(), swapped_primaries()).astype(np.uint16) * 257)


def test_slow_gradients_of_sixteen_bits_get_no_steps() -> None:
    ramp = np.repeat(np.arange(20000, 30000, 20, dtype=np.uint16)[None, :, None], 3, axis=2)
    found = to_srgb(ramp, swapped_primaries()).astype(int)
    assert np.abs(found - ramp).max() <= 2 * 257
    assert len(np.unique(found[0, :, 1])) > 450  # A tenth of these at 8 bits.


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


def srgb_levels(light: np.ndarray) -> np.ndarray:
    """sRGB's curve, 0 to 1 (IEC 61966-2-1)."""
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * np.maximum(light, 0) ** (1 / 2.4) - 0.055)


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
