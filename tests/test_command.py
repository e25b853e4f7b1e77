"""How the console scripts end: exit status, stdout and stderr of real processes."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import logging, os, signal, sys, time
import click
from gfprestore.command import run_command
from gfprestore.errors import ExitCode, WeightsError

@click.command("gfprestore-test")
@click.option("-v", "verbose", is_flag=True)
@click.argument("what")
def main(verbose, what):
    if verbose:
        logging.basicConfig(level=logging.DEBUG)
    if what == "weights":
        raise WeightsError("no weights; try `--offline`.")
    if what == "status":
        return ExitCode.SOME_FAILED
    if what == "exit":
        click.get_current_context().exit(4)
    if what == "bug":
        raise ValueError("a bug")
    if what == "file":
        raise click.FileError("x.png", "gone")
    if what == "wait":
        # A process that is started in a shell's background ignores Ctrl-C, and its children inherit that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            print("ready", flush=True)
            time.sleep(60)
        except KeyboardInterrupt:
            print("tidied", flush=True)
            raise
    if what == "print":
        print("ready", flush=True)
        sys.stdin.readline()
        for number in range(100000):
            print(number)
    if what == "print all":
        print("all")
    if what == "echo":
        click.echo("all")
    if what == "device":
        raise OSError(5, "of something else")
    if what == "print little":
        print("ready", flush=True)
        sys.stdin.readline()
        print("stays in the buffer")

run_command(main)
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, check=False)


def start(*arguments: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize(("what", "status"), [("nothing", 0), ("status", 3), ("exit", 4)])
def test_status_of_a_command_that_ends_by_itself(what: str, status: int) -> None:
    ended = run(what)
    assert (ended.returncode, ended.stdout, ended.stderr) == (status, "", "")


def test_known_error_is_one_line_with_its_exit_code() -> None:
    ended = run("weights")
    assert ended.returncode == 5
    assert ended.stdout == ""
    assert ended.stderr == "gfprestore-test: error: no weights; try `--offline`.\n"


def test_verbose_adds_the_traceback() -> None:
    ended = run("-v", "weights")
    assert ended.returncode == 5
    assert ended.stderr.startswith("gfprestore-test: error: no weights")
    assert "Traceback (most recent call last)" in ended.stderr
    assert "WeightsError" in ended.stderr


def test_wrong_option_is_usage() -> None:
    ended = run("--no-such-option")
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert "No such option" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_clicks_own_errors_are_never_status_one() -> None:
    ended = run("file")
    assert ended.returncode == 2
    assert "gone" in ended.stderr


def test_unknown_error_keeps_its_traceback() -> None:
    ended = run("bug")
    assert ended.returncode == 1
    assert "ValueError: a bug" in ended.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="no signals of this kind")
@pytest.mark.parametrize(
    ("number", "status", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_signal_tidies_up_and_gives_its_status(number: signal.Signals, status: int, word: str) -> None:
    process = start("wait")
    process.send_signal(number)
    stdout, stderr = process.communicate()
    assert process.returncode == status
    assert stdout == "tidied\n"
    assert stderr.strip() == f"gfprestore-test: {word}"


@pytest.mark.skipif(sys.platform == "win32", reason="no signals of this kind")
@pytest.mark.parametrize("what", ["print", "print little"])
def test_reader_that_leaves_ends_the_command_quietly(what: str) -> None:
    process = start(what)
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stderr is not None
    process.stdout.close()
    process.stdin.write("\n")
    process.stdin.close()
    stderr = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 141
    assert stderr == ""


@pytest.mark.skipif(sys.platform == "win32", reason="no shell of this kind")
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
@pytest.mark.parametrize(("what", "status"), [("status", 3), ("weights", 5), ("print all", 0)])
def test_closed_streams_change_nothing_else(what: str, status: int, closed: str) -> None:
    ended = in_shell(what, closed)
    assert (ended.returncode, "Traceback" in ended.stderr) == (status, False)
    if "2>" not in closed:
        assert ended.stderr == ("" if what != "weights" else "gfprestore-test: error: no weights; try `--offline`.\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device")
@pytest.mark.parametrize(("what", "unbuffered"), [("print all", ""), ("echo", ""), ("echo", "1")])
def test_full_stdout_is_told_in_one_sentence(what: str, unbuffered: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    ended = in_shell(what, "> /dev/full")
    assert ended.returncode == 7
    assert ended.stderr.startswith("gfprestore-test: error: Standard output cannot be written (No space left")
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device")
def test_full_stderr_and_other_faults_keep_their_status() -> None:
    assert in_shell("weights", "2> /dev/full").returncode == 5
    ended = in_shell("device", "")
    assert ended.returncode == 1
    assert "OSError: [Errno 5] of something else" in ended.stderr


def in_shell(what: str, redirection: str) -> subprocess.CompletedProcess[str]:
    line = f"exec {shlex.quote(sys.executable)} -c {shlex.quote(SCRIPT)} {shlex.quote(what)} {redirection}"
    return subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)


def test_imports_nothing_but_click_and_the_standard_library() -> None:
    program = (
        "import sys; import gfprestore.command\n"
        "print(*{name.partition('.')[0] for name, module in sys.modules.items() if module is not None})"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    # Some systems have every Python start with a module of their own.
    foreign = set(ended.stdout.split()) - set(sys.stdlib_module_names) - {"sitecustomize", "usercustomize"}
    assert {name for name in foreign if not name.startswith("_")} <= {
        "click",
        "gfprestore",
        "colorama",
        "typing_extensions",
    }
