"""Sharpness: told from blur whatever the contrast and the noise; the photo's detail stands where it has more."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from gfprestore.bands import split_bands
from gfprestore.detail import (
    FRAME_SAMPLING,
    NEARLY_SHARP,
    SHARP_ENOUGH,
    edge_steepness,
    gradient_energy,
    is_crisp,
    measure_sharpness,
    photo_shares,
)
from gfprestore.grain import measure_grain
from gfprestore.masks import oval_mask

SIZE, OCTAVES = 256, 4


def leaves(seed=0, size=SIZE, count=900):
    """Overlapping discs of many sizes: the statistics of natural pictures in focus. Lightness, float32 (S, S)."""
    rng = np.random.default_rng(seed)
    # Drawn at twice the size and averaged, as a lens and a sensor do.
    canvas = np.full((2 * size, 2 * size), 50, np.float32)
    for _ in range(count):
        radius = int(np.clip(6 / np.sqrt(rng.uniform(0.002, 1)), 5, 120))
        centre = tuple(int(value) for value in rng.integers(0, 2 * size, 2))
        cv2.circle(canvas, centre, radius, float(rng.uniform(25, 80)), -1)
    return np.asarray(cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA), np.float32)


def _sharpness(lightness):
    bands = split_bands(lightness[..., None], OCTAVES)
    return measure_sharpness(bands, measure_grain(bands, lightness, 1.0))


def _blur(lightness, radius):
    return np.asarray(cv2.GaussianBlur(lightness, (0, 0), radius), np.float32)


@pytest.mark.parametrize("seed", range(4))
def test_focus_is_told_from_blur(seed):
    sharp = leaves(seed)
    measured = [_sharpness(sharp), *(_sharpness(_blur(sharp, radius)) for radius in (0.8, 1.2, 2.0))]
    assert measured == sorted(measured, reverse=True)
    assert measured[0] >= SHARP_ENOUGH > NEARLY_SHARP > measured[3]


@pytest.mark.parametrize("contrast", [0.25, 0.5, 1.0])
def test_sharpness_does_not_depend_on_contrast(contrast):
    sharp = leaves()
    assert _sharpness(50 + contrast * (sharp - 50)) == pytest.approx(_sharpness(sharp), rel=0.1)


def test_noise_is_not_sharpness():
    blurred = _blur(leaves(), 2.5)
    noisy = blurred + np.random.default_rng(1).normal(0, 1.0, blurred.shape).astype(np.float32)
    assert _sharpness(noisy) < SHARP_ENOUGH


@pytest.mark.parametrize("blur", [1.0, 2.0, 4.0])
def test_the_steepness_of_a_step_is_its_closed_form(blur):
    step = np.zeros((SIZE, SIZE), np.float32)
    step[:, SIZE // 2 :] = 60
    # Within what sampling and the Sobel operator's own width add to both blurs.
    blurred = np.asarray(cv2.GaussianBlur(step, (0, 0), blur, borderType=cv2.BORDER_REPLICATE), np.float32)
    expected = np.sqrt((blur**2 + 2.4**2) / (blur**2 + 0.8**2))
    assert edge_steepness(blurred) == pytest.approx(expected, rel=0.12)


def test_noise_and_scratches_do_not_pass_for_crisp_edges():
    blurred = _blur(leaves(), 2.5)
    plain = edge_steepness(blurred)
    noisy = blurred + np.random.default_rng(1).normal(0, 2.0, blurred.shape).astype(np.float32)
    scratched = blurred.copy()
    scratched[:, 60:200:70] += 30
    assert not is_crisp(blurred, 1.0)
    assert edge_steepness(noisy) == pytest.approx(plain, abs=0.06)
    assert not is_crisp(scratched, 1.0)


@pytest.mark.parametrize("seed", range(3))
def test_scratches_and_dust_are_not_sharpness(seed):
    rng = np.random.default_rng(seed)
    dirty = _blur(leaves(seed), 1.8)
    for start, end in rng.integers(0, SIZE, (2, 2, 2)).tolist():
        cv2.line(dirty, start, end, 88.0, 1, cv2.LINE_AA)
    assert _sharpness(dirty) < SHARP_ENOUGH


def test_a_flat_face_has_no_edges():
    assert edge_steepness(np.full((SIZE, SIZE), 50, np.float32)) == 0


def test_a_flat_face_is_not_sharp():
    assert _sharpness(np.full((SIZE, SIZE), 50, np.float32)) == 0


def _shares(photo, restored, sampling):
    split = [split_bands(image[..., None], OCTAVES) for image in (photo, restored)]
    return photo_shares(*split, np.zeros((OCTAVES, 1), np.float32), sampling)


def test_the_photo_stands_where_it_is_sharper():
    sharp = leaves()
    half = sharp.copy()
    half[:, SIZE // 2 :] = _blur(sharp, 3)[:, SIZE // 2 :]
    restored = _blur(sharp, 1.2)
    share = _shares(half, restored, 1.5)[0][..., 0]
    assert np.median(share[:, : SIZE // 2 - 16]) > 0.95
    assert np.median(share[:, SIZE // 2 + 16 :]) < 0.05
    assert share.min() >= 0 and share.max() <= 1


def test_a_face_smaller_than_the_frame_leaves_detail_to_the_restoration():
    sharp = leaves()
    assert _shares(sharp, _blur(sharp, 3), 0.5) == [None] * OCTAVES


def test_coarse_octaves_are_the_restorations():
    sharp = leaves()
    assert _shares(sharp, _blur(sharp, 3), FRAME_SAMPLING)[3] is None


def test_gradient_energy_against_a_slow_sum():
    lightness = np.random.default_rng(2).random((32, 32)).astype(np.float32)
    weight = oval_mask(32)
    slow = 0.0
    for row in range(31):
        for column in range(31):
            here = float(lightness[row, column])
            across, down = float(lightness[row, column + 1]) - here, float(lightness[row + 1, column]) - here
            slow += float(weight[row, column]) * (across**2 + down**2)
    assert gradient_energy(lightness) == pytest.approx(slow / float(weight.sum()), rel=1e-4)
