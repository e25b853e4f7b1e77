"""The Laplacian pyramid: exact reconstruction, linear, and gains that go from fine to coarse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gfprestore.blending.bands import band_gains, count_octaves, join_bands, scale_channels, split_bands


@pytest.mark.parametrize(("size", "octaves"), [(32, 1), (64, 2), (100, 2), (256, 4), (512, 5), (1024, 6)])
def test_octaves_end_at_sixteen_pixels(size, octaves):
    assert count_octaves(size) == octaves


def test_a_crop_too_small_to_split_is_refused():
    with pytest.raises(ValueError, match="cannot be split"):
        count_octaves(31)


@pytest.mark.parametrize("shape", [(64, 64), (64, 64, 1), (64, 64, 3), (67, 45, 3)])
def test_joining_undoes_splitting(shape):
    image = np.random.default_rng(1).random(shape, np.float32)
    bands = split_bands(image, 2)
    assert [band.ndim for band in bands] == [len(shape)] * 3
    np.testing.assert_allclose(join_bands(bands), image, atol=1e-6)


def test_levels_match_a_slow_pyramid():
    # Burt and Adelson's generating kernel, applied by hand in float64; the border is left out.
    kernel = np.array([1, 4, 6, 4, 1]) / 16
    image = np.random.default_rng(2).random((48, 48))
    blurred = np.apply_along_axis(
        np.convolve, 1, np.apply_along_axis(np.convolve, 0, image, kernel, "same"), kernel, "same"
    )
    coarse = blurred[::2, ::2]
    spread = np.zeros_like(image)
    spread[::2, ::2] = 4 * coarse
    spread = np.apply_along_axis(
        np.convolve, 1, np.apply_along_axis(np.convolve, 0, spread, kernel, "same"), kernel, "same"
    )
    bands = split_bands(image.astype(np.float32), 1)
    np.testing.assert_allclose(bands[0][8:-8, 8:-8], (image - spread)[8:-8, 8:-8], atol=1e-5)
    np.testing.assert_allclose(bands[1][4:-4, 4:-4], coarse[4:-4, 4:-4], atol=1e-5)


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 7))
def test_gains_rise_with_strength_and_fall_with_coarseness(one, other, octaves):
    weaker, stronger = (band_gains(strength, octaves) for strength in sorted((one, other)))
    assert len(weaker) == octaves
    assert all(low <= high for low, high in zip(weaker, stronger, strict=True))
    assert list(weaker) == sorted(weaker, reverse=True)
    assert all(0 <= gain <= 1 for gain in weaker)


@pytest.mark.parametrize("octaves", [1, 2, 5])
def test_the_ends_of_strength_are_nothing_and_everything(octaves):
    assert band_gains(0.0, octaves) == (0.0,) * octaves
    assert band_gains(1.0, octaves) == (1.0,) * octaves


def test_half_strength_takes_the_finest_octave_whole_and_the_coarsest_not_at_all():
    assert band_gains(0.5, 5) == (1.0, 0.75, 0.5, 0.25, 0.0)


@pytest.mark.parametrize("strength", [-0.01, 1.01, float("nan")])
def test_strength_out_of_range_is_refused(strength):
    with pytest.raises(ValueError, match="strength"):
        band_gains(strength, 5)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.floats(0, 1))
def test_a_change_weighed_by_gains_grows_with_strength(seed, one, other):
    change = np.random.default_rng(seed).standard_normal((64, 64)).astype(np.float32)
    bands = split_bands(change, 2)
    sizes = []
    for strength in sorted((one, other)):
        gains = band_gains(strength, 2)
        weighed = [band * gain for band, gain in zip(bands[:-1], gains, strict=True)]
        sizes.append(np.linalg.norm(join_bands([*weighed, np.zeros_like(bands[-1])])))
    assert sizes[0] <= sizes[1] * (1 + 1e-5)


@pytest.mark.parametrize("shape", [(7, 9, 3), (5, 4, 1), (1, 1, 3)])
def test_channels_are_scaled_in_place_each_by_its_gain(shape):
    rng = np.random.default_rng(0)
    band, gains = rng.standard_normal((*shape, 2)).astype(np.float32)[..., 0], rng.random(shape[2]).astype(np.float32)
    expected = band * gains
    scale_channels(band, gains)
    np.testing.assert_array_equal(band, expected)
