"""What photo files carry beside their pixels: read from Pillow's images, kept, and tagged."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import BinaryIO

from PIL import Image, JpegImagePlugin

from gfprestore.colour import profile_space
from gfprestore.formats import exif, xmp
from gfprestore.formats.exifresolution import resolution
from gfprestore.formats.gamma import gamma_profile
from gfprestore.formats.photoshop import SEGMENT_PREFIX, bare_record, iptc_record
from gfprestore.formats.pngchunks import text_chunks
from gfprestore.formats.pngprofiles import raw_profiles
from gfprestore.formats.tifftags import DESCRIBING_TAGS, describing_block, value_bytes
from gfprestore.photo import PhotoMetadata

_TIFF_IPTC = 33723

_COLOUR_TYPE_AT = 25
"""Of a PNG, in its header; 0 is gray, 4 gray with opacity (PNG specification, section 11.2.1)."""

_GRAY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B")
"""Pillow's, of PNG files with one channel of colour."""

_LARGEST_DPI = 100_000
"""More than any scanner's: a larger number is damage."""


def read_metadata(image: Image.Image, stream: BinaryIO | None = None) -> tuple[PhotoMetadata, int, list[str]]:
    """Metadata of a loaded image, the orientation that its pixels still need, and what could not be kept.

    The orientation is that of the EXIF block or, where it names none, of the XMP packet. By the former the decoders of
    TIFF have turned the pixels already.

    Args:
        image: Loaded.
        stream: The file that it was opened from, for what Pillow loses of a TIFF's tags and a PNG's text.

    Returns:
        The metadata, already upright; the orientation, 1 to 8; one sentence for each part that is damaged or lost.
    """
    info = image.info
    raw = raw_profiles(info) if image.format == "PNG" else {}
    by_field = dict(raw.values())
    block, turn, warnings = _upright_exif(image, stream, by_field.get("exif"))
    profile = _bytes_or_none(info.get("icc_profile"))
    if profile is not None and not profile_space(profile):
        warnings.append("The colour profile is damaged and was left out.")
        profile = None
    if profile is None:
        profile = _stated_colours(image, stream, by_field.get("icc_profile"))
    packet = _bytes_or_none(info.get("xmp")) or by_field.get("xmp")
    if packet is not None:
        packet, lost = xmp.of_photo_alone(packet)
        warnings += lost
    if turn is None:
        turn = xmp.orientation(packet or b"")
    metadata = PhotoMetadata(
        format="JPEG" if image.format == "MPO" else str(image.format),
        exif=block,
        icc_profile=profile,
        xmp=None if packet is None else xmp.upright(packet),
        iptc=_iptc(image, stream) or by_field.get("iptc"),
        dpi=_dpi(info.get("dpi")) or _dpi(None if block is None else resolution(block)),
        jpeg_tables=_jpeg_tables(image),
        jpeg_subsampling=_jpeg_subsampling(image),
        comment=_comment(image),
    )
    if image.format == "PNG" and stream is not None:
        kept = {keyword for keyword, (field, _) in raw.items() if getattr(metadata, field) is not None}
        metadata = replace(metadata, png_text=text_chunks(stream, kept))
    return metadata, turn, warnings


def _upright_exif(
    image: Image.Image, stream: BinaryIO | None, raw: bytes | None
) -> tuple[bytes | None, int | None, list[str]]:
    """The EXIF block made upright, the orientation that its pixels still need if it names one, a sentence on damage.

    `raw` is used where the file holds no other.
    """
    warnings = []
    try:
        if image.format == "TIFF" and stream is not None:
            block, is_damaged = describing_block(stream, image.tell(), DESCRIBING_TAGS)
            warnings = ["A part of the EXIF data is damaged and was left out."] if is_damaged else []
        else:
            block = exif.without_prefix(_bytes_or_none(image.info.get("exif")) or raw or b"") or None
        if block is None:
            return None, None, warnings
        turn = exif.orientation(block)
        return exif.upright(block), 1 if turn and image.format == "TIFF" else turn, warnings
    except exif.ExifError as error:
        return None, None, [f"The EXIF data are damaged ({error}) and were left out."]


