"""Builds the metrics that were chosen, with weights from the manifest or from files of the user's own."""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gfprestore.digest import weights_digest
from gfprestore.errors import UsageError, WeightsError
from gfprestore.evaluation.batch import Metric
from gfprestore.evaluation.fid import FidMetric
from gfprestore.evaluation.network import MetricNetwork
from gfprestore.weights import Progress, choose_detector, ensure_weights, read_state_dict, read_tensors

ROLES = {
    "alexnet": "alexnet",
    "vgg16": "vgg16",
    "inception": "inception",
    "niqe": "niqe",
    "recogniser": "w600k-mbf",
    "detector": "auto",
}
"""What a weights file is for, and the manifest's file for it. No digest is known for a file of the user's own."""

_LMD_THRESHOLD = 0.5
_LMD_LEAST_FACE = 16.0


@dataclass(frozen=True, eq=False)
class MetricWeights:
    """Where metrics take their weights from."""

    folder: Path | None = None
    """Searched first."""

    offline: bool = False
    """Never connect."""

    files: Mapping[str, Path] = field(default_factory=dict)
    """Role -> file of the user's own, in place of the manifest's."""

    progress: Progress | None = None
    """Told of bytes that are downloaded."""

    facts: dict[str, dict[str, str]] = field(default_factory=dict)
    """Filled in: role -> file name and SHA-256 of what was used."""

    def path(self, role: str) -> Path:
        """Finds or fetches the file for a role.

        Raises:
            WeightsError: It cannot be had.
        """
        path = self.files.get(role) or self._known(role)
        self.facts[role] = {"file": path.name, "sha256": weights_digest(path)}
        return path

    def _known(self, role: str) -> Path:
        try:
            if role == "detector":
                return choose_detector(folder=self.folder, offline=self.offline, progress=self.progress)[1]
            return ensure_weights(ROLES[role], folder=self.folder, offline=self.offline, progress=self.progress)
        except WeightsError as error:
            raise WeightsError(f"{str(error).rstrip('.')}, or choose --metrics that do without.") from error


def parse_files(given: Collection[str]) -> dict[str, Path]:
    """Reads `ROLE=FILE` arguments.

    Raises:
        UsageError: A role is unknown, or a file missing.
    """
    files = {}
    for argument in given:
        role, equals, name = argument.partition("=")
        if not equals or role not in ROLES:
            raise UsageError(f"--metric-weights takes ROLE=FILE with ROLE one of {', '.join(ROLES)}, not {argument!r}.")
        if not Path(name).is_file():
            raise UsageError(f"--metric-weights {role}: {name} is not a file.")
        files[role] = Path(name)
    return files


def build_metrics(columns: Collection[str], weights: MetricWeights, device: str) -> list[Metric]:
    """Builds what measures single images for the columns that were chosen; FID is built by `build_fid`.

    Raises:
        WeightsError: Weights are missing, damaged or of another network.
    """
    metrics: list[Metric] = [*_plain_metrics(columns)]
    if "niqe" in columns:
        from gfprestore.evaluation.niqe import NiqeMetric, read_pristine_model

        metrics.append(NiqeMetric(read_pristine_model(weights.path("niqe"))))
    if "lpips-vgg" in columns or "lpips-alex" in columns:
        from gfprestore.evaluation.lpips_metric import LpipsMetric, load_lpips

        if "lpips-vgg" in columns:
            vgg = load_lpips("vgg", read_tensors(weights.path("vgg16")))
            metrics.append(LpipsMetric("vgg", MetricNetwork(vgg, device)))
        if "lpips-alex" in columns:
            alex = load_lpips("alex", read_tensors(weights.path("alexnet")))
            metrics.append(LpipsMetric("alex", MetricNetwork(alex, device)))
    if "deg" in columns or "deg-over-1" in columns:
        from gfprestore.evaluation.deg import DegMetric, load_recogniser

        metrics.append(DegMetric(load_recogniser(weights.path("recogniser"), device)))
    if "lmd" in columns:
        metrics.append(_build_lmd(weights, device))
    return metrics


def _plain_metrics(columns: Collection[str]) -> list[Metric]:
    """Builds those that need no weights."""
    from gfprestore.evaluation.psnr import PsnrMetric
    from gfprestore.evaluation.seam import SeamMetric
    from gfprestore.evaluation.ssim import SsimMetric

    metrics: list[Metric] = []
    for suffix, is_matched in (("", False), ("-matched", True)):
        if f"psnr{suffix}" in columns:
            metrics.append(PsnrMetric(is_matched=is_matched))
        if f"ssim{suffix}" in columns:
            metrics.append(SsimMetric(is_matched=is_matched))
    if "seam" in columns or "seam-ratio" in columns:
        metrics.append(SeamMetric())
    return metrics


def _build_lmd(weights: MetricWeights, device: str) -> Metric:
    from gfprestore.detect import build_detector
    from gfprestore.evaluation.lmd import LmdMetric

    state = read_state_dict(weights.path("detector"))
    detector = build_detector(state, device=device, threshold=_LMD_THRESHOLD, min_face=_LMD_LEAST_FACE, rotations=False)
    return LmdMetric(detector)


def build_fid(weights: MetricWeights, device: str, methods: int) -> FidMetric:
    """Builds FID for a number of methods.

    Raises:
        WeightsError: The Inception weights are missing, damaged or another network's.
    """
    from gfprestore.evaluation.inception import load_inception, load_scripted_inception

    path = weights.path("inception")
    # A TorchScript file holds code, which a state dict may not: they are told apart by what is inside.
    features = load_scripted_inception(path) if _is_scripted(path) else load_inception(read_tensors(path))
    return FidMetric(MetricNetwork(features, device), methods)


def _is_scripted(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())
