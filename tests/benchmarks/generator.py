"""Time the full-width generator beside the official code's form of it and onnxruntime, in one run.

    python tests/benchmarks/generator.py [--rounds 5] [--threads 2] [--weights FILE]

Needs the package itself; `pip install onnx onnxruntime` adds the onnxruntime row. All rows run the same random weights
on the same face, one after the other in every round, so that other work on the machine slows them alike: read the
ratios. `CPU s` is processor time over all threads, which waiting for the processor does not change. With `--weights`
those weights are run, and compared with this package's own network in torch: the official code knows no other widths.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from spandrel.architectures.GFPGAN import GFPGAN
from torch import Tensor, nn

from gfprestore.engine import build_engine, resolve_precision
from gfprestore.native.engine import build_native_engine
from gfprestore.nn.checkpoint import load_gfpgan
from gfprestore.nn.tensors import as_arrays
from gfprestore.nn.weights import read_gfpgan_weights
from gfprestore.weights import read_state_dict

SIZE = 512

State = dict[str, NDArray[Any]]
Run = Callable[[NDArray[Any]], NDArray[Any]]
"""A face [1 3 S S] of whole pixel values in [-1, 1] -> the restored image [1 3 S S]."""


@dataclass
class Row:
    """One way to run the generator."""

    name: str
    build: Callable[[], Run]
    run: Run | None = None
    preparation: float = 0.0
    seconds: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    output: NDArray[Any] | None = None


class OfficialForm(nn.Module):
    """The official network with its stored noise, image only: what the other rows are compared with."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        image: Tensor = self.network(x, return_rgb=False, randomize_noise=False)[0]
        return image


def random_official() -> nn.Module:
    """Full-width network in which noise and biases, which start at zero, count."""
    torch.manual_seed(0)
    network = GFPGAN()
    for parameter in network.parameters():
        if parameter.squeeze().ndim <= 1:
            parameter.data += 0.1 * torch.randn_like(parameter)
    return OfficialForm(network).eval()


def rows_of(state: State, face: NDArray[Any]) -> list[Row]:
    """Every way in which this package runs the weights on the processor."""
    rows = [
        Row("gfprestore, torch fp32", lambda: run_engine(state, "fp32", prefer_openvino=False)),
        Row("gfprestore, OpenVINO fp32", lambda: run_engine(state, "fp32")),
        Row("gfprestore, own kernels fp32", lambda: run_native(state, "fp32", face)),
    ]
    if resolve_precision("auto", "cpu") == "bf16":
        rows.append(Row("gfprestore, OpenVINO bf16", lambda: run_engine(state, "bf16")))
        rows.append(Row("gfprestore, own kernels bf16", lambda: run_native(state, "bf16", face)))
    return rows


def official_rows(official: nn.Module, face: NDArray[Any], threads: int) -> list[Row]:
    """The official form with torch, and with onnxruntime where that is installed."""
    rows = [Row("official form, torch fp32", lambda: run_torch(official))]
    if importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("onnx"):
        rows.append(Row("official form, onnxruntime fp32", lambda: run_onnxruntime(official, face, threads)))
    return rows


def run_torch(network: nn.Module) -> Run:
    def run(face: NDArray[Any]) -> NDArray[Any]:
        with torch.inference_mode():
            return network(torch.from_numpy(face)).numpy()

    return run


def run_engine(state: State, precision: str, prefer_openvino: bool = True) -> Run:
    network = load_gfpgan(state)
    engine = build_engine(
        network, (None, 3, SIZE, SIZE), device="cpu", precision=precision, prefer_openvino=prefer_openvino
    )
    return lambda face: engine.run(face)[0]


def run_native(state: State, precision: str, face: NDArray[Any]) -> Run:
    """The compiled kernels, from pixels to pixels; the image is looked at before it is rounded."""
    engine = build_native_engine(read_gfpgan_weights(state), precision)
    assert engine is not None
    pixels = np.ascontiguousarray(((face + 1) * 127.5).round().astype(np.uint8).transpose(0, 2, 3, 1))

    def run(_: NDArray[Any]) -> NDArray[Any]:
        engine.run(pixels)
        return engine.generator.image.transpose(2, 0, 1)[None]

    return run


def run_onnxruntime(network: nn.Module, face: NDArray[Any], threads: int) -> Run:
    import onnxruntime

    file = io.BytesIO()
    torch.onnx.export(network, (torch.from_numpy(face),), file, dynamo=False, opset_version=17)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda image: session.run(None, {name: image})[0]


def measure(row: Row, face: NDArray[Any]) -> None:
    assert row.run is not None
    wall, processor = time.perf_counter(), time.process_time()
    row.output = row.run(face)
    row.seconds.append(time.perf_counter() - wall)
    row.processor.append(time.process_time() - processor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="measured runs of every row")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of torch and onnxruntime")
    parser.add_argument("--weights", type=Path, help="a GFP-GAN's instead of the full width's random ones")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, SIZE, SIZE))
    face = (pixels / 127.5 - 1).astype(np.float32)
    if arguments.weights is not None:
        rows = rows_of(read_state_dict(arguments.weights), face)
    else:
        official = random_official()
        state = {key.removeprefix("network."): array for key, array in as_arrays(official.state_dict()).items()}
        rows = [*official_rows(official, face, arguments.threads), *rows_of(state, face)]
    for row in rows:
        start = time.perf_counter()
        row.run = row.build()
        row.run(face)
        row.preparation = time.perf_counter() - start
    for _ in range(arguments.rounds):
        for row in rows:
            measure(row, face)
    report(rows)


def report(rows: list[Row]) -> None:
    """Print the table; speed-ups and errors are against the first row."""
    titles = ("first face", "median s", "CPU s", "x wall", "x CPU", "max error", "rms error")
    print(" " * 32, "{:>10} {:>9} {:>7} {:>7} {:>7} {:>10} {:>10}".format(*titles))
    wanted = rows[0].output
    assert wanted is not None
    for row in rows:
        assert row.output is not None
        wall, processor = median(row.seconds), min(row.processor)
        largest = np.abs(row.output - wanted).max() / np.abs(wanted).max()
        rms = np.sqrt(np.square(row.output - wanted).mean() / np.square(wanted).mean())
        ratios = f"{median(rows[0].seconds) / wall:7.2f} {min(rows[0].processor) / processor:7.2f}"
        print(
            f"{row.name:32} {row.preparation:10.2f} {wall:9.3f} {processor:7.3f} {ratios} {largest:10.1e} {rms:10.1e}"
        )


if __name__ == "__main__":
    main()
