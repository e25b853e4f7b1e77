"""The compiled kernels, of every kind that this processor runs."""

from __future__ import annotations

import pytest
from kernel_programs import PRESENT

from gfprestore.native.library import FOLDER, SUFFIX, Library


@pytest.fixture(scope="module", params=PRESENT)
def kernels(request: pytest.FixtureRequest) -> Library:
    return Library(FOLDER / f"{request.param}{SUFFIX}")
