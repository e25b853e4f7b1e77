"""Training runs: resume, micro-batches, ablations, stops, export, and two processes."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_training import SMALL, write_faces

from gfprestore.atomic import _host
from gfprestore.errors import DeviceError, OutputError, UsageError
from gfprestore.nn.checkpoint import load_gfpgan
from gfprestore.nn.gfpgan import StyleGan2Decoder
from gfprestore.training.averages import unsound_entry
from gfprestore.training.checkpoints import BEST, Progress, find_checkpoints, read_checkpoint, save_checkpoint
from gfprestore.training.config import TrainingConfig
from gfprestore.training.configfile import load_config
from gfprestore.training.dataset import Batch, DegradedFaces
from gfprestore.training.degradation_presets import ARTICLE
from gfprestore.training.export import export_checkpoint, without_folders
from gfprestore.training.loop import DivergedError, build_recipe, train
from gfprestore.training.monitor import _forget_after
from gfprestore.training.networks import generator_shape
from gfprestore.training.processes import Process, join_processes
from gfprestore.training.recipe import learning_rate_factor
from gfprestore.training.restoration import Restoration
from gfprestore.training.sources import open_faces
from gfprestore.training.validation import Validator, _load_metrics
from gfprestore.weights import read_state_dict

ALONE = Process(0, 1, torch.device("cpu"))

CHANGES = (
    *SMALL,
    "generator.mlp_layers=1",
    "losses.identity_cosine=0",
    "discriminator.kind=stylegan2",
    "run.checkpoint_every=100",
)


@pytest.fixture(autouse=True)
def threads():
    """Networks this small only wait for each other's threads; what comes after these tests gets all of them back."""
    count = torch.get_num_threads()
    yield
    torch.set_num_threads(count)


