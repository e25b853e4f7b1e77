"""Real-ESRGAN's RRDBNet (arXiv:1809.00219, section 3.1) as a program for the compiled kernels.

The features of a dense block lie side by side in one buffer, so that nothing is ever concatenated.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gfprestore.engine import Engine, out_of_memory
from gfprestore.native.engine import count_threads
from gfprestore.native.library import Library, has_matrix_unit, load_library
from gfprestore.native.operands import Array, Epilogue, Features, Flag
from gfprestore.native.program import SMALLEST_TILED, ProgramBuilder
from gfprestore.native.running import Program, aligned

GROWTH = 32
"""Channels that every convolution of a dense block adds."""

RESIDUAL_SHARE = 0.2
"""Of what a block adds to its input."""

LEAK = 0.2
"""Slope of every leaky ReLU below zero."""

CHANNELS = 3
"""Of a photo."""


class Rrdb:
    """The convolutions of an RRDBNet."""

    def __init__(self, network: nn.Module, library: Library) -> None:
        """Read them off spandrel's network.

        Raises:
            ValueError: It is built otherwise, or its widths do not fit the kernels.
        """
        self.shuffle = int(getattr(network, "shuffle_factor", None) or 1)
        layers = list(network.get_submodule("model").children())
        trunk = list(layers[1].get_submodule("sub").children())
        self.first = _convolution(layers[0])
        self.blocks = [_dense_blocks(block) for block in trunk[:-1]]
        self.last_of_trunk = _convolution(trunk[-1])
        tail = layers[2:]
        self.upsampled, self.rest = [], []
        while tail and isinstance(tail[0], nn.Upsample):
            _require(tail[0].scale_factor == 2 and tail[0].mode == "nearest" and isinstance(tail[2], nn.LeakyReLU))
            self.upsampled.append(_convolution(tail[1]))
            tail = tail[3:]
        _require(len(tail) == 3 and isinstance(tail[1], nn.LeakyReLU))
        self.rest = [_convolution(tail[0]), _convolution(tail[2])]
        self.factor = 2 ** len(self.upsampled)
        _require(self.first.out_channels % library.panel == 0 and library.panel <= GROWTH)
        _require(self.rest[1].out_channels == CHANNELS)


def _require(condition: bool) -> None:
    if not condition:
        raise ValueError("this is no RRDBNet that the kernels know")


def _convolution(layer: nn.Module) -> nn.Conv2d:
    _require(isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3) and layer.bias is not None)
    assert isinstance(layer, nn.Conv2d)
    return layer


def _dense_blocks(block: nn.Module) -> list[list[nn.Conv2d]]:
    """The five convolutions of each of the three dense blocks."""
    dense = [getattr(block, name, None) for name in ("RDB1", "RDB2", "RDB3")]
    found = []
    for one in dense:
        _require(isinstance(one, nn.Module) and getattr(one, "conv1x1", None) is None)
        assert isinstance(one, nn.Module)
        convolutions = [list(one.get_submodule(f"conv{index}").children()) for index in range(1, 6)]
        _require(all(len(parts) == 2 and isinstance(parts[1], nn.LeakyReLU) for parts in convolutions[:4]))
        _require(len(convolutions[4]) == 1)
        found.append([_convolution(parts[0]) for parts in convolutions])
        _require(all(layer.out_channels == GROWTH for layer in found[-1][:4]))
    return found


class RrdbProgram:
    """The network for tiles of one size."""

    def __init__(self, network: Rrdb, builder: ProgramBuilder, size: tuple[int, int], pool: ThreadPoolExecutor) -> None:
        """Write the program.

        Args:
            network: What to run.
            builder: With the kernels that an earlier program packed.
            size: (H, W) of the network's first features.
            pool: Packs kernels.
        """
        self._network, self._builder = network, builder
        inputs = _round_up(network.first.in_channels, builder.library.panel)
        with torch.inference_mode():
            self._input = builder.features(size, inputs)
            self._output = self._write(self._input)
        self._output.buffer.last = len(builder.steps)
        builder.pack_kernels(pool)
        self.program: Program = builder.build()

    def given(self) -> Array:
        """Where the input goes: float [H W I], its channels filled up with zeros."""
        return self._view(self._input)

    def found(self) -> Array:
        """Where the result is: float [H' W' 3]."""
        return self._view(self._output)

    def _view(self, features: Features) -> Array:
        shape = features.height, features.width, features.stride
        floats = self.program.view(features.buffer).view(np.float32)
        return floats[: shape[0] * shape[1] * shape[2]].reshape(shape)

    def _write(self, x: Features) -> Features:
        network, builder = self._network, self._builder
        width = network.first.out_channels
        first = self._convolve(x, network.first, into=self._dense(x.size, width).part(0, width))
        features = first
        for block in network.blocks:
            features = self._block(features, block)
        features = self._convolve(features, network.last_of_trunk, residual=first)
        for layer in network.upsampled:
            features = self._convolve(features, layer, slope=LEAK, wider=Flag.REPEATS_INPUT)
        features = self._convolve(features, network.rest[0], slope=LEAK)
        last = network.rest[1]
        panels = _round_up(CHANNELS, builder.library.panel)
        weight, bias = (_fill(tensor, 0, panels) for tensor in (last.weight, last.bias))
        y = builder.features(features.size, CHANNELS)
        return builder.convolve(features, self._kept(last, weight), Epilogue(bias=_array(bias)), into=y)

    def _dense(self, size: tuple[int, int], width: int) -> Features:
        return self._builder.features(size, width + 4 * GROWTH)

    def _block(self, x: Features, block: Sequence[Sequence[nn.Conv2d]]) -> Features:
        """Three dense blocks; `x` lies in the first one's buffer."""
        start, width = x, x.channels
        for index, layers in enumerate(block):
            dense = Features(x.buffer, x.height, x.width, width + 4 * GROWTH, x.stride)
            for number, layer in enumerate(layers[:4]):
                reach = width + number * GROWTH
                self._convolve(dense.part(0, reach), layer, slope=LEAK, into=dense.part(reach, GROWTH))
            share, residual = RESIDUAL_SHARE, x
            if index == len(block) - 1:
                # start + 0.2 (x + 0.2 y): what does not depend on y is added first.
                share, residual = RESIDUAL_SHARE**2, self._builder.sum(start, x, RESIDUAL_SHARE)
            into = self._dense(x.size, width).part(0, width)
            x = self._convolve(dense, layers[4], share=share, residual=residual, into=into)
        return x

    def _convolve(
        self,
        x: Features,
        layer: nn.Conv2d,
        *,
        slope: float = 1.0,
        share: float = 1.0,
        residual: Features | None = None,
        wider: Flag | None = None,
        into: Features | None = None,
    ) -> Features:
        assert layer.bias is not None
        weight = self._kept(layer, _fill(layer.weight, 1, x.channels))
        gain = None if share == 1 else np.full(layer.out_channels, share, np.float32)
        after = Epilogue(gain=gain, bias=_array(share * layer.bias), slope=slope, residual=residual)
        return self._builder.convolve(x, weight, after, wider=wider, into=into)

    def _kept(self, layer: nn.Conv2d, weight: Tensor) -> Tensor:
        """The filled-up weight, the same tensor for every program, since packed kernels go by it."""
        kept: Tensor = layer.__dict__.setdefault("_filled_weight", weight)
        return kept


