"""Training of the small detector: photos, losses, loop, storage, judgement, and the weights that ship."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors import safe_open
from torch import nn

from gfprestore.align import FACE_TEMPLATE
from gfprestore.detect import FaceDetector
from gfprestore.detection.network import DetectionNetwork, build_network, load_network
from gfprestore.errors import NoPhotosError, WeightsError
from gfprestore.photo import DetectedFace
from gfprestore.statedict import load_state_dict
from gfprestore.torch_engine import TorchEngine
from gfprestore.training import ageing
from gfprestore.training.composites import CompositeConfig, crop_photo, make_composite, paste_face, split_faces
from gfprestore.training.detector import LARGEST_PHOTO, main, make_held_out, read_photos, to_storage
from gfprestore.training.detector_evaluation import Agreement, compare_detectors, compare_faces, cut_quarters
from gfprestore.training.detector_loop import DetectorConfig, Training, learning_rate, make_batches, new_student
from gfprestore.training.distillation import (
    distillation_losses,
    layer_losses,
    layer_names,
    quality_focal_loss,
    record_inputs,
    relative_error,
    run_network,
)

pytestmark = pytest.mark.usefixtures("one_thread")

SHIPPED = Path(__file__).resolve().parents[2] / "weights" / "detector_compact_fp16.safetensors"


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faces")
    rng = np.random.default_rng(0)
    for number in range(30):
        small = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{number:06d}.jpg"), cv2.resize(small, (64, 64), interpolation=cv2.INTER_CUBIC))
    return folder


def teacher_network(seed: int = 7) -> nn.Module:
    """A network whose features vary and whose scores spread."""
    torch.manual_seed(seed)
    network = build_network("mobile0.25").train()
    with torch.no_grad():
        for _ in range(10):
            network(torch.randn(2, 3, 64, 64) * 60)
        for head in network.ClassHead:
            head.conv1x1.weight.normal_(0, 1.0)
    return network.eval()


# Photos


def test_the_split_is_by_name_and_complete(faces: Path) -> None:
    files = list(faces.glob("*.jpg"))
    trained, held_out = split_faces(files, False), split_faces(files, True)
    assert sorted(trained + held_out) == sorted(files)
    assert 1 <= len(held_out) < len(trained)
    assert split_faces(files[:10], True) == [face for face in held_out if face in files[:10]]


@pytest.mark.parametrize(
    "config",
    [
        CompositeConfig(),
        CompositeConfig(photo_share=1.0, aged_share=1.0),
        CompositeConfig(photo_share=0.0, empty_share=1.0, aged_share=0.0),
        CompositeConfig(photo_share=0.0, group_share=0.94),
        CompositeConfig(photo_share=0.0, group_share=0.0, portrait_share=0.94),
    ],
    ids=["usual", "photos", "empty", "groups", "portraits"],
)
def test_a_seed_is_a_photo(faces: Path, config: CompositeConfig) -> None:
    files = sorted(faces.glob("*.jpg"))
    photos = [np.random.default_rng(0).integers(0, 256, (90, 300, 3), dtype=np.uint8)]
    made = [make_composite(np.random.default_rng(seed), files, photos, 96, config) for seed in (1, 1, 2)]
    assert all(photo.shape == (96, 96, 3) and photo.dtype == np.uint8 for photo in made)
    np.testing.assert_array_equal(made[0], made[1])
    assert (made[0] != made[2]).any()


def test_a_face_is_pasted_where_it_belongs_and_nowhere_else() -> None:
    canvas = np.zeros((200, 300, 3), np.uint8)
    face = np.full((64, 64, 3), 255, np.uint8)
    paste_face(np.random.default_rng(3), canvas, face, (210.0, 80.0), 40.0)
    rows, columns = np.nonzero(canvas[..., 0])
    assert abs(columns.mean() - 210) < 1
    assert abs(rows.mean() - 80) < 1
    assert 20 < np.ptp(columns) < 60
    before = canvas.copy()
    paste_face(np.random.default_rng(3), canvas, face, (-500.0, 80.0), 40.0)
    np.testing.assert_array_equal(canvas, before)


@pytest.mark.parametrize("shape", [(40, 60), (700, 500), (300, 900)])
def test_a_crop_of_a_photo_shows_the_photo(shape: tuple[int, int]) -> None:
    photo = np.full((*shape, 3), 130, np.uint8)
    for seed in range(8):
        crop = crop_photo(np.random.default_rng(seed), photo, 64)
        assert crop.shape == (64, 64, 3)
        assert (np.abs(crop.astype(int) - 130) <= 1).all(axis=2).mean() > 0.05


def test_ageing_keeps_the_frame_and_each_fault_does_something() -> None:
    rng = np.random.default_rng(0)
    photo = cv2.resize(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8), (64, 64)).astype(np.float32)
    for fault in (ageing.blur, ageing.tone, ageing.grain, ageing.scratch):
        changed = [fault(np.random.default_rng(seed), photo.copy()) for seed in range(12)]
        assert all(result.shape == photo.shape and result.dtype == np.float32 for result in changed), fault.__name__
        assert max(np.abs(result - photo).max() for result in changed) > 5, fault.__name__
        assert all(np.isfinite(result).all() for result in changed)
    blurred = ageing.blur(np.random.default_rng(1), photo)
    assert abs(blurred.mean() - photo.mean()) < 2
    compressed = ageing.compress(rng, photo.astype(np.uint8))
    assert 0 < np.abs(compressed.astype(int) - photo.astype(np.uint8)).mean() < 20


# Losses


def test_a_network_runs_as_facexlib_runs_it() -> None:
    network = teacher_network()
    photos = torch.randn(2, 3, 64, 96) * 50
    boxes, logits, landmarks = run_network(network, photos)
    expected = network(photos.flip(1))
    torch.testing.assert_close(boxes, expected[0])
    torch.testing.assert_close(logits.sigmoid(), expected[1][..., 1])
    torch.testing.assert_close(landmarks, expected[2])


def test_layers_cover_every_parameter_once() -> None:
    network = teacher_network()
    covered = [
        f"{name}.{part}"
        for layer in layer_names(network)
        for name in layer
        if name is not None
        for part in network.get_submodule(name).state_dict()
    ]
    assert sorted(covered) == sorted(network.state_dict())


def test_a_network_imitates_itself_layer_by_layer_and_a_stranger_does_not() -> None:
    network, photos = teacher_network(), torch.randn(2, 3, 96, 64) * 50
    assert sorted(record_inputs(network, photos)) == sorted(name for name, _ in layer_names(network))
    same = layer_losses(network, network, photos, torch.Generator().manual_seed(0))
    assert max(loss.item() for loss in same.values()) < 1e-9
    other = layer_losses(teacher_network(8), network, photos, torch.Generator().manual_seed(0))
    assert min(loss.item() for loss in other.values()) > 1e-3


def test_focal_loss_is_its_formula_and_least_at_the_target() -> None:
    logits, targets = torch.tensor([0.3, -2.0, 1.5]), torch.tensor([0.9, 0.1, 0.0])
    p = 1 / (1 + np.exp(-logits.numpy()))
    t = targets.numpy()
    formula = (np.abs(p - t) ** 2 * -(t * np.log(p) + (1 - t) * np.log(1 - p))).sum()
    assert quality_focal_loss(logits, targets).item() == pytest.approx(formula, rel=1e-5)
    assert quality_focal_loss(torch.logit(torch.tensor([0.9, 0.1])), torch.tensor([0.9, 0.1])).item() < 1e-12


def test_relative_error_is_one_without_relation_and_independent_of_scale() -> None:
    torch.manual_seed(0)
    wanted = torch.randn(4, 6, 32, 32) * 3 + 5
    mean = wanted.mean(dim=(0, 2, 3), keepdim=True).expand_as(wanted)
    assert relative_error(mean, wanted).item() == pytest.approx(1.0, rel=1e-2)
    assert relative_error(mean * 10, wanted * 10).item() == pytest.approx(1.0, rel=1e-2)
    assert relative_error(wanted, wanted).item() == 0


def test_distillation_losses_vanish_for_the_teacher_and_lead_to_it() -> None:
    teacher = teacher_network()
    photos = torch.randn(1, 3, 64, 64) * 50
    same = distillation_losses(teacher, teacher, photos, 0.3)
    assert [loss.item() for loss in vars(same).values()] == pytest.approx([0, 0, 0], abs=1e-9)
    other = distillation_losses(teacher_network(8), teacher, photos, 0.3)
    assert min(loss.item() for loss in vars(other).values()) > 1e-3
    # Where the teacher sees no face, boxes and landmarks are nobody's business.
    unsure = distillation_losses(teacher_network(8), teacher, photos, 1.1)
    assert unsure.box.item() == unsure.landmark.item() == 0


# The loop


def test_the_rate_rises_and_falls_twice() -> None:
    config = DetectorConfig(layer_steps=100, whole_steps=200, warm_up=10)
    rates = [learning_rate(step, config) for step in range(config.steps)]
    assert int(np.argmax(rates[:100])) in (9, 10)
    assert max(rates[:100]) == pytest.approx(config.layer_rate, rel=0.03)
    assert max(rates[100:]) == pytest.approx(config.whole_rate, rel=0.03)
    assert rates[99] < 0.02 * config.layer_rate
    assert rates[-1] < 0.02 * config.whole_rate


SMALL = DetectorConfig(layer_steps=4, whole_steps=3, settling_steps=2, warm_up=1, sides=(64,), batch_pixels=2 * 64**2)


def test_a_run_that_is_resumed_equals_one_in_one_go(faces: Path, tmp_path: Path) -> None:
    files = split_faces(list(faces.glob("*.jpg")), False)
    results = []
    for name, stops in (("once", [7]), ("twice", [3, 7])):
        folder = tmp_path / name
        folder.mkdir()
        for stop in stops:
            training = Training(new_student(1), teacher_network(), SMALL, folder)
            batches = make_batches(files, [], SMALL, training.step)
            training.run((batch for batch, _ in zip(batches, range(stop - training.step), strict=False)), save_every=1)
        results.append(training.average.state_dict())
        assert torch.load(folder / "checkpoint.pt", weights_only=True)["step"] == 7
    for one, two in zip(results[0].values(), results[1].values(), strict=True):
        torch.testing.assert_close(one, two)
    last = json.loads((tmp_path / "once" / "log.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 7
    assert {"layers", "score", "box", "landmark"} <= last.keys()


def test_layers_learn_their_teacher(faces: Path, tmp_path: Path) -> None:
    config = DetectorConfig(
        layer_steps=60, whole_steps=1, settling_steps=20, warm_up=5, sides=(64,), batch_pixels=2 * 64**2
    )
    files = split_faces(list(faces.glob("*.jpg")), False)
    training = Training(new_student(1), teacher_network(), config, tmp_path)
    losses = [
        training.take_step(batch)["layers"]
        for batch, _ in zip(make_batches(files, [], config), range(60), strict=False)
    ]
    assert np.mean(losses[-5:]) < 0.25 * np.mean(losses[:5])
    # The normalisations are at rest once they have settled.
    before = training.student.body.stage1[0][1].running_var.clone()
    training.take_step(torch.randn(1, 3, 64, 64) * 50)
    torch.testing.assert_close(training.student.body.stage1[0][1].running_var, before)


# Storage


def test_half_precision_kernels_change_scores_and_places_by_nothing_that_matters() -> None:
    state = teacher_network().state_dict()
    photo = np.random.default_rng(0).integers(0, 256, (1, 96, 128, 3), dtype=np.uint8)
    (exact,) = TorchEngine(DetectionNetwork(load_network(state)), "cpu", "fp32").run(photo)
    (stored,) = TorchEngine(DetectionNetwork(load_network(to_storage(state))), "cpu", "fp32").run(photo)
    assert np.abs(stored[..., 0] - exact[..., 0]).max() < 0.02
    assert np.abs(stored[..., 1:] - exact[..., 1:]).max() < 0.02
    assert {tensor.dtype for name, tensor in to_storage(state).items() if "running" in name} == {torch.float32}


def test_what_half_precision_cannot_hold_is_refused() -> None:
    state = teacher_network().state_dict()
    name = "body.stage1.0.0.weight"
    with pytest.raises(WeightsError, match="half precision"):
        to_storage(state | {name: state[name] * 1e9})


# Judgement


def face_at(x: float, y: float, score: float, shift: float = 0.0) -> DetectedFace:
    landmarks = (FACE_TEMPLATE - FACE_TEMPLATE.mean(axis=0)) * 0.2 + [x + shift, y]
    return DetectedFace(np.array([x - 30, y - 30, x + 30, y + 30]), landmarks, score)


def test_agreement_counts_what_is_found_missed_and_false() -> None:
    eyes = 0.2 * float(np.linalg.norm(FACE_TEMPLATE[1] - FACE_TEMPLATE[0]))
    teacher = [face_at(100, 100, 0.9), face_at(300, 100, 0.95), face_at(500, 100, 0.4)]
    student = [face_at(100, 100, 0.7, shift=0.1 * eyes), face_at(300, 100, 0.5), face_at(500, 100, 0.9)]
    agreement = compare_faces([*student, face_at(700, 100, 0.8)], teacher)
    assert (agreement.wanted, agreement.found, agreement.false) == (2, 1, 1)
    assert agreement.recall == 0.5
    assert agreement.mean_error == agreement.median_error == pytest.approx(0.1)
    both = agreement + compare_faces([], [])
    assert both == agreement
    assert Agreement().recall == 1.0
    assert Agreement().mean_error == Agreement().median_error == 0.0


def test_parts_of_a_photo_cover_it() -> None:
    photo = np.arange(40 * 61 * 3, dtype=np.uint32).astype(np.uint8).reshape(40, 61, 3)
    parts = cut_quarters(photo)
    assert [part.shape for part in parts] == [(30, 45, 3)] * 4
    np.testing.assert_array_equal(parts[0], photo[:30, :45])
    np.testing.assert_array_equal(parts[3], photo[10:, 16:])


def test_photos_are_read_upright_and_bounded(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (2000, 1000)).save(tmp_path / "sub" / "a.jpg", exif=exif)
    Image.new("RGBA", (20, 10)).save(tmp_path / "b.PNG")
    (tmp_path / "notes.txt").write_text("no photo")
    photos = dict(read_photos(tmp_path))
    assert {name: photo.shape for name, photo in photos.items()} == {
        "b.PNG": (10, 20, 3),
        str(Path("sub") / "a.jpg"): (LARGEST_PHOTO, LARGEST_PHOTO // 2, 3),
    }
    assert read_photos(None) == []


def test_train_export_and_evaluate_from_the_command_line(faces: Path, tmp_path: Path) -> None:
    torch.save(teacher_network().state_dict(), tmp_path / "teacher.pth")
    common = ["--faces", str(faces), "--teacher", str(tmp_path / "teacher.pth")]
    run = CliRunner().invoke
    steps = ["--layer-steps", "1", "--whole-steps", "1", "--output", str(tmp_path / "run")]
    assert run(main, ["train", *common, *steps], catch_exceptions=False).exit_code == 0
    stored = tmp_path / "student.safetensors"
    arguments = ["export", "--run", str(tmp_path / "run"), "--output", str(stored)]
    assert run(main, arguments, catch_exceptions=False).exit_code == 0
    with safe_open(stored, framework="pt") as file:
        assert file.metadata()["steps"] == "2"
        assert json.loads(file.metadata()["recipe"])["layer_steps"] == 1
    arguments = ["evaluate", *common, "--student", str(stored), "--count", "1", "--side", "64"]
    result = run(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert json.loads(result.stdout.splitlines()[-1])["photos"] == "held-out composites"
    (tmp_path / "empty").mkdir()
    with pytest.raises(NoPhotosError, match="--faces"):
        run(main, ["train", "--faces", str(tmp_path / "empty"), *common[2:], *steps], catch_exceptions=False)


# The weights that ship


def detector(state: dict[str, torch.Tensor]) -> FaceDetector:
    engine = TorchEngine(DetectionNetwork(load_network(state)), "cpu", "fp32")
    return FaceDetector(engine, threshold=0.3, min_face=16.0, rotations=False)


def test_the_shipped_detector_says_how_it_was_made() -> None:
    with safe_open(SHIPPED, framework="pt") as file:
        facts = file.metadata()
    assert facts["source"].endswith("from random initialisation")
    assert json.loads(facts["recipe"])["layer_steps"] + json.loads(facts["recipe"])["whole_steps"] == int(
        facts["steps"]
    )
    assert SHIPPED.stat().st_size < 2_000_000


@pytest.mark.weights
def test_the_shipped_detector_agrees_with_the_official_one_on_photos(real_weights: Path, real_photos: Path) -> None:
    official = detector(load_state_dict(real_weights / "detection_mobilenet0.25_Final.pth"))
    photos = [photo for _, photo in read_photos(real_photos)]
    agreement = compare_detectors(detector(load_state_dict(SHIPPED)), official, photos)
    assert agreement.wanted >= 40
    assert agreement.recall >= 0.9
    assert agreement.mean_error < 0.04
    assert agreement.false <= 1


def test_held_out_photos_have_seeds_of_their_own(faces: Path) -> None:
    files = split_faces(list(faces.glob("*.jpg")), True)
    first, second = make_held_out(files, 2, 5, 64)
    (again,) = make_held_out(files, 1, 5, 64)
    np.testing.assert_array_equal(first, again)
    assert (first != second).any()
