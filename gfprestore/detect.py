"""Find faces with facexlib's RetinaFace: its networks and weights, run at sizes of our own choosing.

RetinaFace: Deng et al., "RetinaFace: Single-stage Dense Face Localisation in the Wild", arXiv 1905.00641. Released
weights: `detection_Resnet50_Final.pth` and `detection_mobilenet0.25_Final.pth` of facexlib.

The network is sure of faces of about 16 to 400 of its own pixels: at native size a large face is missed, on one small
copy the small ones are. So every photo is seen at two sizes, a large one also at its own, in tiles, and each size is
believed only for faces that it shows at a fitting size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gfprestore.detection.face_choice import Candidates, choose_faces, merge_candidates
from gfprestore.detection.photo_views import COARSE_VIEW, VIEWS, Look, View, make_looks, turn_face_back, turn_photo
from gfprestore.detection.priors import MEAN, decode_faces
from gfprestore.engine import Engine, build_engine
from gfprestore.geometry import map_points
from gfprestore.native.detector import build_native_detector
from gfprestore.photo import DetectedFace, FoundFaces, Pixels

if TYPE_CHECKING:
    from torch import nn

__all__ = ["FaceDetector", "build_detector", "choose_faces"]

SURE_SCORE = 0.8
"""A photo without a face of at least this score is looked at turned, and turned faces need it too: three more looks
raise three times more false alarms."""

RUN_PIXELS = 2560 * 1920
"""Pixels in one run of the network, unless a single view has more: what bounds its memory."""


class FaceDetector:
    """Finds the faces in photos. Holds no state but the network; may be used from several threads."""

    def __init__(self, engine: Engine, threshold: float, min_face: float, rotations: bool = True) -> None:
        """Wrap a network.

        Args:
            engine: Runs a `DetectionNetwork`.
            threshold: Least score of a face, 0 to 1.
            min_face: Least width of a face's box, in photo pixels.
            rotations: Turn a photo in which no upright face is sure by 90, 180 and 270 degrees.
        """
        self._engine = engine
        self._threshold = threshold
        self._min_face = min_face
        self._rotations = rotations

    def detect(self, photos: Sequence[Pixels]) -> list[list[DetectedFace]]:
        """Find the faces in each photo: `search` without what was refused."""
        return [list(found.faces) for found in self.search(photos)]

    def search(self, photos: Sequence[Pixels]) -> list[FoundFaces]:
        """Find the faces in each photo, and what looks like one and is refused.

        Args:
            photos: RGB, uint8 or uint16, (H, W, 3), of any sizes; views of equal size share a run of the network.

        Returns:
            The faces of each photo, largest first, in photo pixel centres. Those of a photo found turned keep the
            landmarks' names: the left eye is left of the nose once the face is upright.

        Raises:
            DeviceError: The device's memory does not hold even one view.
        """
        found = self._search(photos, VIEWS, self._threshold, self._min_face)
        if not self._rotations:
            return found
        return [self._turn_if_better(photo, upright) for photo, upright in zip(photos, found, strict=True)]

    def _search(
        self, photos: Sequence[Pixels], views: Sequence[View], threshold: float, min_face: float
    ) -> list[FoundFaces]:
        looks = [(item, look) for item, photo in enumerate(photos) for look in make_looks(photo, views)]
        by_shape: dict[tuple[int, ...], list[tuple[int, Look]]] = {}
        for item, look in looks:
            by_shape.setdefault(look.pixels.shape, []).append((item, look))
        candidates: list[list[Candidates]] = [[] for _ in photos]
        for members in by_shape.values():
            for some in _runs_of(members):
                pixels = [look.pixels for _, look in some]
                (outputs,) = self._engine.run(np.stack(pixels) if len(pixels) > 1 else pixels[0][None])
                for (item, look), output in zip(some, outputs, strict=True):
                    candidates[item].append(_read_output(output, look, threshold, min_face))
        return [merge_candidates(found) for found in candidates]

    def _turn_if_better(self, photo: Pixels, upright: FoundFaces) -> FoundFaces:
        """Search a photo turned where no upright face is sure and turned ones are, in sum surer than the upright."""
        if any(face.score >= SURE_SCORE for face in upright.faces):
            return upright
        (coarse,) = make_looks(photo, [COARSE_VIEW])
        width, height = coarse.size
        turned = [turn_photo(coarse.pixels[:height, :width], turns) for turns in (1, 2, 3)]
        scale = (width * height / (photo.shape[0] * photo.shape[1])) ** 0.5
        found = self._search(turned, [COARSE_VIEW], max(self._threshold, SURE_SCORE), self._min_face * scale)
        sums = [sum(face.score for face in each.faces) for each in found]
        if max(sums) <= sum(face.score for face in upright.faces):
            return upright
        turns = 1 + int(np.argmax(sums))
        (best,) = self._search([turn_photo(photo, turns)], VIEWS, self._threshold, self._min_face)
        size = photo.shape[1], photo.shape[0]
        return FoundFaces(
            tuple(turn_face_back(face, turns, size) for face in best.faces),
            tuple(replace(item, face=turn_face_back(item.face, turns, size)) for item in best.refused),
        )


def _runs_of(members: Sequence[tuple[int, Look]]) -> list[Sequence[tuple[int, Look]]]:
    """Splits looks of one shape into runs of the network that stay within `RUN_PIXELS`."""
    height, width = members[0][1].pixels.shape[:2]
    count = max(1, RUN_PIXELS // (height * width))
    return [members[start : start + count] for start in range(0, len(members), count)]


def _read_output(output: NDArray[np.float32], look: Look, threshold: float, min_face: float) -> Candidates:
    """Decode what the network says of one view and bring it into the photo's frame."""
    height, width = look.pixels.shape[:2]
    scores, boxes, landmarks = decode_faces(output, (height, width), max(threshold, look.view.least_score))
    sides = np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))
    middles = boxes.reshape(-1, 2, 2).mean(axis=1)  # [K 4] -> [K 2 2] -> [K 2]
    is_own = ((middles >= look.own_part[:2]) & (middles <= look.own_part[2:])).all(axis=1)
    boxes = map_points(look.to_photo, boxes.reshape(-1, 2)).reshape(-1, 4)  # [K 4] -> [2K 2] -> [K 4]
    landmarks = map_points(look.to_photo, landmarks.reshape(-1, 2)).reshape(-1, 5, 2)  # [K 5 2] -> [5K 2] -> [K 5 2]
    kept = is_own & (sides <= look.view.largest_face) & (boxes[:, 2] - boxes[:, 0] >= min_face)
    return Candidates(scores, boxes, landmarks, sides).take(kept)


