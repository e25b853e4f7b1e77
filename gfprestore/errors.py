"""The exit codes, the exceptions that carry them, and how a name stands in their messages."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit status of every gfprestore command; 1 is left to Python's own tracebacks."""

    OK = 0
    USAGE = 2
    SOME_FAILED = 3
    NO_PHOTOS = 4
    WEIGHTS = 5
    DEVICE = 6
    OUTPUT = 7
    INTERRUPTED = 130
    TERMINATED = 143


class GfprestoreError(Exception):
    """A failure of the run, told to the user in one sentence that names the option that helps."""

    exit_code = ExitCode.USAGE


class UsageError(GfprestoreError):
    """What was asked for contradicts itself or the files at hand."""


class NoPhotosError(GfprestoreError):
    """The inputs hold no photo."""

    exit_code = ExitCode.NO_PHOTOS


class WeightsError(GfprestoreError):
    """Weights are missing, damaged, or not what the name says."""

    exit_code = ExitCode.WEIGHTS


class DeviceError(GfprestoreError):
    """The device is missing or its memory does not hold even a batch of one."""

    exit_code = ExitCode.DEVICE


class OutputError(GfprestoreError):
    """The output folder cannot be written, or would overwrite its own input."""

    exit_code = ExitCode.OUTPUT


class PhotoError(Exception):
    """A failure of one photo: it becomes that photo's `Failed` outcome and the run goes on."""


class PageError(PhotoError):
    """A failure of one further page that its file holds to its last byte: the page is left out and the others go on."""


def printable(name: object) -> str:
    r"""Text of a name for a message: control characters and undecodable bytes are written as escapes, on one line.

    Example:
        >>> printable("two\nlines.jpg")
        'two\\nlines.jpg'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(name))
