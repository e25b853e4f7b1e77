"""The training loop of the small face detector: recipe, batches, steps, checkpoint."""

from __future__ import annotations

import copy
import json
import logging
import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from gfprestore.detection.network import build_network
from gfprestore.detection.priors import MEAN
from gfprestore.training.composites import CompositeConfig, Photo, make_composite
from gfprestore.training.distillation import distillation_losses, layer_losses

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DetectorConfig:
    """Everything that decides a training run, beside the faces and photos."""

    seed: int = 1
    """Seed of the initial weights and of every photo."""

    layer_steps: int = 2400
    """First the layers learn alone, each on the teacher's input to it: this many optimiser steps."""

    whole_steps: int = 100
    """Then the network learns as a whole from the teacher's boxes, scores and landmarks."""

    settling_steps: int = 100
    """The first steps, in which the normalisations follow their batches; later they stay as they are, since batches
    of one to three photos would shake every feature that is to be imitated."""

    layer_rate: float = 5e-3
    """AdamW's rate for the layers; it falls to 1 % along a cosine."""

    whole_rate: float = 3e-5
    """The same for the whole network."""

    warm_up: int = 50
    """Steps over which a rate rises from zero."""

    weight_decay: float = 1e-5
    """AdamW's weight decay."""

    average: float = 0.995
    """Decay of the running average of the weights, which is what is kept."""

    sides: tuple[int, ...] = (256, 320, 384, 480)
    """Sides of the photos, one after another by step; larger ones come in smaller batches."""

    batch_pixels: int = 2 * 320 * 320
    """Pixels in a batch."""

    box_weight: float = 1.0
    """Weight of the boxes' loss."""

    landmark_weight: float = 2.0
    """Weight of the landmarks' loss."""

    least_teacher_score: float = 0.3
    """Boxes and landmarks are learned at priors where the teacher is at least this sure."""

    composites: CompositeConfig = field(default_factory=CompositeConfig)
    """How the photos are made."""

    @property
    def steps(self) -> int:
        """Optimiser steps in all."""
        return self.layer_steps + self.whole_steps


def learning_rate(step: int, config: DetectorConfig) -> float:
    """The rate at a step: in each of the two parts a linear warm-up, then a cosine down to 1 %."""
    if step < config.layer_steps:
        rate, done, total = config.layer_rate, step, config.layer_steps
    else:
        rate, done, total = config.whole_rate, step - config.layer_steps, config.whole_steps
    rise = min(1.0, (done + 1) / max(config.warm_up, 1))
    return rate * rise * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done / total)))


