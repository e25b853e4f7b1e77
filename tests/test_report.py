"""The count of a run, its one line, and the JSON lines that account for every source."""

from __future__ import annotations

import errno
import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gfprestore.errors import ExitCode, OutputError, UsageError
from gfprestore.job import Job
from gfprestore.report import FaceRecord, Failed, Outcome, RefusedRecord, Report, Restored, Skipped, duration
from gfprestore.reporting.earlier import read_report
from gfprestore.reporting.reportfile import SCHEMA, ReportFile


def job(name: str) -> Job:
    return Job(Path("in", name), Path("out", name), Path(name))


def face(action: str = "restored") -> FaceRecord:
    return FaceRecord((1.0, 2.0, 30.5, 40.25), 0.987654, action, facts={"identity_degrees": 12.5})  # type: ignore[arg-type]


def restored(name: str, faces: int, kept: int = 0) -> Restored:
    records = (face(),) * faces + (face("kept"),) * kept
    return Restored(job(name), records, (200, 100), {"read": 0.12345}, ("odd",))


def counted(*outcomes: Outcome, planned: int = 0, age: float = 0.0) -> Report:
    report = Report(planned, started=time.monotonic() - age)
    for outcome in outcomes:
        report.add(outcome)
    return report


def test_summary_names_every_kind() -> None:
    outcomes: list[Outcome] = [restored(str(n), 2) for n in range(11)] + [restored("k", 9), restored("n", 0)]
    outcomes += [restored("m", 0), Skipped(job("s"), "exists"), Failed(job("f"), "bad")]
    report = counted(*outcomes, planned=20, age=42)
    assert report.summary() == (
        "12 photos restored (31 faces), 2 without a face, 1 skipped since its result exists (--overwrite writes it "
        "anew), 1 failed, 4 not reached, in 42 s"
    )


@pytest.mark.parametrize(
    ("outcomes", "line"),
    [
        ([], "0 photos restored, in 30 s"),
        ([restored("a", 1)], "1 photo restored (1 face), in 30 s"),
        ([restored("a", 1, kept=1)], "1 photo restored (1 face, 1 kept as it was), in 30 s"),
        ([restored("a", 0, kept=2)], "1 photo restored (0 faces, 2 kept as they were), in 30 s"),
        (
            [Skipped(job("a"), ""), Skipped(job("b"), "")],
            "0 photos restored, 2 skipped since their results exist (--overwrite writes them anew), in 30 s",
        ),
        ([restored("a", 0)], "0 photos restored, 1 without a face, in 30 s"),
    ],
)
def test_summary_gets_numbers_right(outcomes: list[Outcome], line: str) -> None:
    assert counted(*outcomes, age=30).summary() == line


@given(st.lists(st.sampled_from([restored("a", 2), restored("b", 0), Skipped(job("s"), ""), Failed(job("f"), "")])))
def test_statuses_sum_to_the_sources(outcomes: list[Outcome]) -> None:
    report = counted(*outcomes, planned=len(outcomes) + 3)
    parts = report.restored + report.without_face + report.skipped + report.failed + report.unreached
    assert parts == report.planned
    failed = any(isinstance(outcome, Failed) for outcome in outcomes)
    assert report.exit_code is (ExitCode.SOME_FAILED if failed else ExitCode.OK)


@given(st.floats(0, 1e7))
def test_durations_read_well_and_never_say_sixty(seconds: float) -> None:
    words = duration(seconds).split()
    assert words[1::2] in (["s"], ["min", "s"], ["h", "min"])
    assert all(float(number) < 60 for number in words[2::2])


def read_statuses(path: Path) -> dict[Path, object]:
    return {source: line["status"] for source, line in read_report(path).lines.named.items()}


def read_lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]


def test_every_source_has_one_line(tmp_path: Path) -> None:
    outcomes = [restored("a", 1), Skipped(job("b"), "exists"), Failed(job("c"), "is damaged")]
    jobs = [outcome.job for outcome in outcomes] + [job("d")]
    report = counted(*outcomes, planned=4)
    path = tmp_path / "report.jsonl"
    with ReportFile(path) as file:
        file.start(4, {"version": "1"})
        for number, outcome in enumerate(outcomes):
            file.add(outcome)
            assert len(read_lines(path)) == number + 2, "written as it happens"
        file.finish(report, jobs, ExitCode.INTERRUPTED)
    first, *photos, last = read_lines(path)
    assert first == {"schema": SCHEMA, "kind": "run", "photos": 4, "version": "1"}
    assert [line["status"] for line in photos] == ["restored", "skipped", "failed", "unreached"]
    assert [line["source"] for line in photos] == [str(j.source) for j in jobs]
    assert photos[0]["faces"] == [
        {
            "box": [1.0, 2.0, 30.5, 40.25],
            "score": 0.9877,
            "action": "restored",
            "reason": "",
            "strength": 1.0,
            "identity_degrees": 12.5,
        }
    ]
    assert photos[0]["size"] == [200, 100]
    assert photos[1]["reason"] == "exists"
    assert photos[2]["error"] == "is damaged"
    assert last["kind"] == "summary"
    assert last["exit_code"] == 130
    statuses = ("restored", "without_face", "skipped", "failed", "unreached")
    assert [last[status] for status in statuses] == [1, 0, 1, 1, 1]


