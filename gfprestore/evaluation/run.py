"""One run of `score` or `compare`: pair, read, measure, and say what was left out."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gfprestore import __version__
from gfprestore.engine import resolve_device
from gfprestore.errors import UsageError, printable
from gfprestore.evaluation.columns import UNMEASURED, Column
from gfprestore.evaluation.fid import FeatureStatistics, FidMetric, load_statistics, require_enough, save_statistics
from gfprestore.evaluation.images import FailedImage
from gfprestore.evaluation.loading import MetricWeights, build_fid, build_metrics
from gfprestore.evaluation.pairs import ImageGroup, Pairing, list_images, pair_images
from gfprestore.evaluation.progressbar import show_progress
from gfprestore.evaluation.reading import read_batches
from gfprestore.evaluation.scoring import Scores, score_batches
from gfprestore.torch_engine import use_full_fp32

FEW_IMAGES = 2048
"""Under this many images on either side, FID's covariance is singular and its bias large."""

_NAMES_SHOWN = 5
"""Images that a note names before it only counts them."""


@dataclass(frozen=True, eq=False)
class Request:
    """What to measure, and how."""

    methods: tuple[tuple[str, Path], ...]
    """Name and folder of each method, the input first where there is one."""

    columns: tuple[Column, ...]
    """From `choose_columns`."""

    weights: MetricWeights
    """Where weights come from."""

    truth: Path | None = None
    """Folder of the truth."""

    background: Path | None = None
    """Folder of the photos without their faces pasted."""

    reference: Path | None = None
    """Folder or statistics that FID measures against."""

    save_statistics: Path | None = None
    """File for the first method's FID statistics."""

    device: str = "auto"
    """As `--device` takes it."""

    batch_size: int = 8
    """Images measured at once."""

    shows_progress: bool = False
    """Whether to draw bars on stderr."""


@dataclass(frozen=True, eq=False)
class Measured:
    """What a run found."""

    scores: Scores
    """The values."""

    pairing: Pairing
    """Which images there were."""

    facts: Mapping[str, Any]
    """For machine-readable reports: versions, device, weights, counts."""

    notes: tuple[str, ...]
    """What a reader of the table should know."""

    left_out: tuple[str, ...]
    """A sentence for each image that was not measured."""


def measure(request: Request) -> Measured:
    """Measures what was asked for; each image of the methods and the truth is read once.

    Raises:
        UsageError: There is nothing to pair, or too few images for FID.
        WeightsError: Weights are not to be had.
        DeviceError: The device is missing or too small.
    """
    device = resolve_device(request.device)
    use_full_fp32()
    folders = [*_folders(request)]
    pairing = pair_images(folders)
    names = {column.name for column in request.columns}
    needs_fid = "fid" in names or request.save_statistics is not None
    if needs_fid:
        require_enough(len(pairing.groups))
    metrics = build_metrics(names, request.weights, device)
    methods = tuple(name for name, _ in request.methods)
    fid = build_fid(request.weights, device, len(methods)) if needs_fid else None
    reference, left_out = _reference(request, fid, device) if "fid" in names else (None, ())
    with show_progress("Measuring", len(pairing.groups), request.shows_progress) as advance:
        batches = read_batches(
            pairing.groups,
            batch_size=request.batch_size,
            device=device,
            has_truth=request.truth is not None,
            has_background=request.background is not None,
        )
        scores = score_batches(batches, methods, metrics, fid, reference, advance)
    if fid is not None and request.save_statistics is not None:
        save_statistics(request.save_statistics, fid.accumulators[0].statistics())
    failed = [*left_out, *map(_sentence, scores.failures)]
    return Measured(
        scores,
        pairing,
        _facts(request, device, scores, pairing),
        tuple(_notes(request, scores, reference)),
        (*pairing.unpaired, *failed),
    )


def _sentence(failure: FailedImage) -> str:
    return f"{printable(failure.name)}: {failure.reason}"


def _folders(request: Request) -> Iterator[tuple[str, Path]]:
    """Folders in the order of `ImageBatch.images`."""
    if request.truth is not None:
        yield "truth", request.truth
    yield from request.methods
    if request.background is not None:
        yield "background", request.background


def _reference(request: Request, fid: FidMetric | None, device: str) -> tuple[FeatureStatistics, tuple[str, ...]]:
    """Loads or gathers the statistics that FID measures against, with a sentence for what could not be read."""
    if request.reference is None or fid is None:
        raise UsageError("fid needs --reference: a folder of images, or saved statistics.")
    if not request.reference.is_dir():
        return load_statistics(request.reference), ()
    images, faults = list_images(request.reference)
    require_enough(len(images))
    groups = [ImageGroup(name, (path,)) for name, path in images.items()]
    gatherer = fid.for_methods(1)
    with show_progress("Reading the reference", len(groups), request.shows_progress) as advance:
        batches = read_batches(
            groups, batch_size=request.batch_size, device=device, has_truth=False, has_background=False
        )
        gathered = score_batches(batches, ("reference",), (), gatherer, None, advance)
    return gatherer.accumulators[0].statistics(), (*faults, *map(_sentence, gathered.failures))


def _facts(request: Request, device: str, scores: Scores, pairing: Pairing) -> dict[str, Any]:
    return {
        "gfprestore": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": device,
        "measured": len(scores.names),
        "unpaired": list(pairing.unpaired),
        "methods": {name: printable(folder) for name, folder in request.methods},
        "truth": None if request.truth is None else printable(request.truth),
        "reference": None if request.reference is None else printable(request.reference),
        "weights": request.weights.facts,
    }


def _notes(request: Request, scores: Scores, reference: FeatureStatistics | None) -> Iterator[str]:
    count = len(scores.names)
    yield f"{count} image{'' if count == 1 else 's'} measured."
    if reference is not None and request.reference is not None:
        note = f"fid is measured against {printable(request.reference.name)}"
        if reference.count:
            note += f", {reference.count} images"
        few = min(count, reference.count or count) < FEW_IMAGES
        yield note + (f"; fewer than {FEW_IMAGES} images bias it upwards." if few else ".")
    if "recogniser" in request.weights.facts:
        yield f"deg is measured with {request.weights.facts['recogniser']['file']}."
    for column in request.columns:
        for place, method in enumerate(scores.methods if column.name in scores.values else ()):
            is_absent = np.isnan(scores.values[column.name][:, place])
            absent = [name for name, is_out in zip(scores.names, is_absent, strict=True) if is_out]
            if absent:
                why = f" ({UNMEASURED[column.name]})" if column.name in UNMEASURED else ""
                yield f"{column.name} of {method} leaves out {len(absent)} of {count}{why}: {_named(absent)}."


def _named(names: Sequence[str]) -> str:
    """Names a few images, and tells how many more there are."""
    shown = ", ".join(printable(name) for name in names[:_NAMES_SHOWN])
    more = len(names) - _NAMES_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
