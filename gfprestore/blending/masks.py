"""Where a restored face replaces the photo: smooth weights in the crop frame.

Every mask here is the smoothstep of a distance, so that it has no step and no kink, and is exactly zero well before the
crop's border: whatever the restoration drew there never meets the photo at an edge.
"""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.float32]
Labels = NDArray[np.uint8]

MaskKind = Literal["face", "head", "square"]
"""What is replaced: the face, the face with its hair and neck, or the whole crop."""


class FaceLabel(IntEnum):
    """What a pixel of a parsed face shows: the classes of CelebAMask-HQ, numbered as facexlib's BiSeNet does."""

    BACKGROUND = 0
    SKIN = 1
    LEFT_BROW = 2
    RIGHT_BROW = 3
    LEFT_EYE = 4
    RIGHT_EYE = 5
    GLASSES = 6
    LEFT_EAR = 7
    RIGHT_EAR = 8
    EARRING = 9
    NOSE = 10
    MOUTH = 11
    UPPER_LIP = 12
    LOWER_LIP = 13
    NECK = 14
    NECKLACE = 15
    CLOTHES = 16
    HAIR = 17
    HAT = 18


BORDER_MARGIN = 0.03
"""Part of the crop's side along each border where every mask is exactly zero: generators draw worst at their border."""

BORDER_FEATHER = 0.14
"""Part of the crop's side over which the border mask rises: 72 px of 512, so at most 5.3/255 per crop pixel."""


def smoothstep(ramp: Mask) -> Mask:
    """Bend a linear ramp so that it starts and ends level: 3 t^2 - 2 t^3, with t clipped to 0..1.

    Args:
        ramp: float32, any shape, any range.

    Returns:
        float32 of the same shape, 0..1, once continuously differentiable in `ramp`, slope at most 1.5.
    """
    clipped = np.clip(ramp, 0.0, 1.0)
    return np.asarray(clipped * clipped * (3.0 - 2.0 * clipped), np.float32)


@lru_cache(maxsize=8)
def border_mask(size: int, feather: float = BORDER_FEATHER) -> Mask:
    """Weigh a whole square crop: one inside, falling smoothly to zero before the border, with round corners.

    The weight is the smoothstep of the distance to a rounded square. Its corners are rounder than the feather is wide,
    so the distance has no kink inside the feather.

    Args:
        size: Side S of the crop in pixels.
        feather: Width of the falling edge as a part of `size`, above 0, at most 0.5 - BORDER_MARGIN.

    Returns:
        float32 (S, S), 0..1, read-only; exactly zero within BORDER_MARGIN * S of the border.

    Raises:
        ValueError: The feather does not fit into the crop.
    """
    if not 0.0 < feather <= 0.5 - BORDER_MARGIN:
        raise ValueError(f"feather must be above 0 and at most {0.5 - BORDER_MARGIN}, not {feather}")
    centre = (size - 1) / 2
    offsets = np.abs(np.arange(size, dtype=np.float32) - np.float32(centre))
    half = np.float32(size / 2 - BORDER_MARGIN * size)
    radius = np.float32(feather * size)
    beyond = np.maximum(offsets - (half - radius), 0.0)
    from_straight_part = np.hypot(beyond[:, None], beyond[None, :])
    mask = smoothstep((radius - from_straight_part) / radius)
    mask.setflags(write=False)
    return mask


_OVAL_CENTRE = (0.5, 0.53)
"""Middle of the oval (x, y) in parts of the crop's side: between the eyes and the nose's tip."""

_OVAL_POWER = 2.5
"""Exponent of the superellipse: jaws are squarer than an ellipse."""

_OVALS = {"face": (0.40, 0.48, 0.66), "head": (0.49, 0.56, 0.75)}
"""Half width and half height of the oval in parts of the crop's side, and the part of its radius that is wholly
inside. Chosen by looking: the edge of `face` lies in hair and background, where a restoration is seen least."""

_OVAL_BORDER_FEATHER = 0.1
"""Feather of the border mask below an oval: narrower than alone, so that chins are inside."""


