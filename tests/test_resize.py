"""Resizing of photos against slow float64 twins, and the rules that hold for every photo."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gfprestore import resize
from gfprestore.resize import has_equal_channels, output_size, resize_photo

# Largest difference from float64: uint8 goes through 11-bit weights in OpenCV, uint16 through float32.
LEVELS = {np.uint8: 2, np.uint16: 3}


@pytest.fixture(params=["kernels", "OpenCV"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the kernels, where there are any, and without."""
    if request.param == "OpenCV":
        monkeypatch.setattr(resize, "load_library", lambda: None)


def lanczos_weights(new: int, old: int) -> np.ndarray:
    """Weights (new, old) of an 8-tap Lanczos kernel at pixel centres, edge pixels repeated outwards."""
    weights = np.zeros((new, old))
    for row in range(new):
        centre = (row + 0.5) * old / new - 0.5
        taps = range(math.floor(centre) - 3, math.floor(centre) + 5)
        values = np.array([np.sinc(centre - tap) * np.sinc((centre - tap) / 4) for tap in taps])
        for tap, value in zip(taps, values / values.sum(), strict=True):
            weights[row, min(max(tap, 0), old - 1)] += value
    return weights


def area_weights(new: int, old: int) -> np.ndarray:
    """Weights (new, old): the share of each old pixel in the interval that a new one covers."""
    weights = np.zeros((new, old))
    for row in range(new):
        left, right = row * old / new, (row + 1) * old / new
        for pixel in range(old):
            weights[row, pixel] = max(0.0, min(right, pixel + 1) - max(left, pixel)) / (right - left)
    return weights


def slow_resize(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    result = pixels.astype(np.float64)
    for axis, new in ((1, size[0]), (0, size[1])):
        old = result.shape[axis]
        weights = area_weights(new, old) if new <= old else lanczos_weights(new, old)
        result = np.moveaxis(np.tensordot(weights, result, axes=(1, axis)), 0, axis)
    return np.clip(result, 0, np.iinfo(pixels.dtype).max)


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("size", [(46, 34), (61, 29), (11, 9), (40, 9), (12, 25), (23, 17), (92, 68)])
def test_equals_the_slow_twin(dtype: type, size: tuple[int, int]) -> None:
    generator = np.random.default_rng(5)
    noise = generator.random((17, 23, 3)).astype(np.float32)
    pixels = (cv2.GaussianBlur(noise, (0, 0), 0.7) * np.iinfo(dtype).max).round().astype(dtype)
    found = resize_photo(pixels, size)
    assert found.dtype == dtype
    assert found.shape == (size[1], size[0], 3)
    assert found.flags.c_contiguous
    assert np.abs(found.astype(np.float64) - slow_resize(pixels, size)).max() <= LEVELS[dtype]


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_overshoot_is_clipped(dtype: type) -> None:
    top = np.iinfo(dtype).max
    pixels = np.zeros((16, 16, 3), dtype)
    pixels[:, 8:] = top
    pixels[..., 1] = top - pixels[..., 0]
    found = resize_photo(pixels, (48, 48)).astype(np.int64)
    assert np.abs(found - slow_resize(pixels, (48, 48))).max() <= LEVELS[dtype]
    assert found[24, :20, 0].max() < top // 4
    assert found[24, 28:, 0].min() > top - top // 4


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("scale", [0.5, 1.5, 2.0, 3.0, 4.0])
def test_pixel_centres_follow_the_frame(scale: float) -> None:
    rows, columns = np.mgrid[0:64, 0:64]
    spot = np.exp(-((columns - 30.0) ** 2 + (rows - 25.0) ** 2) / (2 * 4.0**2))
    plane = (spot * 65000).round().astype(np.uint16)
    found = resize_photo(plane, output_size(64, 64, scale)).astype(np.float64)
    new_rows, new_columns = np.mgrid[0 : found.shape[0], 0 : found.shape[1]]
    centre = (found * new_columns).sum() / found.sum(), (found * new_rows).sum() / found.sum()
    assert centre == pytest.approx((scale * 30 + (scale - 1) / 2, scale * 25 + (scale - 1) / 2), abs=2e-3)


@settings(deadline=None, max_examples=60)
@given(
    old=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    new=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    value=st.integers(0, 65535),
    enlargement=st.sampled_from(["lanczos", "linear"]),
    has_kernels=st.booleans(),
)
def test_flat_stays_flat_at_any_size(
    old: tuple[int, int], new: tuple[int, int], value: int, enlargement: str, has_kernels: bool
) -> None:
    for dtype, level in ((np.uint8, value >> 8), (np.uint16, value)):
        with pytest.MonkeyPatch.context() as patch:
            if not has_kernels:
                patch.setattr(resize, "load_library", lambda: None)
            found = resize_photo(np.full((old[1], old[0], 3), level, dtype), new, enlargement)
        assert found.shape == (new[1], new[0], 3)
        assert (found == level).all()


@settings(deadline=None, max_examples=30)
@given(new=st.tuples(st.integers(1, 90), st.integers(1, 90)), seed=st.integers(0, 99))
def test_gray_stays_gray_and_equals_its_plane(new: tuple[int, int], seed: int) -> None:
    for dtype in (np.uint8, np.uint16):
        plane = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, (31, 37)).astype(dtype)
        found = resize_photo(np.stack([plane] * 3, axis=2), new)
        assert has_equal_channels(found)
        np.testing.assert_array_equal(found[..., 0], resize_photo(plane, new))


def test_same_size_is_a_copy() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    found = resize_photo(pixels, (30, 20))
    np.testing.assert_array_equal(found, pixels)
    assert not np.shares_memory(found, pixels)


def test_a_coloured_last_row_is_seen() -> None:
    pixels = np.full((600, 5, 3), 9, np.uint8)
    assert has_equal_channels(pixels)
    pixels[599, 4, 2] = 10
    assert not has_equal_channels(pixels)


@pytest.mark.parametrize(
    ("width", "height", "scale", "expected"),
    [(639, 480, 1.5, (958, 720)), (100, 3, 0.1, (10, 1)), (7, 7, 2.0, (14, 14)), (1000, 999, 1 / 3, (333, 333))],
)
def test_output_size(width: int, height: int, scale: float, expected: tuple[int, int]) -> None:
    assert output_size(width, height, scale) == expected


def test_empty_size_is_refused() -> None:
    with pytest.raises(ValueError, match="0 x 5"):
        resize_photo(np.zeros((4, 4, 3), np.uint8), (0, 5))
