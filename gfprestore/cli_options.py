"""The options of `gfprestore`, by section, in the order of its help. Their defaults are those of `RestoreOptions`."""

from __future__ import annotations

from pathlib import Path

import click

from gfprestore.options import RestoreOptions
from gfprestore.sections import LAST_SECTION, section

DEFAULTS = RestoreOptions()
A_PATH = click.Path(path_type=Path)

files = section("Files")
result = section("Result")
faces = section("Faces")
machine = section("Model and machine")
talk = section(LAST_SECTION)

OPTIONS = (
    files("-o", "--output", type=A_PATH, required=True, metavar="FOLDER", help="Folder for the results."),
    files("--overwrite", is_flag=True, help="Write results that exist already, instead of skipping their photos."),
    files("--report", metavar="FILE", help="Write one JSON line per photo to this file; '-' is standard output."),
    files(
        "--resume",
        type=A_PATH,
        metavar="REPORT",
        help="Leave out the photos that this report of an earlier run says are done.",
    ),
    files("--dry-run", is_flag=True, help="List what would be written, and write nothing."),
    result(
        "--upscale",
        type=click.FloatRange(0.1, 16),
        default=DEFAULTS.upscale,
        metavar="FACTOR",
        help="Factor on each side of the photo, 0.1 to 16.",
    ),
    result(
        "--format",
        type=click.Choice(["auto", "jpg", "png", "tiff", "webp"]),
        default=DEFAULTS.format,
        help="File format of the results; auto keeps each photo's own.",
    ),
    result(
        "--quality",
        type=click.IntRange(1, 100),
        default=DEFAULTS.quality,
        metavar="N",
        show_default="a JPEG keeps its own, else 95",
        help="JPEG and WebP quality, 1 to 100.",
    ),
    faces("--only-center", is_flag=True, help="Restore only the face nearest to the photo's centre."),
    faces("--aligned", is_flag=True, help="The photos are face crops already: detect nothing."),
    faces(
        "--detection-threshold",
        type=click.FloatRange(0, 1),
        default=DEFAULTS.detection_threshold,
        metavar="SCORE",
        help="Least confidence of a face, 0 to 1.",
    ),
    faces(
        "--min-face",
        type=click.FloatRange(0),
        default=DEFAULTS.min_face,
        metavar="PIXELS",
        help="Least width of a face in the photo.",
    ),
    machine(
        "--model",
        default=DEFAULTS.model,
        metavar="NAME|FILE",
        help="Face restoration weights: auto, 1.4, 1.3, 1.2, 1, compact, or the path of a weights file. "
        "auto is 1.4, or compact where that cannot be had.",
    ),
    machine(
        "--detector",
        default=DEFAULTS.detector,
        metavar="NAME|FILE",
        help="Face detection weights: auto, resnet50, mobilenet0.25, detector-compact, or the path of a weights file.",
    ),
    machine("--weights", type=A_PATH, metavar="FOLDER", help="Folder searched first for weights."),
    machine("--offline", is_flag=True, help="Never connect to the network."),
    machine("--device", default=DEFAULTS.device, metavar="NAME", help="auto, cpu, cuda, cuda:N or mps."),
    machine(
        "--precision",
        type=click.Choice(["auto", "fp32", "bf16"]),
        default=DEFAULTS.precision,
        help="Arithmetic of the networks; auto is bf16 where the processor computes in it.",
    ),
    machine(
        "--batch-size",
        type=click.IntRange(1, 256),
        default=DEFAULTS.batch_size,
        metavar="N",
        help="Faces restored at once, gathered across photos.",
    ),
    talk("-q", "--quiet", is_flag=True, help="Say nothing but errors."),
    talk("-v", "--verbose", is_flag=True, help="Tell what is done, and show tracebacks."),
)
