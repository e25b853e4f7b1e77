"""`RestoreOptions`: the one home of every default of the main job."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


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

    largest: int | None = None
    """Restore only this many faces of each photo, the largest ones."""

    faces_from: Path | None = None
    """Report file: only faces at its boxes are restored, in the photos that it names."""

    aligned: bool = False
    """The inputs are face crops already: nothing is detected, the whole photo is the crop."""

    detection_threshold: float = 0.6
    """Least score of a detected face, 0 to 1."""

    min_face: float = 16.0
    """Least width of a face's box, in photo pixels."""

    rotations: bool = True
    """Turn a photo in which no upright face is found by 90, 180 and 270 degrees."""

    strength: float = 0.8
    """Share of the restoration in each face: 0 leaves it as it is, 1 takes all but the photo's own light and tint."""

    mask: Literal["face", "head", "square"] = "face"
    """How far around each face its restoration reaches."""

    grain: float = 1.0
    """Part of the photo's own grain that a restored face gets back, 0 to 1."""

    restore_occluders: bool = False
    """Let glasses and hats be restored too; else they keep their own pixels where a parser finds them."""

    protect_glasses: bool = True
    """Keep the photo's pixels where a parser finds glasses before or after restoration only."""

    identity_limit: float | None = None
    """Largest angle in degrees between a face before and after; None measures nothing."""

    recogniser: Path | None = None
    """ONNX file of the network that measures identity."""

    background: str = "auto"
    """What enlarges the rest of the photo: `auto`, `real-esrgan`, `lanczos`, `none`, or the path of a network."""

    background_strength: float = 1.0
    """Share of the network in the background, the rest is Lanczos."""

    tile_pixels: int | None = None
    """Side of the background network's tiles; None chooses by the memory that is free."""

    descratch: bool = False
    """Find and fill scratches, dust and folds before anything else."""

    colorize: Literal["off", "auto", "always", "faces"] = "off"
    """`auto` colours gray and sepia photos, `always` every photo, `faces` only their faces, as the paper does."""

    color_strength: float = 1.0
    """Share of the new colour, the rest is the photo's own."""

    save_faces: Path | None = None
    """Folder for each face's crop before and after."""

    draw_boxes: bool = False
    """Draw what was found onto the results."""

    tag: bool = True
    """Write into the result's metadata that it was enhanced, by which model and version."""

    preserve_times: bool = False
    """Give each result its source's time of change."""

    overwrite: bool = False
    """Write targets that exist already."""

    follow_links: bool = False
    """Enter linked folders and take linked files, wherever they lead."""

    format: str = "auto"
    """Output format: `auto` keeps the source's, else `jpg`, `png`, `tiff`, `webp`."""

    quality: int | None = None
    """JPEG or WebP quality, 1 to 100; None keeps the source's JPEG tables, else 95."""
