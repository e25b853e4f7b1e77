"""`gfprestore-weights`: lists, fetches, verifies and finds weights files.

Nothing heavy is imported before the arguments are known; nothing here needs torch at all.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from gfprestore import __version__
from gfprestore.command import run_command
from gfprestore.errors import ExitCode, UsageError, printable

if TYPE_CHECKING:
    from gfprestore.manifest import WeightsFile

_EPILOG = """\b
Weights are searched for in: the --weights folder, $GFPRESTORE_WEIGHTS, ./weights, the user's cache
(`gfprestore-weights path` prints it), and those that ship with gfprestore.

\b
Exit status: 0 done, 2 wrong usage, 5 weights missing, damaged or not to be had, 130 interrupted.
"""

_FOLDER = click.option(
    "--weights",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder searched before all others.",
)


@click.group(
    name="gfprestore-weights",
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
@click.version_option(__version__, message="%(prog)s %(version)s")
def main() -> None:
    """Manage the weights that gfprestore runs on."""


@main.command("list")
@_FOLDER
def list_weights(folder: Path | None) -> None:
    """List every known file and whether it is here.

    On a terminal this is a table. Otherwise one line per file, parted by tabs: name, use, bytes, state, path,
    licence.
    """
    from gfprestore.manifest import MANIFEST

    rows = [(entry, *_state(entry, folder)) for entry in MANIFEST]
    if sys.stdout.isatty():
        _print_table(rows)
        return
    for entry, state, place in rows:
        click.echo("\t".join((entry.name, entry.kind, str(entry.bytes), state, place, entry.licence)))


@main.command()
@click.argument("names", nargs=-1, required=True, metavar="NAMES...")
@click.option(
    "--into",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to put the files in; the user's cache unless given.",
)
def fetch(names: tuple[str, ...], into: Path | None) -> None:
    """Download files and check their digests.

    A file that is there already is only checked. A download that was broken off goes on where it stopped.
    Prints each file's path.
    """
    from gfprestore.download_progress import download_progress
    from gfprestore.manifest import known_weights
    from gfprestore.weights import fetch_weights

    entries = [known_weights(name) for name in names]
    with download_progress(is_shown=sys.stderr.isatty()) as progress:
        paths = [fetch_weights(entry.name, into=into, progress=progress) for entry in entries]
    for path in paths:
        click.echo(printable(path))


@main.command()
@click.argument("names", nargs=-1, metavar="[NAMES]...")
@_FOLDER
def verify(names: tuple[str, ...], folder: Path | None) -> int:
    """Compare files with their digests.

    Those named, or all that are here, are read again. Every copy in every folder is read, not only the first.
    """
    from gfprestore.errors import WeightsError
    from gfprestore.manifest import MANIFEST, known_weights
    from gfprestore.weights import check_weights, copies_of

    status = ExitCode.OK
    for entry in [known_weights(name) for name in names] or MANIFEST:
        copies = copies_of(entry, folder=folder)
        if names and not copies:
            click.echo(f"missing  {entry.file}")
            status = ExitCode.WEIGHTS
        for path in copies:
            try:
                check_weights(path, entry, trust_record=False)
            except WeightsError as error:
                click.echo(f"damaged  {error}")
                status = ExitCode.WEIGHTS
            else:
                click.echo(f"right    {printable(path)}")
    return status


@main.command()
@click.argument("name", required=False)
@_FOLDER
def path(name: str | None, folder: Path | None) -> None:
    """Print where a file is.

    Without NAME, print the folder that fetched files go to.
    """
    from gfprestore.digest import user_cache_folder
    from gfprestore.errors import WeightsError
    from gfprestore.manifest import known_weights
    from gfprestore.weights import find_weights, how_to_get

    if name is None:
        if folder is not None:
            raise UsageError("--weights says where to look for a file: name one.")
        click.echo(user_cache_folder())
        return
    found = find_weights(name, folder=folder)
    if found is None:
        raise WeightsError(f"The weights {name} are not here: {how_to_get(known_weights(name), folder)}")
    click.echo(found.resolve())


def _state(entry: WeightsFile, folder: Path | None) -> tuple[str, str]:
    from gfprestore.errors import WeightsError
    from gfprestore.weights import check_weights, copies_of

    copies = copies_of(entry, folder=folder)
    if not copies:
        return "absent", ""
    try:
        check_weights(copies[0], entry)
    except WeightsError:
        return "damaged", printable(copies[0])
    return "here", printable(copies[0])


def _print_table(rows: list[tuple[WeightsFile, str, str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "what", "MB", "state", "licence", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for entry, state, _ in rows:
        table.add_row(entry.name, entry.note, f"{entry.bytes / 1e6:.0f}", state, entry.licence)
    Console().print(table, markup=False)


def run() -> NoReturn:
    """Entry point of the console script."""
    run_command(main)
