"""Everything that fixes the layers of a GFP-GAN but their weights, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

LEAK = 0.2
"""Slope of every leaky ReLU below zero."""

FIR_MARK = "has_fir_resampling"
"""Entry of a clean state dict, one value, that says that its network resamples with StyleGAN2's filter: no shape tells.
The released clean weights, which are bilinear, have none."""


class Resampling(Enum):
    """How a network doubles and halves its features."""

    BILINEAR = "bilinear"
    """The clean architecture: bilinear with repeated borders (released v1.2 to v1.4)."""

    FIR = "fir"
    """The paper's: StyleGAN2's filter [1, 3, 3, 1], zero beyond the border (released v1)."""


class Sft(Enum):
    """Which channels of the decoder's features the spatial feature transform reaches (section 3.4, table 4)."""

    HALF = "half"
    """CS-SFT: one half keeps the prior's features, the other is modulated."""

    FULL = "full"
    """Plain SFT on all channels."""

    NONE = "none"
    """The decoder sees the input only through its latent codes."""


@dataclass(frozen=True)
class GfpganShape:
    """Everything that fixes the network's tensors."""

    decoder_widths: tuple[int, ...]
    """Channels of the StyleGAN2 decoder at 4, 8, ... pixels; the last is the output's size."""

    unet_widths: tuple[int, ...]
    """Channels of the U-Net at the same sizes."""

    latent_size: int = 512
    """Values in one latent code."""

    mlp_layers: int = 8
    """Layers of the prior's own mapping network, which restoration does not run."""

    sft: Sft = Sft.HALF
    """Which channels are modulated by the input."""

    many_codes: bool = True
    """A latent code for every layer of the decoder (W+); False gives all layers the same one."""

    resampling: Resampling = Resampling.BILINEAR
    """The clean architecture's or the paper's."""

    @property
    def out_size(self) -> int:
        """Side of the image in pixels."""
        return int(4 * 2 ** (len(self.decoder_widths) - 1))

    @property
    def code_count(self) -> int:
        """Latent codes that the decoder takes: two per size."""
        return 2 * len(self.decoder_widths)

    @property
    def narrow(self) -> float:
        """Width in terms of the released networks', which have 512 channels at 4 pixels."""
        return self.decoder_widths[0] / 512

    @property
    def channel_multiplier(self) -> float:
        """Width from 64 pixels up in terms of the paper's network; 1 where there is no such size."""
        if len(self.decoder_widths) < 5:
            return 1.0
        return self.decoder_widths[4] / (256 * self.narrow)

    def modulated(self, level: int) -> int:
        """Channels of the decoder that the feature transform reaches at one size."""
        if self.sft is Sft.NONE:
            return 0
        width = self.decoder_widths[level]
        return width - width // 2 if self.sft is Sft.HALF else width
