"""Real-ESRGAN with its real weights: tiles, bf16, and faces that sit on its background without a halo."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from gfprestore.background import load_network
from gfprestore.paste import FacePatch, paste_faces
from gfprestore.upscaling.layers import values_per_pixel
from gfprestore.upscaling.network import load_upscaling_network
from gfprestore.upscaling.upscaler import NetworkUpscaler
from gfprestore.weights import read_state_dict

pytestmark = [pytest.mark.slow, pytest.mark.weights]

LEAST_PSNR = 60.0
"""Between tile sizes. In bf16 Real-ESRGAN's tiles are at 50 to 57, which is why it runs in fp32."""


def upscaler(weights: Path, name: str, precision: str, tile_pixels: int | None = None) -> NetworkUpscaler:
    network = load_network(name, read_state_dict(weights / f"{name}_fp16.pth"), "cpu", precision)
    return NetworkUpscaler(network, device="cpu", precision=precision, tile_pixels=tile_pixels)


def part_of_a_photo(photos: Path, width: int, height: int) -> np.ndarray:
    """Heads of the group's last row, left of the middle."""
    whole = np.asarray(Image.open(photos / "group" / "Solvay_conference_1927.png").convert("RGB"))
    return np.ascontiguousarray(whole[200 : 200 + height, 300 : 300 + width])


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((first / 255 - second / 255) ** 2) + 1e-20))


TILED = [
    ("RealESRGAN_x2plus", 2, (624, 64), (336, 432)),
    ("RealESRGAN_x4plus", 4, (448, 32), (256, 320)),
    ("realesr-general-x4v3", 4, (448, 64), (256, 320)),
]
"""Weights, their factor, and a photo's size and tiles: of the smallest ones nearly every pixel lies in an overlap."""


@pytest.mark.parametrize(("name", "factor", "size", "limits"), TILED)
def test_tile_size_does_not_show(
    real_weights: Path,
    real_photos: Path,
    name: str,
    factor: int,
    size: tuple[int, int],
    limits: tuple[int, int],
) -> None:
    pixels = part_of_a_photo(real_photos, *size)
    is_near_sighted = name == "realesr-general-x4v3"
    precision = "bf16" if is_near_sighted else "fp32"  # as `KernelNetwork` has it
    results, counts = [], []
    for limit in (1024, *limits):
        upscale = upscaler(real_weights, name, precision, limit)
        counts.append(len(upscale._plan(pixels)))
        results.append(upscale.upscale(pixels, (size[0] * factor, size[1] * factor)))
    assert counts[0] == 1
    assert len({*counts}) == 3
    for first, second in combinations(results, 2):
        assert psnr(first, second) >= LEAST_PSNR
        assert not is_near_sighted or np.array_equal(first, second)


@pytest.mark.parametrize(("name", "factor"), [("RealESRGAN_x2plus", 2), ("realesr-general-x4v3", 4)])
def test_bf16_keeps_45_decibels(real_weights: Path, real_photos: Path, name: str, factor: int) -> None:
    pixels = part_of_a_photo(real_photos, 128, 96)
    exact, rough = (
        upscaler(real_weights, name, precision).upscale(pixels, (128 * factor, 96 * factor))
        for precision in ("fp32", "bf16")
    )
    assert psnr(exact, rough) >= 45


def test_largest_layer_of_a_released_network(real_weights: Path) -> None:
    network = load_upscaling_network("x2plus", read_state_dict(real_weights / "RealESRGAN_x2plus_fp16.pth"))
    # Two maps of 64 channels at twice the size.
    assert values_per_pixel(network) == (64 + 64) * 4


def test_no_halo_around_a_face(real_weights: Path, real_photos: Path) -> None:
    """An unchanged face is as light as what the network drew, and nothing changes but the face."""
    pixels = part_of_a_photo(real_photos, 128, 96)
    size = 256, 192
    drawn = upscaler(real_weights, "RealESRGAN_x2plus", "fp32").upscale(pixels, size)
    plain = cv2.resize(pixels, size, interpolation=cv2.INTER_CUBIC)  # what faces are drawn on
    crop = np.ascontiguousarray(pixels[16:80, 32:96]).astype(np.float32)
    mask = np.zeros((64, 64), np.float32)
    cv2.ellipse(mask, (32, 32), (18, 22), 0, 0, 360, 1.0, -1)
    mask = cv2.GaussianBlur(mask, (0, 0), 3)
    canvas = drawn.copy()
    patch = FacePatch(crop.astype(np.uint8), crop, mask, np.array([[1.0, 0, -32], [0, 1.0, -16]]))
    paste_faces(canvas, pixels, [patch], canvas_is_resized_photo=False)
    weight = cv2.resize(cv2.copyMakeBorder(mask, 16, 16, 32, 32, cv2.BORDER_CONSTANT), size)[..., None]
    outside = weight[..., 0] == 0
    np.testing.assert_array_equal(canvas[outside], drawn[outside])
    halo, halo_of_plain = (
        np.abs(cv2.GaussianBlur(change.astype(np.float32), (0, 0), 12)).max()
        for change in (canvas.astype(int) - drawn, weight * (plain.astype(int) - drawn))
    )
    assert halo_of_plain > 3
    assert halo < halo_of_plain / 3
