"""What a run's report says about the networks that made its results."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import call
from fakes import fake_models
from PIL import Image

from gfprestore import models, run
from gfprestore.atomic import _host
from gfprestore.digest import weights_digest
from gfprestore.errors import ExitCode, GfprestoreError
from gfprestore.folders import plan_jobs
from gfprestore.manifest import MANIFEST
from gfprestore.options import RestoreOptions


@pytest.fixture
def album(tmp_path: Path) -> Path:
    (tmp_path / "album").mkdir()
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "album" / "a.png")
    return tmp_path / "album"


def test_the_first_line_names_the_weights_and_the_options(
    album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        run, "load_models", lambda *_: dataclasses.replace(fake_models(), facts={"face": {"sha256": "0"}})
    )
    report = tmp_path / "report.jsonl"
    assert call(album, "-o", tmp_path / "out", "--report", report, "--strength", 0.25)[0] == ExitCode.OK
    first = json.loads(report.read_text().splitlines()[0])
    assert first["models"] == {"face": {"sha256": "0"}}
    assert first["options"].keys() == {option.name for option in dataclasses.fields(RestoreOptions)}
    assert first["options"]["strength"] == 0.25


def test_facts_hold_the_digest_of_every_file_that_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    background, recogniser = tmp_path / "background.pth", tmp_path / "recogniser.onnx"
    torch.save({"a": torch.ones(1)}, background)
    recogniser.write_bytes(b"a network")
    # The engines are tested elsewhere; here only what is told about their files.
    for name in ("build_restorer", "build_detector", "FaceRecogniser"):
        monkeypatch.setattr(models, name, lambda *_, **__: None)
    monkeypatch.setattr(models, "build_upscaler", lambda *_, **__: fake_models().upscaler)

    def read_colour(read_weights: object, **_: object) -> object:
        read_weights("detector-compact")  # type: ignore[operator]  # any file of the manifest that is here
        return fake_models().upscaler

    monkeypatch.setattr(models, "build_chroma_source", read_colour)
    options = RestoreOptions(
        model="compact",
        detector="detector-compact",
        background=str(background),
        recogniser=recogniser,
        identity_limit=40,
        colorize="auto",
        offline=True,
    )
    facts = models.load_models(options, print).facts
    known = {entry.name: entry.sha256 for entry in MANIFEST}
    assert facts["face"] == {"name": "compact", "sha256": known["compact"]}
    assert facts["detector"] == {"name": "detector-compact", "sha256": known["detector-compact"]}
    assert facts["recogniser"] == {"name": "recogniser.onnx", "sha256": weights_digest(recogniser)}
    assert facts["weights"] == {
        str(background): weights_digest(background),
        "detector-compact": known["detector-compact"],
        "compact-colour": known["compact-colour"],
    }
    json.dumps(facts)


def test_a_recogniser_that_is_not_asked_is_told(tmp_path: Path) -> None:
    said: list[str] = []
    options = RestoreOptions(recogniser=tmp_path / "recogniser.onnx")
    assert models._Place("cpu", "fp32", tmp_path, options, None).load_recogniser({}, said.append) is None
    assert len(said) == 1
    assert "--identity-limit" in said[0]
    models._Place("cpu", "fp32", tmp_path, RestoreOptions(), None).load_recogniser({}, pytest.fail)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (RestoreOptions(detector="foo"), "--detector takes"),
        (RestoreOptions(background="foo"), "--background"),
        (RestoreOptions(recogniser=Path("nowhere.onnx"), identity_limit=40.0), "nowhere.onnx; check --recogniser"),
        (RestoreOptions(identity_limit=40.0), "name one with --recogniser"),
    ],
)
def test_every_choice_is_looked_at_before_face_weights_are_fetched(
    options: RestoreOptions, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(*_: object, **__: object) -> object:
        raise AssertionError("face weights were asked for first")

    monkeypatch.setattr(models, "choose_face_model", fetch)
    monkeypatch.setattr(models, "find_weights", lambda *_, **__: None)
    with pytest.raises(GfprestoreError, match=said):
        models.load_models(options, print)


def test_a_fault_of_gfprestore_itself_is_told_before_its_traceback(
    album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(run, "load_models", load)
    said: list[str] = []
    jobs = plan_jobs([album], tmp_path / "out")
    report = str(tmp_path / "report.jsonl")
    with pytest.raises(KeyError):
        run.run_jobs(jobs, RestoreOptions(), report_name=report, resume=None, say=said.append, shows_progress=False)
    assert "a fault in gfprestore itself; please report it" in said[0]
    assert "1 not reached" in said[1]
    assert json.loads(Path(report).read_text().splitlines()[-1])["exit_code"] == 1


def test_litter_of_a_killed_run_is_taken_away_wherever_results_go(
    album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "load_models", lambda *_: fake_models())
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for folder in ("out", "faces"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f".gfprestore-{_host()}-{gone.pid}-abc.part").write_bytes(b"half")
    assert call(album, "-o", tmp_path / "out", "--save-faces", tmp_path / "faces")[0] == ExitCode.OK
    assert not list(tmp_path.rglob("*.part"))


def test_resuming_into_a_new_report_gives_a_line_for_every_source_and_does_nothing_twice(
    album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "load_models", lambda *_: fake_models())
    out, reports = tmp_path / "out", [tmp_path / f"{number}.jsonl" for number in range(3)]
    (album / "b.png").write_bytes(b"broken")
    assert call(album, "-o", out, "--report", reports[0])[0] == ExitCode.SOME_FAILED
    shutil.copy(album / "a.png", album / "b.png")
    shutil.copy(album / "a.png", album / "c.png")
    for number, done in ((1, {"a.png"}), (2, {"a.png", "b.png", "c.png"})):
        arguments = (album, "-o", out, "--overwrite", "--resume", reports[number - 1], "--report", reports[number])
        assert call(*arguments)[0] == ExitCode.OK
        first, *photos, last = [json.loads(line) for line in reports[number].read_text().splitlines()]
        assert {line["source"] for line in photos} == {str(album / name) for name in ("a.png", "b.png", "c.png")}
        assert {line["status"] for line in photos} == {"restored"}
        assert {Path(line["source"]).name for line in photos if line.get("earlier")} == done
        assert first["photos"] == last["restored"] + last["without_face"] == 3 - len(done)
