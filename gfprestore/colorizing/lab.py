"""sRGB to CIE L*a*b* and back, in closed form.

IEC 61966-2-1 (the sRGB curve and primaries) and CIE 15 (L*a*b*), white point D65, 2 degree observer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

# Linear RGB to XYZ, rows X Y Z, each divided by the white point's own coordinate: white becomes (1, 1, 1).
_TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
_TO_RELATIVE_XYZ = (_TO_XYZ / _TO_XYZ.sum(axis=1, keepdims=True)).astype(np.float32)
_FROM_RELATIVE_XYZ = np.linalg.inv(_TO_XYZ / _TO_XYZ.sum(axis=1, keepdims=True)).astype(np.float32)

# CIE 15: below delta cubed the cube root gives way to its tangent.
_DELTA = 6 / 29

# Halvings of the interval in `fit_chroma`: the chroma is then right to a thousandth of itself.
_HALVINGS = 10


def decode_srgb(values: NDArray[Any]) -> Floats:
    """Turn sRGB values in [0, 1] into linear light in [0, 1], any shape."""
    values = np.asarray(values, np.float32)
    return np.where(values <= 0.04045, values / 12.92, ((np.maximum(values, 0) + 0.055) / 1.055) ** np.float32(2.4))


def encode_srgb(light: NDArray[Any]) -> Floats:
    """Turn linear light into sRGB values, any shape: the inverse of `decode_srgb` in [0, 1], linear below 0."""
    light = np.asarray(light, np.float32)
    return np.where(
        light <= 0.0031308, light * 12.92, 1.055 * np.maximum(light, 0.0031308) ** np.float32(1 / 2.4) - 0.055
    ).astype(np.float32)


def rgb_to_lab(values: NDArray[Any]) -> Floats:
    """Turn sRGB into L*a*b*.

    Args:
        values: RGB in [0, 1], (..., 3).

    Returns:
        float32 (..., 3): L in 0..100, a and b within about -110..110.
    """
    relative = decode_srgb(values) @ _TO_RELATIVE_XYZ.T
    root = np.where(relative > _DELTA**3, np.cbrt(relative), relative / (3 * _DELTA**2) + 4 / 29)
    x, y, z = root[..., 0], root[..., 1], root[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1).astype(np.float32)


def lab_to_rgb(lab: NDArray[Any]) -> Floats:
    """Turn L*a*b* into sRGB.

    Args:
        lab: (..., 3).

    Returns:
        float32 RGB (..., 3); outside [0, 1] where sRGB has no such colour.
    """
    lab = np.asarray(lab, np.float32)
    y = (lab[..., 0] + 16) / 116
    root = np.stack([y + lab[..., 1] / 500, y, y - lab[..., 2] / 200], axis=-1)
    relative = np.where(root > _DELTA, root**3, 3 * _DELTA**2 * (root - 4 / 29))
    return encode_srgb(relative.astype(np.float32) @ _FROM_RELATIVE_XYZ.T)


def lightness(values: NDArray[Any]) -> Floats:
    """Give L of sRGB values in [0, 1], (..., 3) -> float32 (...), 0 to 100."""
    luminance = decode_srgb(values) @ _TO_RELATIVE_XYZ[1]
    root = np.where(luminance > _DELTA**3, np.cbrt(luminance), luminance / (3 * _DELTA**2) + 4 / 29)
    return np.asarray(116 * root - 16, np.float32)


def fit_chroma(lab: Floats) -> Floats:
    """Turn L*a*b* into sRGB that exists, paling colours that do not while L and hue stay.

    Clipping the channels instead would change L: a blue that sRGB cannot show at that lightness would come out darker.

    Args:
        lab: (..., 3), L in 0..100.

    Returns:
        float32 RGB in [0, 1], (..., 3).
    """
    flat = lab.reshape(-1, 3)
    rgb = lab_to_rgb(flat)
    outside = np.flatnonzero((rgb.min(axis=1) < 0) | (rgb.max(axis=1) > 1))
    if outside.size:
        far = flat[outside]
        low, high = np.zeros(outside.size, np.float32), np.ones(outside.size, np.float32)
        for _ in range(_HALVINGS):
            middle: Floats = (low + high) * np.float32(0.5)
            trial = lab_to_rgb(_pale(far, middle))
            fits = (trial.min(axis=1) >= 0) & (trial.max(axis=1) <= 1)
            low, high = np.where(fits, middle, low), np.where(fits, high, middle)
        rgb[outside] = lab_to_rgb(_pale(far, low))
    return np.clip(rgb, 0, 1).reshape(lab.shape)


def _pale(lab: Floats, share: Floats) -> Floats:
    return np.concatenate([lab[:, :1], lab[:, 1:] * share[:, None]], axis=1)
