"""Enlarge photos with a network, tile by tile.

The photo stays in host memory; only tiles travel to the device. Tiles overlap and fade into each other, so that their
size does not show. Photos that are enlarged at the same time share batches. When memory runs out the tiles are halved
and the photo is begun again; a tile is never left out.
"""

from __future__ import annotations

import logging
import math
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gfprestore.dropping import ShouldStop, drop_if
from gfprestore.engine import Engine
from gfprestore.errors import DeviceError
from gfprestore.machine import free_memory
from gfprestore.photo import Pixels
from gfprestore.resize import has_equal_channels, resize_photo
from gfprestore.upscaling.batches import SharedBatches
from gfprestore.upscaling.overlap import Overlap
from gfprestore.upscaling.tiles import FeatherCanvas, TileGrid, cut_tile, plan_tiles

logger = logging.getLogger(__name__)

# Tiles begin at multiples of this: Winograd's products are made in squares of 6x6, in bf16 of 4x4, which are twice as
# large in x2plus, and rounded there; in bf16 a square that is cut otherwise brings tiles 3 to 5 dB farther apart
# (measured).
_ALIGNMENT = 24

# Twice what tiles of x4plus share: smaller ones would draw every pixel more than four times.
_SMALLEST_TILE = 256
_LARGEST_TILE = 1536

# For a tile, the photo and its result together: beside the packed network and the libraries, which take 1.2 GB where
# torch and OpenVINO are among them, a photo of 100 megapixels then stays below 4 GB.
_PROCESSOR_BUDGET = 8 << 28
_LEAST_SHARE = 1 / 8
_GPU_SHARE = 0.5
_LARGEST_BATCH = 8
# Many of torch's kernels for GPUs count in 32 bits, and older ones then leave values out without a word.
_MOST_GPU_VALUES = 2**31 - 1

# Memory that a network takes, in those of its largest layer's input and output: half as much again is alive beside.
_LARGEST_LAYERS_ALIVE = 1.5

# Rows mixed at once when the network's result is weakened.
_MIX_ROWS = 512


class TiledNetwork(Protocol):
    """A network that enlarges tiles, and what it asks of them."""

    @property
    def title(self) -> str:
        """What to call it in messages."""
        ...

    @property
    def factor(self) -> int:
        """Ratio of a result's side to its tile's."""
        ...

    @property
    def multiple(self) -> int:
        """What the sides of its tiles are multiples of."""
        ...

    @property
    def minimum(self) -> int:
        """Least side of a tile."""
        ...

    @property
    def is_square(self) -> bool:
        """It takes square tiles only."""
        ...

    @property
    def overlap(self) -> Overlap:
        """What its tiles share."""
        ...

    @property
    def supports_bf16(self) -> bool:
        """It may run in bf16."""
        ...

    def steady_precision(self, precision: str) -> str:
        """The precision to compute in where nobody insists on `precision`, which the device computes best in."""
        ...

    def values_per_pixel(self) -> float:
        """What its largest layer reads and writes for each photo pixel."""
        ...

    def build_engine(self, device: str, precision: str, cache_folder: Path | None = None) -> Engine:
        """Make it ready to run tiles, float32 [N, H, W, 3] in [0, 1]; it is taken over."""
        ...


