"""Colour conversions against scikit-image and their own inverses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import color

from gfprestore.colorizing.lab import decode_srgb, encode_srgb, fit_chroma, lab_to_rgb, lightness, rgb_to_lab


@pytest.fixture(scope="module")
def colours() -> np.ndarray:
    """Every 17th level of each channel, and all grays: uint8 (N, 3)."""
    levels = np.arange(0, 256, 17)
    grid = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, 3)
    return np.concatenate([grid, np.repeat(np.arange(256)[:, None], 3, axis=1)]).astype(np.uint8)


def test_lab_equals_scikit_image(colours: np.ndarray) -> None:
    found = rgb_to_lab(colours / 255)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, color.rgb2lab(colours / 255), atol=0.02)
    np.testing.assert_allclose(lightness(colours / 255), found[..., 0], atol=1e-4)


def test_known_colours() -> None:
    found = rgb_to_lab(np.array([[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 0, 1]]))
    expected = [[0, 0, 0], [100, 0, 0], [53.24, 80.09, 67.20], [32.30, 79.19, -107.86]]
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_round_trip_within_a_level(colours: np.ndarray) -> None:
    np.testing.assert_array_equal((lab_to_rgb(rgb_to_lab(colours / 255)) * 255).round(), colours)
    wide = np.random.default_rng(0).integers(0, 65536, (5000, 3))
    back = (lab_to_rgb(rgb_to_lab(wide / 65535)) * 65535).round()
    assert np.abs(back - wide).max() <= 3


def test_srgb_curve_round_trip_and_slope() -> None:
    values = np.linspace(0, 1, 4097)
    np.testing.assert_allclose(encode_srgb(decode_srgb(values)), values, atol=1e-6)
    assert (np.diff(decode_srgb(values)) > 0).all()
    assert decode_srgb(0.5) == pytest.approx(0.21404114, abs=1e-6)


def test_gray_has_no_chroma() -> None:
    grays = np.repeat(np.linspace(0, 1, 256)[:, None], 3, axis=1)
    assert np.abs(rgb_to_lab(grays)[:, 1:]).max() < 1e-3


@settings(deadline=None)
@given(light=st.floats(0, 100), a=st.floats(-128, 127), b=st.floats(-128, 127))
def test_fitting_keeps_lightness_and_hue(light: float, a: float, b: float) -> None:
    lab = np.array([[light, a, b]], np.float32)
    rgb = fit_chroma(lab)
    assert rgb.min() >= 0
    assert rgb.max() <= 1
    found = rgb_to_lab(rgb)[0]
    assert found[0] == pytest.approx(light, abs=0.05)
    assert found[1] * b == pytest.approx(found[2] * a, abs=0.05 * (abs(a) + abs(b) + 1))
    assert np.hypot(found[1], found[2]) <= np.hypot(a, b) + 0.05


def test_fitting_leaves_colours_that_exist(colours: np.ndarray) -> None:
    inside = colours[(colours.min(axis=1) > 0) & (colours.max(axis=1) < 255)] / 255
    np.testing.assert_allclose(fit_chroma(rgb_to_lab(inside)), inside, atol=1e-4)


def test_fitting_is_no_paler_than_it_must_be() -> None:
    lab = np.array([[50, 0, -120]], np.float32)
    rgb = fit_chroma(lab)[0]
    assert max(rgb.max(), 1 - rgb.min()) > 0.99
