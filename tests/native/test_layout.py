"""How narrow features are arranged for the kernels, against torch on the features themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gfprestore.native.layout import (
    BORDER_PLACES,
    FIRST,
    LAST,
    NOTHING,
    STAYS,
    Layout,
    arrange,
    arrange_kernel,
    arrange_matrix,
    blocks,
    plain,
)
from gfprestore.native.packing import pair_rows, round_weights
from gfprestore.nn.layers import double, halve


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).float()


def store(x: Tensor, layout: Layout) -> Tensor:
    """[1 C H W] as stored: [1 C' H W], or of half the size in blocks."""
    if not layout.has_blocks:
        return torch.from_numpy(arrange(x[0].numpy(), layout))[None]
    pixels = F.pixel_unshuffle(x, 2).unflatten(1, (-1, 4))  # [1 4C H/2 W/2] -> [1 C 4 H/2 W/2]
    return torch.stack(
        [pixels[:, channel, place] for channel, place in zip(layout.channels, layout.places, strict=True)], 1
    )


def kernel_of(weight: Tensor, out: Layout, into: Layout, **place: int) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(arrange_kernel(weight.numpy(), out, into, **place)))


PLAIN, FILLED, BLOCKS = plain(6, 3), plain(6, 8), blocks([range(2), range(2, 6)])


@pytest.mark.parametrize("into", [PLAIN, FILLED])
@pytest.mark.parametrize("out", [plain(4, 4), plain(4, 16)])
def test_zeros_fill_up_what_a_convolution_reads_and_gives(into: Layout, out: Layout) -> None:
    x, weight = noise(1, 6, 10, 10), noise(4, 6, 3, 3, seed=1)
    given = F.conv2d(store(x, into), kernel_of(weight, out, into), padding=1)
    torch.testing.assert_close(given, store(F.conv2d(x, weight, padding=1), out))


def test_a_convolution_of_blocks_is_one_of_their_pixels() -> None:
    x, weight, out = noise(1, 6, 10, 14), noise(3, 6, 3, 3, seed=1), blocks([range(3)])
    given = F.conv2d(store(x, BLOCKS), kernel_of(weight, out, BLOCKS), padding=1)
    torch.testing.assert_close(given, store(F.conv2d(x, weight, padding=1), out))


def test_from_blocks_to_pixels_their_means_are_read() -> None:
    x, weight, out = noise(1, 6, 10, 14), noise(3, 6, 3, 3, seed=1), plain(3, 4)
    given = F.conv2d(store(x, BLOCKS), kernel_of(weight, out, BLOCKS), padding=1)
    torch.testing.assert_close(given, store(F.conv2d(halve(x), weight, padding=1), out))
    matrix = noise(3, 6, seed=2)
    given = F.conv2d(store(x, BLOCKS), torch.from_numpy(arrange_matrix(matrix.numpy(), out, BLOCKS))[:, :, None, None])
    torch.testing.assert_close(given, store(F.conv2d(halve(x), matrix[:, :, None, None]), out))


def test_from_pixels_to_blocks_the_double_is_read_and_its_border_has_weights_of_its_own() -> None:
    x, weight = noise(1, 6, 7, 9), noise(6, 6, 3, 3, seed=1)
    wanted = store(F.conv2d(double(x), weight, padding=1), BLOCKS)
    clamped = F.pad(store(x, FILLED), (1, 1, 1, 1), mode="replicate")
    found = torch.full_like(wanted, np.nan)
    found[:, :, 1:-1, 1:-1] = F.conv2d(clamped, kernel_of(weight, BLOCKS, FILLED))[:, :, 1:-1, 1:-1]
    lines = {FIRST: slice(0, 1), LAST: slice(-1, None), STAYS: slice(1, -1)}
    for row, column in BORDER_PLACES:
        part = F.conv2d(clamped, kernel_of(weight, BLOCKS, FILLED, row=row, column=column))
        found[:, :, lines[row], lines[column]] = part[:, :, lines[row], lines[column]]
    torch.testing.assert_close(found, wanted)
    # The weights of the border are others: without them it would be wrong.
    assert not torch.allclose(F.conv2d(clamped, kernel_of(weight, BLOCKS, FILLED))[:, :, 0], wanted[:, :, 0], atol=0.1)


@given(st.integers(1, 40), st.sampled_from([1, 4, 8, 16]))
def test_plain_channels_fill_whole_vectors_and_keep_their_order(width: int, lanes: int) -> None:
    layout = plain(width, lanes)
    assert len(layout.channels) % lanes == 0
    assert len(layout.channels) < width + lanes
    assert [channel for channel in layout.channels if channel != NOTHING] == list(range(width))
    values = noise(width, 2).numpy()
    assert (arrange(values, layout, other=5.0)[width:] == 5).all()
    assert np.array_equal(arrange(values, layout)[:width], values)


@given(st.integers(0, 2**32 - 1))
def test_weights_are_rounded_to_bfloat16_as_torch_rounds_them(seed: int) -> None:
    bits = np.random.default_rng(seed).integers(0, 2**32, (4, 32), dtype=np.uint32)
    bits[0] &= 0xFFFF8000  # ties, and what is exact
    weights = bits.view(np.float32)
    weights[~np.isfinite(weights)] = 0
    wanted = torch.from_numpy(weights).bfloat16()
    assert np.array_equal(round_weights(weights), wanted.view(torch.int16).numpy().view(np.uint16))
    pairs = pair_rows(weights)
    assert np.array_equal(pairs, round_weights(weights).reshape(2, 2, 32).swapaxes(1, 2))


def test_what_is_plain_is_not_copied() -> None:
    weight = noise(6, 6, 3, 3).numpy()
    assert arrange_kernel(weight, PLAIN, PLAIN) is weight
    assert arrange(weight, PLAIN) is weight
