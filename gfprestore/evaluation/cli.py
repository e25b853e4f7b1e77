"""`gfprestore-eval`: measures restored photos, makes degraded test sets, compares methods.

Only click is imported before the arguments are known: `--help` must not wait for torch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from gfprestore import __version__
from gfprestore.command import run_command
from gfprestore.errors import UsageError
from gfprestore.evaluation.columns import COLUMNS

F = TypeVar("F", bound=Callable[..., Any])

_EPILOG = """\b
Exit status: 0 done, 2 wrong usage or nothing to measure, 3 some images were left out, 5 weights, 6 device,
7 output, 130 interrupted.
"""

_METRICS = "\b\nMetrics:\n" + "\n".join(f"  {column.name:14}{column.protocol}" for column in COLUMNS)

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_EXISTING = click.Path(exists=True, path_type=Path)
_NEW = click.Path(path_type=Path)

_MEASURE_OPTIONS = (
    click.option("--reference", type=_EXISTING, metavar="DIR|FILE", help="What FID measures against: images, or .npz."),
    click.option("--metrics", metavar="NAMES", help="Names parted by commas, or all; the usual ones by default."),
    click.option("-o", "--output", type=_NEW, metavar="FILE", help="Also write the table: .md, .csv or .json."),
    click.option("--per-image", is_flag=True, help="Write the values of each image too, to the file of -o."),
    click.option("--batch-size", type=click.IntRange(1, 256), default=8, show_default=True, help="Images at once."),
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps."),
    click.option("--weights", type=_FOLDER, metavar="DIR", help="Folder searched first for the metrics' weights."),
    click.option(
        "--metric-weights",
        multiple=True,
        metavar="ROLE=FILE",
        help="A file of your own in place of the known one: alexnet, vgg16, inception, niqe, recogniser or detector.",
    ),
    click.option("--offline", is_flag=True, help="Never connect to the network."),
    click.option("-q", "--quiet", is_flag=True, help="Draw no progress."),
)


def _measuring(function: F) -> F:
    for option in reversed(_MEASURE_OPTIONS):
        function = option(function)
    return function


@click.group(
    name="gfprestore-eval",
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
@click.version_option(__version__, message="%(prog)s %(version)s")
def main() -> None:
    """Say in figures how well faces were restored."""


@main.command(epilog=_METRICS)
@click.argument("restored", type=_FOLDER)
@click.option("--truth", type=_FOLDER, metavar="DIR", help="The true images, of the same names and sizes.")
@click.option("--background", type=_FOLDER, metavar="DIR", help="The photos without faces pasted; for seam.")
@click.option("--save-statistics", type=_NEW, metavar="FILE", help="Write RESTORED's FID statistics, .npz.")
@_measuring
def score(restored: Path, truth: Path | None, background: Path | None, **chosen: Any) -> int:
    """Measure the images of one folder.

    Images belong together when their paths below the folders are equal, whatever their suffixes. Without --truth only
    the metrics that need none are measured.
    """
    from gfprestore.evaluation.commands import run_score

    return run_score(restored, truth=truth, background=background, **chosen)


@main.command()
@click.argument("clean", type=_FOLDER)
@click.option("-o", "--output", type=_NEW, required=True, metavar="DIR", help="Folder for the degraded images.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the whole set.")
@click.option(
    "--preset",
    type=click.Choice(["article", "release", "oldprint"]),
    default="article",
    show_default=True,
    help="What the parameters are drawn from: the paper's ranges, the published training's, or old prints'.",
)
@click.option("--remake", type=_EXISTING, metavar="MANIFEST", help="Take all parameters from a set's manifest.json.")
@click.option("--truth", type=_NEW, metavar="DIR", help="Also write what a perfect restoration would give.")
@click.option("--overwrite", is_flag=True, help="Write into a folder that holds a set already.")
@click.option("-q", "--quiet", is_flag=True, help="Draw no progress.")
def degrade(clean: Path, output: Path, **chosen: Any) -> int:
    """Degrade clean images into a test set, with a manifest of every parameter."""
    from gfprestore.evaluation.degrade_command import run_degrade

    return run_degrade(clean, output, **chosen)


@main.command(epilog=_METRICS)
@click.argument("truth", type=_FOLDER)
@click.argument("methods", nargs=-1, required=True, metavar="METHOD=DIR...")
@click.option("--input", "degraded", type=_FOLDER, metavar="DIR", help="The degraded images; an unranked row.")
@click.option("--sheet", type=_NEW, metavar="FILE", help="Write a contact sheet, .png: input, methods, truth.")
@click.option("--sheet-rows", type=click.IntRange(1, 100), default=8, show_default=True, help="Images on the sheet.")
@click.option("--published", is_flag=True, help="Add rows that the GFP-GAN paper publishes, marked as such.")
@click.option(
    "--published-table",
    type=click.Choice(["blind", "x4", "real", "ablation"]),
    default="blind",
    show_default=True,
    help="Which of the paper's tables.",
)
@_measuring
def compare(truth: Path, methods: tuple[str, ...], **chosen: Any) -> int:
    """Measure several methods on the same images.

    The table marks the best and the second best of each column and gives 95 % confidence intervals, by bootstrap over
    images. Only images that all folders have are measured.
    """
    from gfprestore.evaluation.commands import run_compare

    return run_compare(truth, _named_folders(methods), **chosen)


def _named_folders(given: tuple[str, ...]) -> list[tuple[str, Path]]:
    folders: list[tuple[str, Path]] = []
    for argument in given:
        name, equals, folder = argument.partition("=")
        if not equals or not name:
            raise UsageError(f"Methods are given as NAME=FOLDER, not {argument!r}.")
        if name in ("truth", "input", "background") or name in dict(folders):
            raise UsageError(f"{name!r} names another column already: choose another name for the method.")
        folders.append((name, Path(folder)))
    return folders


def run() -> NoReturn:
    """Entry point of the console script."""
    run_command(main)
