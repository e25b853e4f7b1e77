"""Colouring: what counts as gray, parity with spandrel's DDColor, faces' own colour, and what stands in for weights."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from gfprestore import models
from gfprestore.colorize import (
    COLOUR_CAUTION,
    NetworkChroma,
    OwnChroma,
    SoftTint,
    build_chroma_source,
    colorize_photo,
)
from gfprestore.colorizing.lab import fit_chroma, lab_to_rgb, lightness, rgb_to_lab
from gfprestore.colorizing.network import ColourNetwork, load_colour_network
from gfprestore.errors import WeightsError
from gfprestore.options import RestoreOptions
from gfprestore.photo import ColouredFace
from gfprestore.resize import resize_photo
from gfprestore.torch_engine import TorchEngine


def scene(dtype: type = np.uint8, seed: int = 0) -> np.ndarray:
    """Soft coloured shapes, (120, 160, 3)."""
    coarse = np.random.default_rng(seed).integers(30, 220, (6, 8, 3)).astype(np.uint8)
    pixels = resize_photo(coarse, (160, 120), "linear")
    return pixels if dtype == np.uint8 else pixels.astype(np.uint16) * 257


def toned(pixels: np.ndarray, a: float, b: float) -> np.ndarray:
    light = lightness(pixels / 255)
    share = 4 * (light / 100) * (1 - light / 100)
    return (fit_chroma(np.dstack([light, a * share, b * share]).astype(np.float32)) * 255).round().astype(np.uint8)


class PlainChroma:
    """Says the same chroma everywhere."""

    description = "one colour"
    face_region = "face"

    def __init__(self, a: float, b: float) -> None:
        self.chroma = np.array([a, b], np.float32)

    def estimate(self, lab: np.ndarray) -> np.ndarray:
        return np.broadcast_to(self.chroma, (*lab.shape[:2], 2)).copy()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_colouring_keeps_lightness_and_takes_the_chroma(dtype: type) -> None:
    pixels = np.repeat(scene(dtype)[..., :1], 3, axis=2)
    top = np.iinfo(dtype).max
    found = colorize_photo(pixels, PlainChroma(10, 20))
    lab = rgb_to_lab(found / top)
    np.testing.assert_allclose(lab[..., 0], lightness(pixels / top), atol=0.35)
    np.testing.assert_allclose(lab[..., 1], 10, atol=1.5)
    np.testing.assert_allclose(lab[..., 2], 20, atol=1.5)


def test_strength_zero_is_the_identity() -> None:
    pixels = scene()
    found = colorize_photo(pixels, PlainChroma(50, 50), strength=0)
    np.testing.assert_array_equal(found, pixels)
    assert not np.shares_memory(found, pixels)


def test_keeping_the_photos_own_chroma_changes_nothing() -> None:
    pixels = scene()
    assert np.abs(colorize_photo(pixels, OwnChroma()).astype(int) - pixels).max() <= 1


def test_soft_tint_is_warm_on_gray_takes_a_prints_tone_away_and_leaves_colours() -> None:
    gray = np.repeat(scene()[..., :1], 3, axis=2)
    tinted = colorize_photo(gray, SoftTint())
    lab = rgb_to_lab(tinted / 255)
    assert (lab[..., 2] > 0).all()
    assert 3 < lab[..., 2].mean() < 12
    greenish = colorize_photo(toned(gray, -9, 25), SoftTint())
    assert np.abs(greenish.astype(int) - tinted).max() <= 3
    assert np.abs(colorize_photo(scene(), SoftTint()).astype(int) - scene()).max() <= 1


def test_faces_lend_their_own_colour() -> None:
    pixels = np.repeat(scene()[..., :1], 3, axis=2)
    light = np.full((64, 64), 60, np.float32)
    crop = lab_to_rgb(np.dstack([light, np.full_like(light, 15), np.full_like(light, 25)]))
    mask = np.zeros((64, 64), np.float32)
    mask[8:56, 8:56] = 1
    # The crop's pixel (0, 0) lies on the photo's (50, 30), at two crop pixels for one of the photo.
    face = ColouredFace((crop * 255).round().astype(np.uint8), np.array([[2.0, 0, -100], [0, 2.0, -60]]), mask)
    lab = rgb_to_lab(colorize_photo(pixels, OwnChroma(), [face]) / 255)
    np.testing.assert_allclose(lab[36:56, 56:76, 1], 15, atol=1.5)
    np.testing.assert_allclose(lab[36:56, 56:76, 2], 25, atol=1.5)
    outside = np.ones(lab.shape[:2], bool)
    outside[30:63, 50:83] = False
    np.testing.assert_allclose(lab[outside][:, 1:], 0, atol=0.5)


def test_chroma_out_of_range_is_clipped_and_the_square_is_unsqueezed() -> None:
    class Blots:
        device, precision = "cpu", "fp32"

        def run(self, batch: np.ndarray) -> tuple[np.ndarray, ...]:
            assert batch.shape == (1, 512, 512, 3)
            assert batch.min() >= 0
            assert batch.max() <= 1
            chroma = np.zeros((1, 512, 512, 2), np.float32)
            chroma[:, :, 256:] = (500, -500)
            return (chroma,)

    lab = rgb_to_lab(scene() / 255)
    found = NetworkChroma("blots", Blots()).estimate(lab)
    assert found.shape == (120, 160, 2)
    np.testing.assert_array_equal(found[:, :75], 0)
    np.testing.assert_array_equal(found[:, 85:, 0], 110)
    np.testing.assert_array_equal(found[:, 85:, 1], -110)


# DDColor itself, and doing without it.


def build(states: Mapping[str, Any], lines: list[str]) -> Any:
    def read_weights(name: str) -> Mapping[str, Any]:
        if name not in states:
            raise WeightsError(f"no {name} here.")
        return states[name]

    return build_chroma_source(read_weights=read_weights, device="cpu", precision="fp32", notify=lines.append)


def test_without_weights_a_soft_tint_stands_in_and_says_so() -> None:
    lines: list[str] = []
    assert isinstance(build({}, lines), SoftTint)
    assert len(lines) == 1
    assert "no ddcolor-tiny here" in lines[0]
    assert "soft tint" in lines[0]


def test_the_caution_about_skin_is_said_once_and_goes_into_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("build_restorer", "build_detector"):
        monkeypatch.setattr(models, name, lambda *_, **__: object())
    monkeypatch.setattr(models, "build_chroma_source", lambda **_: SoftTint())
    lines: list[str] = []
    options = RestoreOptions(model="compact", detector="detector-compact", offline=True, background="lanczos")
    assert "colour" not in models.load_models(options, lines.append).facts
    assert not any("skin" in line for line in lines)
    facts = models.load_models(replace(options, colorize="auto"), lines.append).facts
    assert facts["colour"] == {"name": "a soft tint", "faces": "compact-colour", "caution": COLOUR_CAUTION}
    (line,) = [line for line in lines if "skin tone" in line]
    assert "small colouring model" in line
    assert line.endswith(COLOUR_CAUTION)


def test_without_the_package_a_soft_tint_stands_in_and_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spandrel_extra_arches", None)
    lines: list[str] = []
    assert isinstance(build({"ddcolor-tiny": {}}, lines), SoftTint)
    assert "gfprestore[colorize]" in lines[0]


def test_other_weights_are_refused() -> None:
    pytest.importorskip("spandrel_extra_arches", reason="the colorize extra is not installed", exc_type=ImportError)
    with pytest.raises(WeightsError, match="not the weights of DDColor"):
        load_colour_network({"weight": torch.zeros(3)})


@pytest.fixture(scope="module")
def ddcolor() -> nn.Module:
    """DDColor tiny with random weights whose spectral norms have settled."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arch = pytest.importorskip("spandrel_extra_arches.architectures.DDColor", reason="no colorize extra")
    torch.manual_seed(0)
    network = arch.DDColor(
        encoder_name="convnext-t", num_output_channels=2, last_norm="Spectral", num_queries=100, input_size=(64, 64)
    )
    network.train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.rand(1, 3, 64, 64))
    return network.eval()


