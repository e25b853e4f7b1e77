"""What `degrade` does once its arguments are known."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from gfprestore.errors import ExitCode, OutputError, UsageError, printable
from gfprestore.evaluation.degrade import (
    MANIFEST_NAME,
    MadeImage,
    SetManifest,
    draw_set,
    read_manifest,
    versions,
    write_manifest,
    write_set,
)
from gfprestore.evaluation.pairs import list_images
from gfprestore.evaluation.progressbar import show_progress


def run_degrade(
    clean: Path,
    output: Path,
    *,
    seed: int,
    preset: str,
    remake: Path | None,
    truth: Path | None,
    overwrite: bool,
    quiet: bool,
) -> ExitCode:
    """Writes a degraded set and its manifest, or remakes one; returns the exit status."""
    _check_folders(clean, output, truth, overwrite=overwrite)
    images, faults = list_images(clean)
    if not images:
        raise UsageError(f"The folder {printable(clean)} holds no image.")
    earlier = None if remake is None else read_manifest(remake)
    if earlier is None:
        degradations = draw_set(images, seed=seed, preset=preset)
        left_out = [*faults]
    else:
        seed, preset, degradations = earlier.seed, earlier.preset, dict(earlier.degradations)
        left_out = [*faults]
        left_out += [
            f"{printable(name)} is in the manifest, not in {printable(clean)}." for name in degradations.keys() - images
        ]
        left_out += [f"{printable(name)} is not in the manifest." for name in images.keys() - degradations]
        images = {name: path for name, path in images.items() if name in degradations}
    with show_progress("Degrading", len(images), not quiet and sys.stderr.isatty()) as advance:
        made, failed = write_set(images, degradations, output, truth, advance)
    write_manifest(output, made, seed=seed, preset=preset)
    left_out += [f"{printable(failure.name)}: {failure.reason}" for failure in failed]
    if earlier is not None:
        left_out += _differences(earlier, made)
    for sentence in sorted(left_out):
        click.echo(f"left out: {sentence}", err=True)
    click.echo(f"{len(made)} images degraded.", err=True)
    return ExitCode.SOME_FAILED if left_out else ExitCode.OK


def _check_folders(clean: Path, output: Path, truth: Path | None, *, overwrite: bool) -> None:
    """Refuses to write among the clean images, to mix the degraded with the truth, or to write over another set."""
    source = clean.resolve()
    targets = [folder.resolve() for folder in (output, truth) if folder is not None]
    for target in targets:
        if _overlap(target, source):
            raise OutputError(
                f"{printable(target)} and the clean folder lie inside each other: choose another --output."
            )
    if len(targets) == 2 and _overlap(*targets):
        raise OutputError("--output and --truth are one folder, or lie inside each other: choose another --truth.")
    if (output / MANIFEST_NAME).exists() and not overwrite:
        raise OutputError(f"{printable(output)} holds a degraded set already: choose another --output, or --overwrite.")


def _overlap(first: Path, second: Path) -> bool:
    """Whether two resolved folders are one, or one lies inside the other."""
    return first == second or first in second.parents or second in first.parents


def _differences(earlier: SetManifest, made: list[MadeImage]) -> list[str]:
    """Says which images came out otherwise than in the earlier set, and why that may be."""
    changed = [image.name for image in made if image.sha256 != earlier.digests[image.name]]
    if not changed:
        return []
    then, now = earlier.versions, versions()
    updates = ", ".join(f"{name} {then.get(name)} -> {now[name]}" for name in now if then.get(name) != now[name])
    reason = f"these packages differ: {updates}" if updates else "the clean images are not the same"
    return [f"{printable(name)} differs from the set it remakes; {reason}." for name in changed]
