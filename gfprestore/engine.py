"""Run a network: torch on any device, or OpenVINO on the processor, which runs the same graph about twice as fast.

A network takes and gives whole arrays of pixels: its own `forward` turns uint8 into float and back, so that the
conversion happens on the device. The engine owns the device, the precision, the split of a batch that does not fit into
memory, and the cache of compiled models.
"""

from __future__ import annotations

import importlib.util
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from gfprestore.errors import DeviceError
from gfprestore.machine import cores_are_shared_out, usable_cores

logger = logging.getLogger(__name__)

ALLOCATOR_FAILED = "DefaultCPUAllocator: can't allocate memory"
"""torch tells that the machine's own memory is full only by these words."""


class OutOfMemoryError(DeviceError):
    """Not even one item fits into the device's memory; a caller that cuts its items smaller can try again."""


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
    """Let libraries start no more threads than a container gives time to: by themselves they count its processors."""
    if cores_are_shared_out():
        torch.set_num_threads(usable_cores())
        cv2.setNumThreads(usable_cores())


def resolve_device(name: str) -> str:
    """Turn `auto`, `cpu`, `cuda`, `cuda:N` or `mps` into a concrete device that this machine has.

    Raises:
        DeviceError: There is no such device here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return "cuda:0"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if name in ("cpu", "mps"):
        if name == "mps" and not torch.backends.mps.is_available():
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
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if device == "cpu" and _processor_has_bf16() else "fp32"


def _has_openvino() -> bool:
    return importlib.util.find_spec("openvino") is not None


def _processor_has_bf16() -> bool:
    # torch's own bf16 convolutions are slower than its fp32 ones on the processor, so only OpenVINO's count.
    if not _has_openvino():
        return False
    from gfprestore.openvino_engine import shared_core

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
    return TorchEngine(network if isinstance(network, nn.Module) else network(), device, precision)


class TorchEngine:
    """A network run by torch.

    On the processor items are run one by one: a batch is no faster there, and convolution libraries choose their
    order of summation by its size, so that the result of an item would depend on its company.
    """

    def __init__(
        self, network: nn.Module, device: str, precision: str, *, runs_whole_batches: bool | None = None
    ) -> None:
        self.device = device
        self.precision = precision
        self._runs_whole_batches = device != "cpu" if runs_whole_batches is None else runs_whole_batches
        self._network = network.eval().to(device)
        for parameter in self._network.parameters():
            if parameter.ndim == 4:  # only kernels have such a format
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        self._lock = threading.Lock()

    def run(self, batch: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        """Run the network; see `Engine.run`."""
        with self._lock:
            if self._runs_whole_batches:
                return self._run_or_halve(batch)
            rows = [self._run_or_halve(batch[item : item + 1]) for item in range(len(batch))]
        return tuple(np.concatenate(parts) for parts in zip(*rows, strict=True))

    def _run_or_halve(self, batch: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        try:
            return self._run_once(batch)
        except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
            is_full = isinstance(error, (torch.OutOfMemoryError, MemoryError)) or ALLOCATOR_FAILED in str(error)
            if not is_full:
                raise
            if len(batch) == 1:
                raise out_of_memory(self.device) from error
        # Outside the handler, whose error holds on to the failed call's tensors.
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()
        half = len(batch) // 2
        logger.warning("Out of memory on %s with %d at once: trying %d.", self.device, len(batch), len(batch) - half)
        first, second = self._run_or_halve(batch[:half]), self._run_or_halve(batch[half:])
        return tuple(np.concatenate(pair) for pair in zip(first, second, strict=True))

    @torch.inference_mode()
    def _run_once(self, batch: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        inputs = torch.from_numpy(np.ascontiguousarray(batch))
        is_cuda = self.device.startswith("cuda")
        if is_cuda:
            inputs = inputs.pin_memory()
        inputs = inputs.to(self.device, non_blocking=is_cuda)
        kind = self.device.partition(":")[0]
        with torch.autocast(kind, torch.bfloat16, enabled=self.precision == "bf16"):
            outputs = self._network(inputs)
        if isinstance(outputs, torch.Tensor):
            outputs = (outputs,)
        return tuple(o.float().cpu().numpy() if o.is_floating_point() else o.cpu().numpy() for o in outputs)


def out_of_memory(device: str) -> OutOfMemoryError:
    """The error of a batch of one that does not fit."""
    return OutOfMemoryError(
        f"The memory of {device} does not hold even one item at a time: "
        "close other programs, lower --batch-size, or take another --device."
    )
