"""Streams: in order, bounded, honest about failures, clean when they are closed."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gfprestore.streams import map_ahead, map_batched


@given(st.lists(st.integers()), st.integers(1, 4), st.integers(1, 6))
def test_ahead_equals_map(items: list[int], workers: int, ahead: int) -> None:
    assert list(map_ahead(items, lambda x: x * 3, workers=workers, ahead=ahead)) == [x * 3 for x in items]


@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_ahead_draws_no_more_than_its_bound(ahead: int) -> None:
    drawn = 0

    def items() -> Iterator[int]:
        nonlocal drawn
        for number in range(40):
            drawn += 1
            yield number

    for taken, _ in enumerate(map_ahead(items(), lambda x: x, workers=3, ahead=ahead), start=1):
        assert drawn <= taken + ahead
    assert drawn == 40


def test_ahead_works_in_threads_at_once() -> None:
    meeting = threading.Barrier(3)  # Nobody passes before three are there.
    assert list(map_ahead(range(6), lambda x: (meeting.wait(timeout=30), x)[1], workers=3, ahead=3)) == [*range(6)]


def test_ahead_yields_what_is_in_work_behind_a_failure_and_raises_it_then() -> None:
    begun: list[int] = []
    all_begun, failed = threading.Event(), threading.Event()

    def work(number: int) -> int:
        begun.append(number)
        if number == 3:
            assert all_begun.wait(timeout=30)
            failed.set()
            raise KeyError(number)
        if number == 5:
            all_begun.set()
        if number > 3:
            assert failed.wait(timeout=30)
        return number

    stream = map_ahead(range(10), work, workers=3, ahead=6)
    seen: list[int] = []
    with pytest.raises(KeyError):
        seen.extend(stream)
    assert seen[:5] == [0, 1, 2, 4, 5]
    assert sorted(begun) == sorted([*seen, 3]), "what was begun is seen, and nothing else was begun"
    assert list(stream) == []


def test_of_several_failures_the_first_is_raised() -> None:
    def work(number: int) -> int:
        raise KeyError(number)

    with pytest.raises(KeyError) as raised:
        list(map_ahead(range(10), work, workers=3, ahead=6))
    assert raised.value.args == (0,)


def test_ahead_yields_what_came_before_the_sources_failure() -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise OSError("source")

    seen: list[int] = []
    with pytest.raises(OSError, match="source"):
        seen.extend(map_ahead(items(), lambda x: x, workers=2, ahead=8))
    assert seen == [0, 1, 2]


def test_ahead_closed_stops_threads_and_source() -> None:
    before = threading.active_count()
    started: list[int] = []
    closed = []

    def items() -> Iterator[int]:
        try:
            yield from range(1000)
        finally:
            closed.append(True)

    stream = map_ahead(items(), started.append, workers=2, ahead=5)
    next(stream)
    stream.close()
    assert closed == [True]
    assert threading.active_count() == before
    assert len(started) <= 6


def test_ahead_begins_nothing_before_it_is_asked() -> None:
    started: list[int] = []
    map_ahead(range(3), started.append, workers=1, ahead=2).close()
    assert started == []


@given(
    st.lists(st.lists(st.integers(), max_size=7), max_size=25),
    st.integers(1, 6),
    st.integers(1, 6),
)
def test_batched_equals_one_by_one(groups: list[list[int]], batch_size: int, max_open: int) -> None:
    drawn = 0
    yielded = 0
    most_held = 0
    batches: list[int] = []

    def source() -> Iterator[tuple[int, list[int]]]:
        nonlocal drawn, most_held
        for key, items in enumerate(groups):
            most_held = max(most_held, drawn - yielded)
            drawn += 1
            yield key, items

    def function(batch: list[int]) -> list[int]:
        batches.append(len(batch))
        return [x + 1 for x in batch]

    results = []
    for result in map_batched(source(), function, batch_size=batch_size, max_open=max_open):
        yielded += 1
        results.append(result)
    assert results == [(key, [x + 1 for x in items]) for key, items in enumerate(groups)]
    assert sum(batches) == sum(map(len, groups))
    assert all(0 < size <= batch_size for size in batches)
    # A group just drawn joins those held; before the next is drawn the bound holds again.
    assert most_held < max_open or max_open == 1


@given(st.lists(st.integers(0, 7), max_size=25), st.integers(1, 6), st.integers(1, 8))
def test_only_the_first_batch_is_smaller(sizes: list[int], batch_size: int, first: int) -> None:
    batches: list[int] = []

    def function(batch: list[int]) -> list[int]:
        batches.append(len(batch))
        return batch

    groups = [(index, [0] * size) for index, size in enumerate(sizes)]
    results = map_batched(groups, function, batch_size=batch_size, max_open=len(sizes) + 1, first=first)
    assert [(key, list(items)) for key, items in results] == groups
    whole = sum(sizes)
    expected = [min(whole, first, batch_size)] if whole else []
    while sum(expected) < whole:
        expected.append(min(batch_size, whole - sum(expected)))
    assert batches == expected


def test_the_first_result_waits_for_no_company() -> None:
    drawn: list[int] = []

    def source() -> Iterator[tuple[int, list[int]]]:
        for index in range(9):
            drawn.append(index)
            yield index, [index]

    stream = map_batched(source(), lambda batch: batch, batch_size=4, max_open=9, first=1)
    assert next(stream) == (0, [0])
    assert drawn == [0]
    assert [*stream] == [(index, [index]) for index in range(1, 9)]


@given(st.lists(st.integers(0, 7), max_size=25), st.integers(1, 6))
def test_batches_are_full_where_the_bound_allows(sizes: list[int], batch_size: int) -> None:
    batches: list[int] = []

    def function(batch: list[int]) -> list[int]:
        batches.append(len(batch))
        return batch

    groups = [(i, list(range(size))) for i, size in enumerate(sizes)]
    list(map_batched(groups, function, batch_size=batch_size, max_open=1000))
    assert all(size == batch_size for size in batches[:-1])
    assert len(batches) == -(-sum(sizes) // batch_size)


def test_batched_does_not_hold_one_photo_for_ever() -> None:
    drawn = 0

    def source() -> Iterator[tuple[int, list[int]]]:
        nonlocal drawn
        yield 0, [7]
        for key in range(1, 10_000):
            drawn += 1
            yield key, []

    stream = map_batched(source(), lambda batch: batch, batch_size=4, max_open=8)
    assert next(stream) == (0, [7])
    assert drawn <= 8
    stream.close()


def test_batched_refuses_a_wrong_number_of_results() -> None:
    stream = map_batched([(0, [1, 2])], lambda batch: batch[:1], batch_size=2, max_open=2)
    with pytest.raises(ValueError, match="gave 1 results"):
        next(stream)


def test_batched_yields_what_is_done_behind_a_failure_and_raises_it_then() -> None:
    def groups(last: list[tuple[str, list[int]]]) -> Iterator[tuple[str, list[int]]]:
        yield from [("a", [1, 2]), ("b", [3, 0]), ("c", []), ("d", [])]
        yield from last

    def function(batch: list[int]) -> list[float]:
        return [1 / number for number in batch]

    seen: list[str] = []
    with pytest.raises(ZeroDivisionError):
        seen.extend(key for key, _ in map_batched(groups([("e", [4])]), function, batch_size=2, max_open=9))
    assert seen == ["a"], "what failed at once held nothing back"
    seen.clear()
    with pytest.raises(ZeroDivisionError):
        for key, results in map_batched(groups([("e", [4])]), function, batch_size=5, max_open=9):
            seen.append(key)
            assert results == []
    assert seen == ["c", "d"]


def test_batched_yields_what_is_done_before_its_source_fails() -> None:
    def groups() -> Iterator[tuple[str, list[int]]]:
        yield from [("a", [1]), ("b", []), ("c", [2]), ("d", [3])]
        raise MemoryError

    seen: list[str] = []
    with pytest.raises(MemoryError):
        for key, _ in map_batched(groups(), lambda batch: batch, batch_size=2, max_open=9):
            seen.append(key)
    assert seen == ["a", "b", "c"]


def test_batched_passes_failures_on_and_closes_its_source() -> None:
    closed = []

    def source() -> Iterator[tuple[int, list[int]]]:
        try:
            for key in range(5):
                yield key, [key]
        finally:
            closed.append(True)

    def function(batch: list[int]) -> list[int]:
        if 2 in batch:
            raise MemoryError
        return batch

    seen = []
    with pytest.raises(MemoryError):
        for key, _ in map_batched(source(), function, batch_size=1, max_open=3):
            seen.append(key)
    assert seen == [0, 1]
    assert closed == [True]


def test_streams_in_a_row_close_from_the_last_to_the_first() -> None:
    before = threading.active_count()
    ahead = map_ahead(range(100), lambda x: (x, [x] * (x % 3)), workers=2, ahead=4)
    stream = map_batched(ahead, lambda batch: batch, batch_size=4, max_open=5)
    next(stream)
    stream.close()
    assert threading.active_count() == before


@given(st.lists(st.integers(0, 9), max_size=30), st.integers(1, 4), st.integers(1, 5), st.integers(1, 20))
def test_ahead_begins_no_more_than_may_be_held(weights: list[int], workers: int, ahead: int, limit: int) -> None:
    drawn: list[int] = []

    def items() -> Iterator[int]:
        for weight in weights:
            # What was drawn before and not yet yielded, all but the last of it, is within the limit.
            held = drawn[taken:]
            assert sum(held) < limit
            assert len(held) < ahead
            drawn.append(weight)
            yield weight

    taken = 0
    stream = map_ahead(items(), lambda x: x, workers=workers, ahead=ahead, weigh=float, limit=limit)
    for result in stream:
        assert result == weights[taken]
        taken += 1
    assert taken == len(weights)


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), max_size=30),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 20),
)
def test_batched_holds_no_more_than_it_may(
    groups: list[tuple[int, int]], batch_size: int, max_open: int, limit: int
) -> None:
    def source() -> Iterator[tuple[int, list[int]]]:
        for number, (_, size) in enumerate(groups):
            # What was drawn before and not yet yielded is within both bounds.
            assert sum(weight for weight, _ in groups[taken:number]) < limit
            assert number - taken < max_open
            yield number, [number] * size

    taken = 0
    stream = map_batched(
        source(),
        lambda batch: batch,
        batch_size=batch_size,
        max_open=max_open,
        weigh=lambda number: groups[number][0],
        limit=limit,
    )
    for key, results in stream:
        assert (key, results) == (taken, [taken] * groups[taken][1])
        taken += 1
    assert taken == len(groups)


@pytest.mark.parametrize(("workers", "ahead"), [(0, 1), (1, 0)])
def test_numbers_below_one_are_refused(workers: int, ahead: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        next(map_ahead([1], str, workers=workers, ahead=ahead))
    with pytest.raises(ValueError, match="at least 1"):
        next(map_batched([], list, batch_size=workers, max_open=ahead))
