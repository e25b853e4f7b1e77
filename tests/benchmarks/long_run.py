"""One run over very many small photos: does memory stay flat, does anything leak, is the time left that is told true?

    python tests/benchmarks/long_run.py --photos 20000

Makes an album of tiny synthetic photos, every so-many-th with a face of the sample album, restores it with the networks
that ship, through the whole of `run_jobs`, and compares the last tenth of the run with the second.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from PIL import Image

from gfprestore import run
from gfprestore.folders import plan_jobs
from gfprestore.options import RestoreOptions
from gfprestore.progress import RunProgress, TimeLeft
from gfprestore.report import Report

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples" / "album"

SAMPLES = 400
"""Measurements in a run."""

CLOCKS = (time.monotonic, time.process_time)
"""The wall's, and the processor's: other programs disturb the first, and no estimate foresees them."""

PAGE = 4096
"""Bytes in a page of memory, as `/proc/self/statm` counts it."""


@dataclass(frozen=True)
class Sample:
    """The state of the process after some photos."""

    done: int
    seconds: tuple[float, float]
    """Since the run began, on the wall's clock and the processor's."""
    memory: float
    """Resident, in MB."""
    descriptors: int
    threads: int
    left: tuple[float | None, float | None]
    """Seconds that the run is told to take yet, on either clock."""


class Watched(RunProgress):
    """Takes a sample now and then where a bar would be drawn."""

    samples: list[Sample]

    def __enter__(self) -> Watched:
        self.began = [clock() for clock in CLOCKS]
        self.left = [TimeLeft(clock) for clock in CLOCKS]
        Watched.samples = []
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def show(self, report: Report) -> None:
        wall, processor = (left.seconds(report) for left in self.left)
        if report.done % max(1, report.planned // SAMPLES):
            return
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        Watched.samples.append(
            Sample(
                report.done,
                (CLOCKS[0]() - self.began[0], CLOCKS[1]() - self.began[1]),
                pages * PAGE / 1e6,
                sum(1 for _ in Path("/proc/self/fd").iterdir()),
                threading.active_count(),
                (wall, processor),
            )
        )


def make_album(folder: Path, photos: int, faces_every: int, side: int) -> None:
    """Writes photos of noise on a slope, and small ones with faces among them, spread evenly."""
    folder.mkdir()
    chance = np.random.default_rng(0)
    faces = []
    for path in sorted(EXAMPLES.glob("*.jpg")):
        with Image.open(path) as image:
            faces.append(image.convert("RGB").reduce(max(1, max(image.size) // 200)))
    for index in range(photos):
        path = folder / f"{index:06d}.jpg"
        if faces_every and index % faces_every == faces_every // 2:
            faces[index // faces_every % len(faces)].save(path)
            continue
        slope = np.linspace(0, 200, side)[None, :, None] + chance.integers(0, 40, (side * 3 // 4, side, 3))
        Image.fromarray(slope.astype(np.uint8)).save(path)


def mean_of(samples: list[Sample], decile: int) -> float:
    """Mean memory in MB in one tenth of the run, counted from 1."""
    part = samples[len(samples) * (decile - 1) // 10 : len(samples) * decile // 10]
    return statistics.fmean(sample.memory for sample in part)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--photos", type=int, default=20_000)
    parser.add_argument("--faces-every", type=int, default=100)
    parser.add_argument("--side", type=int, default=48, help="longer side of a photo in pixels")
    parser.add_argument("--folder", type=Path, help="where the album is made; a temporary one by default")
    arguments = parser.parse_args()
    run.RunProgress = Watched  # type: ignore[misc]
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        make_album(folder / "album", arguments.photos, arguments.faces_every, arguments.side)
        options = RestoreOptions(
            upscale=1, model="compact", detector="detector-compact", offline=True, precision="fp32", rotations=False
        )
        jobs = plan_jobs([folder / "album"], folder / "out")
        code = run.run_jobs(
            jobs, options, report_name=str(folder / "report.jsonl"), resume=None, say=print, shows_progress=False
        )
        written = sum(1 for _ in (folder / "out").iterdir())
    tell(Watched.samples, arguments.photos, written, int(code))


def worst_estimate(samples: list[Sample], photos: int, clock: int) -> float:
    """Greatest relative error of the time left, between a tenth and nine tenths of the run."""
    total = samples[-1].seconds[clock]
    inner = [sample for sample in samples if photos * 0.1 <= sample.done <= photos * 0.9]
    return max(abs((sample.left[clock] or 0) / (total - sample.seconds[clock]) - 1) for sample in inner)


def tell(samples: list[Sample], photos: int, written: int, code: int) -> None:
    """Prints what was measured, and exits with 1 where a promise does not hold."""
    total = samples[-1].seconds[0]
    second, last = mean_of(samples, 2), mean_of(samples, 10)
    print(f"photos {photos}, written {written}, exit code {code}, {total:.0f} s, {total / photos * 1000:.1f} ms each")
    print("memory by tenth of the run, MB:", *(f"{mean_of(samples, tenth):.1f}" for tenth in range(1, 11)))
    growth = last / second - 1
    print(f"last tenth against the second: {growth:+.2%}")
    steady = samples[len(samples) // 10 :]
    descriptors = {sample.descriptors for sample in steady}
    threads = {sample.threads for sample in steady}
    print(f"descriptors {min(descriptors)} to {max(descriptors)}, threads {min(threads)} to {max(threads)}")
    wrong = [worst_estimate(samples, photos, clock) for clock in range(len(CLOCKS))]
    print(f"time left, from 10 to 90 %: wrong by {wrong[0]:.1%} at most, {wrong[1]:.1%} in processor time")
    halves = samples[len(samples) // 10 : len(samples) // 2], samples[len(samples) // 2 :]
    grows = any(
        max(getattr(s, what) for s in halves[1]) > max(getattr(s, what) for s in halves[0])
        for what in ("descriptors", "threads")
    )
    sys.exit(int(growth > 0.03 or grows or wrong[1] > 0.2 or written != photos))


if __name__ == "__main__":
    main()
