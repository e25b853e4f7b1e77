from __future__ import annotations

import dataclasses
import json
import math

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import functional

from gfprestore.training.degradation import (
    FADED_BLACK,
    FADED_WHITE,
    LUMA,
    Degradation,
    degrade_photo,
    degrade_truth,
    gaussian_kernel,
)
from gfprestore.training.degradation_presets import ARTICLE, OLDPRINT, PRESETS, RELEASE, draw_degradation
from gfprestore.training.jitter import NO_JITTER, ORDERS, jitter_colours


def photo(height: int = 48, width: int = 40, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def draw(preset, count: int, seed: int = 0) -> list[Degradation]:
    generator = np.random.default_rng(seed)
    return [draw_degradation(generator, preset) for _ in range(count)]


def assert_uniform(values, low: float, high: float) -> None:
    """Kolmogorov-Smirnov against the uniform distribution; 1.95 / sqrt(n) is passed once in 500 tries by chance."""
    values = np.sort(values)
    assert low <= values[0]
    assert values[-1] <= high
    expected = (values - low) / (high - low)
    steps = np.arange(len(values) + 1) / len(values)
    distance = max(np.abs(expected - steps[1:]).max(), np.abs(expected - steps[:-1]).max())
    assert distance < 1.95 / math.sqrt(len(values))


def test_everything_off_is_the_identity():
    pixels = photo()
    result = degrade_photo(pixels, Degradation())
    assert np.array_equal(result, pixels)
    assert not np.shares_memory(result, pixels)
    assert degrade_truth(pixels, Degradation()) is pixels


@pytest.mark.parametrize("name", PRESETS)
def test_the_same_seed_gives_the_same_bytes_and_a_record_survives_json(name):
    pixels = photo()
    for first, second in zip(draw(PRESETS[name], 8), draw(PRESETS[name], 8), strict=True):
        fields = json.loads(json.dumps(dataclasses.asdict(first)))
        read = Degradation(**{key: tuple(v) if isinstance(v, list) else v for key, v in fields.items()})
        assert read == first == second
        assert np.array_equal(degrade_photo(pixels, read), degrade_photo(pixels, first))


def test_another_seed_gives_other_bytes():
    first, second = draw(ARTICLE, 2)
    assert first.noise_seed != second.noise_seed
    noisy = Degradation(noise=5.0, noise_seed=1)
    other = dataclasses.replace(noisy, noise_seed=2)
    assert not np.array_equal(degrade_photo(photo(), noisy), degrade_photo(photo(), other))


def test_article_parameters_follow_their_ranges():
    drawn = draw(ARTICLE, 3000)
    assert_uniform([d.blur_sigma[0] for d in drawn], 0.2, 10)
    assert_uniform([d.downscale for d in drawn], 1, 8)
    assert_uniform([d.noise for d in drawn], 0, 15)
    qualities = np.bincount([d.jpeg_quality for d in drawn], minlength=101)
    assert qualities[:60].sum() == 0
    assert qualities[60:].min() > 3000 / 41 / 2
    off = {"blur_sigma", "kernel_pixels", "downscale", "noise", "noise_seed", "jpeg_quality"}
    off |= {"grain_pixels", "line_period", "line_phase", "lines_are_vertical"}
    for field in dataclasses.fields(Degradation):
        if field.name not in off:
            assert {getattr(d, field.name) for d in drawn} == {field.default}, field.name
    assert all(d.blur_sigma[0] == d.blur_sigma[1] for d in drawn)


def test_release_parameters_follow_their_ranges():
    drawn = draw(RELEASE, 4000)
    rotated = [d for d in drawn if d.blur_sigma[0] != d.blur_sigma[1]]
    assert abs(len(rotated) / 4000 - 0.5) < 0.04
    assert_uniform([d.blur_sigma[1] for d in rotated], 0.1, 10)
    assert_uniform([d.blur_radians for d in rotated], -math.pi, math.pi)
    assert_uniform([d.downscale for d in drawn], 0.8, 8)
    assert_uniform([d.noise for d in drawn], 0, 20)
    shifted = [d for d in drawn if d.colour_shift != (0, 0, 0)]
    assert abs(len(shifted) / 4000 - 0.3) < 0.04
    assert_uniform([shift for d in shifted for shift in d.colour_shift], -20, 20)
    assert 0.003 < np.mean([d.is_gray for d in drawn]) < 0.02
    assert not any(d.truth_keeps_tone for d in drawn)


def test_old_prints_keep_their_tone_and_are_sepia_only_when_gray():
    drawn = draw(OLDPRINT, 3000)
    gray = [d for d in drawn if d.is_gray]
    assert abs(len(gray) / 3000 - 0.3) < 0.04
    assert all(d.truth_keeps_tone for d in drawn)
    assert all(d.is_gray for d in drawn if d.sepia > 0)
    assert min(d.jpeg_quality for d in drawn) == 30
    assert {d.kernel_pixels for d in drawn} == {41}
    for name, probability in (("fading", 0.3), ("grain", 0.4), ("line_strength", 0.15)):
        assert abs(np.mean([getattr(d, name) > 0 for d in drawn]) - probability) < 0.04, name


def test_kernel_has_the_covariance_it_was_asked_for():
    sigma, radians = (4.0, 1.5), 0.6
    kernel = gaussian_kernel(sigma, radians, 41).astype(np.float64)
    rows, columns = np.mgrid[-20:21, -20:21]
    covariance = np.array(
        [[(kernel * a * b).sum() for b in (columns, rows)] for a in (columns, rows)],
    )
    turn = np.array([[math.cos(radians), -math.sin(radians)], [math.sin(radians), math.cos(radians)]])
    assert kernel.sum() == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(covariance, turn @ np.diag(np.square(sigma)) @ turn.T, rtol=1e-3)


def test_both_ways_to_blur_agree():
    pixels = photo()
    isotropic = degrade_photo(pixels, Degradation(blur_sigma=(2.0, 2.0)))
    turned = degrade_photo(pixels, Degradation(blur_sigma=(2.0, 2.0 + 1e-9), blur_radians=1.0))
    assert np.abs(isotropic.astype(int) - turned).max() <= 1


def test_downscaling_forgets_what_lies_between_samples():
    pixels = photo(64, 64)
    shrunk = cv2.resize(pixels.astype(np.float32), (16, 16), interpolation=cv2.INTER_LINEAR)
    expected = cv2.resize(shrunk, (64, 64), interpolation=cv2.INTER_LINEAR)
    assert np.abs(degrade_photo(pixels, Degradation(downscale=4.0)) - expected).max() <= 0.51


def test_noise_has_its_deviation():
    middle = np.full((128, 128, 3), 128, np.uint8)
    noisy = degrade_photo(middle, Degradation(noise=12.0)).astype(float)
    assert noisy.std() == pytest.approx(12, rel=0.03)
    red, green, _ = noisy.reshape(-1, 3).T
    assert abs(np.corrcoef(red, green)[0, 1]) < 0.05


def test_jpeg_is_that_of_the_coder_with_channels_in_their_places():
    pixels = photo()
    _, coded = cv2.imencode(".jpg", pixels[..., ::-1].copy(), [cv2.IMWRITE_JPEG_QUALITY, 60])
    expected = cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1]
    assert np.array_equal(degrade_photo(pixels, Degradation(jpeg_quality=60)), expected)


