"""Faces and their degraded copies, made on the fly.

Everything about a sample follows from the run's seed and the sample's number, counted from the first step: which face,
mirrored or not, and how it is degraded. So the faces of step 1,000 are the same whatever the number of worker
processes or GPUs, and a resumed run needs to know nothing but its step.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from gfprestore.align import TEMPLATE_SIZE
from gfprestore.errors import UsageError
from gfprestore.geometry import map_points, scaling
from gfprestore.training.degradation import degrade_photo, degrade_truth
from gfprestore.training.degradation_presets import DegradationPreset, draw_degradation
from gfprestore.training.regions import Components, component_boxes, flip_components, template_components
from gfprestore.training.sources import FaceSet

HALF_RANGE = 127.5
"""Pixels 0 to 255 are -1 to 1 for the networks."""

_ORDER, _SAMPLE = 0, 1
"""Streams of random numbers under one seed."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples that go through the networks together."""

    degraded: Tensor
    """RGB float32 [N 3 S S] in [-1, 1]."""

    truth: Tensor
    """The same."""

    boxes: Tensor
    """Facial components, float32 [N 3 4]: left eye, right eye, mouth; left, top, right, bottom in pixels."""

    numbers: Tensor
    """Numbers of the samples, int64 [N]."""

    def __len__(self) -> int:
        return len(self.numbers)

    def to(self, device: torch.device, memory_format: torch.memory_format) -> Batch:
        """The batch on a device, its images in a memory format."""
        # Only CUDA keeps the memory until a copy is done; other devices may read what has been freed.
        is_cuda = device.type == "cuda"
        return Batch(
            self.degraded.to(device, non_blocking=is_cuda, memory_format=memory_format),
            self.truth.to(device, non_blocking=is_cuda, memory_format=memory_format),
            self.boxes.to(device, non_blocking=is_cuda),
            self.numbers,
        )

    def first(self, count: int) -> Batch:
        """The first `count` samples, or all where there are fewer."""
        return Batch(self.degraded[:count], self.truth[:count], self.boxes[:count], self.numbers[:count])

    def split(self, parts: int) -> list[Batch]:
        """Every `parts`-th sample from the first, from the second, ... as batches of their own."""
        return [
            Batch(self.degraded[i::parts], self.truth[i::parts], self.boxes[i::parts], self.numbers[i::parts])
            for i in range(parts)
        ]

    def pin_memory(self) -> Batch:
        """Called by the loader, so that copies to a GPU overlap with its work."""
        return Batch(self.degraded.pin_memory(), self.truth.pin_memory(), self.boxes.pin_memory(), self.numbers)


@dataclass(frozen=True)
class UnreadableFace:
    """Stands for a sample, or a batch, whose face cannot be read.

    An exception would lose its kind on the way out of a worker, and keep the workers alive through its traceback.
    """

    message: str
    """What to tell the user."""


class DegradedFaces(Dataset[Batch | UnreadableFace]):
    """Samples by number, without end."""

    def __init__(
        self,
        faces: FaceSet,
        preset: DegradationPreset,
        *,
        size: int,
        seed: int,
        flip: bool = True,
        components: Sequence[Components | None] | None = None,
    ) -> None:
        """Takes the faces, and the components of each or None where the mean face's serve."""
        self._faces = faces
        self._preset = preset
        self._size = size
        self._seed = seed
        self._flip = flip
        self._components = components
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, dtype=np.int64))

    def __getitem__(self, number: int) -> Batch | UnreadableFace:
        """Returns sample `number` as a batch of one, or why there is none."""
        try:
            return self._make_sample(number)
        except UsageError as error:
            return UnreadableFace(str(error))

    def _make_sample(self, number: int) -> Batch:
        generator = np.random.default_rng([self._seed, _SAMPLE, number])
        index = self._face_of(number)
        truth = self._faces.read(index, self._size)
        found = None if self._components is None else self._components[index]
        components = template_components() if found is None else found
        components = _scale_components(components, self._size)
        if generator.random() < 0.5 and self._flip:
            truth = np.ascontiguousarray(truth[:, ::-1])
            components = flip_components(components, self._size)
        degradation = draw_degradation(generator, self._preset)
        return Batch(
            image_tensor(degrade_photo(truth, degradation))[None],
            image_tensor(degrade_truth(truth, degradation))[None],
            torch.from_numpy(component_boxes(components))[None],
            torch.tensor([number]),
        )

    def _face_of(self, number: int) -> int:
        """Every face once before any comes again, in an order drawn anew for each round."""
        epoch, position = divmod(number, len(self._faces))
        if self._order[0] != epoch:
            generator = np.random.default_rng([self._seed, _ORDER, epoch])
            self._order = (epoch, generator.permutation(len(self._faces)))
        return int(self._order[1][position])


