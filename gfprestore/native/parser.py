"""facexlib's BiSeNet (arXiv:1808.00897) as a program for the compiled kernels: faces in, a class for every pixel out.

Its backbone is ResNet-18 (arXiv:1512.03385), whose features of an eighth of the size stand for the paper's spatial
path. What the network is only trained with, its two auxiliary outputs, is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gfprestore.native.convolutions import Kernel, Layers, Product, Writer
from gfprestore.native.engine import FaceEngine
from gfprestore.native.library import Library, library_for
from gfprestore.native.operands import CHANNELS, Array, Epilogue, Features, Flag, Floats
from gfprestore.native.program import ProgramBuilder
from gfprestore.native.running import Program

STAGES = ((1, 64), (2, 128), (3, 256), (4, 512))
"""Of the backbone, with their channels; all but the first halve."""

CONTEXT = 128
"""Channels of the context path."""

FUSED = 256
"""Channels of both paths together."""

STRIDE = 32
"""Faces have sides of multiples of this."""

SCORED = 8
"""How many times smaller than the face the scores are."""


class Block(NamedTuple):
    """A basic block of ResNet-18."""

    first: Kernel | Product
    """Tiled, or a product where it halves its input."""

    second: Kernel
    shortcut: Product | None
    pace: int


class Gate(NamedTuple):
    """A matrix on the mean of all pixels, and what is added."""

    weight: Floats
    """[O I]"""

    bias: Floats
    """[O]"""


class Bisenet:
    """The layers of a BiSeNet."""

    def __init__(
        self,
        state: Mapping[str, NDArray[Any]],
        library: Library,
        classes: int,
        mean: NDArray[np.float32],
        deviation: NDArray[np.float32],
    ) -> None:
        """Read and pack them.

        Args:
            state: Its weights.
            library: The kernels to pack them for.
            classes: How many it tells apart.
            mean: RGB, taken off every pixel, 0 to 255.
            deviation: RGB, which the rest is divided by.

        Raises:
            KeyError: Layers are missing.
            ValueError: Layers are too many or have other shapes: this is another network.
        """
        layers = Layers(state, library, half=False)
        layers.ignore("conv_out16.", "conv_out32.")
        self.classes, self.mean = classes, mean
        stem = layers.fused("cp.resnet.conv1", "cp.resnet.bn1", STAGES[0][1], CHANNELS, 7)
        scale = np.reciprocal(deviation)[:, None, None]  # [I 1 1]
        self.stem = layers.product(Kernel(stem.weight * scale, stem.bias), exact=True)
        self.stages = _read_backbone(layers)
        self.average = _read_gate(layers, "cp.conv_avg.conv", CONTEXT, STAGES[3][1], "cp.conv_avg.bn")
        self.refinements = [
            (
                layers.tiled(_read_joined(layers, f"cp.arm{stride}.conv", CONTEXT, inputs, 3)),
                _read_gate(layers, f"cp.arm{stride}.conv_atten", CONTEXT, CONTEXT, f"cp.arm{stride}.bn_atten"),
            )
            for stride, inputs in ((16, STAGES[2][1]), (32, STAGES[3][1]))
        ]
        """A convolution and the gate of its channels, of the third stage and of the fourth."""

        self.heads = [
            layers.tiled(_read_joined(layers, f"cp.conv_head{stride}", CONTEXT, CONTEXT, 3)) for stride in (16, 32)
        ]
        self.fusion = layers.product(_read_joined(layers, "ffm.convblk", FUSED, FUSED, 1))
        self.attention = (
            _read_gate(layers, "ffm.conv1", FUSED // 4, FUSED),
            _read_gate(layers, "ffm.conv2", FUSED, FUSED // 4),
        )
        self.last = layers.tiled(_read_joined(layers, "conv_out.conv", FUSED, FUSED, 3))
        scores = layers.read("conv_out.conv_out.weight", classes, FUSED, 1, 1)
        self.scores = layers.product(Kernel(scores, np.zeros(classes, np.float32)))
        layers.require_all_read()


def _read_joined(layers: Layers, name: str, outputs: int, inputs: int, side: int) -> Kernel:
    """What facexlib calls ConvBNReLU."""
    return layers.fused(f"{name}.conv", f"{name}.bn", outputs, inputs, side)


def _read_gate(layers: Layers, name: str, outputs: int, inputs: int, normalisation: str | None = None) -> Gate:
    if normalisation is None:
        weight, bias = layers.read(f"{name}.weight", outputs, inputs, 1, 1), np.zeros(outputs, np.float32)
    else:
        weight, bias = layers.fused(name, normalisation, outputs, inputs, 1)
    return Gate(weight.reshape(outputs, inputs), bias)


def _read_backbone(layers: Layers) -> list[list[Block]]:
    inputs, stages = STAGES[0][1], []
    for stage, width in STAGES:
        blocks = []
        for block in range(2):
            blocks.append(_read_block(layers, f"cp.resnet.layer{stage}.{block}", inputs, width))
            inputs = width
        stages.append(blocks)
    return stages


def _read_block(layers: Layers, name: str, inputs: int, width: int) -> Block:
    """A block; where its input has not the width of its result it halves it."""
    first = layers.fused(f"{name}.conv1", f"{name}.bn1", width, inputs, 3)
    second = layers.tiled(layers.fused(f"{name}.conv2", f"{name}.bn2", width, width, 3))
    if inputs == width:
        return Block(layers.tiled(first), second, None, 1)
    shortcut = layers.fused(f"{name}.downsample.0", f"{name}.downsample.1", width, inputs, 1)
    return Block(layers.product(first), second, layers.product(shortcut), 2)


class ParsingProgram:
    """The network with its input and output."""

    def __init__(self, network: Bisenet, builder: ProgramBuilder, size: int, pool: ThreadPoolExecutor) -> None:
        """Write the program.

        Args:
            network: What to run.
            builder: Of a new program.
            size: Side of the faces, a multiple of `STRIDE`.
            pool: Packs kernels.
        """
        assert size % STRIDE == 0
        self._network, self._size, self._write = network, size, Writer(builder)
        self._input = builder.buffer(size * size * CHANNELS + 4 * builder.library.panel)
        self._output = self._write.classes(self._score(*self._look()), network.classes, SCORED)
        self._output.last = len(builder.steps)
        builder.pack_kernels(pool)
        self.program: Program = builder.build()

    def sibling(self) -> ParsingProgram:
        """The same network with features of its own."""
        other = copy(self)
        other.program = self.program.sibling()
        return other

    @property
    def pixels(self) -> Array:
        """Where the face goes: uint8 RGB (S, S, 3)."""
        size = self._size
        return self.program.view(self._input)[: size * size * CHANNELS].reshape(size, size, CHANNELS)

    @property
    def result(self) -> Array:
        """Where the classes are found after a run: uint8 (S, S)."""
        return self.program.view(self._output).reshape(self._size, self._size)

    def _look(self) -> tuple[Features, Features, Features]:
        """The backbone: `together`, whose first half are features at an eighth of the size, and those at less."""
        network, side = self._network, self._size // 2
        x = self._write.filter_pixels(self._input, network.stem, (side, side), 0, network.mean)
        x = self._write.pool(x)
        first, second, third, fourth = network.stages
        x = self._block(self._block(x, first[0]), first[1])
        x = self._block(x, second[0])
        together = self._write.builder.features(x.size, FUSED)
        eighth = self._block(x, second[1], into=together.part(0, CONTEXT))
        sixteenth = self._block(self._block(eighth, third[0]), third[1])
        return together, sixteenth, self._block(self._block(sixteenth, fourth[0]), fourth[1])

    def _block(self, x: Features, block: Block, into: Features | None = None) -> Features:
        residual = x if block.shortcut is None else self._write.convolve(x, block.shortcut, block.pace, 1)
        if isinstance(block.first, Product):
            y = self._write.convolve(x, block.first, block.pace, 0)
        else:
            y = self._write.tiled(x, block.first, slope=0)
        return self._write.tiled(y, block.second, into, slope=0, residual=residual, adds_first=True)

    def _score(self, together: Features, sixteenth: Features, thirty_second: Features) -> Features:
        """The context path into the other half of `together`, and what is made of both."""
        network, write = self._network, self._write
        average = self._cut_off(self._gate(write.mean(thirty_second), network.average))
        y = self._refine(thirty_second, 1, bias=average)
        y = self._widen(y, 1)
        y = self._refine(sixteenth, 0, residual=y)
        self._widen(y, 0, into=together.part(CONTEXT, CONTEXT))
        fused = write.multiply(together, network.fusion, 0)
        narrow, wide = network.attention
        attention = self._gate(self._cut_off(self._gate(write.mean(fused), narrow)), wide)
        # The features are added to themselves times the attention.
        y = write.tiled(fused, network.last, style=write.sigmoid(attention, 1), slope=0)
        return write.multiply(y, network.scores, 1)

    def _refine(self, x: Features, which: int, **after: Any) -> Features:
        """Attention refinement: a convolution, times what its mean says of each channel; then something is added."""
        kernel, gate = self._network.refinements[which]
        y = self._write.tiled(x, kernel, slope=0)
        gain = self._write.sigmoid(self._gate(self._write.mean(y), gate))
        return self._write.activate(y, Epilogue(gain=gain, **after))

    def _widen(self, x: Features, which: int, into: Features | None = None) -> Features:
        """Every pixel four times, and a convolution."""
        return self._write.tiled(x, self._network.heads[which], into, wider=Flag.REPEATS_INPUT, slope=0)

    def _gate(self, x: Features, gate: Gate) -> Features:
        return self._write.builder.linear(x, gate.weight, gate.bias)

    def _cut_off(self, x: Features) -> Features:
        return self._write.activate(x, Epilogue(slope=0))


class NativeParsingEngine(FaceEngine[ParsingProgram]):
    """BiSeNet on faces: uint8 RGB [N S S 3] -> classes uint8 [N S S]. Always in float."""

    def __init__(self, network: Bisenet, library: Library, size: int) -> None:
        def write(pool: ThreadPoolExecutor) -> ParsingProgram:
            return ParsingProgram(network, ProgramBuilder(library, half=False, smallest_tiled=1), size, pool)

        super().__init__(write, "fp32")


def build_native_parser(
    state: Mapping[str, NDArray[Any]],
    classes: int,
    size: int,
    mean: NDArray[np.float32],
    deviation: NDArray[np.float32],
) -> NativeParsingEngine | None:
    """The engine, or None where something else runs the network.

    Args:
        state: Of facexlib's BiSeNet.
        classes: How many it tells apart.
        size: Side of the faces, a multiple of 32.
        mean: RGB, taken off every pixel, 0 to 255.
        deviation: RGB, which the rest is divided by.
    """
    library = library_for("fp32")
    if library is None:
        return None
    try:
        network = Bisenet(state, library, classes, mean, deviation)
    except (KeyError, ValueError):  # another network
        return None
    return NativeParsingEngine(network, library, size)
