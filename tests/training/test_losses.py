"""Losses against the official implementation's values, closed forms, and finite differences.

`golden/training_official.npz` holds what the official code gave on the tensors beside: TencentARC/GFPGAN at
7552a7791caad982045a7bbe5634bbf1cd5c8679 (pyramid, regions, Gram, component boxes) and XPixelGroup/BasicSR at
8d56e3a045f9fb3e1d8872f92ee4a4f07f886b0a (losses, StyleGAN2's discriminator, path lengths), run on the CPU
with their fused activation kernel written out as its formula.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from gfprestore.training import losses, regions
from gfprestore.training.config import LossConfig
from gfprestore.training.configfile import load_config
from gfprestore.training.dataset import Batch
from gfprestore.training.discriminators import StyleGan2Discriminator, with_batch_deviation
from gfprestore.training.networks import FrozenNetworks
from gfprestore.training.objective import RestorationObjective

GOLDEN = Path(__file__).parents[1] / "golden" / "training_official.npz"


@pytest.fixture(scope="module")
def official() -> dict[str, Tensor]:
    with np.load(GOLDEN) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def close(value: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(value.double(), wanted.double(), rtol=2e-5, atol=1e-6)


def images(official: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    return official["fake"].float(), official["real"].float()


def test_l1_equals_the_official_value(official):
    close(losses.l1(*images(official)), official["l1"])


def test_pyramid_equals_the_official_value(official):
    fake, real = images(official)
    outputs = [fake]
    for _ in range(3):
        outputs.insert(0, torch.nn.functional.avg_pool2d(outputs[0], 2) * 1.1)
    close(losses.pyramid(outputs, real), official["pyramid"])


def test_adversarial_losses_equal_the_official_values(official):
    real, fake = official["logits_real"], official["logits_fake"]
    close(0.1 * losses.generator_adversarial(fake), official["g_wgan"])
    close(losses.generator_adversarial(fake), official["g_vanilla"])
    close(losses.discriminator_adversarial(real, fake), official["d_wgan"])
    # The official components' discriminators mix two names for the same formula.
    close(losses.discriminator_adversarial(real, fake), official["d_mixed"])


def features(official: dict[str, Tensor], kind: str) -> list[Tensor]:
    return [official[f"feat_{kind}0"], official[f"feat_{kind}1"]]


def test_feature_losses_equal_the_official_values(official):
    fake, real = features(official, "fake"), features(official, "real")
    close(losses.feature_style(fake, real, (0.5, 1.0)), official["comp_style"])
    close(losses.feature_content(fake, real, (0.1, 1.0)), official["perceptual"])
    close(50 * losses.feature_style(fake, real, (0.1, 1.0)), official["perceptual_style"])


def test_identity_equals_the_official_value(official):
    close(losses.identity_l1(official["emb_out"], official["emb_truth"]), official["identity"])


def test_path_length_equals_the_official_value(official):
    codes = official["path_codes"].requires_grad_(True)
    synthesised = (codes.flatten(1) @ official["path_A"]).tanh().view(2, 3, 8, 8)
    penalty, mean = losses.path_length_penalty(synthesised, codes, official["path_noise"], torch.tensor(0.5))
    close(penalty.detach(), official["path_penalty"])
    close(mean, official["path_mean"])


def test_component_boxes_equal_the_official_ones(official):
    components = official["components"].numpy().astype(np.float32)
    close(torch.from_numpy(regions.component_boxes(components)), official["boxes"])


def test_flipped_boxes_are_the_official_ones_but_for_their_pixel(official):
    components = official["components"].numpy().astype(np.float32)
    flipped = torch.from_numpy(regions.component_boxes(regions.flip_components(components, 512)))
    # The official code mirrors about 512 where the flipped image's pixel centres are mirrored about 511.
    close(flipped + torch.tensor([1.0, 0, 1, 0]), official["boxes_flipped"])


def test_regions_equal_the_official_ones(official):
    rows, columns = torch.meshgrid(torch.arange(512.0), torch.arange(512.0), indexing="ij")
    waves = (torch.sin(columns / 17) * torch.cos(rows / 23), torch.cos((rows + columns) / 31))
    truth = torch.stack([*waves, torch.sin((columns - 2 * rows) / 11)])[None]
    boxes = official["boxes"][None]
    left, _, mouth = regions.cut_components(truth, boxes)
    _, right, _ = regions.cut_components(truth.flip(1), boxes)
    assert left.shape == (1, 3, 80, 80) and mouth.shape == (1, 3, 120, 120)
    for region, name in ((left, "left_eye_gt"), (right, "right_eye"), (mouth, "mouth_gt")):
        torch.testing.assert_close(region[:, :, ::8, ::8], official[name], rtol=1e-4, atol=1e-5)


def official_discriminator(official: dict[str, Tensor]) -> StyleGan2Discriminator:
    network = StyleGan2Discriminator(32, channel_multiplier=1, narrow=1 / 64)
    names = {"first": "conv_body.0", "final_conv": "final_conv", "hidden": "final_linear.0", "logit": "final_linear.1"}
    names |= {
        f"blocks.{i}.{part}": f"conv_body.{i + 1}.{part}" for i in range(3) for part in ("conv1", "conv2", "skip")
    }
    state = {}
    for ours, theirs in names.items():
        for kind in ("weight", "bias"):
            found = [key for key in official if key.startswith(f"D.{theirs}.") and key.endswith(kind)]
            if found:
                state[f"{ours}.{kind}"] = official[found[0]]
    network.load_state_dict(state)
    return network


def test_discriminator_and_r1_equal_the_official_ones(official):
    image = official["disc_in"].requires_grad_(True)
    logits = official_discriminator(official)(image)
    torch.testing.assert_close(logits.detach(), official["disc_out"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(losses.r1_penalty(logits, image).detach(), official["r1"], rtol=1e-3, atol=1e-9)


def test_gram_is_the_mean_outer_product():
    features = torch.tensor([[[[1.0, 2.0]], [[3.0, -1.0]]]])  # [1 2 1 2]
    expected = torch.tensor([[[5.0, 1.0], [1.0, 10.0]]]) / 4
    torch.testing.assert_close(losses.gram(features), expected)


def test_r1_of_a_linear_discriminator_is_its_weights_square():
    weight = torch.randn(3, 4, 4, dtype=torch.float64)
    real = torch.randn(5, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    logits = (real * weight).sum((1, 2, 3))
    torch.testing.assert_close(losses.r1_penalty(logits, real), weight.square().sum())


@pytest.mark.parametrize("side", [4, 8])
def test_r1_of_patches_is_that_of_one_patch(side):
    """However many there are: the loss is their mean, and its penalty must not outgrow it."""
    real = torch.randn(2, 3, side, side, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(1, 3, 2, 2, dtype=torch.float64)
    logits = torch.nn.functional.conv2d(real, weight, stride=2)
    torch.testing.assert_close(losses.r1_penalty(logits, real), weight.square().sum())


def test_the_compact_networks_patches_are_learnt_without_r1():
    config = load_config("compact")
    assert config.discriminator.kind == "patch" and config.losses.r1 == 0


@pytest.mark.parametrize(
    "loss",
    [
        lambda x, y: losses.l1(x, y),
        lambda x, y: losses.pyramid([torch.nn.functional.avg_pool2d(x, 2), x], y),
        lambda x, y: losses.feature_content([x], [y], [0.5]),
        lambda x, y: losses.feature_style([x], [y], [2.0]),
        lambda x, y: losses.generator_adversarial(x),
        lambda x, y: losses.discriminator_adversarial(x, y),
        lambda x, y: losses.identity_l1(x.flatten(1), y.flatten(1)),
        lambda x, y: losses.identity_cosine(x.flatten(1), y.flatten(1)),
        lambda x, y: torch.stack([part.mean() for part in regions.cut_components(x, BOXES)]).sum(),
        lambda x, y: losses.r1_penalty((x**3).sum((1, 2, 3)), x),
    ],
)
def test_gradients_are_right(loss):
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.randn(2, 3, 16, 16, dtype=torch.float64, generator=generator) for _ in range(2))
    assert torch.autograd.gradcheck(lambda x: loss(x, y), x.requires_grad_(True), fast_mode=True)


BOXES = torch.tensor([[[1.0, 2, 7, 8], [8, 2, 14, 8], [4, 9, 12, 15]]]).expand(2, -1, -1)


@pytest.mark.parametrize("loss", [losses.l1, losses.identity_l1, losses.identity_cosine])
def test_equal_things_are_at_no_distance(loss):
    x = torch.randn(3, 8)
    torch.testing.assert_close(loss(x, x), torch.tensor(0.0), atol=1e-6, rtol=0)


def test_means_over_halves_make_the_mean_over_the_batch():
    x, y = torch.rand(4, 3, 16, 16), torch.rand(4, 3, 16, 16)
    whole = (
        losses.pyramid([x], y)
        + losses.feature_style([x], [y], [1.0])
        + losses.identity_cosine(x.flatten(1), y.flatten(1))
    )
    parts = [
        losses.pyramid([a], b)
        + losses.feature_style([a], [b], [1.0])
        + losses.identity_cosine(a.flatten(1), b.flatten(1))
        for a, b in ((x[::2], y[::2]), (x[1::2], y[1::2]))
    ]
    torch.testing.assert_close(torch.stack(parts).mean(), whole)


def test_deviation_channel_takes_members_of_a_group_apart():
    features = torch.randn(4, 2, 3, 3)
    out = with_batch_deviation(features, 2)
    for first in (0, 1):
        pair = features[[first, first + 2]]
        expected = (pair.var(0, unbiased=False) + 1e-8).sqrt().mean()
        torch.testing.assert_close(out[[first, first + 2], 2], expected.expand(2, 3, 3))


@pytest.mark.parametrize(("weights", "told"), [((1.0, 0.0), "perceptual"), ((0.0, 50.0), "perceptual_style")])
def test_a_perceptual_loss_without_a_weight_is_not_computed(monkeypatch, weights, told):
    class Features(torch.nn.Module):
        def forward(self, image):
            return [image] * 5

    other = "feature_style" if told == "perceptual" else "feature_content"
    monkeypatch.setattr(losses, other, lambda *_: pytest.fail(f"{other} has no weight"))
    config = LossConfig(perceptual=weights[0], perceptual_style=weights[1], adversarial=0, component=0)
    config = replace(config, component_style=0, identity=0, pyramid=0)
    frozen = FrozenNetworks(vgg19=Features())  # type: ignore[arg-type]
    objective = RestorationObjective(config, frozen, torch.nn.ModuleDict(), seed=0, autocast=False)
    images = torch.rand(2, 3, 8, 8)
    batch = Batch(images, -images, torch.zeros(2, 3, 4), torch.arange(2))
    _, _, values = objective.generator_loss(lambda x, **_: (x, [], None), batch, 0, None)
    assert values.keys() == {"l1", told}
