"""Which photos of a run are coloured, and with which faces: the pipeline's side of `gfprestore.colorize`."""

from __future__ import annotations

from collections.abc import Sequence

from gfprestore.colorize import ColouredFace
from gfprestore.geometry import compose, scaling
from gfprestore.masks import face_mask
from gfprestore.models import COLOURING_MODEL
from gfprestore.options import RestoreOptions
from gfprestore.photo import AlignedFace, Pixels
from gfprestore.retouch import RestoredCrop
from gfprestore.tone import Tone, find_tone


def has_to_be_coloured(pixels: Pixels, options: RestoreOptions) -> bool:
    """Tells whether the options call for colour in this photo; colour photos are left alone unless `always`."""
    if options.colorize == "off":
        return False
    return options.colorize == "always" or find_tone(pixels) in (Tone.GRAY, Tone.TONED)


def coloured_faces(
    faces: Sequence[AlignedFace],
    crops: Sequence[RestoredCrop],
    face_model: str,
    photo_size: tuple[int, int],
    canvas_size: tuple[int, int],
) -> list[ColouredFace]:
    """Returns the faces whose generator gives colour to gray faces, placed on the result: none for other weights.

    Args:
        faces: Of the photo.
        crops: What the generator made of them, in the same order.
        face_model: Name of its weights.
        photo_size: (W, H) of the photo.
        canvas_size: (W, H) of the result.
    """
    if face_model != COLOURING_MODEL:
        return []
    to_photo = scaling(canvas_size, photo_size)
    return [
        ColouredFace(
            crop.crop,
            compose(face.to_crop, to_photo),
            face_mask(crop.crop.shape[0], "face", before=crop.before, after=crop.after, restore_occluders=True),
        )
        for face, crop in zip(faces, crops, strict=True)
    ]
