"""Means of a run's numbers between two lines of them, and whether a run still has numbers at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from gfprestore.training.recipe import Recipe


class IntervalMeans:
    """Means of scalars by name since the last line, each over its own count: regularisations come every few steps.

    A run that goes on within an interval averages over the rest of it.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Adds the scalars of a step; they stay on their device, which is not waited for."""
        for name, value in values.items():
            value = value.detach().float()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1

    def means(self) -> dict[str, Tensor]:
        """Returns the means so far, scalars; what was once no number stays none."""
        return {name: total / self._counts[name] for name, total in self._sums.items()}

    def clear(self) -> None:
        """Starts anew."""
        self._sums, self._counts = {}, {}


def unsound_entry(recipe: Recipe) -> str | None:
    """Returns the name of an entry of the networks or optimisers that holds infinities or no numbers, if there is one.

    On a GPU this waits for all its work.
    """
    entries = [(name, tensor) for name, tensor in _entries(recipe) if tensor.is_floating_point()]
    if not entries:
        return None
    verdicts = torch.stack([tensor.isfinite().all().cpu() for _, tensor in entries]).tolist()
    return next((name for (name, _), is_sound in zip(entries, verdicts, strict=True) if not is_sound), None)


def _entries(recipe: Recipe) -> Iterator[tuple[str, Tensor]]:
    for name, module in recipe.modules.items():
        for key, tensor in module.state_dict().items():
            yield f"{name}.{key}", tensor
    for name, optimiser in recipe.optimisers.items():
        for moments in optimiser.state.values():
            for key, value in moments.items():
                if isinstance(value, Tensor):
                    yield f"the optimiser of {name}, {key}", value
