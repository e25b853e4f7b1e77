"""A training so small that a step takes hundredths of a second, and the faces for it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

SIDE = 32
"""Of the faces in pixels."""

SMALL = (
    f"generator.size={SIDE}",
    "generator.narrow=0.03125",
    "generator.channel_multiplier=1",
    "generator.latent_size=8",
    "losses.perceptual=0",
    "losses.perceptual_style=0",
    "losses.lpips=0",
    "losses.identity=0",
    "discriminator.narrow=0.03125",
    "discriminator.group=2",
    "data.workers=0",
    "data.held_out=0",
    "run.device=cpu",
    "run.threads=1",
    "run.precision=fp32",
    "run.batch=4",
    "run.log_every=1",
    "run.images_every=0",
    "validation.every=0",
)
"""Changes to a preset, which then asks for no file but a prior."""

TINY = (*SMALL, "generator.mlp_layers=2", "generator.train_prior=true", "generator.random_prior=true")
"""The same, with a prior that starts at random and learns."""


def write_faces(folder: Path, count: int = 6) -> None:
    """Writes smooth random faces as PNG files."""
    random = np.random.default_rng(0)
    for index in range(count):
        rough = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{index}.png"), cv2.resize(rough, (SIDE, SIDE)))
