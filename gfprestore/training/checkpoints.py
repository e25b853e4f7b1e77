"""Checkpoints: everything that a run needs to go on as if it had never stopped, in one file."""

from __future__ import annotations

import pickle
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gfprestore import __version__
from gfprestore.atomic import atomic_file
from gfprestore.errors import OutputError, PhotoError, UsageError, printable
from gfprestore.training.config import TrainingConfig
from gfprestore.training.configfile import config_table, parse_config
from gfprestore.training.recipe import Recipe

FORMAT = 1
"""Raised when a file of this version would mislead an older reader."""

BEST = "best.pt"
"""Name of the checkpoint whose validation was the best."""

_NAME = re.compile(r"step-(\d{8})\.pt")


@dataclass
class Progress:
    """Where a run stands."""

    step: int = 0
    """Steps done."""

    best: float | None = None
    """Best value of the deciding metric so far."""

    history: list[dict[str, Any]] = field(default_factory=list)
    """Validations so far: `step`, the metrics by name, how many `faces` were measured, which ones (`measured`, their
    digest) and how many of them `seen`, which are trained on as well, None where that is not known; older checkpoints
    lack what is said of the faces."""

    trained: str = ""
    """Digest of the names of the faces that are trained on."""

    is_mixed: bool = False
    """Whether the run has trained on other faces before, or may have."""

    def note_trained(self, digest: str) -> None:
        """Takes note of the faces that the run trains on from here."""
        self.is_mixed = self.is_mixed or (self.step > 0 and digest != self.trained)
        self.trained = digest

    def note_measured(self, digest: str) -> None:
        """Takes note of the faces that the run measures from here; the best value of others is forgotten."""
        if self.history and self.history[-1].get("measured", digest) != digest:
            self.best = None


def save_checkpoint(path: Path, recipe: Recipe, progress: Progress, config: TrainingConfig) -> None:
    """Writes a checkpoint; the file is complete or absent.

    Raises:
        OutputError: The disk is full or the folder cannot be written.
    """
    content = {
        "format": FORMAT,
        "version": __version__,
        "config": config_table(config),
        "progress": dict(vars(progress)),
        "modules": {name: module.state_dict() for name, module in recipe.modules.items()},
        "optimisers": {name: optimiser.state_dict() for name, optimiser in recipe.optimisers.items()},
        "random": random_state(),
    }
    try:
        with atomic_file(path, overwrite=True) as stream:
            torch.save(content, stream)
    except (OutputError, PhotoError, RuntimeError) as error:
        # torch tells of a write that failed in words about its own sources, as a RuntimeError.
        reason = _system_reason(error)
        raise OutputError(
            f"The checkpoint {printable(path)} cannot be written ({reason}): free some space or mend the folder, and"
            " run again to go on from the last one."
        ) from error


def _system_reason(error: BaseException | None) -> str:
    """What the system said, at the bottom of errors that were raised on errors."""
    while error is not None:
        if isinstance(error, OSError) and error.strerror:
            return printable(error.strerror)
        error = error.__cause__ or error.__context__
    return "the disk may be full"


def read_checkpoint(path: Path, advice: str = "name another CHECKPOINT") -> dict[str, Any]:
    """Reads a checkpoint without running anything in it, on the CPU.

    Args:
        path: Its file.
        advice: What to do where it cannot be read.

    Raises:
        UsageError: The file is missing, damaged, or none of this program's.
    """
    if not path.is_file():
        raise UsageError(f"There is no checkpoint {printable(path)}: {advice}.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise UsageError(f"{printable(path)} is no readable checkpoint: {advice}.") from error
    if not isinstance(content, dict) or not {"format", "config", "modules"} <= content.keys():
        raise UsageError(f"{printable(path)} is no checkpoint of gfprestore-train: {advice}.")
    if content["format"] != FORMAT:
        raise UsageError(f"{printable(path)} was written by gfprestore {content['version']}: use that version.")
    return content


def restore(content: Mapping[str, Any], recipe: Recipe) -> Progress:
    """Puts a checkpoint's values into a recipe and the random generators.

    Raises:
        UsageError: The recipe has other networks than the checkpoint.
    """
    for kind, parts in (("modules", recipe.modules), ("optimisers", recipe.optimisers)):
        if parts.keys() != content[kind].keys():
            raise UsageError("The checkpoint has other networks than CONFIG asks for: name another --output.")
    try:
        for name, module in recipe.modules.items():
            module.load_state_dict(content["modules"][name])
    except (RuntimeError, ValueError) as error:
        raise UsageError("The checkpoint's networks have other shapes than CONFIG's: name another --output.") from error
    try:
        for name, optimiser in recipe.optimisers.items():
            load_optimiser(optimiser, content["optimisers"][name])
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            "The checkpoint's optimisers move other groups of weights than CONFIG's: leave optimiser.equalised and"
            " generator.train_prior as they were, or name another --output."
        ) from error
    set_random_state(content["random"])
    return Progress(**content["progress"])


def forget_other_best(progress: Progress, content: Mapping[str, Any], config: TrainingConfig) -> None:
    """Forgets a checkpoint's best value where the run now measures something that cannot be compared with it."""
    then, now = (table.get("validation", {}) for table in (content["config"], config_table(config)))
    if any(then.get(key) != now.get(key) for key in ("best", "degradation", "count")):
        progress.best = None


def load_optimiser(optimiser: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Loads moments and counts, but keeps rates and betas, which the configuration decides."""
    groups = [{**group, "params": None} for group in optimiser.param_groups]
    optimiser.load_state_dict(dict(state))
    for group, kept in zip(optimiser.param_groups, groups, strict=True):
        group.update({name: value for name, value in kept.items() if name != "params"})


def checkpoint_config(content: Mapping[str, Any]) -> TrainingConfig:
    """The configuration that a checkpoint was trained with."""
    return parse_config(content["config"])


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint after so many steps lies."""
    return folder / f"step-{step:08d}.pt"


def checkpoint_step(path: Path) -> int:
    """The steps that a checkpoint of `find_checkpoints` comes after."""
    return int(path.stem.removeprefix("step-"))


def find_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first, without the best one."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))


def remove_old_checkpoints(folder: Path, keep: int) -> None:
    """Deletes all but the last `keep` checkpoints, and never the last one."""
    for path in find_checkpoints(folder)[: -max(1, keep)]:
        path.unlink(missing_ok=True)


def random_state() -> dict[str, Any]:
    """State of the process's random generators, as values that a checkpoint may hold."""
    version, numbers, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": [version, list(numbers), gauss],
        "numpy": [kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached],
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Sets the process's random generators to a state of `random_state`."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