class NetworkUpscaler:
    """Enlarges photos with a network; see `gfprestore.background.Upscaler`."""

    def __init__(
        self,
        network: TiledNetwork,
        *,
        device: str,
        precision: str,
        tile_pixels: int | None = None,
        strength: float = 1.0,
        cache_folder: Path | None = None,
        engine: Engine | None = None,
    ) -> None:
        """Takes over the network.

        Args:
            network: The network, on the CPU.
            device: A concrete device.
            precision: `fp32` or `bf16`.
            tile_pixels: Largest side of a tile, in photo pixels, raised to 256, to one and a half times the overlap
                or to the least that the network takes; None takes what the free memory allows.
            strength: Share of the network's result, 0 to 1; the rest is Lanczos.
            cache_folder: Where compiled models are kept.
            engine: Runs the network; None builds one.
        """
        self.description = network.title
        self._factor, self._multiple, self._minimum = network.factor, network.multiple, network.minimum
        self._is_square = network.is_square
        self._overlap = network.overlap
        self._strength = strength
        self._is_processor = device == "cpu"
        self._budget = _memory_budget(device)
        precision = precision if network.supports_bf16 else "fp32"
        beside = max(self._overlap.pixels // 2, 2 * math.lcm(self._multiple, _ALIGNMENT))
        least = -(-self._minimum // self._multiple) * self._multiple
        self._smallest = max(_SMALLEST_TILE, self._overlap.pixels + beside, least)
        self._fits_memory = tile_pixels is None
        self._limit = max(tile_pixels or _LARGEST_TILE, self._smallest)
        values_each = network.values_per_pixel()  # before an engine takes the network over
        self._most_pixels = None if self._is_processor else int(_MOST_GPU_VALUES / values_each)
        runner = engine or network.build_engine(device, precision, cache_folder)
        estimate = _LARGEST_LAYERS_ALIVE * values_each * (2 if precision == "bf16" else 4)
        # Our own engine knows what it takes.
        self._bytes_per_pixel: float = getattr(runner, "bytes_per_pixel", estimate)
        self._batches = SharedBatches(lambda batch: runner.run(batch)[0])

    def upscale(self, pixels: Pixels, size: tuple[int, int], should_stop: ShouldStop = bool) -> Pixels:
        """Enlarge one photo; see `gfprestore.background.Upscaler.upscale`."""
        while True:
            grid = self._plan(pixels)
            try:
                canvas = self._run_tiles(pixels, grid, should_stop)
                break
            except DeviceError as error:
                side = max(grid.height, grid.width)
                if side <= self._smallest:
                    raise DeviceError(
                        f"Memory does not hold even one tile of {side} pixels for {self.description}: "
                        "close other programs, or take --background lanczos."
                    ) from error
                self._limit = min(self._limit, max(side // 2, self._smallest))
                logger.warning("%s ran out of memory: going on with tiles of %d.", self.description, self._limit)
        result = canvas.pixels() if canvas.size == size else resize_photo(canvas.pixels(), size)
        return _mix(resize_photo(pixels, size), result, self._strength) if self._strength < 1 else result

    def _plan(self, pixels: Pixels) -> TileGrid:
        limit = self._limit
        if self._fits_memory:
            # On the processor the photo and its result lie in the same memory as the tile.
            beside = pixels.nbytes * (1 + self._factor**2) if self._is_processor else 0
            # Beside a result that fills the budget by itself a share of it is little, and smaller tiles draw far more.
            room = max(self._budget - beside, self._budget * _LEAST_SHARE)
            limit = min(limit, math.isqrt(int(room / self._bytes_per_pixel)))
        if self._most_pixels is not None:
            limit = min(limit, math.isqrt(self._most_pixels))
        return plan_tiles(
            (pixels.shape[1], pixels.shape[0]),
            max(limit, self._smallest),
            overlap=self._overlap.pixels,
            multiple=self._multiple,
            alignment=_ALIGNMENT,
            minimum=self._minimum,
            square=self._is_square,
        )

    def _run_tiles(self, pixels: Pixels, grid: TileGrid, should_stop: ShouldStop) -> FeatherCanvas:
        size = pixels.shape[1], pixels.shape[0]
        canvas = FeatherCanvas(
            grid, self._factor, size, pixels.dtype, has_equal_channels(pixels), ramp=self._overlap.ramp
        )
        tile_pixels = grid.height * grid.width
        most = 1  # on the processor a larger batch is no faster
        if self._most_pixels is not None:
            fitting = int(self._budget / (self._bytes_per_pixel * tile_pixels))
            most = max(1, min(fitting, self._most_pixels // tile_pixels, _LARGEST_BATCH))
        tiles = (cut_tile(pixels, top, left, grid) for top, left in grid)
        while batch := list(islice(tiles, most)):
            drop_if(should_stop)
            for values in self._batches.run(batch, most):
                canvas.place(values)
        return canvas


def _memory_budget(device: str) -> float:
    """Bytes that tiles may take on a device."""
    if device.startswith("cuda"):
        import torch  # which came with the network; what the kernels run needs none

        free, _ = torch.cuda.mem_get_info(device)
        return free * _GPU_SHARE
    return min(_PROCESSOR_BUDGET, free_memory() * _GPU_SHARE)


def _mix(plain: Pixels, sharp: Pixels, strength: float) -> Pixels:
    """Weigh the network's result against the plainly resized photo, in place of the latter, band by band."""
    for top in range(0, plain.shape[0], _MIX_ROWS):
        rows = slice(top, top + _MIX_ROWS)
        change: NDArray[np.float32] = sharp[rows].astype(np.float32) - plain[rows]
        plain[rows] = (plain[rows] + np.float32(strength) * change + np.float32(0.5)).astype(plain.dtype)
    return plain
