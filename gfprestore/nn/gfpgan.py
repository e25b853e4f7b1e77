"""GFP-GAN: blind face restoration with a generative facial prior (arXiv:2101.04061, section 3, figure 2).

A U-Net removes the degradation and gives a latent code and spatial features; a StyleGAN2 decoder turns the code into a
face; channel-split spatial feature transforms (CS-SFT) hold its features to the input. State dicts are those of the
released clean weights v1.2 to v1.4, key for key but for `FIR_MARK`; `gfprestore.nn.weights` reads them and the v1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gfprestore.nn.layers import DownBlock, StyledConvolution, ToRgb, UpBlock, set_normal
from gfprestore.nn.shape import FIR_MARK, LEAK, GfpganShape, Resampling, Sft

CODE_EPSILON = 1e-8
"""Added under the root where a random code is normalised, as in StyleGAN2's own code."""


class StyleGan2Decoder(nn.Module):
    """StyleGAN2's synthesis network with a place for modulations of its features."""

    def __init__(self, shape: GfpganShape) -> None:
        super().__init__()
        widths, latent, resampling = shape.decoder_widths, shape.latent_size, shape.resampling
        mlp: list[nn.Module] = [nn.Identity()]  # the released keys count a parameterless normalisation as layer 0
        for _ in range(shape.mlp_layers):
            layer = nn.Linear(latent, latent)
            # StyleGAN2 keeps the code's size through every layer; torch's own start loses five sixths of its square.
            set_normal(layer.weight, std=(2 / latent) ** 0.5)
            nn.init.zeros_(layer.bias)
            mlp += [layer, nn.LeakyReLU(LEAK)]
        self.style_mlp = nn.Sequential(*mlp)
        self.constant_input = ConstantInput(widths[0])
        self.style_conv1 = StyledConvolution(widths[0], widths[0], latent)
        self.to_rgb1 = ToRgb(widths[0], latent)
        self.style_convs = nn.ModuleList()
        self.to_rgbs = nn.ModuleList()
        self.noises = nn.Module()
        self.noises.register_buffer("noise0", set_normal(torch.empty(1, 1, 4, 4)))
        for level in range(1, len(widths)):
            self.style_convs.append(StyledConvolution(widths[level - 1], widths[level], latent, resampling))
            self.style_convs.append(StyledConvolution(widths[level], widths[level], latent))
            self.to_rgbs.append(ToRgb(widths[level], latent, resampling))
            for index in (2 * level - 1, 2 * level):
                side = 4 * 2**level
                self.noises.register_buffer(f"noise{index}", set_normal(torch.empty(1, 1, side, side)))

    def map_noise(self, z: Tensor) -> Tensor:
        """The prior's own mapping: random [N L] -> latent codes w [N L]. Only pretraining the prior needs it."""
        code: Tensor = self.style_mlp(z * torch.rsqrt(z.square().mean(1, keepdim=True) + CODE_EPSILON))
        return code

    def stored_noise(self) -> list[Tensor]:
        """The noise maps that came with the weights, [1 1 S S], one for every styled convolution."""
        return [self.noises.get_buffer(f"noise{index}") for index in range(len(self.style_convs) + 1)]

    def forward(
        self,
        codes: Tensor,
        modulations: Sequence[tuple[Tensor, Tensor]] = (),
        noise: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Synthesise images.

        Args:
            codes: Latent codes [N K L], K two per size.
            modulations: Scale and shift (alpha, beta) [N C S S] for the features at 8, 16, ... pixels, with all their
                channels or the second half of them; empty leaves the features alone.
            noise: Maps [1 1 S S] or [N 1 S S], one for every styled convolution; None takes the stored ones.

        Returns:
            Images [N 3 S S] around [-1, 1].
        """
        noise = self.stored_noise() if noise is None else noise
        features = self.constant_input.weight.expand(codes.shape[0], -1, -1, -1)  # [N C 4 4]
        features = self.style_conv1(features, codes[:, 0], noise[0])
        image: Tensor = self.to_rgb1(features, codes[:, 1])
        for level, to_rgb in enumerate(self.to_rgbs):
            first = 2 * level + 1
            features = self.style_convs[2 * level](features, codes[:, first], noise[first])
            if modulations:
                features = transform_features(features, *modulations[level])
            features = self.style_convs[2 * level + 1](features, codes[:, first + 1], noise[first + 1])
            image = to_rgb(features, codes[:, first + 2], image)
        return image


class ConstantInput(nn.Module):
    """The learned 4x4 features that every synthesis starts from."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(set_normal(torch.empty(1, channels, 4, 4)))


def transform_features(features: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Spatial feature transform of the last channels, as many as `scale` has (section 3.4, equation 3).

    `F_out = Concat[ F^0, alpha * F^1 + beta ]`; with as many channels in alpha as in F there is no F^0.
    """
    kept = features.shape[1] - scale.shape[1]
    modulated = features[:, kept:] * scale + shift
    return torch.cat([features[:, :kept], modulated], dim=1) if kept else modulated


class Gfpgan(nn.Module):
    """Degradation removal, latent code mapping, facial prior and CS-SFT in one network."""

    def __init__(self, shape: GfpganShape) -> None:
        super().__init__()
        self.shape = shape
        if shape.resampling is Resampling.FIR:
            self.register_buffer(FIR_MARK, torch.ones(1))
        widths = shape.unet_widths
        levels = range(1, len(widths))
        # Degradation removal: down from the image to 4 pixels, and up again.
        self.conv_body_first = nn.Conv2d(3, widths[-1], 1)
        self.conv_body_down = nn.ModuleList(
            DownBlock(widths[level], widths[level - 1], shape.resampling) for level in reversed(levels)
        )
        self.final_conv = nn.Conv2d(widths[0], widths[0], 3, padding=1)
        self.conv_body_up = nn.ModuleList(
            UpBlock(widths[level - 1], widths[level], shape.resampling) for level in levels
        )
        # Pyramid restoration loss: an image from every size on the way up.
        self.toRGB = nn.ModuleList(nn.Conv2d(widths[level], 3, 1) for level in levels)
        # Latent code mapping.
        codes = shape.code_count if shape.many_codes else 1
        self.final_linear = nn.Linear(widths[0] * 4 * 4, codes * shape.latent_size)
        # Generative facial prior.
        self.stylegan_decoder = StyleGan2Decoder(shape)
        # CS-SFT.
        modulated = [] if shape.sft is Sft.NONE else [(widths[level], shape.modulated(level)) for level in levels]
        self.condition_scale = nn.ModuleList(_condition(*channels) for channels in modulated)
        self.condition_shift = nn.ModuleList(_condition(*channels) for channels in modulated)

    def forward(
        self, x: Tensor, *, return_pyramid: bool = False, noise: Sequence[Tensor] | None = None
    ) -> Tensor | tuple[Tensor, list[Tensor], Tensor]:
        """Restore faces.

        Args:
            x: Aligned faces, RGB [N 3 S S] in [-1, 1], S the `out_size`.
            return_pyramid: Also give what the pyramid loss needs.
            noise: Noise maps for the decoder; None takes the stored ones, so that a face always gives the same result.

        Returns:
            Restored faces [N 3 S S] around [-1, 1]; with `return_pyramid` a triple of them, the U-Net's images
            [N 3 s s] at 8, 16, ... S pixels, and the latent codes [N K L].
        """
        bottleneck, spatial = self.remove_degradation(x)
        codes = self.map_latent(bottleneck)
        image: Tensor = self.stylegan_decoder(codes, self.modulations(spatial), noise)
        if not return_pyramid:
            return image
        return image, [to_rgb(features) for to_rgb, features in zip(self.toRGB, spatial, strict=True)], codes

    def remove_degradation(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Section 3.2: faces [N 3 S S] -> F_latent [N C 4 4] and F_spatial, [N C s s] at 8, 16, ... S pixels."""
        features = F.leaky_relu(self.conv_body_first(x), LEAK)
        skips = []
        for down in self.conv_body_down:
            features = down(features)
            skips.append(features)
        bottleneck = features = F.leaky_relu(self.final_conv(features), LEAK)
        spatial = []
        for up, skip in zip(self.conv_body_up, reversed(skips), strict=True):
            features = up(features + skip)
            spatial.append(features)
        return bottleneck, spatial

    def map_latent(self, bottleneck: Tensor) -> Tensor:
        """Section 3.3: F_latent [N C 4 4] -> latent codes W [N K L], one for every layer of the decoder."""
        codes: Tensor = self.final_linear(bottleneck.flatten(1)).unflatten(1, (-1, self.shape.latent_size))  # [N K L]
        return codes if self.shape.many_codes else codes.expand(-1, self.shape.code_count, -1)

    def modulations(self, spatial: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Section 3.4, equation 2: F_spatial -> (alpha, beta) at every size; empty where the network has no SFT."""
        pairs = zip(self.condition_scale, self.condition_shift, spatial, strict=False)
        return [(scale(features), shift(features)) for scale, shift, features in pairs]


def _condition(channels_in: int, channels_out: int) -> nn.Sequential:
    """Two convolutions from the U-Net's features to a scale or a shift."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_in, 3, padding=1),
        nn.LeakyReLU(LEAK),
        nn.Conv2d(channels_in, channels_out, 3, padding=1),
    )
