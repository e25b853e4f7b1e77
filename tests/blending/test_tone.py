"""Colour of photos: gray, toned or coloured, and the conversion to Lab against scikit-image's."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from skimage.color import lab2rgb, rgb2lab

from gfprestore.blending.tone import Tone, find_tone, lab_to_unit, pixels_to_lab
from gfprestore.colorizing.lab import fit_chroma, lightness


def _gray(seed=0, size=512):
    rng = np.random.default_rng(seed)
    small = rng.integers(20, 236, (size // 32, size // 32)).astype(np.float64)
    return small.repeat(32, 0).repeat(32, 1)


def _sepia(gray):
    light = gray[..., None] / 255
    return np.clip(light * [255, 238, 205] + (1 - light) * [38, 20, 6], 0, 255).round().astype(np.uint8)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_lab_agrees_with_scikit_image(dtype):
    most = np.iinfo(dtype).max
    pixels = np.random.default_rng(3).integers(0, most, (64, 64, 3), dtype=dtype, endpoint=True)
    np.testing.assert_allclose(pixels_to_lab(pixels), rgb2lab(pixels / most), atol=0.05)


def test_lab_and_back():
    pixels = np.random.default_rng(4).integers(0, 255, (128, 128, 3), dtype=np.uint8, endpoint=True)
    np.testing.assert_allclose(lab_to_unit(pixels_to_lab(pixels)), pixels / 255, atol=5e-4)


def test_back_from_lab_agrees_with_scikit_image():
    lab = np.stack(np.meshgrid(np.linspace(30, 70, 20), np.linspace(-20, 20, 20)), axis=-1)
    lab = np.concatenate([lab, lab[..., 1:]], axis=-1).astype(np.float32)
    np.testing.assert_allclose(lab_to_unit(lab), lab2rgb(lab), atol=1e-3)


def test_colours_outside_srgb_are_clipped():
    unit = lab_to_unit(np.full((2, 2, 3), (50, 120, -120), np.float32))
    assert unit.min() >= 0 and unit.max() <= 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_equal_channels_are_gray(dtype):
    gray = _gray().astype(dtype)
    assert find_tone(np.repeat(gray[..., None], 3, axis=2)) is Tone.GRAY


def test_one_pixel_of_colour_is_not_gray():
    pixels = np.repeat(_gray()[..., None], 3, axis=2).astype(np.uint8)
    pixels[5, 5, 0] += 1
    assert find_tone(pixels) is Tone.TONED


def test_sepia_is_toned_with_its_grain_and_its_stains():
    rng = np.random.default_rng(5)
    sepia = _sepia(_gray())
    assert find_tone(sepia) is Tone.TONED
    grainy = np.clip(sepia + rng.normal(0, 8, sepia.shape), 0, 255).astype(np.uint8)
    assert find_tone(grainy) is Tone.TONED
    stained = sepia.astype(np.float64)
    stained[60:160, 60:160] -= [0, 6, 12]
    assert find_tone(np.clip(stained, 0, 255).astype(np.uint8)) is Tone.TONED


def test_colours_of_their_own_are_colour():
    rng = np.random.default_rng(6)
    patches = rng.integers(30, 220, (12, 12, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    assert find_tone(patches) is Tone.COLOUR


def test_a_large_photo_is_judged_as_its_small_copy():
    small = np.random.default_rng(7).integers(0, 255, (64, 48, 3), dtype=np.uint8)
    assert find_tone(small.repeat(8, 0).repeat(8, 1)) is find_tone(small)


@pytest.mark.parametrize("noise", [0, 12])
@pytest.mark.parametrize(("a", "b"), [(6, 18), (10, 30), (-4, -14), (2, 6), (0, 0.5)])
def test_any_one_tone_is_toned_however_noisy(a, b, noise):
    light = lightness(cv2.resize(_soft_patches(), (640, 480))[..., 0:1].repeat(3, axis=2) / 255)
    share = 4 * (light / 100) * (1 - light / 100)
    pixels = fit_chroma(np.dstack([light, a * share, b * share]).astype(np.float32)) * 255
    noisy = pixels + np.random.default_rng(1).normal(0, noise, pixels.shape)
    assert find_tone(np.clip(noisy.round(), 0, 255).astype(np.uint8)) is Tone.TONED


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_soft_colours_are_colour(dtype):
    pixels = _soft_patches()
    assert find_tone(pixels if dtype == np.uint8 else pixels.astype(np.uint16) * 257) is Tone.COLOUR


def test_between_toned_and_coloured_lies_faint():
    tones = []
    for cooler in (8, 16, 40):
        sepia = _sepia(_gray()).astype(np.float64)
        sepia[:, :80] += [0, cooler / 2, cooler]
        tones.append(find_tone(np.clip(sepia, 0, 255).astype(np.uint8)))
    assert tones == [Tone.TONED, Tone.FAINT, Tone.COLOUR]


def test_tiny_and_flat_photos_have_a_tone():
    assert find_tone(np.full((1, 1, 3), 90, np.uint8)) is Tone.GRAY
    assert find_tone(np.full((5, 5, 3), (120, 90, 60), np.uint8)) is Tone.TONED


def _soft_patches():
    coarse = np.random.default_rng(0).integers(30, 220, (6, 8, 3)).astype(np.uint8)
    return cv2.resize(coarse, (160, 120), interpolation=cv2.INTER_LINEAR)


@pytest.mark.parametrize(
    ("name", "tone"),
    [("group/Solvay_conference_1927.png", Tone.GRAY), ("old/b.png", Tone.FAINT)]
    + [(f"scratched/{letter}.png", Tone.TONED) for letter in "abcd"]
    + [(f"old/{letter}.png", Tone.COLOUR) for letter in "acdefgh"]
    + [("large/name with spaces.jpg", Tone.COLOUR)],
)
def test_real_photos(real_photos, name, tone):
    pixels = np.ascontiguousarray(cv2.imread(str(real_photos / name))[..., ::-1])
    assert find_tone(pixels) is tone
