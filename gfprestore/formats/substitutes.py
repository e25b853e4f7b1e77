"""Puts what a format has no place of its own for where other programs look for it: into EXIF, or a PNG's text."""

from __future__ import annotations

from dataclasses import replace

from gfprestore.formats import exif
from gfprestore.formats.exifresolution import resolution, resolution_entries
from gfprestore.photo import PhotoMetadata


def comment_text(comment: bytes | None) -> bytes:
    """A JPEG's comment as text that a null character ends: without its padding, and with blanks for such within."""
    return (comment or b"").strip(b"\x00 \t\r\n").replace(b"\x00", b" ")


def with_comment(metadata: PhotoMetadata, format: str) -> tuple[PhotoMetadata, list[str]]:
    """Makes the comment EXIF's description, unless there is another.

    Args:
        metadata: Of a photo.
        format: For the sentence: what holds no comment.

    Returns:
        The metadata with a description, and a sentence where the comment is lost.
    """
    text = comment_text(metadata.comment)
    block = metadata.exif or exif.EMPTY_BLOCK
    try:
        description = exif.text(block, exif.DESCRIPTION)
        if not text or description == text:
            return metadata, []
        if not description:
            entry = exif.ASCII, len(text) + 1, text + b"\x00"
            return replace(metadata, exif=exif.with_entries(block, {exif.DESCRIPTION: entry})), []
    except exif.ExifError:
        pass
    return metadata, [f"The comment was left out, since {format} holds none beside the description."]


def with_resolution(metadata: PhotoMetadata) -> PhotoMetadata:
    """The metadata with the resolution in its EXIF block; as they are where the block is damaged."""
    block = metadata.exif or exif.EMPTY_BLOCK
    try:
        if metadata.dpi is None or resolution(block) == metadata.dpi:
            return metadata
        entries = resolution_entries(exif.byte_order(block), metadata.dpi)
        return replace(metadata, exif=exif.with_entries(block, entries))
    except exif.ExifError:
        return metadata
