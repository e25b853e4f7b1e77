"""Upscalers: tiles against one untiled call of spandrel, memory running out, and what each choice means."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spandrel
import torch
from safetensors.torch import save_file
from spandrel.architectures.Compact import Compact
from spandrel.architectures.ESRGAN import ESRGAN

from gfprestore import background
from gfprestore.background import BILINEAR, LANCZOS, build_upscaler, real_esrgan_name
from gfprestore.errors import DeviceError, UsageError, WeightsError
from gfprestore.resize import has_equal_channels, resize_photo
from gfprestore.torch_engine import TorchEngine
from gfprestore.upscaling import upscaler as tiled
from gfprestore.upscaling.layers import finish_in_fp32, values_per_pixel
from gfprestore.upscaling.network import UpscalingNetwork, load_upscaling_network
from gfprestore.upscaling.upscaler import NetworkUpscaler

# In 8 bits this means that one value in fifteen differs by one level.
LEAST_PSNR = 60.0


def small_network(factor: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """State dict of a small Real-ESRGAN whose answer lies in the middle of the range, so that nothing is clamped."""
    torch.manual_seed(seed)
    shuffle = {2: 2, 4: None}[factor]
    network = ESRGAN(num_filters=4, num_blocks=1, scale=4, in_nc=3 * 4 if shuffle else 3, shuffle_factor=shuffle)
    state = {key: value.clone() for key, value in network.state_dict().items()}
    last = max(key for key in state if key.endswith(".bias"))
    state[last] += 0.5
    return state


def photo(width: int, height: int, dtype: type = np.uint8, seed: int = 3) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 6 + 2, width // 6 + 2, 3)).astype(np.uint8)
    pixels = resize_photo(coarse, (width, height))
    return pixels if dtype == np.uint8 else pixels.astype(np.uint16) * 257


def upscaler(factor: int, tile_pixels: int | None = None, **more: Any) -> NetworkUpscaler:
    network = load_upscaling_network("a small network", small_network(factor))
    engine = TorchEngine(network, "cpu", "fp32")
    return NetworkUpscaler(network, device="cpu", precision="fp32", tile_pixels=tile_pixels, engine=engine, **more)


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    top = np.iinfo(first.dtype).max
    return float(-10 * np.log10(np.mean((first / top - second / top) ** 2) + 1e-20))


def untiled(factor: int, pixels: np.ndarray) -> np.ndarray:
    """The reference: spandrel's own call on the whole photo."""
    descriptor = spandrel.ModelLoader("cpu").load_from_state_dict(small_network(factor))
    top = np.iinfo(pixels.dtype).max
    image = torch.from_numpy(pixels.astype(np.float32) / top).permute(2, 0, 1)[None]
    result = descriptor(image)[0].permute(1, 2, 0).numpy()
    return np.floor(result * top + 0.5).astype(pixels.dtype)


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("size", [(70, 50), (71, 53)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_one_tile_equals_spandrels_call(factor: int, size: tuple[int, int], dtype: type) -> None:
    pixels = photo(*size, dtype)
    found = upscaler(factor).upscale(pixels, (size[0] * factor, size[1] * factor))
    assert found.dtype == dtype
    difference = np.abs(found.astype(int) - untiled(factor, pixels))
    assert difference.max() <= (1 if dtype == np.uint8 else 8)
    assert difference.mean() < 0.5


@pytest.mark.parametrize(("factor", "width", "height", "tiles"), [(2, 420, 300, (288, 352)), (4, 480, 40, (256, 320))])
def test_tile_size_does_not_change_the_result(factor: int, width: int, height: int, tiles: tuple[int, int]) -> None:
    pixels = photo(width, height)
    size = (width * factor, height * factor)
    whole, first, second = (upscaler(factor, limit).upscale(pixels, size) for limit in (1024, *tiles))
    assert psnr(first, whole) >= LEAST_PSNR
    assert psnr(second, whole) >= LEAST_PSNR
    assert psnr(first, second) >= LEAST_PSNR


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_gray_stays_gray(dtype: type) -> None:
    pixels = np.repeat(photo(60, 40, dtype)[..., :1], 3, axis=2)
    found = upscaler(2).upscale(pixels, (90, 60))
    assert has_equal_channels(found)
    luma = untiled(2, pixels) @ np.array([0.299, 0.587, 0.114])
    expected = resize_photo(np.repeat(luma.round().astype(dtype)[..., None], 3, axis=2), (90, 60))
    assert np.abs(found.astype(int) - expected).max() <= (2 if dtype == np.uint8 else 8)


@pytest.mark.parametrize("size", [(61, 37), (100, 80), (333, 20), (1, 1), (25, 20)])
def test_any_size_is_exact(size: tuple[int, int]) -> None:
    assert upscaler(2).upscale(photo(50, 40), size).shape == (size[1], size[0], 3)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 1)])