def _fill(tensor: Tensor | None, axis: int, size: int) -> Tensor:
    """Zeros after the end of an axis."""
    assert tensor is not None
    if tensor.shape[axis] == size:
        return tensor.detach()
    zeros = list(tensor.shape)
    zeros[axis] = size - tensor.shape[axis]
    return torch.cat([tensor.detach(), tensor.new_zeros(zeros)], axis)


def _array(tensor: Tensor) -> Array:
    return np.ascontiguousarray(tensor.detach().numpy())


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


class NativeUpscalerEngine:
    """RRDBNet on photos: float32 [N H W 3] in [0, 1] -> [N fH fW 3]; see `gfprestore.engine.Engine`."""

    device = "cpu"

    def __init__(self, network: Rrdb, library: Library, precision: str, other: Callable[[], Engine]) -> None:
        """Take over the network.

        Args:
            network: What to run.
            library: The kernels.
            precision: `fp32` or `bf16`.
            other: Builds an engine for what is too small for tiles.
        """
        self.precision = precision
        self.bytes_per_pixel = 2.0 * 4 * network.first.out_channels * (network.factor / network.shuffle) ** 2
        """Memory for each pixel of a tile: the input and output of the last convolutions, which are the largest."""
        self._network, self._library, self._other = network, library, other
        self._threads = count_threads()
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="upscaler")
        self._lock = threading.Lock()
        self._kernels = ProgramBuilder(library, precision == "bf16").kernels
        self._program: RrdbProgram | None = None
        self._size = (0, 0)
        self._small: Engine | None = None

    def run(self, batch: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """Enlarge tiles; see `gfprestore.engine.Engine.run`."""
        shuffle = self._network.shuffle
        size = batch.shape[1] // shuffle, batch.shape[2] // shuffle
        with self._lock:
            if min(size) < SMALLEST_TILED or batch.shape[1] % shuffle or batch.shape[2] % shuffle:
                self._small = self._small or self._other()
                return self._small.run(batch)
            try:
                return (np.stack([self._enlarge(tile, size) for tile in batch]),)
            except MemoryError as error:
                self._program = None
                raise out_of_memory(self.device) from error

    def _enlarge(self, tile: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
        if self._program is None or self._size != size:
            self._program = None  # its memory goes before the next one's comes
            builder = ProgramBuilder(self._library, self.precision == "bf16", kernels=self._kernels)
            self._program, self._size = RrdbProgram(self._network, builder, size, self._pool), size
        program, shuffle = self._program.program, self._network.shuffle
        given = self._program.given()
        given[:] = 0
        # As torch's pixel_unshuffle: channel c, row i, column j of a square go to channel (c, i, j).
        squares = tile.reshape(size[0], shuffle, size[1], shuffle, CHANNELS).transpose(0, 2, 4, 1, 3)  # [H W C i j]
        given[..., : CHANNELS * shuffle**2] = squares.reshape(*size, -1)
        program.prepare()
        scratch = [aligned(program.scratch_size) for _ in range(self._threads)]
        for run in [self._pool.submit(program.run, self._threads, own) for own in scratch]:
            run.result()
        return np.clip(self._program.found(), 0, 1)


def build_native_upscaler(network: nn.Module, precision: str, other: Callable[[], Engine]) -> Engine | None:
    """The engine, or None where something else runs the network better or at all.

    Args:
        network: spandrel's.
        precision: `fp32` or `bf16`.
        other: Builds the engine that runs what is too small for tiles.
    """
    library = load_library()
    if library is None or (precision == "bf16" and (not library.has_half or has_matrix_unit())):
        return None
    try:
        layers = Rrdb(network, library)
    except (ValueError, AttributeError, IndexError):  # another network
        return None
    return NativeUpscalerEngine(layers, library, precision, other)
