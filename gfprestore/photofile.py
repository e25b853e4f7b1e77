"""Reads photos of many formats into one form, upright, in their own colours and depth; every fault is a `PhotoError`.

Files are untrusted: only the decoder that the first bytes call for is tried, the size is checked before pixels are
decoded, and whatever a decoder raises becomes one sentence. A truncated photo is refused rather than completed with
gray: nobody should find out years later that the archive copy lacks its lower half.
"""

from __future__ import annotations

import ctypes
import importlib
import logging
import os
import stat
import struct
import warnings
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin, UnidentifiedImageError, features

from gfprestore.errors import PageError, PhotoError, printable
from gfprestore.formats.decode import Decoded, UnusualPixelsError, decode_pixels
from gfprestore.formats.metadata import read_metadata
from gfprestore.formats.tiffpages import find_pages, turn_to
from gfprestore.formats.tifftags import holds_its_pixels
from gfprestore.photo import Photo, Pixels
from gfprestore.photowrite import write_photo

__all__ = ["MAX_PIXELS", "read_photo", "write_photo"]

MAX_PIXELS = 400_000_000
"""Largest photo that is read, in pixels: a 16x20 inch print scanned at 1100 dpi. Its pixels take 1.2 GB at 8 bits."""

_PIXELS_PER_BYTE = 8500
"""No photo packs tighter: Deflate reaches 1032:1, at one bit a pixel."""

_MODEST_PIXELS = 16_000_000
"""Up to here a header may claim what it likes: the memory that a lie costs is small."""

_DECODER_ERRORS = (
    *(OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError),
    *(AssertionError, RuntimeError, MemoryError, struct.error, zlib.error, Warning),
    *(Image.DecompressionBombError, ImageCms.PyCMSError),
)
"""What decoders raise on damaged files: a wrong number in a file leads to any of these, as fuzzing has shown."""

_PILLOW_MODULES = r"PIL\."

_LONGEST_REASON = 120
"""Characters of a decoder's own words in a message."""

_FORMATS = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"II*\x00", "TIFF"),
    (0, b"MM\x00*", "TIFF"),
    (0, b"II+\x00", "TIFF"),
    (0, b"MM\x00+", "TIFF"),
    (8, b"WEBP", "WEBP"),
    (0, b"BM", "BMP"),
    (0, b"GIF8", "GIF"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftypavis", "AVIF"),
    (0, b"\xff\x0a", "JXL"),
    (0, b"\x00\x00\x00\x0cJXL \r\n\x87\n", "JXL"),
)
"""Where the first bytes of a file tell its format, whatever its name says."""

_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")

_PLUGINS = {"HEIF": "pillow_heif", "JXL": "pillow_jxl"}
"""Formats that Pillow reads with a package of the extra `formats`."""


def read_photo(path: Path, page: int = 0) -> Photo:
    """Reads a photo: upright, RGB, 8 or 16 bits as the file has them, in the file's own colour profile.

    CMYK, Lab and palette colours become sRGB. Gray is repeated in three channels and `is_gray` says so. 16-bit PNG and
    TIFF, and gray floating-point TIFF from 0 to 1, come as uint16. Of several frames the first is taken, with a
    warning; the previews that a phone adds to a JPEG, and a scanner to a TIFF, are no pages.

    The memory taken at once is bounded by `MAX_PIXELS`, whatever the file claims: about 8 bytes a pixel beside the
    result for the decoder, 16 at 16 bits, and the file itself at 16 bits.

    Args:
        path: The file.
        page: Which page of a TIFF, from 0, among those that can be read.

    Raises:
        PageError: A page after the first is damaged, in a file that does not end early.
        PhotoError: The file is missing, unreadable, no photo, damaged, truncated, too large or being written; one
            sentence.
    """
    name = printable(path)
    try:
        with open(path, "rb", opener=_open_at_once) as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise PhotoError(f"{name} is not a file.")
            photo = _read(stream, name, status.st_size, page)
            now = os.fstat(stream.fileno())
            if (now.st_size, now.st_mtime_ns) != (status.st_size, status.st_mtime_ns):
                raise PhotoError(f"{name} changed while it was read; run again once it is complete.")
            return photo
    except OSError as error:
        raise PhotoError(f"{name} cannot be read ({error.strerror or type(error).__name__}).") from error
    except ValueError as error:  # A null character in the name.
        raise PhotoError(f"{name} is not a name that a file can have.") from error


