"""The layers of GFP-GAN: resampling, residual blocks, and StyleGAN2's modulated convolution.

Papers: StyleGAN2 (arXiv:1912.04958) and GFP-GAN (arXiv:2101.04061). Parameter names are those of the released weights.
All tensors are float, [N C H W].
"""

from __future__ import annotations

from enum import Enum

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEAK = 0.2
"""Slope of every leaky ReLU below zero."""

DEMODULATION_EPSILON = 1e-8
"""Added under the root of the demodulation, as in StyleGAN2's own code."""

FIR_TAPS = (1 / 8, 3 / 8, 3 / 8, 1 / 8)
"""StyleGAN2's resampling filter [1, 3, 3, 1], normalised."""


def set_normal(tensor: Tensor, std: float = 1.0) -> Tensor:
    """Fill a tensor with normal random values, unless it is a meta tensor, whose values will be loaded."""
    # On the meta device torch's normal_ does nothing but import its compiler, which takes seconds.
    with torch.no_grad():
        return tensor if tensor.is_meta else tensor.normal_(std=std)


class Resampling(Enum):
    """How a network doubles and halves its features."""

    BILINEAR = "bilinear"
    """The clean architecture: bilinear with repeated borders (released v1.2 to v1.4)."""

    FIR = "fir"
    """The paper's: StyleGAN2's filter [1, 3, 3, 1], zero beyond the border (released v1)."""


def double(x: Tensor) -> Tensor:
    """Upsample by two, bilinearly with pixel centres at halves: [N C H W] -> [N C 2H 2W]."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def halve(x: Tensor) -> Tensor:
    """Downsample by two: [N C H W] -> [N C H/2 W/2].

    The bilinear sample between four pixel centres is their mean.
    """
    return F.avg_pool2d(x, 2)


def double_with_halo(x: Tensor, halo: int) -> Tensor:
    """Upsample by two with the filter [1, 3, 3, 1] on zeros beyond the border: [N C H W] -> [N C 2H+2h 2W+2h].

    The filter on a zero-stuffed image is bilinear interpolation, so the bilinear one does it once the zeros are there.

    Args:
        x: Features.
        halo: How many pixels beyond the doubled image's border to give, 0 to 2.
    """
    cut = 2 - halo
    doubled = double(F.pad(x, (1, 1, 1, 1)))
    return doubled[:, :, cut : doubled.shape[2] - cut, cut : doubled.shape[3] - cut]


def smooth(x: Tensor, padding: int, stride: int = 1) -> Tensor:
    """Filter every channel with [1, 3, 3, 1] both ways: [N C H W] -> [N C (H+2p-4)/s+1 (W+2p-4)/s+1]."""
    taps = torch.tensor(FIR_TAPS, dtype=x.dtype, device=x.device)
    channels = x.shape[1]
    kernel = (taps[:, None] * taps[None, :]).expand(channels, 1, -1, -1)  # [C 1 K K]
    return F.conv2d(x, kernel, stride=stride, padding=padding, groups=channels)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a 1x1 skip, as in the discriminator of StyleGAN2: the parameters of both ways."""

    def __init__(self, channels_in: int, channels_out: int, resampling: Resampling) -> None:
        super().__init__()
        self.resampling = resampling
        self.conv1 = nn.Conv2d(channels_in, channels_in, 3, padding=1)
        self.conv2 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.skip = nn.Conv2d(channels_in, channels_out, 1, bias=False)


class DownBlock(ResidualBlock):
    """Residual block that halves: [N I H W] -> [N O H/2 W/2]."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve, halve, convolve; add the skip."""
        out = F.leaky_relu(self.conv1(x), LEAK)
        if self.resampling is Resampling.FIR:
            # The paper's block filters, then strides: its second kernel has taps one fine pixel apart.
            out = F.conv2d(smooth(out, padding=2), self.conv2.weight, self.conv2.bias, stride=2)
            skip: Tensor = self.skip(smooth(x, padding=1, stride=2))
        else:
            out = self.conv2(halve(out))
            skip = self.skip(halve(x))
        return F.leaky_relu(out, LEAK) + skip


