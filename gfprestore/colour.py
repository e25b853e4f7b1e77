"""Colour profiles: from a file's own colours to sRGB and back, and from printing colours to RGB."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import lru_cache
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from gfprestore.curves import Curves, convert_deep, read_curves
from gfprestore.photo import Pixels

PROFILE_ERRORS = (ImageCms.PyCMSError, OSError, ValueError, TypeError)
"""What a profile that is damaged, or of another kind than the pixels, leads to."""

_CACHED_TRANSFORMS = 16
"""A folder rarely mixes more profiles; each transform holds a few hundred kilobytes."""

_BAND_PIXELS = 1 << 20
"""Converted at once: the colour engine wants eight bytes a pixel beside what it is given, 16 bits up to ninety."""

_SRGB_TOLERANCE = 2
"""Greatest difference, of 255, at which a profile counts as sRGB: the versions of sRGB itself differ by so much."""

_STEPS = np.linspace(0, 255, 9, dtype=np.uint8)
_LATTICE = np.stack(np.meshgrid(_STEPS, _STEPS, _STEPS, indexing="ij"), axis=-1).reshape(27, 27, 3)  # [R*G*B 3]
"""Colours from all over RGB, by which a profile is tried."""

_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()

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
        RGB of the same shape and type. sRGB is given back unchanged. uint16 is exact in profiles of curves and
        primaries. The colour engine knows no deeper RGB than 8 bits: by one of tables uint16 goes straight from what
        becomes of one 8-bit colour to what becomes of the next.
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
    convert = cast("Callable[..., Pixels]", _converted if pixels.dtype == np.uint8 else _converted_deep)
    result = np.empty_like(pixels)
    rows = max(1, _BAND_PIXELS // pixels.shape[1])
    for top in range(0, len(pixels), rows):
        band = np.ascontiguousarray(pixels[top : top + rows])
        result[top : top + rows] = convert(band, icc_profile, to_srgb=to_srgb)
    return result


def _converted_deep(pixels: NDArray[np.uint16], icc_profile: bytes, *, to_srgb: bool) -> NDArray[np.uint16]:
    own, srgb = _curves(icc_profile), _curves(_SRGB)
    if own is None or srgb is None:
        return _between_levels(pixels, icc_profile, to_srgb=to_srgb)
    return convert_deep(pixels, own, srgb) if to_srgb else convert_deep(pixels, srgb, own)


@lru_cache(maxsize=_CACHED_TRANSFORMS)
def _curves(icc_profile: bytes) -> Curves | None:
    """The profile's curves, where they say the same as the colour engine reads out of it."""
    own, srgb = read_curves(icc_profile), read_curves(_SRGB)
    if own is None or srgb is None:
        return None
    found = convert_deep(to_16_bits(_LATTICE), own, srgb)
    away = to_8_bits(found).astype(np.int16) - _converted(_LATTICE, icc_profile, to_srgb=True)
    return own if int(np.abs(away).max()) <= _SRGB_TOLERANCE else None


def _between_levels(pixels: NDArray[np.uint16], icc_profile: bytes, *, to_srgb: bool) -> NDArray[np.uint16]:
    """Converts at 8 bits the corners of the tetrahedron of 8-bit colours that each pixel lies in, and goes between.

    The corners lead from the colour below to that above, the channel that is nearest to its next level first, so that
    nothing jumps where a pixel goes over to the next tetrahedron (Kasson et al., "Performing color space conversions
    with three-dimensional linear interpolation", 1995).
    """
    below = (pixels // 257).astype(np.uint8)
    rest = (pixels - below.astype(np.uint16) * np.uint16(257)).astype(np.int32)
    red, green, blue = rest[..., 0], rest[..., 1], rest[..., 2]
    place = np.stack(  # How many channels come before each.
        [(green > red) * 1 + (blue > red), (red >= green) * 1 + (blue > green), (red >= blue) * 1 + (green >= blue)],
        axis=-1,
    )
    shares = np.sort(rest, axis=-1)[..., ::-1]
    result = np.zeros(pixels.shape, np.int32)
    for step in range(4):
        # A channel at its highest level has no rest, and the corner beyond it no share.
        corner = np.minimum(below + (place < step).astype(np.uint16), 255).astype(np.uint8)
        share = (257 if step == 0 else shares[..., step - 1]) - (0 if step == 3 else shares[..., step])
        converted = _converted(corner, icc_profile, to_srgb=to_srgb)
        result += converted * np.asarray(share, np.int32)[..., None]
    return result.astype(np.uint16)


def to_8_bits(pixels: Pixels) -> NDArray[np.uint8]:
    """Pixels rounded to 8 bits: uint16 is divided by 257, so that both ends of the range stay."""
    if pixels.dtype == np.uint8:
        return pixels.astype(np.uint8, copy=False)
    # (v + 128) / 257 in whole numbers; exact for every v, checked by a test.
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def to_16_bits(pixels: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """The same pixels at 16 bits: times 257, so that both ends of the range stay."""
    return pixels.astype(np.uint16) * np.uint16(257)


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
