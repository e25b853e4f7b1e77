"""Restore aligned faces: uint8 crops in, uint8 crops out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gfprestore.engine import Engine, build_engine
from gfprestore.native.engine import build_native_engine
from gfprestore.nn.weights import read_gfpgan_weights


class FaceRestorer:
    """A face restoration network on an engine."""

    size: int
    """Side of the crops in pixels."""

    def __init__(self, engine: Engine, size: int) -> None:
        self.size = size
        self._engine = engine

    @property
    def device(self) -> str:
        """Where the network runs."""
        return self._engine.device

    @property
    def precision(self) -> str:
        """What it computes in: `fp32` or `bf16`."""
        return self._engine.precision

    def restore(self, crops: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
        """Restore one batch of faces; safe to call from several threads.

        Args:
            crops: RGB uint8, each (S, S, 3) with S the restorer's `size`, in the face template's frame.

        Returns:
            As many restored crops, RGB uint8 (S, S, 3), in the same order. The same crop always gives the same result.

        Raises:
            OutOfMemoryError: The device's memory does not hold even one face.
            ValueError: A crop has another shape or dtype.
        """
        if not crops:
            return []
        for crop in crops:
            if crop.shape != (self.size, self.size, 3) or crop.dtype != np.uint8:
                raise ValueError(f"A crop is RGB uint8 of {self.size}x{self.size}, not {crop.dtype} {crop.shape}.")
        (restored,) = self._engine.run(np.stack(crops))
        return list(restored)


def build_restorer(
    state: Mapping[str, Any], *, device: str, precision: str, cache_folder: Path | None = None
) -> FaceRestorer:
    """Build the restorer that weights belong to.

    Args:
        state: State dict of any GFP-GAN, of arrays; see `read_gfpgan_weights`.
        device: A concrete device, from `resolve_device`.
        precision: `fp32` or `bf16`, from `resolve_precision`.
        cache_folder: Where compiled models are kept between runs; None keeps nothing.

    Raises:
        WeightsError: The state dict is not that of a GFP-GAN.
    """
    weights = read_gfpgan_weights(state)
    size = weights.shape.out_size
    engine: Engine | None = build_native_engine(weights, precision) if device == "cpu" else None
    if engine is None:
        # Here, since torch takes longer to import than the compiled kernels to restore a face.
        from gfprestore.nn.checkpoint import build_gfpgan
        from gfprestore.nn.pixels import PixelGfpgan

        engine = build_engine(
            PixelGfpgan(build_gfpgan(weights)),
            (None, size, size, 3),
            input_dtype="uint8",
            device=device,
            precision=precision,
            cache_folder=cache_folder,
        )
    return FaceRestorer(engine, size)
