"""Bounded, ordered streams: work done ahead in threads, and batches gathered across photos.

Both are generators: nothing begins before the first result is asked for, and `close()`, or leaving a loop over them in
a function that ends, stops their threads and closes the stream that feeds them.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")
K = TypeVar("K")


@contextmanager
def _closing(items: Iterable[T]) -> Generator[Iterator[T]]:
    """Iterates over `items` and closes them at the end where they can be closed, as generators can."""
    iterator = iter(items)
    try:
        yield iterator
    finally:
        close = getattr(iterator, "close", None)
        if close is not None:
            close()


def map_ahead(
    items: Iterable[T],
    function: Callable[[T], R],
    *,
    workers: int,
    ahead: int,
    weigh: Callable[[T], float] = lambda _: 0.0,
    limit: float = math.inf,
) -> Generator[R]:
    """Yields `function(item)` for each item, in order, computed ahead in threads.

    Memory is bounded by `ahead`: at most that many results are begun or wait here, beside the one that was yielded
    last. Where items are weighed, nothing more begins either while what waits weighs `limit` or more: large items wait
    in smaller numbers. Items are drawn in the caller's thread, no earlier than these bounds let them begin.

    When the function or the drawing of an item fails, nothing more is begun, what is in work is finished and its
    results are yielded, and then the first exception is raised: no work that was done goes unseen.

    Args:
        items: What to work on; may be endless.
        function: Runs in a worker thread.
        workers: Number of threads, at least 1.
        ahead: Greatest number of results begun and not yet asked for, at least 1.
        weigh: Weight of an item and its result, in any unit.
        limit: Weight from which on nothing more is begun; above 0, so that one item always is.
    """
    if workers < 1 or ahead < 1 or limit <= 0:
        raise ValueError(f"workers ({workers}) and ahead ({ahead}) must be at least 1, limit ({limit}) above 0")
    pending: deque[tuple[Future[R], float]] = deque()
    done: list[R] = []  # At most one: popped on the way out, so that it is not held here as well.
    failure: Exception | None = None
    with _closing(items) as iterator, ThreadPoolExecutor(workers) as pool:
        try:
            is_drained = False
            while True:
                while not is_drained and len(pending) < ahead and sum(weight for _, weight in pending) < limit:
                    try:
                        item = next(iterator)
                    except StopIteration:
                        is_drained = True
                    except Exception as error:  # Raised again below, after the results that come before it.
                        is_drained, failure = True, failure or error
                    else:
                        weight = weigh(item)
                        pending.append((pool.submit(function, item), weight))
                        del item
                if not pending:
                    break
                try:
                    done.append(pending.popleft()[0].result())
                except Exception as error:  # Raised again below, after the results of what is in work.
                    is_drained, failure = True, failure or error
                    pending = deque((future, weight) for future, weight in pending if not future.cancel())
                else:
                    yield done.pop()
        finally:
            for future, _ in pending:
                future.cancel()
    if failure is not None:
        raise failure


class _Group(Generic[K, R]):
    """One group whose results are still coming in."""

    def __init__(self, key: K, size: int, weight: float) -> None:
        self.key = key
        self.size = size
        self.weight = weight
        self.results: list[R] = []

    @property
    def is_complete(self) -> bool:
        return len(self.results) == self.size


def map_batched(
    groups: Iterable[tuple[K, Sequence[T]]],
    function: Callable[[list[T]], Sequence[R]],
    *,
    batch_size: int,
    max_open: int,
    first: int | None = None,
    weigh: Callable[[K], float] = lambda _: 0.0,
    limit: float = math.inf,
) -> Generator[tuple[K, list[R]]]:
    """Yields each group's key with the results of its items, in order, computed in batches that span groups.

    A batch holds exactly `batch_size` items, but for the first and the last one, and for one run early because
    `max_open` groups are held, or groups that weigh `limit`: one photo with a face, followed by ten thousand without,
    would be held for ever otherwise.

    Memory is bounded by `max_open` and `limit`: at most that many groups, with all their items and results, are held
    here, beside the one that was yielded last, and all but the last of them weigh less than `limit`. The bound does not
    depend on the number of groups.

    Args:
        groups: Pairs of a key, of any kind, and that group's items, none to many.
        function: Maps a list of items to as many results in the same order; runs in the caller's thread.
        batch_size: Items in a batch, at least 1.
        max_open: Greatest number of groups held, at least 1.
        first: Most items in the first batch, so that the first results need not wait for company; None is as many as in
            the others.
        weigh: Weight of a group by its key, in any unit.
        limit: Weight of the groups held from which on no more are drawn before these are done, above 0.

    Where the function or the groups fail, the groups behind that need no more batch are yielded before the exception is
    raised: what is done is told.

    Raises:
        ValueError: The function returned another number of results than it was given items.
    """
    if batch_size < 1 or max_open < 1 or limit <= 0:
        raise ValueError(
            f"batch_size ({batch_size}) and max_open ({max_open}) must be at least 1, limit ({limit}) above 0"
        )
    held: deque[_Group[K, R]] = deque()
    waiting: deque[tuple[_Group[K, R], T]] = deque()

    most = min(batch_size, first or batch_size)

    def run_batch() -> None:
        nonlocal most
        batch = [waiting.popleft() for _ in range(min(most, len(waiting)))]
        most = batch_size
        results = function([item for _, item in batch])
        if len(results) != len(batch):
            raise ValueError(f"a batch of {len(batch)} gave {len(results)} results")
        for (group, _), result in zip(batch, results, strict=True):
            group.results.append(result)

    def take_complete() -> Iterator[tuple[K, list[R]]]:
        while held and held[0].is_complete:
            group = held.popleft()
            yield group.key, group.results

    with _closing(groups) as iterator:
        try:
            while drawn := list(islice(iterator, 1)):
                key, items = drawn.pop()
                held.append(_Group(key, len(items), weigh(key)))
                waiting.extend((held[-1], item) for item in items)
                del key, items
                while len(waiting) >= most:
                    run_batch()
                yield from take_complete()
                if waiting and (len(held) >= max_open or sum(group.weight for group in held) >= limit):
                    run_batch()
                    yield from take_complete()
            while waiting:
                run_batch()
            yield from take_complete()
        except Exception:
            while held:
                if not held[0].is_complete:
                    held.popleft()
                yield from take_complete()
            raise
