"""Channels of the released networks by size, in plain numbers: a configuration is checked by them without torch."""

from __future__ import annotations

import math

_MOST, _LAST_SIDE_OF_MOST, _CHANNELS_TIMES_SIDE = 512, 32, 16384
"""StyleGAN2's channels up to a side in pixels, and what channels times the side are above it."""


def full_widths(out_size: int, channel_multiplier: float = 2) -> tuple[float, ...]:
    """Channels at 4, 8, ... `out_size` pixels where nothing is narrowed; they may be fractions.

    >>> full_widths(128, 0.01)[-2:]
    (2.56, 1.28)
    """
    sizes = [2**power for power in range(2, int(math.log2(out_size)) + 1)]
    return tuple(
        _MOST if size <= _LAST_SIDE_OF_MOST else _CHANNELS_TIMES_SIDE / size * channel_multiplier for size in sizes
    )


def released_widths(out_size: int, channel_multiplier: float = 2, narrow: float = 1) -> tuple[int, ...]:
    """Channels at 4, 8, ... `out_size` pixels in the official code's terms; the U-Net has those of half the `narrow`.

    >>> released_widths(512)
    (512, 512, 512, 512, 512, 256, 128, 64)
    """
    return tuple(int(width * narrow) for width in full_widths(out_size, channel_multiplier))
