"""Time Real-ESRGAN beside the official way of running it, and tell how close the results are.

    python tests/benchmarks/background.py [--photo PHOTO] [--weights FILE] [--size W H] [--tile 400] [--rounds N]

The weights are those of x2plus, unless others are named, such as general-x4v3's.

Official: `RealESRGANer` cuts tiles of 400 pixels with a rim of 10, runs each in torch fp32 and joins them hard. It is
the package itself where that is installed, else the same steps on spandrel's network. Ours: `NetworkUpscaler` in fp32
and, where the processor has it, in bf16. The ways take turns and the best time of each counts; beside the clock stands
the processor's own time, which other load on the machine changes less.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from gfprestore.background import load_network
from gfprestore.engine import resolve_precision
from gfprestore.errors import UsageError
from gfprestore.resize import resize_photo
from gfprestore.upscaling.network import UpscalingNetwork, load_upscaling_network
from gfprestore.upscaling.package import PackageUpscaler
from gfprestore.upscaling.tiles import TileGrid
from gfprestore.upscaling.upscaler import NetworkUpscaler
from gfprestore.weights import read_state_dict

PROJECT = Path(__file__).resolve().parents[2]
SHARED = PROJECT.parent / "shared"
RIM = 10


def official(
    network: UpscalingNetwork, state: dict[str, np.ndarray], tile: int
) -> tuple[str, Callable[[np.ndarray], np.ndarray]]:
    """The package's upscaler, or its steps: mirror out by a rim, cut tiles with a rim, run each, join hard."""
    factor, multiple = network.factor, network.multiple
    with suppress(UsageError):
        if factor == 2:  # what the package has its own class for
            package = PackageUpscaler(state, 2, device="cpu", tile_pixels=tile)
            return "realesrgan package", lambda pixels: package.upscale(
                pixels, (pixels.shape[1] * 2, pixels.shape[0] * 2)
            )

    @torch.inference_mode()
    def upscale(pixels: np.ndarray) -> np.ndarray:
        height, width = pixels.shape[:2]
        frame = np.pad(pixels, ((0, RIM), (0, RIM), (0, 0)), mode="reflect")
        frame = np.pad(
            frame, ((0, -frame.shape[0] % multiple), (0, -frame.shape[1] % multiple), (0, 0)), mode="reflect"
        )
        values = torch.from_numpy(frame.astype(np.float32) / 255)[None]
        result = np.empty((frame.shape[0] * factor, frame.shape[1] * factor, 3), np.float32)
        for top in range(0, frame.shape[0], tile):
            for left in range(0, frame.shape[1], tile):
                bottom, right = min(top + tile, frame.shape[0]), min(left + tile, frame.shape[1])
                above, before = max(0, top - RIM), max(0, left - RIM)
                part = network(values[:, above : bottom + RIM, before : right + RIM].contiguous())[0].numpy()
                rows = slice((top - above) * factor, (bottom - above) * factor)
                columns = slice((left - before) * factor, (right - before) * factor)
                result[top * factor : bottom * factor, left * factor : right * factor] = part[rows, columns]
        return (result[: height * factor, : width * factor] * 255).round().astype(np.uint8)

    return "RealESRGANer's steps on spandrel's network", upscale


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    """PSNR of two uint8 photos in decibels."""
    error = np.mean((first.astype(np.float64) - second) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def main() -> None:
    """Run the comparison and print one line for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photo", type=Path, default=PROJECT / "examples/album/1969 house.jpg")
    parser.add_argument("--weights", type=Path, default=SHARED / "weights/RealESRGAN_x2plus_fp16.pth")
    parser.add_argument("--size", type=int, nargs=2, default=(480, 360), metavar=("W", "H"), help="of the photo")
    parser.add_argument("--tile", type=int, default=400, help="tile of the official way")
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()

    width, height = arguments.size
    pixels = resize_photo(np.asarray(Image.open(arguments.photo).convert("RGB")), (width, height))
    state = read_state_dict(arguments.weights)
    weights = arguments.weights.stem
    network = load_upscaling_network(weights, state)
    size = width * network.factor, height * network.factor
    name, theirs = official(network, state, arguments.tile)
    ways = {f"{name}, tile {arguments.tile}, fp32": theirs}
    for precision in dict.fromkeys(("fp32", resolve_precision("auto", "cpu"))):
        ours = NetworkUpscaler(load_network(weights, state, "cpu", precision), device="cpu", precision=precision)
        ours.upscale(resize_photo(pixels, (64, 64)), (128, 128))
        ways[f"gfprestore, {precision}"] = lambda image, ours=ours: ours.upscale(image, size)

    best = dict.fromkeys(ways, float("inf"))
    busy = dict(best)
    results = {}
    for _ in range(arguments.rounds):
        for title, way in ways.items():
            began, worked = time.perf_counter(), time.process_time()
            results[title] = way(pixels)
            best[title] = min(best[title], time.perf_counter() - began)
            busy[title] = min(busy[title], time.process_time() - worked)
    first = next(iter(ways))
    threads = torch.get_num_threads()
    print(f"{weights}, {width} x {height}, x{network.factor}, {threads} threads, best of {arguments.rounds}")
    for title in ways:
        decibels = psnr(results[title], results[first])
        clock = f"clock {best[title]:7.2f} s ({best[first] / best[title]:4.2f} times)"
        processor = f"processor {busy[title]:7.2f} s ({busy[first] / busy[title]:4.2f} times)"
        print(f"{title:58} {clock}  {processor}  {decibels:5.1f} dB")
    for megapixels, shape in ((1, (866, 1155, 3)), (12, (3000, 4000, 3)), (100, (8660, 11547, 3))):
        grid = plan_for(ours, shape)
        share = len(grid) * grid.width * grid.height / (shape[0] * shape[1])
        tiles = f"{len(grid)} tiles of {grid.width} x {grid.height}"
        print(f"{megapixels:3} megapixels: {tiles}, {share:.2f} times its pixels")


def plan_for(upscaler: NetworkUpscaler, shape: tuple[int, ...]) -> TileGrid:
    """Tiles that a photo of this shape is cut into; the official ones are 1.10 times the pixels of a large photo."""
    return upscaler._plan(np.broadcast_to(np.uint8(0), shape))


if __name__ == "__main__":
    main()
