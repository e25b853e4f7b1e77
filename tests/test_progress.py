"""The time left of a run, and the bar that shows it."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text

from gfprestore.job import Job
from gfprestore.progress import RunProgress, TimeLeft
from gfprestore.report import Failed, Report, Restored, Skipped

JOB = Job(Path("in/a"), Path("out/a"), Path("a"))
WRITTEN = Restored(JOB, (), (10, 10))


def test_time_left_is_within_a_fifth_where_photos_differ_tenfold() -> None:
    chance = random.Random(0)
    now = 0.0
    report = Report(planned=2000)
    left = TimeLeft(lambda: now)
    ends, told = [], []
    for _ in range(report.planned):
        now += chance.choice((1.0, 1.0, 10.0))
        report.add(WRITTEN)
        ends.append(now)
        told.append(left.seconds(report))
    for done in range(200, 1900, 100):
        true = ends[-1] - ends[done - 1]
        assert told[done - 1] == pytest.approx(true, rel=0.2)
    assert told[-1] == 0


def test_time_left_follows_a_machine_that_gets_busy() -> None:
    now = 0.0
    report = Report(planned=10_000)
    left = TimeLeft(lambda: now)
    for done in range(4000):
        now += 1.0 if done < 2000 else 3.0
        report.add(WRITTEN)
        told = left.seconds(report)
    assert told == pytest.approx(3.0 * 6000)


def test_skipped_photos_do_not_make_a_run_look_quick() -> None:
    now = 0.0
    report = Report(planned=100)
    left = TimeLeft(lambda: now)
    for _ in range(90):
        report.add(Skipped(JOB, "exists"))
    assert left.seconds(report) is None
    now = 3.0
    report.add(WRITTEN)
    assert left.seconds(report) == 3.0 * 9
    now = 6.0
    report.add(Failed(JOB, "bad"))
    assert left.seconds(report) == 3.0 * 8


def test_the_bar_shows_photos_faces_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(record=True, force_terminal=True, width=100, file=Path("/dev/null").open("w"))  # noqa: SIM115
    monkeypatch.setattr("gfprestore.progress.Console", lambda stderr: console)
    report = Report(planned=4)
    with RunProgress(4, is_shown=True) as progress:
        report.add(WRITTEN)
        progress.show(report)
        progress.say("a [line] of its own")
    console.file.close()
    shown = console.export_text()
    assert "1/4" in shown
    assert "s left" in shown
    assert "a [line] of its own" in shown


@pytest.mark.parametrize("width", [20, 39, 40, 50, 63, 64, 80])
def test_a_narrow_terminal_costs_the_bar_before_the_count(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=width)
    monkeypatch.setattr("gfprestore.progress.Console", lambda stderr: console)
    monkeypatch.setattr("gfprestore.progress.TimeLeft.seconds", lambda *_: 3599.0)
    with RunProgress(10_000, is_shown=True) as progress:
        progress.show(Report(planned=10_000, restored=1234, faces=9999))
    assert progress._bar is not None
    with console.capture() as shown:
        console.print(progress._bar.get_renderable())
    (line,) = Text.from_ansi(shown.get()).plain.splitlines()
    assert " 1234/10000" in line
    assert len(line) <= width
    assert ("9999 faces 59 min 59 s left" in line) == (width >= 40)
    assert ("Restoring" in line and "photos" in line) == (width >= 64)


def test_nothing_is_drawn_where_it_is_not_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with RunProgress(4, is_shown=False) as progress:
        progress.show(Report(planned=4))
        progress.say("a line")
    assert capsys.readouterr() == ("", "")
