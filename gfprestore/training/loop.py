"""The training loop: data, steps, numbers, checkpoints; the same for every recipe."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import Tensor

from gfprestore.errors import DeviceError, GfprestoreError, UsageError
from gfprestore.outofmemory import is_out_of_memory
from gfprestore.training.averages import IntervalMeans, unsound_entry
from gfprestore.training.checkpoints import (
    BEST,
    Progress,
    checkpoint_path,
    checkpoint_step,
    find_checkpoints,
    forget_other_best,
    read_checkpoint,
    remove_old_checkpoints,
    restore,
    save_checkpoint,
)
from gfprestore.training.config import TrainingConfig
from gfprestore.training.dataset import Batch, DegradedFaces, StepSampler, UnreadableFace, open_batches
from gfprestore.training.face_components import find_components, tell_missing
from gfprestore.training.files import named_file
from gfprestore.training.monitor import GRID_FACES, Monitor, prepare_folder
from gfprestore.training.objective import needs_components
from gfprestore.training.processes import (
    Process,
    StopRequest,
    any_process,
    mean_over_processes,
    share_of,
    wait_for_all,
)
from gfprestore.training.recipe import Recipe, learning_rate_factor, set_learning_rates
from gfprestore.training.sources import FaceSet, open_faces
from gfprestore.training.validation import Validator, make_validator

logger = logging.getLogger(__name__)


class DivergedError(GfprestoreError):
    """A loss or a weight is no longer a number."""


def train(config: TrainingConfig, folder: Path, process: Process, *, minutes: float | None = None) -> Progress:
    """Trains until the last step, or until it is asked to stop.

    Args:
        config: Everything about the run.
        folder: Where checkpoints, numbers and images go; a run that has checkpoints there goes on from the last one.
        process: This process among those of the run.
        minutes: Stop, with a checkpoint, after so many minutes; None does not.

    Returns:
        Where the run stands.

    Raises:
        GfprestoreError: The configuration does not fit the files or the machine, or the training has diverged.
        KeyboardInterrupt: Ctrl-C or SIGTERM came; the checkpoint is written.
    """
    share = share_of(config.run.batch, config.run.accumulate, process.world)
    try:
        return _train(config, folder, process, share, minutes)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise DeviceError(
            f"The memory of {process.device} does not hold a step: raise run.accumulate, which splits the"
            f" {config.run.batch} faces of run.batch further, or lower run.batch, and run again."
        ) from error


def _train(config: TrainingConfig, folder: Path, process: Process, share: int, minutes: float | None) -> Progress:
    """See `train`; `share` is the number of faces in a micro-batch."""
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    faces, held_out = open_faces(config.data.sources, config.data.held_out)
    if process.leads:
        # Before networks are loaded, which takes long.
        prepare_folder(folder)
    recipe = build_recipe(config, process.device)
    progress = resume(folder, recipe, config)
    progress.note_trained(faces.digest())
    validator = make_validator(config, faces, held_out, process.device, share) if process.leads else None
    if validator is not None:
        progress.note_measured(validator.digest)
    with Monitor(config, folder, progress.step, leads=process.leads) as monitor:
        run = TrainingRun(config, folder, process, recipe, monitor, validator)
        return run.go_on(progress, faces, minutes)


def build_recipe(config: TrainingConfig, device: torch.device) -> Recipe:
    """Builds the networks and optimisers that a configuration asks for."""
    if config.recipe == "prior":
        from gfprestore.training.prior import PriorPretraining

        return PriorPretraining(config, device)
    from gfprestore.training.restoration import Restoration

    return Restoration(config, device)


def resume(folder: Path, recipe: Recipe, config: TrainingConfig) -> Progress:
    """Goes on from a folder's last checkpoint, or starts anew where there is none."""
    found = find_checkpoints(folder)
    if not found:
        return Progress()
    before = f"go on from step {checkpoint_step(found[-2])}" if len(found) > 1 else "start anew"
    content = read_checkpoint(found[-1], f"delete it to {before}")
    progress = restore(content, recipe)
    forget_other_best(progress, content, config)
    logger.info("Going on from %s.", found[-1])
    return progress


