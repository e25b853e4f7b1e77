"""Run a network with torch, on any device."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from gfprestore.errors import DeviceError
from gfprestore.machine import cores_are_shared_out, usable_cores
from gfprestore.outofmemory import empty_cache, is_out_of_memory, out_of_memory

logger = logging.getLogger(__name__)

LARGEST_GPU_BATCH = 32
"""The generator's largest layer then has 2^30 values: from 2^31 on, many of torch's kernels fail or skip some."""

# Networks on one GPU run one after another anyway; if one held its memory while another runs, that one might not fit.
_GPU_LOCKS: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)


def fit_torch_threads() -> None:
    """Let torch start no more threads than a container gives time to: by itself it counts its processors."""
    if cores_are_shared_out():
        torch.set_num_threads(usable_cores())


def use_full_fp32() -> None:
    """Let fp32 mean fp32 on CUDA, where convolutions otherwise round what they multiply to 10 bits (TF32)."""
    torch.backends.cudnn.allow_tf32 = False


class TorchEngine:
    """A network run by torch.

    On the processor items are run one by one: a batch is no faster there, and convolution libraries choose their
    order of summation by its size, so that the result of an item would depend on its company.
    """

    def __init__(
        self,
        network: nn.Module | Callable[[], nn.Module],
        device: str,
        precision: str,
        *,
        largest_batch: int | None = None,
    ) -> None:
        """Takes over the network, or builds it.

        Raises:
            DeviceError: The device's memory does not hold it.
        """
        self.device = device
        self.precision = precision
        self._most = largest_batch or (1 if device == "cpu" else LARGEST_GPU_BATCH)
        self._lock = threading.Lock() if device == "cpu" else _GPU_LOCKS[device]
        use_full_fp32()
        fit_torch_threads()
        module = network if isinstance(network, nn.Module) else network()
        try:
            self._network = module.eval().to(device)
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
