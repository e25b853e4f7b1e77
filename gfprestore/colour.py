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

_BAND_PIXELS = 1 << 20
"""Converted at once: the colour engine wants eight bytes a pixel beside what it is given."""

_SRGB_TOLERANCE = 2
"""Greatest difference, of 255, at which a profile counts as sRGB: the versions of sRGB itself differ by so much."""

_STEPS = np.linspace(0, 255, 9, dtype=np.uint8)
_LATTICE = np.stack(np.meshgrid(_STEPS, _STEPS, _STEPS, indexing="ij"), axis=-1).reshape(27, 27, 3)  # [R*G*B 3]
"""Colours from all over RGB, by which a profile is tried."""

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

    A profile for gray is one by effect where its tones are those of sRGB.
    """
    if profile_space(icc_profile) not in ("RGB", "GRAY") or icc_profile is None:
        return True
    try:
        changed = _converted(_LATTICE, icc_profile, to_srgb=True)
    except PROFILE_ERRORS:
        return True
    return int(np.abs(changed.astype(np.int16) - _LATTICE).max()) <= _SRGB_TOLERANCE


@lru_cache(maxsize=_CACHED_TRANSFORMS)
def two_way_profile(icc_profile: bytes | None) -> bytes | None:
    """The profile as that of pixels that go to sRGB and return: None, which is sRGB, where it leads to sRGB only.

    Profiles of scanners may lead no way back. What comes out of such a photo in sRGB could not be put into it again.
    """
    if icc_profile is None or is_srgb(icc_profile):
        return icc_profile
    try:
        _converted(_LATTICE, icc_profile, to_srgb=False)
    except PROFILE_ERRORS:
        return None
    return icc_profile


def _converted(pixels: NDArray[np.uint8], icc_profile: bytes, *, to_srgb: bool) -> NDArray[np.uint8]:
    if profile_space(icc_profile) == "GRAY":
        return np.take(_gray_levels(icc_profile, to_srgb=to_srgb), pixels)
    return _convert(pixels, icc_profile, to_srgb=to_srgb)


@lru_cache(maxsize=_CACHED_TRANSFORMS)
def _gray_levels(icc_profile: bytes, *, to_srgb: bool) -> NDArray[np.uint8]:
    """What becomes of each level of gray, uint8 (256,), in a profile for gray or from it."""
    own, srgb = ImageCms.ImageCmsProfile(io.BytesIO(icc_profile)), ImageCms.createProfile("sRGB")
    source, target = (own, srgb) if to_srgb else (srgb, own)
    modes = ("L", "RGB") if to_srgb else ("RGB", "L")
    # Unless told not to, the engine draws straight lines through the darkest levels.
    flags = _FLAGS | ImageCms.Flags.NOOPTIMIZE
    transform = ImageCms.buildTransform(source, target, modes[0], modes[1], renderingIntent=_INTENT, flags=flags)
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    converted = ImageCms.applyTransform(ramp.convert(modes[0]), transform)
    if converted is None:  # Only where asked to work in place.
        raise ImageCms.PyCMSError("no image")
    return np.array(converted.convert("RGB"))[0, :, 1]


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
        icc_profile: The profile that they are in; None is sRGB. One for gray counts for each channel.

    Returns:
        RGB of the same shape and type. sRGB is given back unchanged. The colour engine knows no deeper RGB than 8 bits:
        uint16 is converted at 8 bits, and what lies between two levels stays between them.
    """
    return _through(pixels, icc_profile, to_srgb=True)


def from_srgb(pixels: Pixels, icc_profile: bytes | None) -> Pixels:
    """Pixels in sRGB as the file's own profile holds them: the inverse of `to_srgb`, with the same limits.

    They are given back unchanged where the profile leads no way back; see `two_way_profile`.
    """
    return _through(pixels, two_way_profile(icc_profile), to_srgb=False)


def _through(pixels: Pixels, icc_profile: bytes | None, *, to_srgb: bool) -> Pixels:
    if icc_profile is None or is_srgb(icc_profile):
        return pixels
    result = np.empty_like(pixels)
    rows = max(1, _BAND_PIXELS // pixels.shape[1])
    for top in range(0, len(pixels), rows):
        band = pixels[top : top + rows]
        shallow = to_8_bits(band)
        converted = _converted(np.ascontiguousarray(shallow), icc_profile, to_srgb=to_srgb)
        result[top : top + rows] = converted if band.dtype == np.uint8 else _deepened(converted, shallow, band)
    return result


def _deepened(converted: NDArray[np.uint8], shallow: NDArray[np.uint8], deep: Pixels) -> NDArray[np.uint16]:
    """Converted levels at 16 bits, with what rounding had taken from the pixels: a slow gradient gets no steps."""
    rest = deep.astype(np.int32) - shallow.astype(np.int32) * 257
    return np.clip(converted.astype(np.int32) * 257 + rest, 0, 65535).astype(np.uint16)


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
