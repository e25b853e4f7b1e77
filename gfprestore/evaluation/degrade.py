"""Degraded test sets: every parameter that was drawn goes into a manifest, from which the set can be remade.

Images are written as PNG, so what is measured is exactly what was made. Each image's parameters are drawn from the
set's seed and its own name: adding an image to the clean folder changes no other.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from gfprestore import __version__
from gfprestore.atomic import atomic_file, output_file
from gfprestore.errors import PhotoError, UsageError, printable
from gfprestore.evaluation.images import FailedImage, read_image
from gfprestore.streams import map_ahead
from gfprestore.training.degradation import Degradation, degrade_photo, degrade_truth
from gfprestore.training.degradation_presets import PRESETS, draw_degradation

MANIFEST_NAME = "manifest.json"
"""File beside the degraded images."""

_FORMAT = 1
_WORKERS = 2

_LATER_FIELDS = ("jitter", "jitter_order")
"""Sets made before there was any have none of it."""


@dataclass(frozen=True)
class MadeImage:
    """One degraded image that was written."""

    name: str
    """Path below the folders, without suffix."""

    degradation: Degradation
    """What was done to it."""

    sha256: str
    """Digest of the degraded pixels with their size: of the PNG's content, whatever compressed it."""


def generator_for(seed: int, name: str) -> np.random.Generator:
    """Returns the random generator of one image of a set."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return np.random.default_rng([seed, *np.frombuffer(digest, dtype="<u4").tolist()])


def draw_set(names: Iterable[str], *, seed: int, preset: str) -> dict[str, Degradation]:
    """Draws the degradations of a set, name -> record."""
    return {name: draw_degradation(generator_for(seed, name), PRESETS[preset]) for name in names}


def pixel_digest(pixels: NDArray[np.uint8]) -> str:
    """SHA-256 of an image's size and pixels, RGB uint8 (H, W, 3)."""
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()


def write_set(
    images: Mapping[str, Path],
    degradations: Mapping[str, Degradation],
    output: Path,
    truth: Path | None,
    advance: Callable[[int], None],
) -> tuple[list[MadeImage], list[FailedImage]]:
    """Degrades images and writes them as PNG under their own names.

    Args:
        images: Name -> clean file.
        degradations: Name -> what to do, for each of the images.
        output: Folder for the degraded images.
        truth: Folder for what a perfect restoration would give, or None.
        advance: Told of each image that is done.

    Raises:
        OutputError: The folders cannot be written.
    """

    def make(item: tuple[str, Path]) -> MadeImage | FailedImage:
        name, path = item
        try:
            clean = read_image(path)
            degraded = degrade_photo(clean, degradations[name])
            _write_png(output / f"{name}.png", degraded)
            if truth is not None:
                _write_png(truth / f"{name}.png", degrade_truth(clean, degradations[name]))
        except PhotoError as error:
            return FailedImage(name, str(error))
        return MadeImage(name, degradations[name], pixel_digest(degraded))

    made, failed = [], []
    for result in map_ahead(images.items(), make, workers=_WORKERS, ahead=2 * _WORKERS):
        if isinstance(result, FailedImage):
            failed.append(result)
        else:
            made.append(result)
        advance(1)
    return made, failed


def _write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG", compress_level=3)
    with atomic_file(path, overwrite=True) as file:
        file.write(stream.getvalue())


def write_manifest(output: Path, made: Iterable[MadeImage], *, seed: int, preset: str) -> None:
    """Writes what the set was made with.

    Raises:
        OutputError: The folder cannot be written.
    """
    document = {
        "format": _FORMAT,
        "seed": seed,
        "preset": preset,
        "versions": versions(),
        "images": {
            image.name: {"sha256": image.sha256, "degradation": dataclasses.asdict(image.degradation)} for image in made
        },
    }
    text = json.dumps(document, indent=1, ensure_ascii=True, allow_nan=False)
    with output_file(output / MANIFEST_NAME) as file:
        file.write(text.encode())


def versions() -> dict[str, str]:
    """What decides the pixels beside the parameters: the JPEG coder is OpenCV's, the noise numpy's."""
    return {
        "gfprestore": __version__,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "pillow": PIL.__version__,
        "python": platform.python_version(),
    }


@dataclass(frozen=True)
class SetManifest:
    """A manifest that was read."""

    seed: int
    """Seed that the set was drawn with."""

    preset: str
    """Name of the preset."""

    versions: Mapping[str, str]
    """Packages that made it."""

    degradations: Mapping[str, Degradation]
    """Name -> what to do."""

    digests: Mapping[str, str]
    """Name -> digest of the degraded pixels."""


def read_manifest(path: Path) -> SetManifest:
    """Reads a manifest.

    Raises:
        UsageError: It is unreadable, or none.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["format"] != _FORMAT:
            raise UsageError(f"{printable(path)} is of format {document['format']}, which this version does not know.")
        images: dict[str, Any] = document["images"]
        return SetManifest(
            int(document["seed"]),
            str(document["preset"]),
            dict(document["versions"]),
            {name: _read_degradation(fields["degradation"]) for name, fields in images.items()},
            {name: str(fields["sha256"]) for name, fields in images.items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{printable(path)} is no manifest of a degraded set: check --remake.") from error


def _read_degradation(fields: Mapping[str, Any]) -> Degradation:
    """Makes a record of what JSON keeps; it turns tuples into lists.

    Raises:
        TypeError: A field is unknown, or of another type than the record's.
    """
    values: dict[str, Any] = {}
    for known in dataclasses.fields(Degradation):
        default = known.default
        value = fields.get(known.name, default) if known.name in _LATER_FIELDS else fields[known.name]
        if isinstance(default, tuple):
            value = tuple(float(part) for part in value)
            is_right = len(value) == len(default)
        elif isinstance(default, bool):
            is_right = isinstance(value, bool)
        else:
            is_right = isinstance(value, (int, float)) or (default is None and value is None)
        if not is_right:
            raise TypeError(f"{known.name} is {value!r}")
        values[known.name] = value
    if fields.keys() - values.keys():
        raise TypeError(f"unknown fields {fields.keys() - values.keys()}")
    return Degradation(**values)
