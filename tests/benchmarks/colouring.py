"""Tell how far the colours of the shipped colouring model are from the truth, by skin tone.

    python tests/benchmarks/colouring.py FACES [--last 250]

FACES is a folder of aligned faces in colour, 512x512, that the model was not trained on; the last ones by name are
taken. Each is degraded by the paper's model, made gray, restored by the small model and coloured. Distances are in CIE
a and b over the middle of the crop. Skin is grouped by the individual typology angle of cheeks and forehead,
atan((L - 50) / b): shadows count as darker skin.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from gfprestore.colorizing.lab import rgb_to_lab
from gfprestore.photofile import read_photo
from gfprestore.restorer import FaceRestorer, build_restorer
from gfprestore.training.degradation import degrade_photo
from gfprestore.training.degradation_presets import ARTICLE, draw_degradation
from gfprestore.weights import ensure_weights, read_state_dict

SEED = 7
MIDDLE = np.s_[130:420, 120:392]
CHEEKS = (np.s_[280:320, 152:192], np.s_[280:320, 320:360])
SKIN = (*CHEEKS, np.s_[132:160, 216:296])
GROUPS = (
    ("under 10", -180, 10),
    ("10 to 28", 10, 28),
    ("28 to 41", 28, 41),
    ("41 to 55", 41, 55),
    ("over 55", 55, 180),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=Path)
    parser.add_argument("--last", type=int, default=250)
    arguments = parser.parse_args()
    restorer, colourist = load("compact"), load("compact-colour")
    paths = sorted(arguments.faces.glob("*"))[-arguments.last :]
    rows = np.array([measure(path, index, restorer, colourist) for index, path in enumerate(paths)])
    print(f"{'typology angle':16}{'faces':>6}{'left gray':>11}{'coloured':>10}{'cheeks a, b':>14}{'coloured':>12}")
    for name, low, high in (("all", -181, 181), *GROUPS):
        group = rows[(rows[:, 0] > low) & (rows[:, 0] <= high)]
        if len(group):
            _, gray, coloured, *cheeks = group.mean(axis=0)
            told = [f"{a:.0f}, {b:.0f}" for a, b in (cheeks[:2], cheeks[2:])]
            print(f"{name:16}{len(group):6}{gray:11.1f}{coloured:10.1f}{told[0]:>14}{told[1]:>12}")


def load(name: str) -> FaceRestorer:
    return build_restorer(read_state_dict(ensure_weights(name, offline=True)), device="cpu", precision="fp32")


def measure(path: Path, index: int, restorer: FaceRestorer, colourist: FaceRestorer) -> list[float]:
    """Typology angle, chroma's error left gray and coloured, and a and b of the true and the coloured cheeks."""
    face = read_photo(path).pixels
    degraded = degrade_photo(face, draw_degradation(np.random.default_rng([SEED, index]), ARTICLE))  # type: ignore[arg-type]
    (restored,) = restorer.restore([in_gray(degraded)])
    (coloured,) = colourist.restore([in_gray(restored)])
    truth, found = (rgb_to_lab(pixels / np.float32(255)) for pixels in (face, coloured))
    skin = np.median(np.concatenate([truth[part].reshape(-1, 3) for part in SKIN]), axis=0)
    errors = [np.hypot(*np.moveaxis(off[MIDDLE], 2, 0)).mean() for off in (truth[..., 1:], (truth - found)[..., 1:])]
    cheeks = [np.concatenate([lab[part].reshape(-1, 3) for part in CHEEKS]).mean(axis=0) for lab in (truth, found)]
    return [np.degrees(np.arctan2(skin[0] - 50, skin[2])), *errors, *cheeks[0][1:], *cheeks[1][1:]]


def in_gray(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB), np.uint8)


if __name__ == "__main__":
    main()
