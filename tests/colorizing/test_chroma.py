"""Chroma enlarged along a photo's edges: lightness stays, colour ends where things end, bands and size do not show."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from gfprestore.colorizing import chroma as module
from gfprestore.colorizing.chroma import apply_chroma, fit_guided, guide_size
from gfprestore.colorizing.lab import fit_chroma, lightness, rgb_to_lab
from gfprestore.resize import resize_photo


@pytest.fixture
def shapes() -> np.ndarray:
    """A red disc and a blue bar on green ground with some light over it, RGB uint8 (360, 480, 3)."""
    pixels = np.empty((360, 480, 3), np.float32)
    pixels[...] = (120, 150, 100)
    cv2.circle(pixels, (150, 170), 90, (170, 70, 60), -1)
    cv2.rectangle(pixels, (330, 40), (380, 330), (60, 70, 150), -1)
    pixels *= np.linspace(0.8, 1.15, 480, dtype=np.float32)[None, :, None]
    return pixels.round().astype(np.uint8)


def to_gray(pixels: np.ndarray) -> np.ndarray:
    lab = rgb_to_lab(pixels / 255)
    lab[..., 1:] = 0
    return (fit_chroma(lab) * 255).round().astype(np.uint8)


def small_lab(pixels: np.ndarray, side: int) -> np.ndarray:
    return rgb_to_lab(resize_photo(pixels, guide_size(pixels.shape[1], pixels.shape[0], side)) / 255)


def test_guide_size() -> None:
    assert guide_size(4000, 3000, 512) == (512, 384)
    assert guide_size(100, 80, 512) == (100, 80)
    assert guide_size(5000, 1, 512) == (512, 1)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_lightness_stays(shapes: np.ndarray, dtype: type) -> None:
    gray = to_gray(shapes).astype(dtype) * (257 if dtype == np.uint16 else 1)
    top = np.iinfo(dtype).max
    loud = np.random.default_rng(0).uniform(-110, 110, (45, 60, 2)).astype(np.float32)
    guide = lightness(resize_photo(gray, (60, 45)) / top)
    found = apply_chroma(gray, guide, loud)
    assert found.dtype == dtype
    # Half a level of rounding in each channel.
    limit = 0.35 if dtype == np.uint8 else 0.01
    assert np.abs(lightness(found / top) - lightness(gray / top)).max() < limit


def test_colour_ends_where_things_end(shapes: np.ndarray) -> None:
    """Closer to the true colours than bilinear enlargement, above all along edges, and no farther on plain ground."""
    truth = rgb_to_lab(shapes / 255)
    small = small_lab(shapes, 60)
    gray = to_gray(shapes)
    guide = small_lab(gray, 60)[..., 0]
    found = rgb_to_lab(apply_chroma(gray, guide, small[..., 1:]) / 255)
    bilinear = cv2.resize(small[..., 1:], (480, 360))
    error, plain = (np.abs(values - truth[..., 1:]).sum(axis=2) for values in (found[..., 1:], bilinear))
    edges = cv2.morphologyEx(truth[..., 0], cv2.MORPH_GRADIENT, np.ones((9, 9))) > 3
    assert error[edges].mean() < 0.75 * plain[edges].mean()
    assert error[~edges].mean() < 1.0


def test_chroma_that_follows_lightness_is_enlarged_exactly() -> None:
    rows, columns = np.mgrid[0:200, 0:300]
    light = (60 + 60 * np.sin(rows / 23.0) * np.cos(columns / 31.0)).astype(np.uint8)
    gray = np.stack([light] * 3, axis=2)
    lab = small_lab(gray, 150)
    chroma = np.dstack([0.2 * lab[..., 0] - 5, 12 - 0.1 * lab[..., 0]]).astype(np.float32)
    found = rgb_to_lab(apply_chroma(gray, lab[..., 0], chroma) / 255)
    expected = np.dstack([0.2 * found[..., 0] - 5, 12 - 0.1 * found[..., 0]])
    inside = light > 20
    assert np.abs(found[..., 1:] - expected)[inside].mean() < 0.5


def test_the_estimate_itself_is_kept_at_its_own_size() -> None:
    generator = np.random.default_rng(1)
    guide = generator.uniform(0, 100, (30, 40)).astype(np.float32)
    chroma = generator.uniform(-60, 60, (30, 40, 2)).astype(np.float32)
    slope, offset = fit_guided(guide, chroma)
    np.testing.assert_allclose(slope * guide[..., None] + offset, chroma, atol=1e-3)


def test_plain_ground_has_no_slope() -> None:
    guide = np.full((30, 40), 70, np.float32)
    guide += np.random.default_rng(2).normal(0, 0.3, guide.shape).astype(np.float32)  # grain
    chroma = np.random.default_rng(3).normal(0, 10, (30, 40, 2)).astype(np.float32)
    slope, _ = fit_guided(guide, chroma)
    assert np.abs(slope).max() < 0.5


def test_bands_do_not_show(shapes: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = small_lab(shapes, 60)
    whole = apply_chroma(shapes, lab[..., 0], -lab[..., 1:])
    monkeypatch.setattr(module, "_BAND_ROWS", 7)
    np.testing.assert_array_equal(apply_chroma(shapes, lab[..., 0], -lab[..., 1:]), whole)


def test_strength_goes_from_the_photos_own_chroma_to_the_new(shapes: np.ndarray) -> None:
    lab = small_lab(shapes, 60)
    own = apply_chroma(shapes, lab[..., 0], np.zeros_like(lab[..., 1:]), strength=0.0)
    assert np.abs(own.astype(int) - shapes).max() <= 1
    half = rgb_to_lab(apply_chroma(shapes, lab[..., 0], np.zeros_like(lab[..., 1:]), strength=0.5) / 255)
    np.testing.assert_allclose(half[..., 1:], rgb_to_lab(shapes / 255)[..., 1:] / 2, atol=1.5)


def test_tiny_photos() -> None:
    for shape in ((1, 1, 3), (1, 7, 3), (9, 2, 3)):
        pixels = np.full(shape, 128, np.uint8)
        lab = small_lab(pixels, 512)
        found = apply_chroma(pixels, lab[..., 0], lab[..., 1:] + 20)
        assert found.shape == shape
        assert (found[..., 0] > found[..., 1]).all()
