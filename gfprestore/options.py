"""`RestoreOptions`: the one home of every default of the main job."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RestoreOptions:
    """What a run does to each photo. The command's options show these defaults in their help."""

    upscale: float = 2.0
    """Factor on both sides of the photo; the result is exactly `round(W * s)` by `round(H * s)` pixels."""

    model: str = "auto"
    """Name of the face restoration weights; `auto` is the official v1.4, or the shipped compact model without it."""

    detector: str = "auto"
    """Name of the face detection weights; `auto` is the best that is on this machine."""

    weights: Path | None = None
    """Folder searched first for weights."""

    offline: bool = False
    """Never connect to the network."""

    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:N` or `mps`."""

    precision: str = "auto"
    """`auto`, `fp32` or `bf16`."""

    batch_size: int = 4
    """Faces restored at once, gathered across photos."""

    only_center: bool = False
    """Restore only the face nearest to the photo's centre."""

    aligned: bool = False
    """The inputs are face crops already: nothing is detected, the whole photo is the crop."""

    detection_threshold: float = 0.6
    """Least score of a detected face, 0 to 1."""

    min_face: float = 16.0
    """Least width of a face's box, in photo pixels."""

    overwrite: bool = False
    """Write targets that exist already."""

    format: str = "auto"
    """Output format: `auto` keeps the source's, else `jpg`, `png`, `tiff`, `webp`."""

    quality: int | None = None
    """JPEG or WebP quality, 1 to 100; None keeps the source's JPEG tables, else 95."""