@pytest.fixture(scope="module")
def faces(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("training") / "faces"
    folder.mkdir()
    torch.manual_seed(0)
    prior = StyleGan2Decoder(generator_shape(load_config("release", CHANGES).generator))
    save_file(prior.state_dict(), folder.parent / "prior.safetensors")
    write_faces(folder)
    return folder


def changes_of(faces: Path, *changes: str) -> list[str]:
    """What makes a preset small, with the faces and the prior of these tests."""
    sources = f"data.sources={json.dumps([str(faces)])}"
    prior = f"generator.prior={json.dumps(str(faces.parent / 'prior.safetensors'))}"
    return [*CHANGES, sources, prior, *changes]


def config_of(faces: Path, *changes: str, preset: str = "release") -> TrainingConfig:
    return load_config(preset, changes_of(faces, *changes))


def without_prior(config: TrainingConfig) -> TrainingConfig:
    """The configuration with a decoder that starts at random, and learns."""
    generator = replace(config.generator, prior=None, random_prior=True, train_prior=True)
    return replace(config, generator=generator)


def state_of(folder: Path) -> dict:
    return read_checkpoint(find_checkpoints(folder)[-1])


def assert_equal(found, wanted, where=""):
    assert type(found) is type(wanted), where
    if isinstance(found, dict):
        assert found.keys() == wanted.keys(), where
        for key in found:
            assert_equal(found[key], wanted[key], f"{where}/{key}")
    elif isinstance(found, (list, tuple)):
        assert len(found) == len(wanted), where
        for index, pair in enumerate(zip(found, wanted, strict=True)):
            assert_equal(*pair, f"{where}/{index}")
    elif isinstance(found, torch.Tensor):
        assert torch.equal(found, wanted), where
    else:
        assert found == wanted, where


def numbers(folder: Path) -> list[dict]:
    rows = [json.loads(line) for line in (folder / "numbers.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "images_per_second"} for row in rows]


@pytest.mark.parametrize("preset", ["release", "prior"])
def test_a_resumed_run_goes_on_bit_for_bit(faces, tmp_path, preset):
    changes = ["run.steps=4", "losses.r1_every=3", "run.checkpoint_every=2", "prior.path_every=2"]
    config = config_of(faces, *changes, preset=preset)
    train(config, tmp_path / "whole", ALONE)
    train(replace(config, run=replace(config.run, steps=2)), tmp_path / "parts", ALONE)
    with (tmp_path / "parts" / "numbers.jsonl").open("a") as stream:
        # A step after the checkpoint, and one that was cut short: what a killed run leaves.
        stream.write('{"step": 3, "kind": "train"}\n{"step": 4, "ki')
    torch.rand(5)
    train(config, tmp_path / "parts", ALONE)
    whole, parts = state_of(tmp_path / "whole"), state_of(tmp_path / "parts")
    assert whole["progress"]["step"] == 4
    assert_equal(parts, whole)
    assert numbers(tmp_path / "parts") == numbers(tmp_path / "whole")
    assert {"r1", "d_face"} <= numbers(tmp_path / "whole")[0].keys()
    assert (tmp_path / "whole" / "config.toml").is_file()


def test_training_lowers_the_loss_on_a_face_it_sees_often(faces, tmp_path):
    changes = ["losses.adversarial=0", "losses.component=0", "losses.component_style=0", "losses.l1=1"]
    changes += [
        "degradation.preset=article",
        "run.steps=15",
        "optimiser.betas=[0.9,0.99]",
        "generator.train_prior=true",
    ]
    train(config_of(faces, *changes), tmp_path, ALONE)
    rows = numbers(tmp_path)
    assert sum(row["l1"] for row in rows[-5:]) < 0.7 * sum(row["l1"] for row in rows[:5])


def wide_config_of(faces: Path, preset: str) -> TrainingConfig:
    """Wide enough for a rate that is too great to show, and no loss but distances."""
    changes = [
        "generator.size=32",
        "generator.narrow=0.25",
        "generator.latent_size=128",
        "generator.random_noise=false",
    ]
    changes += ["losses.adversarial=0", "losses.component=0", "losses.component_style=0", "losses.l1=1"]
    changes += ["discriminator.narrow=0.25", "run.steps=10", "run.batch=2"]
    return without_prior(config_of(faces, *changes, preset=preset))


@pytest.mark.parametrize("preset", ["article", "release", "compact"])
def test_the_presets_learn_at_their_own_rates(faces, tmp_path, preset):
    train(wide_config_of(faces, preset), tmp_path, ALONE)
    distances = [row["l1"] for row in numbers(tmp_path)]
    assert max(distances) < 3 * distances[0]
    assert sum(distances[-3:]) < 0.9 * sum(distances[:3])


def test_the_prior_preset_moves_all_weights_in_small_steps(faces, tmp_path):
    changes = ["generator.narrow=0.25", "generator.latent_size=128", "discriminator.narrow=0.25", "run.steps=4"]
    config = without_prior(config_of(faces, *changes, "run.batch=2", "prior.path_length=0", preset="prior"))
    before = build_recipe(config, ALONE.device).modules["generator"].state_dict()
    train(config, tmp_path, ALONE)
    after = state_of(tmp_path)["modules"]["generator"]
    for key, start in before.items():
        if key.endswith(("modulated_conv.weight", "modulation.weight")):
            # Four steps of 2e-3, each up to twice as long as Adam's usual one; with one rate for all it is 0.1.
            assert 1e-3 < (after[key] - start).norm() / start.norm() < 0.016, key


TOLERANCES = {"path_penalty": 2e-2}
"""Path lengths are compared with a running mean that a hundredth of the own part of the batch has moved already."""


@pytest.mark.parametrize("preset", ["release", "prior"])
def test_micro_batches_sum_to_the_batch(faces, tmp_path, preset):
    # Groups of two: the same members meet whether the batch is split or not.
    states = []
    for accumulate in (1, 2):
        changes = ["run.steps=1", f"run.accumulate={accumulate}", "generator.train_prior=true"]
        config = config_of(faces, *changes, preset=preset)
        train(config, tmp_path / str(accumulate), ALONE)
        states.append(numbers(tmp_path / str(accumulate))[0])
    assert states[0].pop("kind") == states[1].pop("kind") == "train"
    for key, value in states[0].items():
        assert states[1][key] == pytest.approx(value, rel=TOLERANCES.get(key, 1e-4), abs=1e-5), key


ABLATIONS = {
    "no CS-SFT": ["generator.sft=none"],
    "plain SFT": ["generator.sft=full"],
    "prior that learns": ["generator.train_prior=true"],
    "no pyramid": ["losses.pyramid=0"],
    "component adversarial alone": ["losses.component_style=0"],
    "feature matching": ["losses.component_style=0", "losses.component_matching=1"],
    "feature style without discriminators' verdicts": ["losses.component=0"],
    "neither modulation nor pyramid": ["generator.sft=none", "losses.pyramid=0"],
    "patches judged, in bf16": ["discriminator.kind=patch", "discriminator.patch_width=4", "run.precision=bf16"],
    "adversarial losses later": ["losses.adversarial_from=1"],
    "one code": ["generator.many_codes=false"],
    "paper's resampling, stored noise": ["generator.resampling=fir", "generator.random_noise=false"],
}


@pytest.mark.parametrize("changes", ABLATIONS.values(), ids=ABLATIONS.keys())
def test_ablations_are_configurations(faces, tmp_path, changes):
    train(config_of(faces, "run.steps=1", "run.batch=2", *changes), tmp_path, ALONE)
    row = numbers(tmp_path)[0]
    assert ("pyramid" in row) == ("losses.pyramid=0" not in changes)
    assert ("component_matching" in row) == ("losses.component_matching=1" in changes)


def test_no_prior_is_an_ablation_that_is_asked_for(faces, tmp_path):
    train(without_prior(config_of(faces, "run.steps=1", "run.batch=2")), tmp_path, ALONE)
    assert numbers(tmp_path)[0]["step"] == 1


def test_validation_keeps_the_best_checkpoint(faces, tmp_path):
    changes = ["data.held_out=2", "validation.every=1", 'validation.metrics=["psnr","ssim"]', "validation.best=psnr"]
    progress = train(config_of(faces, "run.steps=3", "run.images_every=2", *changes), tmp_path, ALONE)
    best = max(progress.history, key=lambda row: row["psnr"])
    assert len(progress.history) == 3 and progress.best == best["psnr"]
    assert read_checkpoint(tmp_path / BEST)["progress"]["step"] == best["step"]
    assert list((tmp_path / "tensorboard").iterdir())


def test_old_checkpoints_go(faces, tmp_path):
    train(config_of(faces, "run.steps=4", "run.checkpoint_every=1", "run.keep=2", "run.batch=2"), tmp_path, ALONE)
    assert [path.name for path in find_checkpoints(tmp_path)] == ["step-00000003.pt", "step-00000004.pt"]


def test_weights_of_the_papers_network_are_exported_and_trained_on(faces, tmp_path):
    config = config_of(faces, "run.steps=1", "run.batch=2", preset="article")
    train(config, tmp_path / "first", ALONE)
    checkpoint, file = find_checkpoints(tmp_path / "first")[0], tmp_path / "w.safetensors"
    export_checkpoint(checkpoint, file, precision="fp32", overwrite=False)
    exported = load_gfpgan(read_state_dict(file))
    assert exported.shape == generator_shape(config.generator)
    recipe = build_recipe(config, ALONE.device)
    recipe.modules["generator_ema"].load_state_dict(read_checkpoint(checkpoint)["modules"]["generator_ema"])
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(exported(image), recipe.modules["generator_ema"](image))
    train(config_of(faces, "run.steps=1", f"generator.weights={file}", preset="article"), tmp_path / "second", ALONE)


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_exported_weights_are_the_average_and_load(faces, tmp_path, precision):
    train(config_of(faces, "run.steps=1", "run.batch=2"), tmp_path, ALONE)
    checkpoint = find_checkpoints(tmp_path)[0]
    card = export_checkpoint(checkpoint, tmp_path / "w.safetensors", precision=precision, overwrite=False)
    network = load_gfpgan(read_state_dict(tmp_path / "w.safetensors"))
    wanted = read_checkpoint(checkpoint)["modules"]["generator_ema"]
    for key, tensor in network.state_dict().items():
        kind = torch.float16 if precision == "fp16" else torch.float32
        assert torch.equal(tensor, wanted[key].to(kind).float()), key
    text = card.read_text()
    assert "seed 0" in text and "[losses]" in text and "1 steps of 2 faces" in text
    # Where the trainer keeps files is no one else's affair.
    assert str(faces) in (tmp_path / "config.toml").read_text()
    assert f'sources = ["{faces.name}"]' in text
    for told in (text.encode(), (tmp_path / "w.safetensors").read_bytes()):
        assert str(faces.parent).encode() not in told


def test_places_are_left_out_of_a_configuration_and_nothing_else_is():
    config = load_config(
        "release", ['data.sources=["/a/b", "c"]', 'losses.vgg19="C:\\\\me\\\\vgg.pth"', "run.device='cuda:1'"]
    )
    published = without_folders(config)
    assert published.data.sources == ("b", "c")
    assert published.losses.vgg19 == "vgg.pth"
    assert published.run == config.run


def test_what_cannot_go_on_is_told(faces, tmp_path):
    with pytest.raises(UsageError, match=r"run\.batch"):
        train(config_of(faces, "run.accumulate=3"), tmp_path, ALONE)
    with pytest.raises(UsageError, match="held_out"):
        train(config_of(faces, "validation.every=1"), tmp_path, ALONE)
    train(config_of(faces, "run.steps=1", "run.batch=2"), tmp_path, ALONE)
    with pytest.raises(UsageError, match="--output"):
        train(without_prior(config_of(faces, "run.steps=2", "generator.latent_size=9")), tmp_path, ALONE)
    with pytest.raises(UsageError, match="--output"):
        train(config_of(faces, "run.steps=2", "losses.component=0", "losses.component_style=0"), tmp_path, ALONE)
    (tmp_path / "bad.pt").write_bytes(b"PK")
    with pytest.raises(UsageError, match="CHECKPOINT"):
        read_checkpoint(tmp_path / "bad.pt")


@pytest.mark.parametrize(("change", "key"), [("generator.weights=w.pth", "weights"), ("run.compile=true", "compile")])
def test_what_the_prior_recipe_cannot_do_is_refused(faces, tmp_path, change, key):
    with pytest.raises(UsageError, match=key):
        train(config_of(faces, "run.steps=1", change, preset="prior"), tmp_path, ALONE)


def test_a_prior_is_not_measured_against_faces_that_it_never_saw(faces, tmp_path, caplog):
    caplog.set_level("INFO")
    config = config_of(faces, "run.steps=1", "data.held_out=2", "validation.every=1", preset="prior")
    assert not train(config, tmp_path, ALONE).history
    assert "validation.every is passed over" in caplog.text
    content = state_of(tmp_path)
    content["progress"]["history"] = [{"step": 1, "psnr": 9.0}]
    torch.save(content, tmp_path / "old.pt")
    card = export_checkpoint(tmp_path / "old.pt", tmp_path / "w.safetensors", precision="fp16", overwrite=False)
    assert "psnr |" not in card.read_text()


@pytest.mark.parametrize("preset", ["compact", "prior"])
def test_gradients_are_clipped(faces, tmp_path, preset):
    changes = ["run.steps=1", "run.batch=2", "optimiser.clip_norm=1e-4", "prior.path_length=0"]
    config = without_prior(config_of(faces, *changes, preset=preset))
    recipe = build_recipe(config, ALONE.device)
    generator = recipe.modules["generator"]
    lengths = []
    recipe.optimisers["generator"].register_step_pre_hook(
        lambda *_: lengths.append(torch.stack([p.grad.norm() for p in generator.parameters() if p.grad is not None]))
    )
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    boxes = torch.tensor([[4.0, 4.0, 12.0, 12.0]]).expand(2, 3, 4)
    values = recipe.train_step(0, [Batch(images, -images, boxes, torch.arange(2))])
    assert values["gradient"] > 1e-3
    assert torch.stack(lengths).norm() < 1.001e-4


def test_a_diverged_run_ends_with_advice(faces, tmp_path):
    with pytest.raises(DivergedError, match="learning_rate"):
        train(config_of(faces, "run.steps=9", "optimiser.learning_rate=1e30"), tmp_path, ALONE)


LIGHT = ["run.batch=2", "losses.component=0", "losses.component_style=0"]
"""Without the components' discriminators, which take most of a step's time."""


def test_a_diverged_run_keeps_its_good_checkpoint(faces, tmp_path, monkeypatch):
    """The losses of a line come too late: the weights are looked at before they replace good ones."""
    changes = [*LIGHT, "losses.adversarial=0", "run.log_every=100", "run.checkpoint_every=1", "run.keep=1"]
    step_of_numbers = Restoration.train_step

    def diverge(self, step, batches):
        values = step_of_numbers(self, step, batches)
        if step == 2:
            with torch.no_grad():
                next(self.modules["generator"].parameters()).fill_(math.nan)
        return values

    monkeypatch.setattr(Restoration, "train_step", diverge)
    with pytest.raises(DivergedError, match=r"before step 3: generator\..*learning_rate"):
        train(config_of(faces, *changes, "run.steps=9"), tmp_path, ALONE)
    assert [path.name for path in find_checkpoints(tmp_path)] == ["step-00000002.pt"]


def test_losses_between_two_lines_are_looked_at_before_a_checkpoint(faces, tmp_path, monkeypatch):
    steps = []

    def diverge(self, step, batches):
        steps.append(step)
        return {"l1": torch.tensor(math.inf if step == 1 else 0.5)}

    monkeypatch.setattr(Restoration, "train_step", diverge)
    changes = [*LIGHT, "run.log_every=100", "run.checkpoint_every=3", "run.steps=9"]
    with pytest.raises(DivergedError, match="before step 3: l1"):
        train(config_of(faces, *changes), tmp_path, ALONE)
    assert steps == [0, 1, 2] and not find_checkpoints(tmp_path)


def test_weights_that_are_no_numbers_are_named(faces):
    recipe = build_recipe(config_of(faces, *LIGHT), torch.device("cpu"))
    assert unsound_entry(recipe) is None
    with torch.no_grad():
        next(iter(recipe.modules["discriminators"].parameters())).view(-1)[0] = math.inf
    assert unsound_entry(recipe).startswith("discriminators.")


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_weights_that_are_no_numbers_are_not_exported(faces, tmp_path, precision):
    config = config_of(faces, preset="prior")
    recipe = build_recipe(config, torch.device("cpu"))
    with torch.no_grad():
        next(iter(recipe.modules["generator_ema"].parameters())).view(-1)[0] = math.nan
    save_checkpoint(tmp_path / "bad.pt", recipe, Progress(), config)
    with pytest.raises(UsageError, match="CHECKPOINT"):
        export_checkpoint(tmp_path / "bad.pt", tmp_path / "w.safetensors", precision=precision, overwrite=False)
    assert not list(tmp_path.glob("w.*"))


@pytest.mark.parametrize("preset", ["prior", "article"])
def test_weights_that_draw_no_numbers_are_not_exported(faces, tmp_path, preset):
    config = config_of(faces, preset=preset)
    recipe = build_recipe(config, torch.device("cpu"))
    state = recipe.modules["generator_ema"].state_dict()
    state[next(key for key in state if key.endswith("style_conv1.modulated_conv.weight"))].fill_(1e38)
    save_checkpoint(tmp_path / "bad.pt", recipe, Progress(), config)
    with pytest.raises(UsageError, match="these weights draw no picture; name an earlier CHECKPOINT"):
        export_checkpoint(tmp_path / "bad.pt", tmp_path / "w.safetensors", precision="fp32", overwrite=False)
    assert not list(tmp_path.glob("w.*"))


def test_numbers_are_means_over_the_steps_since_the_last_line(faces, tmp_path):
    changes = [*LIGHT, "run.steps=6", "losses.r1_every=4"]
    for every in (1, 3):
        train(config_of(faces, *changes, f"run.log_every={every}"), tmp_path / str(every), ALONE)
    single, means = numbers(tmp_path / "1"), numbers(tmp_path / "3")
    assert [row["step"] for row in means] == [3, 6]
    for index, row in enumerate(means):
        steps = single[3 * index : 3 * index + 3]
        # R1 came in one of them, at steps 0 and 4.
        assert "r1" in row and sum("r1" in step for step in steps) == 1
        for name in row.keys() - {"step", "kind"}:
            wanted = np.mean([step[name] for step in steps if name in step])
            assert row[name] == pytest.approx(wanted, rel=1e-4, abs=1e-6), name


def test_a_checkpoint_comes_before_its_validation(faces, tmp_path, monkeypatch):
    changes = [*LIGHT, "data.held_out=2", "validation.every=2", "run.checkpoint_every=2", "run.steps=2"]

    def fail(*_):
        raise RuntimeError("no memory")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="no memory"):
        patch.setattr(Validator, "measure", fail)
        train(config_of(faces, *changes), tmp_path / "failed", ALONE)
    failed = state_of(tmp_path / "failed")["progress"]
    assert (failed["step"], failed["best"], failed["history"]) == (2, None, [])
    progress = train(config_of(faces, *changes), tmp_path / "measured", ALONE)
    kept = state_of(tmp_path / "measured")["progress"]
    assert kept["best"] == progress.best is not None and len(kept["history"]) == 1


def test_sampling_takes_no_more_memory_than_a_step(faces, tmp_path, monkeypatch):
    counts = []
    sample = Restoration.sample

    def counted(self, batch):
        counts.append(len(batch))
        return sample(self, batch)

    monkeypatch.setattr(Restoration, "sample", counted)
    changes = ["run.steps=1", "run.batch=6", "run.accumulate=3", "run.images_every=1"]
    changes += ["data.held_out=3", "validation.every=1"]
    train(config_of(faces, *LIGHT, *changes), tmp_path, ALONE)
    assert counts == [4, 2, 1]


def test_a_full_memory_names_what_helps(faces, tmp_path, monkeypatch):
    def fail(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(Restoration, "train_step", fail)
    with pytest.raises(DeviceError, match=r"run\.accumulate.*run\.batch"):
        train(config_of(faces, *LIGHT), tmp_path, ALONE)


def test_another_metric_starts_with_another_best(faces, tmp_path):
    """SSIM never reaches a PSNR: the best checkpoint would not move again."""
    changes = [*LIGHT, "data.held_out=2", "validation.every=1"]
    first = [*changes, "run.steps=1", 'validation.metrics=["psnr"]']
    train(config_of(faces, *first), tmp_path, ALONE)
    then = ['validation.metrics=["ssim"]', "validation.best=ssim"]
    progress = train(config_of(faces, *changes, "run.steps=2", *then), tmp_path, ALONE)
    assert progress.best == progress.history[-1]["ssim"] < 1
    best = read_checkpoint(tmp_path / BEST)
    assert best["progress"]["step"] == 2
    text = export_checkpoint(tmp_path / BEST, tmp_path / "w.safetensors", precision="fp16", overwrite=False).read_text()
    assert "| step | psnr | ssim |" in text and "|  | " in text
    again = train(config_of(faces, *changes, "run.steps=3", *then), tmp_path, ALONE)
    assert again.best == max(row["ssim"] for row in again.history if "ssim" in row)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (["data.held_out=2"], "2 faces never trained on; degraded"),
        (["validation.sources={sources}", "validation.count=3"], "3 faces, 3 of them trained on as well; degraded"),
    ],
)
def test_the_card_tells_which_faces_were_measured(faces, tmp_path, changes, told):
    changes = [change.format(sources=json.dumps([str(faces / "..") + f"/{faces.name}"])) for change in changes]
    train(config_of(faces, *LIGHT, "run.steps=1", "validation.every=1", *changes), tmp_path, ALONE)
    checkpoint = find_checkpoints(tmp_path)[0]
    card = export_checkpoint(checkpoint, tmp_path / "w.safetensors", precision="fp16", overwrite=False)
    assert told in card.read_text()
    content = read_checkpoint(checkpoint)
    for row in content["progress"]["history"]:
        del row["faces"], row["seen"], row["measured"]
    torch.save(content, tmp_path / "old.pt")
    card = export_checkpoint(tmp_path / "old.pt", tmp_path / "w.safetensors", precision="fp16", overwrite=True)
    assert "At most" in card.read_text() and "never trained on" not in card.read_text()


def test_other_faces_are_measured_against_a_best_of_their_own(faces, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for index in range(2):
        # Flat faces, which are restored better than any of the others.
        cv2.imwrite(str(other / f"{index}.png"), np.full((32, 32, 3), 128, np.uint8))
    changes = [*LIGHT, "validation.every=1", "run.checkpoint_every=1"]
    elsewhere = f"validation.sources={json.dumps([str(other)])}"
    first = train(config_of(faces, *changes, "run.steps=1", elsewhere), tmp_path / "run", ALONE)
    then = train(config_of(faces, *changes, "run.steps=2", "data.held_out=2"), tmp_path / "run", ALONE)
    assert then.best == then.history[-1]["psnr"] < first.best
    assert read_checkpoint(tmp_path / "run" / BEST)["progress"]["step"] == 2
    moved = shutil.copytree(other, tmp_path / "moved")
    elsewhere = f"validation.sources={json.dumps([str(moved)])}"
    third = train(config_of(faces, *changes, "run.steps=3", elsewhere), tmp_path / "run", ALONE)
    assert third.history[-1]["measured"] == first.history[0]["measured"] != third.history[1]["measured"]


def test_faces_of_a_run_that_trained_on_others_are_not_called_unseen(faces, tmp_path):
    changes = [*LIGHT, "run.checkpoint_every=1"]
    train(config_of(faces, *changes, "run.steps=1"), tmp_path, ALONE)
    changes += ["data.held_out=2", "validation.every=1"]
    for steps in (2, 3):
        # What an earlier part of the run saw stays unknown in all later ones.
        progress = train(config_of(faces, *changes, f"run.steps={steps}"), tmp_path, ALONE)
        assert progress.is_mixed and progress.history[-1]["seen"] is None
    checkpoint, file = find_checkpoints(tmp_path)[-1], tmp_path / "w.safetensors"
    text = export_checkpoint(checkpoint, file, precision="fp16", overwrite=False).read_text()
    assert "is not known" in text and "never trained on" not in text


def test_a_damaged_checkpoint_says_what_its_deletion_leads_to(faces, tmp_path):
    changes = [*LIGHT, "run.checkpoint_every=1"]
    train(config_of(faces, *changes, "run.steps=2"), tmp_path, ALONE)
    for advice in ("delete it to go on from step 1", "delete it to start anew"):
        last = find_checkpoints(tmp_path)[-1]
        last.write_bytes(last.read_bytes()[:2000])
        with pytest.raises(UsageError, match=f"{last.name} is no readable checkpoint: {advice}"):
            train(config_of(faces, *changes, "run.steps=3"), tmp_path, ALONE)
        last.unlink()
    with pytest.raises(UsageError, match=r"There is no checkpoint .*none\.pt"):
        export_checkpoint(tmp_path / "none.pt", tmp_path / "w.safetensors", precision="fp16", overwrite=False)


def test_other_groups_of_the_optimiser_are_told_by_the_keys_that_make_them(faces, tmp_path):
    train(config_of(faces, *LIGHT, "run.steps=1"), tmp_path, ALONE)
    with pytest.raises(UsageError, match=r"optimiser\.equalised"):
        train(config_of(faces, *LIGHT, "run.steps=2", "optimiser.equalised=false"), tmp_path, ALONE)


@pytest.mark.parametrize("there", ["w.md", "w.safetensors"])
def test_an_export_replaces_nothing_unasked(faces, tmp_path, there):
    config = config_of(faces, *LIGHT)
    save_checkpoint(tmp_path / "c.pt", build_recipe(config, ALONE.device), Progress(), config)
    (tmp_path / there).write_text("mine")
    with pytest.raises(UsageError, match="--overwrite"):
        export_checkpoint(tmp_path / "c.pt", tmp_path / "w.safetensors", precision="fp16", overwrite=False)
    assert (tmp_path / there).read_text() == "mine" and len(list(tmp_path.glob("w.*"))) == 1
    export_checkpoint(tmp_path / "c.pt", tmp_path / "w.safetensors", precision="fp16", overwrite=True)
    assert (tmp_path / there).read_bytes() != b"mine"


def test_metrics_run_where_the_networks_do(monkeypatch):
    places = []

    class Network(torch.nn.Module):
        def to(self, device):
            places.append(device)
            return self

    monkeypatch.setattr("gfprestore.training.networks.load_identity", lambda _: Network())
    monkeypatch.setattr("gfprestore.evaluation.lpips_metric.load_lpips", lambda *_: Network())
    monkeypatch.setattr("gfprestore.weights.read_state_dict", lambda _: {})
    changes = ['validation.metrics=["lpips-alex","identity"]', "losses.lpips_alexnet=a", "losses.identity_weights=b"]
    changes.append("validation.best=identity")
    _load_metrics(load_config("release", changes), torch.device("meta"))
    assert places == [torch.device("meta")] * 2


def test_a_value_that_is_no_number_is_never_the_best():
    assert Validator.is_better(1.0, math.nan, "psnr")
    assert Validator.is_better(1.0, None, "psnr") and not Validator.is_better(math.nan, None, "psnr")
    assert not Validator.is_better(math.nan, 1.0, "lpips-alex") and Validator.is_better(0.5, 1.0, "lpips-alex")


def test_a_process_ends_with_the_one_that_could_not_read(faces, tmp_path, monkeypatch):
    """It would wait for the other's gradients for hours."""
    monkeypatch.setattr("gfprestore.training.loop.any_process", lambda wants, device: True)
    with pytest.raises(UsageError, match="Another process"):
        train(config_of(faces, *LIGHT), tmp_path, ALONE)
    assert not find_checkpoints(tmp_path)


def test_no_process_ends_while_the_first_one_writes(faces, tmp_path, monkeypatch):
    """torchrun stops all processes when one has ended."""
    kept = []
    monkeypatch.setattr(
        "gfprestore.training.loop.wait_for_all",
        lambda device: kept.append([path.name for path in find_checkpoints(tmp_path)]),
    )
    changes = ["run.steps=3", "run.checkpoint_every=2"]
    train(config_of(faces, *LIGHT, *changes), tmp_path, ALONE)
    assert kept == [["step-00000002.pt"], ["step-00000002.pt", "step-00000003.pt"]]


def test_processes_wait_for_the_first_ones_validation(monkeypatch):
    asked = {}
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda kind, **options: asked.update(options))
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: None)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    with join_processes("cpu") as process:
        assert process.rank == 1 and asked["timeout"] >= timedelta(hours=1)


