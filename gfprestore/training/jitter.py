"""The published training's colour jitter: brightness, contrast, saturation and hue, in an order that is drawn.

Source: the data set of the GFP-GAN code, which calls torchvision's functions; these are their formulas on numpy arrays.
"""

from __future__ import annotations

import itertools

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]
"""RGB (H, W, 3), 0 to 1."""

Jitter = tuple[float, float, float, float]
"""Factors of brightness, contrast and saturation, 1 changes nothing; turn of the hue in circles, 0 changes nothing."""

NO_JITTER: Jitter = (1.0, 1.0, 1.0, 0.0)

ORDERS = tuple(itertools.permutations(range(4)))
"""Every order in which the four can be done."""

_LUMA = np.array([0.2989, 0.587, 0.114], np.float32)
"""torchvision's weights of R, G and B."""


def jitter_colours(image: Image, jitter: Jitter, order: int) -> Image:
    """Changes brightness, contrast, saturation and hue.

    Args:
        image: RGB float32 (H, W, 3), 0 to 1.
        jitter: By how much.
        order: Which of `ORDERS`.

    Returns:
        The same; `image` itself where the jitter is none.
    """
    if jitter == NO_JITTER:
        return image
    changes = (_change_brightness, _change_contrast, _change_saturation, _turn_hue)
    for index in ORDERS[order]:
        image = np.asarray(np.clip(changes[index](image, jitter[index]), 0, 1), np.float32)
    return image


def _change_brightness(image: Image, factor: float) -> Image:
    return image * np.float32(factor)


def _change_contrast(image: Image, factor: float) -> Image:
    """Away from the mean gray of the whole image, or towards it."""
    mean = (image @ _LUMA).mean()
    return np.asarray(mean + np.float32(factor) * (image - mean), np.float32)


def _change_saturation(image: Image, factor: float) -> Image:
    """Away from every pixel's own gray, or towards it."""
    gray = (image @ _LUMA)[..., None]
    return np.asarray(gray + np.float32(factor) * (image - gray), np.float32)


def _turn_hue(image: Image, circles: float) -> Image:
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)  # hue in degrees
    hsv[..., 0] = (hsv[..., 0] + np.float32(360 * circles)) % 360
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.float32)