def test_tiny_photos(size: tuple[int, int]) -> None:
    for factor in (2, 4):
        found = upscaler(factor).upscale(photo(*size), (size[0] * factor, size[1] * factor))
        assert found.shape == (size[1] * factor, size[0] * factor, 3)


def test_strength_mixes_with_lanczos() -> None:
    pixels = photo(50, 40)
    full = upscaler(2).upscale(pixels, (100, 80)).astype(np.float64)
    plain = resize_photo(pixels, (100, 80)).astype(np.float64)
    half = upscaler(2, strength=0.5).upscale(pixels, (100, 80))
    assert np.abs(half - (full + plain) / 2).max() <= 0.51
    np.testing.assert_array_equal(upscaler(2, strength=0.0).upscale(pixels, (100, 80)), plain)


class CountingEngine:
    """An engine that records its batches, and runs out of memory above a number of input pixels."""

    device, precision = "cpu", "fp32"

    def __init__(self, capacity: int = 10**9) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self.capacity = capacity

    def run(self, batch: np.ndarray) -> tuple[np.ndarray, ...]:
        if batch.shape[1] * batch.shape[2] > self.capacity:
            raise DeviceError("out of memory")
        self.shapes.append(batch.shape)
        return (batch.repeat(2, axis=1).repeat(2, axis=2),)


def counting_upscaler(engine: CountingEngine, **more: Any) -> NetworkUpscaler:
    network = load_upscaling_network("a small network", small_network(2))
    return NetworkUpscaler(network, device="cpu", precision="fp32", engine=engine, **more)


def test_tiles_shrink_until_photo_result_and_tile_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiled, "_PROCESSOR_BUDGET", 32 << 20)
    engine = CountingEngine()
    upscale = counting_upscaler(engine)
    per_pixel = 1.5 * 4 * values_per_pixel(load_upscaling_network("a small network", small_network(2)))
    limits = []
    for width, height in ((420, 300), (900, 600)):
        engine.shapes.clear()
        upscale.upscale(photo(width, height), (width * 2, height * 2))
        limits.append(math.isqrt(int(((32 << 20) - width * height * 3 * 5) / per_pixel)))
        assert 288 <= max(engine.shapes[0][1:3]) <= limits[-1]
    assert limits[1] < limits[0] < 420


def test_tiles_begin_where_the_kernels_squares_do() -> None:
    for width in range(700, 716):
        grid = counting_upscaler(CountingEngine(), tile_pixels=1)._plan(photo(width, 40))
        assert len(grid.lefts) > 2
        assert all(left % 24 == 0 for left in grid.lefts)


def test_a_network_that_looks_nearby_has_equal_tiles_with_a_small_overlap() -> None:
    torch.manual_seed(0)
    state = Compact(num_feat=8, num_conv=4, upscale=2).state_dict()
    pixels, results = photo(600, 30, np.uint16), []
    for limit in (1024, 1):
        network = load_upscaling_network("a small network", state)
        upscale = NetworkUpscaler(
            network, device="cpu", precision="fp32", tile_pixels=limit, engine=TorchEngine(network, "cpu", "fp32")
        )
        grid = upscale._plan(pixels)
        results.append(upscale.upscale(pixels, (1200, 60)).astype(int))
    assert len(grid) == 3
    assert grid.lefts[0] + grid.width - grid.lefts[1] < 80  # others share 128 pixels
    assert np.abs(results[0] - results[1]).max() <= 1  # of 65,535


def test_tiles_are_halved_when_memory_runs_out() -> None:
    engine = CountingEngine(capacity=300 * 300)
    pixels = photo(700, 500)
    found = counting_upscaler(engine, tile_pixels=700).upscale(pixels, (1400, 1000))
    np.testing.assert_array_equal(found, pixels.repeat(2, axis=0).repeat(2, axis=1))
    assert all(height * width <= 300 * 300 for _, height, width, _ in engine.shapes)


