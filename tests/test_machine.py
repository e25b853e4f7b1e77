"""Processors and memory that a container allows, read from control groups of both kinds."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from gfprestore import engine, machine, torch_engine

Setup = Callable[[str, Mapping[str, str]], None]


@pytest.fixture
def set_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setup:
    """Makes a machine of 64 processors and 256 GB on which the process is in the groups that are given."""
    monkeypatch.setattr(machine, "_allowed_cores", lambda: 64)
    sizes = {"SC_PHYS_PAGES": 1 << 26, "SC_AVPHYS_PAGES": 1 << 25, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(machine.os, "sysconf", sizes.__getitem__, raising=False)
    monkeypatch.setattr(machine, "GROUPS_OF_PROCESS", tmp_path / "cgroup")
    monkeypatch.setattr(machine, "GROUPS", tmp_path / "groups")

    def write(groups: str, files: Mapping[str, str]) -> None:
        (tmp_path / "cgroup").write_text(groups)
        for name, text in files.items():
            path = tmp_path / "groups" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")

    return write


V1 = "12:cpu,cpuacct:/docker/1\n4:memory:/docker/1\n1:name=systemd:/docker/1\n"


@pytest.mark.parametrize(
    ("groups", "files", "cores", "memory"),
    [
        ("", {}, 64, 1 << 38),
        ("0::/\n", {}, 64, 1 << 38),
        ("0::/\n", {"memory.max": "max", "cpu.max": "max 100000"}, 64, 1 << 38),
        ("0::/\n", {"memory.max": "2147483648", "cpu.max": "200000 100000"}, 2, 2 << 30),
        ("0::/\n", {"cpu.max": "150000 100000"}, 2, 1 << 38),
        ("0::/\n", {"cpu.max": "10000 100000"}, 1, 1 << 38),
        # The least limit of the groups around a group counts.
        ("0::/a/b\n", {"a/b/memory.max": "max", "a/memory.max": "4294967296"}, 64, 4 << 30),
        ("0::/a/b\n", {"a/b/cpu.max": "400000 100000", "a/cpu.max": "300000 100000"}, 3, 1 << 38),
        # The path is the machine's, and the container sees only its own group, at the top.
        ("0::/docker/1\n", {"memory.max": "1073741824"}, 64, 1 << 30),
        (V1, {"memory/docker/1/memory.limit_in_bytes": "3221225472"}, 64, 3 << 30),
        (V1, {"memory/memory.limit_in_bytes": "9223372036854771712"}, 64, 1 << 38),
        (V1, {"cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, 64, 1 << 38),
        (V1, {"cpu,cpuacct/cpu.cfs_quota_us": "800000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, 8, 1 << 38),
        ("0::/\n", {"memory.max": "", "cpu.max": "a b"}, 64, 1 << 38),
    ],
)
def test_limits_of_containers(set_up: Setup, groups: str, files: Mapping[str, str], cores: int, memory: int) -> None:
    set_up(groups, files)
    assert machine.usable_cores() == cores
    assert machine.cores_are_shared_out() == (cores < 64)
    assert machine.usable_memory() == memory
    assert machine.free_memory() == min(1 << 37, memory)


def test_this_machine_tells() -> None:
    assert 1 <= machine.usable_cores() <= (os.cpu_count() or 1)
    assert machine.usable_memory() > 1 << 28
    assert machine.free_memory() > 0


def test_a_machine_that_does_not_tell_its_memory_has_a_usual_one(
    set_up: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(_name: str) -> int:
        raise ValueError

    set_up("", {})
    monkeypatch.setattr(machine.os, "sysconf", unknown, raising=False)
    assert machine.usable_memory() == machine.USUAL_MEMORY
    assert machine.free_memory() == float("inf")


def test_hardware_threads_of_one_core_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "PROCESSORS", tmp_path)
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: {0, 1, 4, 5, 6}, raising=False)
    assert machine.physical_cores() == 5  # where nothing is told
    for number in range(8):
        folder = tmp_path / f"cpu{number}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{number % 4},{number % 4 + 4}\n")
    assert machine.physical_cores() == 3  # 0 with 4, 1 with 5, and 6


def test_records_of_cores_are_counted_whatever_their_lengths() -> None:
    def record(length: int) -> bytes:
        return b"\0\0\0\0" + length.to_bytes(4, "little") + bytes(length - 8)

    assert machine.count_records(b"".join(map(record, (48, 80, 48)))) == 3
    assert machine.count_records(b"") == machine.count_records(b"\0\0\0") == machine.count_records(bytes(16)) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="other systems are asked otherwise")
def test_a_gpu_is_possible_where_there_is_a_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(_name: str) -> None:
        raise OSError

    asked: list[str] = []
    monkeypatch.setattr(machine.ctypes, "CDLL", without)
    monkeypatch.setattr(machine, "GPU_DEVICES", (tmp_path / "kfd",))
    assert not machine.may_have_gpu()
    (tmp_path / "kfd").touch()
    assert machine.may_have_gpu()
    (tmp_path / "kfd").unlink()
    monkeypatch.setattr(machine.ctypes, "CDLL", asked.append)
    assert machine.may_have_gpu() and asked == ["libcuda.so.1"]


def test_libraries_start_no_more_threads_than_a_container_has_time_for(
    set_up: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int]] = []
    monkeypatch.setattr(torch_engine.torch, "set_num_threads", lambda count: asked.append(("torch", count)))
    monkeypatch.setattr(engine.cv2, "setNumThreads", lambda count: asked.append(("cv2", count)))
    set_up("0::/\n", {})
    engine.fit_threads()
    torch_engine.fit_torch_threads()
    assert asked == []
    set_up("0::/\n", {"cpu.max": "300000 100000"})
    engine.fit_threads()
    torch_engine.fit_torch_threads()
    assert asked == [("cv2", 3), ("torch", 3)]
