"""The one OpenVINO of a process."""

from __future__ import annotations

from functools import cache

import openvino


@cache
def shared_core() -> openvino.Core:
    """The one OpenVINO of this process, never given up.

    It gives the thread that makes it a stack for signal handlers, and unmaps that stack when it goes. A last reference
    that is dropped in another thread would leave the first one with a stack that is not there, where the next signal,
    such as Ctrl-C, would end the process.
    """
    return openvino.Core()
