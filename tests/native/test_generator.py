"""The compiled kernels: every kind of step against torch, and the whole network against its own definition."""

from __future__ import annotations

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_programs import EXACT, PRESENT, error, needs_kernels, noise, put, run, weights_of
from numpy.typing import NDArray
from torch import Tensor

from gfprestore.native import library, running
from gfprestore.native.engine import NativeEngine, build_native_engine
from gfprestore.native.generator import Generator
from gfprestore.native.levels import find_levels
from gfprestore.native.library import FOLDER, SUFFIX, Library
from gfprestore.native.network import fits
from gfprestore.native.operands import Buffer, Epilogue, Flag, Kind
from gfprestore.native.program import SMALLEST_TILED, ProgramBuilder
from gfprestore.native.running import share
from gfprestore.nn.gfpgan import Gfpgan
from gfprestore.nn.layers import double, halve
from gfprestore.nn.shape import GfpganShape, Resampling, Sft

SMALL = GfpganShape((128, 64, 64, 64, 64), (64, 32, 32, 32, 32), latent_size=64, mlp_layers=0)

pytestmark = needs_kernels


@settings(deadline=None, max_examples=40)
@given(
    side=st.sampled_from([4, 8, 16, 32, 64]),
    inputs=st.sampled_from([32, 64, 96]),
    outputs=st.sampled_from([32, 64]),
    doubles=st.booleans(),
    after=st.sampled_from(["nothing", "halved", "residual", "residual first", "doubled residual", "transform"]),
    styled=st.booleans(),
    smallest_large=st.sampled_from([4, 1000]),
    apart=st.booleans(),
    seed=st.integers(0, 99),
)
def test_convolution_with_all_that_joins_it_is_torchs(
    kernels: Library,
    side: int,
    inputs: int,
    outputs: int,
    doubles: bool,
    after: str,
    styled: bool,
    smallest_large: int,
    apart: bool,
    seed: int,
) -> None:
    x, weight, bias = noise(1, inputs, side, side, seed=seed), noise(outputs, inputs, 3, 3), noise(outputs)
    style = noise(inputs, seed=1) if styled else None
    gain, grain = noise(outputs, seed=2), noise(side * (1 + doubles), side * (1 + doubles), seed=3)
    wanted = x if style is None else x * style[:, None, None]
    wanted = F.conv2d(double(wanted) if doubles else wanted, weight, padding=1)
    adds_first = after == "residual first" and min(grain.shape) >= SMALLEST_TILED
    if adds_first:
        wanted = wanted + noise(1, *wanted.shape[1:], seed=6)
    wanted = F.leaky_relu(wanted * gain[:, None, None] + bias[:, None, None] + grain, 0.2)
    builder = ProgramBuilder(kernels, half=False, smallest_large=smallest_large)
    if apart:
        builder = replace(builder, near_weights=0, tile_memory=1)
    sources = [put(builder, x)]
    epilogue = Epilogue(gain=gain.numpy(), bias=bias.numpy(), noise=grain.numpy(), slope=0.2)
    if after == "halved":
        wanted = halve(wanted)
    elif after == "transform":
        scale, shift = (noise(1, 32, *wanted.shape[2:], seed=seed) for seed in (4, 5))
        wanted[:, -32:] = wanted[:, -32:] * scale + shift
        sources += [put(builder, scale), put(builder, shift)]
        epilogue = replace(epilogue, scale=sources[1][0], shift=sources[2][0])
    elif after != "nothing":
        residual = noise(1, *wanted.shape[1:], seed=6)
        if after == "doubled residual":
            residual = halve(residual)
        if not adds_first:
            wanted = wanted + (double(residual) if after == "doubled residual" else residual)
        sources.append(put(builder, residual))
        epilogue = replace(epilogue, residual=sources[1][0])
    given_style = None if style is None else style.numpy()
    result = builder.convolve(
        sources[0][0],
        weight.numpy(),
        epilogue,
        style=given_style,
        wider=Flag.DOUBLES_INPUT if doubles else None,
        halves=after == "halved",
        adds_first=adds_first,
    )
    assert error(run(builder, sources, result), wanted) < EXACT


def test_features_beyond_the_cache_are_stored_as_well(kernels: Library) -> None:
    x, weight = noise(1, 32, 256, 256), noise(64, 32, 3, 3)
    builder = ProgramBuilder(kernels, half=False)
    source = put(builder, x)
    result = builder.convolve(source[0], weight.numpy(), Epilogue())
    assert error(run(builder, [source], result), F.conv2d(x, weight, padding=1)) < EXACT