def _key_of(state: Mapping[str, NDArray[Any]]) -> str:
    """Names the network of a state dict: by its weights, and by what builds it, `detection.network` and facexlib."""
    digest = hashlib.sha256((Path(__file__).parent / "detection" / "network.py").read_bytes())
    digest.update(version("facexlib").encode())
    for name, array in state.items():
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def build_detector(
    state: Mapping[str, NDArray[Any]],
    *,
    device: str,
    precision: str = "fp32",
    threshold: float,
    min_face: float,
    cache_folder: Path | None = None,
    rotations: bool = True,
) -> FaceDetector:
    """Build a detector from a state dict that has been read and verified.

    Args:
        state: Weights of facexlib's RetinaFace, MobileNet-0.25 or ResNet-50; which, is read from them.
        device: A concrete device, from `gfprestore.engine.resolve_device`.
        precision: `fp32`; or `bf16`, in which the compiled kernels multiply where that moves no landmark visibly.
        threshold: Least score of a face, 0 to 1.
        min_face: Least width of a face's box, in photo pixels.
        cache_folder: Where compiled models are kept between runs.
        rotations: Turn a photo in which no upright face is sure by 90, 180 and 270 degrees.

    Raises:
        WeightsError: These are not the weights of a RetinaFace.
    """
    # Training on several devices put that before the released names.
    state = {name.removeprefix("module."): array for name, array in state.items()}
    engine: Engine | None = build_native_detector(state, MEAN, precision) if device == "cpu" else None

    def build() -> nn.Module:
        # Here, since it needs torch, and facexlib brings torchvision along, which takes longer still.
        from gfprestore.detection.network import DetectionNetwork, load_network

        return DetectionNetwork(load_network(state)).eval()

    engine = engine or build_engine(
        build,
        (None, None, None, 3),
        input_dtype="uint8",
        device=device,
        precision="fp32",
        cache_folder=cache_folder,
        key=_key_of(state),
    )
    return FaceDetector(engine, threshold, min_face, rotations)
