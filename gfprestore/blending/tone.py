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

from gfprestore.blending.scan_margin import find_prints
from gfprestore.photo import Pixels
from gfprestore.resize import has_equal_channels

FloatImage = NDArray[np.float32]

JUDGED_SIDE = 128
"""Longest side of the copy that is judged: averaging takes film grain, JPEG's colour noise and the coloured grain of
autochromes away."""

# In a toned print chroma follows from lightness: so far off, in Lab units, it may be in 90 and in 97 of 100 places.
# Sepia prints with stains measure up to 4.1 and 9.7, colour photos and autochromes 7.3 and more; what lies between is
# faint.
_TONED_90, _FAINT_90 = 5.5, 6.5
_TONED_97 = 12.0

# Prints whose scan as a whole is not toned are toned by themselves only if they are so beyond doubt.
_SURELY_TONED_90 = 4.5
_FIT_ROUNDS = 5
_FIT_SCALE = 3.0


class Tone(Enum):
    """How much colour of its own a photo has."""

    GRAY = "gray"
    """All three channels are equal everywhere."""

    TONED = "toned"
    """One colour per lightness, as in sepia."""

    FAINT = "faint"
    """Colours so few or so faint that they may be the stains of a toned print. In doubt the photo keeps what it has:
    faces are blended as in a toned one, and it is not coloured."""

    COLOUR = "colour"
    """Colours that lightness does not explain."""


def find_tone(pixels: Pixels) -> Tone:
    """Judge a photo's colours; whole photos judge better than crops.

    Args:
        pixels: RGB uint8 or uint16, (H, W, 3).

    Returns:
        GRAY exactly where R = G = B in every pixel; TONED where a cubic in L explains a and b.
    """
    if has_equal_channels(pixels):
        return Tone.GRAY
    height, width = pixels.shape[:2]
    shrink = min(1.0, JUDGED_SIDE / max(height, width))
    size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    small = cast(Pixels, cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))
    return judge_chroma(pixels_to_lab(small))


def judge_chroma(lab: FloatImage) -> Tone:
    """Judge a small copy of a photo, no larger than 128 pixels or so.

    A scan is judged by the prints on it: a gray bed beside sepia is of another tone, and a white one beside colours
    makes them few.

    Args:
        lab: float32 (H, W, 3).

    Returns:
        TONED, FAINT or COLOUR; a gray photo counts as toned.
    """
    smooth = np.asarray(cv2.blur(lab, (3, 3)), np.float32)
    whole = _judge_colours(smooth.reshape(-1, 3), _TONED_90)
    prints = find_prints(lab)
    if prints is None:
        return whole
    return _judge_colours(smooth[prints], _TONED_90 if whole is Tone.TONED else _SURELY_TONED_90)


def _judge_colours(lab: FloatImage, toned_90: float) -> Tone:
    """Judge colours (N, 3), toned if 90 of 100 are no further than `toned_90` from one tone."""
    off = _off_tone(lab)
    most, nearly_all = np.percentile(off, (90, 97))
    if nearly_all >= _TONED_97 or most >= _FAINT_90:
        return Tone.COLOUR
    return Tone.TONED if most < toned_90 else Tone.FAINT


def _off_tone(lab: FloatImage) -> NDArray[np.float64]:
    """Distance of each colour (N, 3) from the one tone, a cubic in lightness, that fits most of them: stains apart."""
    light = lab[:, 0].astype(np.float64) / 100
    basis = np.stack([light**power for power in range(4)], axis=1)  # [N 4]
    chroma = lab[:, 1:].astype(np.float64)
    weight = np.ones(len(lab))
    for _ in range(_FIT_ROUNDS):
        fit = np.linalg.lstsq(basis * weight[:, None], chroma * weight[:, None], rcond=None)[0]
        off: NDArray[np.float64] = np.linalg.norm(chroma - basis @ fit, axis=1)
        weight = (1 + (off / _FIT_SCALE) ** 2) ** -0.5
    return off


def pixels_to_lab(pixels: Pixels) -> FloatImage:
    """Convert sRGB to CIE Lab, within 0.05 of the definition.

    Args:
        pixels: RGB uint8 or uint16, (H, W, 3).

    Returns:
        float32 (H, W, 3): L 0..100, a and b about -128..127.
    """
    # cv2's conversion from sRGB goes through a coarse table and is off by up to 0.45; its conversion from light is not.
    table = _light_of_level(np.iinfo(pixels.dtype).max + 1)
    # cv2 looks up bytes four times faster than numpy, and numpy twice as fast where it need not refuse an index.
    light = cv2.LUT(pixels, table) if pixels.dtype == np.uint8 else np.take(table, pixels, mode="clip")
    return np.asarray(cv2.cvtColor(light, cv2.COLOR_LRGB2LAB), np.float32)


def lab_to_unit(lab: FloatImage) -> FloatImage:
    """Convert CIE Lab to sRGB, clipped to what sRGB can show.

    Args:
        lab: float32 (H, W, 3), as `pixels_to_lab` gives it.

    Returns:
        RGB float32 (H, W, 3), 0..1, within 0.0005 of the definition.
    """
    unit = np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), np.float32)
    return np.clip(unit, 0, 1, out=unit)


@lru_cache(maxsize=2)
def _light_of_level(levels: int) -> FloatImage:
    """Tabulate the sRGB transfer function (IEC 61966-2-1) from level to linear light."""
    level = np.arange(levels) / (levels - 1)
    light = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
    return light.astype(np.float32)
