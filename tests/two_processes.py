"""`python two_processes.py PORT ARGUMENT...` runs gfprestore-train in two processes, as torchrun would.

They are forked from one that has imported everything, which takes most of the time of a short run.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing.connection import wait

from gfprestore.training import loop, restoration  # noqa: F401
from gfprestore.training.cli import main


def train(rank: int, port: str, arguments: list[str]) -> None:
    """Runs the command as one of two processes."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    os.environ.update(place, RANK=str(rank), LOCAL_RANK=str(rank))
    main(arguments, standalone_mode=False)


def train_both(port: str, arguments: list[str]) -> int:
    """Returns the exit status: 0 where both processes ended well."""
    context = multiprocessing.get_context("fork")
    ranks = [context.Process(target=train, args=(rank, port, arguments), daemon=True) for rank in range(2)]
    for process in ranks:
        process.start()
    # One that fails leaves the other waiting for it: the daemons end with this process.
    while all(not process.exitcode for process in ranks) and (living := [p.sentinel for p in ranks if p.is_alive()]):
        wait(living)
    return int(any(process.exitcode != 0 for process in ranks))


if __name__ == "__main__":
    sys.exit(train_both(sys.argv[1], sys.argv[2:]))
