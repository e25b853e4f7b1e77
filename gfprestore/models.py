"""Loads the networks of a run: weights found or fetched, device and precision settled, each network on its engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from gfprestore.background import Upscaler, build_upscaler
from gfprestore.colorize import COLOUR_CAUTION, ChromaSource, OwnChroma, build_chroma_source
from gfprestore.detect import FaceDetector, build_detector
from gfprestore.digest import user_cache_folder, weights_digest
from gfprestore.engine import fit_threads, resolve_device, resolve_precision
from gfprestore.errors import WeightsError, printable
from gfprestore.identity import FaceRecogniser
from gfprestore.manifest import check_choice, known_weights
from gfprestore.options import RestoreOptions
from gfprestore.restorer import FaceRestorer, build_restorer
from gfprestore.weights import (
    Progress,
    choose_detector,
    choose_face_model,
    ensure_weights,
    find_weights,
    how_to_get,
    read_state_dict,
)

if TYPE_CHECKING:
    from gfprestore.parsing import FaceParser

Say = Callable[[str], None]

COLOURING_MODEL = "1"
"""Name of the restoring weights that give colour to gray faces by themselves."""

COLOURIST = "compact-colour"
"""Name of the weights that colour what other weights restored."""

_COLOURED_BY = {
    COLOURING_MODEL: "Faces have the colours that GFP-GAN v1 gives them.",
    COLOURIST: "Faces are coloured by the small colouring model that ships.",
}


@dataclass(frozen=True, eq=False)
class Models:
    """Every network that a run needs, ready to be called from several threads."""

    restorer: FaceRestorer
    """Restores crops."""

    upscaler: Upscaler
    """Enlarges the whole photo."""

    face_model: str
    """Name of the restorer's weights, for tags."""

    facts: Mapping[str, object]
    """What the report tells about them: names, digests of the weights, device, precision."""

    detector: FaceDetector | None = None
    """Finds faces; None where the photos are crops already."""

    parser: FaceParser | None = None
    """Tells what the pixels of a crop show; None where its weights are not on this machine."""

    recogniser: FaceRecogniser | None = None
    """Measures identity; None where no limit was set."""

    chroma: ChromaSource | None = None
    """Estimates colours; None where none were asked for."""

    colourist: FaceRestorer | None = None
    """Colours restored faces; None where no colour was asked for or the restorer gives it."""


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
    # All choices are looked at before anything large is fetched for one of them.
    check_choice(options.model, "face")
    check_choice(options.detector, "detector")
    fit_threads()
    device = resolve_device(options.device)
    precision = resolve_precision(options.precision, device)
    place = _Place(device, precision, user_cache_folder() / "compiled", options, progress)
    facts: dict[str, object] = {"device": device, "precision": precision}
    recogniser = place.load_recogniser(facts, say)
    upscaler = place.load_upscaler(say)
    facts["background"] = upscaler.description
    name, path = choose_face_model(
        options.model, folder=options.weights, offline=options.offline, progress=progress, notify=say
    )
    restorer = build_restorer(read_state_dict(path), device=device, precision=precision, cache_folder=place.cache)
    facts["face"] = _facts(name, path)
    chroma = place.load_chroma(say)
    colourist = place.load_colourist(name) if chroma is not None else None
    if chroma is not None:
        source = COLOURING_MODEL if colourist is None else COLOURIST
        say(f"{_COLOURED_BY[source]} {COLOUR_CAUTION}")
        facts["colour"] = {"name": chroma.description, "faces": source, "caution": COLOUR_CAUTION}
    facts["weights"] = place.digests
    models = Models(restorer, upscaler, name, facts, recogniser=recogniser, chroma=chroma, colourist=colourist)
    if options.aligned:
        return models
    detector, facts["detector"] = place.load_detector()
    parser, parsing = place.load_parser()
    return replace(models, facts=facts | parsing, detector=detector, parser=parser)


@dataclass(frozen=True, eq=False)
class _Place:
    """Where networks are found and where they run."""

    device: str
    precision: str
    cache: Path
    options: RestoreOptions
    progress: Progress | None
    digests: dict[str, str] = field(default_factory=dict)
    """SHA-256 of the weights read for the background and for colour, by their name."""

    def load_detector(self) -> tuple[FaceDetector, dict[str, str]]:
        options = self.options
        name, path = choose_detector(
            options.detector, folder=options.weights, offline=options.offline, progress=self.progress
        )
        detector = build_detector(
            read_state_dict(path),
            device=self.device,
            precision=self.precision,
            threshold=options.detection_threshold,
            min_face=options.min_face,
            cache_folder=self.cache,
            rotations=options.rotations,
        )
        return detector, _facts(name, path)

    def load_parser(self) -> tuple[FaceParser | None, dict[str, object]]:
        """Loads the first parser whose weights are here; without one an oval stands in, so nothing is fetched."""
        for name in ("bisenet", "parsenet"):
            path = find_weights(name, folder=self.options.weights)
            if path is not None:
                # Here, since most runs have no weights for it.
                from gfprestore.parsing import build_parser

                state = read_state_dict(path)
                parser = build_parser(state, device=self.device, precision=self.precision, cache_folder=self.cache)
                return parser, {"parser": _facts(name, path)}
        return None, {}

    def load_recogniser(self, facts: dict[str, object], say: Say) -> FaceRecogniser | None:
        options = self.options
        if options.identity_limit is None:
            if options.recogniser is not None:
                say("--recogniser does nothing without --identity-limit, such as --identity-limit 40.")
            return None
        path = options.recogniser or find_weights("w600k-mbf", folder=options.weights)
        if path is not None and not path.is_file():
            raise WeightsError(f"There is no file {printable(str(path))}; check --recogniser.")
        if path is None:
            raise WeightsError(
                "--identity-limit needs a face recogniser as an ONNX file: name one with --recogniser, leave"
                f" --identity-limit out, or {how_to_get(known_weights('w600k-mbf'), options.weights)}"
            )
        facts["recogniser"] = _facts(path.name, path)
        return FaceRecogniser(path)

    def read_weights(self, name: str) -> Mapping[str, NDArray[Any]]:
        options = self.options
        path = ensure_weights(name, folder=options.weights, offline=options.offline, progress=self.progress)
        self.digests[name] = weights_digest(path)
        return read_state_dict(path)

    def load_colourist(self, face_model: str) -> FaceRestorer | None:
        """Loads what colours the faces that `face_model` restored, unless its results are in colour."""
        if face_model == COLOURING_MODEL:
            return None
        state = self.read_weights(COLOURIST)
        return build_restorer(state, device=self.device, precision=self.precision, cache_folder=self.cache)

    def load_chroma(self, say: Say) -> ChromaSource | None:
        if self.options.colorize == "off":
            return None
        if self.options.colorize == "faces":
            return OwnChroma()
        return build_chroma_source(
            read_weights=self.read_weights,
            device=self.device,
            precision=self.precision,
            cache_folder=self.cache,
            notify=say,
        )

    def load_upscaler(self, say: Say) -> Upscaler:
        options = self.options
        upscaler = build_upscaler(
            options.background,
            options.upscale,
            read_weights=self.read_weights,
            device=self.device,
            precision=self.precision,
            keeps_precision=options.precision == "bf16",
            tile_pixels=options.tile_pixels,
            strength=options.background_strength,
            cache_folder=self.cache,
            notify=say,
        )
        if Path(options.background).is_file():
            self.digests[options.background] = weights_digest(Path(options.background))
        return upscaler


def _facts(name: str, path: Path) -> dict[str, str]:
    return {"name": name, "sha256": weights_digest(path)}
