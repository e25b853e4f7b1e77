"""Threads and queues follow the processors and the memory."""

from __future__ import annotations

import pytest

from gfprestore import workplan
from gfprestore.stagetimes import STEPS
from gfprestore.workplan import MOST_WORKERS, plan_work


@pytest.mark.parametrize("cores", [1, 2, 3, 64])
def test_threads_follow_the_processors(cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workplan, "usable_cores", lambda: cores)
    plan = plan_work(4)
    assert plan.readers == plan.finishers == min(cores, MOST_WORKERS)
    assert plan.threads.keys() == STEPS.keys()


def test_a_batch_fits_before_and_behind_the_one_that_is_restored() -> None:
    for batch_size in (1, 4, 64):
        plan = plan_work(batch_size)
        assert plan.found_ahead > batch_size
        assert plan.finish_ahead - plan.finishers >= batch_size
        assert plan.most_photos >= plan.read_ahead + plan.found_ahead + plan.finish_ahead


def test_queues_follow_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workplan, "usable_memory", lambda: 64 << 30)
    assert plan_work(4).queue_bytes == 2 << 30
