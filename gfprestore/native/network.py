"""GFP-GAN as a program for the compiled kernels: `gfprestore.nn.gfpgan`, step for step.

What joins steps: a convolution's input is scaled, and where wanted doubled, while its tiles are read; gain, noise,
bias, leaky ReLU, feature transform, skip and halving are done while its results are written.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gfprestore.native.layout import BLOCK, BORDER_PLACES, NOTHING, Layout, arrange, arrange_kernel, arrange_matrix
from gfprestore.native.levels import Level, find_levels
from gfprestore.native.operands import Array, Buffer, Epilogue, Features, Flag, Kind
from gfprestore.native.program import SMALLEST_TILED, ProgramBuilder
from gfprestore.nn.gfpgan import Gfpgan, GfpganShape
from gfprestore.nn.layers import LEAK, DownBlock, ModulatedConvolution, Resampling, StyledConvolution, ToRgb, UpBlock

HALF_RANGE = 127.5
"""Pixels 0 to 255 are -1 to 1 for the network: `pixel / 127.5 - 1`."""

ACTIVATED = Epilogue(slope=LEAK)
"""What follows nearly every convolution, beside its bias."""

LONGEST_SUM = 64
"""Floats that a sum over channels takes at a time: four of the longest vectors."""

RGB = 4
"""Floats of a pixel of the image: three colours and one of no meaning, so that a pixel is a power of two."""


def fits(shape: GfpganShape) -> bool:
    """Whether the kernels take a network."""
    return (
        shape.resampling is Resampling.BILINEAR
        and shape.latent_size % LONGEST_SUM == 0
        and shape.out_size >= 4 * SMALLEST_TILED
    )


class NetworkWriter:
    """Writes one network."""

    def __init__(self, network: Gfpgan, builder: ProgramBuilder) -> None:
        self.network = network
        self.builder = builder
        self.levels = find_levels(network.shape, builder.library.lanes)
        layouts = [layout for level in self.levels for layout in (level.unet, level.hidden, level.decoder)]
        self.rounds = not any(layout.has_blocks for layout in layouts)
        """Whether features may be kept in bfloat16, which the steps of blocks do not know."""

    def write(self) -> tuple[Buffer, Features, Buffer]:
        """The whole network: where the face goes, the image, and where its pixels are found."""
        size = self.network.shape.out_size
        face = self.builder.buffer(size * size * 3)
        bottleneck, spatial = self.remove_degradation(face)
        image = self.decode(self.map_latent(bottleneck), self.modulations(spatial))
        restored = self.builder.buffer(size * size * 3)
        self.builder.add(Kind.TO_PIXELS, restored, x=image, height=size, width=size)
        restored.last = len(self.builder.steps)
        return face, image, restored

    def remove_degradation(self, face: Buffer) -> tuple[Features, list[Features]]:
        """Down from the face to 4 pixels, and up again."""
        network, layouts = self.network, [level.unet for level in self.levels]
        features = self.from_pixels(face, network.conv_body_first, layouts[-1])
        skips = []
        for down, into, out in zip(network.conv_body_down, layouts[:0:-1], layouts[-2::-1], strict=True):
            assert isinstance(down, DownBlock)
            features = self.down(down, features, into, out)
            skips.append(features)
        features = self.convolve(features, network.final_conv, layouts[0], layouts[0], after=ACTIVATED)
        bottleneck, spatial = features, []
        for up, skip, into, out in zip(network.conv_body_up, reversed(skips), layouts[:-1], layouts[1:], strict=True):
            assert isinstance(up, UpBlock)
            features = self.up(up, self.builder.sum(features, skip), into, out)
            spatial.append(features)
        return bottleneck, spatial

    def from_pixels(self, face: Buffer, layer: nn.Conv2d, layout: Layout) -> Features:
        """The first 1x1 convolution; it takes the pixels' range into its weights."""
        size = self.network.shape.out_size
        kernel = layer.weight.flatten(1)  # [O 3]
        assert layer.bias is not None
        weight, bias = kernel / HALF_RANGE, layer.bias - kernel.sum(1)
        if not layout.has_blocks:
            weight, bias = arrange(weight, layout), arrange(bias, layout)
        side = size // 2 if layout.has_blocks else size
        y = self.builder.features((side, side), len(layout.channels))
        kind = Kind.PIXELS_TO_BLOCKS if layout.has_blocks else Kind.FROM_PIXELS
        self.builder.add(kind, y, x=face, weight=_array(weight.T), bias=_array(bias), slope=LEAK)
        return y

    def convolve(
        self,
        x: Features,
        layer: nn.Module,
        into: Layout,
        out: Layout,
        *,
        after: Epilogue | None = None,
        nothing: float = 0.0,
        halves: bool = False,
        rounds: bool = False,
    ) -> Features:
        """A 3x3 convolution and its bias; `nothing` is what stands in channels without weights."""
        assert isinstance(layer, nn.Conv2d)
        assert layer.bias is not None
        after = replace(after or Epilogue(), bias=_array(arrange(layer.bias, out, other=nothing)))
        return self.builder.convolve(x, arrange_kernel(layer.weight, out, into), after, halves=halves, rounds=rounds)

    def down(self, block: DownBlock, x: Features, into: Layout, out: Layout) -> Features:
        """`DownBlock.forward`."""
        halves = not into.has_blocks
        features = self.convolve(x, block.conv1, into, into, after=ACTIVATED, halves=halves)
        skip = self.builder.resample(Kind.HALVE, x) if halves else x
        skip = self.builder.multiply(skip, arrange_matrix(block.skip.weight.flatten(1), out, into), Epilogue())
        return self.convolve(features, block.conv2, into, out, after=replace(ACTIVATED, residual=skip))

    def up(self, block: UpBlock, x: Features, into: Layout, out: Layout) -> Features:
        """`UpBlock.forward`."""
        features = self.convolve(x, block.conv1, into, into, after=ACTIVATED)
        assert block.conv2.bias is not None
        if out.has_blocks:
            centre = F.pad(block.skip.weight, (1, 1, 1, 1))  # [O I 1 1] -> [O I 3 3]
            skip = self.builder.convolve(x, arrange_kernel(centre, out, into), Epilogue(), clamps=True)
        else:
            skip = self.builder.multiply(x, arrange_matrix(block.skip.weight.flatten(1), out, into), Epilogue())
        after = replace(ACTIVATED, bias=_array(arrange(block.conv2.bias, out)), residual=skip)
        return self.convolve_doubled(features, block.conv2.weight, into, out, after)

    def convolve_doubled(
        self,
        x: Features,
        weight: Tensor,
        into: Layout,
        out: Layout,
        after: Epilogue,
        style: Features | None = None,
    ) -> Features:
        """A 3x3 convolution of the bilinear double, given as pixels or as blocks."""
        if not out.has_blocks:
            kernel = arrange_kernel(weight, out, into)
            rounds = self.rounds and style is not None
            return self.builder.convolve(x, kernel, after, style=style, wider=Flag.DOUBLES_INPUT, rounds=rounds)
        y = self.builder.convolve(x, arrange_kernel(weight, out, into), after, style=style, clamps=True)
        places = [arrange_kernel(weight, out, into, row=row, column=column) for row, column in BORDER_PLACES]
        self.builder.mend_border(x, y, torch.stack(places), after, style=style)
        return y

    def map_latent(self, bottleneck: Features) -> list[Features]:
        """Latent codes, one for every layer of the decoder."""
        shape, layer = self.network.shape, self.network.final_linear
        # The layer reads channels, rows, columns; features have their channels innermost.
        weight = layer.weight.reshape(-1, shape.unet_widths[0], 16).permute(1, 2, 0)  # [C 16 O]
        weight = arrange(weight, self.levels[0].unet).permute(2, 1, 0).flatten(1)  # [O 16C]
        codes = self.builder.linear(bottleneck, weight, layer.bias)
        count = shape.code_count if shape.many_codes else 1
        parts = [codes.part(index * shape.latent_size, shape.latent_size) for index in range(count)]
        return parts if shape.many_codes else parts * shape.code_count

    def modulations(self, spatial: list[Features]) -> list[tuple[Features, Features]]:
        """Scale and shift at every size; the first convolutions of both read their features together."""
        network, pairs = self.network, []
        for scale, shift, features, level in zip(
            network.condition_scale, network.condition_shift, spatial, self.levels[1:], strict=False
        ):
            assert isinstance(scale, nn.Sequential)
            assert isinstance(shift, nn.Sequential)
            weight, bias = (
                torch.cat([getattr(scale[0], name), getattr(shift[0], name)]) for name in ("weight", "bias")
            )
            after = replace(ACTIVATED, bias=_array(arrange(bias, level.hidden)))
            kernel = arrange_kernel(weight, level.hidden, level.unet)
            both = self.builder.convolve(features, kernel, after, rounds=self.rounds)
            first, second = (self.condition(both, layer[2], level, which) for which, layer in enumerate((scale, shift)))
            pairs.append((first, second))
        return pairs

    def condition(self, both: Features, layer: nn.Module, level: Level, which: int) -> Features:
        """Scale (0) or shift (1); channels that are left alone are scaled by one."""
        start, into = level.condition(which)
        part = both.part(start, len(into.channels))
        nothing = 1.0 if which == 0 else 0.0
        return self.convolve(part, layer, into, level.transform, nothing=nothing, rounds=self.rounds)

    def decode(self, codes: list[Features], modulations: list[tuple[Features, Features]]) -> Features:
        """`StyleGan2Decoder.forward`."""
        decoder, levels = self.network.stylegan_decoder, self.levels
        noise = decoder.stored_noise()
        into = levels[0].decoder
        constant = _array(arrange(decoder.constant_input.weight[0], into).permute(1, 2, 0))  # [C 4 4] -> [4 4 C]
        features = self.styled(decoder.style_conv1, constant, codes[0], noise[0], into, levels[0])
        style = self.style(decoder.to_rgb1.modulated_conv, codes[1], into)
        image = self.to_rgb(decoder.to_rgb1, features, style, None, levels[0])
        for index, to_rgb in enumerate(decoder.to_rgbs):
            assert isinstance(to_rgb, ToRgb)
            first, level = 2 * index + 1, levels[index + 1]
            pair = modulations[index] if modulations else None
            double, same = decoder.style_convs[2 * index], decoder.style_convs[2 * index + 1]
            features = self.styled(double, features, codes[first], noise[first], into, level, pair)
            into = level.decoder
            # Before the features, from which the last colours are taken while they are made.
            style, is_last = self.style(to_rgb.modulated_conv, codes[first + 2], into), level is levels[-1]
            features = self.styled(same, features, codes[first + 1], noise[first + 1], into, level, is_last=is_last)
            image = self.to_rgb(to_rgb, features, style, image, level)
        return image

    def styled(
        self,
        layer: nn.Module,
        x: Features | Array,
        code: Features,
        noise: Tensor,
        into: Layout,
        level: Level,
        modulation: tuple[Features, Features] | None = None,
        *,
        is_last: bool = False,
    ) -> Features:
        """`StyledConvolution.forward` and the feature transform; after the last one only colours are left to do."""
        assert isinstance(layer, StyledConvolution)
        weight, out = layer.modulated_conv.weight[0], level.decoder  # [O I K K]
        style = self.style(layer.modulated_conv, code, into)
        energy = arrange(weight.square().sum((2, 3)), out)  # [O I]
        gain = self.builder.inverse_norm(style, arrange(energy.T, _summed(into)).T)
        after = replace(ACTIVATED, gain=gain, bias=_array(arrange(layer.bias.flatten(), out)))
        after.noise, after.stride_noise = self.noise(layer.weight * noise, level)
        after.scale, after.shift = modulation or (None, None)
        if layer.upsampling is not None:
            assert isinstance(x, Features)
            return self.convolve_doubled(x, weight, into, out, after, style)
        kernel, for_colours = arrange_kernel(weight, out, into), is_last and not out.has_blocks
        return self.builder.convolve(x, kernel, after, style=style, rounds=self.rounds, for_colours=for_colours)

    def style(self, convolution: ModulatedConvolution, code: Features, into: Layout) -> Features:
        """Factors of what a modulated convolution reads."""
        layout = into.filled(LONGEST_SUM)  # which the gain's sums take
        layer = convolution.modulation
        return self.builder.linear(code, arrange(layer.weight, layout), arrange(layer.bias, layout))

    def noise(self, noise: Tensor, level: Level) -> tuple[Array, int]:
        """Noise [1 1 S S] as it is added, and its values for every stored pixel."""
        if not level.decoder.has_blocks:
            return _array(noise), 0
        side = noise.shape[-1] // 2
        each = len(level.decoder.places) // level.groups
        pixels = noise.reshape(side, 2, side, 2).transpose(1, 2).reshape(-1, BLOCK)  # [S S] -> [S/2 S/2 2 2] -> [B 4]
        return _array(pixels[:, torch.tensor(level.decoder.places[:each])]), each

    def to_rgb(self, layer: ToRgb, x: Features, style: Features, image: Features | None, level: Level) -> Features:
        """`ToRgb.forward`, the style being that of its convolution."""
        layout, weight, bias = level.decoder, layer.modulated_conv.weight[0].flatten(1), layer.bias
        operands: dict[str, Any] = {"x": x, "style": style, "residual": image, "channels_in": x.channels}
        if not layout.has_blocks:
            y = self.builder.features(x.size, RGB)
            operands["flags"] = int(Flag.ROUNDED_INPUT) * x.rounded
            self.builder.add(Kind.TO_RGB, y, weight=_array(arrange(weight.T, layout).T), bias=_array(bias), **operands)
            return y
        y = self.builder.features((2 * x.height, 2 * x.width), RGB)
        operands["weight"] = _array(F.pad(weight.T, (0, RGB - 3)))  # [I RGB]
        operands["bias"] = _array(F.pad(bias.flatten(), (0, RGB - 3)))
        self.builder.add(Kind.BLOCKS_TO_RGB, y, depth=len(layout.places) // BLOCK // level.groups, **operands)
        return y


def _summed(layout: Layout) -> Layout:
    """Where a sum over the network's channels finds each of them once."""
    if layout.has_blocks:
        pairs = zip(layout.channels, layout.places, strict=True)
        layout = Layout(tuple(NOTHING if place else channel for channel, place in pairs))
    return layout.filled(LONGEST_SUM)


def _array(tensor: Tensor) -> Array:
    return np.ascontiguousarray(tensor.detach().numpy())
