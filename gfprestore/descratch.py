"""Find and fill scratches, cracks, folds and dust of old prints, with classical means.

What damage looks like, and so what is looked for: it is thin, brighter than both its sides, and runs on (a scratch, a
crack, a fold) or lies alone on plain ground (dust). Hair, lace and knitting are thin and bright as well, but among many
of their like: the threshold rises with the busyness of the surroundings. A catchlight in an eye is a speck, but not on
plain ground, and teeth are no lines. A line along the photo's own edge is the border of the print. Damage is looked for
in a copy of bounded size and filled at full size.

What this cannot tell from damage: lettering, railings and mouldings of buildings, and bright seams on plain cloth. So
it is for damaged prints, and only when asked for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from gfprestore.photo import Pixels
from gfprestore.resize import resize_photo

Plane = NDArray[np.float32]
Mask = NDArray[np.bool_]

# Longest side of the copy that is searched. A scratch of a scanned print is some tenths of a millimetre wide, two
# pixels or more at this size.
_SEARCH_SIDE = 1600

# Half the width of the widest line, as a share of the mean side.
_LINE_RADIUS_SHARE = 0.003
_LEAST_LINE_RADIUS = 2

_ANGLES = 12

# Least contrast of a line, in shares of the full range, and in multiples of its surroundings' fine structure: of their
# thin bright lines, each counted up to the cap, and of their edges.
_STRONG_CONTRAST = 0.065
_BUSYNESS_CAP = 0.10
_LINE_BUSYNESS = 3.5
_EDGE_BUSYNESS = 2.2
_WEAK_SHARE = 0.45

# More of the surroundings, this many times as wide, than even a shattered print has under its cracks.
_CROWDED = 0.23
_CROWD_WINDOWS = 4

# A line must be this share of the mean side long.
_LENGTH_SHARE = 0.06
# Width of the strip along the photo's edges where a line is no damage, as a share of the mean side.
_RIM_SHARE = 0.02
# A line is at least this many times as long as wide.
_ELONGATION = 4.0

# How much of its length a line must be above the strong threshold.
_SEED_SHARE = 0.15

_DUST_CONTRAST = 0.09
_DUST_PLAINNESS = 5.0
_GROUND_SHARE = 0.88

# Pixels of context around each block that is filled.
_FILL_MARGIN = 24
_FILL_BLOCK = 512
_FILL_RADIUS = 3.0


@dataclass(frozen=True)
class _Scale:
    """Lengths in pixels of the searched copy."""

    radius: int
    """Half the width of the widest line."""

    length: float
    """Least length of a line."""

    window: int
    """Side of the surroundings that a line is compared with, odd."""

    rim: int
    """How far in from the photo's edges a line may be the print's own border."""


def find_scratches(pixels: Pixels) -> Mask:
    """Find damage.

    Args:
        pixels: RGB, uint8 or uint16, (H, W, 3).

    Returns:
        (H, W), true on scratches, cracks, folds and dust, with a rim of about a pixel.
    """
    height, width = pixels.shape[:2]
    shrink = min(1.0, _SEARCH_SIDE / max(height, width))
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    luma = _luma(pixels if shrink == 1 else resize_photo(pixels, size))
    side = math.sqrt(size[0] * size[1])
    scale = _Scale(
        radius=max(_LEAST_LINE_RADIUS, round(_LINE_RADIUS_SHARE * side)),
        length=max(10.0, _LENGTH_SHARE * side),
        window=2 * round(0.03 * side) + 1,
        rim=max(1, round(_RIM_SHARE * side)),
    )
    # Damage is nearly always bright, since the paper shows, and brows, lips and seams are dark lines: so of what is
    # dark only lone specks on plain ground count.
    found = _find_lines(luma, scale) | _find_dust(luma, scale) | _find_dust(1 - luma, scale)
    rim = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
    mask = cv2.dilate(found.astype(np.uint8), rim)
    if shrink < 1:
        mask = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST)
    return mask.astype(np.bool_)


def _luma(pixels: Pixels) -> Plane:
    values = pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)
    return np.asarray(cv2.cvtColor(values, cv2.COLOR_RGB2GRAY), np.float32)


def _open(luma: Plane, scale: _Scale) -> tuple[Plane, Plane]:
    """The photo without its thin bright structures, and those structures."""
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * scale.radius + 1,) * 2)
    smooth = cv2.GaussianBlur(luma, (0, 0), 0.6)
    opened = np.asarray(cv2.morphologyEx(smooth, cv2.MORPH_OPEN, disc), np.float32)
    return opened, smooth - opened


def _busyness(opened: Plane, top_hat: Plane, scale: _Scale) -> Plane:
    """How much fine structure the surroundings of each pixel have, in shares of the full range.

    Either many thin lines, each counted up to a limit so that a single one does not hide itself, or many edges that
    remain once the thin lines are gone.
    """
    window = (scale.window, scale.window)
    lines = cv2.blur(np.minimum(top_hat, _BUSYNESS_CAP), window)
    edges = cv2.blur(cv2.morphologyEx(opened, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)), window)
    return np.asarray(np.maximum(_LINE_BUSYNESS * lines, _EDGE_BUSYNESS * edges), np.float32)


def _find_lines(luma: Plane, scale: _Scale) -> Mask:
    """Long thin components, brighter than both their sides, above a weak threshold and in part above a strong one."""
    opened, top_hat = _open(luma, scale)
    line = _line_strength(top_hat, scale)
    strong = np.maximum(_STRONG_CONTRAST, _busyness(opened, top_hat, scale))
    weak = ((line > _WEAK_SHARE * strong) & (top_hat > _WEAK_SHARE * strong)).astype(np.uint8)
    weak &= ~_crowded(weak, scale)
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(weak, connectivity=8)
    seeds = np.bincount(labels[(line > strong) & (weak > 0)], minlength=count)
    extent = np.hypot(boxes[:, cv2.CC_STAT_WIDTH], boxes[:, cv2.CC_STAT_HEIGHT])
    is_thin = extent * extent >= _ELONGATION * boxes[:, cv2.CC_STAT_AREA]
    at_rim = np.bincount(labels[_rim(labels.shape, scale)], minlength=count) > 0.5 * boxes[:, cv2.CC_STAT_AREA]
    keep = (extent >= scale.length) & is_thin & (seeds >= _SEED_SHARE * extent) & ~at_rim
    keep[0] = False
    return np.asarray(keep[labels], np.bool_)


def _rim(shape: tuple[int, ...], scale: _Scale) -> Mask:
    """Where lines are the print's own edge or its white border, which there is nothing to fill from."""
    rim = np.ones(shape, np.bool_)
    rim[scale.rim : -scale.rim, scale.rim : -scale.rim] = False
    return rim


