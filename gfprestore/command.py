"""`run_command`: how every console script starts a click command and how it ends."""

from __future__ import annotations

import logging
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
    try:
        status = _status_of(command)
    finally:
        signal.signal(signal.SIGTERM, previous)
    sys.exit(status)


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
        click.echo(f"{command.name}: error: {error}", err=True)
        logging.getLogger("gfprestore").debug("Traceback of the error:", exc_info=error)
        return error.exit_code
    except BrokenPipeError:
        return _reader_is_gone()
    except SystemExit:
        # In every mode, click wraps stdout and exits with status 1 when the reader of its output has gone.
        if sys.stdout is not stdout:
            return _reader_is_gone()
        raise
    return result if isinstance(result, int) else ExitCode.OK


def _interrupted(command: click.Command, cause: BaseException | None) -> int:
    terminated = isinstance(cause, Terminated)
    click.echo(f"{command.name}: {'terminated' if terminated else 'interrupted'}", err=True)
    return ExitCode.TERMINATED if terminated else ExitCode.INTERRUPTED


def _reader_is_gone() -> int:
    """Points stdout at nothing, so that the interpreter's last flush is quiet as well."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stdout.fileno())
    return _CLOSED_PIPE_STATUS