def test_what_was_refused_is_told_with_its_reason(tmp_path: Path) -> None:
    refused = RefusedRecord((10.0, 20.5, 30.25, 44.0), 0.71234, "it lies inside a larger face")
    kept = replace(face("kept"), reason="it is sharp already")
    outcome = replace(restored("a", 1), faces=(face(), kept), refused=(refused,))
    path = tmp_path / "report.jsonl"
    with ReportFile(path) as file:
        file.start(1, {})
        file.add(outcome)
    reason = "it lies inside a larger face"
    assert read_lines(path)[1]["refused"] == [{"box": [10.0, 20.5, 30.25, 44.0], "score": 0.7123, "reason": reason}]
    assert outcome.decisions() == [
        "face kept at (1, 2, 30, 40): it is sharp already",
        "no face at (10, 20, 30, 44): it lies inside a larger face",
    ]
    assert restored("b", 2).decisions() == []


def test_names_that_are_no_text_survive(tmp_path: Path) -> None:
    source = Path(os.fsdecode(b"in/\xff\xfe\n\xc3\xa4.jpg"))
    path = tmp_path / "r"
    with ReportFile(path) as file:
        file.start(1, {})
        file.add(Failed(Job(source, source, source), "bad"))
    assert read_statuses(path) == {source: "failed"}
    assert len(path.read_bytes().splitlines()) == 2


def test_a_torn_line_is_passed_over_and_a_later_run_appended(tmp_path: Path) -> None:
    path = tmp_path / "r"
    with ReportFile(path) as file:
        file.start(2, {})
        file.add(Failed(job("a"), "bad"))
        file.add(restored("b", 1))
    path.write_bytes(path.read_bytes()[:-20])
    assert read_statuses(path) == {job("a").source: "failed"}
    with ReportFile(path, append=True) as file:
        file.start(1, {})
        file.add(restored("a", 1))
    assert read_statuses(path) == {job("a").source: "restored"}
    with ReportFile(path) as file:
        file.start(0, {})
    assert read_statuses(path) == {}


def test_a_photo_named_by_mistake_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"\xff\xd8\xff")
    with pytest.raises(OutputError, match="is not a report"):
        ReportFile(path)
    with pytest.raises(UsageError, match="is not a report"):
        read_statuses(path)
    assert path.read_bytes() == b"\xff\xd8\xff"


def test_two_runs_do_not_write_one_report(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    path = tmp_path / "r"
    with ReportFile(path) as file:
        file.start(1, {})
        for append in (False, True):
            with pytest.raises(OutputError, match=r"Another run is writing .*name another file with --report"):
                ReportFile(path, append=append)
        file.add(restored("a", 1))
    assert read_statuses(path) == {job("a").source: "restored"}
    for name in (path, os.devnull, os.devnull):
        ReportFile(name, append=True).close()
    with ReportFile(os.devnull) as one, ReportFile(os.devnull) as other:
        one.start(1, {})
        other.start(1, {})


def test_a_report_may_go_where_locks_are_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with ReportFile(tmp_path / "r") as file:
        file.start(0, {})
    assert read_statuses(tmp_path / "r") == {}


def test_the_folders_of_a_report_are_made(tmp_path: Path) -> None:
    path = tmp_path / "out" / "reports" / "r"
    with ReportFile(path) as file:
        file.start(0, {})
    assert read_statuses(path) == {}


def test_a_report_that_cannot_be_written_or_read(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("file/r", "."):
        with pytest.raises(OutputError, match="--report"):
            ReportFile(tmp_path / name)
    with pytest.raises(UsageError, match="--resume"):
        read_statuses(tmp_path / "none")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_an_output_error(tmp_path: Path) -> None:
    file = ReportFile(tmp_path / "real")
    file._stream.close()
    file._stream = Path("/dev/full").open("w", encoding="ascii")  # noqa: SIM115
    with pytest.raises(OutputError, match="No space left"):
        file.start(1, {})
    file.close()


def test_standard_output_only_when_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ReportFile(tmp_path / "r") as file:
        file.start(0, {})
        file.finish(Report())
    assert capsys.readouterr().out == ""
    with ReportFile("-") as file:
        file.start(0, {})
        file.finish(Report())
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["kind"] for line in lines] == ["run", "summary"]
