"""Milliseconds per face of each blending step, on a 512 pixel crop, and of all that is done to a face but its network.

The last lines are for a face whose crop takes 512 pixels in the output: blend with colours and grain, mask from
parsing, and paste into a photo of 3 megapixels at twice its size. Wall time falls with `--threads`, processor time does
not.

python tests/benchmarks/blend.py [--threads N]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import cv2
import numpy as np

from gfprestore.blending.bands import count_octaves, split_bands
from gfprestore.blending.blend import BlendSettings, blend_crop
from gfprestore.blending.grain import draw_grain, measure_grain
from gfprestore.blending.masks import FaceLabel, border_mask, face_mask, oval_mask
from gfprestore.blending.tone import Tone, find_tone, lab_to_unit, pixels_to_lab
from gfprestore.paste import FacePatch, paste_faces

SIZE = 512
ROUNDS = 15


def best_milliseconds(step: Callable[[], object]) -> tuple[float, float, float]:
    """Least and median time of a step, and its least processor time, without the first call, which fills caches."""
    step()
    times, processor = [], []
    for _ in range(ROUNDS):
        start, start_processor = time.perf_counter(), time.process_time()
        step()
        processor.append(1000 * (time.process_time() - start_processor))
        times.append(1000 * (time.perf_counter() - start))
    return min(times), float(np.median(times)), min(processor)


def paste_step(crop: np.ndarray, restored: np.ndarray, mask: np.ndarray) -> Callable[[], object]:
    """Pastes one face of 256 photo pixels into a photo of 3 megapixels at twice its size."""
    photo = np.random.default_rng(1).integers(0, 256, (1500, 2000, 3), dtype=np.uint8)
    canvas = cv2.resize(photo, (4000, 3000))
    to_crop = np.array([[1.96, 0.35, -900.0], [-0.35, 1.96, -500.0]])
    patch = FacePatch(crop, restored, mask, to_crop)
    return lambda: paste_faces(canvas, photo, [patch], canvas_is_resized_photo=True)


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
    blended = blend_crop(photo, restored, sampling=0.5, settings=plain, tone=Tone.COLOUR).pixels
    assert blended is not None
    steps["paste, 512 pixels in the output"] = paste_step(photo, blended, face_mask(SIZE, before=labels, after=labels))
    print(f"{'step':34}{'least':>9}{'median':>9}{'processor':>11}  ms per face")
    measured = {name: best_milliseconds(step) for name, step in steps.items()}
    for kind in ("gray", "colour"):
        parts = (f"whole blend, {kind}", "mask from parsing", "paste, 512 pixels in the output")
        measured[f"all of these, {kind}"] = tuple(np.sum([measured[part] for part in parts], axis=0))
    for name, (least, median, processor) in measured.items():
        print(f"{name:34}{least:9.2f}{median:9.2f}{processor:11.2f}")


if __name__ == "__main__":
    main()
