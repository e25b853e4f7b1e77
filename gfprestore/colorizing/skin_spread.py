"""Carry the colour of faces on over ears, neck and shoulders, where nothing but faces gets its colours.

A colouring generator sees a square about the face, and its colour would end with that square, in a line across the
neck. But by what it colours how, it tells skin from hair, cloth and background. So the skin that it found grows beyond
the square, over the photo's own lightness: from a budget of one, each step takes a little, more away from where a body
is, and most over an edge or onto lightness that in the square was not that of skin. What is left is how much of the
skin's colour counts. That is a geodesic distance, as in Criminisi et al., "Geodesic Image and Video Editing", ACM
Transactions on Graphics 29(5), 2010.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from gfprestore.blending.masks import smoothstep
from gfprestore.colorizing.lab import Floats, rgb_to_lab
from gfprestore.geometry import compose, magnification, scaling
from gfprestore.photo import ColouredFace

# Skin grows in a frame of two crops by two, in small steps; the crop lies in the middle of its upper edge.
_CROP_STEPS = 64
_STEPS = 2 * _CROP_STEPS
_LEFT = (_STEPS - _CROP_STEPS) // 2

# Part of the crop's side along its rim that is not looked at: generators draw worst there.
_RIM = round(0.05 * _CROP_STEPS)
_WITHIN = slice(0, _CROP_STEPS - _RIM), slice(_RIM, _CROP_STEPS - _RIM)
_SEEN = slice(0, _CROP_STEPS - _RIM), slice(_LEFT + _RIM, _LEFT + _CROP_STEPS - _RIM)

# Centre (x, y) and half axes, in parts of the crop's side, of the ellipse from forehead to chin whose skin is learnt
# from; lips and eyes are few in it.
_FACE = (0.5, 0.56, 0.24, 0.3)

# Faces less red than this are not coloured as skin.
_LEAST_RED = 4.0

# Redness as a share of the face's own where skin begins and where it is certain: hair measures 0.5 to 0.6 mostly.
_SKIN_BEGINS, _SKIN_IS_CERTAIN = 0.6, 0.85

# Redness above the face's own that is left outside the face: ears measure 10 to 25 above.
_REDDER = 2.0

# From this height on, in parts of the crop's side, lightness in the crop shows what skin and its surroundings are like.
_JAW = round(0.65 * _CROP_STEPS)

# Lightness is counted in steps of 2 L. What was seen nowhere in the crop is rather not skin.
_LIGHT_STEPS = 51
_FLOORS = 0.002, 0.006

# Likelihood of skin from which on it costs nothing.
_LIKELY = 0.6

# How far, in crop sides, the budget reaches over plain ground.
_REACH = 0.5

# What a step takes where the crop shows no skin, where the lightness is not that of skin, and, as a multiple of a step
# over plain ground, beside the body.
_NOT_SKIN, _UNLIKELY, _BESIDE = 1.0, 0.25, 6.0

# Half the width of face, neck and shoulders at heights down the frame, in crop sides, and how softly it ends.
_HEIGHTS = 0.75, 0.85, 1.0, 1.5
_HALF_WIDTHS = 0.38, 0.18, 0.18, 0.7
_WIDTH_ENDS = 0.15

# Change in L that takes the whole budget, and how much of it per step is only shading.
_EDGE, _SHADING = 13.0, 0.8

# Variance of lightness, in L squared, below which surroundings count as plain.
_PLAIN_VARIANCE = 9.0


@dataclass(frozen=True, eq=False)
class Skin:
    """How a face's skin is coloured."""

    line: NDArray[np.float64]
    """(2, 2): slope over lightness and offset, each of a and b."""

    lightness: tuple[float, float]
    """Darkest and lightest that it is, leaving out what is rare."""

    redness: float
    """Median of a."""

    def colour(self, light: Floats) -> Floats:
        """Give a and b, (..., 2), for lightness (...); skin darker than all seen is the same skin in less light."""
        low, high = self.lightness
        # a and b follow the cube root of light, as L + 16 does.
        shade = np.minimum((light + 16) / (low + 16), 1)
        line = np.clip(light, low, high)[..., None] * self.line[0] + self.line[1]
        return np.asarray(line * shade[..., None], np.float32)