def test_steps_between_convolutions_are_torchs(kernels: Library) -> None:
    x, other, weight = noise(1, 64, 16, 16), noise(1, 64, 16, 16, seed=1), noise(32, 64)
    for step, wanted in (
        (lambda b, x, _: b.resample(Kind.DOUBLE, x), double(x)),
        (lambda b, x, _: b.resample(Kind.HALVE, x), halve(x)),
        (lambda b, x, other: b.sum(x, other), x + other),
        (lambda b, x, _: b.multiply(x, weight.numpy(), Epilogue()), F.conv2d(x, weight[:, :, None, None])),
    ):
        builder = ProgramBuilder(kernels, half=False)
        sources = [put(builder, x), put(builder, other)]
        assert error(run(builder, sources, step(builder, sources[0][0], sources[1][0])), wanted) < EXACT


def random_network(shape: GfpganShape, seed: int = 0) -> Gfpgan:
    torch.manual_seed(seed)
    network = Gfpgan(shape).eval().requires_grad_(False)
    for parameter in network.parameters():
        if parameter.squeeze().ndim <= 1:  # noise and biases, which start at zero
            parameter.data += 0.1 * torch.randn_like(parameter)
    return network


def face(size: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (1, size, size, 3), dtype=np.uint8)


def image_of(native: NativeEngine, pixels: NDArray[np.uint8]) -> Tensor:
    native.run(pixels)
    return torch.from_numpy(native.generator.image.copy()).permute(2, 0, 1)[None]


def wanted_image(network: Gfpgan, pixels: NDArray[np.uint8]) -> Tensor:
    image: Tensor = network(torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1)
    return image


NARROW = GfpganShape((32, 32, 16, 16, 8), (16, 16, 8, 8, 4), latent_size=64, mlp_layers=0)
"""Its largest size fills vectors only in blocks, or where these are short not even then."""

UNEVEN = replace(NARROW, decoder_widths=(32, 32, 16, 16, 12), unet_widths=(16, 16, 8, 8, 4))
"""Its largest size fills vectors of four only in blocks."""

ODD = GfpganShape((40, 24, 20, 12, 10), (20, 12, 10, 6, 5), latent_size=64, mlp_layers=0)
"""Fills no vector anywhere."""

SHAPES = [
    SMALL,
    replace(SMALL, sft=Sft.FULL),
    replace(SMALL, sft=Sft.NONE),
    replace(SMALL, many_codes=False),
    replace(SMALL, decoder_widths=(64, 128, 64, 64, 64, 64), unet_widths=(32, 64, 32, 64, 32, 32)),
    NARROW,
    replace(NARROW, sft=Sft.FULL),
    replace(NARROW, sft=Sft.NONE),
    replace(NARROW, decoder_widths=(32, 32, 16, 16, 16, 8), unet_widths=(16, 16, 16, 8, 16, 4)),
    replace(NARROW, decoder_widths=(16, 16, 16, 16, 16), unet_widths=(8, 8, 8, 8, 8)),
    UNEVEN,
    ODD,
]
NAMES = ["half", "full", "no transform", "one code", "128 pixels"]
NAMES += [f"narrow {name}" for name in ("half", "full", "no transform", "128 pixels", "even")] + ["uneven", "odd"]


@pytest.mark.parametrize("shape", SHAPES, ids=NAMES)
def test_network_is_the_one_that_torch_runs(kernels: Library, shape: GfpganShape) -> None:
    network, pixels = random_network(shape), face(shape.out_size)
    native = NativeEngine(weights_of(network), kernels, "fp32")
    wanted = wanted_image(network, pixels)
    assert error(image_of(native, pixels), wanted) < EXACT
    exact = ((wanted + 1) * 127.5).clamp(0, 255)[0].permute(1, 2, 0).numpy()
    assert np.abs(native.run(pixels)[0][0] - exact).max() < 0.51  # rounded, not cut off


@settings(deadline=None, max_examples=10)
@given(st.lists(st.integers(1, 40), min_size=5, max_size=5), st.lists(st.integers(1, 40), min_size=5, max_size=5))
def test_networks_of_any_widths_are_those_that_torch_runs(
    kernels: Library, decoder: list[int], unet: list[int]
) -> None:
    shape = GfpganShape(tuple(1 + width for width in decoder), tuple(unet), latent_size=64, mlp_layers=0)
    network, pixels = random_network(shape), face(64)
    given = image_of(NativeEngine(weights_of(network), kernels, "fp32"), pixels)
    assert error(given, wanted_image(network, pixels)) < EXACT


