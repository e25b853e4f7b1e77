"""How far networks look, against what a single changed pixel changes."""

from __future__ import annotations

import math

import pytest
import torch
from spandrel.architectures.Compact import Compact
from spandrel.architectures.ESRGAN import ESRGAN
from torch import nn

from gfprestore.upscaling.overlap import overlap_for
from gfprestore.upscaling.reach import reach_of


def farthest_change(network: nn.Module, factor: int, side: int = 96) -> int:
    """How many pixels away from the photo's left edge a change there is seen."""
    torch.manual_seed(0)
    pixels = torch.rand(1, 3, 4, side, dtype=torch.float64)
    other = pixels.clone()
    other[..., 0] += 100
    with torch.inference_mode():
        change = network.double()(pixels) != network(other)
    return int(change.any(dim=(0, 1, 2)).nonzero().max()) // factor


@pytest.mark.parametrize("convolutions", [1, 4])
def test_of_plain_convolutions_it_is_exact(convolutions: int) -> None:
    torch.manual_seed(1)
    network = Compact(num_feat=8, num_conv=convolutions, upscale=2)
    assert reach_of(network) == farthest_change(network, 2) == convolutions + 2


def test_of_dense_blocks_it_is_enough() -> None:
    torch.manual_seed(1)
    network = ESRGAN(num_filters=4, num_blocks=1)
    assert 10 < farthest_change(network, 4) <= reach_of(network) == 1 + 15 + 1 + 2 + 2


def test_wide_and_spread_kernels_count_as_far_as_they_look() -> None:
    network = nn.Sequential(nn.Conv2d(3, 3, 7, padding=3), nn.ReLU(), nn.Conv2d(3, 3, 3, padding=4, dilation=4))
    assert reach_of(network) == farthest_change(network, 1) == 3 + 4


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(nn.Conv2d(3, 8, 1), nn.MultiheadAttention(8, 2)),
        nn.Conv2d(3, 3, 3, stride=2),
        nn.Sequential(nn.Conv2d(3, 3, 3), nn.AdaptiveAvgPool2d(1)),
        nn.Upsample(scale_factor=2, mode="bilinear"),
    ],
    ids=lambda network: type(network).__name__,
)
def test_what_else_a_network_does_may_reach_anywhere(network: nn.Module) -> None:
    assert reach_of(network) == math.inf


@pytest.mark.parametrize("shrinks", [False, True])
@pytest.mark.parametrize("reach", [0, 5, 34, 56, 57, 104, 105, math.inf])
def test_overlaps_hold_what_a_network_sees_from_both_sides(reach: float, shrinks: bool) -> None:
    overlap = overlap_for(reach, shrinks)
    most = 224 if shrinks else 128
    assert overlap.pixels - overlap.ramp == 2 * reach if 2 * reach <= most - 16 else overlap.pixels == most
    assert 0 < overlap.ramp <= overlap.pixels
