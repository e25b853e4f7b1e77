"""Writes photos whole or not at all, with what their sources carried beside the pixels."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from PIL import Image

from gfprestore.atomic import atomic_file
from gfprestore.colour import profile_space, to_8_bits, to_srgb
from gfprestore.errors import PhotoError, printable
from gfprestore.formats import exif
from gfprestore.formats.bmpwriter import write_bmp
from gfprestore.formats.filepixels import FilePixels
from gfprestore.formats.jpegwriter import write_jpeg
from gfprestore.formats.pngchunks import encode_png, keyword
from gfprestore.formats.substitutes import with_comment, with_resolution
from gfprestore.formats.tiffwriter import append_page, write_tiff
from gfprestore.photo import Photo
from gfprestore.walk import split_suffix

_BEST_WEBP_QUALITY = 95
"""Where none is asked for: beyond it files grow and nothing is seen."""

_LARGEST_SIDE = {"JPEG": 65500, "WebP": 16383}
"""Limits of libjpeg and of the WebP container, in pixels."""

_ENCODER_ERRORS = (OSError, ValueError, TypeError, RuntimeError, SystemError, cv2.error, exif.ExifError)
"""What encoders raise; a write that the disk refuses is told apart by its error number. Memory that runs out is left to
the caller, who can say what would help."""


def write_photo(
    path: Path,
    photo: Photo,
    *,
    quality: int | None = None,
    overwrite: bool = False,
    further_pages: Iterable[Photo] = (),
    option: str = "--output",
) -> tuple[str, ...]:
    """Writes a photo in the format of the name's suffix; the file is complete or absent. Missing folders are made.

    JPEG and WebP take `quality`; without it a JPEG gets its source's quantisation tables and subsampling if the source
    was one, else quality 95 without subsampling. PNG and TIFF are lossless and keep 16 bits and opacity; the others
    hold 8 bits, and JPEG and BMP show transparent parts on white. Gray photos are written with one channel. The rest
    goes along as far as the format holds it; BMP holds only the resolution, so its pixels become sRGB.

    Args:
        path: The file.
        photo: Its only or first page.
        quality: Of JPEG and WebP, 1 to 100.
        overwrite: Replace a file that exists.
        further_pages: What follows in a TIFF, and only there; each is written before the next is asked for.
        option: The option that named the folder, for messages.

    Returns:
        What was lost, one sentence each.

    Raises:
        TargetExistsError: The file exists and `overwrite` is False; nothing was changed.
        OutputError: The folder cannot be written.
        PhotoError: This photo cannot be written there or in this format.
    """
    write = _WRITERS.get(split_suffix(path.name)[1].lower())
    if write is None:
        raise PhotoError(f"{printable(path)} has no suffix of a format that can be written; use --format.")
    with atomic_file(path, overwrite=overwrite, option=option) as stream:
        with _told(path):
            notes = write(stream, _sized_for_tiff(photo) if write is _write_tiff else _sized(photo), quality)
        for page in further_pages:
            with _told(path):
                append_page(stream, FilePixels(sized := _sized_for_tiff(page)), sized.metadata)
    return tuple(notes)


def holds_pages(path: Path) -> bool:
    """Whether a file of this name can hold several pages."""
    return _WRITERS.get(split_suffix(path.name)[1].lower()) is _write_tiff


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turns what an encoder raises into one sentence; what the disk refuses stays as it is."""
    try:
        yield
    except _ENCODER_ERRORS as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = printable(" ".join(str(error).split())) or type(error).__name__
        raise PhotoError(f"{printable(path)} cannot be written ({reason}).") from error


def _sized(photo: Photo) -> Photo:
    """The photo with the dimensions in its EXIF block set to its own, and a profile that suits its channels."""
    space = profile_space(photo.metadata.icc_profile)
    if space != "RGB" and not (space == "GRAY" and photo.is_gray):
        photo = _in_srgb(photo)
    metadata = photo.metadata
    height, width = photo.pixels.shape[:2]
    if metadata.exif is not None:
        metadata = replace(metadata, exif=_sized_exif(metadata.exif, width, height))
    # Gray pixels described by a colour profile are only right with three channels.
    return replace(photo, metadata=metadata, is_gray=photo.is_gray and space != "RGB")


def _sized_for_tiff(photo: Photo) -> Photo:
    """As `_sized`, and gray with opacity at 16 bits as RGB: Pillow and others cannot read it as gray."""
    is_unread = photo.alpha is not None and photo.pixels.dtype == np.uint16
    return _sized(replace(photo, is_gray=photo.is_gray and not is_unread))


def _sized_exif(block: bytes, width: int, height: int) -> bytes | None:
    try:
        return exif.with_size(block, width, height)
    except exif.ExifError:
        return block


def _in_srgb(photo: Photo) -> Photo:
    """The photo without its profile, looking the same."""
    pixels = to_srgb(photo.pixels, photo.metadata.icc_profile)
    return replace(photo, pixels=pixels, metadata=replace(photo.metadata, icc_profile=None))


def _shallow(photo: Photo) -> Photo:
    """The photo at 8 bits."""
    alpha = None if photo.alpha is None else to_8_bits(photo.alpha)
    return replace(photo, pixels=to_8_bits(photo.pixels), alpha=alpha)