@pytest.mark.parametrize("shape", [SMALL, SHAPES[4], NARROW], ids=["wide", "128 pixels", "narrow"])
def test_half_precision_stays_near(kernels: Library, shape: GfpganShape) -> None:
    if not kernels.has_half:
        pytest.skip("these kernels have no bfloat16")
    network, pixels = random_network(shape), face(shape.out_size)
    wanted = wanted_image(network, pixels)
    given = image_of(NativeEngine(weights_of(network), kernels, "bf16"), pixels)
    assert 1e-5 < error(given, wanted) < 0.02


@pytest.mark.parametrize("tile_memory", [1, 1 << 20])
@pytest.mark.parametrize("half", [False, True])
def test_a_convolution_in_three_steps_gives_the_same_bytes_as_in_one(
    kernels: Library, half: bool, tile_memory: int
) -> None:
    if half and not kernels.has_half:
        pytest.skip("these kernels have no bfloat16")
    x, weight = noise(1, 96, 70, 64), noise(96, 96, 3, 3)
    results = []
    for near_weights in (0, 1 << 30):
        builder = ProgramBuilder(kernels, half, near_weights=near_weights, tile_memory=tile_memory)
        source = put(builder, x)
        result = builder.convolve(source[0], weight.numpy(), Epilogue())
        assert (len(builder.steps) > 1) == (near_weights == 0)
        results.append(run(builder, [source], result).numpy().tobytes())
    assert results[0] == results[1]


@pytest.mark.parametrize("doubles", [False, True])
@pytest.mark.parametrize("size", [(40, 48), (30, 36)], ids=["whole tiles", "parts of tiles"])
@pytest.mark.parametrize("near_weights", [0, 1 << 30], ids=["three steps", "one step"])
def test_features_in_bfloat16_are_the_floats_rounded(
    kernels: Library, doubles: bool, size: tuple[int, int], near_weights: int
) -> None:
    if not kernels.has_half:
        pytest.skip("these kernels have no bfloat16")
    x, wider = noise(1, 32, *size), Flag.DOUBLES_INPUT if doubles else None
    first, scale, shift, last = (
        noise(64, 32, 3, 3),
        *(noise(32, 32, 3, 3, seed=k) for k in (1, 2)),
        noise(64, 64, 3, 3),
    )

    def make() -> ProgramBuilder:
        return ProgramBuilder(kernels, half=True, smallest_rounded=16, near_weights=near_weights)

    def alone(x: Tensor, weight: Tensor, wider: Flag | None = None) -> Tensor:
        builder = make()
        source = put(builder, x)
        result = builder.convolve(source[0], weight.numpy(), Epilogue(), wider=wider)
        return run(builder, [source], result).bfloat16().float()

    builder = make()
    source = put(builder, x)
    both = builder.convolve(source[0], first.numpy(), Epilogue(), rounds=True)
    pair = [
        builder.convolve(both.part(32 * k, 32), weight.numpy(), Epilogue(), wider=wider, rounds=True)
        for k, weight in enumerate((scale, shift))
    ]
    result = builder.convolve(both, last.numpy(), Epilogue(scale=pair[0], shift=pair[1]), wider=wider)
    assert both.rounded and pair[0].rounded and not result.rounded
    given = run(builder, [source], result)

    made = alone(x, first)
    factors = [alone(made[:, 32 * k : 32 * k + 32].contiguous(), w, wider) for k, w in enumerate((scale, shift))]
    builder = make()
    sources = [put(builder, values) for values in (made, *factors)]
    after = Epilogue(scale=sources[1][0], shift=sources[2][0])
    wanted = run(builder, sources, builder.convolve(sources[0][0], last.numpy(), after, wider=wider))
    # Compilers may join a product and a sum in one of the two and not in the other, which moves a few values.
    assert (given != wanted).float().mean() < 1e-4
    assert error(given, wanted) < 2e-3


