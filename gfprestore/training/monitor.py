"""What a run tells while it runs: a progress bar, lines of numbers, tensorboard scalars and image grids."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor
from torchvision.utils import make_grid
from tqdm import tqdm

from gfprestore.atomic import atomic_file, remove_leftovers
from gfprestore.errors import OutputError, PhotoError, printable
from gfprestore.training.config import TrainingConfig
from gfprestore.training.configfile import config_toml

GRID_FACES = 4
"""Faces in a grid: each a row of degraded, restored and true."""

CONFIG_FILE = "config.toml"
"""The effective configuration, in the run's folder."""

NUMBERS_FILE = "numbers.jsonl"
"""The numbers of the run, one JSON object a line."""


class Monitor:
    """Writes into the run's folder, which is there, and to stderr, where this process leads; a context manager."""

    def __init__(self, config: TrainingConfig, folder: Path, first_step: int, *, leads: bool) -> None:
        self._leads = leads
        self._first_step = first_step
        self._start = time.monotonic()
        self._images = 0
        self._board: Any = None
        self._bar: Any = None
        if not leads:
            return
        with _told_as_output_error(folder):
            _write_text(folder / CONFIG_FILE, config_toml(config))
            _forget_after(folder / NUMBERS_FILE, first_step)
            self._numbers = (folder / NUMBERS_FILE).open("a", encoding="utf-8")
            self._board = _open_board(folder, first_step)
        self._folder = folder
        is_shown = sys.stderr.isatty()
        self._bar = tqdm(total=config.run.steps, initial=first_step, unit="step", disable=not is_shown)

    def __enter__(self) -> Self:
        """Starts the clock."""
        self._start = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the files."""
        if self._leads:
            self._bar.close()
            self._numbers.close()
            if self._board is not None:
                self._board.close()

    def count(self, step: int, images: int) -> None:
        """Counts the images of a step."""
        self._images += images
        if self._leads:
            self._bar.update(step - self._bar.n)

    @property
    def images_per_second(self) -> float:
        """Over the whole of this sitting, validation and checkpoints included."""
        return self._images / max(time.monotonic() - self._start, 1e-9)

    def write_numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the losses of a step, and the speed."""
        if not self._leads:
            return
        values = {**values, "images_per_second": self.images_per_second}
        self._write(step, values, "train")

    def write_metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Writes a validation."""
        if self._leads:
            self._write(step, values, "validation")

    def write_images(self, step: int, degraded: Tensor, restored: Tensor, truth: Tensor) -> None:
        """Writes a grid of the first faces of a batch, [N 3 S S] in [-1, 1] each."""
        if self._board is None:
            return
        rows = torch.stack([degraded, restored, truth], dim=1)[:GRID_FACES].flatten(0, 1)  # [N*3 3 S S]
        grid = make_grid(((rows.float().cpu() + 1) / 2).clamp(0, 1), nrow=3)
        self._board.add_image("degraded, restored, truth", grid, step)

    def _write(self, step: int, values: Mapping[str, float], kind: str) -> None:
        record = {"step": step, "kind": kind, **{name: float(f"{value:.6g}") for name, value in values.items()}}
        with _told_as_output_error(self._folder):
            self._numbers.write(json.dumps(record) + "\n")
            self._numbers.flush()
        text = " ".join(f"{name} {value:.4g}" for name, value in values.items())
        tqdm.write(f"step {step}: {text}", file=sys.stderr)
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f"{kind}/{name}", value, step)


def prepare_folder(folder: Path) -> None:
    """Makes a run's folder, and removes what a killed process left of a checkpoint there.

    Raises:
        OutputError: It cannot be a folder.
    """
    with _told_as_output_error(folder):
        folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)


@contextmanager
def _told_as_output_error(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, PhotoError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise OutputError(f"--output {printable(folder)} cannot be written ({printable(reason)}).") from error


def _write_text(path: Path, text: str) -> None:
    with atomic_file(path, overwrite=True) as stream:
        stream.write(text.encode("utf-8"))


def _forget_after(path: Path, step: int) -> None:
    """Takes off the numbers of steps after the checkpoint that a run goes on from: they will be written again."""
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    _write_text(path, "".join(f"{line}\n" for line in lines if _is_kept(line, step)))


def _is_kept(line: str, step: int) -> bool:
    try:
        return bool(json.loads(line)["step"] <= step)
    except (ValueError, KeyError, TypeError):
        # Cut short, or overwritten with zeros, when the machine went down.
        return False


def _open_board(folder: Path, first_step: int) -> Any:
    """Tensorboard's writer, or None where it is not installed; it shows what is written from now on for later steps."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=first_step + 1)
