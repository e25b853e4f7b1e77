"""The layers of an upscaling network, seen while it runs on a small square."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

_SIDE = 32


def values_per_pixel(network: nn.Module) -> float:
    """Count what the largest layer reads and writes for each input pixel.

    Args:
        network: On the CPU; takes float32 [N H W 3].
    """
    largest = 0

    def watch(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal largest
        largest = max(largest, sum(t.numel() for t in (*inputs, output) if isinstance(t, Tensor)))

    _run_watched(network, watch)
    return largest / _SIDE**2


def finish_in_fp32(network: nn.Module) -> None:
    """Let the last convolution compute in fp32 under autocast.

    In bf16 the upper half of the range 0 to 1 has 128 values: too few for a sky, in 8 bits and all the more in 16.

    Args:
        network: On the CPU; takes float32 [N H W 3].
    """
    last: nn.Module | None = None

    def watch(layer: nn.Module, *_: Any) -> None:
        nonlocal last
        last = layer if isinstance(layer, nn.Conv2d) else last

    _run_watched(network, watch)
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if child is last:
                setattr(parent, name, _InFp32(child))


class _InFp32(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            result: Tensor = self.layer(x.float())
        return result


def _run_watched(network: nn.Module, watch: Callable[[nn.Module, tuple[Any, ...], Any], None]) -> None:
    """Run the network once; `watch` gets every layer without layers of its own, with its inputs and its output."""
    handles = [layer.register_forward_hook(watch) for layer in network.modules() if not list(layer.children())]
    try:
        with torch.inference_mode():
            network(torch.zeros(1, _SIDE, _SIDE, 3))
    finally:
        for handle in handles:
            handle.remove()
