"""FID: distance between the features of two sets of images (Heusel et al., arXiv:1706.08500, equation 6).

Protocol `fid`: Inception-2015 features (`inception.py`), images resized to 299 bilinearly without smoothing, means and
covariances in float64 with N - 1 in the divisor. The set that is compared with decides the figure: against FFHQ, as the
published face restoration tables do, and against the ground truth of the same photos are different numbers. Too few
images bias FID upwards, so compare only sets of one size: 2,048 is the least that makes the covariance regular.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gfprestore.atomic import output_file
from gfprestore.errors import UsageError
from gfprestore.evaluation.batch import ImageBatch, as_array
from gfprestore.evaluation.inception import FEATURES
from gfprestore.evaluation.network import MetricNetwork

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FeatureStatistics:
    """Gaussian model of a set's features."""

    mean: Array
    """(D,)."""

    covariance: Array
    """(D, D), divided by N - 1."""

    count: int
    """Number of images; 0 where a file does not say."""


class FeatureAccumulator:
    """Mean and covariance of a stream of features, in float64 and in memory that does not grow with it.

    Batches are merged as in Chan, Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample
    Variances" (1979), which does not lose digits to a large mean.
    """

    def __init__(self, length: int = FEATURES) -> None:
        self.count = 0
        self._mean: Array = np.zeros(length)
        self._scatter: Array = np.zeros((length, length))

    def add(self, features: NDArray[np.floating]) -> None:
        """Adds features (N, D)."""
        if not len(features):
            return
        batch = features.astype(np.float64)
        mean = batch.mean(axis=0)
        centred = batch - mean
        step = mean - self._mean
        total = self.count + len(batch)
        self._scatter += centred.T @ centred + np.outer(step, step) * (self.count * len(batch) / total)
        self._mean = self._mean + step * (len(batch) / total)
        self.count = total

    def statistics(self) -> FeatureStatistics:
        """Returns the model so far.

        Raises:
            UsageError: Fewer than two images were added.
        """
        require_enough(self.count)
        return FeatureStatistics(self._mean.copy(), self._scatter / (self.count - 1), self.count)


def require_enough(count: int) -> None:
    """Refuses a number of images that has no covariance.

    Raises:
        UsageError: There are fewer than two.
    """
    if count < 2:
        raise UsageError(f"FID needs at least two images on each side, not {count}: leave it out of --metrics.")


def frechet_distance(first: FeatureStatistics, second: FeatureStatistics) -> float:
    """Measures the Fréchet distance of two Gaussians: |m1 - m2|² + tr(C1 + C2 - 2 (C1 C2)^½).

    The trace of the root is the sum of the roots of the eigenvalues of C1^½ C2 C1^½, which is symmetric: no complex
    matrix root is taken, and singular covariances need no ridge.

    Raises:
        UsageError: The two have features of different lengths.
    """
    if first.mean.shape != second.mean.shape:
        raise UsageError(f"The reference has {len(second.mean)} features where these images have {len(first.mean)}.")
    values, vectors = np.linalg.eigh(first.covariance)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    shared = np.linalg.eigvalsh(root @ second.covariance @ root)
    trace_of_root = np.sqrt(np.clip(shared, 0, None)).sum()
    difference = first.mean - second.mean
    distance = difference @ difference + np.trace(first.covariance) + np.trace(second.covariance) - 2 * trace_of_root
    # Rounding leaves about -1e-6 between equal sets.
    return max(0.0, float(distance))


def save_statistics(path: Path, statistics: FeatureStatistics) -> None:
    """Writes statistics as `pytorch-fid` does (`mu`, `sigma`), with the count; the file is complete or absent.

    Raises:
        OutputError: The file cannot be written.
    """
    with output_file(path, option="--save-statistics") as stream:
        np.savez_compressed(stream, mu=statistics.mean, sigma=statistics.covariance, count=statistics.count)


def load_statistics(path: Path) -> FeatureStatistics:
    """Reads `.npz` statistics of this command or of `pytorch-fid`, or `.pth` ones of BasicSR (`mean`, `cov`).

    Raises:
        UsageError: The file is unreadable or holds something else.
    """
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                mean, covariance = arrays["mu"], arrays["sigma"]
                count = int(arrays["count"]) if "count" in arrays else 0
        else:
            mean, covariance = _load_basicsr(path)
            count = 0
    except (OSError, KeyError, ValueError, RuntimeError, EOFError, UnpicklingError) as error:
        raise UsageError(f"{path} holds no FID statistics: give --reference a folder of images, or .npz.") from error
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise UsageError(f"{path} holds statistics of a wrong shape: give --reference a folder of images.")
    return FeatureStatistics(mean.astype(np.float64), covariance.astype(np.float64), count)


def _load_basicsr(path: Path) -> tuple[Array, Array]:
    """Reads a file of numpy arrays that `torch.save` wrote, allowing nothing else in it."""
    reconstruct = np.zeros(1).__reduce__()[0]
    allowed: list[Any] = [
        reconstruct,
        (reconstruct, "numpy.core.multiarray._reconstruct"),  # as numpy 1 called it
        np.ndarray,
        np.dtype,
        np.dtypes.Float64DType,
        np.dtypes.Float32DType,
    ]
    with torch.serialization.safe_globals(allowed):
        stored = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(stored, dict):
        raise ValueError("no dictionary")
    return np.asarray(stored["mean"]), np.asarray(stored["cov"])


class FidMetric:
    """Features of each method's images, gathered batch by batch; a figure per method at the end."""

    def __init__(self, network: MetricNetwork, methods: int, length: int = FEATURES) -> None:
        """Takes a network that gives `length` features an image."""
        self._network = network
        self._length = length
        self.accumulators = tuple(FeatureAccumulator(length) for _ in range(methods))

    def for_methods(self, methods: int) -> FidMetric:
        """Returns an empty gatherer that shares the network."""
        return FidMetric(self._network, methods, self._length)

    def add(self, batch: ImageBatch) -> None:
        """Adds a batch."""
        restored = batch.restored
        features = as_array(self._network.run(restored.flatten(0, 1).contiguous()))  # [N*M D]
        for method, accumulator in enumerate(self.accumulators):
            accumulator.add(features[method :: len(self.accumulators)])

    def distances(self, reference: FeatureStatistics) -> list[float]:
        """Returns each method's distance from the reference.

        Raises:
            UsageError: There are fewer than two images.
        """
        return [frechet_distance(accumulator.statistics(), reference) for accumulator in self.accumulators]
