"""What `score` and `compare` do once their arguments are known."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from gfprestore.atomic import output_file
from gfprestore.download_progress import download_progress
from gfprestore.errors import ExitCode, OutputError, UsageError, printable
from gfprestore.evaluation.columns import Column, Need, choose_columns
from gfprestore.evaluation.loading import MetricWeights, parse_files
from gfprestore.evaluation.pairs import pair_images
from gfprestore.evaluation.published import FROM_MEMORY, IN_PAPER, PUBLISHED
from gfprestore.evaluation.run import Measured, Request, measure
from gfprestore.evaluation.sheet import choose_evenly, make_sheet, write_sheet
from gfprestore.evaluation.table import (
    Row,
    Table,
    as_csv,
    as_json,
    as_markdown,
    cell_text,
    make_rows,
    per_image_markdown,
    published_rows,
    row_label,
)
from gfprestore.places import check_folder

_SUFFIXES = (".md", ".csv", ".json")
_STYLES = {1: "bold green", 2: "underline"}


def run_score(
    restored: Path,
    *,
    truth: Path | None,
    background: Path | None,
    reference: Path | None,
    save_statistics: Path | None,
    metrics: str | None,
    output: Path | None,
    per_image: bool,
    **machine: Any,
) -> ExitCode:
    """Measures one folder and shows the table; returns the exit status."""
    _check_outputs(output, per_image=per_image)
    if save_statistics is not None and save_statistics.suffix.lower() != ".npz":
        raise UsageError("--save-statistics writes .npz files: give the file that suffix.")
    _check_file(save_statistics, "--save-statistics")
    possible: dict[Need, Path | None] = {"truth": truth, "reference": reference, "background": background}
    given = [need for need, path in possible.items() if path is not None]
    # Statistics of tens of thousands of images should not wait for other metrics that nobody asked for.
    only_statistics = save_statistics is not None and metrics is None and not given
    columns = () if only_statistics else choose_columns(metrics, given)
    measured = _measure(
        ((restored.resolve().name or "restored", restored),),
        columns,
        truth=truth,
        background=background if any(column.need == "background" for column in columns) else None,
        reference=reference,
        save_statistics=save_statistics,
        **machine,
    )
    rows = make_rows(measured.scores, columns, with_interval=False)
    return _show(Table(columns, tuple(rows), measured.notes), measured, output, per_image=per_image)


def run_compare(
    truth: Path,
    methods: Sequence[tuple[str, Path]],
    *,
    degraded: Path | None,
    reference: Path | None,
    sheet: Path | None,
    sheet_rows: int,
    published: bool,
    published_table: str,
    metrics: str | None,
    output: Path | None,
    per_image: bool,
    **machine: Any,
) -> ExitCode:
    """Measures several methods on the same images and shows the table; returns the exit status."""
    _check_outputs(output, per_image=per_image)
    if sheet is not None and sheet.suffix.lower() != ".png":
        raise UsageError("--sheet writes PNG files: give the file the suffix .png.")
    _check_file(sheet, "--sheet")
    given: list[Need] = ["truth"] if reference is None else ["truth", "reference"]
    columns = choose_columns(metrics, given, also=frozenset({"deg-over-1"} if published else ()))
    folders = tuple(methods) if degraded is None else (("input", degraded), *methods)
    measured = _measure(folders, columns, truth=truth, reference=reference, **machine)
    rows = make_rows(measured.scores, columns, with_interval=True, has_input=degraded is not None)
    notes = [*measured.notes, "[a, b] is the 95 % bootstrap interval of a mean, over images."]
    if published:
        rows, notes = [*published_rows(PUBLISHED[published_table], columns), *rows], [*notes, _source(published_table)]
    status = _show(Table(columns, tuple(rows), tuple(notes)), measured, output, per_image=per_image)
    if sheet is not None:
        _write_sheet(sheet, (("truth", truth), *folders), sheet_rows)
    return status


def _source(name: str) -> str:
    return (
        f"Published rows: {PUBLISHED[name].title}. Figures without a mark: {IN_PAPER}; with ?: {FROM_MEMORY}. "
        "They are of other photos and, for deg, of another recogniser, so they are not to be ranked with these."
    )


def _measure(
    methods: tuple[tuple[str, Path], ...],
    columns: tuple[Column, ...],
    *,
    weights: Path | None,
    offline: bool,
    metric_weights: tuple[str, ...],
    batch_size: int,
    device: str,
    quiet: bool,
    **folders: Path | None,
) -> Measured:
    shows_progress = not quiet and sys.stderr.isatty()
    with download_progress(is_shown=shows_progress) as progress:
        found = MetricWeights(weights, offline, parse_files(metric_weights), progress)
        return measure(
            Request(
                methods,
                columns,
                found,
                device=device,
                batch_size=batch_size,
                shows_progress=shows_progress,
                **folders,
            )
        )


def _check_outputs(output: Path | None, *, per_image: bool) -> None:
    """Refuses what could not be written, before hours of measuring."""
    if output is not None and output.suffix.lower() not in _SUFFIXES:
        raise UsageError(
            f"--output writes {', '.join(_SUFFIXES)} files: give {printable(output)} one of these suffixes."
        )
    if per_image and output is None:
        raise UsageError("--per-image needs --output, a file to write the values to.")
    _check_file(output, "--output")


def _check_file(path: Path | None, option: str) -> None:
    """Refuses a file that cannot be written, if one is asked for.

    Raises:
        OutputError: It is a folder, or its folder cannot be written.
    """
    if path is None:
        return
    if path.is_dir():
        raise OutputError(f"{printable(path)} is a folder; name a file with {option}.")
    check_folder(path.parent, option)


def _show(table: Table, measured: Measured, output: Path | None, *, per_image: bool) -> ExitCode:
    """Prints the table, writes the file, names what was left out, and returns the exit status."""
    if sys.stdout.isatty():
        Console().print(rich_table(table))
        for note in table.notes:
            click.echo(note)
    else:
        click.echo(as_markdown(table), nl=False)
    if output is not None:
        _write_text(output, _render(table, measured, output.suffix.lower(), per_image=per_image))
    for sentence in measured.left_out:
        click.echo(f"left out: {sentence}", err=True)
    return ExitCode.SOME_FAILED if measured.left_out else ExitCode.OK


def _render(table: Table, measured: Measured, suffix: str, *, per_image: bool) -> str:
    if suffix == ".csv":
        return as_csv(table, measured.scores, per_image=per_image)
    if suffix == ".json":
        return as_json(table, measured.scores, measured.facts, per_image=per_image)
    text = as_markdown(table)
    return f"{text}\n{per_image_markdown(measured.scores, table.columns)}" if per_image else text


def rich_table(table: Table) -> RichTable:
    """Renders a table for a terminal; the best figure of a column is bold and green, the second best underlined."""
    shown = RichTable("method", box=None, pad_edge=False)
    for column in table.columns:
        shown.add_column(column.title, justify="right")
    for row in table.rows:
        shown.add_row(Text(row_label(row)), *(_styled(row, column) for column in table.columns))
    return shown


def _styled(row: Row, column: Column) -> Text:
    return Text(cell_text(row, column), style=_STYLES.get(row.ranks.get(column.name, 0), ""))


def _write_text(path: Path, text: str) -> None:
    with output_file(path) as stream:
        stream.write(text.encode("utf-8", "backslashreplace"))


def _write_sheet(path: Path, folders: Sequence[tuple[str, Path]], rows: int) -> None:
    """Writes the contact sheet: the columns in their order, but the truth, which comes first, last."""
    chosen = choose_evenly(pair_images(folders).groups, rows)
    order = [*range(1, len(folders)), 0]
    titles = [folders[place][0] for place in order]
    write_sheet(path, make_sheet(chosen, titles, order))
