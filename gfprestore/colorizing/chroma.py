"""Enlarge a small estimate of chroma to a whole photo, along the photo's own edges.

Around each pixel of the small copy chroma is written as a linear function of lightness, as in a guided filter (He, Sun
and Tang, "Guided Image Filtering", TPAMI 2013; "Fast Guided Filter", 2015), but one that goes through the estimate
itself: the estimate is not blurred once more, and what the full-size lightness adds to the small one adds chroma along
the same line. So colour neither forms blocks nor runs over edges. No more than a band of rows is in float at once.
"""

from __future__ import annotations

import cv2
import numpy as np

from gfprestore.colorizing.lab import Floats, fit_chroma, lightness, rgb_to_lab
from gfprestore.photo import Pixels

# Radius of the surroundings as a share of the small copy's longer side, and the variance of lightness, in L squared,
# below which they count as plain. Larger radii came out worse on photos whose true colours are known.
_RADIUS_SHARE = 1 / 256
_PLAIN_VARIANCE = 16.0

_BAND_ROWS = 256


def guide_size(width: int, height: int, side: int) -> tuple[int, int]:
    """Size (w, h) of a small copy no larger than `side`; never larger than the photo."""
    shrink = min(1.0, side / max(width, height))
    return max(1, round(width * shrink)), max(1, round(height * shrink))


def fit_guided(guide: Floats, chroma: Floats) -> tuple[Floats, Floats]:
    """Write chroma as slope * lightness + offset around each pixel.

    Args:
        guide: Lightness of the small copy, (h, w), 0 to 100.
        chroma: a and b, (h, w, 2).

    Returns:
        Slope and offset, each float32 (h, w, 2).
    """
    side = 2 * max(1, round(_RADIUS_SHARE * max(guide.shape))) + 1

    def mean(values: Floats) -> Floats:
        return np.asarray(cv2.blur(values, (side, side)), np.float32).reshape(values.shape)

    light = guide - np.float32(50)  # centred, since variance is a difference of squares
    light_mean = mean(light)
    variance = np.maximum(mean(light * light) - light_mean * light_mean, 0)
    covariance = mean(light[..., None] * chroma) - light_mean[..., None] * mean(chroma)
    steepness: Floats = (covariance / (variance + np.float32(_PLAIN_VARIANCE))[..., None]).astype(np.float32)
    slope = mean(steepness)
    return slope, chroma - slope * guide[..., None]


def apply_chroma(pixels: Pixels, guide: Floats, chroma: Floats, strength: float = 1.0) -> Pixels:
    """Give a photo new chroma and keep its lightness.

    Args:
        pixels: RGB, uint8 or uint16, (H, W, 3).
        guide: Lightness of a small copy of `pixels`, (h, w).
        chroma: a and b for that copy, (h, w, 2).
        strength: Share of the new chroma, 0 to 1.

    Returns:
        RGB of the shape and dtype of `pixels`.
    """
    height, width = pixels.shape[:2]
    slope, offset = fit_guided(guide, chroma)
    # Enlarged along rows at once and down the columns band by band: cv2 cannot resize a part of an image in place.
    wide = np.asarray(
        cv2.resize(np.dstack([slope, offset]), (width, guide.shape[0]), interpolation=cv2.INTER_LINEAR), np.float32
    )
    result = np.empty_like(pixels)
    top_value = np.float32(np.iinfo(pixels.dtype).max)
    for top in range(0, height, _BAND_ROWS):
        rows = slice(top, min(top + _BAND_ROWS, height))
        rgb = pixels[rows].astype(np.float32) / top_value
        coefficients = _rows_at(wide, np.arange(rows.start, rows.stop), height)
        light = lightness(rgb)
        new = coefficients[..., :2] * light[..., None] + coefficients[..., 2:]
        if strength < 1:
            own = rgb_to_lab(rgb)[..., 1:]
            new = own + np.float32(strength) * (new - own)
        coloured = fit_chroma(np.concatenate([light[..., None], new], axis=2))
        result[rows] = (coloured * top_value + np.float32(0.5)).astype(pixels.dtype)
    return result


def _rows_at(small: Floats, rows: np.ndarray, height: int) -> Floats:
    """Rows of `small` enlarged linearly to `height` rows, at pixel centres."""
    position = np.clip((rows + 0.5) * small.shape[0] / height - 0.5, 0, small.shape[0] - 1)
    above = position.astype(np.intp)
    below = np.minimum(above + 1, small.shape[0] - 1)
    share = (position - above).astype(np.float32)[:, None, None]
    result: Floats = small[above] + share * (small[below] - small[above])
    return result
