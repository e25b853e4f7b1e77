"""Time the parsing of a face beside facexlib's network in torch and OpenVINO, and the restoration of that face.

    python tests/benchmarks/parsing.py [--rounds 5] [--threads 2] [--weights FILE]

BiSeNet with random weights, which take the same time as the real ones; with `--weights` those of the file, whose
classes tell something. The ways take turns, so that other work on the machine slows them alike: read the
ratios. `CPU s` is processor time over all threads. A run parses every face twice, before and after its restoration.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import torch
from detection import take_turns
from facexlib.parsing.bisenet import BiSeNet
from generator import SIZE, random_official

from gfprestore.engine import build_engine, resolve_precision
from gfprestore.nn.tensors import as_arrays
from gfprestore.parsing import PARSER_SIZE, build_parser
from gfprestore.parsing_network import load_parsing_network
from gfprestore.restorer import build_restorer
from gfprestore.torch_engine import TorchEngine
from gfprestore.weights import read_state_dict


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--weights", type=Path, help="parsing_bisenet.pth")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)  # which the kernels look at
    torch.manual_seed(0)
    state = read_state_dict(arguments.weights) if arguments.weights else as_arrays(BiSeNet(num_class=19).state_dict())
    face = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    auto = resolve_precision("auto", "cpu")
    engines = {"facexlib's network, torch": TorchEngine(load_parsing_network(state)[0], "cpu", "fp32")}
    shape = None, PARSER_SIZE, PARSER_SIZE, 3
    for precision in dict.fromkeys(("fp32", auto)):
        network, _ = load_parsing_network(state)
        engine = build_engine(network, shape, input_dtype="uint8", device="cpu", precision=precision)
        engines[f"gfprestore, OpenVINO {precision}"] = engine
    ways = {name: lambda engine=engine: engine.run(face[None])[0][0] for name, engine in engines.items()}
    native = build_parser(state, device="cpu", precision=auto)
    ways["gfprestore, as it runs here"] = lambda: native.parse([face])[0]
    weights = {key.removeprefix("network."): array for key, array in as_arrays(random_official().state_dict()).items()}
    restorer = build_restorer(weights, device="cpu", precision=auto)
    ways[f"the face restored, full width, {auto}"] = lambda: restorer.restore([face])[0]
    clock, processor, results = take_turns(ways, arguments.rounds)
    first = next(iter(ways))
    print("| | s | times | CPU s | times | other classes |\n|---|---|---|---|---|---|")
    for name in ways:
        figures = [f"{kind[name]:.3f} | {kind[first] / kind[name]:.1f}" for kind in (clock, processor)]
        other = f"{(results[name] != results[first]).mean():.1e}" if results[name].ndim == 2 else "–"
        print(f"| {name} | {' | '.join(figures)} | {other} |")


if __name__ == "__main__":
    main()
