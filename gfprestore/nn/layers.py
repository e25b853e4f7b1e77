"""The layers of GFP-GAN: resampling, residual blocks, and StyleGAN2's modulated convolution.

Papers: StyleGAN2 (arXiv:1912.04958) and GFP-GAN (arXiv:2101.04061). Parameter names are those of the released weights.
All tensors are float, [N C H W].
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gfprestore.nn.shape import LEAK, Resampling

DEMODULATION_EPSILON = 1e-8
"""Added under the root of the demodulation, as in StyleGAN2's own code."""


def set_normal(tensor: Tensor, std: float = 1.0) -> Tensor:
    """Fill a tensor with normal random values, unless it is a meta tensor, whose values will be loaded."""
    # On the meta device torch's normal_ does nothing but import its compiler, which takes seconds.
    with torch.no_grad():
        return tensor if tensor.is_meta else tensor.normal_(std=std)


def double(x: Tensor) -> Tensor:
    """Upsample by two, bilinearly with pixel centres at halves: [N C H W] -> [N C 2H 2W]."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def halve(x: Tensor) -> Tensor:
    """Downsample by two: [N C H W] -> [N C H/2 W/2].

    The bilinear sample between four pixel centres is their mean.
    """
    return F.avg_pool2d(x, 2)


def double_fir(x: Tensor) -> Tensor:
    """Upsample by two with the filter [1, 3, 3, 1] on zeros beyond the border: [N C H W] -> [N C 2H 2W].

    The filter on a zero-stuffed image is bilinear interpolation, so the bilinear one does it once the zeros are there.
    """
    doubled = double(F.pad(x, (1, 1, 1, 1)))
    return doubled[:, :, 2 : doubled.shape[2] - 2, 2 : doubled.shape[3] - 2]


def smooth(x: Tensor, padding: int, stride: int = 1) -> Tensor:
    """Filter every channel with [1, 3, 3, 1] both ways: [N C H W] -> [N C (H+2p-4)/s+1 (W+2p-4)/s+1]."""
    # [1, 3, 3, 1] / 8, computed on the device: values from the host would make it wait at every call.
    taps = (2 - (torch.arange(4, dtype=x.dtype, device=x.device) - 1.5).abs()) / 4
    channels = x.shape[1]
    # Copied for every channel: on Apple's GPUs torch before 2.14 takes every kernel for contiguous.
    kernel = (taps[:, None] * taps[None, :]).repeat(channels, 1, 1, 1)  # [C 1 K K]
    return F.conv2d(x, kernel, stride=stride, padding=padding, groups=channels)


def convolve_stuffed(x: Tensor, weight: Tensor, padding: int) -> Tensor:
    """Put a zero after every row and column, convolve, filter with [1, 3, 3, 1] (times four, for the zeros' sake).

    The filter commutes with the convolution, and three in four products of a convolution with the stuffed image are
    products with zero: a transposed convolution leaves them out.

    Args:
        x: Features [N I H W].
        weight: Kernel [O I 3 3].
        padding: 0 where zeros lie beyond the border, 1 where `x` has one more pixel on every side.

    Returns:
        Features [N O 2H 2W], of the image inside the padding.
    """
    transposed = 4 * weight.flip(2, 3).transpose(0, 1)  # [I O K K], which a transposed convolution reads backwards
    return smooth(F.conv_transpose2d(x, transposed, stride=2, padding=padding), padding=1 - padding)


def convolve_doubled(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`conv2d(double(x), weight, bias, padding=1)` in a quarter of the products: [N I H W] -> [N O 2H 2W]."""
    if x.is_cuda or x.is_mps:  # depthwise filters are slow there, multiplications cheap
        return F.conv2d(double(x), weight, bias, padding=1)
    # Bilinear doubling is the filter on an image whose border pixels repeat, so this convolves a repeated border ...
    out = convolve_stuffed(F.pad(x, (1, 1, 1, 1), mode="replicate"), weight, padding=1)
    # ... where the convolution's own padding is zero: take off what the kernel's outer lines added, corners once.
    rows = F.pad(_double_along(x[:, :, :: max(x.shape[2] - 1, 1)], 3), (1, 1, 0, 0), mode="replicate")  # [N I 2 2W+2]
    columns = F.pad(_double_along(x[:, :, :, :: max(x.shape[3] - 1, 1)], 2), (0, 0, 1, 1))  # [N I 2H+2 2]
    for end, line in ((0, 0), (-1, 2)):
        row, column = rows[:, :, end][:, :, None], columns[:, :, :, end][:, :, :, None]
        out.narrow(2, end, 1).sub_(F.conv2d(row, weight[:, :, line : line + 1]))
        out.narrow(3, end, 1).sub_(F.conv2d(column, weight[:, :, :, line : line + 1]))
    return out if bias is None else out + bias[:, None, None]


def _double_along(x: Tensor, axis: int) -> Tensor:
    """Upsample one axis by two, bilinearly."""
    scale = (2, 1) if axis == 2 else (1, 2)
    return F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)


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
        out = F.leaky_relu(convolve_doubled(out, self.conv2.weight, self.conv2.bias), LEAK)
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
        weight = convolution.weight[0]  # [O I K K]
        if self.upsampling is Resampling.BILINEAR:
            out = convolve_doubled(out, weight)
        elif self.upsampling is Resampling.FIR:
            out = convolve_stuffed(out, weight, padding=0)
        else:
            out = F.conv2d(out, weight, padding=1)
        # sqrt(2) keeps the variance that the leaky ReLU loses. Autocast computes the norm in fp32, which would make
        # everything up to the next convolution fp32, at twice the memory traffic.
        gain = (2**0.5 * convolution.inverse_norm(style)).to(out.dtype)
        noise, bias = (self.weight * noise).to(out.dtype), self.bias.to(out.dtype)
        return F.leaky_relu(out * gain[:, :, None, None] + noise + bias, LEAK)


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
        return out + (double_fir(image) if self.upsampling is Resampling.FIR else double(image))
