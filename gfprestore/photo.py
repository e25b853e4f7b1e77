"""The records that flow through the pipeline: types only.

One array convention: RGB, uint8 or uint16, (H, W, 3), C-contiguous. One geometry convention: pixel centres, (x, y),
so the first pixel's centre is (0, 0) and scaling by s is `x' = s * x + (s - 1) / 2`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True, eq=False)
class PhotoMetadata:
    """What a photo file carries beside its pixels, kept for writing."""

    format: str
    """Pillow's name of the source's format, such as `JPEG`."""

    exif: bytes | None = None
    """EXIF block from its byte order mark on, with the orientation reset to upright and no thumbnail."""

    icc_profile: bytes | None = None
    """ICC profile that the pixels are in; None is sRGB."""

    xmp: bytes | None = None
    """XMP packet."""

    iptc: bytes | None = None
    """The IPTC-IIM record: resource 0x0404 of a JPEG's APP13 segment or a PNG's text, or a TIFF's tag 33723."""

    dpi: tuple[float, float] | None = None
    """Resolution in dots per inch, (x, y)."""

    jpeg_tables: dict[int, list[int]] | None = None
    """JPEG quantisation tables of the source, for writing with the same quality."""

    jpeg_subsampling: int | None = None
    """Pillow's chroma subsampling number of a JPEG source: 0 is 4:4:4, 1 is 4:2:2, 2 is 4:2:0."""

    comment: bytes | None = None
    """Comment of a JPEG."""

    png_text: tuple[tuple[bytes, bytes], ...] = ()
    """Text chunks of a PNG, such as its description: name and content as they stand in the file."""

    untagged: PhotoMetadata | None = None
    """What they were before the photo was tagged as restored, for parts that have no room for the tag."""


@dataclass(frozen=True, eq=False)
class Photo:
    """One whole photo, upright."""

    pixels: Pixels
    """RGB, uint8 or uint16, (H, W, 3), C-contiguous."""

    metadata: PhotoMetadata
    """What the file carried beside the pixels."""

    alpha: Pixels | None = None
    """Opacity, dtype of `pixels`, (H, W); None where the file has none."""

    is_gray: bool = False
    """The file has one colour channel; it is written with one again."""

    warnings: tuple[str, ...] = field(default=())
    """Things the user should know about how the file was read, one sentence each."""

    is_filled: bool = False
    """Scratches of the file's own pixels were filled."""

    pages: int = 1
    """Pages of the file that it comes from, one of which this is."""


@dataclass(frozen=True, eq=False)
class DetectedFace:
    """One face found in a photo."""

    box: NDArray[np.float64]
    """(4,): left, top, right, bottom in photo pixel centres; may reach beyond the photo."""

    landmarks: NDArray[np.float64]
    """(5, 2): left eye, right eye, nose, left and right mouth corner, (x, y) in photo pixel centres."""

    score: float
    """Detector's confidence, 0 to 1."""


@dataclass(frozen=True, eq=False)
class RefusedFace:
    """Something that a detector took for a face and that is not restored as one."""

    face: DetectedFace
    """What the detector said."""

    reason: str
    """Why it was refused, as half a sentence."""


@dataclass(frozen=True, eq=False)
class FoundFaces:
    """What was found in one photo."""

    faces: tuple[DetectedFace, ...]
    """The faces, largest first."""

    refused: tuple[RefusedFace, ...] = ()
    """What was taken for a face and refused, largest first; none of it stands where a face stands."""


@dataclass(frozen=True, eq=False)
class AlignedFace:
    """One face cut out of its photo in the generator's frame."""

    face: DetectedFace
    """The face that was aligned."""

    crop: Pixels
    """RGB, dtype of the photo, (S, S, 3) with S the generator's size, 512 for every released model."""

    to_crop: NDArray[np.float64]
    """Similarity transform (2, 3): photo pixel centres (x, y) -> crop pixel centres."""


@dataclass(frozen=True, eq=False)
class ColouredFace:
    """A face as a colouring generator restored it."""

    crop: NDArray[np.uint8]
    """RGB uint8, (S, S, 3)."""

    to_crop: NDArray[np.float64]
    """Similarity transform (2, 3): photo pixel centres (x, y) -> crop pixel centres."""

    mask: NDArray[np.float32]
    """(S, S), 0 to 1: where the crop's colour counts, zero at its rim."""
