"""Loads the networks of a run: weights found or fetched, device and precision settled, each network on its engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gfprestore.detect import FaceDetector, build_detector
from gfprestore.engine import resolve_device, resolve_precision
from gfprestore.options import RestoreOptions
from gfprestore.restorer import FaceRestorer, build_restorer
from gfprestore.weights import choose_detector, choose_face_model, engine_cache_folder, read_state_dict, weights_digest

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


def load_models(options: RestoreOptions, say: Say) -> Models:
    """Loads what the options call for.

    Args:
        options: Of the run.
        say: Takes one line for the user, such as which model stands in for which.

    Raises:
        WeightsError: Weights that were asked for are missing, damaged or of another kind.
        DeviceError: The device is missing.
    """
    device = resolve_device(options.device)
    precision = resolve_precision(options.precision, device)
    cache = engine_cache_folder()
    place = {"folder": options.weights, "offline": options.offline, "notify": say}
    name, path = choose_face_model(options.model, **place)
    restorer = build_restorer(read_state_dict(path), device=device, precision=precision, cache_folder=cache)
    facts: dict[str, object] = {
        "face": name,
        "face_sha256": weights_digest(path),
        "device": device,
        "precision": precision,
    }
    detector = None
    if not options.aligned:
        detector_name, detector_path = choose_detector(**place)
        detector = _load_detector(detector_path, device, options, cache)
        facts |= {"detector": detector_name, "detector_sha256": weights_digest(detector_path)}
    return Models(restorer, detector, facts)


def _load_detector(path: Path, device: str, options: RestoreOptions, cache: Path | None) -> FaceDetector:
    # In fp32 whatever the generator runs in: landmarks steer everything after them, and it costs little.
    return build_detector(
        read_state_dict(path),
        device=device,
        precision="fp32",
        threshold=options.detection_threshold,
        min_face=options.min_face,
        cache_folder=cache,
    )
