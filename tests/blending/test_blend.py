"""What blending promises: the same photo, only better."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from dead_leaves import leaves
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.color import rgb2lab

from gfprestore.blending.blend import CHROMA_GAINS, BlendSettings, Verdict, blend_crop
from gfprestore.blending.masks import border_mask
from gfprestore.blending.sharpness import LEAST_GRADIENT, gradient_energy
from gfprestore.blending.tone import Tone

SIZE = 256
CLEAN = BlendSettings(strength=1.0, grain=0.0)


def _rgb(lightness, tint=(1.0, 0.92, 0.84), dtype=np.uint8):
    most = np.iinfo(dtype).max
    return np.clip(lightness[..., None] / 100 * np.array(tint) * most + 0.5, 0, most).astype(dtype)


def _gray(lightness):
    return _rgb(lightness, (1.0, 1.0, 1.0))


def _sepia(lightness):
    light = np.clip(lightness[..., None] / 100, 0, 1)
    return (light * [245, 225, 190] + (1 - light) * [45, 30, 18]).round().astype(np.uint8)


def _blur(image, radius):
    return cv2.GaussianBlur(image, (0, 0), radius)


def _colourful(seed=0):
    """A crop with colours of its own, and a sharper, tinted, shifted restoration of it."""
    rng = np.random.default_rng(seed)
    light = leaves(seed)
    hues = _blur(rng.uniform(0.4, 1.0, (SIZE, SIZE, 3)).astype(np.float32), 12)
    sharp = np.clip(light[..., None] * 2.3 * hues / hues.mean(), 0, 255)
    photo = np.clip(_blur(sharp, 3) + rng.normal(0, 3, sharp.shape), 0, 255).astype(np.uint8)
    return photo, np.clip(sharp * [1.15, 1.0, 0.85] + 8, 0, 255).astype(np.uint8)


def _blend(photo, restored, blend=CLEAN, sampling=0.3, tone=None):
    return blend_crop(photo, restored, sampling=sampling, settings=blend, tone=tone)


# Strength


def test_strength_zero_leaves_the_photo_untouched():
    blended = _blend(*_colourful(), blend=BlendSettings(strength=0.0))
    assert blended.pixels is None and blended.verdict is Verdict.OFF and blended.reason


def test_an_equal_crop_changes_nothing():
    photo, _ = _colourful()
    for crop in (photo, _gray(leaves()), _sepia(leaves())):
        np.testing.assert_array_equal(_blend(crop, crop).pixels, crop)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 50), st.floats(0.01, 1), st.floats(0.01, 1))
def test_the_change_grows_with_strength(seed, one, other):
    photo, restored = _gray(_blur(leaves(seed % 3), 3)), _gray(leaves(seed))
    weaker, stronger = (
        np.linalg.norm(_blend(photo, restored, BlendSettings(strength=strength, grain=0)).pixels - photo)
        for strength in sorted((one, other))
    )
    assert weaker <= stronger * 1.001 + 1e-3


def test_full_strength_is_the_restoration_but_for_its_light():
    photo, restored = _gray(_blur(leaves(), 3)), _gray(leaves())
    blended = _blend(photo, restored, BlendSettings(strength=1.0, grain=0.0, match_colour=False)).pixels
    np.testing.assert_allclose(blended, restored, atol=0.01)


def test_half_strength_is_no_double_exposure():
    # The same edge, twelve pixels apart: a fade shows two sharp edges, a sweep through the bands only one.
    photo, restored = np.full((2, SIZE, SIZE), 30, np.float32)
    photo[:, 122:], restored[:, 134:] = 70, 70
    photo, restored = _gray(photo), _gray(restored)
    blended = _blend(photo, restored, BlendSettings(strength=0.5, grain=0)).pixels[SIZE // 2, :, 0]
    slope = np.abs(np.diff(blended))
    fade = np.abs(np.diff((photo[0, :, 0].astype(float) + restored[0, :, 0]) / 2))
    assert slope[133] > 0.5 * fade[133]
    assert slope[121] < 0.25 * slope[133]
    assert fade[121] == pytest.approx(fade[133])


@pytest.mark.parametrize("strength", [-0.1, 1.5])
def test_strength_out_of_range_is_refused(strength):
    with pytest.raises(ValueError, match="strength"):
        _blend(*_colourful(), blend=BlendSettings(strength=strength))


# Colour and light


@pytest.mark.parametrize("strength", [0.3, 0.8, 1.0])
def test_nothing_is_tinted(strength):
    photo, restored = _colourful()
    blended = _blend(photo, restored, BlendSettings(strength=strength)).pixels
    before, after = (rgb2lab(_blur(image.astype(np.float64), 24) / 255) for image in (photo, blended))
    assert np.abs(after - before)[32:-32, 32:-32].max() < 2.5
    assert np.abs((after - before).mean(axis=(0, 1))).max() < 0.5
    untouched = rgb2lab(_blur(restored.astype(np.float64), 24) / 255)
    assert np.abs((untouched - before).mean(axis=(0, 1))).max() > 4


def _coloured(softness, noise, seed=0):
    """A photo whose colours are soft and noisy, its restoration, and the truth."""
    rng = np.random.default_rng(seed)
    truth = 2.3 * np.stack([leaves(seed + channel) for channel in range(3)], axis=2)
    blotches = _blur(rng.normal(0, 1, truth.shape).astype(np.float32), 4)
    photo = _blur(truth, softness) + blotches / blotches.std() * noise if softness else truth
    restored = truth + _blur(rng.normal(0, 1, truth.shape).astype(np.float32), 4) * 8
    return [np.clip(image, 0, 255).astype(np.uint8) for image in (photo, restored, truth)]


def test_blotches_of_colour_go_where_fine_colour_is_lost(monkeypatch):
    photo, restored, truth = _coloured(softness=5, noise=8)

    def colour_error():
        pixels = _blend(photo, restored, tone=Tone.COLOUR).pixels
        return np.square(rgb2lab(pixels / 255) - rgb2lab(truth / 255))[..., 1:].mean()

    ours = colour_error()
    monkeypatch.setattr("gfprestore.blending.blend.SMEARED_CHROMA_GAINS", CHROMA_GAINS)
    assert ours < 0.85 * colour_error()


def test_colours_that_are_there_are_no_less_the_photos_own(monkeypatch):
    photo, restored, _ = _coloured(softness=0, noise=0)
    ours = _blend(photo, restored, tone=Tone.COLOUR).pixels
    monkeypatch.setattr("gfprestore.blending.blend.SMEARED_CHROMA_GAINS", CHROMA_GAINS)
    np.testing.assert_array_equal(ours, _blend(photo, restored, tone=Tone.COLOUR).pixels)


@pytest.mark.parametrize("sampling", [0.8, 1.0])
@pytest.mark.parametrize("size", [32, 64, 128])
def test_blurred_crops_of_small_models_are_blended(size, sampling):
    sharp = leaves(0, size, 200)
    blended = _blend(_gray(_blur(sharp, 6)), _gray(sharp), sampling=sampling)
    assert blended.pixels.shape == (size, size, 3)


def test_a_gray_photo_stays_gray_to_the_bit():
    photo, restored = _gray(_blur(leaves(), 2)), _colourful()[1]
    blended = _blend(photo, restored, BlendSettings()).pixels
    assert np.array_equal(blended[..., 0], blended[..., 1]) and np.array_equal(blended[..., 1], blended[..., 2])
    assert np.abs(blended - photo).max() > 5


def test_a_sepia_photo_stays_as_sepia_as_it_was():
    photo, restored = _sepia(_blur(leaves(), 2)), _colourful()[1]
    blended = _blend(photo, restored, BlendSettings(grain=1.0)).pixels
    inside = (blended.min(axis=2) > 3) & (blended.max(axis=2) < 252)
    difference = np.abs(rgb2lab(blended / 255) - rgb2lab(photo / 255))[..., 1:]
    assert difference[inside].max() < 1
    # Rounded to 8 bits, as a file holds it.
    difference = np.abs(rgb2lab(blended.round() / 255) - rgb2lab(photo / 255))[..., 1:]
    assert np.quantile(difference[inside], 0.99) < 1 and difference[inside].mean() < 0.5
    assert np.abs(blended - photo).max() > 5


def test_the_tone_of_the_whole_photo_decides():
    photo, restored = _colourful()
    as_toned = _blend(photo, restored, tone=Tone.TONED).pixels
    as_colour = _blend(photo, restored, tone=Tone.COLOUR).pixels
    chroma = [np.abs(rgb2lab(image / 255) - rgb2lab(photo / 255))[..., 1:].mean() for image in (as_toned, as_colour)]
    assert chroma[0] < 0.3 * chroma[1]


def test_a_flat_face_shows_no_seam():
    photo, restored = np.full((SIZE, SIZE, 3), 40, np.uint8), np.full((SIZE, SIZE, 3), 215, np.uint8)
    blended = _blend(photo, restored).pixels
    mask = border_mask(SIZE)[..., None]
    pasted = photo + mask * (blended - photo)
    assert max(np.abs(np.diff(pasted, axis=axis)).max() for axis in (0, 1)) < 0.01 * 12


# Depth


def test_sixteen_bits_give_what_eight_do():
    light, restored = _blur(leaves(), 2), _rgb(leaves())
    eight = _blend(_rgb(light), restored, BlendSettings(grain=0)).pixels
    sixteen = _blend(_rgb(light, dtype=np.uint16), restored, BlendSettings(grain=0)).pixels
    assert sixteen.max() > 255
    np.testing.assert_allclose(sixteen / 257, eight, atol=1.5)


def test_sixteen_bits_keep_steps_finer_than_eight():
    ramp = np.tile(np.linspace(30000, 31000, SIZE), (SIZE, 1))
    photo = np.repeat(ramp[..., None], 3, axis=2).astype(np.uint16)
    blended = _blend(photo, (photo // 257).astype(np.uint8), BlendSettings(grain=0)).pixels
    assert len(np.unique(blended[SIZE // 2, :, 0].round())) > 100


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_result_stays_in_range(dtype):
    photo = _rgb(_blur(leaves() * 3 - 100, 2), dtype=dtype)
    blended = _blend(photo, _rgb(leaves(1) * 3 - 100), BlendSettings(strength=1.0)).pixels
    assert blended.dtype == np.float32 and blended.shape == photo.shape
    assert blended.min() >= 0 and blended.max() <= np.iinfo(dtype).max


# Grain


def _noise_level(image):
    return float(np.median(np.abs(np.diff(image[64:192, 64:192].mean(axis=2), axis=1))))


def test_the_face_gets_its_grain_back():
    rng = np.random.default_rng(4)
    light = 55 + 6 * np.sin(np.linspace(0, 3, SIZE))[:, None] * np.ones(SIZE)
    photo = _gray(light + rng.normal(0, 2.5, light.shape))[..., [0, 0, 0]]
    clean = _gray(light)
    with_grain, half, without = (
        _blend(photo, clean, BlendSettings(strength=1.0, grain=grain), sampling=0.6).pixels for grain in (1, 0.5, 0)
    )
    assert _noise_level(with_grain) == pytest.approx(_noise_level(photo), rel=0.25)
    assert _noise_level(without) < 0.2 * _noise_level(photo)
    assert _noise_level(without) < _noise_level(half) < _noise_level(with_grain)


def test_the_same_photo_gives_the_same_bytes():
    photo, restored = _colourful()
    first, second = (_blend(photo.copy(), restored.copy(), BlendSettings()).pixels for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_a_crop_that_is_rounded_otherwise_gets_the_same_grain_and_another_face_another():
    rng = np.random.default_rng(4)
    light = 55 + 6 * np.sin(np.linspace(0, 3, SIZE))[:, None] * np.ones(SIZE)
    photo, clean = _gray(light + rng.normal(0, 2.5, light.shape))[..., [0, 0, 0]], _gray(light)
    rounded = photo.copy()
    rounded[rng.random(light.shape) < 0.001] += 1
    lighter = np.clip(photo.astype(int) + 9, 0, 255).astype(np.uint8)
    one, other, third = (
        _blend(each, clean, BlendSettings(strength=1.0), sampling=0.6).pixels.astype(float)
        for each in (photo, rounded, lighter)
    )
    assert np.abs(one - other).mean() < 0.05
    assert np.abs(one - third + (third - one).mean()).mean() > 1


# Never blurrier


def test_a_sharp_face_is_left_alone_and_says_why():
    blended = _blend(_rgb(leaves()), _rgb(_blur(leaves(), 1)), BlendSettings(), sampling=2.0)
    assert blended.pixels is None and blended.verdict is Verdict.SHARP and "sharp" in blended.reason


def test_a_blurred_face_as_large_is_restored():
    blended = _blend(_rgb(_blur(leaves(), 2)), _rgb(leaves()), BlendSettings(), sampling=2.0)
    assert blended.verdict is Verdict.RESTORED


def test_a_small_face_is_restored_however_crisp_its_crop():
    assert _blend(_rgb(leaves()), _rgb(leaves(1)), BlendSettings(), sampling=0.5).verdict is Verdict.RESTORED


def test_detail_can_be_given_up_on_request():
    given_up = BlendSettings(keep_detail=False)
    assert _blend(_rgb(leaves()), _rgb(_blur(leaves(), 2)), given_up, sampling=2.0).verdict is Verdict.RESTORED


def _drawn_by(model, sharp):
    """What a model makes of a crop, good or absurd."""
    return {
        "constant": lambda: np.full_like(sharp, 50),
        "blurred": lambda: _blur(sharp, 4),
        "sharpened": lambda: sharp + (sharp - _blur(sharp, 2)),
        "noise": lambda: 50 + np.random.default_rng(1).normal(0, 15, sharp.shape),
        "shifted": lambda: np.roll(sharp, 9, axis=1),
        "inverted": lambda: 100 - sharp,
        "other": lambda: leaves(5, count=400),
    }[model]()


MODELS = ["constant", "blurred", "sharpened", "noise", "shifted", "inverted", "other"]


def _keeps_gradient(photo, restored, strength, sampling, grain=1.0):
    blend = BlendSettings(strength=strength, grain=grain)
    blended = _blend(photo, restored, blend, sampling=sampling)
    if blended.pixels is None:
        return True
    before, after = (gradient_energy(image[..., 0].astype(np.float32)) for image in (photo, blended.pixels))
    return after >= LEAST_GRADIENT * before * 0.999


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(MODELS),
    st.sampled_from(["sharp", "noisy", "left", "lower"]),
    st.floats(0.0, 0.8),
    st.floats(0.05, 1.0),
    st.floats(0.9, 6.0),
)
def test_no_model_makes_a_sharp_large_face_blurrier(model, crop, softness, strength, sampling):
    sharp = leaves(count=400)
    light = _blur(sharp, softness) if softness > 0.1 else sharp.copy()
    if crop == "noisy":
        light += np.random.default_rng(2).normal(0, 2, light.shape).astype(np.float32)
    elif crop == "left":
        light[:, : SIZE // 2] = _blur(light, 3)[:, : SIZE // 2]
    elif crop == "lower":
        light[SIZE // 2 :] = _blur(light, 3)[SIZE // 2 :]
    assert _keeps_gradient(_gray(light), _gray(_drawn_by(model, sharp)), strength, sampling)


def test_half_of_a_large_face_is_restored_and_the_sharp_half_stays():
    sharp = leaves(count=400)
    photo = sharp.copy()
    photo[:, SIZE // 2 :] = _blur(sharp, 3)[:, SIZE // 2 :]
    blended = _blend(_gray(photo), _gray(_blur(sharp, 1)), BlendSettings(), sampling=3.0)
    change = np.abs(blended.pixels[..., 0] - _gray(photo)[..., 0])
    assert blended.verdict is Verdict.RESTORED
    assert np.median(change[:, : SIZE // 2 - 24]) < 0.1 * np.median(change[:, SIZE // 2 + 24 :])


def test_grain_taken_off_by_request_is_no_loss_of_detail():
    sharp = leaves(count=400)
    photo = sharp.copy()
    photo[:, SIZE // 2 :] = _blur(sharp, 3)[:, SIZE // 2 :]
    noisy = _gray(photo + np.random.default_rng(2).normal(0, 3, sharp.shape))
    assert _blend(noisy, _gray(_blur(sharp, 1)), CLEAN, sampling=3.0).verdict is Verdict.RESTORED
