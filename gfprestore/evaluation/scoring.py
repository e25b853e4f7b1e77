"""Runs metrics over batches and keeps their values by image."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gfprestore.evaluation.batch import ImageBatch, Metric
from gfprestore.evaluation.fid import FeatureStatistics, FidMetric
from gfprestore.evaluation.images import FailedImage

Array = NDArray[np.float64]

RESAMPLES = 2000
"""Draws of the bootstrap; its limits then move by about a fortieth of the interval from seed to seed."""

COVERAGE = 0.95
"""Share of intervals that hold the true mean."""

_SEED = 20101
_CHUNK = 64
"""Resamples drawn at once: bounds the memory to this many numbers an image."""


@dataclass(frozen=True, eq=False)
class Scores:
    """Everything measured."""

    methods: tuple[str, ...]
    """Names of the M methods."""

    names: tuple[str, ...]
    """Names of the n images that were measured, in order."""

    values: Mapping[str, Array]
    """Column -> [n, M]; NaN where an image could not be measured."""

    set_values: Mapping[str, tuple[float, ...]]
    """Column -> M values that belong to a whole set of images, such as FID."""

    failures: tuple[FailedImage, ...]
    """Images that were left out."""


def score_batches(
    batches: Iterable[ImageBatch | FailedImage],
    methods: Sequence[str],
    metrics: Sequence[Metric],
    fid: FidMetric | None,
    reference: FeatureStatistics | None,
    advance: Callable[[int], None],
) -> Scores:
    """Measures all images; keeps values, not images.

    Args:
        batches: From `read_batches`.
        methods: Names of the M methods in the batches.
        metrics: What to measure on each image.
        fid: Where to gather features.
        reference: What FID measures against; None gathers features only.
        advance: Told of every 1 or more images that are done.

    Raises:
        UsageError: FID has fewer than two images.
    """
    names: list[str] = []
    parts: dict[str, list[Array]] = {}
    failures = []
    for batch in batches:
        if isinstance(batch, FailedImage):
            failures.append(batch)
            advance(1)
            continue
        for metric in metrics:
            for column, measured in metric.measure(batch).items():
                parts.setdefault(column, []).append(measured)
        if fid is not None:
            fid.add(batch)
        names.extend(batch.names)
        advance(len(batch.names))
    values = {column: np.concatenate(rows) for column, rows in parts.items()}
    distances = tuple(fid.distances(reference)) if fid is not None and reference is not None and names else None
    return Scores(
        tuple(methods), tuple(names), values, {} if distances is None else {"fid": distances}, tuple(failures)
    )


@dataclass(frozen=True)
class Figure:
    """One cell of a table."""

    mean: float
    """Mean over the images that could be measured, or the set's value; NaN where none could."""

    count: int
    """Number of those images."""

    low: float | None = None
    """Lower limit of the mean's confidence interval."""

    high: float | None = None
    """Upper limit."""


def summarise(scores: Scores, column: str, *, with_interval: bool) -> list[Figure]:
    """Returns a column's figure for each method.

    An interval is a percentile bootstrap over images: all methods share the draws. A set's value has none: FID of
    resampled images, with their repeats, is biased upwards.
    """
    if column in scores.set_values:
        return [Figure(value, len(scores.names)) for value in scores.set_values[column]]
    if column not in scores.values:
        return [Figure(float("nan"), 0) for _ in scores.methods]
    values = scores.values[column]
    is_measured = ~np.isnan(values)
    counts = is_measured.sum(axis=0)
    means = _means(values)
    if not with_interval or len(values) < 2:
        return [Figure(float(mean), int(count)) for mean, count in zip(means, counts, strict=True)]
    low, high = bootstrap_interval(values)
    return [Figure(float(m), int(c), float(a), float(b)) for m, c, a, b in zip(means, counts, low, high, strict=True)]


def bootstrap_interval(values: Array, *, resamples: int = RESAMPLES, coverage: float = COVERAGE) -> tuple[Array, Array]:
    """Draws images with replacement and returns the limits of the mean, each [M]; NaN where there is no value.

    Args:
        values: [n, M]; NaN is left out of a draw's mean.
        resamples: Number of draws; the draws are the same in every run.
        coverage: Share between the limits.
    """
    generator = np.random.default_rng(_SEED)
    means: list[Array] = []
    for start in range(0, resamples, _CHUNK):
        chosen = generator.integers(len(values), size=(min(_CHUNK, resamples - start), len(values)))
        means.extend(_means(values[indices]) for indices in chosen)
    tail = (1 - coverage) / 2
    is_measured = ~np.isnan(values).all(axis=0)
    limits = np.full((2, values.shape[1]), np.nan)
    with np.errstate(invalid="ignore"):  # infinite means, as of the PSNR of equal images
        limits[:, is_measured] = np.nanquantile(np.stack(means)[:, is_measured], [tail, 1 - tail], axis=0)
    return limits[0], limits[1]


def _means(values: Array) -> Array:
    """Means down the columns, leaving NaN out; NaN for a column of nothing else."""
    is_measured = ~np.isnan(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(is_measured, values, 0).sum(axis=0) / is_measured.sum(axis=0))
