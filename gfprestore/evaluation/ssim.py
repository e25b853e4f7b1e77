"""SSIM: structural similarity (Wang et al., IEEE TIP 13(4), 2004).

Protocol `ssim`: Gaussian window of 11x11 with deviation 1.5, K = 0.01 and 0.03, range 255, biased variances, only where
the window lies inside the image; the mean over positions and over R, G and B apart, as the published script and the
authors' own do. `ssim-matched`: the same after `match_channels`. Libraries that pad the image, or work on luma, give
other figures.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from gfprestore.errors import UsageError
from gfprestore.evaluation.batch import ImageBatch, as_array

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
        float64 [N, M], at most 1; higher is better.

    Raises:
        UsageError: The images are smaller than the window.
    """
    if min(truth.shape[-2:]) < WINDOW:
        raise UsageError(f"SSIM needs images of at least {WINDOW}x{WINDOW} pixels: leave it out of --metrics.")
    images, wanted = restored.float(), truth.float()[:, None].expand(restored.shape)
    products = torch.stack([images, wanted, images.square() + wanted.square(), images * wanted])
    mean_x, mean_y, squares, product = _window_means(products)
    means_product = mean_x * mean_y
    means_squares = mean_x.square() + mean_y.square()
    similarity: Tensor = ((2 * means_product + _C1) * (2 * (product - means_product) + _C2)) / (
        (means_squares + _C1) * (squares - means_squares + _C2)
    )
    return similarity.double().mean((-3, -2, -1))


def _window_means(images: Tensor) -> Tensor:
    """Weighted means in every window that lies inside, float32 [..., H - 10, W - 10]."""
    planes = images.flatten(0, -3)  # [P H W]
    # cv2 is ten times as fast as torch's one-channel convolutions on the processor.
    means = _blur_on_processor(planes) if images.device.type == "cpu" else _blur_on_device(planes)
    return means.reshape(*images.shape[:-2], *means.shape[-2:])  # [4 N M 3 h w]


def _blur_on_processor(planes: Tensor) -> Tensor:
    kernel = cv2.getGaussianKernel(WINDOW, _SIGMA, cv2.CV_32F)
    inside = slice(WINDOW // 2, -(WINDOW // 2))
    return torch.from_numpy(
        np.stack([cv2.sepFilter2D(plane, -1, kernel, kernel)[inside, inside] for plane in planes.numpy()])
    )


def _blur_on_device(planes: Tensor) -> Tensor:
    kernel = np.asarray(cv2.getGaussianKernel(WINDOW, _SIGMA, cv2.CV_32F), dtype=np.float32)
    line = torch.from_numpy(kernel[:, 0]).to(planes.device)
    rows = functional.conv2d(planes[:, None], line[None, None, :, None])
    return functional.conv2d(rows, line[None, None, None, :])[:, 0]


class SsimMetric:
    """SSIM against the truth, plain or after matching channels."""

    def __init__(self, *, is_matched: bool) -> None:
        self._is_matched = is_matched

    def measure(self, batch: ImageBatch) -> dict[str, NDArray[np.float64]]:
        """Measures a batch; see `Metric`."""
        if self._is_matched:
            return {"ssim-matched": as_array(ssim(batch.matched, batch.truth))}
        return {"ssim": as_array(ssim(batch.restored, batch.truth))}
