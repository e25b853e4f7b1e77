"""Run a network: torch on any device, or OpenVINO on the processor, which runs the same graph about twice as fast.

What runs GFP-GAN and other networks faster still, the compiled kernels, is in `gfprestore.native`. This module imports
neither torch nor OpenVINO until an engine is built with it.

A network takes and gives whole arrays of pixels: its own `forward` turns uint8 into float and back, so that the
conversion happens on the device. The engine owns the device, the precision, the split of a batch that does not fit into
memory, and the cache of compiled models.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import cv2
from numpy.typing import NDArray

from gfprestore.errors import DeviceError
from gfprestore.machine import cores_are_shared_out, may_have_gpu, usable_cores
from gfprestore.native.library import load_library

if TYPE_CHECKING:
    from torch import nn


class Engine(Protocol):
    """One network, ready to run on one device."""

    device: str
    """Concrete torch device name: `cpu`, `cuda:0`, `mps`."""

    precision: str
    """`fp32` or `bf16`."""

    def run(self, batch: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        """Run the network; safe to call from several threads.

        Args:
            batch: First axis N >= 1; further axes and dtype as the engine was built for.

        Returns:
            The network's outputs, each with first axis N. On the CPU in fp32 every item's result is the same bytes
            whatever N is.

        Raises:
            OutOfMemoryError: The device's memory does not hold even a batch of one.
        """
        ...


def fit_threads() -> None:
    """Let OpenCV start no more threads than a container gives time to: by itself it counts its processors."""
    if cores_are_shared_out():
        cv2.setNumThreads(usable_cores())


def resolve_device(name: str) -> str:
    """Turn `auto`, `cpu`, `cuda`, `cuda:N` or `mps` into a concrete device that this machine has.

    Raises:
        DeviceError: There is no such device here.
    """
    if name == "cpu" or (name == "auto" and not may_have_gpu()):
        return "cpu"
    # Only here, since torch takes seconds to import, and what the compiled kernels run on the processor needs none.
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return "cuda:0"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if name == "mps":
        if not torch.backends.mps.is_available():
            raise DeviceError("This machine has no Apple GPU that torch can use: take --device auto or --device cpu.")
        return name
    if kind != "cuda" or (index and not index.isdecimal()) or name == "cuda:":
        raise DeviceError(f"--device takes auto, cpu, cuda, cuda:N or mps, not {name!r}.")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(index or 0) >= count:
        found = f"only {count} CUDA device{'s' if count > 1 else ''}" if count else "no CUDA device"
        raise DeviceError(f"torch finds {found} here, not {name!r}: take --device auto or --device cpu.")
    return f"cuda:{int(index or 0)}"


def resolve_precision(name: str, device: str) -> str:
    """Turn `auto` into `bf16` where the device computes it natively and faster, else `fp32`.

    Args:
        name: `auto`, `fp32` or `bf16`.
        device: A concrete device, from `resolve_device`.

    Raises:
        DeviceError: The name is none of the three.
    """
    if name in ("fp32", "bf16"):
        return name
    if name != "auto":
        raise DeviceError(f"--precision takes auto, fp32 or bf16, not {name!r}.")
    if device.startswith("cuda"):
        import torch

        # torch.cuda.is_bf16_supported() would ask the first device, whichever is meant.
        return "bf16" if torch.version.hip or torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"
    return "bf16" if device == "cpu" and _processor_has_bf16() else "fp32"


def _has_openvino() -> bool:
    return importlib.util.find_spec("openvino") is not None


def _processor_has_bf16() -> bool:
    # Our own kernels know without OpenVINO, whose import takes longer than what they need to start. torch's own bf16
    # convolutions are slower than its fp32 ones on the processor, so they do not count.
    library = load_library()
    if library is not None and library.is_for_x86:
        return library.has_half
    if not _has_openvino():
        return False
    from gfprestore.openvino_core import shared_core

    return "BF16" in shared_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def build_engine(
    network: nn.Module | Callable[[], nn.Module],
    input_shape: tuple[int | None, ...],
    *,
    input_dtype: str = "float32",
    device: str,
    precision: str,
    cache_folder: Path | None = None,
    prefer_openvino: bool = True,
    key: str | None = None,
) -> Engine:
    """Make a network ready to run.

    Args:
        network: In evaluation mode, on the CPU, fp32; takes one tensor, gives a tensor or a tuple of tensors. It is
            taken over: do not use it afterwards. With `key` a function that builds one.
        input_shape: Shape of the input; None where it varies from call to call. The batch axis always may vary.
        input_dtype: `float32` or `uint8`.
        device: A concrete device, from `resolve_device`.
        precision: `fp32` or `bf16`, from `resolve_precision`.
        cache_folder: Where compiled models are kept between runs; None keeps nothing.
        prefer_openvino: On the CPU, use OpenVINO where it is installed.
        key: Tells this network, weights and all, from every other; where a compiled model of that key is kept, nothing
            is built.
    """
    if device == "cpu" and prefer_openvino and _has_openvino():
        from gfprestore.openvino_engine import OpenvinoEngine

        return OpenvinoEngine(network, input_shape, input_dtype, precision, cache_folder, key)
    from gfprestore.torch_engine import TorchEngine

    return TorchEngine(network, device, precision)
