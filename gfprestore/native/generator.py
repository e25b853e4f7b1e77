"""GFP-GAN's program, ready to run, with its input and output."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from copy import copy

import numpy as np

from gfprestore.native.library import Library
from gfprestore.native.network import RGB, NetworkWriter
from gfprestore.native.operands import Array
from gfprestore.native.program import ProgramBuilder
from gfprestore.native.running import Program
from gfprestore.nn.weights import GfpganWeights


class Generator:
    """The network's program with its input and output."""

    def __init__(self, weights: GfpganWeights, library: Library, half: bool, pool: ThreadPoolExecutor) -> None:
        self.size = weights.shape.out_size
        writer = NetworkWriter(weights, ProgramBuilder(library, half))
        self._input, self._image, self._output = writer.write()
        writer.builder.pack_kernels(pool)
        self.buffers = writer.builder.buffers
        self.program: Program = writer.builder.build()

    def sibling(self) -> Generator:
        """The same network with features of its own."""
        other = copy(self)
        other.program = self.program.sibling()
        return other

    @property
    def pixels(self) -> Array:
        """Where the face goes: uint8 RGB (S, S, 3)."""
        return self.program.view(self._input).reshape(self.size, self.size, 3)

    @property
    def image(self) -> Array:
        """The restored face before it is rounded: float RGB (S, S, 3) around [-1, 1], kept until the next run."""
        floats = self.program.view(self._image.buffer).view(np.float32)[: self.size * self.size * RGB]
        return floats.reshape(self.size, self.size, RGB)[..., :3]

    @property
    def result(self) -> Array:
        """Where the restored face is found after a run: uint8 RGB (S, S, 3)."""
        return self.program.view(self._output).reshape(self.size, self.size, 3)
