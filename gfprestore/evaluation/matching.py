"""Matching each channel's mean and deviation to the truth before measuring, as the published script can.

The script of the field (BasicSR, `scripts/metrics/calculate_psnr_ssim.py --correct_mean_var`) shifts each channel to
the truth's mean, scales it about zero to the truth's deviation, and does both once more. The second round makes up for
the first one's shift, so the whole is one affine map per channel, with mean m and deviation s over all pixels:

    y' = (y - m(y)) * s(t) / s(y) + m(t)

The result is neither rounded nor clipped. It forgives any change of brightness, contrast and colour balance: figures
after matching are higher, and not to be set beside plain ones.
"""

from __future__ import annotations

import torch
from torch import Tensor


def match_channels(restored: Tensor, truth: Tensor) -> Tensor:
    """Gives each channel of the restored images the mean and the deviation that it has in the truth.

    Args:
        restored: RGB [N, M, 3, H, W], uint8 or float, 0 to 255.
        truth: RGB [N, 3, H, W], the same.

    Returns:
        float32 [N, M, 3, H, W]; may leave 0 to 255. A channel of one value becomes the truth's mean.
    """
    images, wanted = restored.float(), truth.float()[:, None]
    deviation, mean = torch.std_mean(images, (-2, -1), correction=0, keepdim=True)
    wanted_deviation, wanted_mean = torch.std_mean(wanted, (-2, -1), correction=0, keepdim=True)
    gain = torch.where(deviation > 0, wanted_deviation / deviation, 0.0)
    return (images - mean) * gain + wanted_mean
