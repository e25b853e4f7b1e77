"""Which photos of a run are coloured, and with which faces: the pipeline's side of `gfprestore.colorize`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from gfprestore.blending.masks import MaskKind, face_mask
from gfprestore.blending.tone import Tone, find_tone
from gfprestore.geometry import compose, scaling
from gfprestore.options import RestoreOptions
from gfprestore.photo import AlignedFace, ColouredFace, Pixels
from gfprestore.resize import resize_photo
from gfprestore.restorer import FaceRestorer
from gfprestore.retouch import RestoredCrop


def decide_colouring(pixels: Pixels, options: RestoreOptions) -> tuple[bool, list[str]]:
    """Decides whether the options call for colour in this photo; colour photos are left alone unless `always`.

    Returns:
        Whether to colour it, and what to tell the user of a photo that may have colours of its own, or none.
    """
    if options.colorize in ("off", "always"):
        return options.colorize == "always", []
    tone = find_tone(pixels)
    if tone is Tone.FAINT:
        return False, ["Not coloured, since it may have faint colours of its own; --colorize=always colours it."]
    return tone in (Tone.GRAY, Tone.TONED), []


def coloured_faces(
    faces: Sequence[AlignedFace],
    crops: Sequence[RestoredCrop],
    colourist: FaceRestorer | None,
    *,
    region: MaskKind,
    batch_size: int,
    photo_size: tuple[int, int],
    canvas_size: tuple[int, int],
) -> list[ColouredFace]:
    """Colours restored faces and places them on the result.

    Args:
        faces: Of the photo.
        crops: What the restorer made of them, in the same order.
        colourist: Colours gray faces; None where `crops` are in colour already.
        region: How much of each crop lends its colour.
        batch_size: Faces that go through the colourist together.
        photo_size: (W, H) of the photo.
        canvas_size: (W, H) of the result.
    """
    pictures = [crop.crop for crop in crops]
    if colourist is not None:
        starts = range(0, len(pictures), batch_size)
        pictures = [
            coloured for start in starts for coloured in _in_colour(pictures[start : start + batch_size], colourist)
        ]
    to_photo = scaling(canvas_size, photo_size)
    return [
        ColouredFace(
            picture,
            compose(face.to_crop, to_photo),
            face_mask(picture.shape[0], region, before=crop.before, after=crop.after, restore_occluders=True),
        )
        for face, crop, picture in zip(faces, crops, pictures, strict=True)
    ]


def _in_colour(crops: Sequence[NDArray[np.uint8]], colourist: FaceRestorer) -> list[NDArray[np.uint8]]:
    """Colours one batch of restored crops, of which only the lightness is looked at."""
    coloured = colourist.restore([_resized(_gray(crop), colourist.size) for crop in crops])
    return [_resized(picture, crop.shape[0]) for picture, crop in zip(coloured, crops, strict=True)]


def _gray(crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB), np.uint8)


def _resized(crop: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    return crop if crop.shape[0] == side else cast("NDArray[np.uint8]", resize_photo(crop, (side, side)))
