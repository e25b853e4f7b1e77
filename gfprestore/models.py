"""Loads the networks of a run: weights found or fetched, device and precision settled, each network on its engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gfprestore.detect import FaceDetector, build_detector
from gfprestore.digest import user_cache_folder, weights_digest
from gfprestore.engine import resolve_device, resolve_precision
from gfprestore.options import RestoreOptions
from gfprestore.restorer import FaceRestorer, build_restorer
from gfprestore.weights import Progress, choose_detector, choose_face_model, read_state_dict

Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Models:
    """Every network that a run needs, ready to be called from several threads."""

    restorer: FaceRestorer
    """Restores crops."""

    detector: FaceDetector | None
    """Finds faces; None where the photos are crops already."""

    facts: Mapping[str, object]
    """What the report tells about them: names, digests of the weights, device, precision."""


def load_models(options: RestoreOptions, say: Say, progress: Progress | None = None) -> Models:
    """Loads what the options call for.

    Args:
        options: Of the run.
        say: Takes one line for the user, such as which model stands in for which.
        progress: Told of bytes that are downloaded.

    Raises:
        WeightsError: Weights that were asked for are missing, damaged or of another kind.
        DeviceError: The device is missing.
    """
    device = resolve_device(options.device)
    precision = resolve_precision(options.precision, device)
    cache = user_cache_folder() / "compiled"
    folder, offline = options.weights, options.offline
    name, path = choose_face_model(options.model, folder=folder, offline=offline, progress=progress, notify=say)
    restorer = build_restorer(read_state_dict(path), device=device, precision=precision, cache_folder=cache)
    facts: dict[str, object] = {"device": device, "precision": precision, "face": _facts(name, path)}
    if options.aligned:
        return Models(restorer, None, facts)
    name, path = choose_detector(options.detector, folder=folder, offline=offline, progress=progress)
    detector = build_detector(
        read_state_dict(path),
        device=device,
        # Whatever the generator computes in: landmarks steer everything after them, and this network costs little.
        precision="fp32",
        threshold=options.detection_threshold,
        min_face=options.min_face,
        cache_folder=cache,
    )
    return Models(restorer, detector, facts | {"detector": _facts(name, path)})


def _facts(name: str, path: Path) -> dict[str, str]:
    return {"name": name, "sha256": weights_digest(path)}
