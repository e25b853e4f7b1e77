"""Age a clean photo the way an album does: tone, blur, grain, scratches, folds, JPEG."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Photo = NDArray[np.uint8]

GRAY_WEIGHTS = np.array([0.299, 0.587, 0.114], np.float32)
"""Luma of RGB, ITU-R BT.601."""

SEPIA = np.array([1.07, 0.95, 0.72], np.float32)
"""Tone of an aged silver print relative to its gray."""


def age_photo(rng: np.random.Generator, photo: Photo) -> Photo:
    """Age one photo by a random selection of faults, in the order in which they happen to a print.

    Args:
        rng: Source of every choice.
        photo: RGB uint8 (H, W, 3).

    Returns:
        RGB uint8 (H, W, 3).
    """
    aged = photo.astype(np.float32)
    if rng.random() < 0.5:
        aged = blur(rng, aged)
    if rng.random() < 0.55:
        aged = tone(rng, aged)
    if rng.random() < 0.5:
        aged = grain(rng, aged)
    if rng.random() < 0.2:
        aged = scratch(rng, aged)
    result = np.rint(np.clip(aged, 0, 255)).astype(np.uint8)
    return compress(rng, result) if rng.random() < 0.5 else result


def blur(rng: np.random.Generator, photo: NDArray[np.float32]) -> NDArray[np.float32]:
    """Blur by lens, by motion, or by a copy at a lower resolution; float32 (H, W, 3) in 0..255, as given."""
    kind = rng.integers(3)
    if kind == 0:
        return np.asarray(cv2.GaussianBlur(photo, (0, 0), float(rng.uniform(0.3, 3.0))), np.float32)
    if kind == 1:
        length = int(rng.integers(2, 9))
        kernel = np.zeros((9, 9), np.float32)
        angle = rng.uniform(0, np.pi)
        for place in np.linspace(-length / 2, length / 2, 2 * length):
            kernel[round(4 + place * np.sin(angle)), round(4 + place * np.cos(angle))] = 1
        return np.asarray(cv2.filter2D(photo, -1, kernel / kernel.sum()), np.float32)
    height, width = photo.shape[:2]
    factor = rng.uniform(1.2, 4.0)
    small = cv2.resize(photo, (int(width / factor), int(height / factor)), interpolation=cv2.INTER_AREA)
    method = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_NEAREST)[int(rng.choice(3, p=[0.5, 0.4, 0.1]))]
    return np.asarray(cv2.resize(small, (width, height), interpolation=method), np.float32)


def tone(rng: np.random.Generator, photo: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn to gray or sepia or tint, then fade by contrast, gamma and brightness; float32 (H, W, 3) in 0..255."""
    kind = rng.random()
    if kind < 0.6:
        gray = (photo @ GRAY_WEIGHTS)[:, :, None]
        photo = gray * SEPIA ** float(rng.uniform(0.3, 1.5)) if kind < 0.25 else np.repeat(gray, 3, axis=2)
    elif kind < 0.8:
        photo = photo * rng.uniform(0.7, 1.3, 3).astype(np.float32)
    if rng.random() < 0.4:
        gamma = float(np.exp(rng.normal(0, 0.35)))
        photo = np.asarray(255 * np.clip(photo / 255, 0, 1) ** gamma, np.float32)
    if rng.random() < 0.5:
        mean = float(photo.mean())
        photo = (photo - mean) * float(rng.uniform(0.3, 1.3)) + mean + float(rng.normal(0, 25))
    return np.asarray(photo, np.float32)


def grain(rng: np.random.Generator, photo: NDArray[np.float32]) -> NDArray[np.float32]:
    """Add white noise or film grain a few pixels wide, of one or three channels; float32 (H, W, 3) in 0..255."""
    height, width = photo.shape[:2]
    coarse = 1.0 if rng.random() < 0.5 else float(rng.uniform(1, 2.5))
    channels = 1 if rng.random() < 0.6 else 3
    shape = (int(np.ceil(height / coarse)), int(np.ceil(width / coarse)), channels)
    noise = rng.standard_normal(shape, np.float32) * np.float32(rng.gamma(1.5, 7))
    if coarse > 1:
        noise = np.asarray(cv2.resize(noise, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
    return photo + noise.reshape(height, width, channels)  # [H W C]


def scratch(rng: np.random.Generator, photo: NDArray[np.float32]) -> NDArray[np.float32]:
    """Draw scratches, folds and specks, light or dark; float32 (H, W, 3) in 0..255."""
    height, width = photo.shape[:2]
    damage = np.zeros((height, width), np.uint8)
    for _ in range(int(rng.integers(1, 8))):
        points = np.cumsum(rng.normal(0, rng.uniform(5, 60), (int(rng.integers(2, 7)), 2)), axis=0)
        points += rng.uniform(0, 1, 2) * (width, height)
        colour = int(rng.integers(80, 256))
        cv2.polylines(damage, [points.astype(np.int32)], False, colour, int(rng.integers(1, 4)), cv2.LINE_AA)
    for _ in range(int(rng.integers(0, 30))):
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        cv2.circle(damage, centre, int(rng.integers(1, 4)), int(rng.integers(80, 256)), -1, cv2.LINE_AA)
    weight = damage[:, :, None].astype(np.float32) / 255
    return photo + weight * (np.float32(rng.choice([20, 235])) - photo)


def compress(rng: np.random.Generator, photo: Photo) -> Photo:
    """Pass through JPEG at a quality of 25 to 95; RGB uint8 (H, W, 3)."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 96))]
    encoded = cv2.imencode(".jpg", photo[:, :, ::-1], quality)[1]
    decoded = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)
    return np.ascontiguousarray(decoded[:, :, ::-1])
