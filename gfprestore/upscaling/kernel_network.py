"""Upscaling networks that the compiled kernels run, without torch: Real-ESRGAN's two, and others built like them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from gfprestore.engine import Engine
from gfprestore.native.library import library_for
from gfprestore.native.upscaler import NativeUpscalerEngine, TileNetwork, read_tile_network
from gfprestore.upscaling.overlap import overlap_for

# What spandrel's forms of these networks ask for, whose results ours are held against.
_MULTIPLE_OF_SHRUNK = 4
_MINIMUM = 2


class KernelNetwork:
    """A network on the processor; see `gfprestore.upscaling.upscaler.TiledNetwork`."""

    is_square = False
    supports_bf16 = True

    def __init__(self, title: str, state: Mapping[str, NDArray[Any]], layers: TileNetwork) -> None:
        """Takes over the layers.

        Args:
            title: What to call it in messages.
            state: What they were read off.
            layers: The layers.
        """
        shrinks = layers.shuffle > 1
        self.title = title
        self.factor = layers.factor
        self.multiple = _MULTIPLE_OF_SHRUNK if shrinks else 1
        self.minimum = _MINIMUM
        self.overlap = overlap_for(layers.reach * self.multiple, shrinks)
        self._state, self._layers = state, layers

    def steady_precision(self, precision: str) -> str:
        """fp32, so that a photo does not depend on its tiles.

        RRDBNet looks farther than tiles overlap, so a tile's border changes every value a little. In bf16 the least
        change is enough for other roundings, which add up from layer to layer: tiles differ by 50 to 57 dB all over, as
        much as from fp32, however far from their borders. In fp32 the kernels take 1.6 times the time of bf16.
        SRVGGNetCompact looks less far, but its squares carry roundings on as well.
        """
        return "fp32"

    def values_per_pixel(self) -> float:
        """What its largest steps read and write for each photo pixel."""
        return self._layers.bytes_per_pixel / 4

    def build_engine(self, device: str, precision: str, cache_folder: Path | None = None) -> Engine:
        """Make it ready to run on the processor in one of the precisions that it was read for, or in fp32."""
        library = library_for(precision)
        assert library is not None

        def build_other() -> Engine:
            # Here, since it brings torch along, and no photo of a person is as small as that.
            from gfprestore.upscaling.network import load_upscaling_network

            network = load_upscaling_network(self.title, self._state)
            return network.build_engine(device, precision, cache_folder)

        return NativeUpscalerEngine(self._layers, library, precision, build_other)


def read_kernel_network(title: str, state: Mapping[str, NDArray[Any]], precision: str) -> KernelNetwork | None:
    """The network that a state dict is of, or None where the kernels do not run it in a precision.

    Args:
        title: What to call it in messages.
        state: Bare state dict or one with `module.` before every name, of any float type.
        precision: `fp32` or `bf16`.
    """
    layers = read_tile_network(state, precision)
    return None if layers is None else KernelNetwork(title, state, layers)
