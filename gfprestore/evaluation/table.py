"""The table of results: rows of figures, ranked, as Markdown, CSV, JSON or on a terminal."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from gfprestore.errors import printable
from gfprestore.evaluation.columns import Column
from gfprestore.evaluation.published import FROM_MEMORY, PublishedTable
from gfprestore.evaluation.scoring import Figure, Scores, summarise

Kind = Literal["measured", "input", "published"]


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    method: str
    """Name of the method."""

    kind: Kind
    """`measured` rows are ranked; the degraded input and published rows are not."""

    figures: Mapping[str, Figure]
    """Column -> figure."""

    ranks: Mapping[str, int] = field(default_factory=dict)
    """Column -> 1 for the best, 2 for the second best."""

    sources: Mapping[str, str] = field(default_factory=dict)
    """Column -> where a published figure comes from."""


@dataclass(frozen=True)
class Table:
    """Everything that is shown of a run."""

    columns: tuple[Column, ...]
    """In order."""

    rows: tuple[Row, ...]
    """In order."""

    notes: tuple[str, ...] = ()
    """Sentences below the table."""


def make_rows(scores: Scores, columns: Sequence[Column], *, with_interval: bool, has_input: bool = False) -> list[Row]:
    """Makes a ranked row per method.

    Args:
        scores: What was measured.
        columns: What to show.
        with_interval: Give confidence intervals.
        has_input: The first method is the degraded input, which takes no part in the ranking.
    """
    figures = {column.name: summarise(scores, column.name, with_interval=with_interval) for column in columns}
    ranks = {column.name: _rank(column, figures[column.name], int(has_input)) for column in columns}
    return [
        Row(
            method,
            "input" if has_input and index == 0 else "measured",
            {name: values[index] for name, values in figures.items()},
            {name: places[index] for name, places in ranks.items() if index in places},
        )
        for index, method in enumerate(scores.methods)
    ]


def _rank(column: Column, figures: Sequence[Figure], first: int) -> dict[int, int]:
    """Places of the best and second best method, by index, from `first` on; equal means share a place."""
    candidates = [(index, figure.mean) for index, figure in enumerate(figures) if index >= first]
    candidates = [(index, mean) for index, mean in candidates if not math.isnan(mean)]
    if len(candidates) < 2:
        return {}
    distinct = sorted({mean for _, mean in candidates}, reverse=column.higher_is_better)
    return {index: distinct.index(mean) + 1 for index, mean in candidates if distinct.index(mean) < 2}


def published_rows(table: PublishedTable, columns: Sequence[Column]) -> list[Row]:
    """Makes the rows of a published table, as far as its columns are shown."""
    shown = {column.name for column in columns}
    return [
        Row(
            row.method,
            "published",
            {name: Figure(figure.value, 0) for name, figure in row.figures.items() if name in shown},
            {},
            {name: figure.source for name, figure in row.figures.items() if name in shown},
        )
        for row in table.rows
    ]


def cell_text(row: Row, column: Column) -> str:
    """Text of one cell, without its rank; a published figure that was remembered bears a question mark."""
    figure = row.figures.get(column.name)
    if figure is None or math.isnan(figure.mean):
        return "–"
    text = f"{figure.mean:.{column.decimals}f}"
    if figure.low is not None and figure.high is not None and math.isfinite(figure.high):
        text += f" [{figure.low:.{column.decimals}f}, {figure.high:.{column.decimals}f}]"
    return text + ("?" if row.sources.get(column.name) == FROM_MEMORY else "")


def row_label(row: Row) -> str:
    """Name of a row; published ones say so."""
    return f"{row.method} (published)" if row.kind == "published" else row.method


def as_markdown(table: Table) -> str:
    """Renders Markdown; the best figure of a column is bold, the second best in italics."""
    marks = {1: "**", 2: "_"}
    head = ["method", *(column.title for column in table.columns)]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for row in table.rows:
        cells = [_escaped(row_label(row))]
        for column in table.columns:
            mark = marks.get(row.ranks.get(column.name, 0), "")
            cells.append(f"{mark}{cell_text(row, column)}{mark}")
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *(f"- {note}" for note in table.notes)]
    return "\n".join(lines).rstrip() + "\n"


def _escaped(name: str) -> str:
    """Keeps a name from ending its cell or its line."""
    return printable(name).replace("|", "\\|")


def per_image_markdown(scores: Scores, columns: Sequence[Column]) -> str:
    """Renders a Markdown table with a line per image and method."""
    shown = [column for column in columns if column.name in scores.values]
    head = ["image", "method", *(column.title for column in shown)]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for index, image in enumerate(scores.names):
        for place, method in enumerate(scores.methods):
            values = [(scores.values[column.name][index, place], column.decimals) for column in shown]
            cells = ["–" if math.isnan(value) else f"{value:.{decimals}f}" for value, decimals in values]
            lines.append(f"| {' | '.join([_escaped(image), _escaped(method), *cells])} |")
    return "\n".join(lines) + "\n"


def as_csv(table: Table, scores: Scores, *, per_image: bool) -> str:
    """Renders CSV, one line per method and figure: the shape that other programs read without guessing."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["method", "kind", "metric", "image", "value", "low", "high", "images", "rank", "source"])
    for row in table.rows:
        for name, figure in row.figures.items():
            low, high = ("" if limit is None else limit for limit in (figure.low, figure.high))
            source = row.sources.get(name, "")
            place = row.ranks.get(name, "")
            writer.writerow([row.method, row.kind, name, "", figure.mean, low, high, figure.count or "", place, source])
    if per_image:
        for column in table.columns:
            for index, image in enumerate(scores.names if column.name in scores.values else ()):
                for method, value in zip(scores.methods, scores.values[column.name][index], strict=True):
                    writer.writerow([method, "image", column.name, image, float(value), "", "", "", "", ""])
    return stream.getvalue()


def as_json(table: Table, scores: Scores, facts: Mapping[str, Any], *, per_image: bool) -> str:
    """Renders JSON. What is not a finite number is a string, `inf` or `nan`, since JSON has none."""
    document: dict[str, Any] = {
        **facts,
        "protocols": {column.name: column.protocol for column in table.columns},
        "rows": [
            {
                "method": row.method,
                "kind": row.kind,
                "metrics": {name: _figure_fields(row, name, figure) for name, figure in row.figures.items()},
            }
            for row in table.rows
        ],
        "notes": list(table.notes),
        "failed": [{"image": failure.name, "reason": failure.reason} for failure in scores.failures],
    }
    if per_image:
        document["images"] = [
            {
                "image": image,
                "metrics": {
                    method: {
                        column.name: _number(scores.values[column.name][index, place])
                        for column in table.columns
                        if column.name in scores.values
                    }
                    for place, method in enumerate(scores.methods)
                },
            }
            for index, image in enumerate(scores.names)
        ]
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _figure_fields(row: Row, name: str, figure: Figure) -> dict[str, Any]:
    fields: dict[str, Any] = {"mean": _number(figure.mean)}
    if row.kind != "published":
        fields["images"] = figure.count
    if figure.low is not None and figure.high is not None:
        fields["interval"] = [_number(figure.low), _number(figure.high)]
    if name in row.ranks:
        fields["rank"] = row.ranks[name]
    if name in row.sources:
        fields["source"] = row.sources[name]
    return fields


def _number(value: float) -> float | str:
    return float(value) if math.isfinite(value) else str(float(value))
