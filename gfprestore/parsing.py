"""Parse faces into skin, eyes, hair and the rest, with facexlib's networks.

BiSeNet: Yu et al., "BiSeNet: Bilateral Segmentation Network for Real-time Semantic Segmentation", arXiv 1808.00897;
released weights `parsing_bisenet.pth`. ParseNet: the parsing branch of Chen et al., "Progressive Semantic-Aware Style
Transformation for Blind Face Restoration" (PSFR-GAN), arXiv 2009.08709; released weights `parsing_parsenet.pth`. Both
know the 19 classes of CelebAMask-HQ, in orders of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from gfprestore.blending.masks import FaceLabel, Labels
from gfprestore.engine import Engine, build_engine
from gfprestore.errors import WeightsError
from gfprestore.native.parser import build_native_parser

PARSER_SIZE = 512
"""Side of the crops that both networks were trained on, in pixels."""

_CLASSES = 19

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
"""What BiSeNet's RGB input in 0..1 is normalised by."""

PARSENET_LABELS = (
    FaceLabel.BACKGROUND,
    FaceLabel.SKIN,
    FaceLabel.NOSE,
    FaceLabel.GLASSES,
    FaceLabel.LEFT_EYE,
    FaceLabel.RIGHT_EYE,
    FaceLabel.LEFT_BROW,
    FaceLabel.RIGHT_BROW,
    FaceLabel.LEFT_EAR,
    FaceLabel.RIGHT_EAR,
    FaceLabel.MOUTH,
    FaceLabel.UPPER_LIP,
    FaceLabel.LOWER_LIP,
    FaceLabel.HAIR,
    FaceLabel.HAT,
    FaceLabel.EARRING,
    FaceLabel.NECKLACE,
    FaceLabel.NECK,
    FaceLabel.CLOTHES,
)
"""What each of ParseNet's classes shows, in its order."""


class _PoolingAsMean(TorchFunctionMode):
    """Does BiSeNet's pooling, all of it over whole planes, as a mean.

    Pooling by a size that is computed from the input has no form in an OpenVINO graph.
    """

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function is functional.avg_pool2d:
            return args[0].mean((2, 3), keepdim=True)
        return function(*args, **(kwargs or {}))


class ParsingNetwork(nn.Module):
    """A parser on pixels: RGB uint8 [N S S 3] -> classes uint8 [N S S], in the network's own order.

    The classes are found where the scores are: these take 76 times the room.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], deviation: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        # One multiplication and one sum per pixel: (p / 255 - mean) / deviation.
        self.register_buffer("scale", 1 / (255 * torch.tensor(deviation))[:, None, None])
        self.register_buffer("shift", -(torch.tensor(mean) / torch.tensor(deviation))[:, None, None])

    def forward(self, pixels: Tensor) -> Tensor:
        """The class of the highest score."""
        return self.scores(pixels).argmax(1).byte()

    def scores(self, pixels: Tensor) -> Tensor:
        """Normalise and score, -> float [N 19 S S]; auxiliary outputs are left out."""
        image = pixels.permute(0, 3, 1, 2).float()  # [N 3 S S]
        with _PoolingAsMean():
            scores: Tensor = self.network(image * self.scale + self.shift)[0]
        return scores


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
    state: Mapping[str, Tensor], *, device: str, precision: str, cache_folder: Path | None = None
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
        mean, deviation = (255 * np.array(of, np.float32) for of in (_IMAGENET_MEAN, _IMAGENET_DEVIATION))
        if native := build_native_parser(state, _CLASSES, PARSER_SIZE, mean, deviation):
            return FaceParser(native, tuple(FaceLabel))
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


def load_parsing_network(state: Mapping[str, Tensor]) -> tuple[ParsingNetwork, Sequence[FaceLabel]]:
    """Build facexlib's network for a state dict, on the CPU, in evaluation mode.

    Args:
        state: Name -> tensor of any float type.

    Returns:
        The network and what each of its classes shows.

    Raises:
        WeightsError: The state dict is of neither network.
    """
    # Here, since they bring all of torchvision's models along, which the kernels do not need.
    from facexlib.parsing.bisenet import BiSeNet
    from facexlib.parsing.parsenet import ParseNet

    network: nn.Module
    if "cp.resnet.conv1.weight" in state:
        network, order = BiSeNet(num_class=_CLASSES), tuple(FaceLabel)
        wrapped = ParsingNetwork(network, _IMAGENET_MEAN, _IMAGENET_DEVIATION)
    elif "out_mask_conv.conv2d.weight" in state:
        network, order = ParseNet(in_size=PARSER_SIZE, out_size=PARSER_SIZE, parsing_ch=_CLASSES), PARSENET_LABELS
        wrapped = ParsingNetwork(network, (0.5,) * 3, (0.5,) * 3)
    else:
        raise WeightsError("These are not the weights of a face parser: BiSeNet's or ParseNet's of facexlib are.")
    try:
        network.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    except RuntimeError as error:
        raise WeightsError(f"The weights do not fit facexlib's {type(network).__name__}.") from error
    return wrapped.eval(), order


def _resize(image: NDArray[np.uint8], size: int, interpolation: int) -> NDArray[np.uint8]:
    if image.shape[0] == size:
        return image
    return np.asarray(cv2.resize(image, (size, size), interpolation=interpolation), np.uint8)