def _crowded(lines: NDArray[np.uint8], scale: _Scale) -> Mask:
    """Where lines cover so much of the wider surroundings that they are a pattern: stripes, a fence, a plaid."""
    side = _CROWD_WINDOWS * scale.window
    return np.asarray(cv2.blur(lines.astype(np.float32), (side, side)) > _CROWDED, np.bool_)


def _line_strength(top_hat: Plane, scale: _Scale) -> Plane:
    """Largest mean of the top hat over short segments through each pixel, over all directions."""
    reach = max(5, round(scale.length / 4))
    best = np.zeros_like(top_hat)
    for index in range(_ANGLES):
        angle = math.pi * index / _ANGLES
        kernel = np.zeros((2 * reach + 1,) * 2, np.float32)
        end = round(reach * math.cos(angle)), round(reach * math.sin(angle))
        cv2.line(kernel, (reach - end[0], reach - end[1]), (reach + end[0], reach + end[1]), 1.0)
        np.maximum(best, cv2.filter2D(top_hat, cv2.CV_32F, kernel / kernel.sum()), out=best)
    return best


def _find_dust(luma: Plane, scale: _Scale) -> Mask:
    """Small bright components on plain ground: specks, and marks too short for a line."""
    _, top_hat = _open(luma, scale)
    candidates = (top_hat > _DUST_CONTRAST).astype(np.uint8)
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(candidates, connectivity=8)
    keep = np.zeros(count, np.bool_)
    for index in range(1, count):
        left, top, width, height, area = (int(number) for number in boxes[index])
        extent = math.hypot(width, height)
        if max(width, height) > 2 * scale.radius + 1 and (extent > scale.length or extent**2 < _ELONGATION * area):
            continue
        around = (
            slice(max(0, top - 3 * scale.radius), top + height + 3 * scale.radius),
            slice(max(0, left - 3 * scale.radius), left + width + 3 * scale.radius),
        )
        own, is_ground = labels[around] == index, labels[around] == 0
        # Among many of its like it is a pattern: a knitted jersey, foliage.
        is_lone = is_ground.sum() > _GROUND_SHARE * (~own).sum()
        keep[index] = is_lone and top_hat[around][own].max() > _DUST_PLAINNESS * luma[around][is_ground].std()
    return np.asarray(keep[labels], np.bool_)


