"""Damage drawn on clean photos is found and filled; what is no damage stays, bit for bit."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from gfprestore import descratch
from gfprestore.descratch import fill_scratches, find_scratches
from gfprestore.resize import has_equal_channels


def clean_photo(height: int = 300, width: int = 400, seed: int = 0) -> np.ndarray:
    """A sepia studio backdrop with soft shapes and grain."""
    generator = np.random.default_rng(seed)
    soft = cv2.GaussianBlur(generator.random((height, width)).astype(np.float32), (0, 0), 25)
    soft = (soft - soft.min()) / (soft.max() - soft.min())
    luma = 70 + 70 * soft + generator.normal(0, 2.0, (height, width))
    return np.clip(luma[..., None] * (1.05, 0.98, 0.85), 0, 255).astype(np.uint8)


def repaired_photo(pixels: np.ndarray) -> np.ndarray:
    return fill_scratches(pixels, find_scratches(pixels))


def damage(shape: tuple[int, int]) -> np.ndarray:
    """A long scratch, a bent crack and a few specks of dust."""
    mask = np.zeros(shape, np.uint8)
    cv2.line(mask, (30, 20), (60, 280), 1, 1)
    cv2.polylines(mask, [np.array([[120, 150], [220, 130], [300, 190], [390, 180]])], False, 1, 2)
    for x, y in ((200, 50), (330, 70), (160, 250), (280, 260)):
        cv2.circle(mask, (x, y), 1, 1, -1)
    return mask.astype(bool)


@pytest.fixture
def case() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    clean = clean_photo()
    mask = damage(clean.shape[:2])
    damaged = clean.copy()
    damaged[mask] = (235, 230, 215)
    return clean, damaged, mask


def test_scratches_cracks_and_dust_are_found(case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    _, damaged, mask = case
    found = find_scratches(damaged)
    assert found.dtype == np.bool_
    assert (found & mask).sum() >= 0.97 * mask.sum()
    near = cv2.dilate(mask.astype(np.uint8), np.ones((9, 9), np.uint8)).astype(bool)
    assert (found & ~near).mean() < 1e-3


@pytest.mark.parametrize("seed", range(3))
def test_a_clean_photo_is_left_alone(seed: int) -> None:
    pixels = clean_photo(seed=seed)
    assert find_scratches(pixels).mean() < 1e-3


def test_bright_edges_and_stripes_are_no_scratches() -> None:
    pixels = clean_photo()
    pixels[150:] = 220
    pixels[:150, ::6] = 200
    pixels[:150, 1::6] = 200
    assert find_scratches(pixels).mean() < 2e-3


def test_dark_lines_are_left_alone() -> None:
    pixels = clean_photo()
    cv2.line(pixels, (50, 100), (350, 110), (10, 10, 10), 2)
    assert not find_scratches(pixels)[90:120].any()


def test_a_catchlight_in_an_eye_stays() -> None:
    pixels = clean_photo()
    cv2.ellipse(pixels, (200, 150), (14, 7), 0, 0, 360, (200, 195, 185), -1)
    cv2.circle(pixels, (200, 150), 6, (25, 20, 20), -1)
    pixels[147:149, 197:199] = 250
    assert not find_scratches(pixels)[140:160, 185:215].any()


def test_repair_comes_close_to_the_clean_photo(case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    clean, damaged, mask = case
    repaired = repaired_photo(damaged)
    error = np.abs(repaired[mask].astype(int) - clean[mask])
    assert np.median(error) <= 5  # the grain alone, with a deviation of 2 levels, differs by about as much
    assert np.percentile(error, 99) <= 25


def test_the_filling_has_grain(case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    clean, damaged, _ = case
    mask = np.zeros(clean.shape[:2], bool)
    mask[100:104, 40:360] = True
    filled = fill_scratches(damaged, mask).astype(np.float64)
    fine = [
        image[..., 1] - cv2.GaussianBlur(image[..., 1], (0, 0), 1.5) for image in (clean.astype(np.float64), filled)
    ]
    assert fine[1][mask].std() > 0.5 * fine[0][mask].std()


def test_outside_the_mask_nothing_changes(case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    _, damaged, mask = case
    for pixels in (damaged, damaged.astype(np.uint16) * 257):
        filled = fill_scratches(pixels, mask)
        assert filled.dtype == pixels.dtype
        np.testing.assert_array_equal(filled[~mask], pixels[~mask])
        assert not np.array_equal(filled[mask], pixels[mask])


def test_teeth_stay() -> None:
    pixels = clean_photo()
    cv2.ellipse(pixels, (200, 150), (30, 12), 0, 0, 180, (90, 40, 40), -1)
    for left in range(178, 222, 8):
        cv2.rectangle(pixels, (left, 151), (left + 6, 158), (225, 220, 205), -1)
    assert not find_scratches(pixels)[140:170, 165:235].any()


def test_marks_too_short_for_a_line_go() -> None:
    pixels = clean_photo()
    cv2.line(pixels, (100, 100), (106, 112), (220, 215, 200), 1)
    assert find_scratches(pixels)[101:112, 100:107].any()
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):  # a knitted pattern is none
        pixels[100 + row : 200 : 5, 200 + column : 300 : 5] = (220, 215, 200)
    assert not find_scratches(pixels)[110:190, 210:290].any()


def test_the_border_of_a_print_stays() -> None:
    pixels = clean_photo()
    pixels[:, :3], pixels[-3:], pixels[:, 3:5], pixels[-5:-3] = 235, 235, 30, 30
    pixels[-3:, :3] = 235
    assert not find_scratches(pixels)[:, :6].any()
    assert not find_scratches(pixels)[-6:].any()


def test_16_bit_equals_8_bit(case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    _, damaged, _ = case
    wide = damaged.astype(np.uint16) * 257
    np.testing.assert_array_equal(find_scratches(wide), find_scratches(damaged))
    difference = np.abs(repaired_photo(wide) / 257 - repaired_photo(damaged))
    assert np.percentile(difference, 99.9) < 3


def test_gray_stays_gray(case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    gray = np.repeat(case[1][..., 1:2], 3, axis=2)
    repaired = repaired_photo(gray)
    assert not np.array_equal(repaired, gray)
    assert has_equal_channels(repaired)


def test_blocks_do_not_show(case: tuple[np.ndarray, np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    _, damaged, mask = case
    whole = fill_scratches(damaged, mask).astype(int)
    monkeypatch.setattr(descratch, "_FILL_BLOCK", 96)
    in_blocks = fill_scratches(damaged, mask)
    assert np.percentile(np.abs(whole - in_blocks)[mask], 95) <= 3


def test_large_photos_are_searched_in_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descratch, "_SEARCH_SIDE", 400)
    clean = cv2.resize(clean_photo(), (1000, 750))
    mask = cv2.resize(damage((300, 400)).astype(np.uint8), (1000, 750), interpolation=cv2.INTER_NEAREST).astype(bool)
    clean[mask] = 235
    found = find_scratches(clean)
    assert found.shape == (750, 1000)
    assert (found & mask).sum() > 0.9 * mask.sum()


def test_tiny_and_untouched_photos() -> None:
    for shape in ((1, 1, 3), (3, 50, 3), (20, 20, 3)):
        pixels = np.full(shape, 90, np.uint8)
        repaired = repaired_photo(pixels)
        np.testing.assert_array_equal(repaired, pixels)
        assert not np.shares_memory(repaired, pixels)
    fully = np.ones((20, 20), bool)
    assert fill_scratches(np.full((20, 20, 3), 90, np.uint8), fully).shape == (20, 20, 3)


def test_real_damage_goes_and_real_details_stay(real_photos) -> None:
    shares = {
        path.stem: find_scratches(np.asarray(Image.open(path).convert("RGB"))).mean()
        for path in (
            *sorted((real_photos / "scratched").glob("[abd].png")),
            *sorted((real_photos / "group").glob("*.png")),
            real_photos / "old" / "h.png",
        )
    }
    assert all(shares[name] > 0.01 for name in "abd")
    assert shares["Solvay_conference_1927"] < 0.02
    assert shares["h"] < 0.003


def test_eyes_in_a_sharp_photo_are_not_touched(real_photos) -> None:
    mask = find_scratches(np.asarray(Image.open(real_photos / "large" / "name with spaces.jpg").convert("RGB")))
    height, width = mask.shape
    assert not mask[int(0.27 * height) : int(0.38 * height), int(0.2 * width) : int(0.55 * width)].any()
