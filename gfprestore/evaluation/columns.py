"""The columns of the tables: what each metric is called, needs and means. Standard library only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from gfprestore.errors import UsageError

Need = Literal["truth", "reference", "background", "nothing"]


@dataclass(frozen=True)
class Column:
    """One metric under one protocol."""

    name: str
    """What `--metrics` and the tables call it."""

    higher_is_better: bool
    """Whether greater values are better."""

    need: Need
    """What it measures against."""

    decimals: int
    """Digits after the point in tables."""

    protocol: str
    """How it is measured, in one line."""

    @property
    def title(self) -> str:
        """The name with an arrow towards better."""
        return f"{self.name} {'↑' if self.higher_is_better else '↓'}"


COLUMNS = (
    Column("lpips-vgg", False, "truth", 4, "LPIPS v0.1, VGG-16, RGB in [-1, 1], own size"),
    Column("lpips-alex", False, "truth", 4, "LPIPS v0.1, AlexNet, RGB in [-1, 1], own size"),
    Column("fid", False, "reference", 3, "FID, Inception-2015, against the folder or statistics of --reference"),
    Column("niqe", False, "nothing", 3, "NIQE, MATLAB luma, no border cut, published pristine model"),
    Column("deg", False, "truth", 2, "angle of identity embeddings in degrees, aligned crops, all pairs"),
    Column("deg-over-1", False, "truth", 2, "the same without pairs under 1 degree, as published"),
    Column("lmd", False, "truth", 2, "mean distance of the detector's five landmarks, pixels"),
    Column("psnr", True, "truth", 3, "PSNR in dB, RGB, no border cut"),
    Column("ssim", True, "truth", 4, "SSIM, Gaussian 11x11, RGB apart, valid positions"),
    Column("psnr-matched", True, "truth", 3, "PSNR after matching each channel's mean and deviation, as published"),
    Column("ssim-matched", True, "truth", 4, "SSIM after matching each channel's mean and deviation, as published"),
    Column("seam", False, "background", 1, "largest luma step across the border of pasted faces, of 255"),
    Column("seam-ratio", False, "background", 2, "steepest luma steps near that border, relative to the background's"),
)
"""All metrics, in the order of the tables."""

UNMEASURED: Mapping[str, str] = {
    "lpips-vgg": "under 16x16 pixels",
    "lpips-alex": "under 31x31 pixels",
    "niqe": "without two blocks of 96x96 that are not flat",
    "deg": "not square",
    "deg-over-1": "not square, or under 1 degree",
    "lmd": "without a face",
    "ssim": "under 11x11 pixels",
    "ssim-matched": "under 11x11 pixels",
    "seam": "without background",
    "seam-ratio": "without background",
}
"""Column -> which images it leaves out, for a note; the others measure every image."""

_DEFAULTS = frozenset(
    {"lpips-vgg", "fid", "niqe", "deg", "psnr", "ssim", "psnr-matched", "ssim-matched", "seam", "seam-ratio"}
)


def choose_columns(
    asked: str | None, given: Iterable[Need], *, also: frozenset[str] = frozenset()
) -> tuple[Column, ...]:
    """Chooses what to measure.

    Args:
        asked: Names parted by commas; `all` for everything that can be measured; None for the usual ones of these.
        given: What there is to measure against.
        also: Names that join the usual ones.

    Raises:
        UsageError: A name is unknown, or needs what is not given.
    """
    has = {"nothing", *given}
    if asked is None or asked == "all":
        return tuple(c for c in COLUMNS if c.need in has and (asked == "all" or c.name in _DEFAULTS | also))
    names = [name.strip() for name in asked.split(",") if name.strip()]
    known = {column.name: column for column in COLUMNS}
    for name in names:
        if name not in known:
            raise UsageError(f"--metrics knows no {name!r}; it knows {', '.join(known)}, and all.")
    for name in names:
        if known[name].need not in has:
            raise UsageError(f"{name} needs --{known[name].need}: give it, or leave {name} out of --metrics.")
    if not names:
        raise UsageError("--metrics names nothing.")
    return tuple(column for column in COLUMNS if column.name in names)
