"""The options of `gfprestore`, by section, in the order of its help. Their defaults are those of `RestoreOptions`."""

from __future__ import annotations

from pathlib import Path

import click

from gfprestore.options import RestoreOptions
from gfprestore.sections import LAST_SECTION, AutoShare, BareChoice, FiniteRange, NamedPath, section

DEFAULTS = RestoreOptions()
A_PATH = NamedPath()
A_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)

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
    files("--follow-links", is_flag=True, help="Follow links out of the input folders."),
    files("--dry-run", is_flag=True, help="List what would be written, and write nothing."),
    result(
        "--upscale",
        type=FiniteRange(0.1, 16),
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
    result(
        "--background",
        default=DEFAULTS.background,
        metavar="NAME|FILE",
        help="What enlarges the rest of the photo: real-esrgan, lanczos, none (bilinear), realesrgan-package, or the "
        "path of an upscaling network. auto is real-esrgan on a GPU, lanczos elsewhere.",
    ),
    result(
        "--background-strength",
        type=FiniteRange(0, 1),
        default=DEFAULTS.background_strength,
        metavar="SHARE",
        help="Share of that network in the background, 0 to 1.",
    ),
    result(
        "--tile",
        "tile_pixels",
        type=click.IntRange(64, 4096),
        metavar="PIXELS",
        show_default="by free memory",
        help="Side of that network's tiles, 256 or more; raised where the network needs more to see.",
    ),
    result(
        "--colorize",
        type=BareChoice(["off", "auto", "always", "faces"], bare="auto"),
        default=DEFAULTS.colorize,
        is_flag=False,
        flag_value="auto",
        help="Colour gray and sepia photos (alone, or with auto), every photo (always), or only the faces of gray and "
        "sepia photos (faces). Skin tones are guesses.",
    ),
    result(
        "--color-strength",
        type=FiniteRange(0, 1),
        default=DEFAULTS.color_strength,
        metavar="SHARE",
        help="Share of the new colour, 0 to 1.",
    ),
    result(
        "--descratch",
        is_flag=True,
        help="Find and fill scratches, dust and folds first. It may take lettering, railings and "
        "folds in cloth for damage.",
    ),
    result(
        "--draw-boxes",
        is_flag=True,
        help="Draw boxes onto the results: green around restored faces, orange around those left as they were, red "
        "around what was refused as no face. Faces that --largest and its like leave out get none.",
    ),
    result(
        "--tag/--no-tag",
        default=DEFAULTS.tag,
        help="Write into the metadata that the photo was enhanced, by which models and version.",
    ),
    result("--preserve-times", is_flag=True, help="Give the results the times of change of their photos."),
    faces(
        "--strength",
        type=FiniteRange(0, 1),
        default=DEFAULTS.strength,
        metavar="SHARE",
        help="Share of the restoration in each face: 0 leaves it as it is.",
    ),
    faces(
        "--mask",
        type=click.Choice(["face", "head", "square"]),
        default=DEFAULTS.mask,
        help="How far around a face its restoration reaches.",
    ),
    faces(
        "--grain",
        type=AutoShare(),
        default="auto",
        metavar="auto|SHARE",
        help="Part of the photo's own grain that restored faces get back, 0 to 1; auto is all of it.",
    ),
    faces("--restore-occluders", is_flag=True, help="Restore glasses and hats too, instead of keeping their pixels."),
    faces(
        "--protect-glasses/--no-protect-glasses",
        default=DEFAULTS.protect_glasses,
        help="Let no glasses be invented or taken off. Needs the weights of a face parser.",
    ),
    faces(
        "--identity-limit",
        type=FiniteRange(0, 180),
        metavar="DEGREES",
        help="Weaken or leave out restorations that turn a face this far from the person in the photo, as a recogniser "
        "sees it.",
    ),
    faces("--recogniser", type=A_PATH, metavar="FILE", help="ONNX face recogniser for --identity-limit."),
    faces("--largest", type=click.IntRange(1), metavar="N", help="Restore only the N largest faces of each photo."),
    faces(
        "--faces-from",
        type=A_PATH,
        metavar="REPORT",
        help="Restore only the faces that this report lists; delete those from it that you do not want.",
    ),
    faces("--save-faces", type=A_PATH, metavar="FOLDER", help="Write each face's crop before and after here."),
    faces(
        "--rotations/--no-rotations",
        default=DEFAULTS.rotations,
        help="Look for turned faces in photos without an upright one.",
    ),
    faces("--only-center", is_flag=True, help="Restore only the face nearest to the photo's centre."),
    faces("--aligned", is_flag=True, help="The photos are face crops already: detect nothing."),
    faces(
        "--detection-threshold",
        type=FiniteRange(0, 1),
        default=DEFAULTS.detection_threshold,
        metavar="SCORE",
        help="Least confidence of a face, 0 to 1.",
    ),
    faces(
        "--min-face",
        type=FiniteRange(0),
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
    machine("--weights", type=A_FOLDER, metavar="FOLDER", help="Folder searched first for weights."),
    machine("--offline", is_flag=True, help="Never connect to the network."),
    machine("--device", default=DEFAULTS.device, metavar="NAME", help="auto, cpu, cuda, cuda:N or mps."),
    machine(
        "--precision",
        type=click.Choice(["auto", "fp32", "bf16"]),
        default=DEFAULTS.precision,
        help="Arithmetic of the networks; auto is bf16 where the device computes in it, but on the CPU fp32 for "
        "Real-ESRGAN, whose tiles it keeps alike.",
    ),
    machine(
        "--batch-size",
        type=click.IntRange(1, 256),
        default=DEFAULTS.batch_size,
        metavar="N",
        help="Faces restored at once, gathered across photos.",
    ),
    talk("--profile", is_flag=True, help="Tell at the end where the time went, by stage, and what was waited for."),
    talk("-q", "--quiet", is_flag=True, help="Say nothing but errors."),
    talk("-v", "--verbose", is_flag=True, help="Tell what is done, and show tracebacks."),
)
