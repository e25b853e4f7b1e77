"""`gfprestore-train` as a command."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib

import numpy as np
import pytest
from click.testing import CliRunner
from tiny_training import write_faces

from gfprestore.training.cli import main
from gfprestore.training.configfile import load_config, parse_config
from gfprestore.training.regions import read_components, template_components, write_components
from gfprestore.training.sources import open_faces


def invoke(*arguments: str):
    return CliRunner().invoke(main, arguments)


def test_help_needs_nothing_heavy():
    code = (
        "import sys; from gfprestore.training.cli import main; main(['--help'], standalone_mode=False);"
        "print(sorted({'torch', 'numpy', 'cv2', 'PIL'} & sys.modules.keys()))"
    )
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert told.endswith("[]\n")
    assert all(verb in told for verb in ("align", "export", "run"))


@pytest.mark.parametrize("verb", ["align", "export", "run"])
def test_every_verb_has_help(verb):
    result = invoke(verb, "--help")
    assert result.exit_code == 0 and result.output.count("\n") > 5


def test_print_config_tells_the_effective_configuration(tmp_path):
    result = invoke("run", "compact", "-o", str(tmp_path), "--set", "run.steps=9", "--print-config")
    assert result.exit_code == 0
    assert parse_config(tomllib.loads(result.stdout)) == load_config("compact", ["run.steps=9"])
    assert not list(tmp_path.iterdir())


def test_a_configuration_is_printed_without_a_folder_and_no_run_starts_without(tmp_path):
    assert tomllib.loads(invoke("run", "compact", "--print-config").stdout)["recipe"] == "restoration"
    result = invoke("run", "compact")
    assert result.exit_code == 2 and "--output" in result.output


class _Finder:
    """Finds nothing: what is tested comes before and after."""

    def detect(self, photos):
        return [[] for _ in photos]


def test_landmarks_go_beside_the_faces_and_known_names_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr("gfprestore.detect.build_detector", lambda *_, **__: _Finder())
    write_faces(tmp_path, 3)
    write_components(tmp_path / "components.json", {"0": template_components(), "2_0": template_components()})
    before = {path: path.read_bytes() for path in tmp_path.glob("*.png")}
    result = invoke("align", str(tmp_path), "-o", str(tmp_path), "--landmarks-only")
    assert result.exit_code == 0, result.output
    assert "1 already there" in result.output and "2 photos without a face" in result.output
    assert {path: path.read_bytes() for path in tmp_path.glob("*.png")} == before
    refused = invoke("align", str(tmp_path), "-o", str(tmp_path))
    assert refused.exit_code and "lies in the input folder" in str(refused.exception)
    (tmp_path / "out").mkdir()
    shutil.copy(tmp_path / "components.json", tmp_path / "out")
    result = invoke("align", str(tmp_path / "2.png"), "-o", str(tmp_path / "out"))
    assert "1 already there" in result.output, "in a folder of an older version, by its name"


def test_a_wrong_configuration_is_told_in_one_line(tmp_path):
    code = "from gfprestore.training.cli import run; run()"
    line = [sys.executable, "-c", code, "run", "compact", "-o", str(tmp_path), "--set", "run.stepps=3"]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("gfprestore-train: error: No configuration has the key run.stepps")
    assert done.stderr.count("\n") == 1


def test_export_refuses_other_endings_and_files(tmp_path):
    for output, file in (("w.pth", "none.pt"), ("w.safetensors", "none.pt")):
        result = invoke("export", str(tmp_path / file), "-o", str(tmp_path / output))
        assert result.exit_code != 0 and not (tmp_path / output).exists()


def test_the_detectors_verbs_are_within_reach():
    result = invoke("detector", "--help")
    assert result.exit_code == 0 and "train" in result.output and "export" in result.output
    assert invoke("detector", "train", "--nonsense").exit_code == 2


@pytest.mark.weights
def test_align_cuts_faces_that_training_reads(real_weights, real_photos, tmp_path):
    photo = real_photos / "large" / "name with spaces.jpg"
    detector = str(real_weights / "detection_mobilenet0.25_Final.pth")
    result = invoke("align", str(photo), "-o", str(tmp_path), "--size", "256", "--detector", detector)
    assert result.exit_code == 0, result.output
    faces, _ = open_faces([str(tmp_path)])
    assert faces.read(0, 256).std() > 20
    components = read_components(tmp_path / "components.json")
    assert sorted(components) == [faces.name(i) for i in range(len(faces))]
    for entry in components.values():
        assert np.abs(entry[:, :2] - template_components()[:, :2]).max() < 25
