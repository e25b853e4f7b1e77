"""Colours for what opacity hides, so that none of it comes to light where a photo is resampled.

Colours and opacity are resampled apart. Hidden pixels are often black, whatever stands beside them, and would draw a
dark rim along every transparent edge.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from gfprestore.photo import Pixels

_LEAST_REACH = 16
"""Photo pixels. Lanczos mixes colours from 4; what networks draw depends on more, though little."""

_BAND_ROWS = 512


def fill_hidden(pixels: Pixels, alpha: Pixels, scale: float) -> Pixels:
    """Gives hidden pixels the colour of the nearest one that shows, as far as resampling reaches.

    Beside the result it needs a band of rows.

    Args:
        pixels: RGB, uint8 or uint16, (H, W, 3).
        alpha: Opacity, (H, W).
        scale: Factor by which both sides will grow.

    Returns:
        The same array where nothing is hidden, else a new one, in which all that shows is as it was.
    """
    if alpha.all():
        return pixels
    # Half as much again: a pixel of a smaller photo is the mean of a square.
    reach = max(_LEAST_REACH, math.ceil(1.5 / scale) + 1)
    result = pixels.copy()
    for top in range(0, len(pixels), _BAND_ROWS):
        # The rows around the band that its pixels may take colours from.
        start = max(0, top - reach)
        window = slice(start, top + _BAND_ROWS + reach)
        filled = _filled(pixels[window], alpha[window] == 0, reach)
        result[top : top + _BAND_ROWS] = filled[top - start : top - start + _BAND_ROWS]
    return result


def _filled(pixels: Pixels, is_hidden: NDArray[np.bool_], reach: int) -> Pixels:
    if is_hidden.all() or not is_hidden.any():
        return pixels
    distances, labels = cv2.distanceTransformWithLabels(
        is_hidden.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    near = np.flatnonzero(is_hidden & (distances <= reach))
    # Pixels that show are labelled from 1 on, row by row.
    nearest = np.flatnonzero(~is_hidden)[labels.ravel()[near] - 1]
    result = pixels.copy()
    colours = result.reshape(-1, 3)  # [H*W 3]
    colours[near] = colours[nearest]
    return result
