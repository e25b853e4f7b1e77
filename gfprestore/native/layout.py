"""How the kernels hold features of few channels: filled up with zeros, or as blocks of 2x2 pixels.

The kernels work on vectors of channels. Where a network has fewer channels than a vector, as the large sizes of narrow
networks do, the four pixels of a block become the channels of one pixel of half the size. A convolution of blocks is a
convolution of more channels whose kernel is rearranged; so is one that goes from pixels to the blocks of their bilinear
double, or from blocks to the means of their pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gfprestore.native.operands import Floats

BLOCK = 4
"""Pixels of a block: upper left, upper right, lower left, lower right."""

NOTHING = -1
"""In place of a channel: zeros that fill up a vector."""

STAYS, FIRST, LAST = 0, 1, 2
"""Where a row or column of pixels lies: inside, or first or last, beyond which the doubled image has zeros."""

BORDER_PLACES = (
    *((row, column) for row in (FIRST, LAST) for column in (FIRST, LAST)),
    *((FIRST, STAYS), (LAST, STAYS), (STAYS, FIRST), (STAYS, LAST)),
)
"""Rows and columns of the weights that `ProgramBuilder.mend_border` takes."""


@dataclass(frozen=True)
class Layout:
    """What each channel holds that is stored of a pixel or a block."""

    channels: tuple[int, ...]
    """Channels of the network, or `NOTHING`."""

    places: tuple[int, ...] = ()
    """Their pixels in the block; empty where there are no blocks."""

    @property
    def has_blocks(self) -> bool:
        """Whether a stored pixel is a block of the network's pixels."""
        return bool(self.places)

    @property
    def is_plain(self) -> bool:
        """Whether this is how the network itself has its channels."""
        return not self.places and self.channels == tuple(range(len(self.channels)))

    def filled(self, multiple: int) -> Layout:
        """The same with zeros up to a multiple of channels."""
        missing = -len(self.channels) % multiple
        return Layout(self.channels + (NOTHING,) * missing, self.places + (0,) * (missing if self.places else 0))


def plain(width: int, lanes: int) -> Layout:
    """Channels as the network has them, up to whole vectors.

    Args:
        width: Channels of the network.
        lanes: Floats of a vector.
    """
    return Layout(tuple(range(width))).filled(lanes)


def blocks(groups: Sequence[Sequence[int]]) -> Layout:
    """Blocks whose channels come group after group, each of all four pixels."""
    pairs = [(channel, place) for group in groups for place in range(BLOCK) for channel in group]
    return Layout(tuple(channel for channel, _ in pairs), tuple(place for _, place in pairs))


def arrange(values: Floats, layout: Layout, *, other: float = 0.0) -> Floats:
    """Arrange what belongs to channels [C, ...] for those that are stored; `other` stands where nothing is."""
    if layout.is_plain:
        return values
    channels = np.array(layout.channels)
    arranged: Floats = values[channels.clip(min=0)]
    arranged[channels == NOTHING] = other
    return arranged


def arrange_matrix(weight: Floats, out: Layout, into: Layout) -> Floats:
    """Arrange a 1x1 convolution [O I], of the means of blocks where it reads such, for stored channels [O' I']."""
    share = BLOCK if into.has_blocks and not out.has_blocks else 1
    return np.ascontiguousarray(arrange(arrange(weight, out).T, into).T / np.float32(share))


def arrange_kernel(weight: Floats, out: Layout, into: Layout, *, row: int = STAYS, column: int = STAYS) -> Floats:
    """Arrange a 3x3 convolution [O I 3 3] for stored channels [O' I' 3 3].

    Between equal layouts the same convolution; from blocks to pixels that of the blocks' means; from pixels to blocks
    that of their bilinear double, if what is convolved goes on beyond its border.

    Args:
        weight: The kernel.
        out: Of the result.
        into: Of what is convolved.
        row: For the double, whether this is for the `FIRST` or `LAST` row of pixels, beyond which the double has zeros
            that the convolution reads.
        column: The same for the column.
    """
    if out.is_plain and into.is_plain:
        return weight
    spread = _spread(weight, out.has_blocks, into.has_blocks, row, column)  # [P O Q I 3 3]
    picked = _pick(spread.transpose(2, 3, 0, 1, 4, 5), into)  # [I' P O 3 3]
    return _pick(picked.transpose(1, 2, 0, 3, 4), out)  # [O' I' 3 3]


def _pick(spread: Floats, layout: Layout) -> Floats:
    """Stored channels of what belongs to pixels and channels: [P C ...] -> [C' ...]."""
    channels = np.array(layout.channels)
    places = np.array(layout.places) if layout.places else np.zeros_like(channels)
    picked: Floats = spread[places, channels.clip(min=0)]
    picked[channels == NOTHING] = 0
    return picked


def _spread(weight: Floats, gives_blocks: bool, reads_blocks: bool, row: int, column: int) -> Floats:
    """Kernels from every pixel of what is read to every one of what is given: [P O Q I 3 3], P and Q 1 or 4."""
    outputs, inputs = weight.shape[:2]
    if not gives_blocks and not reads_blocks:
        return weight[None, :, None]
    if not gives_blocks:
        return np.broadcast_to((weight / np.float32(BLOCK))[None, :, None], (1, outputs, BLOCK, inputs, 3, 3))
    if not reads_blocks:
        doubled = np.einsum("oiyx,pay,qbx->pqoiab", weight, _doubling(row), _doubling(column), optimize=True)
        shape = BLOCK, outputs, 1, inputs, 3, 3
        return np.asarray(doubled, np.float32).reshape(shape)  # [2 2 O I 3 3] -> [4 O 1 I 3 3]
    spread = np.zeros((BLOCK, outputs, BLOCK, inputs, 3, 3), np.float32)
    for place in range(BLOCK):
        for tap in range(9):
            y, x = place // 2 + tap // 3 - 1, place % 2 + tap % 3 - 1
            spread[place, :, y % 2 * 2 + x % 2, :, y // 2 + 1, x // 2 + 1] = weight[:, :, tap // 3, tap % 3]
    return spread


def _doubling(line: int) -> Floats:
    """What three taps on the bilinear double are on three samples, for both results of a sample: [2 3 samples 3 taps].

    The double's value 2i is 3/4 of sample i and 1/4 of the one before, 2i + 1 that and the one after.
    """
    matrix = np.zeros((2, 3, 3), np.float32)
    for result in range(2):
        for tap in range(3):
            index = result + tap - 1  # of the double's value, from 2i on
            beyond = (line == FIRST and index < 0) or (line == LAST and index > 1)
            nearest = index // 2
            other = nearest + (1 if index % 2 else -1)
            if not beyond:
                matrix[result, nearest + 1, tap] += 0.75
                matrix[result, other + 1, tap] += 0.25
    return matrix
