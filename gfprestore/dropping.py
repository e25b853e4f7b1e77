"""How long work hears that the run stops: it asks between its steps, and drops the photo."""

from __future__ import annotations

from collections.abc import Callable

ShouldStop = Callable[[], bool]
"""Asked between two steps, in any thread; once it says yes it goes on to. `bool` itself is the one that never does."""


class DroppedError(Exception):
    """The run stops before this photo is whole."""


def drop_if(should_stop: ShouldStop) -> None:
    """Drops the photo in work where the run stops.

    Raises:
        DroppedError: It does.
    """
    if should_stop():
        raise DroppedError