class StepSampler(Sampler[list[int]]):
    """Numbers of the samples of one process, a list for each step.

    A process takes every `world`-th sample of the step's batch. So the groups that a discriminator takes deviations
    over are the same as in one process with the whole batch.
    """

    def __init__(self, first_step: int, last_step: int, batch: int, rank: int = 0, world: int = 1) -> None:
        self._steps = range(first_step, last_step)
        self._batch = batch
        self._rank = rank
        self._world = world

    def __iter__(self) -> Iterator[list[int]]:
        for step in self._steps:
            start = step * self._batch
            yield list(range(start + self._rank, start + self._batch, self._world))

    def __len__(self) -> int:
        return len(self._steps)


@contextmanager
def open_batches(
    dataset: DegradedFaces, sampler: StepSampler, workers: int, *, pin_memory: bool
) -> Iterator[Iterator[Batch | UnreadableFace]]:
    """Loads a batch for each step; the workers end with the block, however it ends.

    Args:
        dataset: The samples.
        sampler: Their numbers, step by step.
        workers: Processes that make samples; 0 makes them in this one.
        pin_memory: Whether batches lie in memory that a GPU copies from while it works.
    """
    batches = iter(make_loader(dataset, sampler, workers, pin_memory=pin_memory))
    try:
        yield batches
    finally:
        # Left to the garbage collector this may come after multiprocessing's own end, which sends SIGTERM to workers
        # and waits for them, while they wait for the trainer's word: the program would never end.
        if workers:
            batches._shutdown_workers()  # type: ignore[attr-defined]


def make_loader(
    dataset: DegradedFaces, sampler: StepSampler, workers: int, *, pin_memory: bool
) -> DataLoader[Batch | UnreadableFace]:
    """Makes a loader of one batch for each step."""
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=join_samples,
        pin_memory=pin_memory,
        worker_init_fn=_quiet_worker,
        # Its own, though samples draw nothing from it: starting a loader would advance the trainer's.
        generator=torch.Generator(),
    )


def join_samples(samples: list[Batch | UnreadableFace]) -> Batch | UnreadableFace:
    """One batch of several samples, or the first that cannot be read."""
    failure = next((sample for sample in samples if isinstance(sample, UnreadableFace)), None)
    return join_batches([sample for sample in samples if isinstance(sample, Batch)]) if failure is None else failure


def join_batches(batches: list[Batch]) -> Batch:
    """One batch of several."""
    return Batch(
        torch.cat([batch.degraded for batch in batches]),
        torch.cat([batch.truth for batch in batches]),
        torch.cat([batch.boxes for batch in batches]),
        torch.cat([batch.numbers for batch in batches]),
    )


def image_tensor(pixels: NDArray[np.uint8]) -> Tensor:
    """RGB uint8 (H, W, 3) -> float32 [3 H W] in [-1, 1]."""
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / HALF_RANGE - 1  # [3 H W]


def _scale_components(components: Components, size: int) -> Components:
    """From crops of 512 pixels to crops of `size`."""
    if size == TEMPLATE_SIZE:
        return components
    to_size = scaling((TEMPLATE_SIZE, TEMPLATE_SIZE), (size, size))
    centres = map_points(to_size, components[:, :2].astype(np.float64))
    halves = components[:, 2:] * (size / TEMPLATE_SIZE)
    return np.concatenate([centres, halves], axis=1).astype(np.float32)


def _quiet_worker(_worker: int) -> None:
    # Workers share the processor with each other and the trainer; OpenCV would start a thread for every core in each.
    cv2.setNumThreads(0)
    # Ctrl-C and SIGTERM often reach the whole group; the trainer alone decides what follows. A worker that ended now
    # would end the step that the trainer finishes first; without a trainer it ends by itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
