"""How the cost grows: with the photos of an album, with the faces of a photo, and with its megapixels.

    python tests/benchmarks/growth.py [--photos 10 100 1000 10000]

Prints one table of processor time, which other programs disturb least. The albums hold small synthetic photos, every
twentieth with a face of the sample album, and go through the whole of `run_jobs`; what a run takes before its first
photo is left out. The single photos go step by step through what the pipeline does to one, so that each step's time is
its own. All networks are those that ship.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from long_run import EXAMPLES, Watched, make_album
from PIL import Image

from gfprestore import run, stagetimes
from gfprestore.folders import plan_jobs
from gfprestore.inwork import OpenPhoto, stamp_of
from gfprestore.job import Job
from gfprestore.models import Models, load_models
from gfprestore.options import RestoreOptions
from gfprestore.photosteps import finish_photo, open_page, restore_crops, with_faces
from gfprestore.stagetimes import Stopwatch

FACES_EVERY = 20
SIDE = 64

FACE = (64, 80, 464, 480)
"""Left, top, right, bottom of the face in the sample photo that single photos are made of."""

FACE_COUNTS = (0, 1, 2, 4, 8, 16, 32)
FACES_MEGAPIXELS = 6.0

MEGAPIXELS = (1.5, 3.0, 6.0, 12.0, 24.0, 48.0)

REPEATS = 2
"""Runs of each single photo, of which the quickest counts."""

OPTIONS = RestoreOptions(
    model="compact",
    detector="detector-compact",
    background="lanczos",
    offline=True,
    precision="fp32",
    rotations=False,
    overwrite=True,
)


def measure_albums(folder: Path, counts: list[int]) -> None:
    """Prints processor time for each photo, and memory, of runs over more and more photos."""
    run.RunProgress = Watched  # type: ignore[misc]
    print(f"{'photos':>10} {'ms/photo':>9} {'MB peak':>8} {'ms/photo by quarters of the run':>36}", flush=True)
    for count in counts:
        make_album(folder / f"album{count}", count, FACES_EVERY, SIDE)
        jobs = plan_jobs([folder / f"album{count}"], folder / f"out{count}")
        code = run.run_jobs(jobs, OPTIONS, report_name=None, resume=None, say=lambda _: None, shows_progress=False)
        samples = Watched.samples
        assert code == 0
        assert samples[-1].done == count
        # From the first sample on: before it the pipeline fills.
        ends = [samples[0], *(samples[len(samples) * part // 4 - 1] for part in range(1, 5))]
        quarters = [
            1000 * (end.seconds[1] - start.seconds[1]) / max(1, end.done - start.done)
            for start, end in itertools.pairwise(ends)
        ]
        told = "  ".join(f"{quarter:7.1f}" for quarter in quarters) if count >= 100 else ""
        whole = 1000 * samples[-1].seconds[1] / count
        print(f"{count:10} {whole:9.1f} {max(s.memory for s in samples):8.0f} {told:>36}", flush=True)


def make_photo(path: Path, megapixels: float, faces: int, face_side: int = 180) -> None:
    """Writes a photo of a soft slope with copies of one face on a grid."""
    height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    width = round(height * 4 / 3)
    rows, columns = np.linspace(60, 150, height)[:, None, None], np.linspace(0, 60, width)[None, :, None]
    pixels = (rows + columns + np.random.default_rng(0).normal(0, 3, (height, width, 1))).clip(0, 255).astype(np.uint8)
    photo = Image.fromarray(pixels.repeat(3, axis=2))
    with Image.open(EXAMPLES / "1974 aunt.jpg") as image:
        face = image.convert("RGB").crop(FACE).resize((face_side, face_side))
    per_row = 8
    for index in range(faces):
        x, y = (index % per_row + 0.5) * width / per_row, (index // per_row + 0.5) * height / 4
        photo.paste(face, (round(x - face_side / 2), round(y - face_side / 2)))
    photo.save(path, quality=92)


def steps_of(path: Path, models: Models) -> tuple[dict[str, float], int]:
    """Processor seconds of one photo by stage, and its faces."""
    job = Job(path, path.with_suffix(".out.jpg"), Path(path.name))
    watch = Stopwatch()
    work = OpenPhoto(job, open_page(job, OPTIONS), stamp_of(path))
    watch.lap("read")
    work, crops = with_faces(work, models, OPTIONS)
    watch.lap("detect")
    work.seconds.update(watch.seconds)
    restored = [crop for index in range(0, len(crops), 4) for crop in restore_crops(models, crops[index : index + 4])]
    outcome = finish_photo(work, restored, models, OPTIONS, bool)
    return dict(outcome.seconds), len(outcome.faces)


def measure_photos(folder: Path, what: str, photos: list[tuple[float, float, int]]) -> None:
    """Prints processor seconds by stage of single photos."""
    stages = [stage for stages in stagetimes.STEPS.values() for stage in stages if stage != "colour"]
    print(f"\n{what:>10} " + " ".join(f"{stage:>10}" for stage in stages) + f" {'all':>8} {'faces':>6}", flush=True)
    models = load_models(OPTIONS, say=lambda _: None)
    for label, megapixels, faces in photos:
        path = folder / "photo.jpg"
        make_photo(path, megapixels, faces)
        runs = [steps_of(path, models) for _ in range(REPEATS + 1)][1:]
        best = {stage: min(seconds.get(stage, 0.0) for seconds, _ in runs) for stage in stages}
        row = " ".join(f"{best[stage]:10.3f}" for stage in stages)
        print(f"{label:10g} {row} {sum(best.values()):8.2f} {runs[0][1]:6}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, nargs="*", default=[10, 100, 1000, 10_000])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print("processor seconds of single photos, by stage")
        stagetimes.time = SimpleNamespace(perf_counter=time.process_time)  # type: ignore[assignment]
        measure_photos(folder, "faces", [(faces, FACES_MEGAPIXELS, faces) for faces in FACE_COUNTS])
        measure_photos(folder, "megapixels", [(size, size, 1) for size in MEGAPIXELS])
        stagetimes.time = time
        print("\nprocessor time of albums")
        measure_albums(folder, arguments.photos)


if __name__ == "__main__":
    main()
