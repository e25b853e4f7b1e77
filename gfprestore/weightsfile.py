"""`WeightsFile`: what is known about one weights file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "face", "detector", "background", "colour", "parsing", "landmarks", "recogniser", "prior", "peer", "metric"
]
"""What a file is for; `prior` starts a training, `peer` is another project's restorer, `metric` measures results."""


@dataclass(frozen=True)
class WeightsFile:
    """One weights file."""

    name: str
    """What users type, as in `--model 1.4`."""

    file: str
    """File name, as its authors publish it."""

    kind: Kind
    """What it is for."""

    bytes: int
    """Size of the file."""

    sha256: str
    """Digest of the file, 64 hexadecimal digits."""

    licence: str
    """Its terms, in a few words."""

    note: str
    """What it is, in a few words."""

    url: str | None = None
    """HTTPS address; None for a file that ships with gfprestore."""
