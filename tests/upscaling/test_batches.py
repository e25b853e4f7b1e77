"""Batches shared between threads: they fill up across callers, and a failure stays with the one it happened to."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from gfprestore.upscaling.batches import SharedBatches


class Runner:
    """Doubles its batch; the first call waits until it may go on, so that others can line up."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.go = threading.Event()
        self.started = threading.Event()

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        self.sizes.append(len(batch))
        self.started.set()
        assert self.go.wait(30)
        if (batch < 0).any():
            raise RuntimeError("broken item")
        return batch * 2


def lined_up(batches: SharedBatches, count: int) -> None:
    """Wait until so many items are in line."""
    while len(batches._waiting) < count:
        time.sleep(0.001)


def test_one_thread_runs_batches_of_at_most_the_limit() -> None:
    runner = Runner()
    runner.go.set()
    items = [np.full((2, 3), value) for value in range(5)]
    results = SharedBatches(runner).run(items, 2)
    assert runner.sizes == [2, 2, 1]
    for item, result in zip(items, results, strict=True):
        np.testing.assert_array_equal(result, item * 2)


def test_what_waits_meanwhile_shares_a_batch_with_others_of_its_shape() -> None:
    runner = Runner()
    batches = SharedBatches(runner)
    with ThreadPoolExecutor(8) as threads:
        first = threads.submit(batches.run, [np.zeros(3)], 4)
        assert runner.started.wait(30)
        others = [threads.submit(batches.run, [np.full(3, value)], 4) for value in range(1, 5)]
        odd = threads.submit(batches.run, [np.full(7, 9)], 4)
        lined_up(batches, 6)
        runner.go.set()
        assert first.result(30)[0].tolist() == [0, 0, 0]
        for value, other in enumerate(others, 1):
            assert other.result(30)[0].tolist() == [2 * value] * 3
        assert odd.result(30)[0].tolist() == [18] * 7
    assert sorted(runner.sizes) == [1, 1, 4]
    assert batches._waiting == []


def test_a_failure_stays_with_its_own_item() -> None:
    runner = Runner()
    batches = SharedBatches(runner)
    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(batches.run, [np.full(3, -1)], 1)
        assert runner.started.wait(30)
        second = threads.submit(batches.run, [np.full(3, 5)], 1)
        lined_up(batches, 2)
        runner.go.set()
        with pytest.raises(RuntimeError, match="broken item"):
            first.result(30)
        assert second.result(30)[0].tolist() == [10] * 3
    assert batches._waiting == []
