"""Running the metrics' networks on images that are on the device already."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from gfprestore.engine import Engine, build_engine
from gfprestore.errors import WeightsError
from gfprestore.outofmemory import empty_cache, is_out_of_memory, out_of_memory


class MetricNetwork:
    """A network that maps uint8 images to numbers, in fp32: with OpenVINO on the processor, with torch elsewhere."""

    def __init__(self, network: nn.Module, device: str) -> None:
        """Takes over a network on the CPU; `device` is concrete, from `resolve_device`."""
        self._network = network.eval() if device == "cpu" else network.eval().to(device)
        self._device = device
        self._engine: Engine | None = None
        self._shape: tuple[int | None, ...] = ()

    def run(self, images: Tensor) -> Tensor:
        """Runs the network.

        Args:
            images: uint8 [N, ...] on the device.

        Returns:
            float32 [N, ...] on the device.

        Raises:
            DeviceError: The device's memory does not hold even one item.
        """
        if self._device == "cpu":
            return torch.from_numpy(self._engine_for(images.shape[1:]).run(images.numpy())[0])
        return self._run_or_halve(images)

    @torch.inference_mode()
    def _run_or_halve(self, images: Tensor) -> Tensor:
        try:
            result: Tensor = self._network(images)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if len(images) == 1:
                raise out_of_memory(self._device) from error
        else:
            return result.float()
        empty_cache(self._device)
        return torch.cat([self._run_or_halve(half) for half in images.chunk(2)])

    def _engine_for(self, shape: torch.Size) -> Engine:
        """Compiles for the first size that comes, which is fastest; when another comes, once for any size."""
        if self._engine is None:
            self._shape = (None, *shape)
        elif self._shape != (None, *shape) and self._shape[-1] is not None:
            self._shape = (None, *shape[:-2], None, None)
        else:
            return self._engine
        # Compiling takes the network over, and another size may come.
        network = copy.deepcopy(self._network)
        self._engine = build_engine(network, self._shape, input_dtype="uint8", device="cpu", precision="fp32")
        return self._engine


def load_torchscript(path: Path) -> nn.Module:
    """Loads a TorchScript network onto the CPU.

    Raises:
        WeightsError: The file is none.
    """
    with warnings.catch_warnings():
        # Recognisers go about in this format, and its successor cannot read it.
        warnings.filterwarnings("ignore", message=".*is deprecated", category=FutureWarning)
        try:
            network: nn.Module = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
        except (RuntimeError, ValueError) as error:
            raise WeightsError(f"{path} is no TorchScript network: see --metric-weights.") from error
    return network.eval()