def test_faces_are_the_same_bytes_in_every_company_and_on_every_number_of_threads(
    kernels: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = random_network(SMALL)
    batch = np.concatenate([face(64, seed) for seed in range(3)])
    results = []
    for threads in (1, 2, 5):
        monkeypatch.setattr(running, "count_threads", lambda count=threads: count)
        native = NativeEngine(weights_of(network), kernels, "fp32")
        results.append(native.run(batch)[0])
        results.append(np.concatenate([native.run(batch[item : item + 1])[0] for item in range(3)]))
    assert all(result.tobytes() == results[0].tobytes() for result in results)
    assert results[0].std() > 1


def test_what_fits_and_what_does_not_is_left_to_others() -> None:
    full = GfpganShape((512, 512, 512, 512, 512, 256, 128, 64), (256, 256, 256, 256, 256, 128, 64, 32))
    assert fits(full)
    assert fits(NARROW)
    assert not fits(replace(full, resampling=Resampling.FIR))
    assert not fits(replace(full, latent_size=96))
    tiny = GfpganShape((16, 8), (8, 4), latent_size=64, mlp_layers=0)
    assert build_native_engine(weights_of(random_network(tiny)), "fp32") is None


def test_blocks_are_used_where_vectors_are_longer_than_channels_are_many() -> None:
    for shape, lanes, has_blocks in (
        (NARROW, 16, True),
        (NARROW, 8, True),
        (NARROW, 4, False),
        (UNEVEN, 16, False),
        (UNEVEN, 8, True),
        (UNEVEN, 4, True),
    ):
        levels = find_levels(shape, lanes)
        assert [level.unet.has_blocks for level in levels] == [False] * 4 + [has_blocks]
        for level in levels:
            assert all(
                len(one.channels) % lanes == 0 for one in (level.unet, level.decoder, level.transform, level.hidden)
            )


def test_another_engine_is_taken_where_the_kernels_are_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(library, "FOLDER", tmp_path)
    library.load_library.cache_clear()
    try:
        assert build_native_engine(weights_of(random_network(SMALL)), "fp32") is None
    finally:
        library.load_library.cache_clear()


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9999), st.integers(0, 20), st.integers(0, 6)), min_size=1, max_size=25))
def test_buffers_in_use_at_one_step_never_overlap(sizes: list[tuple[int, int, int]]) -> None:
    buffers = [Buffer(size, first, first + length) for size, first, length in sizes]
    places, total = share(buffers)
    for one in buffers:
        assert 0 <= places[id(one)] <= total - one.size
        for other in buffers:
            if other is one or other.first > one.last or one.first > other.last:
                continue
            start, end = places[id(one)], places[id(other)]
            assert start + one.size <= end or end + other.size <= start


def test_features_share_memory(kernels: Library) -> None:
    with ThreadPoolExecutor(1) as pool:
        generator = Generator(weights_of(random_network(SMALL)), kernels, False, pool)
    alone = sum(buffer.size for buffer in generator.buffers)
    assert generator.program.memory_size < 0.6 * alone


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_kernels_are_compiled_from_their_sources(tmp_path: Path) -> None:
    copy = tmp_path / "native"
    shutil.copytree(FOLDER.parent, copy, ignore=shutil.ignore_patterns("compiled", "__pycache__"))
    done = subprocess.run([sys.executable, copy / "build.py"], capture_output=True, text=True, check=True)
    built = [Path(line) for line in done.stdout.splitlines()]
    assert built
    assert sorted(path.name for path in (copy / "compiled").iterdir()) == sorted(path.name for path in built)
    assert {Library(copy / "compiled" / f"{kind}{SUFFIX}").panel for kind in PRESENT} <= {8, 16, 32}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "processor"),
    [
        ("x86_64-windows-gnu", ["-mavx2", "-mfma"]),
        ("x86_64-macos", ["-mavx2", "-mfma"]),
        ("aarch64-macos", []),
        ("aarch64-linux-gnu", []),
    ],
)
def test_kernels_compile_for_other_systems(target: str, processor: list[str], tmp_path: Path) -> None:
    pytest.importorskip("ziglang", reason="needs a compiler for other systems, as in the package ziglang")
    compiler = [sys.executable, "-m", "ziglang", "cc", "-target", target, *processor, "-O1", "-shared"]
    command = [*compiler, '-DINTERFACE="0"', FOLDER.parent / "program.c", "-o", tmp_path / "kernels"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_a_library_of_other_sources_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.c").write_text("int nothing;")
    (tmp_path / "older.c").write_text('const char *interface(void) { return "0123"; }')
    for name in ("other", "older"):
        path = tmp_path / f"{name}{SUFFIX}"
        subprocess.run(["cc", "-shared", "-fPIC", tmp_path / f"{name}.c", "-o", path], check=True)
        with pytest.raises(OSError, match=r"other sources.*build\.py"):
            Library(path)