def test_memory_that_holds_no_tile_is_an_error_that_names_an_option() -> None:
    with pytest.raises(DeviceError, match="--background lanczos"):
        counting_upscaler(CountingEngine(capacity=100)).upscale(photo(300, 300), (600, 600))


def test_memory_that_does_not_hold_the_least_that_a_network_takes_is_the_same_error() -> None:
    network = load_upscaling_network("a small network", small_network(2))
    network.multiple, network.minimum = 48, 512
    engine = CountingEngine(capacity=100)
    with pytest.raises(DeviceError, match="one tile of 528 pixels"):
        NetworkUpscaler(network, device="cpu", precision="fp32", engine=engine).upscale(photo(300, 300), (600, 600))


def test_no_other_error_of_a_tile_is_survived() -> None:
    class Broken(CountingEngine):
        def run(self, batch: np.ndarray) -> tuple[np.ndarray, ...]:
            if len(self.shapes) == 1:
                raise RuntimeError("broken kernel")
            return super().run(batch)

    with pytest.raises(RuntimeError, match="broken kernel"):
        counting_upscaler(Broken(), tile_pixels=300).upscale(photo(400, 300), (800, 600))


def test_the_largest_layer_is_found() -> None:
    network = load_upscaling_network("a small network", Compact(num_feat=8, num_conv=2).state_dict())
    # The pixel shuffle takes 3 * 4 * 4 features for each input pixel and gives as many values.
    assert values_per_pixel(network) == 48 + 48


@pytest.mark.parametrize(("most", "batch"), [(1 << 20, 8), (300 * 300, 1)])
def test_layers_on_a_gpu_have_few_enough_values_to_count(
    monkeypatch: pytest.MonkeyPatch, most: int, batch: int
) -> None:
    each = values_per_pixel(load_upscaling_network("a small network", small_network(2)))
    monkeypatch.setattr(tiled, "_MOST_GPU_VALUES", most * each)
    engine = CountingEngine()
    network = load_upscaling_network("a small network", small_network(2))
    upscale = NetworkUpscaler(
        network, device="mps", precision="fp32", engine=engine, tile_pixels=296 if batch > 1 else 900
    )
    upscale.upscale(photo(1200, 600), (2400, 1200))
    assert engine.shapes[0][0] == batch
    assert all(math.prod(shape[:3]) <= most for shape in engine.shapes)


@pytest.mark.parametrize("state", [small_network(2), Compact(num_feat=8, num_conv=2).state_dict()])
def test_the_last_convolution_is_not_rounded_to_bf16(state: dict[str, torch.Tensor]) -> None:
    network = load_upscaling_network("a small network", state)
    pixels = np.full((1, 32, 32, 3), 0.8, np.float32) + np.linspace(0, 0.1, 32, dtype=np.float32)[:, None]
    exact, rounded = (TorchEngine(network, "cpu", precision).run(pixels)[0] for precision in ("fp32", "bf16"))
    finish_in_fp32(network)
    assert np.array_equal(TorchEngine(network, "cpu", "fp32").run(pixels)[0], exact)
    (finished,) = TorchEngine(network, "cpu", "bf16").run(pixels)
    assert len(np.unique(finished)) > 1.5 * len(np.unique(rounded))
    assert np.abs(finished - exact).max() < 0.02


# What each choice means.


class Weights:
    """Stands for the folder of weights: knows some names and records what was asked for."""

    def __init__(self, **states: Mapping[str, Any]) -> None:
        self.states = states
        self.asked: list[str] = []

    def __call__(self, name: str) -> Mapping[str, Any]:
        self.asked.append(name)
        if name not in self.states:
            raise WeightsError(f"no {name} here: take --offline away.")
        return self.states[name]


def build(choice: str, weights: Weights, notify: Callable[[str], None], scale: float = 2, device: str = "cpu") -> Any:
    return build_upscaler(
        choice, scale, read_weights=weights, device=device, precision="fp32", tile_pixels=256, notify=notify
    )


