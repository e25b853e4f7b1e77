"""Grain: measured where it is flat, given back in the same octaves, the same bytes each time."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from gfprestore.blending.bands import split_bands
from gfprestore.blending.grain import draw_grain, measure_grain

SIZE, OCTAVES = 256, 4


def _scene(level=60.0):
    """Smooth lightness with a few hard features, float32 (S, S)."""
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32) / SIZE
    scene = level + 10 * np.sin(3 * x) + 8 * y
    for left in (0.3, 0.6):
        scene[(np.abs(x - left - 0.05) < 0.05) & (np.abs(y - 0.45) < 0.02)] = 20
    return np.asarray(scene, np.float32)


def _noise(deviation, sampling=1.0, seed=0):
    """Noise of white photo pixels, enlarged to the crop, float32 (S, S)."""
    side = round(SIZE * sampling)
    noise = np.random.default_rng(seed).normal(0, deviation, (side, side)).astype(np.float32)
    return noise if side == SIZE else cv2.resize(noise, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)


def _measure(lightness, sampling):
    return measure_grain(split_bands(lightness[..., None], OCTAVES), lightness, sampling)[:, 0]


@pytest.mark.parametrize("deviation", [0.5, 1.0, 3.0])
def test_white_noise_is_measured_whatever_the_picture(deviation):
    # What the finest octave of white noise alone holds, from noise and nothing else.
    alone = np.std(split_bands(_noise(deviation, seed=1)[..., None], OCTAVES)[0])
    assert _measure(_scene() + _noise(deviation), 1.0)[0] == pytest.approx(alone, rel=0.15)


def test_a_clean_picture_has_no_grain():
    assert _measure(_scene(), 1.0).max() < 0.05


def test_coarse_octaves_are_never_read_as_noise():
    measured = _measure(_scene() + 10 * _scene(0), 1.0)
    assert not measured[2:].any()


def test_a_face_smaller_than_its_crop_holds_less_noise_below_its_own_pixels():
    small = _measure(_scene() + _noise(2.0, sampling=0.25), 0.25)
    full = _measure(_scene() + _noise(2.0), 0.25)
    assert small[0] / small[2] < full[0] / full[2] / 3


def test_clipped_scans_say_nothing():
    assert not _measure(np.full((SIZE, SIZE), 100, np.float32), 1.0).any()
    assert not _measure(np.zeros((SIZE, SIZE), np.float32), 1.0).any()


# Octaves overlap, and noise cannot be taken away: the finest gets too much where the next ones hold far more.
@pytest.mark.parametrize(("sampling", "tolerance"), [(0.25, 0.75), (0.5, 0.25), (1.0, 0.2)])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_drawn_measures_as_what_was_measured(sampling, tolerance, channels):
    wanted = measure_grain(
        split_bands((_scene() + _noise(1.5, sampling))[..., None].repeat(channels, 2), OCTAVES), _scene(), sampling
    )
    flat = np.full((SIZE, SIZE), 60, np.float32)
    drawn = draw_grain(wanted, flat, seed=11)
    again = measure_grain(split_bands(drawn + 60, OCTAVES), flat, sampling)
    strong = wanted > 0.2
    assert strong.any()
    np.testing.assert_allclose(again[strong], wanted[strong], rtol=tolerance)


def test_noise_spectrum_is_that_of_the_photo():
    amounts = _measure(_scene() + _noise(2.0, sampling=0.25), 0.25)[:, None]
    drawn = draw_grain(amounts, _scene(), seed=3)[..., 0]
    spectrum = np.abs(np.fft.fft2(drawn)) ** 2
    frequency = np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.fftfreq(SIZE)[None])
    # The photo's own pixels end at an eighth of a cycle per crop pixel; interpolation passes a little more.
    assert spectrum[frequency > 0.25].sum() < 0.1 * spectrum[frequency <= 0.25].sum()


def test_the_same_seed_gives_the_same_bytes_and_another_does_not():
    amounts = np.full((OCTAVES, 1), 1.0, np.float32)
    one, again, other = (draw_grain(amounts, _scene(), seed) for seed in (5, 5, 6))
    assert one.tobytes() == again.tobytes()
    assert one.tobytes() != other.tobytes()


@pytest.mark.parametrize("level", [14, 98])
def test_shadows_and_paper_white_get_less_noise(level):
    lightness = np.full((SIZE, SIZE), 70, np.float32)
    lightness[:, : SIZE // 4] = level
    drawn = draw_grain(np.full((OCTAVES, 1), 1.0, np.float32), lightness, seed=1)[..., 0]
    assert drawn[:, : SIZE // 4 - 16].std() < 0.5 * drawn[:, SIZE // 2 :].std()


def test_nothing_wanted_is_nothing_drawn():
    assert not draw_grain(np.zeros((OCTAVES, 3), np.float32), _scene(), seed=1).any()