def learn_skin(crop: Floats) -> Skin | None:
    """Learn the skin's colour from a face.

    Args:
        crop: L*a*b* of the coloured crop, (S, S, 3), any S.

    Returns:
        None where the face is not coloured as skin.
    """
    face = crop[_from_face(crop.shape[0]) < 1]
    red = float(np.median(face[:, 1]))
    if red < _LEAST_RED:
        return None
    skin = face[np.abs(face[:, 1] - red) <= red / 4]
    low, high = np.percentile(skin[:, 0], (8, 97))
    basis = np.stack([skin[:, 0], np.ones(len(skin), np.float32)], axis=1)
    line = np.linalg.lstsq(basis.astype(np.float64), skin[:, 1:].astype(np.float64), rcond=None)[0]
    return Skin(line, (float(low), float(high)), red)


def calm_redness(crop: Floats) -> Floats:
    """Make what is redder than the face's skin, and not in the face, as red as that: ears above all.

    Args:
        crop: L*a*b* of the coloured crop, (S, S, 3).

    Returns:
        a and b, (S, S, 2).
    """
    stride = max(1, crop.shape[0] // _CROP_STEPS)
    skin = learn_skin(crop[::stride, ::stride])
    if skin is None:
        return crop[..., 1:]
    outside = smoothstep((_from_face(crop.shape[0]) - np.float32(0.9)) / np.float32(0.2))
    excess = np.maximum(crop[..., 1] - skin.colour(crop[..., 0])[..., 0] - np.float32(_REDDER), 0)
    return np.dstack([crop[..., 1] - outside * excess, crop[..., 2]])


def spread_skin(chroma: Floats, light: Floats, faces: Sequence[ColouredFace]) -> Floats:
    """Give the skin in and around faces their colour.

    Args:
        chroma: a and b of a small copy of a photo, (h, w, 2).
        light: Its lightness, (h, w), 0 to 100.
        faces: Placed in that copy.

    Returns:
        (h, w, 2); where faces meet, between their colours.
    """
    most = np.zeros(light.shape, np.float32)
    total = np.zeros(light.shape, np.float32)
    colours = np.zeros(chroma.shape, np.float32)
    for face in faces:
        small = cv2.resize(face.crop, (_CROP_STEPS, _CROP_STEPS), interpolation=cv2.INTER_AREA)
        crop = rgb_to_lab(np.asarray(small) / np.float32(255))
        skin = learn_skin(crop)
        if skin is not None:
            weight = _find_skin(light, face, crop, skin)
            most = np.maximum(most, weight)
            total += weight
            colours += weight[..., None] * skin.colour(light)
    mean = colours / np.maximum(total, np.float32(1e-6))[..., None]
    return np.asarray(chroma + most[..., None] * (mean - chroma), np.float32)


def _find_skin(light: Floats, face: ColouredFace, crop: Floats, skin: Skin) -> Floats:
    """Weigh each place of the small copy, (h, w), 0 to 1, by how surely it shows this face's skin."""
    to_frame = compose(scaling((face.crop.shape[1], face.crop.shape[0]), (_CROP_STEPS, _CROP_STEPS)), face.to_crop)
    to_frame[0, 2] += _LEFT
    step = 1 / magnification(to_frame)  # of the frame, in pixels of the copy
    smooth = light if step <= 1 else cv2.GaussianBlur(light, (0, 0), step / 2)
    placed = cv2.warpAffine(smooth, to_frame, (_STEPS, _STEPS), borderMode=cv2.BORDER_REPLICATE)
    grown = grow_skin(np.asarray(placed, np.float32), crop, skin)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    weight = np.asarray(cv2.warpAffine(grown, to_frame, (light.shape[1], light.shape[0]), flags=flags), np.float32)
    return weight if step <= 1 else _along_edges(light, weight, step)


def grow_skin(light: Floats, crop: Floats, skin: Skin) -> Floats:
    """Grow the skin that a crop shows beyond it.

    Args:
        light: Lightness of the photo in the frame, (128, 128), 0 to 100; the crop lies in the middle of its upper edge.
        crop: L*a*b* of the coloured crop, (64, 64, 3).
        skin: As `learn_skin` found it in the crop.

    Returns:
        (128, 128), 0 to 1: how surely skin is there.
    """
    red = np.asarray(cv2.GaussianBlur(crop[..., 1], (0, 0), 0.8), np.float32) / np.float32(skin.redness)
    seen = smoothstep((red - np.float32(_SKIN_BEGINS)) / np.float32(_SKIN_IS_CERTAIN - _SKIN_BEGINS))
    # Scratches make gaps.
    seen = np.asarray(cv2.morphologyEx(seen, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)), np.float32)
    cost = _cost(light, seen)
    budget = np.zeros_like(light)
    budget[:_CROP_STEPS, _LEFT : _LEFT + _CROP_STEPS] = seen * (_from_face(_CROP_STEPS) < 1)
    # By turns these reach out in octagons, nearly circles. A third of the crop is on the way from the face to its rim.
    kernels = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)), np.ones((3, 3), np.uint8)
    for step in range(round((_REACH + 1 / 3) * _CROP_STEPS)):
        budget = np.maximum(budget, np.asarray(cv2.dilate(budget, kernels[step % 2]), np.float32) - cost)
    return smoothstep(budget)


