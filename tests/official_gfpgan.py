"""The official GFP-GAN networks as references, with random weights in which every term counts."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

ARCHITECTURES = "spandrel.architectures.GFPGAN.__arch"


def _stir(network: nn.Module, seed: int) -> nn.Module:
    """Give noise strengths and biases, which start at zero, random values."""
    random = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        if parameter.squeeze().ndim <= 1:
            parameter.data += 0.2 * torch.randn(parameter.shape, generator=random)
    return network.eval()


def clean_gfpgan(seed: int = 0, **hyperparameters: Any) -> nn.Module:
    """The clean network, as spandrel has it."""
    torch.manual_seed(seed)
    return _stir(importlib.import_module(f"{ARCHITECTURES}.gfpganv1_clean_arch").GFPGANv1Clean(**hyperparameters), seed)


def paper_gfpgan(monkeypatch: pytest.MonkeyPatch, seed: int = 0, **hyperparameters: Any) -> nn.Module:
    """The paper's network, as spandrel has it, its one compiled operation (bias, leaky ReLU, gain) written in torch."""

    def biased_leaky_relu(x: Tensor, bias: Tensor, negative_slope: float = 0.2, scale: float = 2**0.5) -> Tensor:
        bias = bias.reshape(1, -1, *[1] * (x.ndim - 2))
        return F.leaky_relu(x + bias, negative_slope) * scale

    for module in ("fused_act", "stylegan2_arch"):
        monkeypatch.setattr(f"{ARCHITECTURES}.{module}.fused_leaky_relu", biased_leaky_relu)
    torch.manual_seed(seed)
    architecture = importlib.import_module(f"{ARCHITECTURES}.gfpganv1_arch").GFPGANv1
    return _stir(architecture(fix_decoder=False, input_is_latent=True, **hyperparameters), seed)


def random_faces(count: int, size: int, seed: int = 0) -> Tensor:
    """Random images [N 3 S S] in [-1, 1]."""
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def relative_error(given: Tensor, wanted: Tensor) -> float:
    """Largest difference, in terms of the largest wanted value."""
    return float((given - wanted).abs().max() / wanted.abs().max())
