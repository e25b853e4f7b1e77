"""Reads mutated photo files for as long as one likes: each is a sound photo or a `PhotoError`, soon, in little memory.

    PYTHONPATH=tests python tests/benchmarks/fuzz.py --minutes 10

A failure is shrunk by hypothesis and shown with the file that causes it. A crash of a decoder would end the process:
the file read last stays beside the one that is named at the start.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections import Counter
from pathlib import Path

from broken_files import mutated, read_or_refuse
from hypothesis import HealthCheck, given, seed, settings

EXAMPLES_PER_SEED = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the first round")
    arguments = parser.parse_args()
    counts: Counter[str] = Counter()
    slowest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "photo.jpg"
        print(f"reading {path}")

        def check(data: bytes) -> None:
            nonlocal slowest
            path.write_bytes(data)
            began = time.monotonic()
            counts[read_or_refuse(path)] += 1
            slowest = max(slowest, time.monotonic() - began)

        end = time.monotonic() + arguments.minutes * 60
        rounds = 0
        while time.monotonic() < end:
            ready = settings(
                max_examples=EXAMPLES_PER_SEED, deadline=None, database=None, suppress_health_check=list(HealthCheck)
            )(given(data=mutated())(check))
            seed(arguments.seed + rounds)(ready)()
            rounds += 1
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{rounds} rounds, {counts['read']} files read, {counts['refused']} refused, none otherwise")
    print(f"slowest file {slowest:.2f} s, at most {memory:.0f} MiB in the whole process")


if __name__ == "__main__":
    main()
