"""The sample album looks as it did when somebody last looked: small copies of every face, judged by eye.

`golden/album_faces.npz` holds each face of `examples/album` as the shipped networks restore it, 72 pixels wide. After a
change that is meant to be seen, `python tests/test_album_looks.py sheet.png` draws before, golden and now beside each
other; with `--keep` it writes the golden anew. Look first.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from gfprestore.colour import to_8_bits
from gfprestore.folders import plan_jobs
from gfprestore.models import load_models
from gfprestore.options import RestoreOptions
from gfprestore.photofile import read_photo
from gfprestore.pipeline import restore_photos
from gfprestore.report import FaceRecord, Restored

ALBUM = Path(__file__).resolve().parent.parent / "examples" / "album"
GOLDEN = Path(__file__).parent / "golden" / "album_faces.npz"
SIDE = 72

MEAN_LEVELS, WORST_LEVELS = 0.3, 3.0
"""Largest mean and 99th percentile of the difference, in levels of 255: other processors round the networks otherwise.
Networks in bf16 make 0.04 to 0.23 and 1 to 2, restoration itself 0.46 to 1.8 and 4 to 10."""


def small_copy(pixels: np.ndarray, face: FaceRecord) -> np.ndarray:
    """A face with its surroundings, RGB uint8 (72, 72, 3)."""
    left, top, right, bottom = face.box
    x, y, reach = (left + right) / 2, (top + bottom) / 2, 0.7 * max(right - left, bottom - top)
    to_copy = np.array([[1, 0, reach - x], [0, 1, reach - y]]) * (SIDE / (2 * reach))
    padded = cv2.GaussianBlur(pixels, (0, 0), max(0.3, 2 * reach / SIDE / 3))
    return np.asarray(cv2.warpAffine(padded, to_copy, (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE))


Faces = dict[str, tuple[np.ndarray, np.ndarray]]
"""Name -> before and after."""

FEW = [ALBUM / name for name in ("1931 sepia card.jpg", "1974 aunt.jpg", "school")]
"""Sepia, colour, gray at 16 bits, and with opacity: what every run of the tests looks at."""


def restored_faces(inputs: list[Path], output: Path, options: RestoreOptions) -> Faces:
    """Restores photos of the album and cuts out their faces."""
    models = load_models(options, lambda _: None)
    found = {}
    for outcome in restore_photos(plan_jobs(inputs, output), models, options):
        assert isinstance(outcome, Restored)
        pictures = [to_8_bits(read_photo(path).pixels) for path in (outcome.job.source, outcome.job.target)]
        for number, face in enumerate(outcome.faces, start=1):
            found[f"{outcome.job.source.name} {number}"] = tuple(small_copy(each, face) for each in pictures)
    return found


OPTIONS = RestoreOptions(upscale=1, offline=True, device="cpu", precision="fp32", model="compact", background="lanczos")


def restored_quietly(inputs: list[Path], output: Path) -> Faces:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("GFPRESTORE_WEIGHTS", raising=False)
        return restored_faces(inputs, output, OPTIONS)


def check_looks(faces: Faces) -> None:
    with np.load(GOLDEN) as golden:
        for name, (before, after) in faces.items():
            difference = np.abs(after.astype(float) - golden[name])
            assert difference.mean() <= MEAN_LEVELS, name
            assert np.percentile(difference, 99) <= WORST_LEVELS, name
            restoration = np.abs(golden[name].astype(float) - before)
            assert restoration.mean() > 1.4 * MEAN_LEVELS, "the photo itself would pass"
            assert np.percentile(restoration, 99) > WORST_LEVELS, "the photo itself would pass"


def test_some_faces_look_as_they_did_when_somebody_looked(tmp_path: Path) -> None:
    faces = restored_quietly(FEW, tmp_path)
    assert len(faces) == 4
    check_looks(faces)


@pytest.mark.slow
def test_every_face_of_the_album_looks_as_it_did(tmp_path: Path) -> None:
    faces = restored_quietly([ALBUM], tmp_path)
    with np.load(GOLDEN) as golden:
        assert sorted(faces) == sorted(golden.files)
    check_looks(faces)


def main() -> None:
    """Draw the sheet and keep the golden if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sheet", type=Path)
    parser.add_argument("--keep", action="store_true")
    arguments = parser.parse_args()
    found = restored_faces([ALBUM], arguments.sheet.with_suffix(".photos"), OPTIONS)
    old = dict(np.load(GOLDEN)) if GOLDEN.exists() else {}
    rows = [np.concatenate([before, old.get(name, before), after], axis=1) for name, (before, after) in found.items()]
    sheet = cv2.resize(np.concatenate(rows), None, fx=3, fy=3, interpolation=cv2.INTER_NEAREST)
    cv2.imwrite(str(arguments.sheet), sheet[..., ::-1])
    for name, (before, after) in found.items():
        change = np.abs(after.astype(float) - old.get(name, before))
        print(f"{name:40}{change.mean():8.2f}{np.percentile(change, 99):8.1f}", file=sys.stderr)
    if arguments.keep:
        np.savez_compressed(GOLDEN, **{name: after for name, (_, after) in found.items()})


if __name__ == "__main__":
    main()
