"""Stand-ins for the networks: quick, exact, and they remember what they were asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gfprestore import run
from gfprestore.align import FACE_TEMPLATE
from gfprestore.background import LANCZOS
from gfprestore.models import Models
from gfprestore.photo import DetectedFace, FoundFaces


class FakeRestorer:
    """Maps each crop with a function and keeps the sizes of the batches."""

    size = 512
    device = "cpu"
    precision = "fp32"

    def __init__(self, change: Callable[[np.ndarray], np.ndarray] = np.copy) -> None:
        self.change = change
        self.batches: list[int] = []

    def restore(self, crops: Sequence[np.ndarray]) -> list[np.ndarray]:
        self.batches.append(len(crops))
        assert all(crop.shape == (512, 512, 3) and crop.dtype == np.uint8 for crop in crops)
        return [self.change(crop) for crop in crops]


class FakeDetector:
    """Finds as many faces as the photo's top left pixel says: its red value, modulo ten."""

    def search(self, photos: Sequence[np.ndarray]) -> list[FoundFaces]:
        return [FoundFaces(tuple(self.faces_of(pixels))) for pixels in photos]

    def faces_of(self, pixels: np.ndarray) -> list[DetectedFace]:
        height, width = pixels.shape[:2]
        count = int(pixels[0, 0, 0]) % 10
        side = min(height, width / max(count, 1)) * 0.8
        return [
            self.face((index + 0.5) * width / count, height / 2, side, 0.99 - index / 100) for index in range(count)
        ]

    @staticmethod
    def face(x: float, y: float, side: float, score: float) -> DetectedFace:
        box = np.array([x - side / 3, y - side / 3, x + side / 3, y + side / 3])
        return DetectedFace(box, (FACE_TEMPLATE - 256) * (side / 512) + [x, y], score)


def fake_models(change: Callable[[np.ndarray], np.ndarray] = np.copy) -> Models:
    return Models(
        restorer=FakeRestorer(change),  # type: ignore[arg-type]
        upscaler=LANCZOS,
        face_model="fake",
        facts={},
        detector=FakeDetector(),  # type: ignore[arg-type]
    )


def pair_of_faces(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Writes two photos with one face each, a.png and b.png, and lets runs of this test load stand-ins for networks."""
    folder.mkdir()
    for name in ("a.png", "b.png"):
        pixels = np.random.default_rng(1).integers(0, 256, (60, 90, 3), dtype=np.uint8)
        pixels[0, 0, 0] = 1
        Image.fromarray(pixels).save(folder / name)
    monkeypatch.setattr(run, "load_models", lambda *_: fake_models())
    return folder