def _stated_colours(image: Image.Image, stream: BinaryIO | None, raw: bytes | None) -> bytes | None:
    """A profile for a PNG without one of its own that does not call itself sRGB: that of its text, or of its gamma."""
    if image.format != "PNG" or "srgb" in image.info:
        return None
    gamma = image.info.get("gamma")
    if raw is not None or not isinstance(gamma, float) or "icc_profile" in image.info:
        return raw
    return gamma_profile(gamma, is_gray=image.mode in _GRAY_MODES or _is_gray_png(stream))


def _is_gray_png(stream: BinaryIO | None) -> bool:
    """Whether a PNG calls itself gray: of gray with opacity at 16 bits Pillow makes RGBA."""
    if stream is None:
        return False
    stream.seek(_COLOUR_TYPE_AT)
    return stream.read(1) in (b"\x00", b"\x04")


def _bytes_or_none(value: object) -> bytes | None:
    return bytes(value) if isinstance(value, bytes) and value else None


def _iptc(image: Image.Image, stream: BinaryIO | None) -> bytes | None:
    """The IPTC-IIM record: a resource of a JPEG's Photoshop segment, or a TIFF's tag."""
    if image.format == "TIFF":
        # From the file itself, since many programs call it numbers of 32 bits, which it is not.
        value = None if stream is None else value_bytes(stream, image.tell(), _TIFF_IPTC)
        return None if value is None else bare_record(value) or None
    segments = [data for name, data in getattr(image, "applist", ()) if name == "APP13"]
    return iptc_record(b"".join(data[len(SEGMENT_PREFIX) :] for data in segments if data.startswith(SEGMENT_PREFIX)))


def _dpi(value: object) -> tuple[float, float] | None:
    if not isinstance(value, tuple) or len(value) != 2:
        return None
    try:
        x, y = (float(side) for side in value)
    except (TypeError, ValueError, ArithmeticError):
        return None
    usable = all(math.isfinite(side) and 0 < side <= _LARGEST_DPI for side in (x, y))
    return (x, y) if usable else None


def _jpeg_tables(image: Image.Image) -> dict[int, list[int]] | None:
    """The quantisation tables, numbered as encoders use them: first that of gray or brightness, then that of colour."""
    tables = getattr(image, "quantization", None) if image.format in ("JPEG", "MPO") else None
    if not tables:
        return None
    of_channels = [layer[3] for layer in getattr(image, "layer", ())]
    ordered = [number for number in dict.fromkeys([*of_channels, *sorted(tables)]) if number in tables]
    return {place: [int(step) for step in tables[number]] for place, number in enumerate(ordered)}


def _jpeg_subsampling(image: Image.Image) -> int | None:
    if not isinstance(image, JpegImagePlugin.JpegImageFile):
        return None
    number = JpegImagePlugin.get_sampling(image)
    return number if number in (0, 1, 2) else None


def _comment(image: Image.Image) -> bytes | None:
    value = image.info.get("comment")
    return value if image.format in ("JPEG", "MPO") and isinstance(value, bytes) and value else None


def tag_as_restored(metadata: PhotoMetadata, model: str, version: str) -> PhotoMetadata:
    """The metadata saying that the photo was enhanced, by which version and model.

    EXIF `Software` and XMP `tiff:Software` name them; IPTC's `DigitalSourceType` in the XMP packet is
    `algorithmicallyEnhanced`. An EXIF block or a packet that is damaged, or in an encoding other than UTF-8, is kept as
    it is. The metadata without the tag stay at hand for a format that has no room for it.
    """
    software = f"gfprestore {version} ({model})"
    block = metadata.exif or exif.EMPTY_BLOCK
    try:
        block = exif.with_text(block, exif.SOFTWARE, software)
    except exif.ExifError:
        block = metadata.exif or block
    return replace(metadata, exif=block, xmp=xmp.tagged(metadata.xmp, software), untagged=metadata)
