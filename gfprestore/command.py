"""`run_command`: how every console script starts a click command and how it ends."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

import click

from gfprestore.errors import ExitCode, GfprestoreError

if TYPE_CHECKING:
    from types import FrameType

_CLOSED_PIPE_STATUS = 128 + 13
"""What a shell reports for a program ended by SIGPIPE; a number, since Windows has no such signal."""


_closed: set[str] = set()
"""Streams that were closed when the process began, by name."""


class Terminated(KeyboardInterrupt):
    """The process was asked to end by SIGTERM; what tidies up after Ctrl-C tidies up after this as well."""


def _raise_terminated(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise Terminated


def run_command(command: click.Command) -> NoReturn:
    """Runs a command with the process's arguments and exits with the status of `ExitCode` that its end calls for.

    Click's own standalone mode would exit 1 after Ctrl-C and let a `GfprestoreError` through as a traceback. An error
    is told in one line on stderr; its traceback goes to the logger `gfprestore` at debug level, which shows it with
    `-v`.

    Args:
        command: The command or group; its name opens the error's line.

    Raises:
        SystemExit: Always, with the exit status.
    """
    previous = signal.signal(signal.SIGTERM, _raise_terminated)
    _open_closed_streams()
    try:
        status = _status_of(command)
    finally:
        signal.signal(signal.SIGTERM, previous)
    if _stdout_error() is not None:
        _point_stdout_at_nothing()
    sys.exit(status)


def _open_closed_streams() -> None:
    """Gives the process what a shell took with `>&-`: Python then has None for a stream.

    The descriptor is taken too, or the next file that is opened would get it, and with it what C code prints.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            _closed.add(name)
            nothing = os.open(os.devnull, os.O_RDWR)
            if nothing != number:
                os.dup2(nothing, number)
                os.close(nothing)
            setattr(sys, name, open(number, mode, encoding="utf-8", errors="backslashreplace", closefd=False))  # noqa: SIM115


def stdout_was_closed() -> bool:
    """Whether what is written to standard output goes nowhere, since the process began without one."""
    return "stdout" in _closed


def tell(line: str) -> None:
    """Writes one line of talk to stderr; where that cannot be written, such as to a full disk, the work goes on."""
    try:
        click.echo(line, err=True)
    except BrokenPipeError:
        raise
    except OSError:
        return


def _status_of(command: click.Command) -> int:
    stdout = sys.stdout
    try:
        result = command.main(prog_name=command.name, standalone_mode=False)
        # Here rather than at the interpreter's exit, which would tell of a closed pipe in a traceback.
        sys.stdout.flush()
    except click.Abort as abort:
        return _interrupted(command, abort.__cause__)
    except KeyboardInterrupt as interrupt:
        return _interrupted(command, interrupt)
    except click.ClickException as error:
        error.show()
        return ExitCode.USAGE
    except GfprestoreError as error:
        tell(f"{command.name}: error: {error}")
        import logging  # here, as below, since a command's help should not wait for it

        logging.getLogger("gfprestore").debug("Traceback of the error:", exc_info=error)
        return error.exit_code
    except BrokenPipeError:
        return _reader_is_gone()
    except OSError as error:
        refusal = _stdout_error() or _echo_error(error)
        if refusal is None:
            raise
        tell(f"{command.name}: error: Standard output cannot be written ({refusal}); send it elsewhere.")
        return ExitCode.OUTPUT
    except SystemExit:
        # In every mode, click wraps stdout and exits with status 1 when the reader of its output has gone.
        if sys.stdout is not stdout:
            return _reader_is_gone()
        raise
    return result if isinstance(result, int) else ExitCode.OK


def _interrupted(command: click.Command, cause: BaseException | None) -> int:
    terminated = isinstance(cause, Terminated)
    tell(f"{command.name}: {'terminated' if terminated else 'interrupted'}")
    return ExitCode.TERMINATED if terminated else ExitCode.INTERRUPTED


def _stdout_error() -> str | None:
    """Why what is left to write to stdout cannot be written, if so."""
    try:
        sys.stdout.flush()
    except OSError as error:
        return error.strerror or type(error).__name__
    return None


def _echo_error(error: OSError) -> str | None:
    """Why `click.echo` failed, if it did: where stdout has no buffer, nothing is left to try again."""
    import traceback

    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return (error.strerror or type(error).__name__) if frame.f_globals.get("__name__") == "click.utils" else None


def _reader_is_gone() -> int:
    _point_stdout_at_nothing()
    return _CLOSED_PIPE_STATUS


def _point_stdout_at_nothing() -> None:
    """Lets the interpreter's last flush be quiet as well."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stdout.fileno())
    os.close(nothing)
