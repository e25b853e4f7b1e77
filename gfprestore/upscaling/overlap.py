"""By how much tiles overlap."""

from __future__ import annotations

from dataclasses import dataclass

# Where a network looks farther than tiles can overlap. In fp32 a tile of Real-ESRGAN x4plus comes within 70 dB of the
# whole photo some 60 pixels from its border, x2plus, which shrinks its input first, some 110 pixels (measured). Within
# these overlaps tiles then are at 61 to 75 and 63 to 66 dB of the untiled photo, in 8 bits; with 96 and 192 pixels some
# photos stay below 60. Where two tiles meet they differ by up to 6 levels in single pixels, so they fade slowly.
_OVERLAP = 128
_SHRUNK_OVERLAP = 224
_RAMP = 48

# Beside the pixels that a tile cannot know, where the others are the same to the bit.
_SHORT_RAMP = 16


@dataclass(frozen=True)
class Overlap:
    """What neighbouring tiles share, in photo pixels."""

    pixels: int
    """How much they share, at least."""

    ramp: int
    """Over how much of that, in its middle, they fade into each other."""


def overlap_for(reach: float, shrinks: bool) -> Overlap:
    """By how much tiles overlap: where that is enough, by what makes them equal where they fade into each other.

    Args:
        reach: How far the network looks, in photo pixels, from `reach_of`.
        shrinks: Whether it makes its input smaller first.
    """
    pixels = _SHRUNK_OVERLAP if shrinks else _OVERLAP
    if 2 * reach + _SHORT_RAMP <= pixels:
        return Overlap(int(2 * reach + _SHORT_RAMP), _SHORT_RAMP)
    return Overlap(pixels, _RAMP)
