"""Upscaling networks that spandrel knows, for a GPU and for what the compiled kernels do not run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import spandrel
from torch import Tensor, nn

from gfprestore.engine import Engine, build_engine
from gfprestore.errors import UsageError
from gfprestore.nn.tensors import as_tensors
from gfprestore.upscaling.layers import finish_in_fp32, values_per_pixel
from gfprestore.upscaling.overlap import overlap_for
from gfprestore.upscaling.reach import reach_of


class UpscalingNetwork(nn.Module):
    """A network on whole arrays: [N, H, W, 3] float32 in [0, 1] -> [N, H * factor, W * factor, 3].

    See `gfprestore.upscaling.upscaler.TiledNetwork`.
    """

    def __init__(self, title: str, descriptor: Any) -> None:
        super().__init__()
        self.network = descriptor.model
        self.title = title
        self.factor: int = descriptor.scale
        self.multiple: int = max(1, descriptor.size_requirements.multiple_of)
        self.minimum: int = max(1, descriptor.size_requirements.minimum)
        self.is_square: bool = descriptor.size_requirements.square
        self.supports_bf16: bool = descriptor.supports_bfloat16
        self.overlap = overlap_for(reach_of(self.network) * self.multiple, self.multiple > 1)
        self._call = descriptor

    def forward(self, pixels: Tensor) -> Tensor:
        """Run the network; the result is clamped to [0, 1]."""
        result: Tensor = self._call(pixels.permute(0, 3, 1, 2))  # [N 3 H W]
        return result.permute(0, 2, 3, 1).contiguous()  # [N H W 3]

    def steady_precision(self, precision: str) -> str:
        """As it is: where the kernels do not run a network, bf16 is its only quick way."""
        return precision

    def values_per_pixel(self) -> float:
        """Count what the largest layer reads and writes for each photo pixel; not once an engine took it over."""
        return values_per_pixel(self)

    def build_engine(self, device: str, precision: str, cache_folder: Path | None = None) -> Engine:
        """Make it ready to run; it is taken over."""
        if device != "cpu":
            finish_in_fp32(self)
        return build_engine(self, (None, None, None, 3), device=device, precision=precision, cache_folder=cache_folder)


def load_upscaling_network(title: str, state: Mapping[str, Any]) -> UpscalingNetwork:
    """Build the network that a state dict is of, in fp32 on the CPU.

    Args:
        title: What to call it in messages.
        state: State dict of arrays or tensors, as released or wrapped in `params_ema`, `params` and the like; of any
            float type.

    Raises:
        UsageError: spandrel does not know it, or it does not turn RGB into RGB.
    """
    try:
        tensors = _as_float32(as_tensors(spandrel.canonicalize_state_dict(dict(state))))
        descriptor = spandrel.ModelLoader("cpu").load_from_state_dict(tensors)
    except spandrel.UnsupportedModelError as error:
        raise UsageError(f"{title} is no network that spandrel knows: give --background another file.") from error
    if not isinstance(descriptor, spandrel.ImageModelDescriptor) or descriptor.purpose == "FaceSR":
        raise UsageError(f"{title} does not upscale whole photos: give --background another file.")
    if descriptor.input_channels != 3 or descriptor.output_channels != 3:
        raise UsageError(f"{title} does not turn RGB into RGB: give --background another file.")
    return UpscalingNetwork(title, descriptor.eval())


def _as_float32(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