class UpBlock(ResidualBlock):
    """Residual block that doubles, bilinearly in both architectures: [N I H W] -> [N O 2H 2W]."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve, double, convolve; add the skip."""
        out = F.leaky_relu(self.conv1(x), LEAK)
        out = F.leaky_relu(self.conv2(double(out)), LEAK)
        # A 1x1 convolution without bias commutes with the resampling and costs a quarter before it.
        return out + double(self.skip(x))


class ModulatedConvolution(nn.Module):
    """Convolution whose input channels are scaled by a style (StyleGAN2, section 2.2).

    The paper scales the kernel for each item, `w'_oik = s_i w_oik`, and divides it by its norm over i and k. Scaling
    the input by `s_i` and the output by the inverse norm is the same sum, with one kernel for the whole batch.
    """

    def __init__(self, channels_in: int, channels_out: int, kernel_size: int, latent_size: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(latent_size, channels_in)
        self.weight = nn.Parameter(torch.empty(1, channels_out, channels_in, kernel_size, kernel_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start with unit-variance outputs and a style of one."""
        set_normal(self.weight, std=self.weight[0, 0].numel() ** -0.5)
        set_normal(self.modulation.weight, std=self.modulation.in_features**-0.5)
        nn.init.ones_(self.modulation.bias)

    def inverse_norm(self, style: Tensor) -> Tensor:
        """Demodulation `1 / sqrt(sum_i s_i^2 sum_k w_oik^2 + 1e-8)`: style [N I] -> [N O]."""
        energy = self.weight[0].square().sum((2, 3))  # [O I]
        return torch.rsqrt(style.square() @ energy.T + DEMODULATION_EPSILON)


class StyledConvolution(nn.Module):
    """One StyleGAN2 layer: modulated 3x3 convolution, noise, bias, leaky ReLU (arXiv:1912.04958, figure 2d)."""

    def __init__(
        self, channels_in: int, channels_out: int, latent_size: int, upsampling: Resampling | None = None
    ) -> None:
        super().__init__()
        self.upsampling = upsampling
        self.modulated_conv = ModulatedConvolution(channels_in, channels_out, 3, latent_size)
        self.weight = nn.Parameter(torch.zeros(1))
        self.bias = nn.Parameter(torch.zeros(1, channels_out, 1, 1))

    def forward(self, x: Tensor, code: Tensor, noise: Tensor) -> Tensor:
        """Run the layer.

        Args:
            x: Features [N I H W].
            code: Latent codes [N L].
            noise: [1 1 H W] or [N 1 H W] of the output's size.

        Returns:
            Features [N O H W], or [N O 2H 2W] where the layer upsamples.
        """
        convolution = self.modulated_conv
        style = convolution.modulation(code)  # [N I]
        out = x * style[:, :, None, None]  # [N I H W]
        padding = 1
        if self.upsampling is Resampling.BILINEAR:
            out = double(out)
        elif self.upsampling is Resampling.FIR:
            # Features one pixel beyond the border are not zero: the convolution gets them in place of its padding.
            out, padding = double_with_halo(out, halo=1), 0
        out = F.conv2d(out, convolution.weight[0], padding=padding)
        # sqrt(2) keeps the variance that the leaky ReLU loses.
        gain = 2**0.5 * convolution.inverse_norm(style)
        return F.leaky_relu(out * gain[:, :, None, None] + self.weight * noise + self.bias, LEAK)


class ToRgb(nn.Module):
    """Add a layer's features to the image, through a modulated 1x1 convolution without demodulation."""

    def __init__(self, channels_in: int, latent_size: int, upsampling: Resampling | None = None) -> None:
        super().__init__()
        self.upsampling = upsampling
        self.modulated_conv = ModulatedConvolution(channels_in, 3, 1, latent_size)
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))

    def forward(self, x: Tensor, code: Tensor, image: Tensor | None = None) -> Tensor:
        """Features [N I H W], codes [N L], the image so far [N 3 H/2 W/2] -> image [N 3 H W]."""
        convolution = self.modulated_conv
        style = convolution.modulation(code)  # [N I]
        out = F.conv2d(x * style[:, :, None, None], convolution.weight[0]) + self.bias
        if image is None:
            return out
        return out + (double_with_halo(image, halo=0) if self.upsampling is Resampling.FIR else double(image))
