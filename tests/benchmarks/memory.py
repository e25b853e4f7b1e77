"""Measure the peak of memory of enlarging a 100-megapixel photo twice: Lanczos, and Real-ESRGAN x2plus.

    python tests/benchmarks/memory.py [--megapixels 100] [--suffix jpg] [--weights FILE]

Each way runs in a process of its own and does the whole job: read, look for faces, enlarge, write. The network is the
real one, compiled as for a run, and one tile of the size that the photo gets is really run to see what it takes. The
others would take hours and no more memory, so they are only enlarged by repeating pixels, while the network's memory
stays held.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

PROJECT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests")]

from fakes import fake_models  # noqa: E402  # the folders must be known first

from gfprestore.background import LANCZOS, load_network  # noqa: E402
from gfprestore.engine import Engine, resolve_precision  # noqa: E402
from gfprestore.folders import plan_jobs  # noqa: E402
from gfprestore.options import RestoreOptions  # noqa: E402
from gfprestore.pipeline import restore_photos  # noqa: E402
from gfprestore.report import Restored  # noqa: E402
from gfprestore.upscaling.upscaler import NetworkUpscaler  # noqa: E402
from gfprestore.weights import read_state_dict  # noqa: E402

WEIGHTS = PROJECT.parent / "shared/weights/RealESRGAN_x2plus_fp16.pth"
PAGE = 4096


def resident() -> int:
    """Bytes that this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def peak() -> int:
    """Most bytes that this process ever held."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024  # type: ignore[index]


class OnceEngine:
    """Runs the real network on the first tile, and holds on to what that took."""

    def __init__(self, engine: Engine) -> None:
        self.engine: Engine | None = engine
        self.kept = engine
        self.device, self.precision = engine.device, engine.precision
        if hasattr(engine, "bytes_per_pixel"):
            self.bytes_per_pixel = engine.bytes_per_pixel

    def run(self, batch: np.ndarray) -> tuple[np.ndarray, ...]:
        if self.engine is not None:
            before, most, done = resident(), [0], threading.Event()

            def watch() -> None:
                while not done.wait(0.02):
                    most[0] = max(most[0], resident())

            watcher = threading.Thread(target=watch)
            watcher.start()
            self.engine.run(batch)
            done.set()
            watcher.join()
            taken = most[0] - before
            print(f"one tile of {batch.shape[2]} x {batch.shape[1]} takes {taken / 1e9:.2f} GB", flush=True)
            # Its request keeps that memory for the next tile, and so it is held on to here.
            self.kept, self.engine = self.engine, None
        return (batch.repeat(2, axis=1).repeat(2, axis=2),)


def run_way(way: str, folder: Path, weights: Path) -> None:
    """Do the whole job one way, in this process, and print the peak."""
    upscaler = LANCZOS
    if way == "real-esrgan":
        precision = resolve_precision("auto", "cpu")
        network = load_network("x2plus", read_state_dict(weights), "cpu", precision)
        engine = OnceEngine(network.build_engine("cpu", precision))
        upscaler = NetworkUpscaler(network, device="cpu", precision=precision, engine=engine)
    start = time.perf_counter()
    jobs = plan_jobs([folder / "in"], folder / way)
    for outcome in restore_photos(jobs, replace(fake_models(), upscaler=upscaler), RestoreOptions(upscale=2)):
        assert isinstance(outcome, Restored), outcome
        width, height = outcome.size
        print(f"{way}: {width} x {height}, peak {peak() / 1e9:.2f} GB, {time.perf_counter() - start:.0f} s", flush=True)


def main() -> None:
    """Make the photo and measure each way in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megapixels", type=float, default=100)
    parser.add_argument("--suffix", default="jpg")
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--way", choices=["lanczos", "real-esrgan"])
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    if arguments.way:
        run_way(arguments.way, arguments.folder, arguments.weights)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        height = round((arguments.megapixels * 1e6 * 3 / 4) ** 0.5)
        small = np.random.default_rng(0).integers(0, 256, (60, 80, 3)).astype(np.uint8)
        small[0, 0, 0] = 0  # the stand-in for the detector finds no face
        photo = Image.fromarray(small).resize((round(height * 4 / 3), height), Image.Resampling.BILINEAR)
        photo.putpixel((0, 0), (0, 0, 0))
        photo.save(folder / "in" / f"photo.{arguments.suffix}")
        del photo
        for way in ("lanczos", "real-esrgan"):
            again = [sys.executable, __file__, "--way", way, "--folder", name, "--weights", str(arguments.weights)]
            subprocess.run(again, check=True)


if __name__ == "__main__":
    main()
