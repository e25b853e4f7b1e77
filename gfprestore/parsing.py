"""Parse faces into skin, eyes, hair and the rest, with facexlib's networks.

BiSeNet: Yu et al., "BiSeNet: Bilateral Segmentation Network for Real-time Semantic Segmentation", arXiv 1808.00897;
released weights `parsing_bisenet.pth`. ParseNet: the parsing branch of Chen et al., "Progressive Semantic-Aware Style
Transformation for Blind Face Restoration" (PSFR-GAN), arXiv 2009.08709; released weights `parsing_parsenet.pth`. Both
know the 19 classes of CelebAMask-HQ, in orders of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from gfprestore.blending.masks import FaceLabel, Labels
from gfprestore.engine import Engine, build_engine
from gfprestore.native.parser import build_native_parser

PARSER_SIZE = 512
"""Side of the crops that both networks were trained on, in pixels."""

CLASSES = 19

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
"""What BiSeNet's RGB input in 0..1 is normalised by."""


class FaceParser:
    """Labels the pixels of face crops. Holds no state but the network; may be used from several threads."""

    def __init__(self, engine: Engine, order: Sequence[FaceLabel]) -> None:
        """Wrap a network.

        Args:
            engine: Runs a `ParsingNetwork` on crops of PARSER_SIZE.
            order: What each of its classes shows.
        """
        self._engine = engine
        self._label_of_class = np.array(order, np.uint8)

    def parse(self, crops: Sequence[NDArray[np.uint8]]) -> list[Labels]:
        """Label one batch of faces.

        Args:
            crops: RGB uint8, each (S, S, 3), all of one size, in the face template's frame.

        Returns:
            As many arrays of `FaceLabel`, uint8 (S, S), in the same order.

        Raises:
            DeviceError: The device's memory does not hold even one face.
        """
        if not crops:
            return []
        size = crops[0].shape[0]
        (classes,) = self._engine.run(np.stack([_resize(crop, PARSER_SIZE, cv2.INTER_AREA) for crop in crops]))
        labels = self._label_of_class[classes]  # [N S S]
        return [_resize(one, size, cv2.INTER_NEAREST) for one in labels]


def build_parser(
    state: Mapping[str, NDArray[Any]], *, device: str, precision: str, cache_folder: Path | None = None
) -> FaceParser:
    """Build the parser that weights belong to.

    Args:
        state: Weights of facexlib's BiSeNet or ParseNet; which, is read from them.
        device: A concrete device, from `resolve_device`.
        precision: `fp32` or `bf16`, from `resolve_precision`.
        cache_folder: Where compiled models are kept between runs; None keeps nothing.

    Raises:
        WeightsError: The state dict is of neither network.
    """
    if device == "cpu":
        mean, deviation = (255 * np.array(of, np.float32) for of in (IMAGENET_MEAN, IMAGENET_DEVIATION))
        if native := build_native_parser(state, CLASSES, PARSER_SIZE, mean, deviation):
            return FaceParser(native, tuple(FaceLabel))
    # Here, since it needs torch, and facexlib's parsers bring all of torchvision's models along.
    from gfprestore.parsing_network import load_parsing_network

    network, order = load_parsing_network(state)
    engine = build_engine(
        network,
        (None, PARSER_SIZE, PARSER_SIZE, 3),
        input_dtype="uint8",
        device=device,
        precision=precision,
        cache_folder=cache_folder,
    )
    return FaceParser(engine, order)


def _resize(image: NDArray[np.uint8], size: int, interpolation: int) -> NDArray[np.uint8]:
    if image.shape[0] == size:
        return image
    return np.asarray(cv2.resize(image, (size, size), interpolation=interpolation), np.uint8)
