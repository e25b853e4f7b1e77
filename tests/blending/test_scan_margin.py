"""Prints on a scanner's bed: found where the bed is flat and neutral, and what that does to the judgement of tone."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gfprestore.blending.scan_margin import find_prints
from gfprestore.blending.tone import Tone, find_tone, pixels_to_lab
from gfprestore.photofile import read_photo

ALBUM = Path(__file__).parents[2] / "examples" / "album"
BEDS = (0, 40, 128, 200, 235, 255)
COLOURED = ("1969 house.jpg", "1974 aunt.jpg", "1983 on its side.jpg", "1988 friends.jpg", "school/1966 oval.webp")


def patches(seed: int = 0) -> np.ndarray:
    """Soft coloured shapes, (180, 240, 3)."""
    coarse = np.random.default_rng(seed).integers(30, 220, (6, 8, 3)).astype(np.uint8)
    return cv2.resize(coarse, (240, 180), interpolation=cv2.INTER_LINEAR)


def sepia(seed: int = 0, hue: tuple[float, float, float] = (38, 20, 6)) -> np.ndarray:
    light = patches(seed)[..., :1] / 255
    return np.clip(light * [255, 238, 205] + (1 - light) * hue, 0, 255).round().astype(np.uint8)


def on_bed(print_: np.ndarray, level: int, margins: tuple[int, int, int, int], tilt: float = 0.0) -> np.ndarray:
    """Lay a print on a noisy bed of one level; margins are those above, below, left and right."""
    scan = cv2.copyMakeBorder(print_, *margins, cv2.BORDER_CONSTANT, value=(level,) * 3)
    size = scan.shape[1], scan.shape[0]
    turn = cv2.getRotationMatrix2D((size[0] / 2, size[1] / 2), tilt, 1.0)
    scan = cv2.warpAffine(scan, turn, size, borderValue=(level,) * 3)
    noisy = scan + np.random.default_rng(0).normal(0, 1.5, scan.shape)
    return noisy.round().clip(0, 255).astype(np.uint8)


margins = st.tuples(*[st.integers(20, 90)] * 4) | st.tuples(st.just(0), st.integers(20, 90), st.just(0), st.just(60))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 99), level=st.sampled_from(BEDS), around=margins, tilt=st.sampled_from((0.0, 2.0)))
def test_sepia_is_toned_on_any_bed(seed: int, level: int, around: tuple[int, int, int, int], tilt: float) -> None:
    assert find_tone(on_bed(sepia(seed), level, around, tilt)) is Tone.TONED


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 99), level=st.sampled_from(BEDS), around=margins, tilt=st.sampled_from((0.0, 2.0)))
def test_colours_are_colour_on_any_bed(seed: int, level: int, around: tuple[int, int, int, int], tilt: float) -> None:
    assert find_tone(on_bed(patches(seed), level, around, tilt)) is Tone.COLOUR


@pytest.mark.parametrize("name", COLOURED)
def test_coloured_photos_stay_so_however_much_bed_is_scanned_with_them(name: str) -> None:
    photo = read_photo(ALBUM / name).pixels
    assert find_tone(photo) is Tone.COLOUR
    for level in BEDS:
        for share in (12, 4, 2):
            margin = max(photo.shape[:2]) // share
            assert find_tone(on_bed(photo, level, (margin,) * 4)) is Tone.COLOUR, (level, share)


def test_the_albums_sepia_card_is_toned() -> None:
    assert find_tone(read_photo(ALBUM / "1931 sepia card.jpg").pixels) is Tone.TONED


@pytest.mark.parametrize("name", ["scratched/b.png", "scratched/d.png"])
def test_real_sepia_on_a_gray_bed(real_photos: Path, name: str) -> None:
    assert find_tone(on_bed(read_photo(real_photos / name).pixels, 128, (40,) * 4)) is Tone.TONED


def find(scan: np.ndarray) -> np.ndarray | None:
    size = round(scan.shape[1] / 3), round(scan.shape[0] / 3)
    return find_prints(pixels_to_lab(cv2.resize(scan, size, interpolation=cv2.INTER_AREA)))


def test_several_prints_on_one_bed_are_all_found() -> None:
    one = on_bed(sepia(1), 128, (30,) * 4)
    found = find(np.hstack([one, on_bed(patches(2), 128, (30,) * 4)]))
    assert found is not None
    count, _ = cv2.connectedComponents(found.astype(np.uint8))
    assert count - 1 == 2
    assert 0.4 < found.mean() < 180 * 240 / (one.shape[0] * one.shape[1])


def test_what_is_no_bed_is_not_taken_for_one() -> None:
    sky = patches()
    sky[:60] = 230
    assert find(sky) is None  # One side only.
    street = sky.copy()
    street[-60:] = 90
    assert find(street) is None  # Two sides, but not of one lightness.
    yellowed = on_bed(patches(), 128, (30,) * 4)
    yellowed[..., 2] //= 2
    assert find(yellowed) is None
    assert find(patches()) is None
    assert find(np.full((90, 90, 3), 128, np.uint8)) is None


def test_somebody_before_a_gray_wall_is_no_print() -> None:
    wall = np.full((240, 240, 3), 200, np.uint8)
    cv2.ellipse(wall, (120, 110), (50, 65), 0, 0, 360, (190, 130, 100), -1)
    cv2.ellipse(wall, (120, 240), (90, 70), 0, 0, 360, (60, 90, 160), -1)
    assert find(wall) is None
