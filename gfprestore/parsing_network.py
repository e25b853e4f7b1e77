"""facexlib's face parsers in torch: for a GPU, and where the compiled kernels do not run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from facexlib.parsing.bisenet import BiSeNet
from facexlib.parsing.parsenet import ParseNet
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from gfprestore.blending.masks import FaceLabel
from gfprestore.errors import WeightsError
from gfprestore.nn.tensors import as_tensors
from gfprestore.parsing import CLASSES, IMAGENET_DEVIATION, IMAGENET_MEAN, PARSER_SIZE

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


def load_parsing_network(state: Mapping[str, Any]) -> tuple[ParsingNetwork, Sequence[FaceLabel]]:
    """Build facexlib's network for a state dict, on the CPU, in evaluation mode.

    Args:
        state: Name -> array or tensor of any float type.

    Returns:
        The network and what each of its classes shows.

    Raises:
        WeightsError: The state dict is of neither network.
    """
    network: nn.Module
    if "cp.resnet.conv1.weight" in state:
        network, order = BiSeNet(num_class=CLASSES), tuple(FaceLabel)
        wrapped = ParsingNetwork(network, IMAGENET_MEAN, IMAGENET_DEVIATION)
    elif "out_mask_conv.conv2d.weight" in state:
        network, order = ParseNet(in_size=PARSER_SIZE, out_size=PARSER_SIZE, parsing_ch=CLASSES), PARSENET_LABELS
        wrapped = ParsingNetwork(network, (0.5,) * 3, (0.5,) * 3)
    else:
        raise WeightsError("These are not the weights of a face parser: BiSeNet's or ParseNet's of facexlib are.")
    try:
        network.load_state_dict({name: tensor.float() for name, tensor in as_tensors(state).items()})
    except RuntimeError as error:
        raise WeightsError(f"The weights do not fit facexlib's {type(network).__name__}.") from error
    return wrapped.eval(), order
