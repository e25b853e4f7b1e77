"""Sharpness: told from blur whatever the contrast and the noise; the photo's detail stands where it has more."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from dead_leaves import leaves

from gfprestore.blending.bands import split_bands
from gfprestore.blending.detail import count_empty_octaves, photo_shares, sharper_parts
from gfprestore.blending.grain import measure_grain
from gfprestore.blending.masks import oval_mask
from gfprestore.blending.sharpness import (
    FRAME_SAMPLING,
    NEARLY_SHARP,
    SHARP_ENOUGH,
    find_edges,
    gradient_energy,
    is_crisp,
    measure_halves,
    measure_sharpness,
)

SIZE, OCTAVES = 256, 4


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
    assert find_edges(blurred).steepness() == pytest.approx(expected, rel=0.12)


def test_noise_and_scratches_do_not_pass_for_crisp_edges():
    blurred = _blur(leaves(), 2.5)
    plain = find_edges(blurred).steepness()
    noisy = blurred + np.random.default_rng(1).normal(0, 2.0, blurred.shape).astype(np.float32)
    scratched = blurred.copy()
    scratched[:, 60:200:70] += 30
    assert not is_crisp(plain, 1.0)
    assert find_edges(noisy).steepness() == pytest.approx(plain, abs=0.06)
    assert not is_crisp(find_edges(scratched).steepness(), 1.0)


@pytest.mark.parametrize("seed", range(3))
def test_scratches_and_dust_are_not_sharpness(seed):
    rng = np.random.default_rng(seed)
    dirty = _blur(leaves(seed), 1.8)
    for start, end in rng.integers(0, SIZE, (2, 2, 2)).tolist():
        cv2.line(dirty, start, end, 88.0, 1, cv2.LINE_AA)
    assert _sharpness(dirty) < SHARP_ENOUGH


def test_a_flat_face_has_no_edges():
    assert find_edges(np.full((SIZE, SIZE), 50, np.float32)).steepness() == 0


def test_a_flat_face_is_not_sharp():
    assert _sharpness(np.full((SIZE, SIZE), 50, np.float32)) == 0


def _half_blurred(sharp, side):
    half, blurred = sharp.copy(), _blur(sharp, 3)
    where = {
        "left": np.s_[:, : SIZE // 2],
        "right": np.s_[:, SIZE // 2 :],
        "upper": np.s_[: SIZE // 2],
        "lower": np.s_[SIZE // 2 :],
    }
    half[where[side]] = blurred[where[side]]
    return half


def _halves(lightness):
    bands = split_bands(lightness[..., None], OCTAVES)
    return measure_halves(bands, measure_grain(bands, lightness, 1.0), find_edges(lightness), 2.0)


@pytest.mark.parametrize("side", ["left", "right", "upper", "lower"])
def test_the_sharp_and_the_soft_half_of_a_face_are_found(side):
    softest, sharpest = _halves(_half_blurred(leaves(), side))
    assert softest < NEARLY_SHARP <= sharpest
    assert min(_halves(leaves())) >= SHARP_ENOUGH
    assert max(_halves(_blur(leaves(), 3))) < NEARLY_SHARP


def _shares(photo, restored, sampling):
    split = [split_bands(image[..., None], OCTAVES) for image in (photo, restored)]
    return photo_shares(*split, np.zeros((OCTAVES, 1), np.float32), photo, sampling)


def test_the_photo_stands_where_it_is_sharper_in_all_octaves():
    sharp = leaves()
    for share in _shares(_half_blurred(sharp, "right"), _blur(sharp, 1.2), 1.5):
        middle, clear = share.shape[0] // 2, share.shape[0] // 16
        assert np.median(share[:, : middle - clear]) > 0.95
        assert np.median(share[:, middle + clear :]) < 0.05
        assert share.min() >= 0 and share.max() <= 1


def test_a_soft_face_smaller_than_the_frame_is_left_to_the_restoration():
    soft = _blur(leaves(), 2.2)
    assert _shares(soft, _blur(leaves(), 3), 0.5) == [None] * OCTAVES


def test_a_crisp_face_smaller_than_the_frame_stands_where_its_restoration_is_softer():
    sharp = leaves()
    assert np.median(_shares(sharp, _blur(sharp, 3), 0.5)[0]) > 0.95
    better = np.clip(50 + 1.8 * (sharp - 50), 0, 100)
    assert all(share is None or np.median(share) < 0.05 for share in _shares(sharp, better, 0.5))


def test_a_scratch_and_dust_are_not_parts_that_stand():
    restored = _blur(leaves(), 1.0)
    soft = _blur(restored, 2.0)
    dirty = soft.copy()
    cv2.line(dirty, (40, 200), (220, 30), 95.0, 2, cv2.LINE_AA)
    for x, y in np.random.default_rng(3).integers(20, 236, (12, 2)).tolist():
        cv2.circle(dirty, (x, y), 2, 5.0, -1, cv2.LINE_AA)
    bands = [split_bands(image[..., None], OCTAVES) for image in (dirty, restored)]
    assert sharper_parts(*bands, np.zeros((OCTAVES, 1), np.float32)).mean() < 0.05


def test_coarse_octaves_of_a_face_without_sharper_parts_are_the_restorations():
    sharp = leaves()
    soft = _shares(_blur(sharp, 3), sharp, FRAME_SAMPLING)
    assert soft[3] is None


def _enlarged(sharp, factor, noise, seed=0):
    """A picture that was taken small, with noise, and enlarged before it came."""
    side = SIZE // factor
    small = np.asarray(cv2.resize(sharp, (side, side), interpolation=cv2.INTER_AREA), np.float32)
    small = small + np.random.default_rng(seed).normal(0, noise, small.shape).astype(np.float32)
    return np.asarray(cv2.resize(small, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC), np.float32)


@pytest.mark.parametrize("noise", [0.0, 3.0])
@pytest.mark.parametrize(("factor", "empty"), [(1, 0), (2, 0), (8, 2)])
def test_octaves_that_an_enlargement_leaves_empty_are_counted(factor, empty, noise):
    # Edges, which leaves are full of, reach an octave beyond what was there: twice as large leaves none empty.
    sharp = leaves()
    photo = _enlarged(sharp, factor, noise)
    bands = [split_bands(image[..., None], OCTAVES) for image in (photo, sharp)]
    grain = measure_grain(bands[0], photo, 1.0)
    assert count_empty_octaves(*bands, grain) == empty


def test_noise_that_was_enlarged_is_not_the_photos_detail(monkeypatch):
    sharp = leaves()
    photo, restored = _enlarged(sharp, 8, 5.0), _blur(sharp, 1.0)
    bands = [split_bands(image[..., None], OCTAVES) for image in (photo, restored)]
    grain = measure_grain(bands[0], photo, 1.0)
    shares = photo_shares(*bands, grain, photo, 1.0)
    monkeypatch.setattr("gfprestore.blending.detail.count_empty_octaves", lambda *_: 0)
    blind = photo_shares(*bands, grain, photo, 1.0)
    for octave in range(3):
        ours = 0.0 if shares[octave] is None else float(shares[octave].mean())
        assert ours < 0.5 * float(blind[octave].mean()), octave


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
