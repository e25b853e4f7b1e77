"""Turns what Pillow has opened into RGB arrays of the depth that the file has."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, cast

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gfprestore.colour import ink_to_rgb
from gfprestore.photo import Pixels

_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLES, _PLANAR, _EXTRA_SAMPLES, _SAMPLE_FORMAT = 258, 262, 277, 284, 338, 339
_MIN_IS_WHITE, _RGB, _SEPARATE_PLANES, _SIGNED = 0, 2, 2, 2
_PREMULTIPLIED, _STRAIGHT = 1, 2
"""What a fourth channel may say of itself in the tag ExtraSamples: opacity, by which the colours are multiplied or not
(TIFF 6.0, page 31)."""

_PNG_SIGNATURE_BYTES = 8
_PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"

_FLOAT_SLACK = 1e-3
"""How far a floating-point gray value may lie outside 0 to 1 by the arithmetic that made it."""


_BAND_ROWS = 64
"""Rows copied at once out of what Pillow holds."""


class UnusualPixelsError(ValueError):
    """The file's numbers are whole, but do not say how bright they are; the message goes on from the file's name."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """Pixels as stored, not yet turned upright."""

    pixels: Pixels
    """RGB, uint8 or uint16, (H, W, 3)."""

    alpha: Pixels | None = None
    """Opacity, (H, W), of the same type."""

    is_gray: bool = False
    """The three channels are copies of one."""

    is_converted: bool = False
    """The pixels were converted to sRGB, so that the file's profile is not theirs."""

    warnings: tuple[str, ...] = ()
    """One sentence each."""


def decode_pixels(image: Image.Image, stream: BinaryIO) -> Decoded:
    """Decodes the frame that an opened image stands at.

    Args:
        image: Opened, not loaded; left loaded.
        stream: The file that it was opened from, for what Pillow decodes at 8 bits only.

    Raises:
        UnusualPixelsError: The pixels are measurements rather than a photo.
        OSError: And whatever else decoders raise on damaged files.
    """
    bits, fourth = _bits(image, stream), _fourth_channel(image)
    decoded = _decoded(image, stream, bits)
    if fourth == _PREMULTIPLIED and decoded.alpha is not None and decoded.alpha.dtype == np.uint16:
        # At 8 bits Pillow has done so.
        return replace(decoded, pixels=_divided(decoded.pixels, decoded.alpha))
    if fourth is not None and fourth not in (_PREMULTIPLIED, _STRAIGHT):
        note = "A channel beside the colours was left out, since the file does not call it opacity."
        return replace(decoded, alpha=None, warnings=(*decoded.warnings, note))
    return decoded


def _decoded(image: Image.Image, stream: BinaryIO, bits: int) -> Decoded:
    image.load()  # Finds damage in 16-bit files as well, which OpenCV would pass over.
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return _deep_gray(image)
    if bits == 16 and image.mode in ("RGB", "RGBA"):
        if image.format == "TIFF" and _tag(image, _PLANAR) == _SEPARATE_PLANES:
            # Pillow mixes such planes up, and OpenCV too.
            raise UnusualPixelsError("stores 16-bit colours in separate planes; save it with interleaved colours")
        return _deep_colour(image, stream)
    hidden = image.info.get("transparency")
    if image.format == "PNG" and bits < 8 and image.mode == "L" and isinstance(hidden, int):
        # Pillow spreads pixels of 2 and 4 bits over 8, but not the level that hides.
        image.info["transparency"] = hidden * 255 // ((1 << bits) - 1)
    return _shallow(image)


def _tag(image: Image.Image, tag: int) -> object:
    """A number of a TIFF's first directory, the first one where it holds several."""
    value = getattr(image, "tag_v2", {}).get(tag)
    return value[0] if isinstance(value, tuple) and value else value


def _bits(image: Image.Image, stream: BinaryIO) -> int:
    """Bits per channel as the file stores them."""
    if image.format == "TIFF":
        bits = _tag(image, _BITS_PER_SAMPLE)
        return bits if isinstance(bits, int) else 8
    if image.format == "PNG":
        at = stream.tell()
        stream.seek(24)  # Signature 8, chunk length and name 8, width and height 8.
        depth = stream.read(1)
        stream.seek(at)
        return depth[0] if depth else 8
    return 8


