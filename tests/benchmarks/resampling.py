"""Processor and wall time of enlarging a photo and of cutting a face out of it, by the kernels and by OpenCV.

    python tests/benchmarks/resampling.py --rounds 15

Both are run in turn, and the median of each is told, in milliseconds. The photo has 1000 x 1400 pixels, the face 512 x
512.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import cv2
import numpy as np

from gfprestore import align, resize
from gfprestore.align import cut_crop
from gfprestore.geometry import Transform
from gfprestore.native.library import load_library
from gfprestore.photo import Pixels
from gfprestore.resize import resize_photo

WIDTH, HEIGHT, SIDE = 1400, 1000, 512
SCALES = (1.5, 2, 4)
MAGNIFICATIONS = (0.5, 1.2, 4)
ANGLE = 0.1


def make_photo(dtype: type, channels: int) -> Pixels:
    photo = np.random.default_rng(0).random((HEIGHT // 8, WIDTH // 8, channels), np.float32)
    photo = cv2.resize(photo, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR) * np.iinfo(dtype).max
    return photo.round().astype(dtype)


def face_in_the_middle(magnification: float) -> Transform:
    cos, sin = magnification * np.cos(ANGLE), magnification * np.sin(ANGLE)
    turn = np.array([[cos, -sin], [sin, cos]])
    return np.column_stack([turn, SIDE / 2 - turn @ [WIDTH / 2, HEIGHT / 2]])


def without_kernels(run: Callable[[], object]) -> Callable[[], object]:
    def run_without() -> None:
        resize.load_library = align.load_library = lambda: None
        try:
            run()
        finally:
            resize.load_library = align.load_library = load_library

    return run_without


def measure(run: Callable[[], object], rounds: int) -> list[tuple[float, float]]:
    """Medians of processor and wall time in milliseconds, by OpenCV and by the kernels."""
    ways = (without_kernels(run), run)
    times: tuple[list[tuple[float, float]], ...] = ([], [])
    for count in range(rounds + 1):
        for way, taken in zip(ways, times, strict=True):
            start = time.process_time(), time.perf_counter()
            way()
            if count:  # the first makes tables and threads
                taken.append((time.process_time() - start[0], time.perf_counter() - start[1]))
    return [tuple(1e3 * statistics.median(column) for column in zip(*taken, strict=True)) for taken in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    if load_library() is None:
        raise SystemExit("There are no kernels here: python gfprestore/native/build.py")
    print(f"{'':32} {'OpenCV':>15} {'kernels':>15} {'ratio':>6}")
    for dtype in (np.uint8, np.uint16):
        tasks: dict[str, Callable[[], object]] = {}
        for channels, name in ((3, "RGB"), (1, "gray")):
            photo = make_photo(dtype, channels)
            for scale in SCALES:
                size = round(WIDTH * scale), round(HEIGHT * scale)
                tasks[f"{name} x{scale}"] = lambda photo=photo, size=size: resize_photo(photo, size)
        photo = make_photo(dtype, 3)
        for scale in MAGNIFICATIONS:
            to_crop = face_in_the_middle(scale)
            tasks[f"face x{scale}"] = lambda photo=photo, to_crop=to_crop: cut_crop(photo, to_crop, SIDE)
        for name, run in tasks.items():
            (there, there_wall), (here, here_wall) = measure(run, rounds)
            columns = f"{there:8.1f}{there_wall:7.1f} {here:8.1f}{here_wall:7.1f} {there / here:6.1f}"
            print(f"{np.dtype(dtype).name + ' ' + name:32} {columns}")


if __name__ == "__main__":
    main()
