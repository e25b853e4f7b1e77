"""How the kernels hold GFP-GAN's features at each of its sizes."""

from __future__ import annotations

from dataclasses import dataclass

from gfprestore.native.layout import BLOCK, NOTHING, Layout, blocks, plain
from gfprestore.native.program import SMALLEST_TILED
from gfprestore.nn.shape import GfpganShape, Sft


@dataclass(frozen=True)
class Level:
    """Layouts at one size."""

    unet: Layout
    """Of the U-Net."""

    decoder: Layout
    """Of the decoder, with the channels that the feature transform leaves alone first."""

    transform: Layout
    """Of its scale and shift, whose channels are counted from the first that it reaches."""

    hidden: Layout
    """Of the features between the U-Net and both, scale's first."""

    @property
    def groups(self) -> int:
        """Groups of the decoder's channels in blocks."""
        return 1 if len(self.transform.channels) == len(self.decoder.channels) else 2

    def condition(self, which: int) -> tuple[int, Layout]:
        """Where what scale (0) or shift (1) is computed from begins, and its layout."""
        if NOTHING not in self.unet.channels:  # each has whole vectors of its own
            return which * len(self.unet.channels), self.unet
        width = len(set(self.unet.channels) - {NOTHING})
        own = range(which * width, (which + 1) * width)
        return 0, Layout(tuple(channel - own[0] if channel in own else NOTHING for channel in self.hidden.channels))


def find_levels(shape: GfpganShape, lanes: int) -> list[Level]:
    """Layouts at 4, 8, ... pixels.

    Args:
        shape: The network's.
        lanes: Floats of a vector.
    """
    last = len(shape.decoder_widths) - 1
    return [
        _blocked(shape, level) if level == last and _needs_blocks(shape, lanes) else _plain(shape, level, lanes)
        for level in range(last + 1)
    ]


def _kept(shape: GfpganShape, level: int) -> int:
    """Channels that the feature transform leaves alone."""
    return 0 if shape.sft is Sft.FULL else shape.decoder_widths[level] // 2


def _needs_blocks(shape: GfpganShape, lanes: int) -> bool:
    """Whether the largest size fills vectors only in blocks. Smaller ones cost little, filled up with zeros or not."""
    width, kept = shape.decoder_widths[-1], _kept(shape, -1)
    widths = (shape.unet_widths[-1], kept, width - kept)
    fills = all(BLOCK * width % lanes == 0 for width in widths) and kept in (0, width - kept)
    has_quads = shape.unet_widths[-1] % 4 == 0  # which the step from pixels to blocks works on
    return fills and has_quads and any(width % lanes for width in widths) and shape.out_size >= 2 * SMALLEST_TILED


def _blocked(shape: GfpganShape, level: int) -> Level:
    unet, width, kept = shape.unet_widths[level], shape.decoder_widths[level], _kept(shape, level)
    groups = [range(kept), range(kept, width)] if kept else [range(width)]
    return Level(
        blocks([range(unet)]),
        blocks(groups),
        blocks([range(width - kept)]),
        blocks([range(unet), range(unet, 2 * unet)]),
    )


def _plain(shape: GfpganShape, level: int, lanes: int) -> Level:
    unet, width, kept = shape.unet_widths[level], shape.decoder_widths[level], _kept(shape, level)
    decoder = plain(width, lanes)
    transform = plain(width - kept, lanes)
    if kept % lanes or (width - kept) % lanes:
        # A vector holds channels of both kinds: scale and shift have all, with one and zero for those left alone.
        transform = Layout(tuple(c - kept if c >= kept else NOTHING for c in decoder.channels))
    return Level(plain(unet, lanes), decoder, transform, plain(2 * unet, lanes))
