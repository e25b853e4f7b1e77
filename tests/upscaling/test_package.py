"""The adapter of the realesrgan package: its calling convention, its faults, and parity where it is installed."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gfprestore.background import load_network
from gfprestore.errors import DeviceError, UsageError
from gfprestore.resize import resize_photo
from gfprestore.upscaling.package import PackageUpscaler
from gfprestore.upscaling.upscaler import NetworkUpscaler
from gfprestore.weights import read_state_dict

PRE_PAD = 10
"""The package mirrors a photo out by this much at the right and below before its network sees it."""


def photo(width: int, height: int) -> np.ndarray:
    coarse = np.random.default_rng(3).integers(0, 256, (height // 6 + 2, width // 6 + 2, 3)).astype(np.uint8)
    return resize_photo(coarse, (width, height))


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> type:
    """A stand-in for the package with its calling convention: BGR or gray in, the same out, talk on stdout."""

    class RealESRGANer:
        talk = "\tTile 1/1"

        def __init__(self, scale: int, model_path: str, model: Any, tile: int, device: torch.device) -> None:
            assert set(torch.load(model_path, weights_only=True)) == {"params_ema"}
            self.scale, self.tile = scale, tile

        def enhance(self, image: np.ndarray) -> tuple[np.ndarray, str]:
            print(self.talk)
            image = image.copy()
            if image.ndim == 3:
                image[..., 0] = 7  # marks blue
            return image.repeat(self.scale, axis=0).repeat(self.scale, axis=1), "RGB"

    realesrgan, arch = types.ModuleType("realesrgan"), types.ModuleType("basicsr.archs.rrdbnet_arch")
    realesrgan.RealESRGANer = RealESRGANer
    arch.RRDBNet = lambda **arguments: arguments
    for name, module in (
        ("realesrgan", realesrgan),
        ("basicsr", types.ModuleType("basicsr")),
        ("basicsr.archs", types.ModuleType("basicsr.archs")),
        ("basicsr.archs.rrdbnet_arch", arch),
    ):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "torchvision.transforms.functional_tensor", raising=False)
    return RealESRGANer


def package_upscaler() -> PackageUpscaler:
    return PackageUpscaler({"params_ema": {"weight": torch.zeros(1)}}, 2, device="cpu", tile_pixels=256)


def test_the_package_gets_bgr_and_stays_silent(package: type, capsys: pytest.CaptureFixture[str]) -> None:
    pixels = photo(20, 16)
    found = package_upscaler().upscale(pixels, (40, 32))
    np.testing.assert_array_equal(found[..., :2], pixels.repeat(2, axis=0).repeat(2, axis=1)[..., :2])
    assert (found[..., 2] == 7).all()
    assert capsys.readouterr().out == ""
    assert "torchvision.transforms.functional_tensor" in sys.modules
    sys.modules.pop("torchvision.transforms.functional_tensor")


def test_the_package_gets_gray_as_one_plane(package: type) -> None:
    pixels = np.repeat(photo(20, 16)[..., :1], 3, axis=2)
    found = package_upscaler().upscale(pixels, (40, 32))
    np.testing.assert_array_equal(found, pixels.repeat(2, axis=0).repeat(2, axis=1))


def test_a_dark_16_bit_photo_is_not_taken_for_8_bit(package: type) -> None:
    pixels = photo(20, 16).astype(np.uint16)
    found = package_upscaler().upscale(pixels, (40, 32))
    np.testing.assert_array_equal(found, resize_photo(pixels, (40, 32)))


def test_a_failed_tile_of_the_package_is_an_error(package: type) -> None:
    package.talk = "Error CUDA out of memory."
    with pytest.raises(DeviceError, match="--tile"):
        package_upscaler().upscale(photo(20, 16), (40, 32))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "realesrgan", None)
    with pytest.raises(UsageError, match="pip install realesrgan"):
        package_upscaler()


@pytest.mark.slow
@pytest.mark.weights
@pytest.mark.skipif(importlib.util.find_spec("realesrgan") is None, reason="the realesrgan package is not installed")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("file", "factor"), [("RealESRGAN_x2plus_fp16.pth", 2), ("RealESRGAN_x4plus_fp16.pth", 4)], ids=["x2plus", "x4plus"]
)
def test_parity_with_the_package(real_weights: Path, file: str, factor: int) -> None:
    """Same weights, untiled, in 16 bits: relative error at most 1e-3 over the whole photo.

    The frame is the same for both: ours gets the photo mirrored out as the package does it, to a multiple of four.
    """
    state = read_state_dict(real_weights / file)
    pixels = photo(54, 42).astype(np.uint16) * 257
    size = 54 * factor, 42 * factor
    theirs = PackageUpscaler(state, factor, device="cpu").upscale(pixels, size).astype(np.float64)
    frame = np.pad(pixels, ((0, PRE_PAD), (0, PRE_PAD), (0, 0)), mode="reflect")
    upscaler = NetworkUpscaler(load_network(file, state, "cpu", "fp32"), device="cpu", precision="fp32")
    ours = upscaler.upscale(frame, (64 * factor, 52 * factor))[: size[1], : size[0]].astype(np.float64)
    assert np.linalg.norm(ours - theirs) / np.linalg.norm(theirs) <= 1e-3