@pytest.mark.parametrize(("device", "is_overlapped"), [("mps", False), ("cpu", False), ("cuda", True)])
def test_only_cuda_copies_while_the_memory_may_be_freed(device, is_overlapped):
    images = Mock()
    Batch(images, images, images, torch.arange(2)).to(torch.device(device), torch.channels_last)
    assert [call.kwargs["non_blocking"] for call in images.to.call_args_list] == [is_overlapped] * 3


def test_an_output_that_is_a_file_is_refused(faces, tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(OutputError, match="--output"):
        train(config_of(faces, *LIGHT), tmp_path / "run", ALONE)
    assert (tmp_path / "run").read_text() == "mine"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="limits a process's files, as POSIX can")
def test_a_full_disk_is_told_and_leaves_nothing(faces, tmp_path):
    import resource

    config = config_of(faces, *LIGHT)
    recipe = build_recipe(config, ALONE.device)
    child = os.fork()
    if not child:
        # A limit on a file's size stands for the full disk: its write fails half way, too.
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        status = 1
        try:
            save_checkpoint(tmp_path / "run" / "c.pt", recipe, Progress(), config)
        except OutputError as error:
            status = 0 if "c.pt cannot be written (File too large)" in str(error) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not list((tmp_path / "run").iterdir())


def test_a_run_tidies_up_after_one_that_was_killed(faces, tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    leftover = tmp_path / f".gfprestore-{_host()}-{gone.pid}-abc123.part"
    leftover.write_bytes(b"half a checkpoint")
    (tmp_path / "numbers.jsonl").write_text('{"kind": "train"}\n\0\0\0\n3\n')
    train(config_of(faces, *LIGHT, "run.steps=1"), tmp_path, ALONE)
    assert not leftover.exists() and [row["step"] for row in numbers(tmp_path)] == [1]


def test_a_resumed_run_replaces_what_tensorboard_shows(faces, tmp_path, monkeypatch):
    tensorboard = pytest.importorskip("torch.utils.tensorboard")
    purged = []
    writer = tensorboard.SummaryWriter

    def watched(folder, purge_step):
        purged.append(purge_step)
        return writer(folder, purge_step=purge_step)

    monkeypatch.setattr(tensorboard, "SummaryWriter", watched)
    for steps in (2, 3):
        train(config_of(faces, *LIGHT, f"run.steps={steps}"), tmp_path, ALONE)
    assert purged == [1, 3]


def test_files_of_a_run_are_replaced_whole(tmp_path, monkeypatch):
    """A program killed while it writes leaves the old file: nothing truncates what is there."""
    path = tmp_path / "numbers.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n')

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("gfprestore.atomic.os.fsync", killed)
        _forget_after(path, 1)
    assert path.read_text().count("step") == 2
    _forget_after(path, 1)
    assert path.read_text() == '{"step": 1}\n'


def test_learning_rate_follows_the_configuration():
    config = replace(load_config("release").optimiser, warm_up=10, milestones=(100, 200), decay_from=0.5)
    factors = [learning_rate_factor(config, step, 400) for step in (0, 9, 50, 100, 199, 300, 399)]
    assert factors == pytest.approx([0.1, 1, 1, 0.5, 0.5, 0.25 * 100 / 200, 0.25 / 200])


def arguments_of(faces: Path, output: Path, *changes: str, preset: str = "release") -> list[str]:
    every = changes_of(faces, *changes)
    return ["run", preset, "-o", str(output), *(part for change in every for part in ("--set", change))]


def test_an_unreadable_face_ends_the_program_with_a_checkpoint(faces, tmp_path):
    folder, output = tmp_path / "faces", tmp_path / "run"
    folder.mkdir()
    shutil.copy(faces.parent / "prior.safetensors", tmp_path)
    for index in range(4):
        cv2.imwrite(str(folder / f"{index}.png"), np.full((32, 32, 3), 50 * index, np.uint8))
    # The last of the first round, so that a step comes before it.
    order = [DegradedFaces(open_faces([str(folder)])[0], ARTICLE, size=32, seed=0)._face_of(n) for n in range(4)]
    bad = folder / f"{order[-1]}.png"
    bad.write_bytes(b"no image")
    changes = ["run.steps=9", "run.batch=1", "data.workers=1", "losses.component=0", "losses.component_style=0"]
    line = [sys.executable, "-W", "ignore", "-m", "gfprestore.training.cli", *arguments_of(folder, output, *changes)]
    # The limit is far beyond what the run takes: it tells an end from none.
    done = subprocess.run(line, capture_output=True, text=True, timeout=240)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"{bad} is no readable image" in done.stderr
    assert [path.name for path in find_checkpoints(output)] == ["step-00000003.pt"]


@pytest.mark.slow
@pytest.mark.parametrize("reaches_workers", [False, True])
def test_sigterm_writes_a_checkpoint_that_goes_on(faces, tmp_path, reaches_workers):
    changes = ["run.steps=100000", "run.batch=2", "data.workers=1"]
    line = [sys.executable, "-m", "gfprestore.training.cli", *arguments_of(faces, tmp_path, *changes)]
    process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not (tmp_path / "numbers.jsonl").exists() or not numbers(tmp_path):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    if reaches_workers:
        os.killpg(process.pid, signal.SIGTERM)
    else:
        process.send_signal(signal.SIGTERM)
    _, told = process.communicate()
    assert process.returncode == 143 and "Traceback" not in told
    (checkpoint,) = find_checkpoints(tmp_path)
    step = read_checkpoint(checkpoint)["progress"]["step"]
    assert step == len(numbers(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["release", "prior"])
def test_two_processes_train_as_one_with_their_batch(faces, tmp_path, preset):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    changes = ["run.steps=4", "losses.r1_every=2", "run.accumulate=1", "prior.path_every=2"]
    torchrun = ["torch.distributed.run", "--nproc-per-node=2", f"--master-port={port}", "-m"]
    for name, launcher in (("one", []), ("two", torchrun)):
        arguments = arguments_of(faces, tmp_path / name, *changes, preset=preset)
        line = [sys.executable, "-m", *launcher, "gfprestore.training.cli", *arguments]
        subprocess.run(line, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True)
    one, two = numbers(tmp_path / "one"), numbers(tmp_path / "two")
    assert len(one) == len(two) == 4
    for alone, shared in zip(one, two, strict=True):
        assert alone.pop("kind") == shared.pop("kind") == "train"
        for key, value in alone.items():
            assert shared[key] == pytest.approx(value, rel=TOLERANCES.get(key, 2e-3), abs=1e-4), key
    if preset == "prior":
        means = [state_of(tmp_path / name)["modules"]["path_mean"]["value"].item() for name in ("one", "two")]
        assert means[1] == pytest.approx(means[0], rel=2e-3)
