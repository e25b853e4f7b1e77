"""Writes photos whole or not at all, with what their sources carried beside the pixels."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, cast

import cv2
import numpy as np
from PIL import Image

from gfprestore import exif
from gfprestore.atomic import atomic_file
from gfprestore.colour import profile_space, to_8_bits, to_srgb
from gfprestore.errors import PhotoError, printable
from gfprestore.metadata import photoshop_segment
from gfprestore.photo import Photo, PhotoMetadata, Pixels
from gfprestore.pngchunks import encode_png
from gfprestore.tiffwriter import append_page, write_tiff
from gfprestore.walk import split_suffix

_BEST_QUALITY = 95
"""Quality where none is asked for and the source has no JPEG tables: beyond it files grow and nothing is seen."""

_LARGEST_SIDE = {"JPEG": 65500, "WebP": 16383}
"""Limits of libjpeg and of the WebP container, in pixels."""

_LARGEST_SEGMENT = 65533
"""Bytes of content in a JPEG segment."""

_XMP_PREFIX_BYTES = 29
"""What a JPEG's XMP segment holds before the packet."""

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
    with atomic_file(path, overwrite=overwrite) as stream:
        with _told(path):
            notes = write(stream, _sized(photo), quality)
        for page in further_pages:
            with _told(path):
                append_page(stream, _channels(sized := _sized(page)), sized.metadata)
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
    metadata = photo.metadata
    height, width = photo.pixels.shape[:2]
    space = profile_space(metadata.icc_profile)
    if space not in ("RGB", "GRAY") or (space == "GRAY" and not photo.is_gray):
        metadata = replace(metadata, icc_profile=None)
    if metadata.exif is not None:
        metadata = replace(metadata, exif=_sized_exif(metadata.exif, width, height))
    # Gray pixels described by a colour profile are only right with three channels.
    return replace(photo, metadata=metadata, is_gray=photo.is_gray and space != "RGB")


def _sized_exif(block: bytes, width: int, height: int) -> bytes | None:
    try:
        return exif.with_size(block, width, height)
    except exif.ExifError:
        return block


def _flattened(photo: Photo, notes: list[str]) -> Photo:
    """The photo at 8 bits and opaque: transparent parts show white."""
    photo = _shallow(photo, notes)
    if photo.alpha is None:
        return photo
    if photo.alpha.min() < 255:
        notes.append("Transparent parts are shown on white, since the format holds no opacity.")
    opacity = photo.alpha[:, :, None].astype(np.uint16)  # [H W 1]
    blended = (photo.pixels * opacity + 255 * (255 - opacity) + 127) // 255
    return replace(photo, pixels=blended.astype(np.uint8), alpha=None)


def _shallow(photo: Photo, notes: list[str]) -> Photo:
    if photo.pixels.dtype == np.uint8:
        return photo
    notes.append("16 bits a channel were reduced to 8, which is what the format holds.")
    alpha = None if photo.alpha is None else to_8_bits(photo.alpha)
    return replace(photo, pixels=to_8_bits(photo.pixels), alpha=alpha)


def _channels(photo: Photo) -> Pixels:
    """The pixels as the file holds them: (H, W) for gray, else (H, W, C) with opacity last."""
    gray = photo.pixels[:, :, :1] if photo.is_gray else photo.pixels
    if photo.alpha is not None:
        return cast("Pixels", np.concatenate([gray, photo.alpha[:, :, None]], axis=2))  # [H W C]
    return cast("Pixels", np.ascontiguousarray(gray[:, :, 0] if photo.is_gray else gray))


def _check_side(photo: Photo, format: str) -> None:
    height, width = photo.pixels.shape[:2]
    if max(height, width) > _LARGEST_SIDE[format]:
        raise ValueError(
            f"{format} holds sides up to {_LARGEST_SIDE[format]} pixels, not {width} x {height};"
            " use --format png or a lower --upscale"
        )


def _encoded(photo: Photo, format: str, **settings: Any) -> bytes:
    # In memory: Pillow writes to a real file without telling a full disk from any other fault.
    buffer = io.BytesIO()
    Image.fromarray(_channels(photo)).save(buffer, format, **{k: v for k, v in settings.items() if v is not None})
    return buffer.getvalue()


