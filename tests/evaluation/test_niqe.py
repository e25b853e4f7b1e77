from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.ndimage import convolve
from scipy.special import gamma

from gfprestore.errors import WeightsError
from gfprestore.evaluation.niqe import PristineModel, niqe, read_pristine_model

SHAPES = np.arange(0.2, 10.001, 0.001)
RATIOS = gamma(2 / SHAPES) ** 2 / (gamma(1 / SHAPES) * gamma(3 / SHAPES))


def slow_fit(values: np.ndarray) -> list[float]:
    sides = values[values < 0], values[values > 0]
    left, right = (math.sqrt(np.mean(side**2)) if side.size else math.nan for side in sides)
    ratio = left / right
    moment = np.mean(np.abs(values)) ** 2 / np.mean(values**2) if values.any() else math.nan
    moment *= (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    shape = SHAPES[np.argmin((RATIOS - moment) ** 2)]  # the first of all where the moment is NaN
    scale = math.sqrt(gamma(1 / shape) / gamma(3 / shape))
    return [shape, left * scale, right * scale]


def slow_features(block: np.ndarray) -> list[float]:
    shape, left, right = slow_fit(block)
    features = [shape, (left + right) / 2]
    for down, across in ((0, 1), (1, 0), (1, 1), (1, -1)):
        moved = np.empty_like(block)
        for y in range(block.shape[0]):
            for x in range(block.shape[1]):
                moved[y, x] = block[y - down, x - across if x - across < block.shape[1] else 0]
        shape, left, right = slow_fit(block * moved)
        features += [shape, (right - left) * gamma(2 / shape) / gamma(1 / shape), left, right]
    return features


def slow_halve_line(line: np.ndarray) -> np.ndarray:
    def cubic(t: float) -> float:
        t = abs(t)
        if t <= 1:
            return 1.5 * t**3 - 2.5 * t**2 + 1
        return -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2 if t <= 2 else 0.0

    mirrored = np.concatenate([line[::-1], line, line[::-1]])
    result = []
    for index in range(len(line) // 2):
        centre = 2 * index + 0.5
        weights = {k: cubic((centre - k) / 2) for k in range(2 * index - 4, 2 * index + 6)}
        total = sum(weights.values())
        result.append(sum(weight * mirrored[len(line) + k] for k, weight in weights.items()) / total)
    return np.array(result)


def slow_niqe(pixels: np.ndarray, model: PristineModel) -> float:
    """The paper's steps by loops."""
    red, green, blue = pixels.astype(float).transpose(2, 0, 1)
    luma = np.round((65.481 * red + 128.553 * green + 24.966 * blue) / 255 + 16)
    rows, columns = luma.shape[0] // 96, luma.shape[1] // 96
    luma = luma[: rows * 96, : columns * 96]
    features = []
    for side in (96, 48):
        mean = convolve(luma, model.window, mode="nearest")
        deviation = np.sqrt(np.abs(convolve(luma**2, model.window, mode="nearest") - mean**2))
        normal = (luma - mean) / (deviation + 1)
        features.append(
            [
                slow_features(normal[y * side : (y + 1) * side, x * side : (x + 1) * side])
                for y in range(rows)
                for x in range(columns)
            ]
        )
        luma = np.array([slow_halve_line(line) for line in luma])
        luma = np.array([slow_halve_line(line) for line in luma.T]).T
    table = np.concatenate(features, axis=1)
    difference = model.mean - np.nanmean(table, axis=0)
    covariance = np.cov(table[~np.isnan(table).any(axis=1)], rowvar=False)
    between = np.linalg.pinv((model.covariance + covariance) / 2)
    return math.sqrt(difference @ between @ difference)


def made_up_model() -> PristineModel:
    line = np.exp(-0.5 * (np.arange(-3, 4) / (7 / 6)) ** 2)
    mixing = np.random.default_rng(0).normal(size=(36, 36))
    return PristineModel(np.full(36, 0.7), mixing @ mixing.T / 36 + np.eye(36), np.outer(line, line) / line.sum() ** 2)


def test_agrees_with_loops(make_image):
    model = made_up_model()
    for pixels in (make_image(192, 100, 1), make_image(100, 290, 2)):
        assert niqe(pixels, model) == pytest.approx(slow_niqe(pixels, model), rel=1e-6)


@pytest.mark.weights
def test_agrees_with_loops_on_real_images_with_the_published_model(real_weights, real_patches):
    model = read_pristine_model(real_weights / "niqe_pris_params.npz")
    patch = real_patches[0][:192]
    assert niqe(patch, model) == pytest.approx(slow_niqe(patch, model), rel=1e-6)


@pytest.mark.weights
def test_agrees_with_pyiqa(real_weights, real_photos):
    # pyiqa 0.1.16, `calculate_niqe(..., color_space="ycbcr")` with these parameters, run once in float64.
    model = read_pristine_model(real_weights / "niqe_pris_params.npz")
    for name, figure in (("old/a.png", 3.70859), ("old/b.png", 3.30746)):
        pixels = np.ascontiguousarray(cv2.imread(str(real_photos / name))[..., ::-1])
        assert niqe(pixels, model) == pytest.approx(figure, rel=1e-3)


@pytest.mark.parametrize("level", [0, 133, 255])
def test_flat_blocks_count_in_the_mean_with_the_first_shape(make_image, level):
    pixels = make_image(288, 192, 3)
    pixels[:120] = level  # a letterbox: two whole blocks
    model = made_up_model()
    assert niqe(pixels, model) == pytest.approx(slow_niqe(pixels, model), rel=1e-9)


def test_an_image_without_two_blocks_that_are_not_flat_cannot_be_measured(make_image):
    pixels = np.zeros((192, 192, 3), np.uint8)
    assert math.isnan(niqe(pixels, made_up_model()))
    pixels[:80, :80] = make_image(80, 80, 4)  # out of the filters' reach of other blocks
    assert math.isnan(niqe(pixels, made_up_model()))


def test_an_image_of_one_block_cannot_be_measured(make_image):
    assert math.isnan(niqe(make_image(100, 100, 0), made_up_model()))


def test_files_without_parameters_are_refused(tmp_path: Path):
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    np.savez(tmp_path / "shape.npz", mu_pris_param=np.ones(3), cov_pris_param=np.eye(3), gaussian_window=np.eye(7))
    (tmp_path / "text.npz").write_text("no")
    for name in ("other.npz", "shape.npz", "text.npz", "missing.npz"):
        with pytest.raises(WeightsError, match="NIQE parameters"):
            read_pristine_model(tmp_path / name)
