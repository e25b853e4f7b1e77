"""`StopRequest`: Ctrl-C and SIGTERM as a wish that a run grants between two steps, not as an exception anywhere."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

from gfprestore.command import Terminated

STOPPING = "Stopping: photos that are being written are finished first, the others are left for another run."
"""What is told after the first signal."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Takes both signals while its block runs; call it to ask whether one came.

    An exception that a signal raises lands between any two steps, and so between the writing of a photo and the line
    that tells of it. While `waits` is set, the first signal therefore only changes the answer of this object, and is
    told; a second one raises, for who cannot wait for what is in work, and further ones change nothing: threads write
    to the end what they began, and what they wrote is then counted. Until then, such as during a download, every one
    raises.

    In a thread other than the main one, where Python handles no signals, and for a signal that the process was told to
    ignore, nothing is taken.
    """

    def __init__(self) -> None:
        self.waits = False
        """Whether the run asks often enough that the first signal need not raise."""
        self.is_over = False
        """Whether the run is only closing its account: a signal then changes nothing, since it ends soon anyway."""
        self.say: Callable[[str], None] = lambda _: None
        """Takes the line that is told after the first signal, in a thread of its own."""
        self._received: int | None = None
        self._wakes = threading.Event()
        self._teller: threading.Thread | None = None
        self._previous: dict[int, Any] = {}

    def __call__(self) -> bool:
        """Whether a signal came."""
        return self._received is not None

    def __enter__(self) -> Self:
        """Takes the signals."""
        if threading.current_thread() is threading.main_thread():
            taken = [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
            # Begun now, since what handles a signal, between any two steps, can neither write nor begin a thread.
            self._teller = threading.Thread(target=self._tell, daemon=True)
            self._teller.start()
            self._previous = {number: signal.signal(number, self._take) for number in taken}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Gives the signals back."""
        for number, handler in self._previous.items():
            # None stands for a handler that no Python code set, and that none can set again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if self._teller is not None:
            self._wakes.set()
            self._teller.join()

    def raise_if_asked(self) -> None:
        """Raises what the signal would have raised at once.

        Raises:
            KeyboardInterrupt: A signal came; `Terminated`, which is one, for SIGTERM.
        """
        if self._received is not None:
            raise Terminated if self._received == signal.SIGTERM else KeyboardInterrupt

    def _take(self, number: int, _frame: FrameType | None) -> None:
        if self.is_over:
            return
        came_before = self._received is not None
        self._received = self._received or number
        if not self.waits:
            self.raise_if_asked()
        if came_before:
            self.is_over = True
            self.raise_if_asked()
        self._wakes.set()

    def _tell(self) -> None:
        self._wakes.wait()
        if self._received is not None and self.waits:
            self.say(STOPPING)
