from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest
from rich.console import Console

from gfprestore.evaluation.columns import choose_columns
from gfprestore.evaluation.commands import rich_table
from gfprestore.evaluation.images import FailedImage
from gfprestore.evaluation.progressbar import show_progress
from gfprestore.evaluation.published import FROM_MEMORY, IN_PAPER, PUBLISHED
from gfprestore.evaluation.scoring import Scores, bootstrap_interval, summarise
from gfprestore.evaluation.table import (
    Table,
    as_csv,
    as_json,
    as_markdown,
    make_rows,
    per_image_markdown,
    published_rows,
)

COLUMNS = choose_columns("psnr,lpips-alex,fid", ["truth", "reference"])


def make_scores() -> Scores:
    values = {
        "psnr": np.array([[20.0, 30.0, 25.0], [22.0, np.inf, 25.0]]),
        "lpips-alex": np.array([[0.5, 0.2, 0.4], [0.5, np.nan, 0.4]]),
    }
    failures = (FailedImage("c", "c.png is empty."),)
    return Scores(("input", "ours|new", "theirs"), ("a", "b"), values, {"fid": (90.0, 40.0, 40.0)}, failures)


def test_interval_is_that_of_the_normal_approximation():
    values = np.random.default_rng(0).normal(5, 2, (400, 1))
    low, high = bootstrap_interval(values)
    assert (high - low)[0] == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.06)
    assert low[0] < values.mean() < high[0]
    np.testing.assert_array_equal(bootstrap_interval(values), (low, high))


def test_intervals_hold_the_true_mean_about_as_often_as_they_say():
    generator = np.random.default_rng(1)
    values = generator.exponential(1.0, (60, 150))
    low, high = bootstrap_interval(values, resamples=400)
    assert 0.85 < np.mean((low <= 1) & (high >= 1)) < 0.99


def test_what_could_not_be_measured_is_left_out_and_counted():
    figures = summarise(make_scores(), "lpips-alex", with_interval=True)
    assert [figure.count for figure in figures] == [2, 1, 2]
    assert figures[1].mean == pytest.approx(0.2)
    assert figures[2].low == figures[2].high == pytest.approx(0.4)
    assert summarise(make_scores(), "fid", with_interval=True)[0].low is None
    assert np.isnan(summarise(make_scores(), "niqe", with_interval=True)[0].mean)


@pytest.mark.parametrize("is_empty", [(True, False), (True, True)])
def test_a_column_without_values_has_no_interval_and_gives_no_warning(is_empty):
    values = np.random.default_rng(2).normal(size=(20, 2))
    expected = bootstrap_interval(values)
    values[:, is_empty] = np.nan
    for limits, wanted in zip(bootstrap_interval(values), expected, strict=True):
        np.testing.assert_array_equal(limits, np.where(is_empty, np.nan, wanted))


def test_best_and_second_best_are_marked_and_the_input_is_not_ranked():
    rows = make_rows(make_scores(), COLUMNS, with_interval=False, has_input=True)
    assert [row.kind for row in rows] == ["input", "measured", "measured"]
    assert [row.ranks for row in rows] == [
        {},
        {"psnr": 1, "lpips-alex": 1, "fid": 1},
        {"psnr": 2, "lpips-alex": 2, "fid": 1},
    ]
    assert make_rows(make_scores(), COLUMNS, with_interval=False)[0].ranks == {"fid": 2}


def test_markdown():
    rows = make_rows(make_scores(), COLUMNS, with_interval=False, has_input=True)
    lines = as_markdown(Table(COLUMNS, tuple(rows), ("two images.",))).splitlines()
    assert lines == [
        "| method | lpips-alex ↓ | fid ↓ | psnr ↑ |",
        "|---|---|---|---|",
        "| input | 0.5000 | 90.000 | 21.000 |",
        "| ours\\|new | **0.2000** | **40.000** | **inf** |",
        "| theirs | _0.4000_ | **40.000** | _25.000_ |",
        "",
        "- two images.",
    ]
    table = per_image_markdown(make_scores(), COLUMNS).splitlines()
    assert table[3] == "| a | ours\\|new | 0.2000 | 30.000 |"
    assert table[6] == "| b | ours\\|new | – | inf |"


def test_csv_and_json_hold_every_figure():
    scores = make_scores()
    table = Table(COLUMNS, tuple(make_rows(scores, COLUMNS, with_interval=True)))
    lines = list(csv.DictReader(io.StringIO(as_csv(table, scores, per_image=True))))
    assert len(lines) == 3 * 3 + 2 * 2 * 3
    (line,) = [x for x in lines if x["image"] == "b" and x["method"] == "theirs" and x["metric"] == "psnr"]
    assert float(line["value"]) == 25
    document = json.loads(as_json(table, scores, {"device": "cpu"}, per_image=True))
    assert document["rows"][1]["metrics"]["lpips-alex"] == {
        "mean": 0.2,
        "images": 1,
        "interval": [0.2, 0.2],
        "rank": 1,
    }
    assert document["rows"][1]["metrics"]["psnr"]["mean"] == "inf"
    assert document["images"][1]["metrics"]["ours|new"] == {"psnr": "inf", "lpips-alex": "nan"}
    assert document["failed"] == [{"image": "c", "reason": "c.png is empty."}]
    assert set(document["protocols"]) == {"psnr", "lpips-alex", "fid"}
    assert "images" not in json.loads(as_json(table, scores, {}, per_image=False))


def test_published_rows_say_where_each_figure_comes_from():
    columns = choose_columns("lpips-vgg,niqe,deg-over-1,psnr", ["truth"])
    rows = {row.method: row for row in published_rows(PUBLISHED["blind"], columns)}
    ours = rows["GFP-GAN"]
    assert ours.kind == "published"
    assert {name: figure.mean for name, figure in ours.figures.items()} == {
        "lpips-vgg": 0.3646,
        "niqe": 4.077,
        "deg-over-1": 34.60,
    }
    assert ours.sources == {"lpips-vgg": IN_PAPER, "niqe": FROM_MEMORY, "deg-over-1": IN_PAPER}
    assert set(rows["PULSE"].sources.values()) == {FROM_MEMORY}
    text = as_markdown(Table(columns, tuple(rows.values())))
    assert "| GFP-GAN (published) | 0.3646 | 4.077? | 34.60 | – |" in text
    for name in ("x4", "real", "ablation"):
        sources = {figure.source for row in PUBLISHED[name].rows for figure in row.figures.values()}
        assert sources == {FROM_MEMORY}


def test_the_terminal_s_table_holds_the_same_cells():
    rows = make_rows(make_scores(), COLUMNS, with_interval=False, has_input=True)
    stream = io.StringIO()
    Console(file=stream, width=100, color_system=None).print(rich_table(Table(COLUMNS, tuple(rows))))
    lines = [line.split() for line in stream.getvalue().splitlines()]
    assert lines[0] == ["method", "lpips-alex", "↓", "fid", "↓", "psnr", "↑"]
    assert lines[1:] == [
        ["input", "0.5000", "90.000", "21.000"],
        ["ours|new", "0.2000", "40.000", "inf"],
        ["theirs", "0.4000", "40.000", "25.000"],
    ]


def test_progress_goes_to_stderr_and_only_where_it_is_shown(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    for is_shown in (False, True):
        with show_progress("Measuring", 3, is_shown) as advance:
            advance(2)
        shown = capsys.readouterr()
        assert shown.out == ""
        assert ("2/3" in shown.err) == is_shown
