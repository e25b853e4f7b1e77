"""`gfprestore-train`: trains GFP-GAN and exports weights that `gfprestore` loads."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from gfprestore import __version__
from gfprestore.command import run_command

_PATH = click.Path(path_type=Path)

EPILOG = """\b
Examples:
  gfprestore-weights fetch alexnet w600k-mbf
  gfprestore-train run compact -o runs/compact --set 'data.sources=["faces"]'
  torchrun --nproc-per-node 4 -m gfprestore.training.cli run my.toml -o runs/mine
  gfprestore-train export runs/compact/best.pt -o weights/mine.safetensors

\b
Exit status: 0 done, 2 wrong usage or a training that diverged, 3 some photos failed, 4 no photos found, 5 weights,
6 device, 7 output, 130 interrupted, 143 terminated.
"""


@click.group(
    name="gfprestore-train",
    epilog=EPILOG,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
@click.version_option(__version__, message="%(prog)s %(version)s")
@click.option("-v", "--verbose", is_flag=True, help="Tell more; show the traceback of an error.")
def main(verbose: bool) -> None:
    """Train GFP-GAN."""
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, format="%(message)s")
    # The libraries' own debug lines would drown the run's.
    logging.getLogger().setLevel(logging.INFO)
    logging.getLogger("gfprestore").setLevel(logging.DEBUG if verbose else logging.INFO)


@main.command("run")
@click.argument("config")
@click.option("-o", "--output", type=_PATH, help="Folder of the run; one with checkpoints goes on.")
@click.option("--set", "changes", multiple=True, metavar="A.B=C", help="Change a key of CONFIG; may be repeated.")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="Stop, with a checkpoint, after so long.")
@click.option("--print-config", is_flag=True, help="Write the effective configuration to stdout and do nothing.")
def run_training(
    config: str, output: Path | None, changes: tuple[str, ...], minutes: float | None, print_config: bool
) -> None:
    """Train as CONFIG says: a TOML file, or a preset: article, compact, prior, release.

    Run the same command again to go on from the last checkpoint. Ctrl-C and SIGTERM write one first.
    """
    from gfprestore.training.configfile import config_toml, load_config

    settings = load_config(config, changes)
    if print_config:
        click.echo(config_toml(settings), nl=False)
        return
    if output is None:
        raise click.UsageError("Missing option '-o' / '--output', the folder of the run.")
    from gfprestore.training.loop import train
    from gfprestore.training.processes import join_processes, keep_freed_memory

    keep_freed_memory()
    with join_processes(settings.run.device) as process:
        progress = train(settings, output, process, minutes=minutes)
        if process.leads:
            click.echo(f"{progress.step} of {settings.run.steps} steps are done.", err=True)


@main.command("align")
@click.argument("inputs", nargs=-1, required=True, type=_PATH, metavar="INPUTS...")
@click.option("-o", "--output", required=True, type=_PATH, help="Folder for the faces and their components.json.")
@click.option("--size", type=click.IntRange(min=64), default=512, show_default=True, help="Side of a face in pixels.")
@click.option(
    "--enlarge",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="Leave out faces that would be enlarged by more.",
)
@click.option(
    "--landmarks-only",
    is_flag=True,
    help="INPUTS are aligned faces, --output their folder: only find their eyes and mouths.",
)
@click.option("--detector", default="auto", show_default=True, help="Name or file of the detector's weights.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
def align_faces(
    inputs: tuple[Path, ...],
    output: Path,
    size: int,
    enlarge: float,
    landmarks_only: bool,
    detector: str,
    device: str,
) -> int:
    """Cut the faces in INPUTS, photos and folders, out in the frame that training wants."""
    from gfprestore.detect import build_detector
    from gfprestore.engine import resolve_device
    from gfprestore.errors import ExitCode
    from gfprestore.folders import plan_jobs
    from gfprestore.options import RestoreOptions
    from gfprestore.training.aligning import align_photos, find_landmarks
    from gfprestore.weights import choose_detector, read_state_dict

    jobs = plan_jobs(inputs, output, format="png", reads_only=landmarks_only, shares_targets=not landmarks_only)
    finder = build_detector(
        read_state_dict(choose_detector(detector)[1]),
        device=resolve_device(device),
        threshold=RestoreOptions().detection_threshold,
        min_face=RestoreOptions().min_face,
    )

    def notify(line: str) -> None:
        click.echo(line, err=True)

    if landmarks_only:
        report = find_landmarks(jobs, output, finder, notify=notify)
    else:
        report = align_photos(jobs, output, finder, size=size, enlarge=enlarge, notify=notify)
    if report.known:
        click.echo(f"{report.known} already there.", err=True)
    click.echo(
        f"{report.faces} faces; left out: {report.small} too small, {report.turned} turned away;"
        f" {report.empty} photos without a face, {report.failed} unreadable.",
        err=True,
    )
    return ExitCode.SOME_FAILED if report.failed else ExitCode.OK


@main.command("export")
@click.argument("checkpoint", type=_PATH)
@click.option("-o", "--output", required=True, type=_PATH, help="File to write, *.safetensors.")
@click.option("--precision", type=click.Choice(["fp16", "fp32"]), default="fp16", show_default=True)
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
def export_weights(checkpoint: Path, output: Path, precision: str, overwrite: bool) -> None:
    """Write the averaged generator of CHECKPOINT as weights that gfprestore loads, and a model card beside them."""
    from gfprestore.training.export import export_checkpoint

    card = export_checkpoint(checkpoint, output, precision=precision, overwrite=overwrite)
    click.echo(f"{output} and {card} are written.", err=True)


@main.command("detector", add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def train_detector(context: click.Context, arguments: tuple[str, ...]) -> object:
    """Distil, export and judge the compact face detector; `detector --help` tells more."""
    # A command that hands on rather than a group inside this one: its options' defaults live beside torch.
    from gfprestore.training.detector import main as detector

    result: object = detector.main(list(arguments), prog_name=context.command_path, standalone_mode=False)
    return result


def run() -> None:
    """Entry point of the console script."""
    run_command(main)


if __name__ == "__main__":
    run()
