"""Skin beyond the crop: where its colour reaches, where it ends, and what is left alone."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from gfprestore.colorize import OwnChroma, SoftTint, colorize_photo
from gfprestore.colorizing.lab import decode_srgb, encode_srgb, fit_chroma, lab_to_rgb, lightness, rgb_to_lab
from gfprestore.colorizing.skin_spread import calm_redness, learn_skin, spread_skin
from gfprestore.photo import ColouredFace

SKIN = np.array([17.0, 19.0])
GROUND = np.array([2.0, 5.0])


def frame(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of a copy that is 3 crops wide and high, in parts of the crop, which lies at (1, 0.5)."""
    place = (np.arange(3 * side) + 0.5) / side
    x, y = np.meshgrid(place - 1, place - 0.5)
    return x, y


def is_skin(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A head on a neck without end."""
    return (((x - 0.5) / 0.3) ** 2 + ((y - 0.55) / 0.36) ** 2 < 1) | ((np.abs(x - 0.5) < 0.15) & (y > 0.6))


def portrait(
    side: int = 100, *, skin: float = 65, ground: float = 30, collar: float | None = None
) -> tuple[np.ndarray, ColouredFace]:
    """Lightness of a small copy, and the face in it: coloured where it is skin, and seen in the crop only."""
    x, y = frame(side)
    light = np.where(is_skin(x, y), skin, ground).astype(np.float32)
    if collar is not None:
        light[(y > 1.2) & (y < 1.6)] = collar
    light = cv2.GaussianBlur(light, (0, 0), side / 100)
    rows, columns = slice(round(0.5 * side), round(1.5 * side)), slice(side, 2 * side)
    on_skin = is_skin(x, y)[rows, columns]
    lab = np.dstack([light[rows, columns], np.where(on_skin[..., None], SKIN, GROUND)]).astype(np.float32)
    crop = (fit_chroma(lab) * 255).round().astype(np.uint8)
    to_crop = np.array([[1.0, 0, -columns.start], [0, 1.0, -rows.start]])
    return light, ColouredFace(crop, to_crop, np.zeros((side, side), np.float32))


def spread(light: np.ndarray, *faces: ColouredFace) -> np.ndarray:
    """How much of the skin's chroma each place of a gray copy gets, by b."""
    gray = np.zeros((*light.shape, 2), np.float32)
    return spread_skin(gray, light, faces)[..., 1] / SKIN[1]


def test_neck_gets_the_faces_colour_beyond_the_crop() -> None:
    light, face = portrait()
    found = spread_skin(np.zeros((*light.shape, 2), np.float32), light, [face])
    np.testing.assert_allclose(found[100, 150], SKIN, atol=1)  # the face
    np.testing.assert_allclose(found[152, 150], SKIN, atol=3)  # just below the crop
    assert 0.2 < spread(light, face)[170, 150] < 0.9


@pytest.mark.parametrize("ground", [30, 65])
def test_colour_fades_steadily_down_a_neck_without_end(ground: float) -> None:
    light, face = portrait(ground=ground)
    down = spread(light, face)[140:, 150]
    assert (np.diff(down) < 0.01).all()
    assert np.abs(np.diff(down)).max() < 0.12, "no line across the neck"
    assert down[0] > 0.8
    assert (down[70:] == 0).all()


@pytest.mark.parametrize("collar", [92, 15])
def test_colour_ends_at_a_collar(collar: float) -> None:
    light, face = portrait(collar=collar)
    plain, _ = portrait()
    assert spread(light, face)[165, 150] > 0.3
    assert spread(light, face)[176:, 150].max() < 0.08
    assert spread(plain, face)[176, 150] > 0.2


def test_neither_background_nor_hair_gets_colour() -> None:
    light, face = portrait()
    x, y = frame(100)
    away = cv2.dilate(is_skin(x, y).astype(np.uint8), np.ones((13, 13), np.uint8)) == 0
    assert spread(light, face)[away].max() < 0.05


def test_light_ground_beside_the_neck_stays_as_it_is() -> None:
    """As light as skin, but seen not to be skin in the crop, and beside the neck."""
    light, face = portrait(ground=67)
    assert spread(light, face)[150:, :120].max() < 0.15
    assert spread(light, face)[150:, 180:].max() < 0.15


def test_on_even_ground_it_goes_down_rather_than_aside() -> None:
    light, face = portrait(ground=65)
    found = spread(light, face)
    assert found[156, 150] > 0.3
    assert max(found[152, 178], found[152, 121]) < 0.14


def test_it_is_the_same_at_every_size() -> None:
    small, large = (spread(*portrait(side, collar=90)) for side in (60, 150))
    resized = cv2.resize(large, small.shape[::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(small - resized).mean() < 0.01


def test_it_follows_a_turned_head() -> None:
    light, face = portrait()
    last = light.shape[0] - 1
    half_turn = np.array([[-1.0, 0, last], [0, -1.0, last]])
    to_crop = np.column_stack([face.to_crop[:, :2] @ half_turn[:, :2], face.to_crop @ np.array([last, last, 1.0])])
    turned = ColouredFace(face.crop, to_crop, face.mask)
    np.testing.assert_allclose(spread(light[::-1, ::-1].copy(), turned)[::-1, ::-1], spread(light, face), atol=0.02)


def test_it_is_the_same_every_time() -> None:
    light, face = portrait(ground=50, collar=80)
    np.testing.assert_array_equal(spread(light, face), spread(light, face))


def test_nothing_changes_without_faces_or_for_a_face_without_colour() -> None:
    light, face = portrait()
    gray = np.repeat(face.crop[..., :1], 3, axis=2)
    chroma = np.random.default_rng(0).normal(0, 9, (*light.shape, 2)).astype(np.float32)
    np.testing.assert_array_equal(spread_skin(chroma, light, []), chroma)
    np.testing.assert_array_equal(spread_skin(chroma, light, [ColouredFace(gray, face.to_crop, face.mask)]), chroma)


def test_where_faces_meet_colours_lie_between_theirs() -> None:
    light, face = portrait()
    lab = rgb_to_lab(face.crop / np.float32(255))
    lab[..., 1:] *= 0.6
    paler = ColouredFace((lab_to_rgb(lab) * 255).round().astype(np.uint8), face.to_crop, face.mask)
    alone, other, both = (spread(light, *faces)[100, 150] for faces in ((face,), (paler,), (face, paler)))
    assert both == pytest.approx((alone + other) / 2, abs=0.02)
    assert alone - other > 0.3


def test_skin_is_learnt_and_darkens_as_in_less_light() -> None:
    crop = np.zeros((64, 64, 3), np.float32)
    crop[..., 0] = np.linspace(50, 80, 64)[:, None]
    crop[..., 1] = 20 - 0.05 * crop[..., 0]
    crop[..., 2] = 10 + 0.1 * crop[..., 0]
    skin = learn_skin(crop)
    assert skin is not None
    low, high = skin.lightness
    np.testing.assert_allclose(
        skin.colour(np.array([65.0, 99.0])), [[16.75, 16.5], [20 - high / 20, 10 + high / 10]], 1e-3
    )
    paint = lab_to_rgb(np.concatenate([[low], skin.colour(np.array([low]))[0]]))
    shaded = rgb_to_lab(encode_srgb(decode_srgb(paint) * 0.5))
    np.testing.assert_allclose(skin.colour(shaded[:1])[0], shaded[1:], atol=0.05)


def test_red_ears_become_skin_and_lips_stay() -> None:
    crop = np.zeros((128, 128, 3), np.float32)
    crop[...] = (65, 17, 19)
    crop[60:75, 15:22, 1] = 40  # an ear
    crop[92:98, 54:74, 1] = 32  # lips
    crop[:20, :, 1] = 9  # hair
    found = calm_redness(crop)
    np.testing.assert_allclose(found[60:75, 15:22, 0], 19, atol=0.3)
    np.testing.assert_array_equal(found[..., 1], crop[..., 2])
    crop[60:75, 15:22, 1] = found[60:75, 15:22, 0]
    np.testing.assert_allclose(found[..., 0], crop[..., 1], atol=1e-4)
    gray = np.full((64, 64, 3), (60, 0, 0), np.float32)
    np.testing.assert_array_equal(calm_redness(gray), gray[..., 1:])


def photo_of(light: np.ndarray) -> np.ndarray:
    lab = np.dstack([light, np.zeros_like(light), np.zeros_like(light)])
    return np.repeat((fit_chroma(lab) * 255).round().astype(np.uint8)[..., :1], 3, axis=2)


def test_tinted_photos_get_skin_on_the_neck_and_keep_their_lightness() -> None:
    light, face = portrait(collar=90)
    pixels = photo_of(light)
    found = rgb_to_lab(colorize_photo(pixels, SoftTint(), [face]) / 255)
    plain = rgb_to_lab(colorize_photo(pixels, SoftTint()) / 255)
    np.testing.assert_allclose(found[..., 0], lightness(pixels / 255), atol=0.5)
    assert found[160, 150, 1] > plain[160, 150, 1] + 4
    np.testing.assert_allclose(found[190:], plain[190:], atol=0.5)
    np.testing.assert_array_equal(found[:, :60], plain[:, :60])


def test_what_has_colours_of_its_own_keeps_them() -> None:
    light, face = portrait()
    pixels = photo_of(light)
    np.testing.assert_array_equal(colorize_photo(pixels, OwnChroma(), [face]), pixels)
    colours = np.random.default_rng(1).integers(30, 220, (6, 6, 3)).astype(np.uint8)
    colourful = np.repeat(np.repeat(colours, 50, 0), 50, 1)
    assert np.abs(colorize_photo(colourful, SoftTint(), [face]).astype(int) - colourful).max() <= 1
