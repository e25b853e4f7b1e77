"""Networks that upscale photos, run tile by tile with the compiled kernels."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gfprestore.engine import Engine
from gfprestore.native.library import Library, library_for
from gfprestore.native.operands import CHANNELS, Array, Features, Floats
from gfprestore.native.program import SMALLEST_TILED, ProgramBuilder
from gfprestore.native.rrdb import Rrdb
from gfprestore.native.running import Crew, Program
from gfprestore.native.srvgg import Srvgg
from gfprestore.outofmemory import out_of_memory


class TileNetwork(Protocol):
    """A network packed for the kernels."""

    @property
    def factor(self) -> int:
        """Ratio of a result's side to its photo's."""
        ...

    @property
    def reach(self) -> int:
        """How far it looks, in pixels of its first features: at most a pixel for each convolution."""
        ...

    @property
    def shuffle(self) -> int:
        """Side of the squares of pixels that are its first channels."""
        ...

    @property
    def inputs(self) -> int:
        """Channels of what it is given, filled up with zeros."""
        ...

    @property
    def bytes_per_pixel(self) -> float:
        """Memory for each pixel of a tile: what the largest steps read and write."""
        ...

    def write(self, builder: ProgramBuilder, x: Features) -> Features:
        """Write its steps, from [H W inputs] to what `finish` takes."""
        ...

    def finish(self, found: Floats, tile: Floats) -> Floats:
        """Make the enlarged tile [fH fW 3] of what the steps give and the tile [H W 3]; it may share memory."""
        ...


class TileProgram:
    """A network for tiles of one size."""

    def __init__(
        self, network: TileNetwork, builder: ProgramBuilder, size: tuple[int, int], pool: ThreadPoolExecutor
    ) -> None:
        """Write the program.

        Args:
            network: What to run.
            builder: With the kernels that an earlier program packed.
            size: (H, W) of the network's first features.
            pool: Packs kernels.
        """
        self._input = builder.features(size, network.inputs)
        self._output = network.write(builder, self._input)
        self._output.buffer.last = len(builder.steps)
        builder.pack_kernels(pool)
        self.program: Program = builder.build()

    def given(self) -> Array:
        """Where the input goes: float [H W I], its channels filled up with zeros."""
        return self._view(self._input)

    def found(self) -> Array:
        """Where the result is: float [H' W' C]."""
        return self._view(self._output)

    def _view(self, features: Features) -> Array:
        shape = features.height, features.width, features.stride
        floats = self.program.view(features.buffer).view(np.float32)
        return floats[: shape[0] * shape[1] * shape[2]].reshape(shape)


class NativeUpscalerEngine:
    """A network on photos: float32 [N H W 3] in [0, 1] -> [N fH fW 3]; see `gfprestore.engine.Engine`."""

    device = "cpu"

    def __init__(self, network: TileNetwork, library: Library, precision: str, other: Callable[[], Engine]) -> None:
        """Take over the network.

        Args:
            network: What to run.
            library: The kernels.
            precision: `fp32` or `bf16`.
            other: Builds an engine for what is too small for tiles.
        """
        self.precision = precision
        self.bytes_per_pixel = network.bytes_per_pixel
        self._network, self._library, self._other = network, library, other
        self._crew = Crew()
        self._lock = threading.Lock()
        self._kernels = ProgramBuilder(library, precision == "bf16").kernels
        self._program: TileProgram | None = None
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
            self._program, self._size = TileProgram(self._network, builder, size, self._crew.pool), size
        shuffle = self._network.shuffle
        given = self._program.given()
        given[:] = 0
        # As torch's pixel_unshuffle: channel c, row i, column j of a square go to channel (c, i, j).
        squares = tile.reshape(size[0], shuffle, size[1], shuffle, CHANNELS).transpose(0, 2, 4, 1, 3)  # [H W C i j]
        given[..., : CHANNELS * shuffle**2] = squares.reshape(*size, -1)
        self._crew.run(self._program.program)
        return np.clip(self._network.finish(self._program.found(), tile), 0, 1)


def read_tile_network(state: Mapping[str, NDArray[Any]], precision: str) -> TileNetwork | None:
    """Read a network that the kernels run off its state dict.

    Args:
        state: Bare or with `module.` before every name, of arrays of any float type.
        precision: `fp32` or `bf16`.

    Returns:
        The network, or None where something else runs it better or at all.
    """
    library = library_for(precision)
    if library is None:
        return None
    state = {name.removeprefix("module."): array for name, array in state.items()}
    kinds: tuple[Callable[[Mapping[str, NDArray[Any]], Library], TileNetwork], ...] = (Rrdb, Srvgg)
    for read in kinds:
        try:
            return read(state, library)
        except (KeyError, ValueError):  # another network
            continue
    return None
