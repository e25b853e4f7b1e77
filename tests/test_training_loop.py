"""Training runs: resume, micro-batches, ablations, stops, export, and two processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from gfprestore.errors import UsageError
from gfprestore.nn.checkpoint import load_gfpgan
from gfprestore.nn.gfpgan import StyleGan2Decoder
from gfprestore.training.checkpoints import BEST, find_checkpoints, read_checkpoint
from gfprestore.training.config import TrainingConfig
from gfprestore.training.configfile import load_config
from gfprestore.training.dataset import Batch
from gfprestore.training.export import export_checkpoint, without_folders
from gfprestore.training.loop import DivergedError, build_recipe, train
from gfprestore.training.networks import generator_shape
from gfprestore.training.processes import Process
from gfprestore.training.recipe import learning_rate_factor
from gfprestore.weights import read_state_dict

ALONE = Process(0, 1, torch.device("cpu"))

TINY_SHAPE = [
    "generator.size=32",
    "generator.narrow=0.03125",
    "generator.latent_size=8",
    "generator.mlp_layers=1",
    "generator.channel_multiplier=1",
]

TINY = [
    *TINY_SHAPE,
    "losses.perceptual=0",
    "losses.perceptual_style=0",
    "losses.lpips=0",
    "losses.identity=0",
    "losses.identity_cosine=0",
    "discriminator.kind=stylegan2",
    "discriminator.narrow=0.03125",
    "discriminator.group=2",
    "data.workers=0",
    "data.held_out=0",
    "run.device=cpu",
    "run.threads=1",
    "run.precision=fp32",
    "run.batch=4",
    "run.log_every=1",
    "run.images_every=0",
    "run.checkpoint_every=100",
    "validation.every=0",
]


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
    prior = StyleGan2Decoder(generator_shape(load_config("release", TINY_SHAPE).generator))
    save_file(prior.state_dict(), folder.parent / "prior.safetensors")
    generator = np.random.default_rng(0)
    for index in range(6):
        rough = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{index}.png"), cv2.resize(rough, (32, 32)))
    return folder


def changes_of(faces: Path, *changes: str) -> list[str]:
    """What makes a preset small, with the faces and the prior of these tests."""
    sources = f"data.sources={json.dumps([str(faces)])}"
    prior = f"generator.prior={json.dumps(str(faces.parent / 'prior.safetensors'))}"
    return [*TINY, sources, prior, *changes]


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


def test_learning_rate_follows_the_configuration():
    config = replace(load_config("release").optimiser, warm_up=10, milestones=(100, 200), decay_from=0.5)
    factors = [learning_rate_factor(config, step, 400) for step in (0, 9, 50, 100, 199, 300, 399)]
    assert factors == pytest.approx([0.1, 1, 1, 0.5, 0.5, 0.25 * 100 / 200, 0.25 / 200])


def arguments_of(faces: Path, output: Path, *changes: str, preset: str = "release") -> list[str]:
    every = changes_of(faces, *changes)
    return ["run", preset, "-o", str(output), *(part for change in every for part in ("--set", change))]


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