def fill_scratches(pixels: Pixels, mask: Mask) -> Pixels:
    """Fill damage from its surroundings, with their grain.

    Args:
        pixels: RGB, uint8 or uint16, (H, W, 3).
        mask: (H, W), true where to fill.

    Returns:
        A new array; outside the mask the same pixels, bit for bit, and exactly gray where `pixels` is.
    """
    result = pixels.copy()
    height, width = mask.shape
    for top in range(0, height, _FILL_BLOCK):
        for left in range(0, width, _FILL_BLOCK):
            block = slice(top, min(top + _FILL_BLOCK, height)), slice(left, min(left + _FILL_BLOCK, width))
            if not mask[block].any():
                continue
            outer = (
                slice(max(0, top - _FILL_MARGIN), min(block[0].stop + _FILL_MARGIN, height)),
                slice(max(0, left - _FILL_MARGIN), min(block[1].stop + _FILL_MARGIN, width)),
            )
            filled = _fill_block(pixels[outer], mask[outer])
            inner = (
                slice(top - outer[0].start, block[0].stop - outer[0].start),
                slice(left - outer[1].start, block[1].stop - outer[1].start),
            )
            result[block][mask[block]] = filled[inner][mask[block]]
    return result


def _fill_block(pixels: Pixels, mask: Mask) -> Pixels:
    holes = mask.astype(np.uint8)
    # OpenCV fills 16 bit one plane at a time.
    planes = [
        cv2.inpaint(np.ascontiguousarray(pixels[..., channel]), holes, _FILL_RADIUS, cv2.INPAINT_TELEA)
        for channel in range(3)
    ]
    filled = np.stack(planes, axis=2).astype(np.float32) + _borrowed_grain(pixels.astype(np.float32), mask)
    top = np.iinfo(pixels.dtype).max
    result: Pixels = np.clip(filled + np.float32(0.5), 0, top).astype(pixels.dtype)
    return result


def _borrowed_grain(values: Plane, mask: Mask) -> Plane:
    """Fine structure for the holes, taken from the nearest whole places to their sides: a smooth filling would show."""
    whole = (~mask).astype(np.float32)[..., None]
    weight = cv2.GaussianBlur(whole, (0, 0), 1.5)[..., None] + np.float32(1e-6)
    fine = (values - cv2.GaussianBlur(values * whole, (0, 0), 1.5) / weight) * whole
    limit = 2.5 * np.median(np.abs(fine[~mask])) if (~mask).any() else 0.0
    fine = np.clip(fine, -limit, limit)
    grain = np.zeros_like(values)
    missing = mask.copy()
    for distance in (4, 7, 11, 16, 22):
        for shift in ((0, distance), (0, -distance), (distance, 0), (-distance, 0)):
            source = np.roll(fine, shift, axis=(0, 1))
            usable = missing & np.roll(~mask, shift, axis=(0, 1))
            grain[usable] = source[usable]
            missing &= ~usable
    return grain