def _write_jpeg(stream: BinaryIO, photo: Photo, quality: int | None) -> list[str]:
    notes: list[str] = []
    _check_side(photo, "JPEG")
    photo = _flattened(photo, notes)
    metadata = photo.metadata
    settings: dict[str, Any] = {"quality": quality or _BEST_QUALITY, "subsampling": 0}
    if quality is None and metadata.jpeg_tables:
        settings = {"qtables": metadata.jpeg_tables, "subsampling": metadata.jpeg_subsampling or 0}
    parts = _jpeg_parts(metadata, notes)
    stream.write(_encoded(photo, "JPEG", dpi=metadata.dpi, icc_profile=metadata.icc_profile, **parts, **settings))
    return notes


def _jpeg_parts(metadata: PhotoMetadata, notes: list[str]) -> dict[str, bytes]:
    """What goes into segments of their own, where it fits into one."""
    parts: dict[str, bytes] = {}
    if metadata.exif is not None:
        parts["exif"] = b"Exif\x00\x00" + metadata.exif
    if metadata.xmp is not None:
        parts["xmp"] = metadata.xmp
    if metadata.comment is not None:
        parts["comment"] = metadata.comment
    if metadata.iptc is not None:
        parts["extra"] = photoshop_segment(metadata.iptc)
    for name in list(parts):
        if len(parts[name]) + (_XMP_PREFIX_BYTES if name == "xmp" else 0) > _LARGEST_SEGMENT:
            del parts[name]
            notes.append(f"The {_PART_NAMES[name]} data are too long for a JPEG and were left out.")
    if "extra" in parts:
        parts["extra"] = b"\xff\xed" + (len(parts["extra"]) + 2).to_bytes(2, "big") + parts["extra"]
    return parts


_PART_NAMES = {"exif": "EXIF", "xmp": "XMP", "comment": "comment", "extra": "IPTC"}


def _write_webp(stream: BinaryIO, photo: Photo, quality: int | None) -> list[str]:
    notes = _iptc_note(photo, "WebP")
    _check_side(photo, "WebP")
    photo = _shallow(photo, notes)
    metadata = photo.metadata
    coloured = replace(photo, is_gray=False)  # The format knows no gray.
    profile = metadata.icc_profile if profile_space(metadata.icc_profile) == "RGB" else None
    settings: dict[str, Any] = {"exif": metadata.exif, "xmp": metadata.xmp, "icc_profile": profile, "exact": True}
    stream.write(_encoded(coloured, "WEBP", quality=quality or _BEST_QUALITY, **settings))
    return notes


def _write_bmp(stream: BinaryIO, photo: Photo, quality: int | None) -> list[str]:
    notes: list[str] = []
    photo = _flattened(photo, notes)
    photo = replace(photo, pixels=to_srgb(photo.pixels, photo.metadata.icc_profile))
    stream.write(_encoded(photo, "BMP", dpi=photo.metadata.dpi))
    return notes


def _write_png(stream: BinaryIO, photo: Photo, quality: int | None) -> list[str]:
    for part in encode_png(_channels(photo), photo.metadata):
        stream.write(part)
    return _iptc_note(photo, "PNG")


def _write_tiff(stream: BinaryIO, photo: Photo, quality: int | None) -> list[str]:
    write_tiff(stream, _channels(photo), photo.metadata)
    return []


def _iptc_note(photo: Photo, format: str) -> list[str]:
    return [] if photo.metadata.iptc is None else [f"The IPTC data were left out, since {format} holds none."]


_WRITERS: dict[str, Callable[[BinaryIO, Photo, int | None], list[str]]] = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), _write_jpeg),
    **dict.fromkeys((".tif", ".tiff"), _write_tiff),
    ".png": _write_png,
    ".webp": _write_webp,
    ".bmp": _write_bmp,
}
"""Suffix -> writer; `folders.KEPT_SUFFIXES` lists the same suffixes, which a test compares."""
