"""GFP-GAN between pixels, so that they are converted where the network runs."""

from __future__ import annotations

from torch import Tensor, nn

from gfprestore.nn.gfpgan import Gfpgan

HALF_RANGE = 127.5
"""Pixels 0 to 255 are -1 to 1 for the network: `pixel / 127.5 - 1`."""


class PixelGfpgan(nn.Module):
    """GFP-GAN on pixels: uint8 RGB [N S S 3] -> uint8 RGB [N S S 3], rounded to the nearest."""

    def __init__(self, network: Gfpgan) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        """Scale to [-1, 1], restore, scale back."""
        image = pixels.permute(0, 3, 1, 2).float() / HALF_RANGE - 1  # [N 3 S S]
        restored: Tensor = self.network(image).float()
        return ((restored + 1) * HALF_RANGE).round().clamp(0, 255).byte().permute(0, 2, 3, 1)  # [N S S 3]
