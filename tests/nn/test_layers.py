"""The layers against loops in float64 and closed forms."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gfprestore.nn.layers import (
    DEMODULATION_EPSILON,
    LEAK,
    DownBlock,
    ModulatedConvolution,
    Resampling,
    StyledConvolution,
    ToRgb,
    UpBlock,
    convolve_doubled,
    convolve_stuffed,
    double,
    double_fir,
    halve,
    set_normal,
    smooth,
)


def modulated_by_loops(x: Tensor, weight: Tensor, style: Tensor, demodulate: bool) -> Tensor:
    """StyleGAN2's modulated convolution, [N I H W] -> [N O H W], a kernel for each item, one product at a time."""
    count, inputs, height, width = x.shape
    outputs, kernel = weight.shape[0], weight.shape[2]
    reach = kernel // 2
    result = torch.zeros(count, outputs, height, width, dtype=torch.float64)
    for n in range(count):
        for o in range(outputs):
            scaled = [
                [[float(style[n, i] * weight[o, i, a, b]) for b in range(kernel)] for a in range(kernel)]
                for i in range(inputs)
            ]
            norm = math.sqrt(sum(w * w for plane in scaled for row in plane for w in row) + DEMODULATION_EPSILON)
            for y in range(height):
                for z in range(width):
                    total = 0.0
                    for i in range(inputs):
                        for a in range(kernel):
                            for b in range(kernel):
                                v, u = y + a - reach, z + b - reach
                                if 0 <= v < height and 0 <= u < width:
                                    total += scaled[i][a][b] * float(x[n, i, v, u])
                    result[n, o, y, z] = total / norm if demodulate else total
    return result


def test_styled_convolution_equals_a_kernel_per_item_by_loops() -> None:
    torch.manual_seed(0)
    layer = StyledConvolution(3, 2, latent_size=4).double().requires_grad_(False)
    layer.weight.data.fill_(0.7)
    layer.bias.data.normal_()
    x, code, noise = torch.randn(2, 3, 4, 5).double(), torch.randn(2, 4).double(), torch.randn(1, 1, 4, 5).double()
    convolution = layer.modulated_conv
    style = code @ convolution.modulation.weight.T + convolution.modulation.bias
    wanted = modulated_by_loops(x, convolution.weight[0], style, demodulate=True) * 2**0.5 + 0.7 * noise + layer.bias
    wanted = torch.where(wanted > 0, wanted, LEAK * wanted)
    torch.testing.assert_close(layer(x, code, noise), wanted, rtol=1e-12, atol=1e-12)


def test_to_rgb_equals_a_kernel_per_item_by_loops() -> None:
    torch.manual_seed(1)
    layer = ToRgb(4, latent_size=3).double().requires_grad_(False)
    x, code = torch.randn(2, 4, 3, 3).double(), torch.randn(2, 3).double()
    style = code @ layer.modulated_conv.modulation.weight.T + layer.modulated_conv.modulation.bias
    wanted = modulated_by_loops(x, layer.modulated_conv.weight[0], style, demodulate=False) + layer.bias
    torch.testing.assert_close(layer(x, code), wanted, rtol=1e-12, atol=1e-12)


def test_batch_of_layers_equals_its_items() -> None:
    torch.manual_seed(2)
    layer = StyledConvolution(6, 5, latent_size=4, upsampling=Resampling.BILINEAR).double()
    x, code, noise = torch.randn(3, 6, 4, 4).double(), torch.randn(3, 4).double(), torch.randn(1, 1, 8, 8).double()
    items = [layer(x[n : n + 1], code[n : n + 1], noise) for n in range(3)]
    torch.testing.assert_close(layer(x, code, noise), torch.cat(items), rtol=1e-12, atol=1e-12)


def test_modulated_convolution_starts_at_unit_variance() -> None:
    torch.manual_seed(3)
    layer = StyledConvolution(256, 256, latent_size=64)
    out = F.conv2d(torch.randn(1, 256, 32, 32), layer.modulated_conv.weight[0], padding=1)[:, :, 1:-1, 1:-1]
    assert out.var().item() == pytest.approx(1, rel=0.1)
    assert ModulatedConvolution(8, 8, 1, 4).modulation.bias.eq(1).all()


def test_doubling_keeps_a_ramp_and_halving_undoes_it() -> None:
    ramp = torch.arange(8.0)[None, None, :, None] + 3 * torch.arange(6.0)
    doubled = double(ramp)
    # Pixel centres at halves: the sample at fine index i is at (i - 1/2) / 2.
    fine = (torch.arange(16.0) - 0.5) / 2
    torch.testing.assert_close(doubled[0, 0, 1:-1, 1:-1], (fine[:, None] + 3 * fine[None, :12])[1:-1, 1:-1])
    torch.testing.assert_close(halve(doubled)[0, 0, 1:-1, 1:-1], ramp[0, 0, 1:-1, 1:-1])


