"""The equalised learning rate, against layers that scale their weights themselves."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from official_gfpgan import paper_gfpgan, random_faces
from torch import Tensor, nn

from gfprestore.nn.gfpgan import Gfpgan
from gfprestore.nn.paper_weights import clean_factor, to_clean
from gfprestore.nn.shape import Resampling
from gfprestore.nn.tensors import as_arrays, as_tensors
from gfprestore.training.config import GeneratorConfig, OptimiserConfig
from gfprestore.training.networks import build_generator, generator_shape
from gfprestore.training.recipe import group_by_rate, learning_rate_factor, make_adam, set_learning_rates

BETAS = (0.0, 0.99)
PAPER = {"out_size": 16, "narrow": 0.0625, "channel_multiplier": 1, "num_style_feat": 12, "num_mlp": 2}
OURS = GeneratorConfig(size=16, narrow=0.0625, latent_size=12, mlp_layers=2, resampling="fir", random_prior=True)


class EqualLinear(nn.Module):
    """StyleGAN2's layer from its formula: stored variance 1 / m², used times m / sqrt(fan in)."""

    def __init__(self, size_in: int, size_out: int, multiplier: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(size_out, size_in, dtype=torch.float64) / multiplier)
        self.factor = multiplier / size_in**0.5

    def forward(self, x: Tensor) -> Tensor:
        return x @ (self.weight * self.factor).T


@pytest.mark.parametrize("multiplier", [1.0, 0.01])
def test_a_factor_on_the_rate_takes_the_steps_of_an_equalised_layer(multiplier):
    torch.manual_seed(0)
    twin = EqualLinear(50, 3, multiplier)
    plain = nn.Parameter((twin.weight * twin.factor).detach())
    optimisers = [torch.optim.Adam(twin.parameters(), 0.1, BETAS), make_adam({twin.factor: [plain]}, 0.1, BETAS)]
    for _ in range(5):
        x, wanted = torch.randn(4, 50, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
        # Tiny gradients, so that the epsilon counts.
        losses = [1e-8 * (y - wanted).square().sum() for y in (twin(x), x @ plain.T)]
        for optimiser, loss in zip(optimisers, losses, strict=True):
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    torch.testing.assert_close(plain.detach(), (twin.weight * twin.factor).detach(), rtol=1e-9, atol=1e-12)


def test_a_generator_trains_as_the_official_one(monkeypatch):
    paper = paper_gfpgan(monkeypatch, **PAPER, sft_half=True, different_w=True).double()
    ours = Gfpgan(generator_shape(OURS)).double()
    ours.load_state_dict(as_tensors(to_clean(as_arrays(paper.state_dict()))), strict=False)
    official = torch.optim.Adam(paper.parameters(), 2e-3, BETAS)
    adam = make_adam(group_by_rate(ours.named_parameters(), equalised=True), 2e-3, BETAS)
    for step in range(3):
        x, wanted = random_faces(2, 16, 2 * step).double(), random_faces(2, 16, 2 * step + 1).double()
        image, pyramid = paper(x, randomize_noise=False)
        given, given_pyramid, _ = ours(x, return_pyramid=True)
        for optimiser, images in ((official, [image, *pyramid]), (adam, [given, *given_pyramid])):
            optimiser.zero_grad()
            loss = sum(
                (output - wanted[..., :: 16 // len(output[0, 0])][:, :, :: 16 // len(output[0, 0])]).square().sum()
                for output in images
            )
            loss.backward()
            optimiser.step()
    wanted_state = as_tensors(to_clean(as_arrays(paper.state_dict())))
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.detach(), wanted_state[name], rtol=1e-6, atol=1e-8, msg=name)


def test_a_new_generator_has_the_official_ones_variances(monkeypatch):
    wide = {"out_size": 32, "narrow": 0.25, "channel_multiplier": 1, "num_style_feat": 64, "num_mlp": 2}
    torch.manual_seed(0)
    official = paper_gfpgan(monkeypatch, **wide, sft_half=True, different_w=True).state_dict()
    config = replace(OURS, size=32, narrow=0.25, latent_size=64)
    ours = dict(build_generator(config, equalised=True).named_parameters())
    for name, tensor in as_tensors(to_clean(as_arrays(official))).items():
        if name.endswith("weight") and tensor.numel() > 2000 and "style_mlp" not in name:
            assert ours[name].std().item() == pytest.approx(tensor.std().item(), rel=0.1), name
    # Biases of the reference are stirred: those of the published training are these.
    assert torch.equal(ours["condition_scale.0.2.bias"], torch.ones_like(ours["condition_scale.0.2.bias"]))
    assert not ours["condition_shift.0.2.bias"].any() and not ours["conv_body_first.bias"].any()


def test_every_group_follows_the_schedule_and_every_parameter_has_one():
    network = Gfpgan(generator_shape(OURS))
    groups = group_by_rate(network.named_parameters(), equalised=True)
    assert sum(map(len, groups.values())) == len(list(network.parameters())) and len(groups) > 5
    assert group_by_rate(network.named_parameters(), equalised=False).keys() == {1.0, 0.01}
    adam = make_adam(groups, 2e-3, BETAS, lazy_every=4)
    set_learning_rates([adam], learning_rate_factor(OptimiserConfig(milestones=(5,)), 7, 10))
    for (factor, _), group in zip(groups.items(), adam.param_groups, strict=True):
        assert group["lr"] == pytest.approx(0.5 * 0.8 * 2e-3 * factor)
    named = dict(network.named_parameters())
    first = named["stylegan_decoder.style_convs.0.modulated_conv.weight"]
    assert clean_factor("stylegan_decoder.style_convs.0.modulated_conv.weight", first.shape) == (32 * 9) ** -0.5
    mapping = named["stylegan_decoder.style_mlp.1.weight"]
    assert clean_factor("stylegan_decoder.style_mlp.1.weight", mapping.shape) == pytest.approx(0.01 * (2 / 12) ** 0.5)
    with pytest.raises(KeyError):
        clean_factor("stylegan_decoder.other", first.shape)
    assert network.shape.resampling is Resampling.FIR
