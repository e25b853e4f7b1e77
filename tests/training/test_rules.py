"""The rules of training that no loss shows: sums of micro-batches, averages, rates, components, ablations, mixing."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_training import SIDE, TINY
from torch import Tensor, nn

from gfprestore.nn.gfpgan import Gfpgan
from gfprestore.nn.shape import GfpganShape, Resampling, Sft
from gfprestore.nn.widths import released_widths
from gfprestore.training import loop, losses
from gfprestore.training.config import OptimiserConfig, TrainingConfig
from gfprestore.training.configfile import load_config
from gfprestore.training.dataset import Batch
from gfprestore.training.processes import Process
from gfprestore.training.recipe import Recipe, average_into, ema_decay, make_adam, set_learning_rates
from gfprestore.training.regions import template_components, write_components

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")


def config_of(*changes: str, preset: str = "release") -> TrainingConfig:
    return load_config(preset, [*TINY, *changes])


def recipe_of(*changes: str, preset: str = "release") -> Recipe:
    return loop.build_recipe(config_of(*changes, preset=preset), CPU)


def random_batch(count: int = 4) -> Batch:
    """Random faces whose components are where the mean face has them, in a face of 32 pixels."""
    random = torch.Generator().manual_seed(5)
    degraded, truth = (torch.rand(count, 3, SIDE, SIDE, generator=random) * 2 - 1 for _ in range(2))
    boxes = torch.tensor([[9.0, 12, 15, 18], [17, 12, 23, 18], [12, 19, 20, 27]]).expand(count, -1, -1)
    return Batch(degraded, truth, boxes, torch.arange(count))


def gradients(recipe: Recipe) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": parameter.grad
        for name, module in recipe.modules.items()
        for key, parameter in module.named_parameters()
        if parameter.grad is not None
    }


def assert_same_gradients(found: dict[str, Tensor], wanted: dict[str, Tensor], count: int) -> None:
    assert found.keys() == wanted.keys()
    largest = {key: float(gradient.abs().max()) for key, gradient in wanted.items()}
    assert sum(value > 0 for value in largest.values()) > count
    for key, gradient in wanted.items():
        torch.testing.assert_close(found[key], gradient, rtol=1e-3, atol=1e-4 * largest[key] + 1e-7, msg=key)


def test_gradients_of_micro_batches_sum_to_those_of_the_batch():
    # Groups of two: the same members meet whether the batch is split or not.
    found = []
    for parts in (1, 2):
        recipe = recipe_of(f"run.accumulate={parts}")
        recipe.train_step(0, random_batch().split(parts))  # with R1
        found.append(gradients(recipe))
    assert {name.split(".")[0] for name in found[0]} == {"generator", "discriminators"}
    assert_same_gradients(found[1], found[0], count=100)


@pytest.mark.parametrize("step", [0, 1], ids=["path lengths and R1", "verdicts"])
def test_gradients_of_the_priors_micro_batches_sum_to_those_of_the_batch(monkeypatch, step):
    # Every micro-batch draws the same codes and noise, so that with the same faces each of them gives the whole.
    draws = np.random.default_rng
    monkeypatch.setattr(np.random, "default_rng", lambda _seed: draws(7))
    found = []
    for parts in (1, 2):
        recipe = recipe_of(f"run.accumulate={parts}", preset="prior")
        recipe.train_step(step, [random_batch()] * parts)
        found.append(gradients(recipe))
    assert {name.split(".")[0] for name in found[0]} == {"generator", "discriminators"}
    assert_same_gradients(found[1], found[0], count=30)


def test_an_average_moves_by_what_the_decay_leaves():
    average, network = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    network.weight.data, network.bias.data = torch.tensor([3.0, -1.0]), torch.tensor([1.0, 2.0])
    network.running_mean.data = torch.tensor([5.0, 6.0])
    average_into(average, network, 0.75)
    torch.testing.assert_close(average.weight.data, torch.tensor([1.5, 0.5]))
    torch.testing.assert_close(average.bias.data, torch.tensor([0.25, 0.5]))
    # Buffers are no trained values: they follow at once.
    torch.testing.assert_close(average.running_mean, network.running_mean)
    torch.testing.assert_close(network.weight.data, torch.tensor([3.0, -1.0]))


def test_half_a_share_is_left_after_the_half_life():
    assert ema_decay(OptimiserConfig(ema_half_life=32)) == 0.5
    assert ema_decay(OptimiserConfig(ema_half_life=10_000)) ** (10_000 / 32) == pytest.approx(0.5)


@pytest.mark.parametrize("preset", ["release", "prior"])
def test_every_step_moves_the_average(preset):
    recipe = recipe_of("optimiser.ema_half_life=16", preset=preset)  # a decay of a quarter
    network, average = recipe.modules["generator"], recipe.modules["generator_ema"]
    wanted = {key: value.clone() for key, value in average.state_dict().items()}
    start = {key: value.clone() for key, value in wanted.items()}
    trained = {key for key, _ in network.named_parameters()}
    for step in (0, 1):
        recipe.train_step(step, [random_batch()])
        for key, value in network.state_dict().items():
            wanted[key] = 0.25 * wanted[key] + 0.75 * value if key in trained else value.clone()
        for key, value in average.state_dict().items():
            torch.testing.assert_close(value, wanted[key], msg=key)
    assert sum(not torch.equal(wanted[key], start[key]) for key in trained) > len(trained) / 2


def rates_of(optimiser: torch.optim.Optimizer) -> dict[int, tuple[float, float, float]]:
    """Learning rate and betas of every parameter, by its id."""
    return {
        id(parameter): (group["lr"], *group["betas"])
        for group in optimiser.param_groups
        for parameter in group["params"]
    }


def assert_lazy(lazy: torch.optim.Optimizer, plain: torch.optim.Optimizer, every: int, count: int) -> None:
    """Asserts that rates and betas are those of regularisation every so many steps (StyleGAN2, appendix B)."""
    ratio = every / (every + 1)
    found, wanted = list(rates_of(lazy).values()), list(rates_of(plain).values())
    assert len(found) == len(wanted) == count
    for (rate, *betas), (plain_rate, *plain_betas) in zip(found, wanted, strict=True):
        assert rate == pytest.approx(plain_rate * ratio)
        assert betas == pytest.approx([beta**ratio for beta in plain_betas])


def test_lazy_regularisation_slows_adam():
    parameters = [nn.Parameter(torch.zeros(2, 3)), nn.Parameter(torch.zeros(3))]
    plain, lazy = (make_adam({1.0: parameters}, 2e-3, (0.5, 0.99), every) for every in (0, 16))
    assert rates_of(plain)[id(parameters[0])] == pytest.approx((2e-3, 0.5, 0.99))
    assert rates_of(lazy)[id(parameters[0])] == pytest.approx((2e-3 * 16 / 17, 0.5 ** (16 / 17), 0.99 ** (16 / 17)))
    assert_lazy(lazy, plain, 16, count=2)
    # A schedule multiplies the slowed rate.
    set_learning_rates([plain, lazy], 0.5)
    assert rates_of(plain)[id(parameters[0])][0] == pytest.approx(1e-3)
    assert_lazy(lazy, plain, 16, count=2)


def test_every_optimiser_knows_how_lazy_it_is():
    betas, seldom, often = "optimiser.betas=[0.5,0.99]", f"prior.path_every={10**9}", "prior.path_every=3"
    plain, lazy = (recipe_of(betas, f"losses.r1={r1}", "losses.r1_every=4") for r1 in (0, 10))
    assert lazy.optimisers.keys() == {"generator", "face", "left_eye", "right_eye", "mouth"}
    judge = lazy.modules["discriminators"].get_submodule("face")
    assert_lazy(lazy.optimisers["face"], plain.optimisers["face"], 4, count=len(list(judge.parameters())))
    for name in lazy.optimisers.keys() - {"face"}:
        assert [*rates_of(lazy.optimisers[name]).values()] == [*rates_of(plain.optimisers[name]).values()]
    plain = recipe_of(betas, seldom, "losses.r1=0", preset="prior")
    lazy = recipe_of(betas, often, "losses.r1=10", "losses.r1_every=4", preset="prior")
    for name, module, every in (("generator", "generator", 3), ("face", "discriminators", 4)):
        count = len(list(lazy.modules[module].parameters()))
        assert_lazy(lazy.optimisers[name], plain.optimisers[name], every, count)


@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_the_mapping_learns_a_hundred_times_slower(factor):
    recipe = recipe_of(preset="prior")
    set_learning_rates(recipe.optimisers.values(), factor)
    rates, decoder = rates_of(recipe.optimisers["generator"]), recipe.modules["generator"]
    for kind in ("weight", "bias"):
        mapping = [p for key, p in decoder.named_parameters() if key.startswith("style_mlp") and key.endswith(kind)]
        # Linear layers of the same fan-in, the latent code's: whatever else a rate depends on, these share it.
        others = [p for key, p in decoder.named_parameters() if key.endswith(f"modulation.{kind}")]
        assert len(mapping) == 2 and len(others) == 11
        ratios = {rates[id(slow)][0] / rates[id(other)][0] for slow in mapping for other in others}
        # Ours hold the factor sqrt(2) of the published leaky ReLU, whose layers take a hundredth of the steps.
        assert sorted(ratios) == pytest.approx([0.01 * 2**0.5] * len(ratios))


class Watcher:
    """A recipe that trains nothing and keeps the batches."""

    def __init__(self) -> None:
        self.modules: dict[str, nn.Module] = {}
        self.optimisers: dict[str, torch.optim.Optimizer] = {}
        self.batches: list[Batch] = []

    def train_step(self, _step: int, batches: list[Batch]) -> dict[str, Tensor]:
        self.batches += batches
        return {}


def test_a_runs_components_are_those_of_its_file(monkeypatch, tmp_path):
    # Flat faces, which tell by their gray which one a sample is of; the last is not in the file.
    components = {}
    for index in range(4):
        cv2.imwrite(str(tmp_path / f"{index}.png"), np.full((SIDE, SIDE, 3), 60 * index, np.uint8))
        eye, mouth = 100.0 + 20 * index, 300.0 - 10 * index
        components[str(index)] = np.array([[eye, 200, 30], [eye + 150, 210, 40], [240, mouth, 50]], np.float32)
    write_components(tmp_path / "c.json", {name: components[name] for name in "012"})
    components["3"] = template_components()
    watcher = Watcher()
    monkeypatch.setattr(loop, "build_recipe", lambda _config, _device: watcher)
    sources = f"data.sources={json.dumps([str(tmp_path)])}"
    config = config_of(sources, f"data.components={tmp_path / 'c.json'}", "data.flip=false", "run.steps=2")
    config = replace(config, degradation=load_config("article").degradation)
    loop.train(config, tmp_path / "run", Process(0, 1, CPU))
    seen = set()
    for batch in watcher.batches:
        for truth, boxes in zip(batch.truth, batch.boxes, strict=True):
            name = str(round((float(truth.mean()) + 1) * 127.5 / 60))
            scale = SIDE / 512
            for box, (x, y, half), enlargement in zip(boxes.tolist(), components[name], (1.4, 1.4, 1), strict=True):
                x, y, half = x * scale + (scale - 1) / 2, y * scale + (scale - 1) / 2, half * scale * enlargement
                assert box == pytest.approx([x - half + 1, y - half + 1, x + half, y + half], abs=1e-3)
            seen.add(name)
    assert seen == {"0", "1", "2", "3"}


TERMS = {"l1", "pyramid", "adversarial", "component", "component_style"}
"""The generator's losses in the whole recipe, without those that look through other networks."""

