from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image


def natural_image(height: int, width: int, seed: int) -> np.ndarray:
    """Noise with the spectrum of photos, RGB uint8 (H, W, 3)."""
    generator = np.random.default_rng(seed)
    rows, columns = np.meshgrid(np.fft.fftfreq(height), np.fft.fftfreq(width), indexing="ij")
    falloff = 1 / np.maximum(np.hypot(rows, columns), 1 / max(height, width))
    spectrum = np.fft.fft2(generator.standard_normal((3, height, width))) * falloff
    planes = np.fft.ifft2(spectrum).real
    planes = planes + 0.8 * planes.mean(axis=0)
    planes = (planes - planes.mean()) / planes.std() * 50 + 120
    return np.clip(np.rint(planes), 0, 255).astype(np.uint8).transpose(1, 2, 0).copy()


@pytest.fixture(scope="session")
def make_image() -> Callable[[int, int, int], np.ndarray]:
    return natural_image


@pytest.fixture
def write_images(tmp_path: Path) -> Callable[..., Path]:
    """Writes images by name below a new folder."""

    def write(folder: str, images: dict[str, np.ndarray]) -> Path:
        for name, pixels in images.items():
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
        return tmp_path / folder

    return write


@pytest.fixture(scope="session")
def real_patches(real_photos: Path) -> list[np.ndarray]:
    """Patches of 288x288 of real photos, RGB uint8."""
    patches = []
    for name in ("old/a.png", "scratched/a.png"):
        pixels = cv2.imread(str(real_photos / name))[..., ::-1]
        top, left = (pixels.shape[0] - 288) // 2, (pixels.shape[1] - 288) // 2
        patches.append(np.ascontiguousarray(pixels[top : top + 288, left : left + 288]))
    return patches
