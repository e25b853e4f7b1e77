"""Training in two processes, and signals in a step; `test_loop.py` has torchrun and a process of its own."""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_training import TINY, write_faces

from gfprestore.command import Terminated
from gfprestore.training import loop
from gfprestore.training.checkpoints import find_checkpoints, read_checkpoint
from gfprestore.training.configfile import load_config
from gfprestore.training.processes import Process

ALONE = Process(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def faces(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("faces")
    write_faces(folder)
    return folder


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """A run sets the number of threads for the whole process; what comes after these tests gets all of them back."""
    count = torch.get_num_threads()
    yield
    torch.set_num_threads(count)


def numbers(folder: Path) -> list[dict]:
    rows = [json.loads(line) for line in (folder / "numbers.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in ("images_per_second", "kind")} for row in rows]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes are forked")
def test_two_processes_train_as_one_with_twice_their_batch(faces, tmp_path):
    changes = [*TINY, f"data.sources={json.dumps([str(faces)])}", "run.steps=3", "losses.r1_every=2"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    line = [sys.executable, str(Path(__file__).parents[1] / "two_processes.py"), str(port)]
    line += ["run", "release", "-o", str(tmp_path / "two"), *(part for change in changes for part in ("--set", change))]
    ended = subprocess.run(line, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    loop.train(load_config("release", changes), tmp_path / "one", ALONE)
    one, two = numbers(tmp_path / "one"), numbers(tmp_path / "two")
    assert len(one) == len(two) == 3
    for alone, shared in zip(one, two, strict=True):
        assert shared == pytest.approx(alone, rel=2e-3, abs=1e-4)


@pytest.fixture
def unheard() -> Iterator[None]:
    """A signal that nobody listens to fails the test, where it would end all tests."""

    def take(number: int, _frame: object) -> None:
        raise AssertionError(f"nobody listens to {signal.Signals(number).name}")

    previous = {number: signal.signal(number, take) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    heard = {number: signal.signal(number, handler) for number, handler in previous.items()}
    assert set(heard.values()) == {take}, "the run keeps signals to itself after its end"


@pytest.mark.usefixtures("unheard")
@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine with one processor
@pytest.mark.parametrize(
    ("number", "ends_with", "reaches_workers"),
    [
        (signal.SIGINT, KeyboardInterrupt, False),
        (signal.SIGTERM, Terminated, False),
        pytest.param(
            signal.SIGTERM,
            Terminated,
            True,
            marks=pytest.mark.skipif(os.name == "nt", reason="Windows ends a process instead of telling it"),
        ),
    ],
)
def test_a_signal_in_a_step_ends_the_run_after_it(faces, tmp_path, monkeypatch, number, ends_with, reaches_workers):
    sources = f"data.sources={json.dumps([str(faces)])}"
    config = load_config("release", [*TINY, sources, "run.batch=2", "run.steps=3", "losses.r1=0", "data.workers=1"])
    loop.train(config, tmp_path / "whole", ALONE)
    build = loop.build_recipe

    def build_interrupted(config, device):
        recipe = build(config, device)
        train_step = recipe.train_step

        def interrupted_step(step, batches):
            if step == 1:
                workers = multiprocessing.active_children()
                assert workers
                for worker in workers if reaches_workers else []:
                    os.kill(worker.pid, number)
                signal.raise_signal(number)
            return train_step(step, batches)

        recipe.train_step = interrupted_step
        return recipe

    with monkeypatch.context() as patch:
        patch.setattr(loop, "build_recipe", build_interrupted)
        with pytest.raises(KeyboardInterrupt) as ended:
            loop.train(replace(config, run=replace(config.run, steps=1000)), tmp_path / "parts", ALONE)
    assert ended.type is ends_with
    (checkpoint,) = find_checkpoints(tmp_path / "parts")
    assert read_checkpoint(checkpoint)["progress"]["step"] == len(numbers(tmp_path / "parts")) == 2
    loop.train(config, tmp_path / "parts", ALONE)
    assert numbers(tmp_path / "parts") == numbers(tmp_path / "whole")


_FAULTS = """
import resource
import torch
from gfprestore.training.processes import keep_freed_memory

def faults(rounds=8):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        torch.ones(1 << 24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

without = faults()
keep_freed_memory()
faults(16)  # until what was freed lies together
print(without, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator is another one")
def test_freed_memory_is_taken_again_and_not_asked_for_anew():
    out = subprocess.run([sys.executable, "-c", _FAULTS], check=True, capture_output=True, text=True).stdout
    without, with_it = map(int, out.split())
    assert with_it < without / 4
