"""Colour profiles: from a file's own colours to sRGB and back, and from printing colours to RGB."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from gfprestore.photo import Pixels

PROFILE_ERRORS = (ImageCms.PyCMSError, OSError, ValueError, TypeError)
"""What a profile that is damaged, or of another kind than the pixels, leads to."""

_CACHED_TRANSFORMS = 16
"""A folder rarely mixes more profiles; each transform holds a few hundred kilobytes."""

_SRGB_TOLERANCE = 2
"""Greatest difference, of 255, at which a profile counts as sRGB: the versions of sRGB itself differ by so much."""

_INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC
_FLAGS = ImageCms.Flags.BLACKPOINTCOMPENSATION


def profile_space(icc_profile: bytes | None) -> str:
    """Colour space that a profile describes, such as `RGB`, `GRAY` or `CMYK`; empty where it cannot be told."""
    if icc_profile is None or len(icc_profile) < 128 or icc_profile[36:40] != b"acsp":
        return ""
    return icc_profile[16:20].decode("latin-1").strip()


@lru_cache(maxsize=_CACHED_TRANSFORMS)
def _transform(icc_profile: bytes, mode: str, *, to_srgb: bool) -> ImageCms.ImageCmsTransform:
    own = ImageCms.ImageCmsProfile(io.BytesIO(icc_profile))
    srgb = ImageCms.createProfile("sRGB")
    if to_srgb:
        return ImageCms.buildTransform(own, srgb, mode, "RGB", renderingIntent=_INTENT, flags=_FLAGS)
    return ImageCms.buildTransform(srgb, own, "RGB", mode, renderingIntent=_INTENT, flags=_FLAGS)


@lru_cache(maxsize=_CACHED_TRANSFORMS)
def is_srgb(icc_profile: bytes | None) -> bool:
    """Whether pixels in this profile may be taken for sRGB: no profile, an unusable one, or one that is sRGB by effect.

    A profile for gray counts as sRGB, since gray pixels have no tint to lose.
    """
    if profile_space(icc_profile) != "RGB" or icc_profile is None:
        return True
    steps = np.linspace(0, 255, 9, dtype=np.uint8)
    lattice = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(27, 27, 3)  # [R*G*B 3]
    try:
        changed = _convert(lattice, icc_profile, to_srgb=True)
    except PROFILE_ERRORS:
        return True
    return int(np.abs(changed.astype(np.int16) - lattice).max()) <= _SRGB_TOLERANCE


def _convert(pixels: NDArray[np.uint8], icc_profile: bytes, *, to_srgb: bool) -> NDArray[np.uint8]:
    transform = _transform(icc_profile, "RGB", to_srgb=to_srgb)
    converted = ImageCms.applyTransform(Image.fromarray(pixels), transform)
    if converted is None:  # Only where asked to work in place.
        raise ImageCms.PyCMSError("no image")
    return np.ascontiguousarray(np.asarray(converted))


def to_srgb(pixels: Pixels, icc_profile: bytes | None) -> Pixels:
    """Pixels in the file's own profile as sRGB.

    Args:
        pixels: RGB, uint8 or uint16, (H, W, 3).
        icc_profile: The profile that they are in; None is sRGB.

    Returns:
        RGB of the same shape and type. sRGB is given back unchanged. uint16 in another profile is rounded to 8 bits on
        the way, since the colour engine knows no deeper RGB: this is for crops that a network reads, not for photos.
    """
    return _through(pixels, icc_profile, to_srgb=True)


def from_srgb(pixels: Pixels, icc_profile: bytes | None) -> Pixels:
    """Pixels in sRGB as the file's own profile holds them: the inverse of `to_srgb`, with the same limits."""
    return _through(pixels, icc_profile, to_srgb=False)


def _through(pixels: Pixels, icc_profile: bytes | None, *, to_srgb: bool) -> Pixels:
    if icc_profile is None or is_srgb(icc_profile):
        return pixels
    shallow = pixels if pixels.dtype == np.uint8 else to_8_bits(pixels)
    converted = _convert(shallow.astype(np.uint8, copy=False), icc_profile, to_srgb=to_srgb)
    return converted if pixels.dtype == np.uint8 else converted.astype(np.uint16) * np.uint16(257)


def to_8_bits(pixels: Pixels) -> NDArray[np.uint8]:
    """Pixels rounded to 8 bits: uint16 is divided by 257, so that both ends of the range stay."""
    if pixels.dtype == np.uint8:
        return pixels.astype(np.uint8, copy=False)
    # (v + 128) / 257 in whole numbers; exact for every v, checked by a test.
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def ink_to_rgb(image: Image.Image, icc_profile: bytes | None) -> tuple[Image.Image, str | None]:
    """A CMYK or Lab image as sRGB, and a sentence where its profile could not be used.

    CMYK goes through its profile where that fits; without one the plain formula must do, which is too bright.

    Raises:
        ImageCms.PyCMSError: Lab pixels cannot be converted.
    """
    if image.mode == "LAB":
        lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
        transform = ImageCms.buildTransform(lab, ImageCms.createProfile("sRGB"), "LAB", "RGB", renderingIntent=_INTENT)
        converted = ImageCms.applyTransform(image, transform)
        if converted is None:
            raise ImageCms.PyCMSError("no image")
        return converted, None
    if icc_profile is not None and profile_space(icc_profile) == "CMYK":
        try:
            converted = ImageCms.applyTransform(image, _transform(icc_profile, "CMYK", to_srgb=True))
        except PROFILE_ERRORS:
            converted = None
        if converted is not None:
            return converted, None
    return image.convert("RGB"), "Its CMYK colours have no usable profile and were converted plainly."
