"""Is it still the same person: the angle between a face before and after, and what to do about it.

The recogniser is an ArcFace network (Deng et al., arXiv 1801.07698) in ONNX, such as InsightFace's `w600k_mbf`. Faces
are compared at the resolution that the photo had: at a finer one, a restoration would differ from the photo for being
sharp. Angles of different recognisers are not the same, and small or turned faces measure larger ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from gfprestore.align import face_template, similarity_transform
from gfprestore.errors import WeightsError, printable
from gfprestore.geometry import magnification

ARCFACE_SIZE = 112
"""Side of the recogniser's input in pixels."""

ARCFACE_TEMPLATE: NDArray[np.float64] = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""Five landmarks (x, y) in the recogniser's input, from InsightFace."""

STRENGTH_STEP = 0.2
"""By how much strength is lowered at a time for a face that no longer looks like itself."""

LEAST_STRENGTH = 0.2
"""Under this strength a restoration is not worth its risk: the face is left alone."""

Crop = NDArray[np.uint8]
Embed = Callable[[list[Crop]], NDArray[np.float32]]
"""Crops, RGB uint8 (S, S, 3) in the face template's frame -> embeddings (N, D) of any length."""


@dataclass(frozen=True)
class IdentityVerdict:
    """At which strength a face is still the same person."""

    strength: float
    """Strength to blend at; 0 leaves the face alone."""

    angle: float
    """Degrees between the photo's face and the one blended at `strength`; the last one tried where that is 0."""

    reason: str = ""
    """Why the strength was lowered, as half a sentence; empty where it was not."""


class FaceRecogniser:
    """Embeds face crops. Holds no state but the network; may be used from several threads."""

    def __init__(self, path: Path) -> None:
        """Load an ONNX recogniser onto the processor.

        Args:
            path: A network of one input, RGB float [N, 3, 112, 112] in -1..1, and one output [N, D].

        Raises:
            WeightsError: The file is not such a network, or the `openvino` package is missing.
        """
        # Here, since platforms without this package restore faces all the same.
        try:
            from gfprestore.openvino_core import shared_core
        except ImportError as error:
            raise WeightsError("Checking identity needs the openvino package; leave out --identity-limit.") from error
        core = shared_core()
        try:
            model = core.read_model(path)
            model.reshape([-1, 3, ARCFACE_SIZE, ARCFACE_SIZE])
            self._network: Any = core.compile_model(model, "CPU")
        except RuntimeError as error:
            raise WeightsError(f"{printable(str(path))} is not a face recogniser of 112x112 RGB input.") from error

    def embed(self, crops: list[Crop]) -> NDArray[np.float32]:
        """Embed faces.

        Args:
            crops: RGB uint8, each (S, S, 3), in the face template's frame.

        Returns:
            float32 (N, D), of any length.
        """
        inputs = np.stack([arcface_crop(crop) for crop in crops]).astype(np.float32) / 127.5 - 1
        request = self._network.create_infer_request()
        outputs = request.infer([np.ascontiguousarray(inputs.transpose(0, 3, 1, 2))])  # [N 3 112 112]
        return np.array(outputs[self._network.output(0)], np.float32)


def arcface_crop(crop: Crop) -> Crop:
    """Map a crop of the face template's frame to the recogniser's.

    Args:
        crop: RGB uint8 (S, S, 3).

    Returns:
        RGB uint8 (112, 112, 3); beyond the crop's edge it repeats the edge.
    """
    size = crop.shape[0]
    shrink = magnification(similarity_transform(face_template(size), ARCFACE_TEMPLATE))
    if shrink < 1:
        # Averaged down first, so that the bilinear warp skips no pixel.
        size = max(1, round(size * shrink))
        crop = cast(Crop, cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA))
    to_arcface = similarity_transform(face_template(size), ARCFACE_TEMPLATE)
    warped = cv2.warpAffine(crop, to_arcface, (ARCFACE_SIZE, ARCFACE_SIZE), borderMode=cv2.BORDER_REPLICATE)
    return cast(Crop, warped)


def reduce_to_photo(crop: Crop, sampling: float) -> Crop:
    """Bring a crop down to the resolution that its face has in the photo.

    Args:
        crop: RGB uint8 (S, S, 3).
        sampling: Photo pixels per crop pixel.

    Returns:
        RGB uint8, about S * sampling on a side, or `crop` itself where the photo is no coarser.
    """
    size = max(1, round(crop.shape[0] * sampling))
    if size >= crop.shape[0]:
        return crop
    return cast(Crop, cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA))


def identity_angles(embed: Embed, original: Crop, candidates: list[Crop], sampling: float) -> list[float]:
    """Measure how far faces are from the photo's own.

    Args:
        embed: A recogniser.
        original: The photo's crop, RGB uint8 (S, S, 3).
        candidates: Restored crops of the same face.
        sampling: Photo pixels per crop pixel.

    Returns:
        Degrees, 0 to 180, exactly 0 for an equal crop.
    """
    vectors = embed([reduce_to_photo(crop, sampling) for crop in [original, *candidates]]).astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    # Kahan's form; the arc cosine loses all digits near 0.
    apart = np.linalg.norm(vectors[1:] - vectors[0], axis=1)
    together = np.linalg.norm(vectors[1:] + vectors[0], axis=1)
    return [float(angle) for angle in np.rad2deg(2 * np.arctan2(apart, together))]


def settle_identity(angle_at: Callable[[float], float], strength: float, limit: float) -> IdentityVerdict:
    """Lower the strength step by step until a face is itself, and give up on it where it never is.

    Args:
        angle_at: Blends at a strength in (0, 1] and measures the angle in degrees.
        strength: What was asked for, 0 to 1.
        limit: Largest angle in degrees.

    Returns:
        The first of `strength`, `strength` - STRENGTH_STEP, ... that is within the limit, or strength 0.
    """
    if strength <= 0:
        return IdentityVerdict(0.0, 0.0)
    asked = angle_at(strength)
    if asked <= limit:
        return IdentityVerdict(strength, asked)
    angle, lowered = asked, strength
    while (lowered := round(lowered - STRENGTH_STEP, 6)) >= LEAST_STRENGTH:
        angle = angle_at(lowered)
        if angle <= limit:
            why = f"its identity moved by {asked:.0f}° at strength {strength:g}, over the limit of {limit:g}°"
            return IdentityVerdict(lowered, angle, why)
    return IdentityVerdict(0.0, angle, f"its identity moves by {angle:.0f}° or more, over the limit of {limit:g}°")