def stuff(x: Tensor) -> Tensor:
    """Put a zero after every row and column."""
    stuffed = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    stuffed[:, :, ::2, ::2] = x
    return stuffed


def test_doubling_with_zeros_outside_is_the_stuffed_filter() -> None:
    torch.manual_seed(4)
    x = torch.randn(1, 2, 5, 4).double()
    taps = torch.tensor([1.0, 3, 3, 1]).double() / 4
    kernel = (taps[:, None] * taps)[None, None].expand(2, 1, 4, 4)
    # Taps 1 and 2 lie on both sides of the fine pixel that the stuffed value is at.
    torch.testing.assert_close(double_fir(x), F.conv2d(F.pad(stuff(x), [2, 1, 2, 1]), kernel, groups=2))


@pytest.mark.parametrize("sides", [(5, 4), (2, 3), (1, 1), (1, 6)])
def test_convolution_of_the_doubled_is_exact_to_its_corners(sides: tuple[int, int]) -> None:
    torch.manual_seed(7)
    x, weight = torch.randn(2, 3, *sides).double(), torch.randn(5, 3, 3, 3).double()
    wanted = F.conv2d(double(x), weight, padding=1)
    torch.testing.assert_close(convolve_doubled(x, weight), wanted, rtol=1e-12, atol=1e-12)


def test_convolution_of_the_doubled_has_its_gradients() -> None:
    torch.manual_seed(8)
    x, weight = torch.randn(1, 2, 3, 4).double().requires_grad_(), torch.randn(2, 2, 3, 3).double().requires_grad_()
    assert torch.autograd.gradcheck(convolve_doubled, (x, weight))


def test_convolution_of_the_stuffed_filters_beyond_the_border_too() -> None:
    torch.manual_seed(9)
    x, weight = torch.randn(1, 3, 4, 5).double(), torch.randn(2, 3, 3, 3).double()
    # A border of zeros wide enough for both steps, cut off at the end.
    wide = F.conv2d(double_fir(F.pad(x, (2, 2, 2, 2))), weight, padding=1)[:, :, 4:-4, 4:-4]
    torch.testing.assert_close(convolve_stuffed(x, weight, padding=0), wide, rtol=1e-12, atol=1e-12)


def test_smoothing_keeps_the_mean_and_has_the_taps() -> None:
    impulse = torch.zeros(1, 1, 9, 9)
    impulse[0, 0, 4, 4] = 64
    out = smooth(impulse, padding=2)
    torch.testing.assert_close(out[0, 0, 3:7, 3], torch.tensor([1.0, 3, 3, 1]))
    assert out.sum().item() == pytest.approx(64)
    assert smooth(impulse, padding=1, stride=2).shape == (1, 1, 4, 4)


def test_up_block_equals_the_skip_taken_after_doubling() -> None:
    torch.manual_seed(5)
    block = UpBlock(4, 6, Resampling.BILINEAR).double()
    x = torch.randn(2, 4, 5, 5).double()
    main = F.leaky_relu(block.conv2(double(F.leaky_relu(block.conv1(x), LEAK))), LEAK)
    torch.testing.assert_close(block(x), main + block.skip(double(x)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("resampling", list(Resampling))
def test_down_block_halves(resampling: Resampling) -> None:
    assert DownBlock(3, 7, resampling)(torch.randn(2, 3, 16, 8)).shape == (2, 7, 8, 4)


def test_set_normal_leaves_meta_tensors_alone() -> None:
    assert set_normal(torch.empty(3, device="meta")).is_meta
    torch.manual_seed(6)
    assert set_normal(torch.empty(10000), std=3).std().item() == pytest.approx(3, rel=0.05)


@pytest.mark.parametrize("upsampling", [None, *Resampling])
def test_styled_convolution_stays_in_the_precision_of_its_convolution(upsampling: Resampling | None) -> None:
    torch.manual_seed(7)
    layer = StyledConvolution(6, 4, latent_size=5, upsampling=upsampling)
    layer.weight.data.fill_(0.3)
    side = 8 if upsampling is None else 16
    x, code, noise = torch.randn(2, 6, 8, 8), torch.randn(2, 5), torch.randn(1, 1, side, side)
    with torch.autocast("cpu", torch.bfloat16):
        rough = layer(x, code, noise)
    assert rough.dtype is torch.bfloat16
    torch.testing.assert_close(rough.float(), layer(x, code, noise), rtol=0.03, atol=0.03)
