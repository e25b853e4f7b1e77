"""Fixtures shared by all tests."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent


def _real_folder(name: str) -> Path | None:
    folder = PROJECT.parent / "shared" / name
    return folder if folder.is_dir() else None


@pytest.fixture(scope="session")
def real_weights() -> Path:
    """Folder of official weights; skips where there is none."""
    named = os.environ.get("GFPRESTORE_WEIGHTS")
    folder = Path(named) if named else _real_folder("weights")
    if folder is None or not folder.is_dir():
        pytest.skip("no folder of real weights ($GFPRESTORE_WEIGHTS)")
    return folder


@pytest.fixture(scope="session")
def real_photos() -> Path:
    """Folder of real photos; skips where there is none."""
    folder = _real_folder("photos")
    if folder is None:
        pytest.skip("no folder of real photos")
    return folder


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps the user's cache out of the tests, and the tests out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def usual_logging() -> Iterator[None]:
    """Takes back what a command sets for the whole process."""
    logger = logging.getLogger("gfprestore")
    handlers, level = logger.handlers[:], logger.level
    yield
    logger.handlers[:] = handlers
    logger.setLevel(level)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Runs torch with one thread: on small networks several would only wait for each other."""
    import torch

    count = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(count)
