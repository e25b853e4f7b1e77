"""Run a network: torch on any device, or OpenVINO on the processor, which runs the same graph about twice as fast.

A network takes and gives whole arrays of pixels: its own `forward` turns uint8 into float and back, so that the
conversion happens on the device. The engine owns the device, the precision, the split of a batch that does not fit into
memory, and the cache of compiled models.
"""

from __future__ import annotations

import importlib.util
import logging
import threading
from collections import defaultdict
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
from gfprestore.native.library import load_library
from gfprestore.outofmemory import empty_cache, is_out_of_memory, out_of_memory

logger = logging.getLogger(__name__)

LARGEST_GPU_BATCH = 32
"""The generator's largest layer then has 2^30 values: from 2^31 on, many of torch's kernels fail or skip some."""

# Networks on one GPU run one after another anyway; if one held its memory while another runs, that one might not fit.
_GPU_LOCKS: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)


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


def use_full_fp32() -> None:
    """Let fp32 mean fp32 on CUDA, where convolutions otherwise round what they multiply to 10 bits (TF32)."""
    torch.backends.cudnn.allow_tf32 = False


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

    def __init__(self, network: nn.Module, device: str, precision: str, *, largest_batch: int | None = None) -> None:
        """Takes over the network.

        Raises:
            DeviceError: The device's memory does not hold it.
        """
        self.device = device
        self.precision = precision
        self._most = largest_batch or (1 if device == "cpu" else LARGEST_GPU_BATCH)
        self._lock = threading.Lock() if device == "cpu" else _GPU_LOCKS[device]
        use_full_fp32()
        try:
            self._network = network.eval().to(device)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise DeviceError(
                    f"The memory of {device} does not hold the networks: "
                    "close other programs, or take another --device."
                ) from error
            raise
        if device != "mps":  # before torch 2.14 its convolutions take every kernel for contiguous
            for parameter in self._network.parameters():
                if parameter.ndim == 4:  # only kernels have such a format
                    parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)

    def run(self, batch: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        """Run the network; see `Engine.run`."""
        parts: list[tuple[NDArray[Any], ...]] = []
        done = 0
        with self._lock:
            while done < len(batch):
                part = batch[done : done + self._most]
                if (outputs := self._run_if_it_fits(part)) is None:
                    self._take_fewer_than(len(part))
                else:
                    parts.append(outputs)
                    done += len(part)
        return parts[0] if len(parts) == 1 else tuple(np.concatenate(each) for each in zip(*parts, strict=True))

    def _run_if_it_fits(self, batch: NDArray[Any]) -> tuple[NDArray[Any], ...] | None:
        """The outputs, or None where memory does not hold the batch, but may hold less."""
        try:
            return self._run_once(batch)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(batch) == 1:
                raise out_of_memory(self.device) from error
            return None

    def _take_fewer_than(self, count: int) -> None:
        # Later batches would not fit either: what they would take to find that out is spared.
        self._most = (count + 1) // 2
        empty_cache(self.device)
        logger.warning("Out of memory on %s with %d at once: going on with %d.", self.device, count, self._most)

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
