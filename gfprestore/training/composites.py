"""Synthetic photos to train and test a face detector on: face crops pasted into made-up scenes, then aged.

Nothing here knows where the faces are: whoever trains on these photos asks a teacher, which sees the aged photo too.
Every function takes its own random generator, so that one seed is one photo.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from gfprestore.training.ageing import age_photo

Photo = NDArray[np.uint8]

HELD_OUT_PARTS = 10
"""One face file in this many, chosen by its name, is never trained on."""

REDUCED_READS = ((4, cv2.IMREAD_REDUCED_COLOR_4), (2, cv2.IMREAD_REDUCED_COLOR_2), (1, cv2.IMREAD_COLOR))
"""JPEG decoding at a fraction of the size, coarsest first: decoding would cost more than the rest otherwise."""


@dataclass(frozen=True)
class CompositeConfig:
    """How often each kind of photo is made."""

    photo_share: float = 0.25
    """Share of crops out of real photos, where there are any."""

    empty_share: float = 0.06
    """Share of scenes without a face."""

    group_share: float = 0.3
    """Share of scenes with rows of small faces."""

    portrait_share: float = 0.3
    """Share of scenes with one face that may be larger than the scene; the rest hold two to six faces."""

    least_face: float = 20.0
    """Side of the smallest pasted face crop, in pixels; the face itself is about half as wide."""

    aged_share: float = 0.85
    """Share of photos that are aged (blur, noise, tone, scratches, JPEG)."""


def split_faces(faces: Sequence[Path], held_out: bool) -> list[Path]:
    """Choose the face files of one side of the split; a file keeps its side when others are added."""
    return [face for face in sorted(faces) if (zlib.crc32(face.stem.encode()) % HELD_OUT_PARTS == 0) == held_out]


def make_composite(
    rng: np.random.Generator, faces: Sequence[Path], photos: Sequence[Photo], size: int, config: CompositeConfig
) -> Photo:
    """Make one photo.

    Args:
        rng: Source of every choice.
        faces: Square face crops, FFHQ-like, as JPEG files.
        photos: Real photos, RGB uint8 (H, W, 3), to take crops from; may be empty.
        size: Side of the photo made.
        config: How often each kind is made.

    Returns:
        RGB uint8 (size, size, 3).
    """
    if photos and rng.random() < config.photo_share:
        scene = crop_photo(rng, photos[int(rng.integers(len(photos)))], size)
    else:
        scene = make_scene(rng, faces, size, config)
    if rng.random() < config.aged_share:
        scene = age_photo(rng, scene)
    return scene


def crop_photo(rng: np.random.Generator, photo: Photo, size: int) -> Photo:
    """Cut a randomly scaled, turned, mirrored and coloured square out of a real photo; RGB uint8 (size, size, 3)."""
    long_side = max(photo.shape[:2])
    scale = float(np.exp(rng.uniform(np.log(0.6 * size), np.log(max(2.0 * size, 1500.0))))) / long_side
    while scale < 0.5:
        photo = cv2.resize(photo, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
        scale *= 2
    height, width = photo.shape[:2]
    # A window may hang over the edge by a quarter, as faces at the border of a print do.
    half = size / scale / 2
    centre = [float(rng.uniform(min(half / 2, side / 2), max(side - half / 2, side / 2))) for side in (width, height)]
    matrix = cv2.getRotationMatrix2D((centre[0], centre[1]), float(rng.normal(0, 8)), scale)
    matrix = matrix + np.array([[0, 0, size / 2 - centre[0]], [0, 0, size / 2 - centre[1]]])
    border = cv2.BORDER_CONSTANT if rng.random() < 0.5 else cv2.BORDER_REFLECT
    fill = tuple(int(value) for value in rng.integers(0, 256, 3))
    crop = cv2.warpAffine(photo, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=border, borderValue=fill)
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    if rng.random() < 0.3:
        crop = crop[:, :, rng.permutation(3)]
    return np.ascontiguousarray(crop, np.uint8)


def make_scene(rng: np.random.Generator, faces: Sequence[Path], size: int, config: CompositeConfig) -> Photo:
    """Paste faces of one of four arrangements onto a made-up background; RGB uint8 (size, size, 3)."""
    canvas = make_background(rng, size)
    kind = rng.random()
    if kind < config.empty_share:
        return canvas
    if kind < config.empty_share + config.group_share:
        places = _group_places(rng, size, config)
    elif kind < config.empty_share + config.group_share + config.portrait_share:
        side = float(np.exp(rng.uniform(np.log(0.35 * size), np.log(1.7 * size))))
        places = [(*rng.uniform(0.25 * size, 0.75 * size, 2), side)]
    else:
        sides = np.exp(rng.uniform(np.log(config.least_face), np.log(0.8 * size), rng.integers(2, 7)))
        places = [(*rng.uniform(0, size, 2), float(side)) for side in sides]
    for x, y, side in places:
        face = read_face(faces[int(rng.integers(len(faces)))], side)
        paste_face(rng, canvas, face, (float(x), float(y)), side)
    return canvas


def _group_places(rng: np.random.Generator, size: int, config: CompositeConfig) -> list[tuple[float, float, float]]:
    side = float(np.exp(rng.uniform(np.log(config.least_face), np.log(0.35 * size))))
    step = side * float(rng.uniform(0.7, 1.5))
    grid = np.arange(step / 2, size, step)[:7]
    start = rng.uniform(0, max(size - grid[-1] - step / 2, 1.0), 2)
    places = []
    for y in grid:
        for x in grid:
            if rng.random() < 0.75:
                shift = rng.normal(0, 0.12 * side, 2)
                places.append((x + start[0] + shift[0], y + start[1] + shift[1], side * float(rng.uniform(0.85, 1.2))))
    return places


def read_face(path: Path, side: float) -> Photo:
    """Read a face crop at no more than twice the size wanted where the file allows; RGB uint8 (S, S, 3).

    Raises:
        OSError: The file cannot be read as an image.
    """
    for divisor, flag in REDUCED_READS:
        if divisor == 1 or side * divisor <= 512:
            face = cv2.imread(str(path), flag)
            if face is None:
                raise OSError(f"{path} is no readable image.")
            return np.ascontiguousarray(face[:, :, ::-1], np.uint8)
    raise AssertionError("unreachable: the last read is at full size")


def paste_face(rng: np.random.Generator, canvas: Photo, face: Photo, centre: tuple[float, float], side: float) -> None:
    """Blend one face crop into the canvas, in place, a little turned, as a whole square or as a soft head.

    Args:
        rng: Source of the turn, the mirroring, the mask and the light.
        canvas: RGB uint8 (H, W, 3), changed.
        face: RGB uint8 (S, S, 3).
        centre: Where the crop's centre goes, (x, y) in canvas pixels.
        side: Side of the crop on the canvas.
    """
    while face.shape[0] >= 2 * side:
        face = cv2.resize(face, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    source = face.shape[0]
    middle = (source - 1) / 2
    matrix = cv2.getRotationMatrix2D((middle, middle), float(rng.normal(0, 9)), side / source)
    reach = int(np.ceil(side * 0.75))
    left, top = (round(place) - reach for place in centre)
    matrix[:, 2] += np.array(centre) - middle - np.array([left, top])
    window = slice(max(top, 0), max(top + 2 * reach, 0)), slice(max(left, 0), max(left + 2 * reach, 0))
    under = canvas[window]
    if under.size == 0:
        return
    matrix[:, 2] -= [max(-left, 0), max(-top, 0)]
    over = face[:, ::-1] if rng.random() < 0.5 else face
    target = (under.shape[1], under.shape[0])
    mask = cv2.warpAffine(_face_mask(rng, source), matrix, target, flags=cv2.INTER_LINEAR)[:, :, None]
    light = np.clip(cv2.warpAffine(over, matrix, target, flags=cv2.INTER_LINEAR) * rng.uniform(0.7, 1.15), 0, 255)
    canvas[window] = np.rint(under + mask * (light - under)).astype(np.uint8)


def _face_mask(rng: np.random.Generator, side: int) -> NDArray[np.float32]:
    if rng.random() < 0.4:
        mask = np.ones((side, side), np.float32)
        feather = max(1, int(side * rng.uniform(0.01, 0.1)))
        ramp = np.minimum(1, np.minimum(np.arange(side), np.arange(side)[::-1]) / feather).astype(np.float32)
        return np.asarray(mask * ramp * ramp[:, None], np.float32)
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    across, along = rng.uniform(0.62, 0.85), rng.uniform(0.8, 0.98)
    radius = np.sqrt((x / across) ** 2 + (y / along) ** 2)
    return np.asarray(np.clip((1 - radius) / rng.uniform(0.05, 0.25), 0, 1), np.float32)


def make_background(rng: np.random.Generator, size: int) -> Photo:
    """Make a scene without faces: colour noise, shapes, stripes, fine texture; RGB uint8 (size, size, 3)."""
    scene = np.full((size, size, 3), rng.uniform(20, 235, 3), np.float32)
    for cells in (2, 4, 8, 16, 64):
        strength = float(rng.gamma(1.0, 70 / cells**0.5))
        noise = rng.normal(0, strength, (cells, cells, 1 if rng.random() < 0.5 else 3)).astype(np.float32)
        octave = cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)
        scene += octave.reshape(size, size, -1)  # [H W C]
    canvas = np.clip(scene, 0, 255).astype(np.uint8)
    for _ in range(int(rng.integers(0, 14))):
        _draw_shape(rng, canvas)
    if rng.random() < 0.3:
        _draw_stripes(rng, canvas)
    if rng.random() < 0.15:
        origin = (int(rng.integers(0, size // 2)), int(rng.integers(20, size)))
        letters = "".join(chr(value) for value in rng.integers(48, 123, 12))
        cv2.putText(canvas, letters, origin, cv2.FONT_HERSHEY_COMPLEX, float(rng.uniform(0.5, 2)), _colour(rng), 2)
    return canvas


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in rng.integers(0, 256, 3))
    return red, green, blue


def _draw_shape(rng: np.random.Generator, canvas: Photo) -> None:
    size = canvas.shape[0]
    x, y = (int(value) for value in rng.integers(0, size, 2))
    reach = float(np.exp(rng.uniform(np.log(4), np.log(size / 2))))
    kind = rng.integers(4)
    if kind == 0:
        axes = (int(reach), int(reach * rng.uniform(0.4, 1.4)))
        cv2.ellipse(canvas, (x, y), axes, float(rng.uniform(0, 180)), 0, 360, _colour(rng), -1, cv2.LINE_AA)
    elif kind == 1:
        corners = rng.normal((x, y), reach, (int(rng.integers(3, 7)), 2)).astype(np.int32)
        cv2.fillPoly(canvas, [corners], _colour(rng), cv2.LINE_AA)
    elif kind == 2:
        cv2.circle(canvas, (x, y), int(reach / 3) + 1, _colour(rng), int(rng.integers(1, 6)), cv2.LINE_AA)
    else:
        end = (int(x + rng.normal(0, reach * 2)), int(y + rng.normal(0, reach * 2)))
        cv2.line(canvas, (x, y), end, _colour(rng), int(rng.integers(1, 12)), cv2.LINE_AA)


def _draw_stripes(rng: np.random.Generator, canvas: Photo) -> None:
    size = canvas.shape[0]
    angle, period = rng.uniform(0, np.pi), rng.uniform(3, 40)
    y, x = np.mgrid[:size, :size]
    wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * (2 * np.pi / period))
    top = int(rng.integers(0, size))
    striped = canvas[top:] + (wave[top:, :, None] * rng.uniform(5, 60))
    canvas[top:] = np.clip(striped, 0, 255).astype(np.uint8)
