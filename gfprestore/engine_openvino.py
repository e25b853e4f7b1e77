"""Run a network on the processor with OpenVINO.

Every item is a request of its own on a graph of batch one: the result of an item then cannot depend on what else is in
the batch, memory does not grow with it, and on the processor a larger batch is no faster.
"""

from __future__ import annotations

import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import torch
from numpy.typing import NDArray
from torch import nn

EXAMPLE_SIDE = 128
"""What a varying axis is while the graph is traced: a multiple of every stride in use."""

_PRECISIONS = {"fp32": openvino.Type.f32, "bf16": openvino.Type.bf16}


class OpenvinoEngine:
    """A network compiled by OpenVINO."""

    device = "cpu"

    def __init__(
        self,
        network: nn.Module,
        input_shape: tuple[int | None, ...],
        input_dtype: str,
        precision: str,
        cache_folder: Path | None,
    ) -> None:
        self.precision = precision
        self._lock = threading.Lock()
        self._compiled = _compile(network.eval(), (1, *input_shape[1:]), input_dtype, precision)
        self._request = self._compiled.create_infer_request()

    def run(self, batch: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        """Run the network; see `gfprestore.engine.Engine.run`."""
        rows = []
        with self._lock:
            for item in range(len(batch)):
                self._request.infer([np.ascontiguousarray(batch[item : item + 1])], share_inputs=True)
                rows.append([np.array(tensor.data) for tensor in self._request.output_tensors])
        return tuple(np.concatenate(parts) for parts in zip(*rows, strict=True))


def _compile(network: nn.Module, shape: tuple[int | None, ...], dtype: str, precision: str) -> openvino.CompiledModel:
    example = torch.zeros([EXAMPLE_SIDE if axis is None else axis for axis in shape], dtype=getattr(torch, dtype))
    partial = openvino.PartialShape([-1 if axis is None else axis for axis in shape])
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's own deprecations and its remarks on fixed shapes
        model = openvino.convert_model(network, example_input=example, input=[partial])
    settings = {"INFERENCE_PRECISION_HINT": _PRECISIONS[precision], "PERFORMANCE_HINT": "LATENCY"}
    return openvino.Core().compile_model(model, "CPU", settings)
