"""RetinaFace on the compiled kernels against facexlib's own."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kernel_programs import needs_kernels, settle
from numpy.typing import NDArray

from gfprestore.detect import build_detector
from gfprestore.detection.network import DetectionNetwork, build_network, load_network
from gfprestore.detection.priors import MEAN
from gfprestore.native import detector, running
from gfprestore.native.detector import MOST_PROGRAMS, NativeDetectionEngine, build_native_detector
from gfprestore.native.library import Library, load_library
from gfprestore.native.retinaface import Retinaface
from gfprestore.nn.tensors import as_arrays
from gfprestore.torch_engine import TorchEngine
from gfprestore.weights import read_state_dict

SHIPPED = Path(__file__).resolve().parents[2] / "weights" / "detector_compact_fp16.safetensors"
EXACT = 1e-5
"""Largest error, relative to the largest value."""

HALF_ERROR = 0.02
"""The same in bfloat16, root mean square, relative to the deviation."""

State = dict[str, NDArray[Any]]

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    needs_kernels,
]


@pytest.fixture(params=["mobile0.25", "resnet50"])
def state(request: pytest.FixtureRequest) -> State:
    return random_state(request.param)


@cache
def random_state(kind: str) -> State:
    torch.manual_seed(3)
    network = build_network(kind)
    settle(network, 60)
    return as_arrays(network.state_dict())


def photos(height: int, width: int, count: int = 1) -> NDArray[np.uint8]:
    return np.random.default_rng(height).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def facexlibs(state: State, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    (rows,) = TorchEngine(DetectionNetwork(load_network(state)), "cpu", "fp32").run(pixels)
    return rows


def assert_equal(given: NDArray[np.float32], wanted: NDArray[np.float32]) -> None:
    assert given.shape == wanted.shape
    for part in (slice(0, 1), slice(1, 5), slice(5, 15)):
        assert wanted[..., part].std() > 1e-3
        error = np.abs(given[..., part] - wanted[..., part]).max() / np.abs(wanted[..., part]).max()
        assert error < EXACT, (part, error)


def test_photos_of_any_size_come_out_as_facexlib_has_them(kernels: Library, state: State) -> None:
    engine = NativeDetectionEngine(Retinaface(state, kernels, "fp32"), kernels, MEAN)
    # Sides of one cell, of fewer pixels than a block, of more; and again what memory was shared with since.
    for height, width in ((64, 96), (32, 32), (160, 224), (32, 288), (64, 96)):
        pixels = photos(height, width)
        assert_equal(engine.run(pixels)[0], facexlibs(state, pixels))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_photo_has_the_same_bytes_in_any_batch_and_on_any_number_of_threads(
    kernels: Library, state: State, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if precision == "bf16" and not kernels.has_half:
        pytest.skip("these kernels have no bfloat16")
    pixels, results = photos(96, 64, count=2), []
    for threads in (1, 3):
        monkeypatch.setattr(running, "count_threads", lambda count=threads: count)
        engine = NativeDetectionEngine(Retinaface(state, kernels, precision), kernels, MEAN)
        results += [engine.run(pixels)[0], np.concatenate([engine.run(pixels[:1])[0], engine.run(pixels[1:])[0]])]
    assert all(result.tobytes() == results[0].tobytes() for result in results)


def test_large_backbone_in_bfloat16_says_nearly_the_same(kernels: Library) -> None:
    if not kernels.has_half:
        pytest.skip("these kernels have no bfloat16")
    state = random_state("resnet50")
    engine = NativeDetectionEngine(Retinaface(state, kernels, "bf16"), kernels, MEAN)
    assert engine.precision == "bf16"
    # A side of which halves and quarters are odd, and places that fill no block.
    for height, width in ((160, 224), (32, 96)):
        pixels = photos(height, width)
        given, wanted = engine.run(pixels)[0], facexlibs(state, pixels)
        for part in (slice(0, 1), slice(1, 5), slice(5, 15)):
            error = given[..., part] - wanted[..., part]
            assert 0 < np.sqrt(np.square(error).mean()) < HALF_ERROR * wanted[..., part].std()


def test_small_backbone_is_never_rounded(kernels: Library) -> None:
    state, pixels = random_state("mobile0.25"), photos(96, 64)
    engines = [NativeDetectionEngine(Retinaface(state, kernels, one), kernels, MEAN) for one in ("fp32", "bf16")]
    assert [engine.precision for engine in engines] == ["fp32", "fp32"]
    assert engines[0].run(pixels)[0].tobytes() == engines[1].run(pixels)[0].tobytes()


def test_processor_without_bfloat16_computes_in_float(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detector, "library_for", lambda precision: load_library() if precision == "fp32" else None)
    engine = build_native_detector(random_state("resnet50"), MEAN, "bf16")
    assert engine is not None and engine.precision == "fp32"


def test_few_programs_are_kept_and_all_share_their_memory(kernels: Library) -> None:
    engine = NativeDetectionEngine(Retinaface(random_state("mobile0.25"), kernels, "fp32"), kernels, MEAN)
    engine.run(photos(96, 96))
    first = engine._memory.take(0)
    sizes = [(32, 32 * count) for count in range(1, MOST_PROGRAMS + 2)]
    for size in sizes:
        engine.run(photos(*size))
    assert list(engine._programs) == sizes[1:]
    assert engine._memory.take(0) is first
    before = engine.run(photos(32, 64))[0]
    engine.run(photos(128, 128))  # takes more memory, which the others know nothing of
    assert list(engine._programs) == [(128, 128)]
    assert engine.run(photos(32, 64))[0].tobytes() == before.tobytes()


def test_scores_of_what_is_surely_no_face_are_zero(kernels: Library) -> None:
    state = random_state("mobile0.25") | {
        f"ClassHead.{level}.conv1x1.bias": np.float32([500, -500, -500, 500]) for level in range(3)
    }
    rows = NativeDetectionEngine(Retinaface(state, kernels, "fp32"), kernels, MEAN).run(photos(32, 32))[0]
    assert np.array_equal(rows[0, :, 0], np.tile(np.float32([0, 1]), rows.shape[1] // 2))


def test_half_floats_and_names_as_released_are_read() -> None:
    pixels = photos(64, 64)
    state = read_state_dict(SHIPPED)
    finder = build_detector(
        {f"module.{name}": tensor for name, tensor in state.items()}, device="cpu", threshold=0.5, min_face=0
    )
    assert isinstance(finder._engine, NativeDetectionEngine)
    assert_equal(finder._engine.run(pixels)[0], facexlibs(state, pixels))


def test_other_networks_are_left_to_others() -> None:
    state = random_state("mobile0.25")
    assert build_native_detector(state, MEAN, "fp32") is not None
    assert build_native_detector({}, MEAN, "fp32") is None
    assert build_native_detector(state | {"extra.weight": np.zeros(1, np.float32)}, MEAN, "fp32") is None


@pytest.mark.parametrize(("kind", "every"), [("mobile0.25", 5), ("resnet50", 29)])
def test_tensors_that_lack_or_have_another_shape_are_never_read_beyond_their_end(kind: str, every: int) -> None:
    state = as_arrays(build_network(kind).state_dict())
    names = [name for name in state if not name.endswith("num_batches_tracked")]
    for name in names[::every]:
        assert build_native_detector({key: state[key] for key in state if key != name}, MEAN, "fp32") is None
        assert build_native_detector(state | {name: state[name][:-1]}, MEAN, "fp32") is None