def _flattened(photo: Photo) -> Photo:
    """The photo at 8 bits and opaque: transparent parts show white."""
    photo = _shallow(photo)
    if photo.alpha is None:
        return photo
    opacity = photo.alpha[:, :, None].astype(np.uint16)  # [H W 1]
    blended = (photo.pixels * opacity + 255 * (255 - opacity) + 127) // 255
    return replace(photo, pixels=blended.astype(np.uint8), alpha=None)


def _depth_notes(photo: Photo) -> list[str]:
    if photo.pixels.dtype == np.uint8:
        return []
    return ["16 bits a channel were reduced to 8, which is what the format holds."]


def _opacity_notes(photo: Photo) -> list[str]:
    if photo.alpha is None or to_8_bits(photo.alpha.min(keepdims=True)) == 255:
        return []
    return ["Transparent parts are shown on white, since the format holds no opacity."]


def _check_side(photo: Photo, format: str) -> None:
    height, width = photo.pixels.shape[:2]
    if max(height, width) > _LARGEST_SIDE[format]:
        raise ValueError(
            f"{format} holds sides up to {_LARGEST_SIDE[format]} pixels, not {width} x {height};"
            " use --format png or a lower --upscale"
        )


def _write_jpeg(stream: BinaryIO, photo: Photo, quality: int | None) -> list[str]:
    _check_side(photo, "JPEG")
    notes = write_jpeg(stream, FilePixels(photo, _flattened), photo.metadata, quality)
    return [*_depth_notes(photo), *_opacity_notes(photo), *_text_notes(photo, "JPEG"), *notes]


def _write_webp(stream: BinaryIO, photo: Photo, quality: int | None) -> list[str]:
    _check_side(photo, "WebP")
    # The format knows no gray, nor a profile for it, and its encoder wants the whole photo.
    if profile_space(photo.metadata.icc_profile) == "GRAY":
        photo = _in_srgb(photo)
    metadata, comment_notes = with_comment(with_resolution(photo.metadata), "WebP")
    height, _ = photo.pixels.shape[:2]
    pixels = FilePixels(replace(photo, is_gray=False), _shallow).rows(0, height)
    parts = {"exif": metadata.exif, "xmp": metadata.xmp, "icc_profile": metadata.icc_profile}
    settings: dict[str, Any] = {name: part for name, part in parts.items() if part is not None}
    # In memory: Pillow writes to a real file without telling a full disk from any other fault.
    buffer = io.BytesIO()
    try:
        Image.fromarray(pixels).save(buffer, "WEBP", quality=quality or _BEST_WEBP_QUALITY, exact=True, **settings)
    except ValueError as error:
        raise _webp_fault(error) from error
    stream.write(buffer.getbuffer())
    return [*_iptc_notes(photo), *_text_notes(photo, "WebP"), *comment_notes, *_depth_notes(photo)]


def _webp_fault(error: ValueError) -> Exception:
    """What libwebp means by the number that Pillow passes on (its WebPEncodingError)."""
    code = str(error).removeprefix("encoding error ")
    if code in ("1", "2"):
        return MemoryError(str(error))
    if code == "6":
        # Half a megabyte for all blocks' modes: some photos of 200 megapixels need more.
        return ValueError("WebP holds no photo as large and rich in detail; use --format png or a lower --upscale")
    return error


def _write_bmp(stream: BinaryIO, photo: Photo, quality: int | None) -> list[str]:
    write_bmp(stream, FilePixels(photo, _flattened_srgb), photo.metadata.dpi)
    return [*_depth_notes(photo), *_opacity_notes(photo)]


def _flattened_srgb(photo: Photo) -> Photo:
    return _in_srgb(_flattened(photo))


def _write_png(stream: BinaryIO, photo: Photo, quality: int | None) -> list[str]:
    for part in encode_png(FilePixels(photo), photo.metadata):
        stream.write(part)
    return []


def _write_tiff(stream: BinaryIO, photo: Photo, quality: int | None) -> list[str]:
    metadata, comment_notes = with_comment(photo.metadata, "TIFF")
    write_tiff(stream, FilePixels(photo), metadata)
    return [*_text_notes(photo, "TIFF"), *comment_notes]


def _iptc_notes(photo: Photo) -> list[str]:
    return [] if photo.metadata.iptc is None else ["The IPTC data were left out, since WebP holds none."]


def _text_notes(photo: Photo, format: str) -> list[str]:
    if not photo.metadata.png_text:
        return []
    names = ", ".join(dict.fromkeys(printable(keyword(text)) for text in photo.metadata.png_text))
    return [f"Text of the PNG ({names}) was left out, since {format} holds none."]


_WRITERS: dict[str, Callable[[BinaryIO, Photo, int | None], list[str]]] = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), _write_jpeg),
    **dict.fromkeys((".tif", ".tiff"), _write_tiff),
    ".png": _write_png,
    ".webp": _write_webp,
    ".bmp": _write_bmp,
}
"""Suffix -> writer; `folders.KEPT_SUFFIXES` lists the same suffixes, which a test compares."""
