"""Time the search for faces beside facexlib's network in torch and OpenVINO, and a large photo beside one face.

    python tests/benchmarks/detection.py [--rounds 5] [--threads 2] [--size W H]

Both detectors: MobileNet-0.25 with the weights that ship, and ResNet-50 with random ones, which take the same time. The
ways take turns, so that other work on the machine slows them alike: read the ratios. `CPU s` is processor time over all
threads. The last lines set the whole search of a photo of 12 megapixels, with all its sizes, tiles and boxes, against
the restoration of one face by the full-width generator.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from generator import SIZE, random_official
from numpy.typing import NDArray
from PIL import Image

from gfprestore.detect import build_detector
from gfprestore.detection.network import DetectionNetwork, build_network, load_network
from gfprestore.detection.priors import MEAN
from gfprestore.engine import build_engine, resolve_precision
from gfprestore.native.detector import build_native_detector
from gfprestore.nn.tensors import as_arrays
from gfprestore.resize import resize_photo
from gfprestore.restorer import build_restorer
from gfprestore.torch_engine import TorchEngine
from gfprestore.weights import read_state_dict

PROJECT = Path(__file__).resolve().parents[2]
PHOTO = PROJECT / "examples/album/1969 house.jpg"
LARGE = 4000, 3000

Way = Callable[[], NDArray[np.float32]]
State = dict[str, NDArray[Any]]


def random_resnet() -> State:
    """Random weights whose normalisations have seen their input, as trained ones have: else the values only grow."""
    network = build_network("resnet50").train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.randn(2, 3, 128, 128) * 60)
    return as_arrays(network.state_dict())


def network_of(state: State) -> DetectionNetwork:
    return DetectionNetwork(load_network(state)).eval()


def ways_of(state: State, photos: NDArray[np.uint8]) -> dict[str, Way]:
    """The network's rows from photos [1 H W 3], computed in three ways, or in four where one gains by bfloat16."""
    official = TorchEngine(network_of(state), "cpu", "fp32")
    openvino = build_engine(
        lambda: network_of(state), (None, None, None, 3), input_dtype="uint8", device="cpu", precision="fp32"
    )
    ways = {"facexlib's network, torch": official, "gfprestore, OpenVINO": openvino}
    for precision in dict.fromkeys(("fp32", resolve_precision("auto", "cpu"))):
        native = build_native_detector(state, MEAN, precision)
        if native and native.precision == precision:
            ways[f"gfprestore, own kernels {precision}"] = native
    return {name: lambda engine=engine: engine.run(photos)[0] for name, engine in ways.items()}


def take_turns(ways: dict[str, Way], rounds: int) -> tuple[dict[str, float], dict[str, float], dict[str, NDArray]]:
    """Least time by the clock and of the processor, and results."""
    clock, processor = (dict.fromkeys(ways, float("inf")) for _ in range(2))
    results = {name: way() for name, way in ways.items()}
    for _ in range(rounds):
        for name, way in ways.items():
            began, worked = time.perf_counter(), time.process_time()
            way()
            processor[name] = min(processor[name], time.process_time() - worked)
            clock[name] = min(clock[name], time.perf_counter() - began)
    return clock, processor, results


def compare(title: str, state: State, photos: NDArray[np.uint8], rounds: int) -> None:
    ways = ways_of(state, photos)
    clock, processor, results = take_turns(ways, rounds)
    first, megapixels = next(iter(ways)), photos.shape[1] * photos.shape[2] / 1e6
    print(f"\n{title}, {photos.shape[2]} x {photos.shape[1]}, seconds a megapixel\n")
    print("| | s | times | CPU s | times | largest error, relative | root mean square |\n|---|---|---|---|---|---|---|")
    for name in ways:
        error = (results[name] - results[first]) / np.abs(results[first]).max(axis=(0, 1))
        figures = [f"{kind[name] / megapixels:.3f} | {kind[first] / kind[name]:.1f}" for kind in (clock, processor)]
        print(f"| {name} | {' | '.join(figures)} | {np.abs(error).max():.1e} | {np.square(error).mean() ** 0.5:.1e} |")


def beside_a_face(state: State, photo: NDArray[np.uint8], rounds: int) -> None:
    """The whole search of a photo, and one face restored, in the precisions that this processor has."""
    detector = build_detector(state, device="cpu", threshold=0.6, min_face=16, rotations=False)
    ways: dict[str, Way] = {f"search of {LARGE[0]} x {LARGE[1]}": lambda: detector.search([photo]) and np.empty(0)}
    weights = {key.removeprefix("network."): array for key, array in as_arrays(random_official().state_dict()).items()}
    face = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    for precision in dict.fromkeys(("fp32", resolve_precision("auto", "cpu"))):
        restorer = build_restorer(weights, device="cpu", precision=precision)
        ways[f"a face, full width, {precision}"] = lambda restorer=restorer: restorer.restore([face])[0]
    clock, processor, _ = take_turns(ways, rounds)
    print("\n| | s | CPU s |\n|---|---|---|")
    for name in ways:
        print(f"| {name} | {clock[name]:.2f} | {processor[name]:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--size", type=int, nargs=2, default=(1280, 960), metavar=("W", "H"), help="multiples of 32")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)  # which the kernels look at
    photo = np.asarray(Image.open(PHOTO).convert("RGB"))
    shipped = read_state_dict(PROJECT / "weights" / "detector_compact_fp16.safetensors")
    torch.manual_seed(0)
    photos = resize_photo(photo, arguments.size)[None]
    compare("MobileNet-0.25", shipped, photos, arguments.rounds)
    compare("ResNet-50", random_resnet(), photos, arguments.rounds)
    beside_a_face(shipped, resize_photo(photo, LARGE), arguments.rounds)


if __name__ == "__main__":
    main()
