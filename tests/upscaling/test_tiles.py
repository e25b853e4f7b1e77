"""Tiles: they cover the photo, and joining them adds nothing of their own."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gfprestore.upscaling.tiles import FeatherCanvas, cut_tile, plan_tiles

PLANS = {
    "size": st.tuples(st.integers(1, 150), st.integers(1, 150)),
    "limit": st.integers(32, 90),
    "overlap": st.integers(0, 12),
    "multiple": st.sampled_from([1, 2, 4]),
    "alignment": st.sampled_from([1, 4, 8]),
    "minimum": st.integers(1, 10),
    "square": st.booleans(),
}


def enlarge(values: np.ndarray, factor: int) -> np.ndarray:
    return values.repeat(factor, axis=0).repeat(factor, axis=1)


@settings(deadline=None)
@given(**PLANS)
def test_tiles_cover_the_photo_and_share_the_overlap(
    size: tuple[int, int], limit: int, overlap: int, multiple: int, alignment: int, minimum: int, square: bool
) -> None:
    grid = plan_tiles(
        size, limit, overlap=overlap, multiple=multiple, alignment=alignment, minimum=minimum, square=square
    )
    assert len(grid) == len(list(grid))
    if square:
        assert grid.height == grid.width
    for length, side, starts in ((size[0], grid.width, grid.lefts), (size[1], grid.height, grid.tops)):
        assert side % multiple == 0
        assert minimum <= side <= max(limit, minimum + multiple - 1)
        assert all(start % multiple == 0 for start in starts)
        assert square or all(start % alignment == 0 for start in starts)
        assert starts[0] == 0
        assert length <= starts[-1] + side < max(length + multiple, side + 1)
        for first, second in pairwise(starts):
            assert first < second <= first + side - overlap


def test_tiles_are_as_few_and_as_small_as_can_be() -> None:
    grid = plan_tiles((1000, 300), 512, overlap=64)
    assert (grid.width, grid.height) == (376, 300)
    assert grid.lefts == (0, 312, 624)


def test_tiles_smaller_than_the_overlap_are_refused() -> None:
    with pytest.raises(ValueError, match="overlap by 64"):
        plan_tiles((500, 500), 64, overlap=64)


def test_tiles_side_by_side_end_where_the_photo_does() -> None:
    """Beyond it their pixels would be invented, and the border's result another than the whole photo's."""
    for length in range(100, 140):
        grid = plan_tiles((length, 60), 64, overlap=16, multiple=2, alignment=8)
        assert len(grid.lefts) > 1
        assert grid.lefts[-1] + grid.width == length + length % 2


def _join(pixels: np.ndarray, factor: int, ramp: int = 6, **plan: int) -> np.ndarray:
    size = pixels.shape[1], pixels.shape[0]
    grid = plan_tiles(size, plan.pop("limit"), **plan)
    is_gray = bool((pixels == pixels[..., :1]).all())
    canvas = FeatherCanvas(grid, factor, size, pixels.dtype, is_gray, ramp=ramp)
    for top, left in grid:
        assert not canvas.is_complete
        canvas.place(enlarge(cut_tile(pixels, top, left, grid), factor))
    assert canvas.is_complete
    return canvas.pixels()


@settings(deadline=None)
@given(
    **PLANS,
    factor=st.sampled_from([1, 2, 3]),
    dtype=st.sampled_from([np.uint8, np.uint16]),
    channels=st.sampled_from([1, 3]),
)
def test_joining_what_was_cut_gives_the_photo_back(
    size: tuple[int, int], factor: int, dtype: type, channels: int, **plan: int
) -> None:
    generator = np.random.default_rng(size[0])
    pixels = generator.integers(0, np.iinfo(dtype).max + 1, (size[1], size[0], channels)).astype(dtype)
    pixels = np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
    np.testing.assert_array_equal(_join(pixels, factor, **plan), enlarge(pixels, factor))


def test_weights_of_the_tiles_add_up_to_one_and_are_smooth() -> None:
    size, dtype = (300, 200), np.dtype(np.uint16)
    grid = plan_tiles(size, 120, overlap=40)
    shares = []
    for chosen in range(len(grid)):
        canvas = FeatherCanvas(grid, 1, size, dtype, False, ramp=20)
        for index, _ in enumerate(grid):
            canvas.place(np.full((grid.height, grid.width, 3), float(index == chosen), np.float32))
        shares.append(canvas.pixels()[..., 0].astype(np.float64) / 65535)
    np.testing.assert_allclose(np.sum(shares, axis=0), 1, atol=len(grid) / 65535)
    steepest = max(np.abs(np.diff(share, axis=axis)).max() for share in shares for axis in (0, 1))
    assert steepest < 1.6 / 20  # a smooth step over the middle 20 of 40 pixels is at its steepest 1.5 / 20
    for (top, left), share in zip(grid, shares, strict=True):
        for start, profile in ((left, share.max(axis=0)), (top, share.max(axis=1))):
            assert start == 0 or profile[start : start + 10].sum() == 0  # beside the ramp
        assert share[top + grid.height :].sum() == 0
        assert share[:, left + grid.width :].sum() == 0


def test_beside_the_ramp_one_tile_counts_alone_to_the_bit() -> None:
    """Even where the other one's values are so large that adding and taking them away would cost digits."""
    size, grid = (100, 20), plan_tiles((100, 20), 70, overlap=40)
    assert grid.lefts == (0, 30)
    left = np.full((20, 70, 3), 0.3, np.float32)
    right = left.copy()
    left[:, 55:] = right[:, :15] = 1e7  # 15 of the overlap's 40 columns
    canvas = FeatherCanvas(grid, 1, size, np.dtype(np.uint16), False, ramp=10)
    canvas.place(left)
    canvas.place(right)
    np.testing.assert_array_equal(canvas.pixels(), np.uint16(0.3 * 65535 + 0.5))


def test_a_tile_beyond_the_photo_is_mirrored() -> None:
    pixels = np.arange(6 * 5 * 3, dtype=np.uint8).reshape(6, 5, 3)
    grid = plan_tiles((5, 6), 64, overlap=0, multiple=8)
    values = cut_tile(pixels, 0, 0, grid) * 255
    rows, columns = [0, 1, 2, 3, 4, 5, 4, 3], [0, 1, 2, 3, 4, 3, 2, 1]
    np.testing.assert_allclose(values, pixels[rows][:, columns], atol=1e-4)


def test_results_out_of_range_are_clipped() -> None:
    grid = plan_tiles((8, 8), 8, overlap=0)
    for level, expected in ((-0.7, 0), (1.7, 255), (0.5, 128)):
        canvas = FeatherCanvas(grid, 1, (8, 8), np.dtype(np.uint8), False, ramp=0)
        canvas.place(np.full((8, 8, 3), level, np.float32))
        assert (canvas.pixels() == expected).all()


def test_a_gray_canvas_keeps_the_luma() -> None:
    grid = plan_tiles((4, 4), 8, overlap=0)
    canvas = FeatherCanvas(grid, 1, (4, 4), np.dtype(np.uint16), True, ramp=0)
    values = np.zeros((4, 4, 3), np.float32)
    values[..., 0], values[..., 1], values[..., 2] = 0.2, 0.5, 0.9
    canvas.place(values)
    assert canvas.pixels().shape == (4, 4, 3)
    assert (canvas.pixels() == round((0.299 * 0.2 + 0.587 * 0.5 + 0.114 * 0.9) * 65535)).all()
