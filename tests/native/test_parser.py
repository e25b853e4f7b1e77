"""BiSeNet on the compiled kernels against facexlib's own, and the steps that only it takes."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from facexlib.parsing.bisenet import BiSeNet
from facexlib.parsing.parsenet import ParseNet
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_programs import EXACT, error, needs_kernels, noise, put, run, settle
from numpy.typing import NDArray

from gfprestore import parsing
from gfprestore.native import running
from gfprestore.native.convolutions import Writer
from gfprestore.native.library import Library
from gfprestore.native.operands import Epilogue, Features
from gfprestore.native.parser import Bisenet, NativeParsingEngine, build_native_parser
from gfprestore.native.program import ProgramBuilder
from gfprestore.nn.tensors import as_arrays
from gfprestore.parsing import PARSER_SIZE, build_parser
from gfprestore.parsing_network import load_parsing_network

CLASSES = 19
MEAN, DEVIATION = (255 * np.array(of, np.float32) for of in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))

State = dict[str, NDArray[Any]]

pytestmark = [pytest.mark.usefixtures("one_thread"), needs_kernels]


@cache
def random_state() -> State:
    torch.manual_seed(2)
    network = BiSeNet(num_class=CLASSES)
    settle(network, 1)
    with torch.no_grad():
        # What all features share would make one class the highest everywhere.
        network.conv_out.conv_out.weight -= network.conv_out.conv_out.weight.mean(1, keepdim=True)
    return as_arrays(network.state_dict())


def faces(size: int, count: int = 1) -> NDArray[np.uint8]:
    """Smooth ones, whose classes are not noise."""
    small = noise(count, 3, 8, 8, seed=size)
    pixels = (F.interpolate(small, (size, size), mode="bicubic") * 60 + 128).clamp(0, 255)
    return np.ascontiguousarray(pixels.permute(0, 2, 3, 1).byte().numpy())


def build(kernels: Library, size: int) -> NativeParsingEngine:
    return NativeParsingEngine(Bisenet(random_state(), kernels, CLASSES, MEAN, DEVIATION), kernels, size)


@pytest.mark.parametrize("size", [32, 64, 160])
def test_classes_are_those_of_facexlib(kernels: Library, size: int) -> None:
    network, _ = load_parsing_network(random_state())
    pixels = faces(size)
    with torch.inference_mode():
        scores = network.scores(torch.from_numpy(pixels))[0]
    (given,) = build(kernels, size).run(pixels)
    first, second = scores.topk(2, 0).values
    # Where two classes are all but equally likely, rounding decides.
    clear = (first - second > EXACT * scores.abs().max()).numpy()
    assert clear.mean() > 0.99
    assert len(np.unique(given)) >= 2
    assert np.array_equal(given[0][clear], scores.argmax(0).byte().numpy()[clear])


def test_face_has_the_same_bytes_in_any_batch_and_on_any_number_of_threads(
    kernels: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels, results = faces(64, count=3), []
    for threads in (1, 2, 3):
        monkeypatch.setattr(running, "count_threads", lambda count=threads: count)
        engine = build(kernels, 64)
        results += [engine.run(pixels)[0], np.concatenate([engine.run(pixels[i : i + 1])[0] for i in range(3)])]
    assert results[0].shape == (3, 64, 64)
    assert all(result.tobytes() == results[0].tobytes() for result in results)
    assert results[0][0].tobytes() != results[0][1].tobytes()


def test_other_networks_are_left_to_others() -> None:
    state = random_state()

    def native(state: State) -> NativeParsingEngine | None:
        return build_native_parser(state, CLASSES, 64, MEAN, DEVIATION)

    assert native(state) is not None
    assert native({}) is None
    assert native(state | {"extra.weight": np.zeros(1, np.float32)}) is None
    assert native(as_arrays(ParseNet(in_size=64, out_size=64, parsing_ch=CLASSES).state_dict())) is None
    names = [name for name in state if not name.endswith("num_batches_tracked") and "out16" not in name]
    for name in [name for name in names if "out32" not in name][::7]:
        assert native({key: state[key] for key in state if key != name}) is None
        assert native(state | {name: state[name][:-1]}) is None


def test_parser_takes_the_kernels_where_there_are_any(monkeypatch: pytest.MonkeyPatch) -> None:
    crops = list(faces(PARSER_SIZE))
    native = build_parser(random_state(), device="cpu", precision="bf16")
    assert isinstance(native._engine, NativeParsingEngine) and native._engine.precision == "fp32"
    monkeypatch.setattr(parsing, "build_native_parser", lambda *_: None)
    other = build_parser(random_state(), device="cpu", precision="fp32")
    assert not isinstance(other._engine, NativeParsingEngine)
    assert (native.parse(crops)[0] == other.parse(crops)[0]).mean() > 0.999


def test_means_gates_and_activations_are_torchs(kernels: Library) -> None:
    x, other, gain, bias = noise(1, 64, 7, 5), noise(1, 64, 7, 5, seed=1), noise(64, seed=2), noise(64, seed=3)
    after = Epilogue(gain=gain.numpy(), bias=bias.numpy(), slope=0.1)
    wide = (1, 64, 1, 1)
    for step, wanted in (
        (lambda w, x, _: w.mean(x), x.mean((2, 3), keepdim=True)),
        (lambda w, x, _: w.sigmoid(w.mean(x), 1), 1 + x.mean((2, 3), keepdim=True).sigmoid()),
        (lambda w, x, _: w.activate(x, after), F.leaky_relu(x * gain.view(wide) + bias.view(wide), 0.1)),
        (lambda w, x, y: w.activate(x, Epilogue(residual=y)), x + other),
    ):
        builder = ProgramBuilder(kernels, half=False)
        sources = [put(builder, x), put(builder, other)]
        assert error(run(builder, sources, step(Writer(builder), sources[0][0], sources[1][0])), wanted) < EXACT


def test_logistic_function_of_anything_is_between_nothing_and_one(kernels: Library) -> None:
    values = noise(1, 32, 1, 1)
    values[0, :4, 0, 0] = torch.tensor([-1e4, -100.0, 100.0, 1e4])
    builder = ProgramBuilder(kernels, half=False)
    source = put(builder, values)
    given = run(builder, [source], Writer(builder).sigmoid(source[0]))
    torch.testing.assert_close(given, values.sigmoid(), rtol=1e-6, atol=1e-7)


@settings(deadline=None, max_examples=30)
@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    pace=st.sampled_from([1, 2, 8]),
    count=st.sampled_from([1, 2, 19, 32]),
    levels=st.sampled_from([2, 1000]),
)
def test_class_of_the_highest_score_is_torchs(
    kernels: Library, height: int, width: int, pace: int, count: int, levels: int
) -> None:
    # Whole numbers, so that some of few levels tie exactly: then it is the first.
    scores = (noise(1, 32, height, width, seed=height) * levels).round()
    size = height * pace, width * pace
    builder = ProgramBuilder(kernels, half=False)
    source = put(builder, scores)
    classes = Writer(builder).classes(source[0], count, pace)
    # As features of one byte's quarter of the width, which `run` takes for floats.
    padded = -(-size[0] * size[1] // 4)
    classes.size = 4 * padded
    given = run(builder, [source], Features(classes, 1, padded, 1, 1)).numpy().view(np.uint8).ravel()
    found = torch.from_numpy(given[: size[0] * size[1]].reshape(size).astype(np.int64))
    wide = F.interpolate(scores[:, :count], size, mode="bilinear", align_corners=True)[0]
    chosen = wide.gather(0, found[None])[0]
    assert (wide.amax(0) - chosen <= 1e-5 * wide.abs().max()).all()
    if pace == 1:
        assert torch.equal(found, wide.argmax(0))