def test_plain_choices_need_no_weights() -> None:
    weights, lines = Weights(), []
    assert build("lanczos", weights, lines.append) is LANCZOS
    assert build("none", weights, lines.append) is BILINEAR
    assert (weights.asked, lines) == ([], [])
    pixels = photo(20, 20)
    np.testing.assert_array_equal(LANCZOS.upscale(pixels, (40, 40)), resize_photo(pixels, (40, 40)))
    np.testing.assert_array_equal(BILINEAR.upscale(pixels, (40, 40)), resize_photo(pixels, (40, 40), "linear"))


def test_auto_on_a_processor_is_lanczos_and_says_so() -> None:
    weights, lines = Weights(), []
    assert build("auto", weights, lines.append) is LANCZOS
    assert len(lines) == 1
    assert "--background real-esrgan" in lines[0]
    assert build("auto", weights, lines.append, scale=1) is LANCZOS
    assert len(lines) == 1
    assert weights.asked == []


def test_auto_without_weights_is_lanczos_and_says_why() -> None:
    weights, lines = Weights(), []
    assert build("auto", weights, lines.append, device="cuda:0") is LANCZOS
    assert weights.asked == ["realesrgan-x2plus"]
    assert "Lanczos" in lines[0]
    assert "no realesrgan-x2plus here" in lines[0]


def test_real_esrgan_without_weights_is_an_error() -> None:
    with pytest.raises(WeightsError, match="realesrgan-x2plus"):
        build("real-esrgan", Weights(), print)


def test_real_esrgan_runs_the_network() -> None:
    weights = Weights(**{"realesrgan-x2plus": {"params_ema": small_network(2)}})
    found = build("real-esrgan", weights, print)
    pixels = photo(64, 48)
    assert found.description == "Real-ESRGAN x2plus"
    assert np.abs(found.upscale(pixels, (128, 96)).astype(int) - untiled(2, pixels)).max() <= 1


@pytest.mark.parametrize(
    ("scale", "device", "name"),
    [
        (1, "cpu", "realesrgan-x2plus"),
        (2, "cuda:0", "realesrgan-x2plus"),
        (2.5, "cuda:0", "realesrgan-x4plus"),
        (3, "cpu", "realesr-general-x4v3"),
    ],
)
def test_the_scale_chooses_the_real_esrgan(scale: float, device: str, name: str) -> None:
    assert real_esrgan_name(scale, device) == name


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_users_own_network(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"mine{suffix}"
    torch.manual_seed(1)
    state = {key: value.half() for key, value in Compact(num_feat=8, num_conv=2).state_dict().items()}
    if suffix == ".pth":
        torch.save({"params": state}, path)
    else:
        save_file(state, path)
    found = build(str(path), Weights(), print)
    assert found.description == "mine"
    assert found.upscale(photo(40, 30), (160, 120)).shape == (120, 160, 3)


def test_words_that_are_no_choice() -> None:
    with pytest.raises(UsageError, match="realesrgan-package"):
        build("real_esrgan", Weights(), print)


def test_files_that_are_no_upscaler(tmp_path: Path) -> None:
    path = tmp_path / "odd.pth"
    torch.save({"weight": torch.zeros(3)}, path)
    with pytest.raises(UsageError, match="no network that spandrel knows"):
        build(str(path), Weights(), print)
    torch.save(Compact(num_in_ch=1, num_out_ch=1, num_feat=8, num_conv=2).state_dict(), path)
    with pytest.raises(UsageError, match="RGB"):
        build(str(path), Weights(), print)


def test_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "odd.pth"
    path.write_bytes(b"\x80\x02not weights at all")
    with pytest.raises(WeightsError):
        build(str(path), Weights(), print)


@pytest.mark.parametrize("keeps", [False, True])
def test_precision_is_kept_where_it_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keeps: bool) -> None:
    found: list[str] = []

    def upscaler(network: object, *, precision: str, **_: object) -> None:
        found.append(precision)

    monkeypatch.setattr(background, "NetworkUpscaler", upscaler)
    monkeypatch.setattr(UpscalingNetwork, "steady_precision", lambda *_: "steady")
    path = tmp_path / "own.safetensors"
    save_file(small_network(2), path)
    build_upscaler(str(path), 2, read_weights=dict, device="cpu", precision="bf16", keeps_precision=keeps, notify=print)
    assert found == ["bf16" if keeps else "steady"]
