"""NIQE: naturalness of an image, without a reference (Mittal et al., IEEE Signal Processing Letters 20(3), 2013).

Protocol `niqe`: luma as MATLAB's `rgb2ycbcr` rounds it (16 to 235), no border cut; blocks of 96x96 at full size and of
48x48 at half size (MATLAB's bicubic `imresize` with antialiasing); 18 features a block and scale; the distance of their
Gaussian model to that of the authors' pristine images, with the parameters that the field's published figures use.
Lower is better. Libraries that work on another luma, or sharpen the half-size image, give other figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from gfprestore.errors import WeightsError
from gfprestore.evaluation.batch import ImageBatch, as_pixels

Array = NDArray[np.float64]

BLOCK = 96
"""Side of a block in pixels, at full size."""

_LUMA = np.array([65.481, 128.553, 24.966]) / 255
_LUMA_OFFSET = 16.0
"""ITU-R BT.601 in studio range, of R, G and B in 0 to 255."""

_SHAPES: Array = np.arange(0.2, 10.001, 0.001)
"""Shape parameters that a distribution's is looked up among."""

_RATIOS: Array = np.exp(2 * gammaln(2 / _SHAPES) - gammaln(1 / _SHAPES) - gammaln(3 / _SHAPES))
"""E[|x|]² / E[x²] of the generalised Gaussian of each shape (equation 8); it rises with the shape."""

_SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))
"""Neighbours, (down, right), whose products with a pixel are modelled: right, below, and the two diagonals."""


@dataclass(frozen=True, eq=False)
class PristineModel:
    """Multivariate Gaussian of the features of pristine images, and the window they were made with."""

    mean: Array
    """(36,)."""

    covariance: Array
    """(36, 36)."""

    window: Array
    """(7, 7), sums to 1."""


