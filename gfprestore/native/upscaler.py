"""Real-ESRGAN's RRDBNet (arXiv:1809.00219, section 3.1) as a program for the compiled kernels.

The features of a dense block lie side by side in one buffer, so that nothing is ever concatenated.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from gfprestore.engine import Engine
from gfprestore.native.library import Library, library_for
from gfprestore.native.operands import Array, Epilogue, Features, Flag
from gfprestore.native.program import SMALLEST_TILED, ProgramBuilder
from gfprestore.native.running import Crew, Program
from gfprestore.outofmemory import out_of_memory

Floats = NDArray[np.float32]

GROWTH = 32
"""Channels that every convolution of a dense block adds."""

RESIDUAL_SHARE = 0.2
"""Of what a block adds to its input."""

LEAK = 0.2
"""Slope of every leaky ReLU below zero."""

CHANNELS = 3
"""Of a photo."""


@dataclass(frozen=True, eq=False)
class Layer:
    """A 3x3 convolution whose channels are filled up with zeros to what the kernels take."""

    weight: Floats
    """[O I 3 3]"""

    bias: Floats
    """[O]"""


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
        first = _convolution(layers[0])
        self.blocks = [_dense_blocks(block) for block in trunk[:-1]]
        self.last_of_trunk = _convolution(trunk[-1])
        tail = layers[2:]
        self.upsampled = []
        while tail and isinstance(tail[0], nn.Upsample):
            _require(tail[0].scale_factor == 2 and tail[0].mode == "nearest" and _is_leaky(tail[2]))
            self.upsampled.append(_convolution(tail[1]))
            tail = tail[3:]
        _require(len(tail) == 3 and _is_leaky(tail[1]))
        self.before_last, last = _convolution(tail[0]), _convolution(tail[2])
        self.factor = 2 ** len(self.upsampled)
        self.width = first.weight.shape[0]
        _require(self.width % library.panel == 0 and library.panel <= GROWTH and last.weight.shape[0] == CHANNELS)
        self.first = Layer(_fill(first.weight, 1, library.panel), first.bias)
        self.last = Layer(_fill(last.weight, 0, library.panel), _fill(last.bias, 0, library.panel))


def _require(condition: bool) -> None:
    if not condition:
        raise ValueError("this is no RRDBNet that the kernels know")


def _is_leaky(layer: nn.Module) -> bool:
    return isinstance(layer, nn.LeakyReLU) and layer.negative_slope == LEAK


def _convolution(layer: nn.Module) -> Layer:
    _require(isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3) and layer.padding == (1, 1))
    assert isinstance(layer, nn.Conv2d)
    _require(layer.stride == (1, 1) and layer.bias is not None)
    assert layer.bias is not None
    return Layer(layer.weight.detach().numpy(), layer.bias.detach().numpy())


def _dense_blocks(block: nn.Module) -> list[list[Layer]]:
    """The five convolutions of each of the three dense blocks."""
    found = []
    for one in (getattr(block, name, None) for name in ("RDB1", "RDB2", "RDB3")):
        _require(isinstance(one, nn.Module) and getattr(one, "conv1x1", None) is None)
        assert isinstance(one, nn.Module)
        parts = [list(one.get_submodule(f"conv{index}").children()) for index in range(1, 6)]
        _require(all(len(part) == 2 and _is_leaky(part[1]) for part in parts[:4]) and len(parts[4]) == 1)
        found.append([_convolution(part[0]) for part in parts])
        _require(all(layer.weight.shape[0] == GROWTH for layer in found[-1][:4]))
    return found


def _fill(array: Floats, axis: int, multiple: int) -> Floats:
    """Zeros after the end of an axis, up to a multiple."""
    zeros = [(0, -length % multiple if axis == index else 0) for index, length in enumerate(array.shape)]
    return np.pad(array, zeros)


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
        self._input = builder.features(size, network.first.weight.shape[1])
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
        network, width = self._network, self._network.width
        first = self._convolve(x, network.first, into=self._dense(x.size, width).part(0, width))
        features = first
        for block in network.blocks:
            features = self._block(features, block)
        features = self._convolve(features, network.last_of_trunk, residual=first)
        for layer in network.upsampled:
            features = self._convolve(features, layer, slope=LEAK, wider=Flag.REPEATS_INPUT)
        features = self._convolve(features, network.before_last, slope=LEAK)
        return self._convolve(features, network.last, into=self._builder.features(features.size, CHANNELS))

    def _dense(self, size: tuple[int, int], width: int) -> Features:
        return self._builder.features(size, width + 4 * GROWTH)

    def _block(self, x: Features, block: Sequence[Sequence[Layer]]) -> Features:
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
        layer: Layer,
        *,
        slope: float = 1.0,
        share: float = 1.0,
        residual: Features | None = None,
        wider: Flag | None = None,
        into: Features | None = None,
    ) -> Features:
        gain = None if share == 1 else np.full(len(layer.bias), share, np.float32)
        bias = np.ascontiguousarray(share * layer.bias)
        after = Epilogue(gain=gain, bias=bias, slope=slope, residual=residual)
        return self._builder.convolve(x, layer.weight, after, wider=wider, into=into)


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
        self.bytes_per_pixel = 2.0 * 4 * network.width * (network.factor / network.shuffle) ** 2
        """Memory for each pixel of a tile: the input and output of the last convolutions, which are the largest."""
        self._network, self._library, self._other = network, library, other
        self._crew = Crew()
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
            self._program, self._size = RrdbProgram(self._network, builder, size, self._crew.pool), size
        shuffle = self._network.shuffle
        given = self._program.given()
        given[:] = 0
        # As torch's pixel_unshuffle: channel c, row i, column j of a square go to channel (c, i, j).
        squares = tile.reshape(size[0], shuffle, size[1], shuffle, CHANNELS).transpose(0, 2, 4, 1, 3)  # [H W C i j]
        given[..., : CHANNELS * shuffle**2] = squares.reshape(*size, -1)
        self._crew.run(self._program.program)
        return np.clip(self._program.found(), 0, 1)


def build_native_upscaler(network: nn.Module, precision: str, other: Callable[[], Engine]) -> Engine | None:
    """The engine, or None where something else runs the network better or at all.

    Args:
        network: spandrel's.
        precision: `fp32` or `bf16`.
        other: Builds the engine that runs what is too small for tiles.
    """
    library = library_for(precision)
    layers = None if library is None else _read_layers(network, library)
    if library is None or layers is None:
        return None
    return NativeUpscalerEngine(layers, library, precision, other)


def runs_natively(network: nn.Module, precision: str) -> bool:
    """Whether `build_native_upscaler` has an engine for spandrel's network."""
    library = library_for(precision)
    return library is not None and _read_layers(network, library) is not None


def _read_layers(network: nn.Module, library: Library) -> Rrdb | None:
    try:
        return Rrdb(network, library)
    except (ValueError, AttributeError, IndexError):  # another network
        return None
