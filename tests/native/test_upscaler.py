"""Real-ESRGAN's networks on the compiled kernels against spandrel's own."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from kernel_programs import needs_kernels
from numpy.typing import NDArray
from spandrel.architectures.Compact import Compact
from spandrel.architectures.ESRGAN import ESRGAN
from torch import nn

from gfprestore.background import load_network
from gfprestore.native import running
from gfprestore.native.library import Library, library_for
from gfprestore.native.program import SMALLEST_LARGE
from gfprestore.native.rrdb import Rrdb
from gfprestore.native.srvgg import Srvgg
from gfprestore.native.upscaler import NativeUpscalerEngine, read_tile_network
from gfprestore.torch_engine import TorchEngine
from gfprestore.upscaling.kernel_network import KernelNetwork
from gfprestore.upscaling.network import UpscalingNetwork, load_upscaling_network
from gfprestore.upscaling.upscaler import _ALIGNMENT, NetworkUpscaler

EXACT = 2e-5

pytestmark = needs_kernels


def random_rrdb(factor: int = 2, filters: int = 64, blocks: int = 2) -> nn.Module:
    """Real-ESRGAN x2plus shrinks its input first; x4plus does not."""
    torch.manual_seed(0)
    shuffle = 2 if factor == 2 else None
    network = ESRGAN(
        in_nc=12 if shuffle else 3,
        num_filters=filters,
        num_blocks=blocks,
        scale=4 if shuffle else factor,
        shuffle_factor=shuffle,
    )
    for parameter in network.parameters():
        parameter.data *= 1.5  # so that the blocks count beside their shortcuts
    last = network.model[-1]
    last.weight.data *= 4
    last.bias.data += 0.5  # most values inside the range, where nothing is cut off
    return network.eval().requires_grad_(False)


def random_srvgg(factor: int = 4, filters: int = 64) -> nn.Module:
    torch.manual_seed(0)
    network = Compact(num_feat=filters, num_conv=3, upscale=factor)
    for parameter in network.parameters():
        parameter.data *= 2  # so that the layers count beside the photo itself
    for layer in network.body:
        if isinstance(layer, nn.PReLU):
            layer.weight.data.uniform_(-1.6, 1.9)  # general-x4v3's own reach
    network.body[-1].weight.data *= 0.1
    network.body[-1].bias.data -= 0.2  # most values inside the range, where nothing is cut off
    return network.eval().requires_grad_(False)


def random_network(kind: type[Rrdb | Srvgg]) -> nn.Module:
    return random_rrdb() if kind is Rrdb else random_srvgg()


def arrays(network: nn.Module) -> dict[str, NDArray[Any]]:
    """Its state dict, as read off a file."""
    return {name: tensor.numpy() for name, tensor in network.state_dict().items()}


def unused() -> Any:
    raise AssertionError("nothing here is too small for tiles")


def photo(height: int, width: int, count: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(0).random((count, height, width, 3), np.float32)


def spandrels(network: nn.Module, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    result: torch.Tensor = network(torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous())
    return result.clamp(0, 1).permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("factor", [2, 4])
def test_tiles_of_any_size_come_out_as_spandrel_has_them(kernels: Library, factor: int) -> None:
    network = random_rrdb(factor)
    engine = NativeUpscalerEngine(Rrdb(arrays(network), kernels), kernels, "fp32", unused)
    for height, width in ((32, 32), (52, 36), (46, 66), (52, 36)):
        pixels = photo(height, width)
        wanted = spandrels(network, pixels)
        assert wanted.std() > 0.05
        assert np.abs(engine.run(pixels)[0] - wanted).max() < EXACT


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_tiles_of_the_small_network_come_out_as_spandrel_has_them(kernels: Library, factor: int) -> None:
    network = random_srvgg(factor)
    engine = NativeUpscalerEngine(Srvgg(arrays(network), kernels), kernels, "fp32", unused)
    for height, width in ((16, 16), (52, 37), (70, 96)):
        pixels = photo(height, width, count=2)
        wanted = spandrels(network, pixels)
        given = engine.run(pixels)[0]
        assert given.shape == wanted.shape and wanted.std() > 0.05 and ((wanted > 0) & (wanted < 1)).mean() > 0.5
        assert np.abs(given - wanted).max() < EXACT


@pytest.mark.parametrize("kind", [Rrdb, Srvgg])
def test_half_precision_stays_near(kernels: Library, kind: type[Rrdb | Srvgg]) -> None:
    if not kernels.has_half:
        pytest.skip("these kernels have no bfloat16")
    network, pixels = random_network(kind), photo(48, 48)
    given = NativeUpscalerEngine(kind(arrays(network), kernels), kernels, "bf16", unused).run(pixels)[0]
    error = np.abs(given - spandrels(network, pixels))
    assert 1e-5 < np.sqrt(np.square(error).mean()) < 0.01


@pytest.mark.parametrize("kind", [Rrdb, Srvgg])
def test_tile_has_the_same_bytes_in_any_batch_and_on_any_number_of_threads(
    kernels: Library, kind: type[Rrdb | Srvgg], monkeypatch: pytest.MonkeyPatch
) -> None:
    network, pixels, results = random_network(kind), photo(48, 40, count=2), []
    for threads in (1, 3):
        monkeypatch.setattr(running, "count_threads", lambda count=threads: count)
        engine = NativeUpscalerEngine(kind(arrays(network), kernels), kernels, "fp32", unused)
        results += [engine.run(pixels)[0], np.concatenate([engine.run(pixels[:1])[0], engine.run(pixels[1:])[0]])]
    assert all(result.tobytes() == results[0].tobytes() for result in results)


def test_what_is_too_small_for_tiles_is_left_to_another_engine(kernels: Library) -> None:
    class Pixelwise(nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return network(pixels.permute(0, 3, 1, 2)).clamp(0, 1).permute(0, 2, 3, 1)

    network = random_rrdb()
    engine = NativeUpscalerEngine(
        Rrdb(arrays(network), kernels), kernels, "fp32", lambda: TorchEngine(Pixelwise(), "cpu", "fp32")
    )
    for height, width in ((8, 8), (40, 16)):
        pixels = photo(height, width)
        assert np.abs(engine.run(pixels)[0] - spandrels(network, pixels)).max() < EXACT


ESRGANS = {
    "model.0": "conv_first",
    "model.1.sub.2": "conv_body",
    "model.3": "conv_up1",
    "model.6": "conv_up2",
    "model.8": "conv_hr",
    "model.10": "conv_last",
}
BSRGANS = {"conv_up1": "upconv1", "conv_up2": "upconv2", "conv_body": "trunk_conv", "conv_hr": "HRconv"}


def released_name(name: str) -> str:
    """Real-ESRGAN's name for what spandrel calls as ESRGAN's first form does, for two blocks and two doublings."""
    name, _, kind = name.rpartition(".")
    block = re.fullmatch(r"model.1.sub.(\d).RDB(\d).conv(\d).0", name)
    return (f"body.{block[1]}.rdb{block[2]}.conv{block[3]}" if block else ESRGANS[name]) + f".{kind}"


def bsrgans_name(name: str) -> str:
    name, _, kind = released_name(name).rpartition(".")
    block = re.fullmatch(r"body.(\d).rdb(\d).conv(\d)", name)
    return (f"RRDB_trunk.{block[1]}.RDB{block[2]}.conv{block[3]}" if block else BSRGANS.get(name, name)) + f".{kind}"


@pytest.mark.parametrize("rename", [released_name, bsrgans_name])
@pytest.mark.parametrize("factor", [2, 4])
def test_every_spelling_of_a_network_is_known(kernels: Library, rename: Callable[[str], str], factor: int) -> None:
    state = arrays(random_rrdb(factor))
    one, other = (
        NativeUpscalerEngine(Rrdb(names, kernels), kernels, "fp32", unused)
        for names in (state, {rename(name): array for name, array in state.items()})
    )
    pixels = photo(36, 40)
    np.testing.assert_array_equal(one.run(pixels)[0], other.run(pixels)[0])


OTHERS = {
    "another kind": nn.Sequential(nn.Conv2d(3, 3, 3)),
    "no whole panels of any kernels": random_rrdb(filters=20),
    "ESRGAN+": ESRGAN(num_blocks=1, plus=True),
    "no blocks": ESRGAN(num_blocks=0),
    "gray": ESRGAN(num_blocks=1, in_nc=1, out_nc=1),
    "made smaller": ESRGAN(num_blocks=1, in_nc=48, shuffle_factor=4, scale=2),
    "no whole panels": random_srvgg(filters=20),
    "small and gray": Compact(num_in_ch=1, num_out_ch=1),
    "with opacity": Compact(num_in_ch=4, num_out_ch=3),
    "without slopes": Compact(num_conv=2, act_type="relu"),
}


@pytest.mark.parametrize("network", OTHERS.values(), ids=OTHERS)
def test_other_networks_are_left_to_others(network: nn.Module) -> None:
    assert read_tile_network(arrays(network), "fp32") is None


@pytest.mark.parametrize("kind", [Rrdb, Srvgg])
def test_a_network_with_anything_missing_changed_or_more_is_another(kind: type[Rrdb | Srvgg]) -> None:
    state = arrays(random_network(kind))
    assert isinstance(read_tile_network(state, "fp32"), kind)
    for name, array in state.items():
        for changed in ({}, {name: array[:-1]}, {name: array[..., None]}, {name: np.float32(0)}):
            assert read_tile_network({key: state[key] for key in state if key != name} | changed, "fp32") is None
    assert read_tile_network(state | {"attention.weight": np.zeros(3, np.float32)}, "fp32") is None
    assert read_tile_network({}, "fp32") is None


@pytest.mark.parametrize("kind", [Rrdb, Srvgg])
def test_a_network_trained_on_several_gpus_is_known(kind: type[Rrdb | Srvgg]) -> None:
    state = {f"module.{name}": array for name, array in arrays(random_network(kind)).items()}
    assert isinstance(read_tile_network(state, "fp32"), kind)


def test_a_network_that_has_two_names_for_one_layer_is_another() -> None:
    state = arrays(random_rrdb())
    assert read_tile_network(state | {"conv_first.weight": state["model.0.weight"]}, "fp32") is None


@pytest.mark.parametrize("network", [random_rrdb(2), random_rrdb(4), random_srvgg(3)], ids=["x2", "x4", "small"])
def test_it_asks_of_tiles_what_spandrels_form_asks(network: nn.Module) -> None:
    state = arrays(network)
    ours, theirs = load_network("x", state, "cpu", "fp32"), load_network("x", state, "cuda:0", "fp32")
    assert isinstance(ours, KernelNetwork) and isinstance(theirs, UpscalingNetwork)
    assert [getattr(ours, name) for name in ASKED] == [getattr(theirs, name) for name in ASKED]
    assert max(ours.minimum, ours.multiple) == max(theirs.minimum, theirs.multiple, 2)
    # Ours counts all that is alive, of which the largest layer's input and output are the most.
    assert theirs.values_per_pixel() <= ours.values_per_pixel() < 3 * theirs.values_per_pixel()


ASKED = "title", "factor", "multiple", "is_square", "overlap", "supports_bf16"


def test_photos_are_upscaled_with_it() -> None:
    state = arrays(random_rrdb(4))
    native = NetworkUpscaler(load_network("x", state, "cpu", "fp32"), device="cpu", precision="fp32")
    network = load_upscaling_network("x", state)
    other = NetworkUpscaler(network, device="cpu", precision="fp32", engine=TorchEngine(network, "cpu", "fp32"))
    pixels = np.random.default_rng(1).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    given, wanted = (one.upscale(pixels, (240, 200)) for one in (native, other))
    assert np.abs(given.astype(int) - wanted).max() <= 1


def test_a_photo_too_small_for_the_kernels_is_upscaled_all_the_same() -> None:
    state = arrays(random_rrdb(2))
    pixels = np.random.default_rng(1).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    network = load_upscaling_network("x", state)
    wanted = NetworkUpscaler(network, device="cpu", precision="fp32", engine=TorchEngine(network, "cpu", "fp32"))
    given = NetworkUpscaler(load_network("x", state, "cpu", "fp32"), device="cpu", precision="fp32")
    assert np.abs(given.upscale(pixels, (14, 18)).astype(int) - wanted.upscale(pixels, (14, 18))).max() <= 1


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("factor", [2, 4])
def test_tiles_that_begin_where_the_squares_do_change_no_bit(kernels: Library, precision: str, factor: int) -> None:
    """Every layer's rounding carries a tile's border on by one square; beyond that all is as in the whole photo."""
    if precision == "bf16" and not kernels.has_half:
        pytest.skip("these kernels have no bfloat16")
    engine = NativeUpscalerEngine(Rrdb(arrays(random_rrdb(factor, blocks=1)), kernels), kernels, precision, unused)
    shrinkage = {2: 2, 4: 1}[factor]  # x2 shrinks its input first
    square = {"fp32": 6, "bf16": 4}[precision] * shrinkage  # in pixels
    reach = (1 + 15 + 1 + 2) * square
    pixels = photo(SMALLEST_LARGE * shrinkage, reach + 40)
    whole = engine.run(pixels)[0]
    for left, is_same in ((_ALIGNMENT, True), (_ALIGNMENT + square // 2, False)):
        part = engine.run(np.ascontiguousarray(pixels[:, :, left:]))[0]
        assert np.array_equal(part[:, :, reach * factor :], whole[:, :, (left + reach) * factor :]) == is_same


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_kernels_run_photos_in_fp32(precision: str) -> None:
    network = load_network("x", arrays(random_rrdb(4, blocks=1)), "cpu", precision)
    # Not so where the kernels have no bfloat16, or the processor computes in it elsewhere: there bf16 is not theirs.
    assert network.steady_precision(precision) == ("fp32" if library_for(precision) else precision)
    # The kernels do not take this one, and OpenVINO is slow in fp32.
    other = load_network("x", arrays(random_rrdb(4, filters=20, blocks=1)), "cpu", precision)
    assert other.steady_precision(precision) == precision
