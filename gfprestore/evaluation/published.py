"""Figures that the GFP-GAN paper publishes (arXiv:2101.04061, section 4), for setting beside one's own.

They were measured on other photos, with other degradations drawn and, for Deg, with another recogniser: they show an
order of magnitude, not a contest. Each figure says whether it was read in the paper's text or written down from memory.
"""

from __future__ import annotations

from dataclasses import dataclass

IN_PAPER = "GFP-GAN paper, table for CelebA-Test"
FROM_MEMORY = "as remembered, unverified"
"""Where a figure comes from."""

_COLUMNS = ("lpips-vgg", "fid", "niqe", "deg-over-1", "psnr-matched", "ssim-matched")
"""Columns of the paper's tables, by the protocols that its scripts follow."""


@dataclass(frozen=True)
class PublishedFigure:
    """One published figure."""

    value: float
    """As printed."""

    source: str
    """`IN_PAPER` or `FROM_MEMORY`."""


@dataclass(frozen=True)
class PublishedRow:
    """One method of a published table."""

    method: str
    """Its name there; * is one retrained by the paper's authors."""

    figures: dict[str, PublishedFigure]
    """Column -> figure."""


@dataclass(frozen=True)
class PublishedTable:
    """A table of the paper."""

    title: str
    """Test set and task."""

    rows: tuple[PublishedRow, ...]
    """In the order of the paper."""


def _row(method: str, *values: float, remembered: bool) -> PublishedRow:
    """Makes a row of the six columns; NIQE is from memory in any case."""
    figures = {
        column: PublishedFigure(value, FROM_MEMORY if remembered or column == "niqe" else IN_PAPER)
        for column, value in zip(_COLUMNS, values, strict=False)
    }
    return PublishedRow(method, figures)


def _real_row(method: str, fid: float, niqe: float) -> PublishedRow:
    return PublishedRow(method, {"fid": PublishedFigure(fid, FROM_MEMORY), "niqe": PublishedFigure(niqe, FROM_MEMORY)})


PUBLISHED = {
    "blind": PublishedTable(
        "CelebA-Test, 3,000 images, blind restoration; FID against FFHQ",
        (
            _row("input", 0.4866, 143.98, 13.440, 47.94, 25.35, 0.6848, remembered=False),
            _row("DeblurGANv2*", 0.4001, 52.69, 4.917, 39.64, 25.91, 0.6952, remembered=True),
            _row("Wan et al.", 0.4826, 67.58, 5.356, 43.00, 24.71, 0.6320, remembered=True),
            _row("HiFaceGAN", 0.4770, 66.09, 4.916, 42.18, 24.92, 0.6195, remembered=False),
            _row("DFDNet", 0.4341, 59.08, 4.341, 40.31, 23.68, 0.6622, remembered=False),
            _row("PSFRGAN", 0.4240, 47.59, 5.123, 39.69, 24.71, 0.6557, remembered=False),
            _row("mGANprior", 0.4584, 82.27, 6.422, 55.45, 24.30, 0.6758, remembered=True),
            _row("PULSE", 0.4851, 67.56, 5.305, 69.55, 21.61, 0.6200, remembered=True),
            _row("GFP-GAN", 0.3646, 42.62, 4.077, 34.60, 25.08, 0.6777, remembered=False),
        ),
    ),
    "x4": PublishedTable(
        "CelebA-Test, 4x super-resolution; FID against FFHQ",
        (
            _row("bicubic", 0.4834, 148.87, 10.767, 49.60, 25.38, 0.6985, remembered=True),
            _row("RCAN*", 0.4159, 93.66, 9.907, 38.45, 27.24, 0.7533, remembered=True),
            _row("ESRGAN*", 0.4127, 49.20, 4.099, 51.21, 23.74, 0.6319, remembered=True),
            _row("Super-FAN", 0.4791, 139.49, 10.828, 49.14, 25.28, 0.7033, remembered=True),
            _row("GFP-GAN", 0.3653, 42.36, 4.078, 34.67, 25.04, 0.6744, remembered=True),
        ),
    ),
    "real": PublishedTable(
        "GFP-GAN on real photos without truth; FID against FFHQ",
        (
            _real_row("LFW-Test (1,711)", 49.96, 3.882),
            _real_row("CelebChild-Test (180)", 111.78, 4.349),
            _real_row("WebPhoto-Test (407)", 87.35, 4.144),
        ),
    ),
    "ablation": PublishedTable(
        "CelebA-Test, blind restoration, variants of GFP-GAN; FID against FFHQ",
        (
            _row("GFP-GAN", 0.3646, 42.62, 4.077, 34.60, remembered=True),
            _row("no spatial modulation", 0.550, 60.44, 4.183, 74.76, remembered=True),
            _row("plain SFT", 0.387, 47.65, 4.146, 34.38, remembered=True),
            _row("no prior", 0.379, 48.47, 4.153, 35.04, remembered=True),
            _row("no pyramid loss", 0.369, 45.17, 4.284, 35.50, remembered=True),
        ),
    ),
}
"""The paper's tables by the name that `--published-table` gives them."""
