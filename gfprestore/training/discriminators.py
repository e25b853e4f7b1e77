"""The discriminators of GFP-GAN (arXiv:2101.04061, section 3.5), in StyleGAN2's form (arXiv:1912.04958).

Weights have unit variance and are scaled by `1/sqrt(fan in)` when used (equalised learning rate), so that Adam moves
all layers alike; after every leaky ReLU follows a gain of sqrt(2). All tensors are float, [N C H W].
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gfprestore.nn.layers import smooth
from gfprestore.nn.shape import LEAK
from gfprestore.nn.widths import released_widths

GAIN = 2**0.5
"""Keeps the variance that a leaky ReLU loses."""

DEVIATION_EPSILON = 1e-8
"""Added under the root of the batch's deviation, as in StyleGAN2's own code."""


class EqualisedConv(nn.Module):
    """Convolution with an equalised learning rate, optionally halving and activated."""

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, *, halves: bool = False, is_activated: bool = True
    ) -> None:
        super().__init__()
        self.halves = halves
        self.is_activated = is_activated
        self.weight = nn.Parameter(torch.randn(channels_out, channels_in, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(channels_out)) if is_activated or kernel > 1 else None
        self.scale = (channels_in * kernel * kernel) ** -0.5

    def forward(self, x: Tensor) -> Tensor:
        """[N I H W] -> [N O H W], or [N O H/2 W/2] where it halves."""
        kernel = self.weight * self.scale
        reach = kernel.shape[-1] // 2
        if self.halves and reach == 0:
            # Filtering and striding commute with a 1x1 convolution, which costs a quarter after them.
            out = F.conv2d(smooth(x, padding=1, stride=2), kernel, self.bias)
        elif self.halves:
            out = F.conv2d(smooth(x, padding=2), kernel, self.bias, stride=2)
        else:
            out = F.conv2d(x, kernel, self.bias, padding=reach)
        return GAIN * F.leaky_relu(out, LEAK) if self.is_activated else out


class EqualisedLinear(nn.Module):
    """Linear layer with an equalised learning rate."""

    def __init__(self, size_in: int, size_out: int, *, is_activated: bool) -> None:
        super().__init__()
        self.is_activated = is_activated
        self.weight = nn.Parameter(torch.randn(size_out, size_in))
        self.bias = nn.Parameter(torch.zeros(size_out))
        self.scale = size_in**-0.5

    def forward(self, x: Tensor) -> Tensor:
        """[N I] -> [N O]."""
        out = F.linear(x, self.weight * self.scale, self.bias)
        return GAIN * F.leaky_relu(out, LEAK) if self.is_activated else out


class DiscriminatorBlock(nn.Module):
    """Residual block that halves: [N I H W] -> [N O H/2 W/2]."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv1 = EqualisedConv(channels_in, channels_in, 3)
        self.conv2 = EqualisedConv(channels_in, channels_out, 3, halves=True)
        self.skip = EqualisedConv(channels_in, channels_out, 1, halves=True, is_activated=False)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve, halve; add the skip."""
        out: Tensor = self.conv2(self.conv1(x)) + self.skip(x)
        return out / GAIN


class StyleGan2Discriminator(nn.Module):
    """StyleGAN2's discriminator with residual blocks and the deviation of the batch as a channel."""

    def __init__(self, size: int, channel_multiplier: float = 1, narrow: float = 1, group: int = 4) -> None:
        super().__init__()
        widths = released_widths(size, channel_multiplier, narrow)
        self.group = group
        self.first = EqualisedConv(3, widths[-1], 1)
        self.blocks = nn.Sequential(
            *(DiscriminatorBlock(widths[level], widths[level - 1]) for level in range(len(widths) - 1, 0, -1))
        )
        self.final_conv = EqualisedConv(widths[0] + 1, widths[0], 3)
        self.hidden = EqualisedLinear(widths[0] * 4 * 4, widths[0], is_activated=True)
        self.logit = EqualisedLinear(widths[0], 1, is_activated=False)

    def forward(self, image: Tensor) -> Tensor:
        """Images RGB [N 3 S S] in [-1, 1] -> logits [N 1] of being real."""
        features = self.blocks(self.first(image))
        features = self.final_conv(with_batch_deviation(features, self.group))
        logit: Tensor = self.logit(self.hidden(features.flatten(1)))
        return logit


def with_batch_deviation(features: Tensor, group: int) -> Tensor:
    """Adds a channel with the mean deviation over groups of the batch: [N C H W] -> [N C+1 H W].

    Members of a group are N/group apart, as in StyleGAN2's code. A batch that `group` does not divide is one group.

    Args:
        features: The features.
        group: Images in a group, at most.
    """
    count = len(features)
    members = min(count, group)
    if count % members:
        members = count
    grouped = features.float().reshape(members, -1, *features.shape[1:])  # [G N/G C H W]
    deviation = (grouped.var(0, unbiased=False) + DEVIATION_EPSILON).sqrt().mean((1, 2, 3))  # [N/G]
    channel = deviation.repeat(members)[:, None, None, None].expand(-1, 1, *features.shape[2:])
    return torch.cat([features, channel.to(features.dtype)], dim=1)


class ComponentDiscriminator(nn.Module):
    """Local discriminator of one facial component; it also gives the features of the style loss."""

    def __init__(self, narrow: float = 1) -> None:
        super().__init__()
        widths = [int(width * narrow) for width in (64, 128, 256)]
        self.conv1 = EqualisedConv(3, widths[0], 3)
        self.conv2 = EqualisedConv(widths[0], widths[1], 3, halves=True)
        self.conv3 = EqualisedConv(widths[1], widths[1], 3)
        self.conv4 = EqualisedConv(widths[1], widths[2], 3, halves=True)
        self.conv5 = EqualisedConv(widths[2], widths[2], 3)
        self.final_conv = EqualisedConv(widths[2], 1, 3, is_activated=False)

    def forward(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Regions RGB [N 3 S S] -> logits [N 1 S/4 S/4] and the features at S/2 and S/4."""
        half = self.conv3(self.conv2(self.conv1(image)))
        quarter = self.conv5(self.conv4(half))
        return self.final_conv(quarter), [half, quarter]


class PatchDiscriminator(nn.Module):
    """Judges the texture of patches of about 30 pixels: what a small generator needs and a small budget affords."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.body = nn.Sequential(
            EqualisedConv(3, width, 3),
            EqualisedConv(width, 2 * width, 3, halves=True),
            EqualisedConv(2 * width, 4 * width, 3, halves=True),
            EqualisedConv(4 * width, 4 * width, 3),
        )
        self.final_conv = EqualisedConv(4 * width, 1, 3, is_activated=False)

    def forward(self, image: Tensor) -> Tensor:
        """Images RGB [N 3 S S] in [-1, 1] -> logits [N 1 S/4 S/4]."""
        logits: Tensor = self.final_conv(self.body(image))
        return logits
