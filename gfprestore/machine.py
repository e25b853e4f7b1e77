"""What this process may use of the machine: processors and memory, of which a container may allow less than there is.

Linux tells a container's limits in control groups: https://docs.kernel.org/admin-guide/cgroup-v2.html, and, on older
systems, https://docs.kernel.org/admin-guide/cgroup-v1/.
"""

from __future__ import annotations

import ctypes
import math
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

USUAL_MEMORY = 8 << 30
"""Bytes of memory where a machine does not tell."""

PROCESSORS = Path("/sys/devices/system/cpu")
"""Linux's folder of what processors are."""

GPU_DEVICES = (Path("/dev/nvidiactl"), Path("/dev/kfd"), Path("/dev/dxg"))
"""What Linux shows where it has a driver of NVIDIA's GPUs, of AMD's, and within Windows of any."""

GROUPS_OF_PROCESS = Path("/proc/self/cgroup")
"""File with the groups that this process is in."""

GROUPS = Path("/sys/fs/cgroup")
"""Folder of all groups."""


def usable_cores() -> int:
    """Processors that this process may use, which containers and `taskset` make fewer than the machine has."""
    return max(1, math.ceil(min(_allowed_cores(), _cores_of_group())))


def physical_cores() -> int:
    """Cores that this process may use, each counted once however many hardware threads it has, where that is told."""
    if sys.platform == "win32":
        records = _core_records_of_windows()
        return count_records(records) or _allowed_cores()
    if not hasattr(os, "sched_getaffinity"):
        return _allowed_cores()
    places = (PROCESSORS / f"cpu{number}" / "topology" / "thread_siblings_list" for number in os.sched_getaffinity(0))
    siblings = [_text(place) for place in places]
    return len(set(siblings)) if all(siblings) else _allowed_cores()


def may_have_gpu() -> bool:
    """Whether asking torch for a GPU can help: False only where there is no driver that its builds use."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    if sys.platform == "win32":
        system = Path(os.environ.get("SYSTEMROOT", r"C:\Windows"), "System32")
        return (system / "nvcuda.dll").exists() or any(system.glob("amdhip64*.dll"))
    if any(device.exists() for device in GPU_DEVICES):
        return True
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def cores_are_shared_out() -> bool:
    """Whether a container allows less time than its processors have: libraries then start too many threads."""
    return usable_cores() < _allowed_cores()


def usable_memory() -> int:
    """Bytes of memory that this process may use at most: unlike what is free just now, the same in every run."""
    try:
        physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not a Unix with these names
        physical = USUAL_MEMORY
    return int(min(physical, _memory_of_group()))


def free_memory() -> float:
    """Bytes that are free just now, in the machine and at most in the container; infinite where nothing tells."""
    try:
        free = float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        free = math.inf
    return min(free, _memory_of_group())


def _allowed_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


if sys.platform == "win32":

    def _core_records_of_windows() -> bytes:
        """What GetLogicalProcessorInformationEx lists, a record for every core; nothing where it does not answer."""
        ask = ctypes.windll.kernel32.GetLogicalProcessorInformationEx
        size = ctypes.c_ulong(0)
        ask(0, None, ctypes.byref(size))
        records = ctypes.create_string_buffer(size.value)
        return records.raw if ask(0, records, ctypes.byref(size)) else b""


def count_records(records: bytes) -> int:
    """Records that lie one after another, each with its length in bytes 4 to 7."""
    count, start = 0, 0
    while start + 8 <= len(records) and (length := int.from_bytes(records[start + 4 : start + 8], "little")):
        count, start = count + 1, start + length
    return count


def _memory_of_group() -> float:
    """Bytes, infinite without a limit."""
    limits = [_number(folder / "memory.max") for folder in _groups("")]
    limits += [_number(folder / "memory.limit_in_bytes") for folder in _groups("memory")]
    return min((limit for limit in limits if limit > 0), default=math.inf)


def _cores_of_group() -> float:
    """Processors' worth of time, infinite without a limit."""
    shares = [_share(*_text(folder / "cpu.max").partition(" ")[::2]) for folder in _groups("")]
    shares += [
        _share(_text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")) for folder in _groups("cpu")
    ]
    return min((share for share in shares if share > 0), default=math.inf)


def _groups(controller: str) -> Iterator[Path]:
    """Folders of the group of this process and of those around it; the controller "" is version 2 of all."""
    for line in _text(GROUPS_OF_PROCESS).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controller not in controllers.split(","):
            continue
        top = GROUPS / controllers if controller else GROUPS
        group = top / path.lstrip("/")
        # Within a container the path may be the machine's, and only the top is there.
        yield from (folder for folder in (group, *group.parents) if folder == top or top in folder.parents)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _number(path: Path) -> float:
    """What a file says, infinite for "max" and for none."""
    text = _text(path)
    return float(text) if text.isdecimal() else math.inf


def _share(quota: str, period: str) -> float:
    """Time of a period over the period, infinite for "max", -1 and none."""
    is_limit = quota.isdecimal() and period.isdecimal() and int(period) > 0
    return int(quota) / int(period) if is_limit else math.inf