def read_pristine_model(path: Path) -> PristineModel:
    """Reads the published parameters, `niqe_pris_params.npz`.

    Raises:
        WeightsError: The file holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            model = PristineModel(
                arrays["mu_pris_param"].reshape(-1), arrays["cov_pris_param"], arrays["gaussian_window"]
            )
    except (OSError, KeyError, ValueError) as error:
        raise WeightsError(f"{path} holds no NIQE parameters: see --metric-weights niqe=FILE.") from error
    if model.mean.shape != (36,) or model.covariance.shape != (36, 36) or model.window.shape != (7, 7):
        raise WeightsError(f"{path} holds NIQE parameters of another shape: see --metric-weights niqe=FILE.")
    return model


def niqe(pixels: NDArray[np.uint8], model: PristineModel) -> float:
    """Measures NIQE.

    Args:
        pixels: RGB uint8 (H, W, 3).
        model: The pristine images' model.

    Returns:
        0 and up, lower is better; NaN for an image that holds fewer than two blocks, or two that are not flat.
    """
    rows, columns = pixels.shape[0] // BLOCK, pixels.shape[1] // BLOCK
    if rows * columns < 2:
        return float("nan")
    luma = np.rint(pixels[: rows * BLOCK, : columns * BLOCK] @ _LUMA + _LUMA_OFFSET)
    features = np.concatenate(
        [
            _features(_blocks(_normalise(luma, model.window), BLOCK)),
            _features(_blocks(_normalise(_halve(luma), model.window), BLOCK // 2)),
        ],
        axis=1,
    )
    is_complete = ~np.isnan(features).any(axis=1)
    if is_complete.sum() < 2:
        return float("nan")
    # As in the published code, what a flat block does have counts in the mean.
    mean = np.nanmean(features, axis=0)
    covariance = np.cov(features[is_complete], rowvar=False)
    difference = model.mean - mean
    # A pseudo-inverse, since few blocks give a singular covariance (equation 10).
    between = np.linalg.pinv((model.covariance + covariance) / 2)
    return float(np.sqrt(difference @ between @ difference))


def _normalise(luma: Array, window: Array) -> Array:
    """Subtracts the local mean and divides by the local deviation plus one (equations 1 to 3)."""
    mean = _filter(luma, window)
    deviation = np.sqrt(np.abs(_filter(luma**2, window) - mean**2))
    return np.asarray((luma - mean) / (deviation + 1), dtype=np.float64)


def _filter(image: Array, window: Array) -> Array:
    return np.asarray(cv2.filter2D(image, cv2.CV_64F, window, borderType=cv2.BORDER_REPLICATE), dtype=np.float64)


def _blocks(image: Array, side: int) -> Array:
    """Cuts an image into blocks, [B, side, side]."""
    rows, columns = image.shape[0] // side, image.shape[1] // side
    split = image.reshape(rows, side, columns, side)  # [R y C x]
    return split.transpose(0, 2, 1, 3).reshape(rows * columns, side, side)  # [R*C y x]


def _features(blocks: Array) -> Array:
    """18 features of each block, [B, 18]: its own distribution, then those of four neighbour products."""
    shape, left, right = _asymmetric_gaussian(blocks)
    columns = [shape, (left + right) / 2]
    for shift in _SHIFTS:
        # Neighbours beyond a block's edge come from its other side, as in the published code.
        shape, left, right = _asymmetric_gaussian(blocks * np.roll(blocks, shift, axis=(1, 2)))
        mean = (right - left) * np.exp(gammaln(2 / shape) - gammaln(1 / shape))
        columns += [shape, mean, left, right]
    return np.stack(columns, axis=1)


def _asymmetric_gaussian(blocks: Array) -> tuple[Array, Array, Array]:
    """Fits shape, left scale and right scale by moments (equations 5 to 8), each [B].

    A one-sided block, as a flat one is, has the first shape; the scale of the side that it lacks is NaN.
    """
    flat = blocks.reshape(len(blocks), -1)
    squares = flat**2
    is_left, is_right = flat < 0, flat > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        left = np.sqrt((squares * is_left).sum(1) / is_left.sum(1))
        right = np.sqrt((squares * is_right).sum(1) / is_right.sum(1))
        ratio = left / right
        moment = np.abs(flat).mean(1) ** 2 / squares.mean(1)
        moment = moment * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    # Where the moment is undefined, the published code's search for the nearest ratio ends at the first one.
    shape = _SHAPES[np.where(np.isnan(moment), 0, _nearest(moment))]
    scale = np.exp((gammaln(1 / shape) - gammaln(3 / shape)) / 2)
    return shape, left * scale, right * scale


def _nearest(moment: Array) -> NDArray[np.intp]:
    """Index of the entry of `_RATIOS` nearest to each value."""
    after = np.clip(np.searchsorted(_RATIOS, moment), 1, len(_RATIOS) - 1)
    return np.where(moment - _RATIOS[after - 1] <= _RATIOS[after] - moment, after - 1, after)


def _halve(image: Array) -> Array:
    """Halves both sides, which are even, as MATLAB's `imresize(image, 0.5)`."""
    rows, columns = (_halving_matrix(side) for side in image.shape)
    return np.asarray(rows @ image @ columns.T, dtype=np.float64)


def _halving_matrix(side: int) -> Array:
    """Weights [side / 2, side]: Keys' cubic (a = -0.5) stretched to twice its width, mirrored at the ends."""
    centres = 2 * np.arange(side // 2) + 0.5
    taps = np.floor(centres)[:, None].astype(int) + np.arange(-3, 5)
    distance = np.abs(centres[:, None] - taps) / 2
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    weights = np.where(distance <= 1, near, np.where(distance <= 2, far, 0))
    weights /= weights.sum(1, keepdims=True)
    matrix = np.zeros((side // 2, side))
    mirrored = np.where(taps < 0, -1 - taps, np.where(taps >= side, 2 * side - 1 - taps, taps))
    np.add.at(matrix, (np.arange(side // 2)[:, None], mirrored), weights)
    return matrix


class NiqeMetric:
    """NIQE of the restored images; the truth plays no part."""

    def __init__(self, model: PristineModel) -> None:
        self._model = model

    def measure(self, batch: ImageBatch) -> dict[str, NDArray[np.float64]]:
        """Measures a batch; see `Metric`."""
        restored = as_pixels(batch.restored)  # [N M H W 3]
        return {"niqe": np.array([[niqe(image, self._model) for image in images] for images in restored])}
