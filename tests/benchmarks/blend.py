"""Milliseconds per face of each blending step, on a 512 pixel crop.

python tests/benchmarks/blend.py [--threads N]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import cv2
import numpy as np

from gfprestore.bands import count_octaves, split_bands
from gfprestore.blend import BlendSettings, blend_crop
from gfprestore.grain import draw_grain, measure_grain
from gfprestore.masks import FaceLabel, border_mask, face_mask, oval_mask
from gfprestore.tone import Tone, find_tone, lab_to_unit, pixels_to_lab

SIZE = 512
ROUNDS = 15


def best_milliseconds(step: Callable[[], object]) -> tuple[float, float]:
    """Least and median time of a step; the first call, which fills caches, is left out."""
    step()
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        step()
        times.append(1000 * (time.perf_counter() - start))
    return min(times), float(np.median(times))


def portrait_labels() -> np.ndarray:
    """Labels of a plain head."""
    y, x = (np.mgrid[:SIZE, :SIZE] + 0.5) / SIZE
    labels = np.full((SIZE, SIZE), FaceLabel.BACKGROUND, np.uint8)
    labels[((x - 0.5) / 0.42) ** 2 + ((y - 0.42) / 0.4) ** 2 < 1] = FaceLabel.HAIR
    labels[((x - 0.5) / 0.3) ** 2 + ((y - 0.55) / 0.36) ** 2 < 1] = FaceLabel.SKIN
    return labels


def main() -> None:
    """Time every step and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2, help="threads of OpenCV")
    cv2.setNumThreads(parser.parse_args().threads)

    rng = np.random.default_rng(0)
    restored = cv2.resize(
        rng.integers(40, 220, (32, 32, 3), dtype=np.uint8), (SIZE, SIZE), interpolation=cv2.INTER_CUBIC
    )
    photo = np.clip(cv2.GaussianBlur(restored, (0, 0), 4) + rng.normal(0, 4, restored.shape), 0, 255).astype(np.uint8)
    gray = np.repeat(photo[..., :1], 3, axis=2)
    lab = pixels_to_lab(photo)
    lightness = np.ascontiguousarray(lab[..., 0])
    octaves = count_octaves(SIZE)
    bands = split_bands(lab, octaves)
    grain = measure_grain(bands, lightness, 0.5)
    labels = portrait_labels()
    plain = BlendSettings()

    def blend(crop: np.ndarray, tone: Tone, sampling: float) -> Callable[[], object]:
        return lambda: blend_crop(crop, restored, sampling=sampling, settings=plain, tone=tone)

    steps: dict[str, Callable[[], object]] = {
        "mask without parsing (cached)": lambda: oval_mask(SIZE),
        "border mask (not cached)": lambda: border_mask.__wrapped__(SIZE),
        "mask from parsing": lambda: face_mask(SIZE, before=labels, after=labels),
        "tone of the crop": lambda: find_tone(photo),
        "to Lab": lambda: pixels_to_lab(photo),
        "from Lab": lambda: lab_to_unit(lab),
        "bands": lambda: split_bands(lab, octaves),
        "grain, measured": lambda: measure_grain(bands, lightness, 0.5),
        "grain, drawn": lambda: draw_grain(grain, lightness, 1),
        "whole blend, gray": blend(gray, Tone.GRAY, 0.5),
        "whole blend, toned": blend(photo, Tone.TONED, 0.5),
        "whole blend, colour": blend(photo, Tone.COLOUR, 0.5),
        "whole blend, colour, large face": blend(photo, Tone.COLOUR, 1.5),
    }
    print(f"{'step':34}{'least':>9}{'median':>9}  ms per face")
    for name, step in steps.items():
        least, median = best_milliseconds(step)
        print(f"{name:34}{least:9.2f}{median:9.2f}")


if __name__ == "__main__":
    main()