def _open_at_once(name: str, flags: int) -> int:
    """Opens without waiting: a pipe in a photo's place must not hang the run."""
    return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))


def _read(stream: BinaryIO, name: str, size: int, page: int) -> Photo:
    if size == 0:
        raise PhotoError(f"{name} is empty.")
    format = _sniff(stream.read(64))
    if format is None:
        raise PhotoError(f"{name} is not a photo in a format that can be read.")
    _register(format, name)
    stream.seek(0)
    _silence_pillow()
    try:
        with Image.open(stream, formats=[format]) as image:
            pages, odd = find_pages(image, stream) if format == "TIFF" else ([0], [])
            if format == "TIFF":
                turn_to(image, pages[page])
            packet = _take_xmp(image)
            _check_size(image, name, size)
            frames = getattr(image, "n_frames", 1) if image.format not in ("MPO", "TIFF") else 1
            decoded = _decode(image, stream, page, pages, odd)
            image.info["xmp"] = packet or _take_xmp(image)  # A PNG may hold it after its pixels.
            metadata, turn, damage = read_metadata(image, stream)
            bits = image.info.get("bit_depth")
    except PhotoError:
        raise
    except _DECODER_ERRORS as error:
        raise PhotoError(f"{name} {_fault(error)}.") from error
    notes = [*decoded.warnings, *damage]
    if page == 0:
        notes += [f"Page {number} stores its pixels in an unusual way and was left out." for number in odd]
    if frames > 1:
        notes.insert(0, f"Only the first of {frames} frames was restored.")
    if isinstance(bits, int) and bits > 8:
        notes.append(f"{bits} bits a channel were read as 8, which is what the package for {format} gives.")
    if decoded.is_converted:
        metadata = replace(metadata, icc_profile=None)
    return Photo(
        pixels=_turned(decoded.pixels, turn),
        metadata=metadata,
        alpha=None if decoded.alpha is None else _turned(decoded.alpha, turn),
        is_gray=decoded.is_gray,
        warnings=tuple(notes),
        pages=len(pages),
    )


def _decode(image: Image.Image, stream: BinaryIO, page: int, pages: Sequence[int], odd: Sequence[int]) -> Decoded:
    """Decodes a page; what is wrong with one after the first is its own fault, as long as the file holds all of it."""
    try:
        return decode_pixels(image, stream)
    except MemoryError:
        raise
    except _DECODER_ERRORS as error:
        is_of_file = isinstance(error, OSError) and error.errno is not None
        if page == 0 or is_of_file or not holds_its_pixels(stream, pages[page]):
            raise
        number = page + 1
        for other in odd:
            number += other <= number
        raise PageError(f"Page {number} {_fault(error)} and was left out.") from error


def _take_xmp(image: Image.Image) -> bytes | None:
    """Takes the XMP packet, whatever type its tag has, away from what Pillow holds.

    Pillow would turn a TIFF by the orientation in it while it is loaded, but not in every spelling, and OpenCV never.
    """
    packet = image.info.pop("xmp", None)
    if isinstance(packet, str):
        return packet.encode("latin-1" if image.format == "TIFF" else "utf-8", "surrogateescape")
    return packet if isinstance(packet, bytes) else None


def _sniff(start: bytes) -> str | None:
    for at, magic, format in _FORMATS:
        if start[at : at + len(magic)] == magic:
            return format
    return "HEIF" if start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS else None