@lru_cache(maxsize=8)
def oval_mask(size: int, kind: MaskKind = "face") -> Mask:
    """Weigh a face where no parsing tells its outline: a superellipse about the mean face, within the border mask.

    Args:
        size: Side S of the crop in pixels; the frame is that of the face template.
        kind: `face` ends in the hair, `head` goes around it, `square` is the border mask alone.

    Returns:
        float32 (S, S), 0..1, read-only, without a step; zero within BORDER_MARGIN * S of the border.
    """
    if kind == "square":
        return border_mask(size)
    half_width, half_height, inner = _OVALS[kind]
    across, down = (
        np.abs((np.arange(size, dtype=np.float32) + np.float32(0.5)) / size - centre) / half
        for centre, half in zip(_OVAL_CENTRE, (half_width, half_height), strict=True)
    )
    radius = (across[None, :] ** _OVAL_POWER + down[:, None] ** _OVAL_POWER) ** (1 / _OVAL_POWER)
    ramp = np.asarray((1.0 - radius) / (1.0 - inner), np.float32)
    mask = smoothstep(ramp) * border_mask(size, _OVAL_BORDER_FEATHER)
    mask.setflags(write=False)
    return mask


_FACE = frozenset(
    {label for label in FaceLabel if FaceLabel.SKIN <= label <= FaceLabel.LOWER_LIP} - {FaceLabel.EARRING}
)
_HEAD = _FACE | {FaceLabel.EARRING, FaceLabel.NECK, FaceLabel.NECKLACE, FaceLabel.HAIR}
_OCCLUDERS = frozenset({FaceLabel.GLASSES, FaceLabel.HAT})
_SURROUNDINGS = frozenset({FaceLabel.BACKGROUND, FaceLabel.CLOTHES, FaceLabel.HAT})

_PARSED_FEATHER = 0.0625
"""Part of the crop's side over which the mask of a parsed region rises: 32 px of 512, so at most 12/255 per pixel."""

_FEWEST_FEATHER_PIXELS = 14.0
"""Width of that edge in pixels of the output, as long as the face leaves room for it: small faces get a softer edge."""

_WIDEST_FEATHER = 0.15
"""Part of the crop's side that the edge takes at most."""

_SMOOTHING_REACH = 3.0
"""Just over the reach of averaging 5 by 5 pixels, along the diagonal."""

_GROWTH = 0.6
"""Part of the feather by which a region grows first, so that the face's own outline is not left blurred."""

_CLOSING = 0.04
"""Widest gap, as a part of the crop's side, that is closed: parsers tear small holes into faces."""

_CORE = (0.5, 0.58, 0.19, 0.21)
"""Centre (x, y) and half axes of the ellipse from the eyes to the mouth: it is face, whatever hair is seen there."""

_LEAST_WORN = 0.005
"""Part of the crop that glasses or a hat cover at least; thin frames measure 0.02 and more."""

_SAME_GLASSES = 0.5
"""Part of the glasses seen in either picture that both must see for them to be the same glasses."""

_LEAST_FACE_IN_CORE = 0.7
"""Part of the core that a parser must call face to be believed. On faces of a few photo pixels it sees next to none."""


def face_mask(
    size: int,
    kind: MaskKind = "face",
    *,
    before: Labels | None = None,
    after: Labels | None = None,
    output_pixels: float = 1.0,
    restore_occluders: bool = False,
    protect_glasses: bool = True,
) -> Mask:
    """Weigh one face by what its pixels show.

    The region to replace is cut down by everything that is to keep its own pixels, and only then made soft, by the
    distance to its complement: so the weight is zero on all of it, and nowhere steeper than the feather.

    Args:
        size: Side S of the crop in pixels.
        kind: `face`, `head` or `square`.
        before: Labels of the photo's crop, `FaceLabel` (S, S); None where there is no parser.
        after: Labels of the restored crop; None judges by `before` alone.
        output_pixels: Pixels of the output per crop pixel.
        restore_occluders: Replace glasses and hats too; otherwise, like hands, they keep their own pixels.
        protect_glasses: Keep the photo's pixels where glasses are in one of `before` and `after` only.

    Returns:
        float32 (S, S), 0..1; the oval of `oval_mask` where there are no labels or no face in them.
    """
    outline = oval_mask(size, kind)
    if before is None:
        return outline
    after = before if after is None else after
    feather = min(max(_PARSED_FEATHER * size, _FEWEST_FEATHER_PIXELS / output_pixels), _WIDEST_FEATHER * size)
    region = np.ones((size, size), np.bool_) if kind == "square" else _parsed_region(after, kind, feather)
    if region is None:
        return outline
    keeping = _keeping(before, after, restore_occluders, protect_glasses)
    return _soften(region & ~keeping & (outline > 0), feather)


