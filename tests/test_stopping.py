"""Signals as wishes: when they wait, when they raise, and that they are given back."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from gfprestore.command import Terminated
from gfprestore.stopping import STOPPING, StopRequest

BOTH = pytest.mark.parametrize(("number", "kind"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])


@pytest.fixture(autouse=True)
def usual_handlers() -> Iterator[None]:
    """What a process in the foreground has; a shell's background ignores Ctrl-C."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@BOTH
def test_a_first_signal_waits_and_raises_when_asked(number: signal.Signals, kind: type[BaseException]) -> None:
    with StopRequest() as stop:
        stop.waits = True
        stop.raise_if_asked()
        assert not stop()
        signal.raise_signal(number)
        assert stop()
        with pytest.raises(kind):
            stop.raise_if_asked()


@BOTH
def test_a_second_signal_raises_what_the_first_one_was(number: signal.Signals, kind: type[BaseException]) -> None:
    with StopRequest() as stop:
        stop.waits = True
        signal.raise_signal(number)
        with pytest.raises(kind):
            signal.raise_signal(signal.SIGINT)


@BOTH
def test_only_the_second_signal_raises_and_the_first_is_told(number: signal.Signals, kind: type[BaseException]) -> None:
    said: list[str] = []
    with StopRequest() as stop:
        stop.waits, stop.say = True, said.append
        signal.raise_signal(number)
        with pytest.raises(kind):
            signal.raise_signal(number)
        signal.raise_signal(number)
        assert stop()
    assert said == [STOPPING]
    with StopRequest() as stop:
        stop.waits, stop.say = True, pytest.fail


@BOTH
def test_a_signal_raises_at_once_where_nobody_asks(number: signal.Signals, kind: type[BaseException]) -> None:
    with StopRequest(), pytest.raises(kind):
        signal.raise_signal(number)


@BOTH
def test_a_signal_changes_nothing_once_the_run_is_over(number: signal.Signals, kind: type[BaseException]) -> None:
    with StopRequest() as stop:
        stop.is_over = True
        for _ in range(2):
            signal.raise_signal(number)
        assert not stop()


def test_handlers_are_given_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with StopRequest():
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] != before
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_an_ignored_signal_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with StopRequest() as stop:
        stop.waits = True
        signal.raise_signal(signal.SIGINT)
        assert not stop()


def test_another_thread_takes_no_signals() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen: list[object] = []

    def work() -> None:
        with StopRequest() as stop:
            seen.extend((signal.getsignal(signal.SIGINT), stop()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before, False]
