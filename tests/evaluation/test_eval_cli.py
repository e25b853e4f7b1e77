from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from gfprestore.errors import ExitCode, GfprestoreError, OutputError, UsageError
from gfprestore.evaluation.cli import main
from gfprestore.evaluation.degrade import MANIFEST_NAME, draw_set, read_manifest
from gfprestore.training.degradation import degrade_photo
from gfprestore.training.degradation_presets import PRESETS


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], standalone_mode=False)


def status(result: Result) -> int:
    if isinstance(result.exception, GfprestoreError):
        return result.exception.exit_code
    if result.exception is not None:
        raise result.exception
    return result.return_value


@pytest.fixture
def folders(write_images, make_image) -> tuple[Path, Path, Path]:
    """Truth, a good method and a bad one, three images each."""
    truths = {f"{name}.png": make_image(40, 40, seed) for seed, name in enumerate(("a", "sub/b", "c"))}
    good = {name: (image // 2 * 2).astype(np.uint8) for name, image in truths.items()}
    bad = {name: cv2.blur(image, (5, 5)) for name, image in truths.items()}
    return write_images("truth", truths), write_images("good", good), write_images("bad", bad)


def test_score_prints_a_table_and_writes_json(folders, tmp_path):
    truth, good, _ = folders
    output = tmp_path / "out" / "scores.json"
    result = run("score", good, "--truth", truth, "--metrics", "psnr,ssim", "-o", output, "--per-image")
    assert status(result) == ExitCode.OK
    assert result.stderr == ""
    assert result.stdout.startswith("| method | psnr ↑ | ssim ↑ |")
    document = json.loads(output.read_text())
    error = np.mean([[image["metrics"]["good"]["psnr"]] for image in document["images"]])
    assert document["rows"][0]["metrics"]["psnr"]["mean"] == pytest.approx(error)
    assert [image["image"] for image in document["images"]] == ["a", "c", "sub/b"]
    assert document["measured"] == 3


@pytest.mark.parametrize("suffix", [".md", ".csv"])
def test_other_formats(folders, tmp_path, suffix):
    truth, good, _ = folders
    output = tmp_path / f"scores{suffix}"
    assert status(run("score", good, "--truth", truth, "--metrics", "psnr", "-o", output, "--per-image")) == 0
    assert "sub/b" in output.read_text()


def test_compare_marks_the_best_with_intervals_and_draws_a_sheet(folders, tmp_path):
    truth, good, bad = folders
    sheet = tmp_path / "sheet.png"
    result = run(
        *("compare", truth, f"good={good}", f"bad={bad}", "--input", bad, "--metrics", "psnr,psnr-matched"),
        *("--sheet", sheet, "--sheet-rows", 2, "--published"),
    )
    assert status(result) == ExitCode.OK
    lines = result.stdout.splitlines()
    assert any(line.startswith("| GFP-GAN (published) | – | 25.080 |") for line in lines)
    (best,) = [line for line in lines if line.startswith("| good |")]
    assert best.count("**") == 4
    assert "[" in best
    assert any(line.startswith("| bad | _") for line in lines)
    assert not any("_" in line or "*" in line for line in lines if line.startswith("| input |"))
    pixels = cv2.imread(str(sheet))
    assert pixels.shape == (24 + 2 * 260, 4 * 260 - 4, 3)
    column = [pixels[40:200, 260 * i : 260 * i + 256].astype(int) for i in range(4)]
    assert np.abs(column[0] - column[2]).max() == 0  # the input is the bad method
    assert np.abs(column[1] - column[3]).mean() < 2  # the good one is near the truth, which comes last
    assert np.abs(column[0] - column[3]).mean() > 2


def test_what_is_missing_or_unreadable_is_named_and_the_rest_measured(folders, write_images):
    truth, good, _ = folders
    (good / "c.png").unlink()
    write_images("good", {"extra.png": np.zeros((40, 40, 3), np.uint8)})
    (good / "a.png").write_bytes(b"")
    result = run("score", good, "--truth", truth, "--metrics", "psnr")
    assert status(result) == ExitCode.SOME_FAILED
    lines = result.stderr.splitlines()
    assert len(lines) == 3
    assert "left out: c is missing in good." in lines
    assert "left out: extra is missing in truth." in lines
    assert any(line.startswith("left out: a: ") and "is empty" in line for line in lines)
    assert "- 1 image measured." in result.stdout


def test_sizes_that_differ_are_left_out(folders, write_images):
    truth, good, _ = folders
    write_images("good", {"a.png": np.zeros((40, 44, 3), np.uint8)})
    result = run("score", good, "--truth", truth, "--metrics", "psnr")
    assert status(result) == ExitCode.SOME_FAILED
    assert "differ in size" in result.stderr
    assert "44x40" in result.stderr


def test_images_that_one_metric_cannot_measure_are_named_and_the_rest_measured(folders, write_images):
    truth, good, _ = folders
    small = {f"small{index}.png": np.full((10, 40, 3), index, np.uint8) for index in range(6)}
    for folder in ("truth", "good"):
        write_images(folder, small)
    for command in (["score", good, "--truth", truth], ["compare", truth, f"good={good}"]):
        result = run(*command, "--metrics", "psnr,ssim")
        assert status(result) == ExitCode.OK
        assert "- 9 images measured." in result.stdout
        names = "small0, small1, small2, small3, small4 and 1 more"
        assert f"- ssim of good leaves out 6 of 9 (under 11x11 pixels): {names}." in result.stdout.splitlines()


@pytest.mark.parametrize(
    ("command", "option", "name"),
    [("score", "--output", "x.csv"), ("score", "--save-statistics", "x.npz"), ("compare", "--sheet", "x.png")],
)
def test_a_file_that_cannot_be_written_is_told_before_anything_is_measured(folders, tmp_path, command, option, name):
    truth, good, _ = folders
    inputs = ["score", good, "--truth", truth] if command == "score" else ["compare", truth, f"a={good}"]
    (tmp_path / name).mkdir()
    (tmp_path / "file").write_bytes(b"")
    for target in (tmp_path / name, tmp_path / "file" / name):
        result = run(*inputs, "--metrics", "psnr", option, target)
        assert status(result) == ExitCode.OUTPUT
        assert option in str(result.exception) and not result.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["score", "{good}", "--metrics", "psnr"], "needs --truth"),
        (["score", "{good}", "--truth", "{empty}", "--metrics", "psnr"], "holds no image"),
        (["score", "{good}", "--truth", "{truth}", "-o", "x.txt"], ".md, .csv, .json"),
        (["score", "{good}", "--truth", "{truth}", "--per-image"], "needs --output"),
        (["score", "{good}", "--save-statistics", "x.txt"], ".npz"),
        (["score", "{good}", "--truth", "{truth}", "--metric-weights", "fame=x"], "ROLE=FILE"),
        (["score", "{good}", "--truth", "{truth}", "--metric-weights", "niqe=missing"], "not a file"),
        (["compare", "{truth}", "{good}"], "NAME=FOLDER"),
        (["compare", "{truth}", "a={good}", "a={bad}"], "another column already"),
        (["compare", "{truth}", "a={good}", "--sheet", "x.jpg"], ".png"),
        (["compare", "{truth}", "a=missing", "--metrics", "psnr"], "not a folder"),
        (["degrade", "{empty}", "-o", "{empty}2"], "holds no image"),
        (["degrade", "{truth}", "-o", "{empty}2", "--remake", "{truth}/a.png"], "no manifest"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(folders, tmp_path, arguments, sentence):
    (tmp_path / "empty").mkdir()
    places = dict(zip(("truth", "good", "bad"), folders, strict=True)) | {"empty": tmp_path / "empty"}
    result = run(*(argument.format(**places) for argument in arguments))
    assert isinstance(result.exception, UsageError)
    assert status(result) == ExitCode.USAGE
    message = str(result.exception)
    assert sentence in message
    assert "\n" not in message
    assert result.stdout == ""


def save_features(path: Path) -> Path:
    """A TorchScript network with as many features as Inception."""
    torch.manual_seed(0)
    pool = torch.nn.AdaptiveAvgPool2d(2)
    network = torch.nn.Sequential(pool, torch.nn.Flatten(), torch.nn.Linear(12, 2048), torch.nn.ReLU())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(network.eval()).save(str(path))
    return path


def test_fid_needs_two_images_on_either_side(folders, write_images, tmp_path):
    truth, good, _ = folders
    one = write_images("one", {"a.png": np.zeros((40, 40, 3), np.uint8)})
    network = f"inception={save_features(tmp_path / 'net.pt')}"
    for arguments in ((one, "--reference", truth), (good, "--reference", one)):
        result = run("score", *arguments, "--metrics", "fid", "--metric-weights", network)
        assert status(result) == ExitCode.USAGE
        assert "at least two images" in str(result.exception)


@pytest.mark.slow
def test_fid_of_a_folder_against_itself_and_its_saved_statistics(folders, tmp_path):
    truth, _, bad = folders
    network = f"inception={save_features(tmp_path / 'net.pt')}"
    saved = tmp_path / "truth.npz"
    assert status(run("score", truth, "--save-statistics", saved, "--metric-weights", network)) == 0
    for restored, reference, low, high in ((truth, saved, 0, 1e-3), (truth, truth, 0, 1e-3), (bad, saved, 1e-3, 1e9)):
        output = tmp_path / "scores.json"
        options = ["--metrics", "fid", "--metric-weights", network, "-o", output]
        assert status(run("score", restored, "--reference", reference, *options)) == 0
        value = json.loads(output.read_text())["rows"][0]["metrics"]["fid"]["mean"]
        assert low <= value < high


def test_missing_weights_say_what_helps(folders, tmp_path, monkeypatch):
    truth, good, _ = folders
    monkeypatch.delenv("GFPRESTORE_WEIGHTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    result = run("score", good, "--truth", truth, "--metrics", "niqe", "--offline")
    assert status(result) == ExitCode.WEIGHTS
    assert "gfprestore-weights fetch niqe" in str(result.exception)


def test_degraded_sets_can_be_remade_byte_for_byte(folders, tmp_path):
    truth, _, _ = folders
    first, again, other = tmp_path / "first", tmp_path / "again", tmp_path / "other"
    assert status(run("degrade", truth, "-o", first, "--seed", 4, "--preset", "release")) == 0
    assert status(run("degrade", truth, "-o", again, "--remake", first / MANIFEST_NAME)) == 0
    assert status(run("degrade", truth, "-o", other, "--seed", 5, "--preset", "release")) == 0
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert [str(file) for file in files] == ["a.png", "c.png", MANIFEST_NAME, "sub/b.png"]
    for file in files:
        assert (first / file).read_bytes() == (again / file).read_bytes()
        assert (first / file).read_bytes() != (other / file).read_bytes()
    manifest = read_manifest(first / MANIFEST_NAME)
    assert (manifest.seed, manifest.preset) == (4, "release")
    clean = cv2.imread(str(truth / "a.png"))[..., ::-1]
    expected = degrade_photo(np.ascontiguousarray(clean), manifest.degradations["a"])
    np.testing.assert_array_equal(cv2.imread(str(first / "a.png"))[..., ::-1], expected)


def test_an_image_s_degradation_does_not_depend_on_the_others():
    few, many = (draw_set(names, seed=1, preset="article") for names in (["b"], ["a", "b", "c"]))
    assert few["b"] == many["b"]
    assert many["a"] != many["b"]


def test_a_set_that_comes_out_otherwise_is_named(folders, tmp_path):
    truth, good, _ = folders
    assert status(run("degrade", truth, "-o", tmp_path / "first")) == 0
    result = run("degrade", good, "-o", tmp_path / "again", "--remake", tmp_path / "first" / MANIFEST_NAME)
    assert status(result) == ExitCode.SOME_FAILED
    assert "a differs from the set it remakes" in result.stderr


def test_gray_truth_is_written_on_request(write_images, make_image, tmp_path, monkeypatch):
    clean = write_images("clean", {"a.png": make_image(30, 30, 1)})
    # The truth keeps a print's tone, so only a neutral print leaves it free of colour.
    neutral_gray = dataclasses.replace(
        PRESETS["oldprint"],
        gray_probability=1.0,
        sepia_probability=0.0,
        colour_shift_probability=0.0,
        fading_probability=0.0,
    )
    monkeypatch.setitem(PRESETS, "oldprint", neutral_gray)
    assert status(run("degrade", clean, "-o", tmp_path / "d", "--truth", tmp_path / "t", "--preset", "oldprint")) == 0
    pixels = cv2.imread(str(tmp_path / "t" / "a.png"))
    assert np.ptp(pixels, axis=2).max() == 0


def test_degraded_sets_never_overwrite_clean_images_or_another_set(folders, tmp_path):
    truth, _, _ = folders
    assert status(run("degrade", truth, "-o", tmp_path / "first")) == 0
    for arguments in (
        [truth, "-o", truth],
        [truth, "-o", truth / "new"],
        [truth / "sub", "-o", truth],
        [truth, "-o", tmp_path / "first"],
        [truth, "-o", tmp_path / "n", "--truth", tmp_path / "n"],
        [truth, "-o", tmp_path / "n", "--truth", tmp_path / "n" / "truth"],
        [truth, "-o", tmp_path / "n" / "degraded", "--truth", tmp_path / "n"],
    ):
        result = run("degrade", *arguments)
        assert isinstance(result.exception, OutputError), arguments
    assert not (tmp_path / "n").exists()
    beside = ["-o", tmp_path / "both" / "degraded", "--truth", tmp_path / "both" / "truth"]
    assert status(run("degrade", truth, *beside)) == 0
    assert status(run("degrade", truth, "-o", tmp_path / "first", "--seed", 9, "--overwrite")) == 0


def test_manifests_with_wrong_fields_are_refused(folders, tmp_path):
    truth, _, _ = folders
    assert status(run("degrade", truth, "-o", tmp_path / "first")) == 0
    document = json.loads((tmp_path / "first" / MANIFEST_NAME).read_text())
    for field, value in (("noise", "much"), ("blur_sigma", [1.0]), ("is_gray", 3), ("new", 1)):
        changed = json.loads(json.dumps(document))
        changed["images"]["a"]["degradation"][field] = value
        (tmp_path / "changed.json").write_text(json.dumps(changed))
        with pytest.raises(UsageError, match="no manifest"):
            read_manifest(tmp_path / "changed.json")


def test_manifests_of_sets_made_before_there_was_jitter_are_read(folders, tmp_path):
    truth, _, _ = folders
    assert status(run("degrade", truth, "-o", tmp_path / "first")) == 0
    manifest = tmp_path / "first" / MANIFEST_NAME
    new = read_manifest(manifest)
    document = json.loads(manifest.read_text())
    for image in document["images"].values():
        del image["degradation"]["jitter"], image["degradation"]["jitter_order"]
    manifest.write_text(json.dumps(document))
    assert read_manifest(manifest) == new


def test_the_script_starts_without_heavy_packages_and_ends_with_its_status(tmp_path):
    (tmp_path / "a").mkdir()
    code = (
        "import sys; from gfprestore.evaluation.cli import run, main; "
        "assert not {'torch', 'numpy', 'cv2', 'PIL', 'rich', 'scipy'} & set(sys.modules); run()"
    )
    process = subprocess.run(
        [sys.executable, "-c", code, "degrade", str(tmp_path / "a"), "-o", str(tmp_path / "b")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == ExitCode.USAGE
    assert process.stdout == ""
    assert process.stderr.startswith("gfprestore-eval: error: The folder")
    assert len(process.stderr.splitlines()) == 1