@pytest.mark.slow
def test_parity_with_spandrels_own_call(ddcolor: nn.Module) -> None:
    import spandrel
    from spandrel_extra_arches import EXTRA_REGISTRY

    state = ddcolor.state_dict()
    descriptor = spandrel.ModelLoader("cpu", EXTRA_REGISTRY).load_from_state_dict(dict(state))
    gray = resize_photo(scene()[..., :1].repeat(3, axis=2), (256, 256)) / np.float32(255)
    theirs = descriptor(torch.from_numpy(gray[..., 0].astype(np.float32))[None, None])[0].permute(1, 2, 0).numpy()
    network = load_colour_network(state)
    assert isinstance(network, ColourNetwork)
    (chroma,) = TorchEngine(network, "cpu", "fp32").run(gray[None].astype(np.float32))
    ours = lab_to_rgb(np.dstack([lightness(gray), chroma[0]]))
    np.testing.assert_allclose(np.clip(ours, 0, 1), theirs, atol=2e-3)


@pytest.mark.slow
def test_ddcolor_from_its_state_dict_to_a_coloured_photo(ddcolor: nn.Module) -> None:
    lines: list[str] = []
    source = build({"ddcolor-tiny": ddcolor.state_dict()}, lines)
    assert source.description == "DDColor tiny"
    assert lines == []
    gray = scene()[..., :1].repeat(3, axis=2)
    found = colorize_photo(gray, source)
    np.testing.assert_allclose(lightness(found / 255), lightness(gray / 255), atol=0.35)