def make_batches(
    faces: Sequence[Path], photos: Sequence[Photo], config: DetectorConfig, first: int = 0
) -> Iterator[Tensor]:
    """Make the batches of the steps from `first` on, two ahead in another thread.

    Args:
        faces: Face crops to paste.
        photos: Real photos to crop.
        config: Seed, sizes and kinds.
        first: First step.

    Yields:
        RGB less `MEAN`, float (N, 3, S, S), channels last.
    """

    def make(step: int) -> Tensor:
        side = config.sides[step % len(config.sides)]
        batch = [
            make_composite(np.random.default_rng((config.seed, step, item)), faces, photos, side, config.composites)
            for item in range(max(1, config.batch_pixels // side**2))
        ]
        pixels = torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2)  # [N H W C] -> [N C H W], channels last
        return pixels.float() - torch.tensor(MEAN).view(3, 1, 1)

    with ThreadPoolExecutor(1) as pool:
        pending = [pool.submit(make, step) for step in range(first, min(first + 2, config.steps))]
        for step in range(first, config.steps):
            batch = pending.pop(0).result()
            if step + 2 < config.steps:
                pending.append(pool.submit(make, step + 2))
            yield batch


def new_student(seed: int) -> nn.Module:
    """Build a MobileNet-0.25 RetinaFace with random weights."""
    torch.manual_seed(seed)
    student: nn.Module = build_network("mobile0.25")
    return student.to(memory_format=torch.channels_last)


def batch_losses(
    student: nn.Module, teacher: nn.Module, batch: Tensor, step: int, config: DetectorConfig
) -> tuple[Tensor, dict[str, float]]:
    """Compute the loss of a step, and its parts for the log."""
    if step < config.layer_steps:
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        layers = layer_losses(student, teacher, batch, generator)
        values = torch.stack(list(layers.values()))
        # A flat photo leaves a layer next to no variance to be relative to: the logarithm keeps it from taking over.
        return values.log1p().sum(), {"layers": values.mean().item(), "worst_layer": values.max().item()}
    losses = distillation_losses(student, teacher, batch, config.least_teacher_score)
    total = losses.score + config.box_weight * losses.box + config.landmark_weight * losses.landmark
    return total, {name: value.item() for name, value in vars(losses).items()}


class Training:
    """A run: student, running average, optimiser and step, which a checkpoint holds and brings back."""

    def __init__(self, student: nn.Module, teacher: nn.Module, config: DetectorConfig, folder: Path) -> None:
        """Start, or go on from the folder's checkpoint where there is one.

        Args:
            student: Network with random weights.
            teacher: Network to imitate.
            config: The recipe.
            folder: Where `checkpoint.pt` and `log.jsonl` are written.
        """
        self.student = student
        self.teacher = teacher.eval()
        self.config = config
        self.folder = folder
        self.average = copy.deepcopy(student).eval()
        self.optimiser = self._new_optimiser()
        self.step = 0
        if (folder / "checkpoint.pt").exists():
            state = torch.load(folder / "checkpoint.pt", weights_only=True)
            self.student.load_state_dict(state["student"])
            self.average.load_state_dict(state["average"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.step = int(state["step"])

    def _new_optimiser(self) -> torch.optim.Optimizer:
        parameters = self.student.parameters()
        return torch.optim.AdamW(parameters, self.config.layer_rate, weight_decay=self.config.weight_decay)

    def run(self, batches: Iterator[Tensor], save_every: int = 250) -> nn.Module:
        """Train on the batches of the steps left; returns the running average, in evaluation mode."""
        sums: dict[str, list[float]] = {}
        started = time.monotonic()
        for batch in batches:
            for name, value in self.take_step(batch).items():
                sums.setdefault(name, []).append(value)
            if self.step % 50 == 0 or self.step == self.config.steps:
                self._log({name: float(np.mean(values)) for name, values in sums.items()}, time.monotonic() - started)
                sums = {}
            if self.step % save_every == 0 or self.step == self.config.steps:
                self.save()
        return self.average

    def take_step(self, batch: Tensor) -> dict[str, float]:
        """Learn from one batch; returns the losses."""
        self.student.train(self.step < self.config.settling_steps)
        if self.step == self.config.layer_steps:
            # The layers' last gradients were tiny: Adam's memory of them would make the first steps here enormous.
            self.optimiser = self._new_optimiser()
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.step, self.config)
        total, parts = batch_losses(self.student, self.teacher, batch, self.step, self.config)
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.student.parameters(), 10.0)
        self.optimiser.step()
        # A young average would still be full of the random start.
        _update_average(self.average, self.student, min(self.config.average, (self.step + 1) / (self.step + 10)))
        self.step += 1
        return parts

    def save(self) -> None:
        """Write `checkpoint.pt`, complete or not at all."""
        state = {
            "student": self.student.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "config": asdict(self.config),
        }
        torch.save(state, self.folder / "checkpoint.tmp")
        (self.folder / "checkpoint.tmp").replace(self.folder / "checkpoint.pt")

    def _log(self, means: dict[str, float], seconds: float) -> None:
        record = {"step": self.step, "seconds": round(seconds, 1)} | {n: round(v, 5) for n, v in means.items()}
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(record) + "\n")
        logger.info("%s", record)


@torch.no_grad()
def _update_average(average: nn.Module, student: nn.Module, decay: float) -> None:
    for kept, new in zip(average.state_dict().values(), student.state_dict().values(), strict=True):
        if kept.is_floating_point():
            kept.lerp_(new, 1 - decay)
        else:
            kept.copy_(new)
