"""PSNR: peak signal-to-noise ratio in decibels.

Protocol `psnr`: 10 log10(255² / MSE), the mean over all pixels and the three channels, no border cut. `psnr-matched`:
the same after `match_channels`. Equal images have an infinite ratio.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gfprestore.evaluation.batch import ImageBatch, as_array

PEAK = 255.0
"""The greatest value of a channel."""


def psnr(restored: Tensor, truth: Tensor) -> Tensor:
    """Measures PSNR.

    Args:
        restored: RGB [N, M, 3, H, W], uint8 or float, 0 to 255.
        truth: RGB [N, 3, H, W], the same.

    Returns:
        float64 [N, M] on the processor, in decibels; higher is better.
    """
    if restored.device.type == "cpu":
        error = _error_on_processor(restored, truth)
    else:
        error = (restored.float() - truth.float()[:, None]).square_().mean((-3, -2, -1)).cpu().double()
    return 10 * torch.log10(PEAK**2 / error)


def _error_on_processor(restored: Tensor, truth: Tensor) -> Tensor:
    """Mean squared errors [N, M]; cv2 makes no copy of the difference."""
    images, wanted = restored.contiguous(), truth.to(restored.dtype).contiguous()
    rows = -1, images.shape[-1]  # cv2 takes [3*H W]
    return torch.tensor(
        [
            [cv2.norm(i.reshape(rows).numpy(), t.reshape(rows).numpy(), cv2.NORM_L2SQR) / i.numel() for i in of_one]
            for of_one, t in zip(images, wanted, strict=True)
        ],
        dtype=torch.float64,
    )


class PsnrMetric:
    """PSNR against the truth, plain or after matching channels."""

    def __init__(self, *, is_matched: bool) -> None:
        self._is_matched = is_matched

    def measure(self, batch: ImageBatch) -> dict[str, NDArray[np.float64]]:
        """Measures a batch; see `Metric`."""
        if self._is_matched:
            return {"psnr-matched": as_array(psnr(batch.matched, batch.truth))}
        return {"psnr": as_array(psnr(batch.restored, batch.truth))}