def _register(format: str, name: str) -> None:
    """Makes Pillow know the format, or says what to install."""
    Image.init()
    plugin = _PLUGINS.get(format)
    if plugin is not None and format not in Image.OPEN:
        try:
            module = importlib.import_module(plugin)
        except ImportError:
            raise PhotoError(f"{name} is a {format} file; to read it, install gfprestore with [formats].") from None
        if format == "HEIF":
            module.register_heif_opener()
    if format not in Image.OPEN or (format in ("AVIF", "WEBP") and not features.check(format.lower())):
        raise PhotoError(f"{name} is a {format} file, which the installed Pillow cannot read; install a newer one.")


def _silence_pillow() -> None:
    """Keeps Pillow's remarks on damaged files off the terminal: what matters becomes this photo's own warning.

    A filter for Pillow's modules alone, set once; `catch_warnings` is not safe among threads. Pillow's own limit on
    pixels, under half of ours, gives way to `MAX_PIXELS`, which is checked before any pixel is decoded. That on each
    compressed text or profile of a PNG, of 1 MB, gives way to that on all text of a file, of 64.
    """
    first = warnings.filters[0] if warnings.filters else None
    if first is None or first[0] != "ignore" or getattr(first[3], "pattern", None) != _PILLOW_MODULES:
        warnings.filterwarnings("ignore", module=_PILLOW_MODULES)
    if Image.MAX_IMAGE_PIXELS is not None and Image.MAX_IMAGE_PIXELS < MAX_PIXELS:
        Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    PngImagePlugin.MAX_TEXT_CHUNK = max(PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY)
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    _silence_libtiff()


@cache
def _silence_libtiff() -> None:
    """Takes away the handler with which Pillow's libtiff prints errors on stderr; it returns them as well.

    Pillow offers no way. The symbol is found among what Pillow's module is linked with; where it is not, for instance
    on Windows, the remarks of libtiff on damaged files remain.
    """
    with suppress(OSError, AttributeError):
        set_handler = ctypes.CDLL(importlib.import_module("PIL._imaging").__file__).TIFFSetErrorHandler
        set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
        set_handler(None)


def _check_size(image: Image.Image, name: str, size: int) -> None:
    pixels = image.width * image.height
    if pixels == 0:
        raise PhotoError(f"{name} holds no pixels.")
    if pixels > MAX_PIXELS:
        raise PhotoError(
            f"{name} is {image.width} x {image.height} pixels,"
            f" more than the {MAX_PIXELS // 10**6} megapixels that are read."
        )
    if pixels > max(_MODEST_PIXELS, size * _PIXELS_PER_BYTE):
        extent = f"{image.width} x {image.height} pixels"
        raise PhotoError(f"{name} is damaged: {size} bytes cannot hold a photo of {extent}.")


def _fault(error: BaseException) -> str:
    """What to say about a decoder's exception, on one line."""
    if isinstance(error, UnusualPixelsError):
        return str(error)
    if isinstance(error, MemoryError):
        return "needs more memory than there is"
    if isinstance(error, Image.DecompressionBombError):
        return f"has more than the {MAX_PIXELS // 10**6} megapixels that are read"
    said = printable(" ".join(str(error).split()))[:_LONGEST_REASON]
    if "truncated" in said.lower() or isinstance(error, EOFError):
        return "is truncated"
    if isinstance(error, UnidentifiedImageError):
        return "is damaged or stores its pixels in an unusual way that cannot be read"
    return f"is damaged ({said or type(error).__name__})"


def _turned(pixels: Pixels, orientation: int) -> Pixels:
    """Pixels, (H, W) or (H, W, 3), turned upright from their EXIF orientation, C-contiguous (EXIF 2.32, table 6)."""
    if orientation >= 5:
        pixels = np.swapaxes(pixels, 0, 1)
    # Rows and columns to flip, by orientation, once 5 to 8 have been transposed.
    if orientation in (3, 4, 7, 8):
        pixels = np.flip(pixels, 0)
    if orientation in (2, 3, 6, 7):
        pixels = np.flip(pixels, 1)
    return cast("Pixels", np.ascontiguousarray(pixels))
