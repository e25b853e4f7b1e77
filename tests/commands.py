"""Calls the main command in this process, as its console script does."""

from __future__ import annotations

import sys

import pytest
from click.testing import CliRunner, Result

from gfprestore.cli import main
from gfprestore.command import run_command


def call(*arguments: object) -> tuple[int, Result]:
    """Exit status, and what went to stdout and stderr."""
    runner = CliRunner()
    with pytest.MonkeyPatch.context() as patch, runner.isolation() as streams:
        patch.setattr(sys, "argv", ["gfprestore", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            run_command(main)
        sys.stdout.flush()
        sys.stderr.flush()
        out, err = streams[0].getvalue(), streams[1].getvalue()
    result = Result(runner, out, err, out + err, None, stop.value.code or 0, None)
    return int(stop.value.code or 0), result