class TrainingRun:
    """What a run's steps share."""

    def __init__(
        self,
        config: TrainingConfig,
        folder: Path,
        process: Process,
        recipe: Recipe,
        monitor: Monitor,
        validator: Validator | None,
    ) -> None:
        self._config = config
        self._folder = folder
        self._process = process
        self._recipe = recipe
        self._monitor = monitor
        self._validator = validator
        self._means = IntervalMeans()

    def go_on(self, progress: Progress, faces: FaceSet, minutes: float | None) -> Progress:
        """Runs the steps that are left; see `train`."""
        config, ends = self._config.run, math.inf if minutes is None else time.monotonic() + 60 * minutes
        first_step = progress.step
        with StopRequest().listening() as stop, self._open_batches(faces, first_step) as batches:
            for loaded in batches:
                batch = self._to_device(loaded, progress, first_step)
                self._means.add(self._run_step(progress.step, batch))
                progress.step += 1
                self._report(progress, batch)
                is_asked = any_process(stop.is_asked, self._process.device)
                is_over = any_process(time.monotonic() > ends, self._process.device)
                is_last = progress.step == config.steps or is_asked or is_over
                self._keep(progress, is_last=is_last)
                if is_asked:
                    stop.finish()
                if is_last:
                    break
        return progress

    def _open_batches(
        self, faces: FaceSet, first_step: int
    ) -> AbstractContextManager[Iterator[Batch | UnreadableFace]]:
        config, process = self._config, self._process
        given = config.data.components
        components = find_components(faces, None if given is None else named_file(given, "data.components"))
        if process.leads and config.recipe == "restoration" and needs_components(config.losses):
            tell_missing(components)
        dataset = DegradedFaces(
            faces,
            config.degradation,
            size=config.generator.size,
            seed=config.run.seed,
            flip=config.data.flip,
            components=components,
        )
        sampler = StepSampler(first_step, config.run.steps, config.run.batch, process.rank, process.world)
        return open_batches(dataset, sampler, config.data.workers, pin_memory=process.device.type == "cuda")

    def _to_device(self, loaded: Batch | UnreadableFace, progress: Progress, first_step: int) -> Batch:
        """Moves a batch to the device; ends the run, with a checkpoint, where any process has none.

        Raises:
            UsageError: A face cannot be read.
        """
        is_missing = any_process(isinstance(loaded, UnreadableFace), self._process.device)
        if is_missing and progress.step > first_step:
            self._check_numbers(progress)
            self._save(progress)
            wait_for_all(self._process.device)
        if isinstance(loaded, UnreadableFace):
            raise UsageError(loaded.message)
        if is_missing:
            raise UsageError("Another process of the run could not read a face: see its message.")
        memory_format = torch.channels_last if self._config.run.channels_last else torch.contiguous_format
        return loaded.to(self._process.device, memory_format)

    def _run_step(self, step: int, batch: Batch) -> dict[str, Tensor]:
        factor = learning_rate_factor(self._config.optimiser, step, self._config.run.steps)
        set_learning_rates(self._recipe.optimisers.values(), factor)
        return self._recipe.train_step(step, batch.split(self._config.run.accumulate))

    def _report(self, progress: Progress, batch: Batch) -> None:
        config = self._config.run
        self._monitor.count(progress.step, len(batch) * self._process.world)
        if progress.step % config.log_every == 0:
            self._monitor.write_numbers(progress.step, self._check_means(progress))
            self._means.clear()
        if config.images_every and progress.step % config.images_every == 0 and self._process.leads:
            shown = batch.first(GRID_FACES)
            self._monitor.write_images(progress.step, shown.degraded, self._recipe.sample(shown), shown.truth)

    def _keep(self, progress: Progress, *, is_last: bool) -> None:
        """Saves and measures where it is time to: the checkpoint first, so that a failing validation loses nothing."""
        every = self._config.validation.every
        is_saved = is_last or progress.step % self._config.run.checkpoint_every == 0
        is_measured = every > 0 and progress.step % every == 0
        if is_saved or is_measured:
            self._check_numbers(progress)
        if is_saved:
            self._save(progress)
        if is_measured and self._validator is not None:
            self._validate(progress, self._validator)
            if is_saved:
                # Again, with what was measured: a run that goes on from it knows its best.
                self._save(progress)
        if is_saved or is_measured:
            wait_for_all(self._process.device)

    def _check_means(self, progress: Progress) -> dict[str, float]:
        """Returns the means since the last line of numbers; every process must ask.

        Raises:
            DivergedError: One is no number.
        """
        means = mean_over_processes(self._means.means())
        wrong = next((name for name, value in means.items() if not math.isfinite(value)), None)
        if wrong is not None:
            raise _diverged(progress, wrong)
        return means

    def _check_numbers(self, progress: Progress) -> None:
        """Lets a checkpoint be written only of numbers: the last good one must stay the last; every process must ask.

        Raises:
            DivergedError: A loss, a weight or a moment is no number.
        """
        self._check_means(progress)
        wrong = unsound_entry(self._recipe)
        if wrong is not None:
            raise _diverged(progress, wrong)

    def _validate(self, progress: Progress, validator: Validator) -> None:
        """Measures, and keeps the best checkpoint."""
        metrics = validator.measure(self._recipe)
        self._monitor.write_metrics(progress.step, metrics)
        # None of today's is no proof that they were not among those of an earlier part of the run.
        seen = None if progress.is_mixed and not validator.seen else validator.seen
        about = {"faces": len(validator), "measured": validator.digest, "seen": seen}
        progress.history.append({"step": progress.step, **metrics, **about})
        name = self._config.validation.best
        if validator.is_better(metrics[name], progress.best, name):
            progress.best = metrics[name]
            save_checkpoint(self._folder / BEST, self._recipe, progress, self._config)

    def _save(self, progress: Progress) -> None:
        if self._process.leads:
            path = checkpoint_path(self._folder, progress.step)
            save_checkpoint(path, self._recipe, progress, self._config)
            remove_old_checkpoints(self._folder, self._config.run.keep)
            logger.info("Step %d is kept in %s.", progress.step, path)


def _diverged(progress: Progress, name: str) -> DivergedError:
    return DivergedError(
        f"The training has diverged before step {progress.step}: {name} is no number;"
        " lower optimiser.learning_rate and run again to go on from the last checkpoint, or delete that one first to go"
        " on from the one before."
    )