def _parsed_region(labels: Labels, kind: MaskKind, feather: float) -> NDArray[np.bool_] | None:
    """Select the face or head that labels show, grown for its soft edge; None where they show no face."""
    size = labels.shape[0]
    core = _core(size)
    parsed = _select(labels, (_HEAD if kind == "head" else _FACE) | _OCCLUDERS) | (
        core & ~_select(labels, _SURROUNDINGS)
    )
    own = _own_part(parsed, core)
    if own[core].mean() < _LEAST_FACE_IN_CORE:
        return None
    return _close_and_grow(own, _CLOSING * size, _GROWTH * feather) & ~(parsed & ~own)


def _keeping(before: Labels, after: Labels, restore_occluders: bool, protect_glasses: bool) -> NDArray[np.bool_]:
    """Select the pixels that stay the photo's own whatever is replaced around them."""
    keeping = np.zeros(before.shape, np.bool_)
    worn_before, worn_after = (_worn(labels, FaceLabel.GLASSES) for labels in (before, after))
    if not restore_occluders:
        keeping |= worn_before | worn_after | _worn(before, FaceLabel.HAT) | _worn(after, FaceLabel.HAT)
    if protect_glasses:
        differing = worn_before != worn_after
        # The same glasses, outlined twice, differ by slivers; invented or removed ones differ in all they cover.
        same = (worn_before & worn_after).sum() > _SAME_GLASSES * (worn_before | worn_after).sum()
        keeping |= _without_slivers(differing) if same else differing
    if _select(before, _FACE | _OCCLUDERS)[_core(before.shape[0])].mean() >= _LEAST_FACE_IN_CORE:
        # What would become a face but shows none, such as a hand.
        keeping |= _without_slivers(_select(before, _SURROUNDINGS) & _select(after, _FACE))
    return keeping


def _without_slivers(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Drop what is narrower than _CLOSING of the side."""
    width = round(_CLOSING * region.shape[0]) | 1  # odd: an even one shifts what it opens
    opened = cv2.morphologyEx(region.astype(np.uint8), cv2.MORPH_OPEN, np.ones((width, width), np.uint8))
    return np.asarray(np.asarray(opened) > 0, np.bool_)


def _worn(labels: Labels, thing: FaceLabel) -> NDArray[np.bool_]:
    """Select glasses or a hat, unless they are specks such as a parser sees in scratches."""
    worn = labels == thing
    return np.asarray(worn if worn.mean() >= _LEAST_WORN else np.zeros_like(worn), np.bool_)


def _select(labels: Labels, chosen: frozenset[FaceLabel]) -> NDArray[np.bool_]:
    table = np.isin(np.arange(256), [int(label) for label in chosen])
    return np.asarray(table[labels], np.bool_)


@lru_cache(maxsize=8)
def _core(size: int) -> NDArray[np.bool_]:
    x, y, half_width, half_height = _CORE
    position = (np.arange(size) + 0.5) / size
    core = ((position[None] - x) / half_width) ** 2 + ((position[:, None] - y) / half_height) ** 2 < 1
    core.setflags(write=False)
    return np.asarray(core, np.bool_)


def _own_part(region: NDArray[np.bool_], core: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep the part of a region that lies most in the core: other faces in the crop are not this one."""
    count, parts = cv2.connectedComponents(region.astype(np.uint8), connectivity=4)
    if count <= 2:
        return region
    votes = np.bincount(parts[core & region], minlength=count)
    return np.asarray(parts == votes.argmax(), np.bool_) if votes.any() else np.zeros_like(region)


def _close_and_grow(region: NDArray[np.bool_], closing: float, growth: float) -> NDArray[np.bool_]:
    """Close gaps narrower than twice `closing` pixels and grow by `growth` pixels."""
    reached = _distance(~region) <= closing + growth
    return np.asarray(_distance(reached) > closing, np.bool_)


def _distance(region: NDArray[np.bool_]) -> Mask:
    """Measure how far inside a region each pixel is, in pixels."""
    return np.asarray(cv2.distanceTransform(region.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5), np.float32)


def _soften(region: NDArray[np.bool_], feather: float) -> Mask:
    """Fall from one inside a region to zero at its edge, over `feather` pixels, without a kink."""
    reach = round(BORDER_MARGIN * region.shape[0])
    inside = np.zeros_like(region)
    inside[reach:-reach, reach:-reach] = region[reach:-reach, reach:-reach]
    distance = _distance(inside)
    # The distance has kinks along the middle of thin parts; averaging takes them off and makes no slope steeper. Its
    # reach is kept free, so that nothing leaks out of the region.
    ramp = (distance - np.float32(_SMOOTHING_REACH)) / np.float32(feather)
    return np.asarray(cv2.blur(smoothstep(ramp), (5, 5)), np.float32)
