"""SSIM: structural similarity (Wang et al., IEEE TIP 13(4), 2004).

Protocol `ssim`: Gaussian window of 11x11 with deviation 1.5, K = 0.01 and 0.03, range 255, biased variances, only where
the window lies inside the image; the mean over positions and over R, G and B apart, as the published script and the
authors' own do. `ssim-matched`: the same after `match_channels`. Libraries that pad the image, or work on luma, give
other figures.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from gfprestore.evaluation.batch import ImageBatch, as_array

Values = TypeVar("Values", Tensor, NDArray[np.float32])

WINDOW = 11
"""Side of the window in pixels."""

_SIGMA = 1.5
_C1 = (0.01 * 255) ** 2
_C2 = (0.03 * 255) ** 2


def ssim(restored: Tensor, truth: Tensor) -> Tensor:
    """Measures SSIM.

    Args:
        restored: RGB [N, M, 3, H, W], uint8 or float, 0 to 255.
        truth: RGB [N, 3, H, W], the same.

    Returns:
        float64 [N, M] on the processor, at most 1, higher is better; NaN for images smaller than the window.
    """
    if min(truth.shape[-2:]) < WINDOW:
        return torch.full(restored.shape[:2], torch.nan, dtype=torch.float64)
    if restored.device.type == "cpu":
        return _on_processor(restored, truth)
    wanted = truth.float()[:, None].expand(restored.shape)
    return _similarity(restored.float(), wanted, _blur_on_device).mean((-3, -2, -1)).cpu().double()


def _similarity(x: Values, y: Values, blur: Callable[[Values], Values]) -> Values:
    """Equation 13 of the paper in every window; `blur` takes the window's means.

    Of both variances only their sum is needed, which saves one of five blurs.
    """
    mean_x, mean_y, squares, product = blur(x), blur(y), blur(x * x + y * y), blur(x * y)
    means_product = mean_x * mean_y
    means_squares = mean_x * mean_x + mean_y * mean_y
    numerator = (2 * means_product + _C1) * (2 * (product - means_product) + _C2)
    denominator = (means_squares + _C1) * (squares - means_squares + _C2)
    return numerator / denominator  # type: ignore[return-value]  # of arrays: mypy widens float32 by Python numbers


def _on_processor(restored: Tensor, truth: Tensor) -> Tensor:
    """Works plane by plane, which stays in the processor's cache, with cv2's blur, ten times as fast as torch's."""
    images, wanted = restored.numpy(), truth.numpy()
    values = np.empty(images.shape[:3])  # [N M 3]
    for n, m, channel in np.ndindex(values.shape):
        x, y = (plane.astype(np.float32) for plane in (images[n, m, channel], wanted[n, channel]))
        values[n, m, channel] = _similarity(x, y, _blur_on_processor).mean(dtype=np.float64)
    return torch.from_numpy(values.mean(axis=2))


def _blur_on_processor(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """Weighted means in every window that lies inside, (H, W) -> (H - 10, W - 10)."""
    kernel = cv2.getGaussianKernel(WINDOW, _SIGMA, cv2.CV_32F)
    inside = slice(WINDOW // 2, -(WINDOW // 2))
    return np.asarray(cv2.sepFilter2D(plane, -1, kernel, kernel)[inside, inside], dtype=np.float32)


def _blur_on_device(images: Tensor) -> Tensor:
    """The same of [..., H, W], on any device."""
    kernel = np.asarray(cv2.getGaussianKernel(WINDOW, _SIGMA, cv2.CV_32F), dtype=np.float32)
    line = torch.from_numpy(kernel[:, 0]).to(images.device)
    rows = functional.conv2d(images.flatten(0, -3)[:, None], line[None, None, :, None])
    means = functional.conv2d(rows, line[None, None, None, :])[:, 0]  # [P h w]
    return means.reshape(*images.shape[:-2], *means.shape[-2:])


class SsimMetric:
    """SSIM against the truth, plain or after matching channels."""

    def __init__(self, *, is_matched: bool) -> None:
        self._is_matched = is_matched

    def measure(self, batch: ImageBatch) -> dict[str, NDArray[np.float64]]:
        """Measures a batch; see `Metric`."""
        if self._is_matched:
            return {"ssim-matched": as_array(ssim(batch.matched, batch.truth))}
        return {"ssim": as_array(ssim(batch.restored, batch.truth))}
