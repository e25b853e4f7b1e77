"""How long a user waits: for `--help`, and for the first photo of the sample album.

    python tests/benchmarks/startup.py [--rounds 5]

Runs the command as a process of its own with the small model that ships, offline. The first round, which compiles the
networks into the cache and brings the files into memory, is not counted. Python keeps the compiled form of all modules
beside them or where PYTHONPYCACHEPREFIX says, as after any installation by pip.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-c", "from gfprestore.cli import run; run()"]


def first_photo(album: Path, target: Path, environment: dict[str, str]) -> float:
    """Seconds from the start of the command to the first finished file."""
    start = time.time()
    options = ["--offline", "--model", "compact", "--detector", "detector-compact", "--quiet"]
    subprocess.run([*COMMAND, str(album), "-o", str(target), *options], check=True, cwd=PROJECT, env=environment)
    return min(path.stat().st_mtime for path in target.rglob("*") if path.is_file()) - start


def processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    waits: dict[str, list[float]] = {"--help": [], "first photo": [], "whole album": [], "processor, whole album": []}
    with tempfile.TemporaryDirectory() as name:
        environment.setdefault("PYTHONPYCACHEPREFIX", f"{name}/modules")
        for index in range(arguments.rounds + 1):
            start = time.perf_counter()
            subprocess.run([*COMMAND, "--help"], check=True, cwd=PROJECT, env=environment, stdout=subprocess.DEVNULL)
            helped = time.perf_counter() - start
            start, used = time.perf_counter(), processor_seconds()
            first = first_photo(PROJECT / "examples" / "album", Path(name) / f"out{index}", environment)
            row = helped, first, time.perf_counter() - start, processor_seconds() - used
            for seconds, told in zip(row, waits.values(), strict=True):
                told.append(seconds)
    print(f"{'seconds':24} {'median':>7} {'least':>7}")
    for what, measured in waits.items():
        print(f"{what:24} {statistics.median(measured[1:]):7.2f} {min(measured[1:]):7.2f}")


if __name__ == "__main__":
    main()
