"""Measures the averaged generator on degraded faces that are the same each time."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Sequence
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gfprestore.errors import UsageError
from gfprestore.training.config import TrainingConfig, ValidationConfig
from gfprestore.training.dataset import HALF_RANGE, Batch, image_tensor
from gfprestore.training.degradation import degrade_photo, degrade_truth
from gfprestore.training.degradation_presets import PRESETS, draw_degradation
from gfprestore.training.files import wanted_file
from gfprestore.training.recipe import Recipe
from gfprestore.training.sources import FaceSet, open_faces

logger = logging.getLogger(__name__)

HIGHER_IS_BETTER = ("psnr", "ssim")
"""Metrics of which more is better."""

_SEED = 20210
"""Seed of the validation's degradations, whatever the run's: runs can be compared."""


class Measure(Protocol):
    """A metric of pairs."""

    def __call__(self, restored: Tensor, truth: Tensor) -> Tensor:
        """RGB uint8 [N 3 S S] twice -> a value for each, [N]."""
        ...


class Validator:
    """The faces and the metrics of a run."""

    def __init__(
        self,
        pairs: Sequence[tuple[NDArray[np.uint8], NDArray[np.uint8]]],
        metrics: dict[str, Measure],
        device: torch.device,
        batch: int,
        seen: int = 0,
    ) -> None:
        """Takes pairs of degraded and true faces, RGB uint8 (S, S, 3), the metrics by name, and faces in a batch.

        `seen` tells how many of the faces are trained on as well.
        """
        self.seen = seen
        self._pairs = pairs
        self._metrics = metrics
        self._device = device
        self._batch = batch

    def __len__(self) -> int:
        return len(self._pairs)

    @cached_property
    def digest(self) -> str:
        """Digest of the pairs' pixels: which faces are measured, wherever they lie."""
        total = hashlib.sha256()
        for pair in self._pairs:
            for pixels in pair:
                total.update(pixels.tobytes())
        return total.hexdigest()

    def measure(self, recipe: Recipe) -> dict[str, float]:
        """Restores all faces and returns the mean of every metric, by name."""
        sums = dict.fromkeys(self._metrics, 0.0)
        for start in range(0, len(self._pairs), self._batch):
            part = self._pairs[start : start + self._batch]
            degraded, truth = (torch.stack([image_tensor(pair[i]) for pair in part]) for i in (0, 1))
            batch = Batch(degraded.to(self._device), truth, torch.zeros(len(part), 3, 4), torch.zeros(len(part)))
            restored = image_bytes(recipe.sample(batch).cpu())
            for name, metric in self._metrics.items():
                sums[name] += float(metric(restored, image_bytes(truth)).sum())
        return {name: total / len(self._pairs) for name, total in sums.items()}

    @staticmethod
    def is_better(value: float, best: float | None, name: str) -> bool:
        """Whether a value of a metric is better than the best so far; None is none so far, and NaN never better."""
        if best is None or math.isnan(best):
            return not math.isnan(value)
        return value > best if name in HIGHER_IS_BETTER else value < best


def image_bytes(images: Tensor) -> Tensor:
    """RGB float [N 3 S S] around [-1, 1] -> uint8, as the tool rounds."""
    return ((images + 1) * HALF_RANGE).round().clamp(0, 255).byte()


def make_validator(
    config: TrainingConfig, trained: FaceSet, held_out: FaceSet, device: torch.device, batch: int
) -> Validator | None:
    """Makes the validator of a run; None where it has none.

    Args:
        config: Everything about the run.
        trained: Faces that are trained on.
        held_out: Faces of `data.sources` that are not trained on.
        device: Where the run's networks are; the metrics' networks go there as well.
        batch: Faces that the memory holds together, those of a micro-batch.

    Raises:
        UsageError: There are no faces to measure on, or a metric or its weights are missing.
    """
    wanted = config.validation
    if not wanted.every:
        return None
    if config.recipe == "prior":
        # It draws random faces, which have no truths.
        logger.info("The recipe prior has nothing to measure: validation.every is passed over.")
        return None
    faces = open_faces(wanted.sources)[0] if wanted.sources else held_out
    if not len(faces):
        raise UsageError("No faces to measure on: set data.held_out, or validation.sources, or validation.every = 0.")
    chosen = _spread(faces, wanted.count)
    pairs = _make_pairs(chosen, wanted, config.generator.size)
    return Validator(pairs, _load_metrics(config, device), device, batch, count_shared(chosen, trained))


def count_shared(faces: FaceSet, others: FaceSet) -> int:
    """How many of the faces are the same files as some of the others."""
    names = {others.whole_name(index) for index in range(len(others))}
    return sum(faces.whole_name(index) in names for index in range(len(faces)))


def _spread(faces: FaceSet, count: int) -> FaceSet:
    """At most `count` faces, evenly spread."""
    count = min(count, len(faces))
    return FaceSet(tuple(faces.places[number * len(faces) // count] for number in range(count)))


def _make_pairs(
    faces: FaceSet, config: ValidationConfig, size: int
) -> list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    pairs = []
    for number in range(len(faces)):
        truth = faces.read(number, size)
        degradation = draw_degradation(np.random.default_rng([_SEED, number]), PRESETS[config.degradation])
        pairs.append((degrade_photo(truth, degradation), degrade_truth(truth, degradation)))
    return pairs


def _load_metrics(config: TrainingConfig, device: torch.device) -> dict[str, Measure]:
    return {name: _load_metric(name, config, device) for name in config.validation.metrics}


def _load_metric(name: str, config: TrainingConfig, device: torch.device) -> Measure:
    """One metric of the evaluation package, which is imported where it is used: training alone needs none of it."""
    if name == "psnr":
        from gfprestore.evaluation.psnr import psnr

        return lambda restored, truth: psnr(restored[:, None], truth)[:, 0]
    if name == "ssim":
        from gfprestore.evaluation.ssim import ssim

        return lambda restored, truth: ssim(restored[:, None], truth)[:, 0]
    if name in ("lpips-alex", "lpips-vgg"):
        return _load_lpips(name, config, device)
    # The configuration has been checked: it is `identity`.
    return _load_identity(config, device)


def _load_lpips(name: str, config: TrainingConfig, device: torch.device) -> Measure:
    from gfprestore.evaluation.lpips_metric import load_lpips
    from gfprestore.weights import read_tensors

    is_alex = name == "lpips-alex"
    key, file = (
        ("losses.lpips_alexnet", config.losses.lpips_alexnet)
        if is_alex
        else ("validation.lpips_vgg", config.validation.lpips_vgg)
    )
    path = wanted_file(file, key, f"validation.metrics has {name}")
    network = load_lpips("alex" if is_alex else "vgg", read_tensors(path)).to(device)

    @torch.inference_mode()
    def distance(restored: Tensor, truth: Tensor) -> Tensor:
        result: Tensor = network(torch.stack([truth, restored], dim=1).to(device))
        return result[:, 0]

    return distance


def _load_identity(config: TrainingConfig, device: torch.device) -> Measure:
    from gfprestore.evaluation.deg import angle_degrees
    from gfprestore.training.networks import identity_file, load_identity

    network = load_identity(identity_file(config.losses, "validation.metrics has identity")).to(device)

    @torch.inference_mode()
    def angle(restored: Tensor, truth: Tensor) -> Tensor:
        pairs = (network(images.to(device).float() / HALF_RANGE - 1).cpu() for images in (restored, truth))
        return angle_degrees(*pairs)

    return angle
