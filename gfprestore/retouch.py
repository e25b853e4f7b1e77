"""What becomes of each face: blended, kept, or weakened until it is the same person again; and the record of why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gfprestore.blending.blend import BlendedCrop, BlendSettings, blend_crop
from gfprestore.blending.masks import Labels, Mask, face_mask
from gfprestore.blending.tone import Tone, find_tone
from gfprestore.colour import from_srgb, to_8_bits, to_16_bits
from gfprestore.detection.face_choice import box_of
from gfprestore.geometry import magnification
from gfprestore.identity import FaceRecogniser, identity_angles, settle_identity
from gfprestore.options import RestoreOptions
from gfprestore.paste import FacePatch
from gfprestore.photo import AlignedFace, Photo
from gfprestore.report import FaceRecord


@dataclass(frozen=True, eq=False)
class RestoredCrop:
    """What the networks made of one crop."""

    crop: NDArray[np.uint8]
    """The generator's picture, sRGB uint8, (S, S, 3)."""

    before: Labels | None = None
    """What the pixels of the photo's crop show; None without a parser."""

    after: Labels | None = None
    """What the pixels of the generator's picture show."""

    seconds: float = 0.0
    """Its share of the time of its batch."""


@dataclass(frozen=True, eq=False)
class Retouch:
    """One face, decided."""

    record: FaceRecord
    """For the report."""

    patch: FacePatch | None
    """What to paste; None where the face keeps its own pixels."""


def retouch_faces(
    photo: Photo,
    faces: Sequence[AlignedFace],
    crops: Sequence[RestoredCrop],
    options: RestoreOptions,
    recogniser: FaceRecogniser | None = None,
) -> list[Retouch]:
    """Decides what becomes of each face of a photo.

    Args:
        photo: The whole photo, in its own colour profile.
        faces: Cut from it.
        crops: What the networks made of them, in the same order.
        options: Strength, mask, grain, limits.
        recogniser: Measures whether a face is still the same person; None does not.
    """
    tone = find_tone(photo.pixels) if faces else Tone.COLOUR
    return [_retouch(photo, face, crop, tone, options, recogniser) for face, crop in zip(faces, crops, strict=True)]


def _retouch(
    photo: Photo,
    face: AlignedFace,
    restored: RestoredCrop,
    tone: Tone,
    options: RestoreOptions,
    recogniser: FaceRecogniser | None,
) -> Retouch:
    sampling = 1 / magnification(face.to_crop)
    # At the photo's own depth, since profiles of gamma 1 have few dark levels of 8 bits.
    seen = to_16_bits(restored.crop) if face.crop.dtype == np.uint16 else restored.crop
    drawn = from_srgb(seen, photo.metadata.icc_profile)

    def blend(strength: float) -> BlendedCrop:
        settings = BlendSettings(strength=strength, grain=options.grain)
        return blend_crop(face.crop, drawn, sampling=sampling, settings=settings, tone=tone)

    strength, reason = options.strength, ""
    facts: dict[str, object] = {}
    if recogniser is not None and options.identity_limit is not None:
        original = to_8_bits(face.crop)

        def angle_at(tried: float) -> float:
            pixels = blend(tried).pixels
            candidate = original if pixels is None else _as_8_bits(pixels, face.crop.dtype)
            return identity_angles(recogniser.embed, original, [candidate], sampling)[0]

        verdict = settle_identity(angle_at, strength, options.identity_limit)
        strength, reason = verdict.strength, verdict.reason
        facts["identity_degrees"] = round(verdict.angle, 2)
    record = _record(face, strength, reason, facts)
    blended = blend(strength)
    if blended.pixels is None:
        return Retouch(replace(record, action="kept", reason=reason or blended.reason, strength=0.0), None)
    mask = _mask(restored, 1 / sampling, options)
    return Retouch(record, FacePatch(face.crop, blended.pixels, mask, face.to_crop))


def _mask(restored: RestoredCrop, crop_pixels_per_pixel: float, options: RestoreOptions) -> Mask:
    size = restored.crop.shape[0]
    if options.aligned:
        return np.ones((size, size), np.float32)
    return face_mask(
        size,
        options.mask,
        before=restored.before,
        after=restored.after,
        output_pixels=options.upscale / crop_pixels_per_pixel,
        restore_occluders=options.restore_occluders,
        protect_glasses=options.protect_glasses,
    )


def _as_8_bits(pixels: NDArray[np.float32], dtype: np.dtype[np.uint8] | np.dtype[np.uint16]) -> NDArray[np.uint8]:
    unit = 257 if dtype == np.uint16 else 1
    return np.clip(np.rint(pixels / unit), 0, 255).astype(np.uint8)


def _record(face: AlignedFace, strength: float, reason: str, facts: dict[str, object]) -> FaceRecord:
    return FaceRecord(box_of(face.face), face.face.score, "restored", reason, strength, facts)