def test_gray_is_luma():
    pixels = photo()
    expected = np.rint(pixels @ LUMA.astype(np.float64))
    assert np.abs(degrade_photo(pixels, Degradation(is_gray=True)) - expected[..., None]).max() <= 1


@pytest.mark.parametrize(
    "tone",
    [
        {"is_gray": True},
        {"is_gray": True, "sepia": 0.7, "fading": 0.5},
        {"colour_shift": (12.0, -7.0, 3.0)},
        {"fading": 0.4},
    ],
)
def test_the_truth_has_the_tone_only_where_it_keeps_it(tone):
    pixels = photo()
    assert degrade_truth(pixels, Degradation(**tone)) is pixels
    kept = Degradation(**tone, truth_keeps_tone=True)
    assert np.array_equal(degrade_truth(pixels, kept), degrade_photo(pixels, kept))
    damaged = dataclasses.replace(kept, blur_sigma=(3.0, 3.0), noise=9.0, jpeg_quality=40)
    assert np.array_equal(degrade_truth(pixels, damaged), degrade_truth(pixels, kept))


def test_fading_moves_black_and_white_to_the_print_s_own():
    ends = np.zeros((2, 1, 3), np.uint8)
    ends[1] = 255
    np.testing.assert_array_equal(
        degrade_photo(ends, Degradation(fading=1.0))[:, 0], np.stack([FADED_BLACK, FADED_WHITE])
    )


