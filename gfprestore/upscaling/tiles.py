"""Tiles of a photo: where they lie, how they are cut, and how their enlarged results are joined without a seam.

All tiles of a photo have one size, so that they can share batches. Neighbours overlap by at least what was asked for,
and over the middle of the overlap one result fades into the next along a smooth ramp whose two weights add up to one. A
network knows least near a tile's own edge, and there its weight is zero; so the joined result depends on the tile size
only as far as the network looks beyond the overlap. Where both results are equal, so is the joined one, to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from gfprestore.photo import Pixels

# Rec. 601 weights of red, green and blue in luma: what a gray photo keeps of a network's coloured answer.
_LUMA = np.array([[0.299, 0.587, 0.114]], np.float32)


@dataclass(frozen=True)
class TileGrid:
    """Equal, overlapping tiles that cover a photo, in photo pixels."""

    tops: tuple[int, ...]
    """First row of each row of tiles, rising from 0."""

    lefts: tuple[int, ...]
    """First column of each column of tiles, rising from 0."""

    height: int
    """Rows of every tile."""

    width: int
    """Columns of every tile; the last tiles may reach beyond the photo, by less than the network's multiple."""

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Gives (top, left) of the tiles in reading order."""
        return ((top, left) for top in self.tops for left in self.lefts)

    def __len__(self) -> int:
        return len(self.tops) * len(self.lefts)


def plan_tiles(
    size: tuple[int, int],
    limit: int,
    *,
    overlap: int,
    multiple: int = 1,
    alignment: int = 1,
    minimum: int = 1,
    square: bool = False,
) -> TileGrid:
    """Cover a photo with the fewest equal tiles, no larger than they need to be.

    Tiles that lie side by side end where the photo does, rounded up to `multiple`: beyond it a tile's pixels would be
    invented, and the result near the border would not be that of the whole photo.

    Args:
        size: (W, H) of the photo.
        limit: Largest side of a tile.
        overlap: Least number of pixels that neighbours share.
        multiple: A tile's sides and positions are multiples of this.
        alignment: Positions are multiples of this too, but for square tiles.
        minimum: Least side of a tile; wins over `limit`.
        square: Tiles are square.

    Raises:
        ValueError: The limit leaves nothing beside the overlap.
    """
    step = multiple if square else math.lcm(multiple, alignment)
    minimum = _round_up(minimum, multiple)
    limit = max(limit // multiple * multiple, minimum)
    wholes = [_round_up(length, multiple) for length in size]
    sides = [max(_tile_side(whole, limit, overlap, step, minimum), minimum) for whole in wholes]
    if square:
        sides = [max(sides)] * 2
    lefts, tops = (_tile_starts(whole, side, overlap, step) for whole, side in zip(wholes, sides, strict=True))
    return TileGrid(tops, lefts, sides[1], sides[0])


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _tile_side(whole: int, limit: int, overlap: int, step: int, minimum: int) -> int:
    """Side of the tiles along an axis.

    Beside each other they begin at multiples of `step`, and the last ends at `whole`: so a side is `rest` more than a
    multiple of `step`, and neighbours are at most `side - overlap` apart.
    """
    if whole <= limit:
        return whole
    rest = whole % step
    lost = -((rest - overlap) // step)  # of a side's steps, those that the overlap takes
    most = (limit - rest) // step
    if most <= lost:
        raise ValueError(f"tiles of {limit} pixels cannot overlap by {overlap}")
    steps = whole // step
    count = 1 + math.ceil((steps - most) / (most - lost))
    fewest = math.ceil((steps + (count - 1) * lost) / count)
    return rest + step * max(fewest, math.ceil((minimum - rest) / step))


def _tile_starts(whole: int, side: int, overlap: int, step: int) -> tuple[int, ...]:
    if whole <= side:
        return (0,)
    steps = (whole - side) // step
    count = 1 + math.ceil(steps / ((side - overlap) // step))
    return tuple(steps * k // (count - 1) * step for k in range(count))


def cut_tile(pixels: Pixels, top: int, left: int, grid: TileGrid) -> NDArray[np.float32]:
    """Cut one tile out of a photo, mirrored where it reaches beyond it.

    Args:
        pixels: RGB, uint8 or uint16, (H, W, 3).
        top: First row.
        left: First column.
        grid: Gives the tile's size.

    Returns:
        RGB, float32 in [0, 1], (grid.height, grid.width, 3).
    """
    part = pixels[top : top + grid.height, left : left + grid.width]
    values = part.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)
    below, right = grid.height - part.shape[0], grid.width - part.shape[1]
    if below or right:
        # Mirrored without repeating the edge pixel, as spandrel pads: so one tile equals its untiled call.
        values = np.asarray(cv2.copyMakeBorder(values, 0, below, 0, right, cv2.BORDER_REFLECT_101), np.float32)
    return values


class FeatherCanvas:
    """Joins the enlarged tiles of one photo, given in reading order.

    It holds the result and the overlaps with the tile to the left and the row of tiles above, nothing else: every pixel
    is rounded once, when its last tile has come.
    """

    def __init__(
        self, grid: TileGrid, factor: int, size: tuple[int, int], dtype: np.dtype, is_gray: bool, *, ramp: int
    ) -> None:
        """Makes an empty canvas.

        Args:
            grid: Tiles of the photo, in photo pixels.
            factor: Ratio of a result's side to its tile's.
            size: (W, H) of the photo.
            dtype: uint8 or uint16.
            is_gray: Keep one plane, the luma of the results.
            ramp: Length, in photo pixels, over which a tile fades into the next, in the middle of their overlap.
        """
        self._grid = grid
        self._factor = factor
        self._ramp = ramp * factor
        self._is_gray = is_gray
        self._width, self._height = size[0] * factor, size[1] * factor
        shape = (self._height, self._width) if is_gray else (self._height, self._width, 3)
        self._result: Pixels = np.empty(shape, dtype)
        self._placed = 0
        self._left_overlap = np.empty((0, 0, 3), np.float32)
        self._top_overlap = np.empty((0, 0, 3), np.float32)
        self._next_overlap = np.empty((0, 0, 3), np.float32)

    @property
    def is_complete(self) -> bool:
        """Every tile has been placed."""
        return self._placed == len(self._grid)

    @property
    def size(self) -> tuple[int, int]:
        """(W, H) of the joined photo."""
        return self._width, self._height

    def pixels(self) -> Pixels:
        """Give the joined photo, RGB (H, W, 3), of `factor` times the photo's size; call it once, when complete."""
        return cv2.merge([self._result] * 3) if self._is_gray else self._result  # type: ignore[return-value]

    def place(self, values: NDArray[np.float32]) -> None:
        """Add the next tile's result.

        Args:
            values: RGB, float32 nominally in [0, 1], (grid.height * factor, grid.width * factor, 3); it is overwritten.
        """
        row, column = divmod(self._placed, len(self._grid.lefts))
        self._placed += 1
        if column == 0:
            self._top_overlap, self._next_overlap = self._next_overlap, self._new_overlap(row)
        if column > 0:
            _fade(self._left_overlap, values, self._ramp, axis=1)
        left, right = self._span(self._grid.lefts, column, self._grid.width, self._width)
        top, bottom = self._span(self._grid.tops, row, self._grid.height, self._height)
        self._left_overlap = values[:, right - left :].copy()
        strip = values[:, : right - left]
        if row > 0:
            _fade(self._top_overlap[:, left:right], strip, self._ramp, axis=0)
        if row + 1 < len(self._grid.tops):
            self._next_overlap[:, left:right] = strip[bottom - top :]
        self._write(strip[: bottom - top], top, left)

    def _span(self, starts: tuple[int, ...], index: int, side: int, end: int) -> tuple[int, int]:
        """The range, in result pixels, that this tile finishes: up to where its next neighbour begins."""
        first = starts[index] * self._factor
        if index + 1 < len(starts):
            return first, starts[index + 1] * self._factor
        return first, min(first + side * self._factor, end)

    def _new_overlap(self, row: int) -> NDArray[np.float32]:
        if row + 1 == len(self._grid.tops):
            return np.empty((0, 0, 3), np.float32)
        shared = self._grid.tops[row] + self._grid.height - self._grid.tops[row + 1]
        return np.empty((shared * self._factor, self._width, 3), np.float32)

    def _write(self, values: NDArray[np.float32], top: int, left: int) -> None:
        if self._is_gray:
            values = np.asarray(cv2.transform(values, _LUMA), np.float32)
        rounded = np.clip(values * np.float32(np.iinfo(self._result.dtype).max) + np.float32(0.5), 0, None)
        target = self._result[top : top + values.shape[0], left : left + values.shape[1]]
        np.minimum(rounded, np.iinfo(self._result.dtype).max, out=rounded)
        target[...] = rounded.astype(self._result.dtype)


def _fade(before: NDArray[np.float32], values: NDArray[np.float32], ramp: int, axis: int) -> None:
    """Fade from an earlier result into `values` over their shared first rows (axis 0) or columns (axis 1), in place."""
    count = min(before.shape[axis], values.shape[axis])
    first = max(0, (count - ramp) // 2)
    steps = count - 2 * first
    position = (np.arange(steps, dtype=np.float32) + 0.5) / max(steps, 1)
    weight = position * position * (3 - 2 * position)  # smooth step: flat at both ends, w(x) + w(1 - x) = 1
    if axis == 1:
        before, values = before.transpose(1, 0, 2), values.transpose(1, 0, 2)  # [W H 3]
    values[:first] = before[:first]
    part, before = values[first : first + steps], before[first : first + steps]
    part -= before
    part *= weight[:, None, None]
    part += before
