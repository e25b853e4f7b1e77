"""The account of a run's time: sums, shares, what waited, and where it is told."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from commands import call
from fakes import fake_models
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gfprestore import run
from gfprestore.folders import plan_jobs
from gfprestore.options import RestoreOptions
from gfprestore.pipeline import restore_photos
from gfprestore.report import Restored
from gfprestore.stagetimes import STEPS, StageTimes, Stopwatch
from gfprestore.workplan import plan_work

STAGES = [stage for stages in STEPS.values() for stage in stages]


def made_times(wall: float, photos: list[dict[str, float]], threads: int = 1) -> StageTimes:
    times = StageTimes(dict.fromkeys(STEPS, threads), 2)
    times.wall, times.processor = wall, 1.5 * wall
    for seconds in photos:
        times.add(seconds)
    return times


@pytest.fixture
def album(tmp_path: Path) -> Path:
    (tmp_path / "album").mkdir()
    for index in range(3):
        Image.fromarray(np.full((60, 90, 3), index, np.uint8)).save(tmp_path / "album" / f"{index}.png")
    return tmp_path / "album"


def test_a_stopwatch_counts_every_moment_once() -> None:
    start = time.perf_counter()
    watch = Stopwatch({"read": 2.0})
    for stage in ("detect", "read", "detect"):
        time.sleep(0.01)
        watch.lap(stage)
    passed = time.perf_counter() - start
    assert watch.seconds["detect"] >= 0.02
    assert watch.seconds["read"] >= 2.01
    assert sum(watch.seconds.values()) - 2 <= passed


@given(st.lists(st.dictionaries(st.sampled_from(STAGES), st.floats(0, 10)), max_size=5), st.integers(1, 4))
def test_working_and_waiting_are_the_threads_time(photos: list[dict[str, float]], threads: int) -> None:
    times = made_times(1000.0, photos, threads)
    steps = times.facts()["steps"]
    assert isinstance(steps, dict)
    for step, facts in steps.items():
        working = sum(facts["working"].values())
        assert working == pytest.approx(sum(p.get(s, 0) for p in photos for s in STEPS[step]), abs=0.01)
        assert working + facts["waiting"] == pytest.approx(threads * 1000, abs=0.01)
        assert facts["share"] == pytest.approx(working / (threads * 1000), abs=1e-3)


def test_the_slowest_step_is_the_one_that_waits_least() -> None:
    times = made_times(10.0, [{"read": 1.0, "detect": 4.0, "restore": 3.0, "write": 2.0, "paste": 2.5}])
    assert times.slowest == "finish"
    assert times.share("finish") == pytest.approx(0.45)
    (line,) = (line for line in times.table().splitlines() if "the slowest" in line)
    assert line.split() == ["waiting", "5.50", "55.0%", "(1", "thread,", "the", "slowest)"]
    assert "1.50 of 2 processors" in times.table()


def test_a_run_that_came_to_no_photo_is_told_as_that() -> None:
    times = StageTimes(plan_work(4).threads, 2)
    assert times.facts()["wall"] == 0.0
    assert "0.0 s" in times.table()
    assert "slowest" not in times.table()


def test_every_photo_tells_its_stages(album: Path, tmp_path: Path) -> None:
    start = time.perf_counter()
    outcomes = list(restore_photos(plan_jobs([album], tmp_path / "out"), fake_models(), RestoreOptions()))
    passed = time.perf_counter() - start
    assert len(outcomes) == 3
    for outcome in outcomes:
        assert isinstance(outcome, Restored)
        assert outcome.seconds.keys() == {"read", "detect", "restore", "retouch", "background", "paste", "write"}
        assert 0 < sum(outcome.seconds.values()) < passed


def test_a_stage_that_takes_long_is_told_to(album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(crop: np.ndarray) -> np.ndarray:
        time.sleep(0.05)
        return crop.copy()

    monkeypatch.setattr(run, "load_models", lambda *_: fake_models(slow))
    report = tmp_path / "report.jsonl"
    code, result = call(album, "-o", tmp_path / "out", "--profile", "--report", report)
    assert code == 0
    profile = json.loads(report.read_text().splitlines()[-1])["profile"]
    # The stand-in for the detector finds 0, 1 and 2 faces.
    assert profile["steps"]["restore"]["working"]["restore"] >= 0.15
    assert profile["wall"] >= 0.15
    assert profile["steps"].keys() == STEPS.keys()
    assert "Where " in result.stderr.splitlines()[1]
    assert result.stdout == ""


def test_nobody_is_told_who_did_not_ask(album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "load_models", lambda *_: fake_models())
    report = tmp_path / "report.jsonl"
    _, result = call(album, "-o", tmp_path / "out", "--report", report)
    assert "profile" not in json.loads(report.read_text().splitlines()[-1])
    assert "Where" not in result.stderr


def test_a_quiet_run_tells_the_report_alone(album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "load_models", lambda *_: fake_models())
    report = tmp_path / "report.jsonl"
    _, result = call(album, "-o", tmp_path / "out", "--report", report, "--profile", "--quiet")
    assert "profile" in json.loads(report.read_text().splitlines()[-1])
    assert result.stderr == ""
