"""The sizes at which a photo is searched for faces, and the way back from them to the photo's own pixels."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gfprestore.colour import to_8_bits
from gfprestore.detection.priors import STRIDE
from gfprestore.geometry import Transform, compose, scaling
from gfprestore.photo import DetectedFace, Pixels
from gfprestore.resize import resize_photo

PADDING = np.array([123, 117, 104], np.uint8)
"""Colour around a photo up to a multiple of the stride: the network's mean, so that it counts as zero, like the
convolutions' own padding."""


@dataclass(frozen=True)
class View:
    """One of the sizes at which a photo is searched."""

    pixels: int
    """The photo is shrunk to at most this many pixels. An area, so that a panorama is not shrunk to a thread."""

    largest_scale: float
    """The photo is enlarged at most by this factor."""

    largest_face: float
    """Larger boxes, in pixels of this view, are left to the coarser ones: here they are mostly parts of a face."""

    least_photo: int = 0
    """Only photos of at least this many pixels are searched at this size."""

    least_score: float = 0.0
    """Faces need this score as well as the user's: a large view of a large photo shows much that might be one."""

    tile_side: int | None = None
    """A larger view is cut into overlapping tiles of at most this side; None looks at it whole."""


COARSE_VIEW = View(pixels=640 * 480, largest_scale=1.0, largest_face=np.inf)
"""Where the largest faces are found."""

TILED_VIEW = View(
    pixels=6000 * 4000,
    largest_scale=1.0,
    largest_face=160.0,
    least_photo=2000 * 1500,
    least_score=0.8,
    tile_side=3008,
)
"""Where the small faces of a large photo are found: at its own size up to 24 megapixels, which bounds the time."""

VIEWS = (TILED_VIEW, View(pixels=1280 * 960, largest_scale=2.0, largest_face=320.0), COARSE_VIEW)
"""Finest first: each is made from the one before. The largest face of one is well above the least of the next."""

TILE_OVERLAP = 1.5
"""What tiles share, in sides of the view's largest face: every face lies whole, with its surroundings, in the tile in
whose own part its middle lies."""

Part = tuple[float, float, float, float]
"""Left, top, right, bottom in pixel centres of a look."""

ALL: Part = (-np.inf, -np.inf, np.inf, np.inf)


@dataclass(frozen=True, eq=False)
class Look:
    """A photo at one size, ready for the network."""

    pixels: NDArray[np.uint8]
    """RGB (H, W, 3), H and W multiples of the stride; the photo, or the tile of it, lies at the top left."""

    size: tuple[int, int]
    """(W, H) of the photo or tile in it."""

    to_photo: Transform
    """Transform (2, 3): pixel centres of the view -> pixel centres of the photo."""

    view: View
    """The size that it was made for."""

    own_part: Part = ALL
    """Faces whose middle lies elsewhere are left to the neighbouring tiles."""


def make_looks(photo: Pixels, views: Sequence[View]) -> list[Look]:
    """Resizes a photo for each view that it is large enough for.

    Args:
        photo: RGB, uint8 or uint16, (H, W, 3).
        views: Finest first.
    """
    height, width = photo.shape[:2]
    looks = []
    seen = photo
    for view in views:
        if width * height < view.least_photo:
            continue
        scale = min(view.largest_scale, (view.pixels / (width * height)) ** 0.5)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        if size != (seen.shape[1], seen.shape[0]):
            seen = resize_photo(seen, size, "linear")
        to_photo = scaling(size, (width, height))
        for left, top, right, bottom, own_part in cut_tiles(size, view):
            to_view = np.array([[1.0, 0.0, left], [0.0, 1.0, top]])
            tile = _pad(to_8_bits(seen[top:bottom, left:right]))
            looks.append(Look(tile, (right - left, bottom - top), compose(to_photo, to_view), view, own_part))
    return looks


def cut_tiles(size: tuple[int, int], view: View) -> list[tuple[int, int, int, int, Part]]:
    """Cuts a view into tiles of one size.

    Args:
        size: (W, H) of the photo in the view.
        view: How large tiles are and faces may be.

    Returns:
        Left, top, right, bottom of each tile in whole pixels of the view, and its own part in pixels of the tile. Each
        point lies in one own part, or on the line between two.
    """
    columns, rows = (_cut_axis(length, view) for length in size)
    return [
        (left, top, right, bottom, (own_left, own_top, own_right, own_bottom))
        for top, bottom, own_top, own_bottom in rows
        for left, right, own_left, own_right in columns
    ]


def _cut_axis(length: int, view: View) -> list[tuple[int, int, float, float]]:
    """Start and end of each tile along one axis, and of its own part counted from the start."""
    if view.tile_side is None or length <= view.tile_side:
        return [(0, length, -np.inf, np.inf)]
    overlap = round(TILE_OVERLAP * view.largest_face)
    count = -(-(length - overlap) // (view.tile_side - overlap))
    side = -(-(length + (count - 1) * overlap) // count)
    starts = [round(index * (length - side) / (count - 1)) for index in range(count)]
    # Halfway through what two tiles share.
    lines = [(first + side + second) / 2 - 0.5 for first, second in itertools.pairwise(starts)]
    limits = [-np.inf, *lines, np.inf]
    return [
        (start, start + side, low - start, high - start)
        for start, (low, high) in zip(starts, itertools.pairwise(limits), strict=True)
    ]


def _pad(photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = photo.shape[:2]
    canvas = np.empty((-(-height // STRIDE) * STRIDE, -(-width // STRIDE) * STRIDE, 3), np.uint8)
    canvas[:height, :width] = photo
    canvas[height:] = PADDING
    canvas[:height, width:] = PADDING
    return canvas


def turn_photo(photo: Pixels, turns: int) -> Pixels:
    """Returns a photo turned counter-clockwise by quarter turns, as `np.rot90` counts them; C-contiguous."""
    return np.ascontiguousarray(np.rot90(photo, turns)).view(photo.dtype)


def turn_face_back(face: DetectedFace, turns: int, size: tuple[int, int]) -> DetectedFace:
    """Brings a face found in `turn_photo(photo, turns)` back into the photo's own frame.

    Args:
        face: In pixel centres of the turned photo.
        turns: Quarter turns counter-clockwise.
        size: (W, H) of the photo, not turned.
    """
    points = np.concatenate([face.box.reshape(2, 2), face.landmarks])  # [4] -> [2 2]; [7 2]
    for done in range(turns % 4, 0, -1):
        # A quarter turn sends (x, y) of a photo w wide to (y, w - 1 - x).
        width_before = size[0] if done % 2 else size[1]
        points = np.stack([width_before - 1 - points[:, 1], points[:, 0]], axis=1)
    box = np.concatenate([points[:2].min(axis=0), points[:2].max(axis=0)])
    return DetectedFace(box, points[2:], face.score)
