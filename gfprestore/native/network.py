"""GFP-GAN as a program for the compiled kernels: `gfprestore.nn.gfpgan`, step for step.

What joins steps: a convolution's input is scaled, and where wanted doubled, while its tiles are read; gain, noise,
bias, leaky ReLU, feature transform, skip and halving are done while its results are written.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor, nn

from gfprestore.native.library import Library
from gfprestore.native.operands import Array, Buffer, Epilogue, Features, Flag, Kind
from gfprestore.native.program import ProgramBuilder
from gfprestore.native.running import Program
from gfprestore.nn.gfpgan import Gfpgan, GfpganShape, Sft
from gfprestore.nn.layers import LEAK, DownBlock, Resampling, StyledConvolution, ToRgb, UpBlock

HALF_RANGE = 127.5
"""Pixels 0 to 255 are -1 to 1 for the network: `pixel / 127.5 - 1`."""

RGB = 4
"""Floats of a pixel of the image: three colours and one of no meaning, so that a pixel is a power of two."""


def fits(shape: GfpganShape, library: Library) -> bool:
    """Whether the kernels take a network's widths, which must be whole panels or halves of one."""
    reached = 2 if shape.sft is Sft.HALF else 1
    widths = [width // reached for width in shape.decoder_widths]
    return (
        shape.resampling is Resampling.BILINEAR
        and all(width % library.panel == 0 for width in (*widths, *shape.unet_widths))
        and all(width % 64 == 0 for width in (*shape.decoder_widths, shape.latent_size))
        and shape.out_size >= 64
    )


class Generator:
    """The network's program with its input and output."""

    def __init__(self, network: Gfpgan, library: Library, half: bool, pool: ThreadPoolExecutor) -> None:
        self.size = network.shape.out_size
        writer = _Writer(network, ProgramBuilder(library, half))
        with torch.inference_mode():
            self._input, self._image, self._output = writer.write()
        writer.builder.pack_kernels(pool)
        self.buffers = writer.builder.buffers
        self.program: Program = writer.builder.build()

    @property
    def pixels(self) -> Array:
        """Where the face goes: uint8 RGB (S, S, 3)."""
        return self.program.view(self._input).reshape(self.size, self.size, 3)

    @property
    def image(self) -> Array:
        """The restored face before it is rounded: float RGB (S, S, 3) around [-1, 1], kept until the next run."""
        floats = self.program.view(self._image.buffer).view(np.float32)[: self.size * self.size * RGB]
        return floats.reshape(self.size, self.size, RGB)[..., :3]

    @property
    def restored(self) -> Array:
        """Where the restored face is found after a run: uint8 RGB (S, S, 3)."""
        return self.program.view(self._output).reshape(self.size, self.size, 3)


class _Writer:
    def __init__(self, network: Gfpgan, builder: ProgramBuilder) -> None:
        self.network = network
        self.builder = builder

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
        network = self.network
        features = self.from_pixels(face, network.conv_body_first)
        skips = []
        for down in network.conv_body_down:
            assert isinstance(down, DownBlock)
            features = self.down(down, features)
            skips.append(features)
        final = network.final_conv
        features = self.builder.convolve(features, final.weight, Epilogue(bias=_array(final.bias), slope=LEAK))
        bottleneck, spatial = features, []
        for up, skip in zip(network.conv_body_up, reversed(skips), strict=True):
            assert isinstance(up, UpBlock)
            features = self.up(up, self.builder.sum(features, skip))
            spatial.append(features)
        return bottleneck, spatial

    def from_pixels(self, face: Buffer, layer: nn.Conv2d) -> Features:
        """The first 1x1 convolution; it takes the pixels' range into its weights."""
        size = self.network.shape.out_size
        kernel = layer.weight.flatten(1)  # [O 3]
        assert layer.bias is not None
        weight, bias = _array((kernel / HALF_RANGE).T), _array(layer.bias - kernel.sum(1))
        face.last = len(self.builder.steps)
        y = self.builder.features((size, size), kernel.shape[0])
        self.builder.add(Kind.FROM_PIXELS, y, x=face, weight=weight, bias=bias, slope=LEAK)
        return y

    def down(self, block: DownBlock, x: Features) -> Features:
        """`DownBlock.forward`."""
        builder = self.builder
        out = builder.convolve(x, block.conv1.weight, Epilogue(bias=_array(block.conv1.bias), slope=LEAK), halves=True)
        skip = builder.multiply(builder.resample(Kind.HALVE, x), block.skip.weight.flatten(1), Epilogue())
        return builder.convolve(
            out, block.conv2.weight, Epilogue(bias=_array(block.conv2.bias), slope=LEAK, residual=skip)
        )

    def up(self, block: UpBlock, x: Features) -> Features:
        """`UpBlock.forward`."""
        builder = self.builder
        out = builder.convolve(x, block.conv1.weight, Epilogue(bias=_array(block.conv1.bias), slope=LEAK))
        skip = builder.multiply(x, block.skip.weight.flatten(1), Epilogue())
        after = Epilogue(bias=_array(block.conv2.bias), slope=LEAK, residual=skip)
        return builder.convolve(out, block.conv2.weight, after, wider=Flag.DOUBLES_INPUT)

    def map_latent(self, bottleneck: Features) -> list[Features]:
        """Latent codes, one for every layer of the decoder."""
        shape, layer = self.network.shape, self.network.final_linear
        # The layer reads channels, rows, columns; features have their channels innermost.
        weight = layer.weight.reshape(-1, bottleneck.channels, 16).transpose(1, 2).flatten(1)  # [O 16C]
        codes = self.builder.linear(bottleneck, weight, layer.bias)
        count = shape.code_count if shape.many_codes else 1
        parts = [codes.part(index * shape.latent_size, shape.latent_size) for index in range(count)]
        return parts if shape.many_codes else parts * shape.code_count

    def modulations(self, spatial: list[Features]) -> list[tuple[Features, Features]]:
        """Scale and shift at every size; the first convolutions of both read their features together."""
        pairs = []
        for scale, shift, features in zip(
            self.network.condition_scale, self.network.condition_shift, spatial, strict=False
        ):
            assert isinstance(scale, nn.Sequential)
            assert isinstance(shift, nn.Sequential)
            weight, bias = (
                torch.cat([getattr(scale[0], name), getattr(shift[0], name)]) for name in ("weight", "bias")
            )
            both = self.builder.convolve(features, weight, Epilogue(bias=_array(bias), slope=LEAK))
            first, second = (
                self.convolve_plainly(both.part(start, features.channels), layer[2])
                for start, layer in ((0, scale), (features.channels, shift))
            )
            pairs.append((first, second))
        return pairs

    def convolve_plainly(self, x: Features, layer: nn.Module) -> Features:
        """A 3x3 convolution with nothing after it but the bias."""
        assert isinstance(layer, nn.Conv2d)
        return self.builder.convolve(x, layer.weight, Epilogue(bias=_array(layer.bias)))

    def decode(self, codes: list[Features], modulations: list[tuple[Features, Features]]) -> Features:
        """`StyleGan2Decoder.forward`."""
        decoder = self.network.stylegan_decoder
        noise = decoder.stored_noise()
        constant = _array(decoder.constant_input.weight[0].permute(1, 2, 0))  # [4 4 C]
        features = self.styled(decoder.style_conv1, constant, codes[0], noise[0])
        image = self.to_rgb(decoder.to_rgb1, features, codes[1], None)
        for level, to_rgb in enumerate(decoder.to_rgbs):
            assert isinstance(to_rgb, ToRgb)
            first = 2 * level + 1
            pair = modulations[level] if modulations else None
            features = self.styled(decoder.style_convs[2 * level], features, codes[first], noise[first], pair)
            second = decoder.style_convs[2 * level + 1]
            features = self.styled(second, features, codes[first + 1], noise[first + 1])
            image = self.to_rgb(to_rgb, features, codes[first + 2], image)
        return image

    def styled(
        self,
        layer: nn.Module,
        x: Features | Array,
        code: Features,
        noise: Tensor,
        modulation: tuple[Features, Features] | None = None,
    ) -> Features:
        """`StyledConvolution.forward` and the feature transform."""
        assert isinstance(layer, StyledConvolution)
        convolution = layer.modulated_conv
        weight = convolution.weight[0]  # [O I K K]
        style = self.builder.linear(code, convolution.modulation.weight, convolution.modulation.bias)
        gain = self.builder.inverse_norm(style, weight.square().sum((2, 3)))
        scale, shift = modulation or (None, None)
        after = Epilogue(
            gain=gain, bias=_array(layer.bias), noise=_array(layer.weight * noise), slope=LEAK, scale=scale, shift=shift
        )
        wider = None if layer.upsampling is None else Flag.DOUBLES_INPUT
        return self.builder.convolve(x, weight, after, style=style, wider=wider)

    def to_rgb(self, layer: ToRgb, x: Features, code: Features, image: Features | None) -> Features:
        """`ToRgb.forward`."""
        convolution = layer.modulated_conv
        style = self.builder.linear(code, convolution.modulation.weight, convolution.modulation.bias)
        weight, bias = _array(convolution.weight[0].flatten(1)), _array(layer.bias)
        y = self.builder.features(x.size, RGB)
        operands = {"x": x, "weight": weight, "bias": bias, "style": style, "residual": image}
        self.builder.add(Kind.TO_RGB, y, channels_in=x.channels, **operands)
        return y


def _array(tensor: Tensor | None) -> Array:
    assert tensor is not None
    return np.ascontiguousarray(tensor.detach().numpy())
