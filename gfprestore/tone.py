"""What colour a photo has, and the colour space that faces are blended in.

Blending happens in CIE Lab (D65, from sRGB), whose L follows the eye. A gray photo has no colour to blend, and a toned
one (sepia, cyanotype, a yellowed print) has none beside its tone: its faces take lightness alone from a restoration.
"""

from __future__ import annotations

from enum import Enum
from functools import lru_cache
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from gfprestore.photo import Pixels

FloatImage = NDArray[np.float32]

TONE_SCATTER = 4.0
"""Largest RMS distance, in Lab units, of a toned photo's colours from one smooth curve over lightness. Sepia prints
with stains measure up to 3.5, faded colour prints and autochromes 4.6 and more. In doubt a photo counts as toned, which
keeps its own colours as they are."""

_STATISTICS_SIDE = 64
"""Colours are judged on a copy of at most this side: averaging takes film grain and JPEG's colour noise away."""

_LIGHT_STEPS = 65536
"""Entries of the table from light to sRGB: fine enough for its steepest part, near black."""


class Tone(Enum):
    """How much colour of its own a photo has."""

    GRAY = "gray"
    """All three channels are equal everywhere."""

    TONED = "toned"
    """One colour per lightness, as in sepia."""

    COLOUR = "colour"
    """Colours that lightness does not explain."""


def find_tone(pixels: Pixels) -> Tone:
    """Judge a photo's colours; whole photos judge better than crops.

    Args:
        pixels: RGB uint8 or uint16, (H, W, 3).

    Returns:
        GRAY exactly where R = G = B in every pixel; TONED where a quadratic in L explains a and b.
    """
    if np.array_equal(pixels[..., 0], pixels[..., 1]) and np.array_equal(pixels[..., 1], pixels[..., 2]):
        return Tone.GRAY
    height, width = pixels.shape[:2]
    shrink = min(1.0, _STATISTICS_SIDE / max(height, width))
    size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    small = cast(Pixels, cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))
    colours = pixels_to_lab(small).reshape(-1, 3)  # [H*W C]
    lightness = colours[:, 0] / 50 - 1
    curve = np.stack([np.ones_like(lightness), lightness, lightness**2], axis=1)  # [H*W 3]
    chroma = colours[:, 1:]
    fitted = curve @ np.linalg.lstsq(curve, chroma, rcond=None)[0]
    scatter = float(np.sqrt(((chroma - fitted) ** 2).sum(axis=1).mean()))
    return Tone.TONED if scatter < TONE_SCATTER else Tone.COLOUR


def pixels_to_lab(pixels: Pixels) -> FloatImage:
    """Convert sRGB to CIE Lab, within 0.05 of the definition.

    Args:
        pixels: RGB uint8 or uint16, (H, W, 3).

    Returns:
        float32 (H, W, 3): L 0..100, a and b about -128..127.
    """
    # cv2's conversion from sRGB goes through a coarse table and is off by up to 0.45; its conversion from light is not.
    table = _light_of_level(np.iinfo(pixels.dtype).max + 1)
    # cv2 looks up bytes four times faster than numpy.
    light = cv2.LUT(pixels, table) if pixels.dtype == np.uint8 else table[pixels]
    return np.asarray(cv2.cvtColor(light, cv2.COLOR_LRGB2LAB), np.float32)


def lab_to_unit(lab: FloatImage) -> FloatImage:
    """Convert CIE Lab to sRGB, clipped to what sRGB can show.

    Args:
        lab: float32 (H, W, 3), as `pixels_to_lab` gives it.

    Returns:
        RGB float32 (H, W, 3), 0..1, within 0.0005 of the definition.
    """
    light = np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2LRGB), np.float32)
    np.clip(light, 0, 1, out=light)
    light *= np.float32(_LIGHT_STEPS - 1)
    light += np.float32(0.5)
    return np.asarray(_level_of_light()[light.astype(np.uint16)], np.float32)


@lru_cache(maxsize=2)
def _light_of_level(levels: int) -> FloatImage:
    """Tabulate the sRGB transfer function (IEC 61966-2-1) from level to linear light."""
    level = np.arange(levels) / (levels - 1)
    light = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
    return light.astype(np.float32)


@lru_cache(maxsize=1)
def _level_of_light() -> FloatImage:
    """Tabulate the sRGB transfer function from linear light to level."""
    light = np.arange(_LIGHT_STEPS) / (_LIGHT_STEPS - 1)
    level = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return level.astype(np.float32)
