"""The contact sheet: input, each method and truth side by side, so that people can look."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from gfprestore.atomic import output_file
from gfprestore.colour import to_8_bits
from gfprestore.errors import PhotoError
from gfprestore.evaluation.images import read_image
from gfprestore.evaluation.pairs import ImageGroup
from gfprestore.resize import resize_photo

CELL = 256
"""Longest side of an image on the sheet, in pixels."""

_HEAD = 24
_GAP = 4
_PAPER = (255, 255, 255)
_INK = (0, 0, 0)


def choose_evenly(groups: Sequence[ImageGroup], count: int) -> list[ImageGroup]:
    """Chooses images spread evenly over the list, so that nobody picks the good ones."""
    if count >= len(groups):
        return list(groups)
    return [groups[math.floor((index + 0.5) * len(groups) / count)] for index in range(count)]


def make_sheet(groups: Sequence[ImageGroup], titles: Sequence[str], order: Sequence[int]) -> NDArray[np.uint8]:
    """Draws a row per image and a column per title; one image is held at a time.

    Args:
        groups: Files of each image.
        titles: Column heads.
        order: For each column, the place of its file in a group.

    Returns:
        RGB uint8 (H, W, 3). A file that cannot be read leaves its cell white.
    """
    height = _HEAD + len(groups) * (CELL + _GAP)
    width = len(titles) * (CELL + _GAP) - _GAP
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default()
    for column, title in enumerate(titles):
        draw.text((column * (CELL + _GAP) + _GAP, 6), title[:40], fill=_INK, font=font)
    for row, group in enumerate(groups):
        for column, place in enumerate(order):
            try:
                pixels = read_image(group.paths[place])
            except PhotoError:
                continue
            scale = CELL / max(pixels.shape[:2])
            size = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
            cell = Image.fromarray(to_8_bits(resize_photo(pixels, size)))
            sheet.paste(cell, (column * (CELL + _GAP), _HEAD + row * (CELL + _GAP)))
    return np.asarray(sheet)


def write_sheet(path: Path, sheet: NDArray[np.uint8]) -> None:
    """Writes a PNG that is complete or absent.

    Raises:
        OutputError: The file cannot be written.
    """
    with output_file(path, option="--sheet") as stream:
        Image.fromarray(sheet).save(stream, format="PNG")
