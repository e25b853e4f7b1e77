"""The engine: one network, the same numbers on torch and OpenVINO, whatever the batch."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from gfprestore import compiled_cache, engine
from gfprestore.engine import build_engine, resolve_device, resolve_precision
from gfprestore.errors import DeviceError, ExitCode
from gfprestore.openvino_graph import UnknownOperationError, record
from gfprestore.outofmemory import WORDS, OutOfMemoryError
from gfprestore.torch_engine import TorchEngine

ENGINES = [False, True]


class Blur(nn.Module):
    """uint8 NHWC pixels in; a convolution of them and their mean out."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(3, 5, 3, padding=1)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        features = F.leaky_relu(self.convolution(pixels.permute(0, 3, 1, 2).float() / 255), 0.2)
        return features, features.flatten(1).sigmoid()


class Everything(nn.Module):
    """What the recorder knows, in one network: float [1 4 6 8] in."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        torch.manual_seed(0)
        kernel, grouped, back = torch.randn(6, 4, 3, 3), torch.randn(8, 2, 3, 3), torch.randn(4, 3, 3, 3)
        row = x[:, 1, ::5, 2:7]
        changed = x * 2 - 1
        changed.narrow(2, -1, 1).sub_(x[:, :, 0, :][:, :, None])
        codes = x[:, :, 0, 0]
        return (
            F.conv2d(x, kernel, torch.randn(6), padding=1, stride=2),
            F.conv2d(x, grouped, padding=(1, 0), groups=2, dilation=2),
            F.conv_transpose2d(x, back, torch.randn(3), stride=2, padding=1),
            F.linear(codes, torch.randn(5, 4), torch.randn(5)),
            torch.rsqrt(codes.square() @ torch.rand(4, 7) + 1),
            F.relu(x) + F.leaky_relu(x, 0.2),
            F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False),
            F.interpolate(x, scale_factor=(1, 2), mode="nearest"),
            F.pad(F.avg_pool2d(x, 2), (1, 2, 0, 1), mode="replicate"),
            F.pad(x, (3, 1), value=2.5),
            torch.cat([x[:, :2], x[:, -1:]], dim=1),
            torch.ones(1, 4, 1, 1) * x / 3,
            x.flatten(1).unflatten(1, (2, -1)),
            x[:, :1].expand(-1, 3, -1, -1),
            (x * 3).round().clamp(-2, 2),
            row,
            changed,
            (x * 10).clamp(0, 255).round().byte(),
        )


def pixels(count: int, side: int = 16) -> NDArray[Any]:
    return np.random.default_rng(1).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def build(prefer_openvino: bool, sides: tuple[int | None, int | None] = (16, 16), **options: Any) -> Any:
    shape = (None, *sides, 3)
    options = {"device": "cpu", "precision": "fp32", "input_dtype": "uint8", **options}
    return build_engine(Blur().eval(), shape, prefer_openvino=prefer_openvino, **options)


@pytest.mark.parametrize("prefer_openvino", ENGINES)
@pytest.mark.parametrize("sides", [(16, 16), (None, None)])
def test_engine_gives_the_networks_own_numbers(prefer_openvino: bool, sides: tuple[int | None, int | None]) -> None:
    batch = pixels(3)
    with torch.inference_mode():
        expected = [output.numpy() for output in Blur()(torch.from_numpy(batch))]
    for given, wanted in zip(build(prefer_openvino, sides).run(batch), expected, strict=True):
        np.testing.assert_allclose(given, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("prefer_openvino", ENGINES)
def test_item_has_the_same_bytes_in_any_batch_and_thread(prefer_openvino: bool) -> None:
    engine, batch = build(prefer_openvino), pixels(5)
    together = engine.run(batch)[0]
    found: dict[int, NDArray[Any]] = {}

    def run_one(item: int) -> None:
        found[item] = engine.run(batch[item : item + 1])[0]

    threads = [threading.Thread(target=run_one, args=(item,)) for item in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together.tobytes() == np.concatenate([found[item] for item in range(5)]).tobytes()


@pytest.mark.parametrize("prefer_openvino", ENGINES)
def test_half_precision_is_near_and_not_the_same(prefer_openvino: bool) -> None:
    full, half = (build(prefer_openvino, precision=precision).run(pixels(1))[0] for precision in ("fp32", "bf16"))
    assert half.dtype == np.float32
    np.testing.assert_allclose(half, full, atol=0.02)
    assert not np.array_equal(half, full)


def test_recorded_graph_does_what_torch_does() -> None:
    x = torch.randn(1, 4, 6, 8, generator=torch.Generator().manual_seed(2))
    compiled = openvino.Core().compile_model(
        record(Everything(), (1, 4, 6, 8), torch.float32), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    given = compiled([x.numpy()])
    with torch.inference_mode():
        expected = Everything()(x)
    for position, wanted in enumerate(expected):
        np.testing.assert_allclose(given[position], wanted.numpy(), rtol=1e-4, atol=1e-5, err_msg=str(position))


@pytest.mark.parametrize(
    "operation",
    [
        torch.sigmoid,
        lambda x: x.cumsum(1),
        lambda x: x[[0]],
        lambda x: x[x[0, 0] > 0],
        lambda x: F.interpolate(x, size=(5, 5)),
        lambda x: torch.cat([x, None]),
        lambda x: x.flatten(0, 1),
        lambda x: torch.zeros(1),
    ],
)
def test_recorder_refuses_what_it_does_not_know(operation: Any) -> None:
    class Other(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return operation(x)

    with pytest.raises(UnknownOperationError):
        record(Other(), (1, 2, 4, 4), torch.float32)


def test_compiled_models_are_kept_and_the_oldest_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "new" / "cache"
    first = build(True, cache_folder=folder).run(pixels(1))[0]
    assert len(list(folder.glob("*.blob"))) == 1
    assert np.array_equal(build(True, cache_folder=folder).run(pixels(1))[0], first)
    assert len(list(folder.glob("*.blob"))) == 1
    monkeypatch.setattr(compiled_cache, "MOST_CACHED", 1)
    build(True, (8, 8), cache_folder=folder)
    assert len(list(folder.glob("*.blob"))) == 1


def test_truncated_cache_is_compiled_anew(tmp_path: Path) -> None:
    first = build(True, cache_folder=tmp_path).run(pixels(1))[0]
    (blob,) = tmp_path.glob("*.blob")
    blob.write_bytes(blob.read_bytes()[:100])
    assert np.array_equal(build(True, cache_folder=tmp_path).run(pixels(1))[0], first)


def test_compiled_model_with_wrong_bytes_is_compiled_anew(tmp_path: Path) -> None:
    first = build(True, cache_folder=tmp_path).run(pixels(1))[0]
    (blob,) = tmp_path.glob("*.blob")
    whole = blob.read_bytes()
    compiled_cache._checked.clear()  # another process would know of none
    for start in range(0, len(whole), len(whole) // 3):
        damaged = bytearray(whole)
        damaged[start : start + 400] = bytes(byte ^ 0x40 for byte in damaged[start : start + 400])
        blob.write_bytes(damaged)
        assert np.array_equal(build(True, cache_folder=tmp_path).run(pixels(1))[0], first)
        assert blob.read_bytes() != damaged


def test_compiled_model_of_a_run_that_was_killed_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "1234.blob").write_bytes(b"unfinished, and so without a digest")
    build(True, cache_folder=tmp_path)
    assert [path.stem for path in tmp_path.glob("*.blob")] == [path.stem for path in tmp_path.glob("*.sha256")]
    assert not (tmp_path / "1234.blob").exists()


def test_unusable_cache_folder_is_no_obstacle(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    assert build(True, cache_folder=tmp_path / "file").run(pixels(1))[0].shape == (1, 5, 16, 16)
    assert "not kept" in caplog.text


class Greedy(nn.Module):
    """Holds `most` items; more are too many, or meet another error."""

    def __init__(self, most: int, error: BaseException) -> None:
        super().__init__()
        self.most, self.error, self.sizes = most, error, list[int]()

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        if len(x) > self.most:
            raise self.error
        return x * 2


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        *map(RuntimeError, WORDS),
    ],
)
def test_batch_that_does_not_fit_is_halved_for_good(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    network = Greedy(2, error)
    engine = TorchEngine(network, "cpu", "fp32", largest_batch=7)
    batch = np.arange(7, dtype=np.float32)[:, None]
    for _ in range(2):
        (given,) = engine.run(batch)
        assert np.array_equal(given, batch * 2)
    assert network.sizes == [7, 4, 2, 2, 2, 1, 2, 2, 2, 1]
    assert [record.args for record in caplog.records] == [("cpu", 7, 4), ("cpu", 4, 2)]


def test_network_that_does_not_fit_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("full")

    network = Greedy(1, MemoryError())
    monkeypatch.setattr(network, "to", full)
    with pytest.raises(DeviceError, match=r"cpu does not hold the networks.*--device"):
        TorchEngine(network, "cpu", "fp32")


def test_networks_on_one_gpu_take_turns() -> None:
    networks = [nn.Identity() for _ in range(3)]
    first, second, other = (
        TorchEngine(network, device, "fp32") for network, device in zip(networks, ("mps", "mps", "cpu"), strict=True)
    )
    assert first._lock is second._lock
    assert other._lock is not TorchEngine(nn.Identity(), "cpu", "fp32")._lock


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "fp32"), ((8, 0), "bf16"), ((12, 0), "bf16")])
def test_precision_is_that_of_the_device_meant(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: str
) -> None:
    capabilities = {"cuda:0": (8, 9), "cuda:1": capability}
    monkeypatch.setattr(torch.cuda, "get_device_capability", capabilities.__getitem__)
    assert resolve_precision("auto", "cuda:1") == expected


def test_fp32_is_not_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    TorchEngine(nn.Identity(), "cpu", "fp32")
    assert not torch.backends.cudnn.allow_tf32


def test_item_that_does_not_fit_names_the_options() -> None:
    engine = TorchEngine(Greedy(0, torch.OutOfMemoryError("full")), "cpu", "fp32")
    with pytest.raises(OutOfMemoryError, match=r"--batch-size.*--device") as caught:
        engine.run(np.zeros((4, 1), np.float32))
    assert caught.value.exit_code is ExitCode.DEVICE


def test_other_errors_of_a_network_are_not_taken_for_full_memory() -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        TorchEngine(Greedy(0, RuntimeError("shapes differ")), "cpu", "fp32").run(np.zeros((4, 1), np.float32))


@pytest.mark.parametrize(
    ("words", "expected"), [("Failed to allocate 134217728 bytes of memory", OutOfMemoryError), ("wrong", RuntimeError)]
)
def test_openvinos_full_memory_is_told_from_its_other_errors(words: str, expected: type[Exception]) -> None:
    class Request:
        def infer(self, *_: Any, **__: Any) -> None:
            raise RuntimeError(words)

    engine = build(True)
    engine._request = Request()
    with pytest.raises(expected):
        engine.run(pixels(2))


@pytest.mark.parametrize("name", ["tpu", "cuda:", "cuda:x", "cpu:0", "CPU", ""])
def test_unknown_devices_are_refused_by_name(name: str) -> None:
    with pytest.raises(DeviceError, match="--device"):
        resolve_device(name)


def test_missing_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == "cpu"
    for name in ("cuda", "cuda:1", "mps"):
        with pytest.raises(DeviceError, match="--device cpu"):
            resolve_device(name)


def test_cuda_devices_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(engine, "may_have_gpu", lambda: True)
    assert (resolve_device("auto"), resolve_device("cuda"), resolve_device("cuda:1")) == ("cuda:0", "cuda:0", "cuda:1")
    with pytest.raises(DeviceError, match="only 2 CUDA devices"):
        resolve_device("cuda:2")


def test_without_a_driver_of_any_gpu_torch_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: pytest.fail("torch was asked"))
    monkeypatch.setattr(engine, "may_have_gpu", lambda: False)
    assert resolve_device("auto") == "cpu"
    monkeypatch.setattr(engine, "may_have_gpu", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert resolve_device("auto") == "cpu"


def test_precision_is_chosen_by_the_processor() -> None:
    capable = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    assert resolve_precision("auto", "cpu") == ("bf16" if capable else "fp32")
    assert resolve_precision("auto", "mps") == "fp32"
    assert resolve_precision("bf16", "cpu") == "bf16"
    with pytest.raises(DeviceError, match="--precision"):
        resolve_precision("fp16", "cpu")


ENGINE_OF_ANOTHER_THREAD = """
import gc, signal, threading
import numpy as np
from torch import nn
from gfprestore.engine import build_engine, resolve_precision

def build():
    return build_engine(nn.Conv2d(3, 3, 3), (None, 3, 8, 8), device="cpu", precision="fp32")

held = [build()]  # by the main thread, which hears the signals

def drop():
    held.clear()
    gc.collect()

thread = threading.Thread(target=drop)
thread.start()
thread.join()
heard = []
signal.signal(signal.SIGINT, lambda *_: heard.append(1))
signal.raise_signal(signal.SIGINT)
assert heard
"""


def test_signal_after_an_engine_ended_in_another_thread_is_survived() -> None:
    subprocess.run([sys.executable, "-c", ENGINE_OF_ANOTHER_THREAD], check=True)


def test_a_model_is_dropped_only_where_a_new_one_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for side in (8, 16, 24):
        build(True, (side, side), cache_folder=tmp_path)
    blobs = set(tmp_path.glob("*.blob"))
    monkeypatch.setattr(compiled_cache, "MOST_CACHED", 2)
    build(True, (8, 8), cache_folder=tmp_path)
    assert set(tmp_path.glob("*.blob")) == blobs
    build(True, (32, 32), cache_folder=tmp_path)
    assert len(set(tmp_path.glob("*.blob"))) == 2
