"""The network against the official one, and its own rules."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from official_gfpgan import clean_gfpgan, random_faces, relative_error

from gfprestore.nn.checkpoint import load_gfpgan
from gfprestore.nn.gfpgan import Gfpgan, StyleGan2Decoder, transform_features
from gfprestore.nn.shape import GfpganShape, Sft
from gfprestore.nn.widths import released_widths

FP32_TOLERANCE = 1e-5

SMALL = GfpganShape(
    decoder_widths=released_widths(32, 1, 1 / 32),
    unet_widths=released_widths(32, 1, 1 / 64),
    latent_size=16,
    mlp_layers=2,
)

CONFIGURATIONS: list[dict[str, Any]] = [
    {"out_size": 256, "narrow": 0.125, "channel_multiplier": 2, "num_style_feat": 32, "num_mlp": 2},
    {"out_size": 256, "narrow": 0.25, "channel_multiplier": 1, "num_style_feat": 64, "num_mlp": 1, "sft_half": False},
    {"out_size": 256, "narrow": 0.125, "channel_multiplier": 1, "num_style_feat": 32, "different_w": False},
    {"out_size": 512, "narrow": 0.125, "channel_multiplier": 2, "num_style_feat": 48, "num_mlp": 3},
    {
        "out_size": 512,
        "narrow": 0.0625,
        "channel_multiplier": 1,
        "num_style_feat": 16,
        "different_w": False,
        "sft_half": False,
    },
]


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_network_equals_the_official_one(configuration: dict[str, Any]) -> None:
    official = clean_gfpgan(**configuration)
    network = load_gfpgan(official.state_dict())
    x = random_faces(2, configuration["out_size"])
    with torch.inference_mode():
        image, pyramid = official(x, randomize_noise=False)
        given, given_pyramid, codes = network(x, return_pyramid=True)
        plain = network(x)
    assert relative_error(given, image) <= FP32_TOLERANCE
    assert torch.equal(plain, given)
    for level, wanted in zip(given_pyramid, pyramid, strict=True):
        assert relative_error(level, wanted) <= FP32_TOLERANCE
    assert codes.shape == (2, network.shape.code_count, network.shape.latent_size)


@pytest.mark.slow
def test_full_width_network_equals_the_official_one() -> None:
    official = clean_gfpgan()
    network = load_gfpgan(official.state_dict())
    assert sum(parameter.numel() for parameter in network.parameters()) == 86_444_252
    assert sum(buffer.numel() for buffer in network.buffers()) == 699_024
    x = random_faces(1, 512)
    with torch.inference_mode():
        assert relative_error(network(x), official(x, randomize_noise=False)[0]) <= FP32_TOLERANCE


def test_noise_counts_and_is_the_stored_one() -> None:
    network = load_gfpgan(clean_gfpgan(**CONFIGURATIONS[0]).state_dict())
    x = random_faces(1, 256)
    stored = network.stylegan_decoder.stored_noise()
    with torch.inference_mode():
        assert torch.equal(network(x), network(x, noise=stored))
        other = network(x, noise=[torch.randn_like(noise) for noise in stored])
        assert relative_error(other, network(x)) > 1e-2


def test_a_new_mapping_network_keeps_the_codes_apart() -> None:
    torch.manual_seed(0)
    decoder = StyleGan2Decoder(replace(SMALL, latent_size=256, mlp_layers=8))
    with torch.no_grad():
        codes = decoder.map_noise(torch.randn(64, 256))  # [N L]
    # E (sqrt(2) lrelu(x))^2 = 1 + 0.2^2 times E x^2, eight times over; part of it is a mean that all codes share.
    assert codes.square().mean().item() == pytest.approx(1.04**8, rel=0.3)
    assert 0.4 < codes.std(0).mean() < 1.2


def test_batch_equals_its_items() -> None:
    torch.manual_seed(0)
    network = Gfpgan(SMALL).double().eval()
    x = random_faces(3, 32).double()
    with torch.inference_mode():
        torch.testing.assert_close(
            network(x), torch.cat([network(x[n : n + 1]) for n in range(3)]), rtol=1e-10, atol=1e-10
        )


@pytest.mark.parametrize("sft", list(Sft))
@pytest.mark.parametrize("many_codes", [False, True])
def test_every_kind_trains(sft: Sft, many_codes: bool) -> None:
    torch.manual_seed(0)
    network = Gfpgan(replace(SMALL, sft=sft, many_codes=many_codes))
    image, pyramid, _ = network(random_faces(2, 32), return_pyramid=True)
    (image.square().mean() + sum(level.square().mean() for level in pyramid)).backward()
    without = {name for name, parameter in network.named_parameters() if parameter.grad is None}
    # Restoration feeds the decoder latent codes, so the prior's own mapping network is not part of it.
    assert all("style_mlp" in name for name in without)
    assert bool(network.condition_scale) is (sft is not Sft.NONE)


def test_only_the_transform_shows_the_decoder_where_things_are() -> None:
    torch.manual_seed(0)
    decoder = StyleGan2Decoder(SMALL).eval()
    codes = torch.randn(1, SMALL.code_count, SMALL.latent_size)
    ones = [
        (torch.ones(1, width // 2, 4 * 2**level, 4 * 2**level), torch.zeros(1))
        for level, width in enumerate(SMALL.decoder_widths)
    ]
    with torch.inference_mode():
        torch.testing.assert_close(decoder(codes, ones[1:]), decoder(codes))


def test_transform_keeps_the_first_half() -> None:
    features = torch.randn(1, 6, 2, 2)
    scale, shift = torch.randn(1, 3, 2, 2), torch.randn(1, 3, 2, 2)
    out = transform_features(features, scale, shift)
    assert torch.equal(out[:, :3], features[:, :3])
    torch.testing.assert_close(out[:, 3:], features[:, 3:] * scale + shift)


def test_prior_maps_noise_of_any_scale_alike() -> None:
    torch.manual_seed(0)
    decoder = StyleGan2Decoder(SMALL)
    z = torch.randn(4, 16)
    torch.testing.assert_close(decoder.map_noise(z), decoder.map_noise(5 * z))


def test_widths_are_the_official_ones() -> None:
    assert released_widths(1024) == (512, 512, 512, 512, 512, 256, 128, 64, 32)
    assert released_widths(256, 1, 0.5) == (256, 256, 256, 256, 128, 64, 32)