ABLATIONS = {
    "whole": ([], {}, set()),
    "no CS-SFT": (["generator.sft=none"], {"sft": Sft.NONE}, set()),
    "plain SFT": (["generator.sft=full"], {"sft": Sft.FULL}, set()),
    "no pyramid": (["losses.pyramid=0"], {}, {"pyramid"}),
    "component adversarial alone": (["losses.component_style=0"], {}, {"component_style"}),
    "feature style alone": (["losses.component=0"], {}, {"component"}),
    "no component losses": (
        ["losses.component=0", "losses.component_style=0"],
        {},
        {"component", "component_style"},
    ),
    "feature matching": (
        ["losses.component_style=0", "losses.component_matching=1"],
        {},
        {"component_style", "component_matching"},
    ),
    "neither modulation nor pyramid": (["generator.sft=none", "losses.pyramid=0"], {"sft": Sft.NONE}, {"pyramid"}),
    "one code": (["generator.many_codes=false"], {"many_codes": False}, set()),
    "paper's resampling": (["generator.resampling=fir"], {"resampling": Resampling.FIR}, set()),
    "no adversarial": (["losses.adversarial=0"], {}, {"adversarial"}),
}
"""Table 4 and the choices beside it: changes, what they make of the shape, losses that come or go."""


@pytest.mark.parametrize(("changes", "shape", "terms"), ABLATIONS.values(), ids=ABLATIONS.keys())
def test_an_ablation_changes_the_network_and_the_losses(changes, shape, terms):
    recipe, batch = recipe_of(*changes, "losses.r1=0"), random_batch(2)
    network = recipe.modules["generator"]
    assert isinstance(network, Gfpgan)
    wanted = GfpganShape(
        decoder_widths=released_widths(SIDE, 1, 1 / 32),
        unet_widths=released_widths(SIDE, 1, 1 / 64),
        latent_size=8,
        mlp_layers=2,
    )
    wanted = replace(wanted, **shape)
    assert network.shape == wanted
    reference = Gfpgan(wanted)
    reference.load_state_dict(network.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(network(batch.degraded), reference(batch.degraded))
    values = recipe.train_step(0, [batch])
    judged = {name for name in values if name.startswith(("d_", "real_", "fake_"))}
    assert values.keys() - judged == TERMS ^ terms
    assert all(float(value) > 0 for name, value in values.items() if name not in judged)
    # A discriminator for each verdict or feature that a loss asks for, and no other.
    judges = {"face"} if "adversarial" in values else set()
    if {"component", "component_style", "component_matching"} & values.keys():
        judges |= {"left_eye", "right_eye", "mouth"}
    assert {name for name, _ in recipe.modules["discriminators"].named_children()} == judges


def test_the_transform_reaches_as_many_channels_as_it_is_asked_to():
    reached = {}
    for kind in ("none", "half", "full"):
        network = recipe_of(f"generator.sft={kind}").modules["generator"]
        with torch.no_grad():
            _, spatial = network.remove_degradation(random_batch(1).degraded)
            modulations = network.modulations(spatial)
        widths = network.shape.decoder_widths[1:]
        reached[kind] = [scale.shape[1] / width for (scale, _), width in zip(modulations, widths, strict=False)]
    assert reached == {"none": [], "half": [0.5] * 3, "full": [1.0] * 3}


def test_the_prior_stays_as_it_is_where_it_is_not_trained(tmp_path):
    prior, moved = tmp_path / "prior.safetensors", {}
    state = recipe_of(preset="prior").modules["generator"].state_dict()
    save_file({key: value.contiguous() for key, value in state.items()}, prior)
    for trains in ("true", "false"):
        recipe = recipe_of(f"generator.train_prior={trains}", f"generator.prior={prior}", "losses.r1=0")
        network = recipe.modules["generator"]
        before = {key: value.clone() for key, value in network.state_dict().items()}
        recipe.train_step(0, [random_batch(2)])
        moved[trains] = {key for key, value in network.state_dict().items() if not torch.equal(value, before[key])}
    decoder = {key for key in moved["true"] if key.startswith("stylegan_decoder")}
    assert len(decoder) > 20 and moved["false"] == moved["true"] - decoder


def test_losses_begin_and_end_with_their_steps():
    recipe = recipe_of("losses.adversarial_from=1", "losses.pyramid_steps=1", "losses.r1=0")
    first, second = (recipe.train_step(step, [random_batch(2)]) for step in (0, 1))
    assert float(first["pyramid"]) > 0 and float(second["pyramid"]) == 0
    assert second.keys() - first.keys() == {"adversarial", "component", "component_style"}


@pytest.mark.parametrize("is_random", [True, False])
def test_noise_is_drawn_or_stored(is_random):
    recipe = recipe_of(f"generator.random_noise={str(is_random).lower()}", "losses.r1=0")
    given = []
    recipe.modules["generator"].register_forward_pre_hook(
        lambda _module, _arguments, named: given.append(named.get("noise")), with_kwargs=True
    )
    for step in (0, 1):
        recipe.train_step(step, [random_batch(2)])
    assert [noise is not None for noise in given] == [is_random] * 2
    if is_random:
        assert [tuple(noise.shape) for noise in given[0]] == [(2, 1, s, s) for s in (4, 8, 8, 16, 16, 32, 32)]
        assert not torch.equal(given[0][0][0], given[0][0][1])


def drawn_codes(mixing: float, steps: int) -> list[Tensor]:
    """The latent codes [N K L] that a prior's steps give its decoder."""
    recipe = recipe_of(f"prior.mixing={mixing}", "losses.r1=0", "prior.path_length=0", preset="prior")
    codes: list[Tensor] = []
    recipe.modules["generator"].register_forward_pre_hook(lambda _m, arguments: codes.append(arguments[0].detach()))
    for step in range(steps):
        recipe.train_step(step, [random_batch()])
    return codes


def crossings_of(codes: Tensor) -> list[int]:
    """For every row the layer from which a second code takes over; the number of layers where none does."""
    changes = (codes[:, 1:] != codes[:, :-1]).any(2)  # [N K-1]
    assert changes.sum(1).max() <= 1
    # The rows are different faces.
    assert len({tuple(row.tolist()) for row in codes[:, 0]}) == len(codes)
    return [int(row.nonzero()[0]) + 1 if row.any() else codes.shape[1] for row in changes]


def test_two_codes_are_mixed_as_often_as_is_asked():
    layers = 8
    none, every, some = (
        [crossing for codes in drawn_codes(mixing, 3) for crossing in crossings_of(codes)] for mixing in (0, 1, 0.5)
    )
    assert none == [layers] * 24
    assert len(every) == 24 and max(every) < layers and len(set(every)) > 3
    assert 6 <= sum(crossing < layers for crossing in some) <= 18


def test_path_length_has_the_right_gradient():
    random = torch.Generator().manual_seed(3)
    codes = torch.randn(2, 3, 4, dtype=torch.float64, generator=random, requires_grad=True)
    weight = torch.randn(12, 27, dtype=torch.float64, generator=random, requires_grad=True)
    noise = torch.randn(2, 3, 3, 3, dtype=torch.float64, generator=random)
    mean = torch.tensor(0.3, dtype=torch.float64)

    def penalty(codes: Tensor, weight: Tensor) -> Tensor:
        images = (codes.flatten(1) @ weight).tanh().unflatten(1, (3, 3, 3))
        return losses.path_length_penalty(images, codes, noise, mean)[0]

    assert torch.autograd.gradcheck(penalty, (codes, weight))


def test_path_length_of_a_linear_synthesis_is_its_jacobians():
    random = torch.Generator().manual_seed(4)
    codes = torch.randn(2, 3, 4, dtype=torch.float64, generator=random, requires_grad=True)
    weight = torch.randn(12, 27, dtype=torch.float64, generator=random)
    noise = torch.randn(2, 3, 3, 3, dtype=torch.float64, generator=random)
    images = (codes.flatten(1) @ weight).unflatten(1, (3, 3, 3))
    penalty, mean = losses.path_length_penalty(images, codes, noise, torch.tensor(0.3, dtype=torch.float64))
    # J^T y, its length over each code's values, root mean square over the codes.
    pulled = (noise.flatten(1) / 3 @ weight.T).unflatten(1, (3, 4))
    lengths = pulled.square().sum(2).mean(1).sqrt()
    wanted = 0.99 * 0.3 + 0.01 * lengths.mean()
    torch.testing.assert_close(mean, wanted)
    torch.testing.assert_close(penalty.detach(), (lengths - wanted).square().mean())