def test_grain_is_gray_strongest_in_the_middle_and_as_strong_as_asked():
    steps = np.repeat(np.array([8, 128, 247], np.uint8), 64)[:, None, None] * np.ones((1, 192, 3), np.uint8)
    difference = degrade_photo(steps, Degradation(grain=10.0)).astype(float) - steps
    dark, middle, light = (difference[64 * i : 64 * i + 64].std() for i in range(3))
    assert middle == pytest.approx(10, rel=0.1)
    assert max(dark, light) < middle / 2
    assert np.ptp(difference, axis=2).max() == 0


@pytest.mark.parametrize("is_vertical", [False, True])
def test_scanner_lines_run_one_way_with_their_period(is_vertical):
    middle = np.full((60, 60, 3), 100, np.uint8)
    lined = degrade_photo(middle, Degradation(line_strength=9.0, line_period=6.0, lines_are_vertical=is_vertical))
    across = lined if is_vertical else lined.transpose(1, 0, 2)
    assert np.array_equal(across, np.broadcast_to(across[:1], across.shape))
    spectrum = np.abs(np.fft.rfft(across[0, :, 0].astype(float) - 100))
    assert spectrum.argmax() == 10
    assert np.ptp(across) == pytest.approx(2 * 9 * math.sin(math.pi / 3), abs=1.1)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(sorted(PRESETS)), st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 40))
def test_any_draw_keeps_shape_and_input(name, seed, height, width):
    pixels = photo(height, width, seed % 7)
    before = pixels.copy()
    result = degrade_photo(pixels, draw_degradation(np.random.default_rng(seed), PRESETS[name]))
    assert result.shape == pixels.shape
    assert result.dtype == np.uint8
    assert result.flags.c_contiguous
    assert np.array_equal(pixels, before)


def test_jitter_is_torchvision_s():
    unit = photo(40, 40).astype(np.float32) / 255
    tensor = torch.from_numpy(unit).permute(2, 0, 1)
    changes = (
        functional.adjust_brightness,
        functional.adjust_contrast,
        functional.adjust_saturation,
        functional.adjust_hue,
    )
    rng = np.random.default_rng(3)
    for order, indices in enumerate(ORDERS):
        jitter = (*rng.uniform((0.5, 0.5, 0.0), 1.5).tolist(), float(rng.uniform(-0.1, 0.1)))
        expected = tensor
        for index in indices:
            expected = changes[index](expected, jitter[index])
        result = jitter_colours(unit, jitter, order)
        # The hue of nearly gray pixels hangs on the last bits of both; what is seen of it does not.
        np.testing.assert_allclose(result, expected.permute(1, 2, 0).numpy(), atol=2e-3)
    assert jitter_colours(unit, NO_JITTER, 5) is unit


def test_only_the_published_configuration_jitters():
    jittered = [d for d in draw(RELEASE, 4000) if d.jitter != NO_JITTER]
    assert abs(len(jittered) / 4000 - 0.3) < 0.04
    for index, (low, high) in enumerate(((0.5, 1.5), (0.5, 1.5), (0.0, 1.5), (-0.1, 0.1))):
        assert_uniform([d.jitter[index] for d in jittered], low, high)
    assert {d.jitter_order for d in jittered} == set(range(24))
    assert all(d.jitter == NO_JITTER for preset in (ARTICLE, OLDPRINT) for d in draw(preset, 500))
