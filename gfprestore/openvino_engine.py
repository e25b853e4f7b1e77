"""Run a network on the processor with OpenVINO.

Every item is a request of its own on a graph of batch one: the result of an item then cannot depend on what else is in
the batch, memory does not grow with it, and on the processor a larger batch is no faster.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import torch
from numpy.typing import NDArray
from torch import nn

from gfprestore.compiled_cache import open_cache, seal_new
from gfprestore.machine import cores_are_shared_out, usable_cores
from gfprestore.openvino_core import shared_core
from gfprestore.openvino_graph import UnknownOperationError, record
from gfprestore.outofmemory import out_of_memory
from gfprestore.torch_engine import fit_torch_threads

logger = logging.getLogger(__name__)

EXAMPLE_SIDE = 128
"""What a varying axis is while a network is traced: a multiple of every stride in use."""

ALLOCATION_FAILED = "Failed to allocate"
"""OpenVINO tells a failed allocation from other runtime errors only by its words."""

_PRECISIONS = {"fp32": openvino.Type.f32, "bf16": openvino.Type.bf16}


class OpenvinoEngine:
    """A network compiled by OpenVINO."""

    device = "cpu"

    def __init__(
        self,
        network: nn.Module | Callable[[], nn.Module],
        input_shape: tuple[int | None, ...],
        input_dtype: str,
        precision: str,
        cache_folder: Path | None,
        key: str | None = None,
    ) -> None:
        self.precision = precision
        self._lock = threading.Lock()

        def make_graph() -> openvino.Model:
            fit_torch_threads()
            module = network if isinstance(network, nn.Module) else network()
            return _to_graph(module.eval(), (1, *input_shape[1:]), getattr(torch, input_dtype))

        self._compiled = _compile(make_graph, precision, cache_folder, key)
        self._request = self._compiled.create_infer_request()

    def run(self, batch: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        """Run the network; see `gfprestore.engine.Engine.run`."""
        rows = []
        with self._lock:
            for item in range(len(batch)):
                self._infer(np.ascontiguousarray(batch[item : item + 1]))
                # The request's own memory is overwritten by the next item.
                rows.append([np.array(tensor.data) for tensor in self._request.output_tensors])
        return tuple(np.concatenate(parts) for parts in zip(*rows, strict=True))

    def _infer(self, item: NDArray[Any]) -> None:
        try:
            self._request.infer([item], share_inputs=True)
        except RuntimeError as error:
            if ALLOCATION_FAILED not in str(error):
                raise
            raise out_of_memory(self.device) from error


def _to_graph(network: nn.Module, shape: tuple[int | None, ...], dtype: torch.dtype) -> openvino.Model:
    """Record the network, or trace it where its shapes vary or it does what the recorder does not know."""
    sizes = [axis for axis in shape if axis is not None]
    if len(sizes) == len(shape):
        try:
            return record(network, sizes, dtype)
        except UnknownOperationError as error:
            logger.debug("%s is traced rather than recorded: %s.", type(network).__name__, error)
    example = torch.zeros([EXAMPLE_SIDE if axis is None else axis for axis in shape], dtype=dtype)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's own deprecation, and its remarks on fixed shapes
        traced = torch.jit.trace(network, example, check_trace=False)  # type: ignore[no-untyped-call]
        partial = openvino.PartialShape([-1 if axis is None else axis for axis in shape])
        return openvino.convert_model(traced, example_input=example, input=[partial])


@cache
def _tell_once(error: str) -> None:
    """Tells why compiled models are not kept: every network of a run meets the same reason."""
    logger.warning("Compiled models are not kept: %s.", error)


def _compile(
    make_graph: Callable[[], openvino.Model], precision: str, cache_folder: Path | None, key: str | None
) -> openvino.CompiledModel:
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": _PRECISIONS[precision], "PERFORMANCE_HINT": "LATENCY"}
    if cores_are_shared_out():
        settings["INFERENCE_NUM_THREADS"] = usable_cores()
    core = shared_core()
    if cache_folder is None:
        return core.compile_model(make_graph(), "CPU", settings)
    try:
        known = open_cache(cache_folder)
    except OSError as error:
        _tell_once(str(error))
        return core.compile_model(make_graph(), "CPU", settings)
    if key is not None:
        return _take_or_compile(make_graph, settings, cache_folder / _blob_name(key, precision), known)
    compiled = core.compile_model(make_graph(), "CPU", settings | {"CACHE_DIR": str(cache_folder)})
    _seal(cache_folder, known)
    return compiled


def _take_or_compile(
    make_graph: Callable[[], openvino.Model], settings: dict[str, Any], blob: Path, known: set[Path]
) -> openvino.CompiledModel:
    """Takes a compiled model that is kept by its name, where OpenVINO's own cache would first want the graph."""
    core = shared_core()
    if blob in known:
        try:
            return core.import_model(blob.read_bytes(), "CPU", settings)
        except (OSError, RuntimeError) as error:
            logger.debug("The compiled model %s cannot be used: %s.", blob.name, error)
    compiled = core.compile_model(make_graph(), "CPU", settings)
    try:
        # One that is never finished has no digest, and goes.
        blob.write_bytes(compiled.export_model().getvalue())
    except OSError as error:
        logger.warning("The compiled model is not kept: %s.", error)
    _seal(blob.parent, known - {blob})
    return compiled


def _blob_name(key: str, precision: str) -> str:
    """File of a compiled model, which only the same OpenVINO on the same processor can take."""
    parts = (key, precision, openvino.__version__, shared_core().get_property("CPU", "FULL_DEVICE_NAME"))
    return f"{hashlib.sha256(repr(parts).encode()).hexdigest()[:32]}.blob"


def _seal(folder: Path, known: set[Path]) -> None:
    try:
        seal_new(folder, known)
    except OSError as error:  # without its digest the model is compiled anew by the next run
        logger.debug("The compiled model has no digest: %s.", error)