def _cost(light: Floats, seen: Floats) -> Floats:
    """What a step onto each place of the frame takes: by what the crop shows where it does, else by lightness."""
    plain = np.float32(1 / (_REACH * _CROP_STEPS))
    smooth = np.asarray(cv2.medianBlur(light, 3), np.float32)
    slopes = [cv2.Sobel(smooth, cv2.CV_32F, dx, 1 - dx, scale=1 / 8) for dx in (0, 1)]
    edges = np.maximum(np.hypot(*slopes) - np.float32(_SHADING), 0) / np.float32(_EDGE)
    jaw = slice(_JAW, None)
    likely = _likelihood(light[_SEEN][jaw], seen[_WITHIN][jaw])
    unlikely = 1 - np.interp(smooth, np.arange(_LIGHT_STEPS) * 2, likely) / _LIKELY
    cost = plain + edges + np.float32(_UNLIKELY) * np.maximum(unlikely, 0)
    cost[_SEEN] = np.float32(_NOT_SKIN) * (1 - seen[_WITHIN])
    return np.asarray(cost + plain * np.float32(_BESIDE) * _beside_body(), np.float32)


def _likelihood(light: Floats, seen: Floats) -> Floats:
    """How likely each lightness is that of skin, (51,), by places (h, w) where it is known: `seen` is 1 on skin."""
    level = np.clip(np.rint(light / 2), 0, _LIGHT_STEPS - 1).astype(np.intp).ravel()
    shares = []
    for weight, floor in zip((seen.ravel(), 1 - seen.ravel()), _FLOORS, strict=True):
        counted = np.bincount(level, weight, _LIGHT_STEPS).astype(np.float32)[None]
        spread = np.asarray(cv2.GaussianBlur(counted, (0, 0), 2, borderType=cv2.BORDER_CONSTANT), np.float32)[0]
        shares.append(spread / max(float(spread.sum()), 1.0) + np.float32(floor))
    return np.asarray(shares[0] / (shares[0] + shares[1]), np.float32)


@lru_cache(maxsize=1)
def _beside_body() -> Floats:
    """0 where face, neck and shoulders are expected in the frame, 1 beside."""
    place = (np.arange(_STEPS) + 0.5) / _CROP_STEPS
    width = np.interp(place, _HEIGHTS, _HALF_WIDTHS)
    beside = np.clip((np.abs(place - 1)[None] - width[:, None]) / _WIDTH_ENDS, 0, 1).astype(np.float32)
    beside.setflags(write=False)
    return np.asarray(beside, np.float32)


@lru_cache(maxsize=4)
def _from_face(side: int) -> Floats:
    """Distance from the middle of the face in a crop, (S, S): 1 on the ellipse about it."""
    x, y, half_width, half_height = _FACE
    place = (np.arange(side) + 0.5) / side
    distance = np.hypot(((place - x) / half_width)[None], ((place - y) / half_height)[:, None]).astype(np.float32)
    distance.setflags(write=False)
    return np.asarray(distance, np.float32)


def _along_edges(light: Floats, weight: Floats, radius: float) -> Floats:
    """Let a coarse weight, (h, w), end where the lightness does: guided filter, see `gfprestore.colorizing.chroma`."""
    side = 2 * round(2 * radius) + 1

    def mean(values: Floats) -> Floats:
        return np.asarray(cv2.blur(values, (side, side)), np.float32)

    centred = light - np.float32(50)  # since variance is a difference of squares
    light_mean, weight_mean = mean(centred), mean(weight)
    variance: Floats = np.maximum(mean(centred * centred) - light_mean * light_mean, 0)
    slope: Floats = (mean(centred * weight) - light_mean * weight_mean) / (variance + np.float32(_PLAIN_VARIANCE))
    offset: Floats = weight_mean - slope * light_mean
    fitted = mean(slope) * centred + mean(offset)
    return np.asarray(np.clip(fitted, 0, 1), np.float32)
