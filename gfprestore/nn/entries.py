"""The entries of a GFP-GAN's state dict: names and shapes, as `gfprestore.nn.gfpgan` makes them, without torch."""

from __future__ import annotations

from collections.abc import Iterator

from gfprestore.nn.shape import FIR_MARK, GfpganShape, Resampling, Sft

Entry = tuple[str, tuple[int, ...]]


def entries_of(shape: GfpganShape) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor of the clean architecture."""
    return dict([*_unet(shape), *_transforms(shape), *_decoder(shape)])


def _convolution(name: str, outputs: int, inputs: int, side: int, *, bias: bool = True) -> Iterator[Entry]:
    yield f"{name}.weight", (outputs, inputs, side, side)
    if bias:
        yield f"{name}.bias", (outputs,)


def _linear(name: str, outputs: int, inputs: int) -> Iterator[Entry]:
    yield f"{name}.weight", (outputs, inputs)
    yield f"{name}.bias", (outputs,)


def _unet(shape: GfpganShape) -> Iterator[Entry]:
    widths = shape.unet_widths
    if shape.resampling is Resampling.FIR:
        yield FIR_MARK, (1,)
    yield from _convolution("conv_body_first", widths[-1], 3, 1)
    yield from _convolution("final_conv", widths[0], widths[0], 3)
    for level in range(1, len(widths)):
        wide, narrow = widths[level - 1], widths[level]  # features have the more channels the smaller they are
        yield from _block(f"conv_body_down.{len(widths) - 1 - level}", wide, narrow)
        yield from _block(f"conv_body_up.{level - 1}", narrow, wide)
        yield from _convolution(f"toRGB.{level - 1}", 3, narrow, 1)
    codes = shape.code_count if shape.many_codes else 1
    yield from _linear("final_linear", codes * shape.latent_size, widths[0] * 4 * 4)


def _block(name: str, outputs: int, inputs: int) -> Iterator[Entry]:
    yield from _convolution(f"{name}.conv1", inputs, inputs, 3)
    yield from _convolution(f"{name}.conv2", outputs, inputs, 3)
    yield from _convolution(f"{name}.skip", outputs, inputs, 1, bias=False)


def _transforms(shape: GfpganShape) -> Iterator[Entry]:
    if shape.sft is Sft.NONE:
        return
    for level, width in enumerate(shape.unet_widths[1:], 1):
        for kind in ("scale", "shift"):
            yield from _convolution(f"condition_{kind}.{level - 1}.0", width, width, 3)
            yield from _convolution(f"condition_{kind}.{level - 1}.2", shape.modulated(level), width, 3)


def _decoder(shape: GfpganShape) -> Iterator[Entry]:
    widths, latent, name = shape.decoder_widths, shape.latent_size, "stylegan_decoder"
    for layer in range(shape.mlp_layers):
        yield from _linear(f"{name}.style_mlp.{2 * layer + 1}", latent, latent)
    yield f"{name}.constant_input.weight", (1, widths[0], 4, 4)
    yield f"{name}.noises.noise0", (1, 1, 4, 4)
    yield from _styled(f"{name}.style_conv1", widths[0], widths[0], latent)
    yield from _to_rgb(f"{name}.to_rgb1", widths[0], latent)
    for level in range(1, len(widths)):
        for layer, inputs in ((2 * level - 2, widths[level - 1]), (2 * level - 1, widths[level])):
            yield from _styled(f"{name}.style_convs.{layer}", widths[level], inputs, latent)
            yield f"{name}.noises.noise{layer + 1}", (1, 1, 4 * 2**level, 4 * 2**level)
        yield from _to_rgb(f"{name}.to_rgbs.{level - 1}", widths[level], latent)


def _modulated(name: str, outputs: int, inputs: int, side: int, latent: int) -> Iterator[Entry]:
    yield f"{name}.weight", (1, outputs, inputs, side, side)
    yield from _linear(f"{name}.modulation", inputs, latent)


def _styled(name: str, outputs: int, inputs: int, latent: int) -> Iterator[Entry]:
    yield from _modulated(f"{name}.modulated_conv", outputs, inputs, 3, latent)
    yield f"{name}.weight", (1,)
    yield f"{name}.bias", (1, outputs, 1, 1)


def _to_rgb(name: str, inputs: int, latent: int) -> Iterator[Entry]:
    yield from _modulated(f"{name}.modulated_conv", 3, inputs, 1, latent)
    yield f"{name}.bias", (1, 3, 1, 1)
