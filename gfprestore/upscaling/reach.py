"""How far an upscaling network looks."""

from __future__ import annotations

import math

from torch import nn

# Layers that look at one pixel of their input.
_POINTWISE = (nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.SiLU, nn.Identity, nn.PixelShuffle)


def reach_of(network: nn.Module) -> float:
    """How many pixels away a pixel can change a network's result: at most the sum over its convolutions.

    Infinity for a network with other layers, such as attention, or that makes its input smaller inside.
    """
    reach = 0.0
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and layer.stride == (1, 1):
            reach += max(size // 2 * step for size, step in zip(layer.kernel_size, layer.dilation, strict=True))
        elif isinstance(layer, nn.Upsample) and layer.mode == "nearest":
            continue
        elif not any(layer.children()) and not isinstance(layer, _POINTWISE):
            return math.inf
    return reach