def _fourth_channel(image: Image.Image) -> object:
    """What a TIFF says that the channel after its RGB is, 0 where it says nothing; None where there is none."""
    samples = _tag(image, _SAMPLES)
    if image.format != "TIFF" or _tag(image, _PHOTOMETRIC) != _RGB or not isinstance(samples, int) or samples < 4:
        return None
    return _tag(image, _EXTRA_SAMPLES) or 0


def _divided(pixels: Pixels, alpha: Pixels) -> NDArray[np.uint16]:
    """Colours that were multiplied by their opacity as they were before, (H, W, 3); black where nothing shows."""
    result = np.zeros(pixels.shape, np.uint16)
    for top in range(0, len(pixels), _BAND_ROWS):
        rows = slice(top, top + _BAND_ROWS)
        opacity = alpha[rows, :, None].astype(np.uint32)  # [R W 1]
        shares = (pixels[rows].astype(np.uint32) * 65535 + opacity // 2) // np.maximum(opacity, 1)
        result[rows] = np.where(opacity == 0, 0, np.minimum(shares, 65535))
    return result


def _gray_to_rgb(gray: NDArray[np.uint8] | NDArray[np.uint16]) -> Pixels:
    return cast("Pixels", np.repeat(gray[:, :, None], 3, axis=2))  # [H W 3]


def _deep_gray(image: Image.Image) -> Decoded:
    values = np.asarray(image)
    if image.mode == "F":
        low, high = float(values.min()), float(values.max())
        if not (low >= -_FLOAT_SLACK and high <= 1 + _FLOAT_SLACK):  # So that NaN is refused too.
            raise UnusualPixelsError("holds floating-point values outside 0 to 1, whose white point nobody states")
        deep = np.rint(np.clip(values, 0, 1) * np.float32(65535)).astype(np.uint16)
    elif _tag(image, _SAMPLE_FORMAT) == _SIGNED:
        raise UnusualPixelsError("holds signed numbers, whose black point nobody states")
    elif image.mode == "I":
        whole = values.view(np.uint32)
        is_wide = _tag(image, _BITS_PER_SAMPLE) == 32
        deep = (whole >> 16 if is_wide else np.minimum(whole, 65535)).astype(np.uint16)
    else:
        deep = _full_range(values, _tag(image, _BITS_PER_SAMPLE))
    if image.format == "TIFF" and _tag(image, _PHOTOMETRIC) == _MIN_IS_WHITE:
        deep = 65535 - deep
    hidden = image.info.get("transparency") if image.format == "PNG" else None
    alpha = (deep != hidden).astype(np.uint16) * np.uint16(65535) if isinstance(hidden, int) else None
    return Decoded(_gray_to_rgb(deep), alpha, is_gray=True)


def _full_range(values: NDArray[Any], bits: object) -> NDArray[np.uint16]:
    """Gray as 16 bits, whose white is 65535, from so many bits as a TIFF names; scanners of 12 bits pack these."""
    if not isinstance(bits, int) or not 8 < bits < 16:
        return values.astype(np.uint16)
    white = (1 << bits) - 1
    levels: NDArray[np.uint16] = ((np.arange(white + 1) * 65535 + white // 2) // white).astype(np.uint16)
    return np.asarray(levels[np.minimum(values, white)], np.uint16)


def _deep_colour(image: Image.Image, stream: BinaryIO) -> Decoded:
    """Decodes 16-bit RGB with OpenCV, which turns a TIFF upright as Pillow has done."""
    stream.seek(0)
    data = stream.read()
    if image.format == "PNG":
        data = _bare_png(data)
    cv2.utils.logging.setLogLevel(
        cv2.utils.logging.LOG_LEVEL_SILENT
    )  # It prints its own remarks on damaged files otherwise.
    try:
        decoded = _imdecode(data, image.tell())
    except cv2.error as error:
        raise OSError(error.err) from error
    if decoded is None or decoded.dtype != np.uint16 or decoded.shape[:2] != (image.height, image.width):
        raise OSError("16-bit pixels cannot be decoded")
    channels = decoded.shape[2] if decoded.ndim == 3 else 1
    if channels not in (3, 4):
        raise OSError(f"{channels} channels of 16 bits")
    pixels = np.ascontiguousarray(decoded[:, :, 2::-1]).astype(np.uint16, copy=False)
    alpha = np.ascontiguousarray(decoded[:, :, 3]).astype(np.uint16, copy=False) if channels == 4 else None
    return Decoded(pixels, alpha, is_gray=_is_gray_with_alpha(image, stream))


def _imdecode(data: bytes, frame: int) -> NDArray[Any] | None:
    buffer = np.frombuffer(data, np.uint8)
    if frame == 0:
        return cv2.imdecode(buffer, cv2.IMREAD_UNCHANGED)
    _, frames = cv2.imdecodemulti(buffer, cv2.IMREAD_UNCHANGED, range=(frame, frame + 1))
    return frames[0] if frames else None


def _bare_png(data: bytes) -> bytes:
    """The chunks of a PNG that pixels need, with their checksums tested.

    Its decoder prints remarks on the others, an sRGB profile of the wrong make for one, and on wrong checksums.

    Raises:
        OSError: A checksum is wrong or a chunk is longer than the file.
    """
    parts = [data[:_PNG_SIGNATURE_BYTES]]
    at = _PNG_SIGNATURE_BYTES
    while at + 12 <= len(data):  # Length, name and checksum, 4 bytes each.
        (length,) = struct.unpack_from(">I", data, at)
        end = at + 12 + length
        if data[at + 4 : at + 8] in (b"IHDR", b"tRNS", b"IDAT"):
            if end > len(data) or zlib.crc32(data[at + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
                raise OSError("wrong checksum")
            parts.append(data[at:end])
        at = end
    return b"".join(parts) + _PNG_END


def _is_gray_with_alpha(image: Image.Image, stream: BinaryIO) -> bool:
    """Whether a PNG has the colour type 4: gray and alpha, which decoders give as four channels."""
    if image.format != "PNG":
        return False
    stream.seek(25)
    return stream.read(1) == b"\x04"


def _shallow(image: Image.Image) -> Decoded:
    notes: tuple[str, ...] = ()
    is_converted = image.mode in ("CMYK", "LAB")
    if is_converted:
        profile = image.info.get("icc_profile")
        image, note = ink_to_rgb(image, profile if isinstance(profile, bytes) else None)
        notes = (note,) if note else ()
    if image.has_transparency_data or image.mode in ("La", "RGBa", "PA"):
        decoded = _with_alpha(image)
        # Many programs leave the fourth byte of a BMP's pixels at zero, and viewers show such a file opaque.
        is_unused = image.format == "BMP" and decoded.alpha is not None and not decoded.alpha.any()
        return replace(decoded, alpha=None) if is_unused else decoded
    if image.mode in ("1", "L"):
        return Decoded(_gray_to_rgb(np.asarray(image.convert("L"))), is_gray=True)
    is_palette = image.mode == "P"
    pixels = _rgb(image)
    return Decoded(pixels, None, is_palette and _all_gray(pixels), is_converted, notes)


def _rgb(image: Image.Image) -> Pixels:
    """The pixels as RGB, copied in bands: Pillow would hold ten bytes a pixel more of a whole image on the way."""
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, _BAND_ROWS):
        bottom = min(top + _BAND_ROWS, image.height)
        pixels[top:bottom] = np.asarray(image.crop((0, top, image.width, bottom)).convert("RGB"))
    return pixels


def _with_alpha(image: Image.Image) -> Decoded:
    is_gray = image.mode in ("1", "L", "LA", "La")
    straight = image.convert("LA") if image.mode == "La" else image
    full = np.asarray(straight.convert("RGBA"))
    pixels = np.ascontiguousarray(full[:, :, :3])
    is_gray = is_gray or (image.mode in ("P", "PA") and _all_gray(pixels))
    return Decoded(pixels, np.ascontiguousarray(full[:, :, 3]), is_gray)


def _all_gray(pixels: Pixels) -> bool:
    """Whether the colours of a palette image are all gray: then it is stored as gray again."""
    red = pixels[:, :, 0]
    return bool(np.array_equal(red, pixels[:, :, 1]) and np.array_equal(red, pixels[:, :, 2]))
