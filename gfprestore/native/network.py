"""GFP-GAN as a program for the compiled kernels: `gfprestore.nn.gfpgan`, step for step.

What joins steps: a convolution's input is scaled, and where wanted doubled, while its tiles are read; gain, noise,
bias, leaky ReLU, feature transform, skip and halving are done while its results are written.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from gfprestore.native.layout import BLOCK, BORDER_PLACES, NOTHING, Layout, arrange, arrange_kernel, arrange_matrix
from gfprestore.native.levels import Level, find_levels
from gfprestore.native.operands import Array, Buffer, Epilogue, Features, Flag, Floats, Kind
from gfprestore.native.program import SMALLEST_TILED, ProgramBuilder
from gfprestore.nn.shape import LEAK, GfpganShape, Resampling, Sft
from gfprestore.nn.weights import GfpganWeights

HALF_RANGE = 127.5
"""Pixels 0 to 255 are -1 to 1 for the network: `pixel / 127.5 - 1`."""

ACTIVATED = Epilogue(slope=LEAK)
"""What follows nearly every convolution, beside its bias."""

LONGEST_SUM = 64
"""Floats that a sum over channels takes at a time: four of the longest vectors."""

DECODER = "stylegan_decoder"
"""What the names of the decoder's entries begin with."""

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

    def __init__(self, weights: GfpganWeights, builder: ProgramBuilder) -> None:
        self.shape = weights.shape
        self.arrays = weights.arrays
        self.builder = builder
        self.levels = find_levels(weights.shape, builder.library.lanes)
        layouts = [layout for level in self.levels for layout in (level.unet, level.hidden, level.decoder)]
        self.rounds = not any(layout.has_blocks for layout in layouts)
        """Whether features may be kept in bfloat16, which the steps of blocks do not know."""

    def write(self) -> tuple[Buffer, Features, Buffer]:
        """The whole network: where the face goes, the image, and where its pixels are found."""
        size = self.shape.out_size
        face = self.builder.buffer(size * size * 3)
        bottleneck, spatial = self.remove_degradation(face)
        image = self.decode(self.map_latent(bottleneck), self.modulations(spatial))
        restored = self.builder.buffer(size * size * 3)
        self.builder.add(Kind.TO_PIXELS, restored, x=image, height=size, width=size)
        restored.last = len(self.builder.steps)
        return face, image, restored

    def remove_degradation(self, face: Buffer) -> tuple[Features, list[Features]]:
        """Down from the face to 4 pixels, and up again."""
        layouts = [level.unet for level in self.levels]
        features = self.from_pixels(face, layouts[-1])
        skips = []
        for index, (into, out) in enumerate(zip(layouts[:0:-1], layouts[-2::-1], strict=True)):
            features = self.down(f"conv_body_down.{index}", features, into, out)
            skips.append(features)
        features = self.convolve(features, "final_conv", layouts[0], layouts[0], after=ACTIVATED)
        bottleneck, spatial = features, []
        for index, (skip, into, out) in enumerate(zip(reversed(skips), layouts[:-1], layouts[1:], strict=True)):
            features = self.up(f"conv_body_up.{index}", self.builder.sum(features, skip), into, out)
            spatial.append(features)
        return bottleneck, spatial

    def from_pixels(self, face: Buffer, layout: Layout) -> Features:
        """The first 1x1 convolution; it takes the pixels' range into its weights."""
        kernel = self.matrix("conv_body_first.weight")  # [O 3]
        weight, bias = kernel / np.float32(HALF_RANGE), self.arrays["conv_body_first.bias"] - kernel.sum(1)
        if not layout.has_blocks:
            weight, bias = arrange(weight, layout), arrange(bias, layout)
        side = self.shape.out_size // 2 if layout.has_blocks else self.shape.out_size
        y = self.builder.features((side, side), len(layout.channels))
        kind = Kind.PIXELS_TO_BLOCKS if layout.has_blocks else Kind.FROM_PIXELS
        self.builder.add(kind, y, x=face, weight=_array(weight.T), bias=_array(bias), slope=LEAK)
        return y

    def matrix(self, name: str) -> Floats:
        """A 1x1 convolution [O I 1 1] as [O I], a modulated one without its first axis."""
        array = self.arrays[name]
        return array.reshape(array.shape[-4:-2])

    def convolve(
        self,
        x: Features,
        name: str,
        into: Layout,
        out: Layout,
        *,
        after: Epilogue | None = None,
        nothing: float = 0.0,
        halves: bool = False,
        rounds: bool = False,
    ) -> Features:
        """A 3x3 convolution and its bias; `nothing` is what stands in channels without weights."""
        weight, bias = self.arrays[f"{name}.weight"], self.arrays[f"{name}.bias"]
        after = replace(after or Epilogue(), bias=_array(arrange(bias, out, other=nothing)))
        return self.builder.convolve(x, arrange_kernel(weight, out, into), after, halves=halves, rounds=rounds)

    def down(self, name: str, x: Features, into: Layout, out: Layout) -> Features:
        """`DownBlock.forward`."""
        halves = not into.has_blocks
        features = self.convolve(x, f"{name}.conv1", into, into, after=ACTIVATED, halves=halves)
        skip = self.builder.resample(Kind.HALVE, x) if halves else x
        skip = self.builder.multiply(skip, arrange_matrix(self.matrix(f"{name}.skip.weight"), out, into), Epilogue())
        return self.convolve(features, f"{name}.conv2", into, out, after=replace(ACTIVATED, residual=skip))

    def up(self, name: str, x: Features, into: Layout, out: Layout) -> Features:
        """`UpBlock.forward`."""
        features = self.convolve(x, f"{name}.conv1", into, into, after=ACTIVATED)
        if out.has_blocks:
            # [O I 1 1] -> [O I 3 3]
            centre = np.pad(self.arrays[f"{name}.skip.weight"], ((0, 0), (0, 0), (1, 1), (1, 1)))
            skip = self.builder.convolve(x, arrange_kernel(centre, out, into), Epilogue(), clamps=True)
        else:
            skip = self.builder.multiply(x, arrange_matrix(self.matrix(f"{name}.skip.weight"), out, into), Epilogue())
        weight, bias = self.arrays[f"{name}.conv2.weight"], self.arrays[f"{name}.conv2.bias"]
        after = replace(ACTIVATED, bias=_array(arrange(bias, out)), residual=skip)
        return self.convolve_doubled(features, weight, into, out, after)

    def convolve_doubled(
        self,
        x: Features,
        weight: Floats,
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
        self.builder.mend_border(x, y, np.stack(places), after, style=style)
        return y

    def map_latent(self, bottleneck: Features) -> list[Features]:
        """Latent codes, one for every layer of the decoder."""
        shape = self.shape
        # The layer reads channels, rows, columns; features have their channels innermost.
        weight = self.arrays["final_linear.weight"].reshape(-1, shape.unet_widths[0], 16).transpose(1, 2, 0)  # [C 16 O]
        weight = arrange(weight, self.levels[0].unet).transpose(2, 1, 0)  # [O 16 C]
        codes = self.builder.linear(bottleneck, weight.reshape(len(weight), -1), self.arrays["final_linear.bias"])
        count = shape.code_count if shape.many_codes else 1
        parts = [codes.part(index * shape.latent_size, shape.latent_size) for index in range(count)]
        return parts if shape.many_codes else parts * shape.code_count

    def modulations(self, spatial: list[Features]) -> list[tuple[Features, Features]]:
        """Scale and shift at every size; the first convolutions of both read their features together."""
        if self.shape.sft is Sft.NONE:
            return []
        pairs = []
        for index, (features, level) in enumerate(zip(spatial, self.levels[1:], strict=True)):
            names = [f"condition_{kind}.{index}" for kind in ("scale", "shift")]
            weight, bias = (
                np.concatenate([self.arrays[f"{name}.0.{part}"] for name in names]) for part in ("weight", "bias")
            )
            after = replace(ACTIVATED, bias=_array(arrange(bias, level.hidden)))
            kernel = arrange_kernel(weight, level.hidden, level.unet)
            both = self.builder.convolve(features, kernel, after, rounds=self.rounds)
            first, second = (self.condition(both, f"{name}.2", level, which) for which, name in enumerate(names))
            pairs.append((first, second))
        return pairs

    def condition(self, both: Features, name: str, level: Level, which: int) -> Features:
        """Scale (0) or shift (1); channels that are left alone are scaled by one."""
        start, into = level.condition(which)
        part = both.part(start, len(into.channels))
        nothing = 1.0 if which == 0 else 0.0
        return self.convolve(part, name, into, level.transform, nothing=nothing, rounds=self.rounds)

    def decode(self, codes: list[Features], modulations: list[tuple[Features, Features]]) -> Features:
        """`StyleGan2Decoder.forward`."""
        levels, into = self.levels, self.levels[0].decoder
        constant = self.arrays[f"{DECODER}.constant_input.weight"][0]  # [C 4 4]
        first = _array(arrange(constant, into).transpose(1, 2, 0))  # [4 4 C]
        features = self.styled("style_conv1", first, codes[0], 0, into, levels[0])
        image = self.to_rgb("to_rgb1", features, self.style("to_rgb1", codes[1], into), None, levels[0])
        for index, level in enumerate(levels[1:]):
            code, pair = 2 * index + 1, modulations[index] if modulations else None
            double, same, to_rgb = f"style_convs.{2 * index}", f"style_convs.{2 * index + 1}", f"to_rgbs.{index}"
            features = self.styled(double, features, codes[code], code, into, level, pair, doubles=True)
            into = level.decoder
            # Before the features, from which the last colours are taken while they are made.
            style, is_last = self.style(to_rgb, codes[code + 2], into), level is levels[-1]
            features = self.styled(same, features, codes[code + 1], code + 1, into, level, is_last=is_last)
            image = self.to_rgb(to_rgb, features, style, image, level)
        return image

    def styled(
        self,
        name: str,
        x: Features | Array,
        code: Features,
        noise: int,
        into: Layout,
        level: Level,
        modulation: tuple[Features, Features] | None = None,
        *,
        doubles: bool = False,
        is_last: bool = False,
    ) -> Features:
        """`StyledConvolution.forward` and the feature transform; after the last one only colours are left to do."""
        weight, out = self.arrays[f"{DECODER}.{name}.modulated_conv.weight"][0], level.decoder  # [O I K K]
        style = self.style(name, code, into)
        energy = arrange(np.einsum("oiyx,oiyx->oi", weight, weight), out)  # [O I]
        gain = self.builder.inverse_norm(style, arrange(energy.T, _summed(into)).T)
        bias = self.arrays[f"{DECODER}.{name}.bias"].ravel()
        after = replace(ACTIVATED, gain=gain, bias=_array(arrange(bias, out)))
        strength, values = self.arrays[f"{DECODER}.{name}.weight"], self.arrays[f"{DECODER}.noises.noise{noise}"]
        after.noise, after.stride_noise = self.noise(strength * values, level)
        after.scale, after.shift = modulation or (None, None)
        if doubles:
            assert isinstance(x, Features)
            return self.convolve_doubled(x, weight, into, out, after, style)
        kernel, for_colours = arrange_kernel(weight, out, into), is_last and not out.has_blocks
        return self.builder.convolve(x, kernel, after, style=style, rounds=self.rounds, for_colours=for_colours)

    def style(self, name: str, code: Features, into: Layout) -> Features:
        """Factors of what a modulated convolution reads."""
        layout = into.filled(LONGEST_SUM)  # which the gain's sums take
        layer = f"{DECODER}.{name}.modulated_conv.modulation"
        weight, bias = self.arrays[f"{layer}.weight"], self.arrays[f"{layer}.bias"]
        return self.builder.linear(code, arrange(weight, layout), arrange(bias, layout))

    def noise(self, noise: Floats, level: Level) -> tuple[Array, int]:
        """Noise [1 1 S S] as it is added, and its values for every stored pixel."""
        if not level.decoder.has_blocks:
            return _array(noise), 0
        side = noise.shape[-1] // 2
        each = len(level.decoder.places) // level.groups
        pixels = noise.reshape(side, 2, side, 2).swapaxes(1, 2).reshape(-1, BLOCK)  # [S S] -> [S/2 S/2 2 2] -> [B 4]
        return _array(pixels[:, level.decoder.places[:each]]), each

    def to_rgb(self, name: str, x: Features, style: Features, image: Features | None, level: Level) -> Features:
        """`ToRgb.forward`, the style being that of its convolution."""
        layout, weight = level.decoder, self.matrix(f"{DECODER}.{name}.modulated_conv.weight")  # [RGB I]
        bias = self.arrays[f"{DECODER}.{name}.bias"].ravel()
        operands: dict[str, Any] = {"x": x, "style": style, "residual": image, "channels_in": x.channels}
        if not layout.has_blocks:
            y = self.builder.features(x.size, RGB)
            operands["flags"] = int(Flag.ROUNDED_INPUT) * x.rounded
            self.builder.add(Kind.TO_RGB, y, weight=_array(arrange(weight.T, layout).T), bias=_array(bias), **operands)
            return y
        y = self.builder.features((2 * x.height, 2 * x.width), RGB)
        operands["weight"] = _array(np.pad(weight.T, ((0, 0), (0, RGB - 3))))  # [I RGB]
        operands["bias"] = np.pad(bias, (0, RGB - 3))
        self.builder.add(Kind.BLOCKS_TO_RGB, y, depth=len(layout.places) // BLOCK // level.groups, **operands)
        return y


def _summed(layout: Layout) -> Layout:
    """Where a sum over the network's channels finds each of them once."""
    if layout.has_blocks:
        pairs = zip(layout.channels, layout.places, strict=True)
        layout = Layout(tuple(NOTHING if place else channel for channel, place in pairs))
    return layout.filled(LONGEST_SUM)


def _array(values: Floats) -> Array:
    return np.ascontiguousarray(values)
