"""Batches shared between threads: what several photos wait for at the same time runs together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(eq=False)
class _Item:
    values: NDArray[Any]
    result: NDArray[Any] | None = None


class SharedBatches:
    """Gathers the items of all threads that wait; whichever thread's turn it is runs as many as fit for all of them.

    So batches fill up across photos without anyone waiting for company. A run that fails raises in the thread whose
    turn it was; items of the others go back in line and are tried in their own threads.
    """

    def __init__(self, run: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
        """Takes the function that runs a batch, (N, ...) -> (N, ...); it is called by one thread at a time."""
        self._run = run
        self._waiting: list[_Item] = []
        self._line = threading.Lock()
        self._turn = threading.Lock()

    def run(self, items: Sequence[NDArray[Any]], most: int) -> list[NDArray[Any]]:
        """Run items; safe to call from several threads.

        Args:
            items: Arrays of one shape.
            most: Largest batch.

        Returns:
            The results, in the same order.
        """
        own = [_Item(values) for values in items]
        with self._line:
            self._waiting.extend(own)
        try:
            return [self._wait_for(item, most) for item in own]
        finally:
            with self._line:
                self._waiting = [item for item in self._waiting if item not in own]

    def _wait_for(self, item: _Item, most: int) -> NDArray[Any]:
        with self._turn:
            if item.result is None:
                self._run_with(item, most)
        assert item.result is not None
        return item.result

    def _run_with(self, first: _Item, most: int) -> None:
        """Run a batch of this item and of those that wait with the same shape, longest waiting first."""
        with self._line:
            company = [item for item in self._waiting if item is not first and item.values.shape == first.values.shape]
            batch = [first, *company[: most - 1]]
        for item, result in zip(batch, self._run(np.stack([item.values for item in batch])), strict=True):
            item.result = result
        with self._line:
            self._waiting = [item for item in self._waiting if item not in batch]
