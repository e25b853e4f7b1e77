"""Facial components: where the eyes and the mouth are in an aligned face (GFP-GAN, arXiv:2101.04061, section 3.5).

A component is a square given by its centre and half its side; the published file of FFHQ landmarks holds such triples,
and `components_from_landmarks` makes them out of five landmarks. Pixel centres (x, y) throughout.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import roi_align

from gfprestore.align import FACE_TEMPLATE, TEMPLATE_SIZE
from gfprestore.atomic import output_file
from gfprestore.errors import UsageError, printable

Components: TypeAlias = NDArray[np.float32]
"""(3, 3): left eye, right eye, mouth, each its centre x and y and half its side, in pixels of the crop."""

COMPONENTS_FILE = "components.json"
"""Eyes and mouths of the faces of a folder, in that folder; `align` writes it and training looks for it."""

PARTS = ("left_eye", "right_eye", "mouth")
"""The components, left as seen in the picture, in the order of all arrays."""

EYE_ENLARGEMENT = 1.4
"""The published configuration's `eye_enlarge_ratio`: brows and lids belong to the eye's texture."""

EYE_PIXELS = 80
"""Side of an eye's region for its discriminator, for faces of 512 pixels."""

MOUTH_PIXELS = 120
"""Side of the mouth's."""

EYE_HALF_RATIO = 0.22
"""Half an eye's side against the distance of the eyes' centres: 28 pixels where the mean FFHQ face has 126."""

MOUTH_HALF_RATIO = 0.55
"""Half the mouth's side against its width between the corners: 61 pixels in the mean FFHQ face."""

_UNREADABLE = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
    EOFError,
    pickle.UnpicklingError,
)
"""What reading a file that holds something else may raise."""


def components_from_landmarks(landmarks: NDArray[np.float64]) -> Components:
    """Makes components out of five landmarks (5, 2) of a crop, in the order of `DetectedFace.landmarks`."""
    left, right, _, mouth_left, mouth_right = landmarks
    eye = EYE_HALF_RATIO * float(np.linalg.norm(right - left))
    mouth = MOUTH_HALF_RATIO * float(np.linalg.norm(mouth_right - mouth_left))
    rows = [[*left, eye], [*right, eye], [*(mouth_left + mouth_right) / 2, mouth]]
    return np.array(rows, dtype=np.float32)


def template_components() -> Components:
    """The components of the mean face in a crop of 512 pixels, for faces whose landmarks nobody has looked for."""
    return components_from_landmarks(FACE_TEMPLATE)


def flip_components(components: Components, size: int) -> Components:
    """Mirrors components with their crop of `size` pixels; the eyes change sides.

    The published code mirrors about `size` where pixel centres need `size - 1`; this one does the latter.
    """
    flipped = components[[1, 0, 2]].copy()
    flipped[:, 0] = size - 1 - flipped[:, 0]
    return flipped


def component_boxes(components: Components) -> NDArray[np.float32]:
    """Boxes (3, 4) of the components: left, top, right, bottom, as the published dataset computes them.

    `[mean - half + 1, mean + half]` with the eyes' halves enlarged.
    """
    halves = components[:, 2:] * np.array([[EYE_ENLARGEMENT], [EYE_ENLARGEMENT], [1]], dtype=np.float32)
    return np.concatenate([components[:, :2] - halves + 1, components[:, :2] + halves], axis=1)


def cut_components(images: Tensor, boxes: Tensor) -> list[Tensor]:
    """Cuts the components out of images by ROI align.

    Args:
        images: [N 3 S S].
        boxes: [N 3 4], from `component_boxes`.

    Returns:
        Left eyes, right eyes [N 3 80 80] and mouths [N 3 120 120] for S = 512, in proportion for other sizes.
    """
    scale = images.shape[-1] / TEMPLATE_SIZE
    # Sampling positions need more digits than a short type has.
    with torch.autocast(images.device.type, enabled=False):
        images = images if images.dtype == torch.float64 else images.float()
        return [
            roi_align(images, list(boxes[:, part, None].to(images.dtype)), int(pixels * scale))
            for part, pixels in enumerate((EYE_PIXELS, EYE_PIXELS, MOUTH_PIXELS))
        ]


def read_components(path: Path) -> dict[str, Components]:
    """Reads a file of components: FFHQ's `.pth`, or JSON as `write_components` makes it.

    Returns:
        Name -> components for crops of 512 pixels. The published file's names are eight digits, counted through.

    Raises:
        UsageError: The file is missing or holds something else.
    """
    try:
        if path.suffix == ".json":
            loaded = json.loads(path.read_text(encoding="utf-8"))
            rows = {name: [entry[part] for part in PARTS] for name, entry in loaded.items()}
        else:
            # The published file pickles numpy's numbers and arrays: they are named to the unpickler, which still runs
            # nothing else.
            with torch.serialization.safe_globals(_numpy_globals()):
                loaded = torch.load(path, map_location="cpu", weights_only=True)
            rows = {name: [np.asarray(entry[part])[:3] for part in PARTS] for name, entry in loaded.items()}
        components = {name: np.array(row, dtype=np.float32) for name, row in rows.items()}
    except FileNotFoundError as error:
        raise UsageError(f"The file of components {printable(path)} is missing: see data.components.") from error
    except _UNREADABLE as error:
        raise UsageError(f"{printable(path)} is no file of components: see data.components.") from error
    if any(entry.shape != (3, 3) for entry in components.values()):
        raise UsageError(f"{printable(path)} holds entries that are no components: see data.components.")
    return components


def write_components(path: Path, components: Mapping[str, Components]) -> None:
    """Writes components as JSON, one entry a name.

    Raises:
        OutputError: The file cannot be written.
    """
    text = {
        name: {part: [round(float(value), 3) for value in row] for part, row in zip(PARTS, entry, strict=True)}
        for name, entry in components.items()
    }
    with output_file(path) as stream:
        stream.write(json.dumps(text, indent=1).encode("utf-8"))


def _numpy_globals() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    # numpy has renamed its private module; a file names the one that it was written with.
    makers: list[Any] = [np.array([0.0]).__reduce__()[0], np.float64(0).__reduce__()[0]]
    kinds: list[Callable[..., Any]] = [np.dtype, np.ndarray, type(np.dtype(np.float64)), type(np.dtype(np.float32))]
    modules = ("numpy.core.multiarray", "numpy._core.multiarray")
    return [*kinds, *((maker, f"{module}.{maker.__name__}") for maker in makers for module in modules)]
