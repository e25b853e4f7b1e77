"""What decades in a drawer and a cheap scanner do to a photo, for `make_album.py`.

Every function takes and gives RGB float32, (H, W, 3), 0 to 1.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.float32]


def smooth_noise(rng: np.random.Generator, height: int, width: int, coarseness: float) -> Picture:
    """Clouds of about `coarseness` pixels: mean 0, standard deviation 1, (H, W, 1)."""
    small = (max(2, round(height / coarseness)), max(2, round(width / coarseness)))
    clouds = cv2.resize(rng.standard_normal(small).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    return ((clouds - clouds.mean()) / clouds.std())[..., None]


def soften(picture: Picture, sigma: float, factor: float) -> Picture:
    """Lens blur, then fewer pixels by `factor` and back."""
    height, width = picture.shape[:2]
    blurred = cv2.GaussianBlur(picture, (0, 0), sigma)
    small = cv2.resize(blurred, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def grain(picture: Picture, rng: np.random.Generator, strength: float) -> Picture:
    """Film grain: strongest in the middle tones, a pixel and a half wide, alike in all channels."""
    height, width = picture.shape[:2]
    gray = picture.mean(axis=2, keepdims=True)
    return picture + strength * smooth_noise(rng, height, width, 1.5) * (0.35 + 2.6 * gray * (1 - gray))


def fade(picture: Picture, black: tuple[float, float, float], white: tuple[float, float, float]) -> Picture:
    """Dyes that went: black and white become these colours, with what is between them."""
    return np.asarray(black, np.float32) + picture * (np.asarray(white, np.float32) - np.asarray(black, np.float32))


def gray(picture: Picture) -> Picture:
    """Panchromatic film, three equal channels."""
    luma = picture @ np.asarray([0.35, 0.45, 0.2], np.float32)
    return np.repeat(luma[..., None], 3, axis=2)


def darken_corners(picture: Picture, strength: float) -> Picture:
    """A simple lens."""
    height, width = picture.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    return picture * (1 - strength * np.clip((x**2 + y**2) / 2, 0, 1) ** 1.5)[..., None]


def stain(picture: Picture, rng: np.random.Generator, strength: float) -> Picture:
    """Yellowed patches."""
    height, width = picture.shape[:2]
    patches = np.clip(smooth_noise(rng, height, width, width / 3), 0, 2) * strength
    return picture * (1 - patches * np.asarray([0.05, 0.12, 0.35], np.float32))


def scratch(picture: Picture, rng: np.random.Generator, count: int) -> Picture:
    """Fine light scratches, nearly upright and a little wavy, of uneven depth."""
    height, width = picture.shape[:2]
    marks = np.zeros((height, width), np.float32)
    for _ in range(count):
        length = rng.uniform(0.15, 0.7) * height
        y = np.linspace(0, length, 24) + rng.uniform(-0.1, 0.8) * height
        x = rng.uniform(0, width) + np.cumsum(rng.normal(rng.normal(0, 0.6), 0.8, 24))
        line = np.stack([x, y], axis=1) * 8
        one = np.zeros_like(marks)
        cv2.polylines(one, [line.astype(np.int32)], False, rng.uniform(0.25, 0.7), 1, cv2.LINE_AA, shift=3)
        marks = np.maximum(marks, one)
    worn = np.clip(0.7 + 0.5 * smooth_noise(rng, height, width, 12), 0, 1)
    return picture + marks[..., None] * worn * (0.95 - picture)


def dust(picture: Picture, rng: np.random.Generator, count: int) -> Picture:
    """Specks and fibres, more light ones than dark ones."""
    height, width = picture.shape[:2]
    for _ in range(count):
        speck = np.zeros((height, width), np.float32)
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        if rng.random() < 0.15:
            turns = np.cumsum(rng.normal(0, 0.35, 14)) + rng.uniform(0, 6.3)
            fibre = np.stack([x + np.cumsum(np.cos(turns)) * 1.6, y + np.cumsum(np.sin(turns)) * 1.6], axis=1) * 8
            cv2.polylines(speck, [fibre.astype(np.int32)], False, 0.5, 1, cv2.LINE_AA, shift=3)
        else:
            radius = rng.gamma(2.0, 0.35) + 0.3
            cv2.circle(speck, (round(x * 8), round(y * 8)), round(radius * 8), 0.7, -1, cv2.LINE_AA, shift=3)
        colour = 0.92 if rng.random() < 0.7 else 0.12
        picture = picture + speck[..., None] * (colour - picture)
    return picture


def crease(picture: Picture, rng: np.random.Generator) -> Picture:
    """A fold across the print: the emulsion is cracked white, one side lies in shadow."""
    height, width = picture.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    angle = rng.uniform(-0.25, 0.25)
    ragged = smooth_noise(rng, height, width, 9)[..., 0] * 0.7
    distance = (y - height * rng.uniform(0.68, 0.8)) * np.cos(angle) + (x - width / 2) * np.sin(angle) + ragged
    crack = np.exp(-((distance / 0.9) ** 2)) * np.clip(0.7 + 0.4 * smooth_noise(rng, height, width, 6)[..., 0], 0, 1)
    shadow = 0.16 * np.exp(-np.abs(distance) / 14) * (distance > 0)
    return picture * (1 - shadow[..., None]) + crack[..., None] * (0.9 - picture)


def print_on_paper(
    picture: Picture, rng: np.random.Generator, border: int, paper: tuple[float, float, float]
) -> Picture:
    """Gives the print its paper border, with the fibres of the paper."""
    height, width = picture.shape[0] + 2 * border, picture.shape[1] + 2 * border
    sheet = np.ones((height, width, 3), np.float32) * np.asarray(paper, np.float32)
    sheet += 0.008 * smooth_noise(rng, height, width, 3) + 0.01 * smooth_noise(rng, height, width, 60)
    sheet[border:-border, border:-border] = picture
    return sheet


def lay_on_scanner(picture: Picture, rng: np.random.Generator, margin: int, bed: float, degrees: float) -> Picture:
    """Lays the print, a little askew, on the scanner's lid: a grey `bed` with a soft shadow along the edge."""
    height, width = picture.shape[0] + 2 * margin, picture.shape[1] + 2 * margin
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
    turn[:, 2] += turn[:, :2] @ (margin, margin)
    cover = cv2.warpAffine(np.ones(picture.shape[:2], np.float32), turn, (width, height), flags=cv2.INTER_LINEAR)
    laid = cv2.warpAffine(picture, turn, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    shadow = cv2.GaussianBlur(np.roll(cover, (3, 3), (0, 1)), (0, 0), 3)
    ground = (bed + 0.006 * smooth_noise(rng, height, width, 2)) * (1 - 0.45 * shadow[..., None])
    return ground + cover[..., None] * (laid - ground)
