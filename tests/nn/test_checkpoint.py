"""State dicts of every form load exactly; all others are refused with one sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from official_gfpgan import clean_gfpgan, paper_gfpgan, random_faces, relative_error
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gfprestore.errors import WeightsError
from gfprestore.nn.checkpoint import load_gfpgan
from gfprestore.nn.entries import entries_of
from gfprestore.nn.gfpgan import Gfpgan
from gfprestore.nn.paper_weights import is_paper_style, to_clean
from gfprestore.nn.shape import GfpganShape, Resampling, Sft
from gfprestore.nn.tensors import as_arrays
from gfprestore.nn.widths import released_widths

SHAPES = [
    GfpganShape(
        released_widths(size, multiplier, narrow), released_widths(size, multiplier, narrow / 2), latent, mlp, sft, many
    )
    for size, multiplier, narrow, latent, mlp, sft, many in [
        (32, 1, 1 / 16, 16, 0, Sft.HALF, True),
        (64, 2, 1 / 32, 24, 3, Sft.FULL, False),
        (128, 1, 1 / 32, 8, 1, Sft.NONE, True),
        (256, 2, 1 / 64, 8, 2, Sft.HALF, False),
        (512, 1, 1 / 16, 8, 1, Sft.FULL, True),
    ]
]

PAPER = {"out_size": 64, "narrow": 0.125, "channel_multiplier": 1, "num_style_feat": 32, "num_mlp": 3, "sft_half": True}


def small_state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return Gfpgan(SHAPES[0]).state_dict()


@pytest.mark.parametrize("shape", SHAPES)
def test_hyperparameters_read_are_those_built_with(shape: GfpganShape) -> None:
    network = Gfpgan(shape)
    loaded = load_gfpgan(network.state_dict())
    assert loaded.shape == shape
    assert not loaded.training
    for key, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, network.state_dict()[key]), key


@pytest.mark.parametrize("resampling", Resampling)
@pytest.mark.parametrize("shape", SHAPES)
def test_entries_are_those_of_the_network(shape: GfpganShape, resampling: Resampling) -> None:
    shape = replace(shape, resampling=resampling)
    with torch.device("meta"):
        state = Gfpgan(shape).state_dict()
    assert entries_of(shape) == {name: tuple(tensor.shape) for name, tensor in state.items()}


def test_arrays_load_as_tensors_do_and_are_not_copied() -> None:
    arrays = as_arrays(small_state())
    network = load_gfpgan(arrays)
    assert network.final_conv.weight.data_ptr() == arrays["final_conv.weight"].ctypes.data
    for key, tensor in load_gfpgan(small_state()).state_dict().items():
        assert torch.equal(tensor, network.state_dict()[key])


def test_the_papers_resampling_survives_a_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Gfpgan(replace(SHAPES[0], resampling=Resampling.FIR)).eval()
    # No metadata: other programs drop it.
    save_file({key: tensor.half() for key, tensor in network.state_dict().items()}, tmp_path / "w.safetensors")
    loaded = load_gfpgan(load_file(tmp_path / "w.safetensors"))
    assert loaded.shape == network.shape
    network.load_state_dict({key: tensor.half().float() for key, tensor in network.state_dict().items()})
    x = random_faces(1, 32)
    with torch.inference_mode():
        assert torch.equal(loaded(x), network(x))
        bilinear = Gfpgan(SHAPES[0]).eval()
        bilinear.load_state_dict(network.state_dict(), strict=False)
        assert relative_error(bilinear(x), network(x)) > 1e-2


def test_official_terms_are_read_too() -> None:
    shape = load_gfpgan(
        clean_gfpgan(out_size=256, narrow=0.25, channel_multiplier=2, num_style_feat=16).state_dict()
    ).shape
    assert (shape.out_size, shape.narrow, shape.channel_multiplier) == (256, 0.25, 2)
    assert (shape.latent_size, shape.mlp_layers, shape.code_count) == (16, 8, 14)


@pytest.mark.parametrize("wrap", ["params_ema", "params", "state_dict", None])
def test_wrapped_and_bare_forms_load(wrap: str | None) -> None:
    state = small_state()
    loaded = load_gfpgan(state if wrap is None else {wrap: state, "iteration": 3})
    assert loaded.shape == SHAPES[0]


def test_averaged_weights_come_first() -> None:
    state = small_state()
    other = {key: tensor + 1 for key, tensor in state.items()}
    loaded = load_gfpgan({"params": other, "params_ema": state})
    assert torch.equal(loaded.final_linear.bias, state["final_linear.bias"])


def test_half_precision_and_parallel_prefix_load() -> None:
    state = {f"module.{key}": tensor.half() for key, tensor in small_state().items()}
    loaded = load_gfpgan(state)
    assert loaded.final_linear.weight.dtype is torch.float32
    assert torch.equal(loaded.final_linear.weight.half(), state["module.final_linear.weight"])


@pytest.mark.weights
def test_trial_weights_load(real_weights: Path) -> None:
    path = real_weights / "trial_compact_fp16.safetensors"
    if not path.is_file():
        pytest.skip(f"no {path.name} in {real_weights}")
    shape = load_gfpgan(load_file(path)).shape
    assert (shape.out_size, shape.latent_size, shape.mlp_layers, shape.narrow) == (512, 256, 1, 0.25)
    assert (shape.channel_multiplier, shape.sft, shape.many_codes) == (1, Sft.HALF, True)


@pytest.mark.parametrize("many_codes", [False, True])
@pytest.mark.parametrize("sft_half", [False, True])
def test_paper_style_weights_convert_exactly(monkeypatch: pytest.MonkeyPatch, many_codes: bool, sft_half: bool) -> None:
    paper = paper_gfpgan(monkeypatch, **{**PAPER, "sft_half": sft_half}, different_w=many_codes)
    network = load_gfpgan({"params_ema": paper.state_dict()})
    assert network.shape.resampling is Resampling.FIR
    assert network.shape.sft is (Sft.HALF if sft_half else Sft.FULL)
    x = random_faces(2, 64)
    with torch.inference_mode():
        wanted, wanted_pyramid = paper(x, randomize_noise=False)
        given, pyramid, _ = network(x, return_pyramid=True)
    # All of the image, its border too: the resampling is the paper's own.
    assert relative_error(given, wanted) <= 1e-5
    for level, wanted_level in zip(pyramid, wanted_pyramid, strict=True):
        assert relative_error(level, wanted_level) <= 1e-5


def test_paper_style_mapping_network_converts_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    paper: Any = paper_gfpgan(monkeypatch, **PAPER)
    network = load_gfpgan(paper.state_dict())
    z = torch.randn(3, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        wanted = paper.stylegan_decoder.style_mlp(z)
        assert relative_error(network.stylegan_decoder.map_noise(z), wanted) <= 1e-5


def test_paper_style_is_told_by_its_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    paper = paper_gfpgan(monkeypatch, **PAPER).state_dict()
    assert is_paper_style(paper)
    assert not is_paper_style(small_state())
    with pytest.raises(WeightsError, match="extra_layer"):
        to_clean(as_arrays({**paper, "extra_layer.weight": torch.zeros(1)}))


def _without(key: str) -> dict[str, Any]:
    state = small_state()
    del state[key]
    return state


def _with(key: str, value: Any) -> dict[str, Any]:
    return {**small_state(), key: value}


FOREIGN: list[tuple[str, Any]] = [
    ("holds no state dict", [1, 2, 3]),
    ("holds no state dict", {}),
    ("holds no state dict", torch.zeros(3)),
    ("not a tensor", {"weights": {"layer": torch.zeros(1)}}),
    ("not a tensor", _with("final_conv.bias", "text")),
    ("not a tensor", _with("final_conv.bias", torch.zeros(256, dtype=torch.int64))),
    ("not finite", _with("final_conv.bias", torch.full((16,), float("nan")))),
    ("not finite", _with("final_conv.bias", torch.full((16,), float("inf")))),
    (
        "not the weights of a GFP-GAN",
        {"conv_first.weight": torch.zeros(64, 3, 3, 3), "conv_first.bias": torch.zeros(64)},
    ),
    ("not the weights of a GFP-GAN", {"quantize.embedding.weight": torch.zeros(1024, 256)}),
    ("not the weights of a GFP-GAN", nn.Linear(2, 2).state_dict()),
    ("lack the entry 'toRGB.0.bias'", _without("toRGB.0.bias")),
    ("lack the entry", _without("stylegan_decoder.noises.noise3")),
    ("lack the entry", _without("condition_scale.1.0.weight")),
    ("not the weights of a GFP-GAN", _without("final_conv.weight")),
    ("not the weights of a GFP-GAN", _without("stylegan_decoder.style_convs.2.modulated_conv.weight")),
    ("have an entry 'optimizer.step'", _with("optimizer.step", torch.zeros(1))),
    ("has shape", _with("final_conv.bias", torch.zeros(3))),
    ("has shape", _with("final_linear.bias", torch.zeros(0))),
    ("a shape that no GFP-GAN has", _with("final_conv.weight", torch.zeros(3))),
    ("a shape that no GFP-GAN has", _with("final_conv.weight", torch.zeros(0, 3, 3, 3))),
]


@pytest.mark.parametrize(("words", "state"), FOREIGN)
def test_foreign_and_damaged_weights_are_refused_in_one_sentence(words: str, state: Any) -> None:
    with pytest.raises(WeightsError, match=words) as caught:
        load_gfpgan(state)
    assert "--model" in str(caught.value)
    assert "\n" not in str(caught.value)
