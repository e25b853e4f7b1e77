"""Face recognition networks for the identity loss (GFP-GAN, arXiv:2101.04061, section 3.5, equation 7).

Two of them: the published training's ResNet-18, which sees the gray crop at 128 pixels, and InsightFace's
MobileFaceNet, which sees RGB at 112 pixels in ArcFace's own alignment. Both are ArcFace (arXiv:1801.07698).
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from gfprestore.errors import UsageError, WeightsError, printable
from gfprestore.evaluation.deg import crop_for_arcface, crop_for_gray


class ImprovedResidualBlock(nn.Module):
    """ArcFace's residual block: a normalisation before the first convolution, parametric ReLU (section 3.2.2)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.bn0 = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_in, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.prelu = nn.PReLU()
        self.conv2 = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride=stride, bias=False), nn.BatchNorm2d(channels_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        """[N I H W] -> [N O H/s W/s]."""
        out = self.prelu(self.bn1(self.conv1(self.bn0(x))))
        out = self.bn2(self.conv2(out)) + self.downsample(x)
        activated: Tensor = self.prelu(out)
        return activated


class ResNetArcFace(nn.Module):
    """The ResNet-18 of the published training; names as in `arcface_resnet18.pth`, where each carries `module.`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.prelu = nn.PReLU()
        self.layer1 = _layer(64, 64, 1)
        self.layer2 = _layer(64, 128, 2)
        self.layer3 = _layer(128, 256, 2)
        self.layer4 = _layer(256, 512, 2)
        self.bn4 = nn.BatchNorm2d(512)
        self.fc5 = nn.Linear(512 * 8 * 8, 512)
        self.bn5 = nn.BatchNorm1d(512)

    def forward(self, image: Tensor) -> Tensor:
        """Aligned faces RGB [N 3 S S] in [-1, 1] -> embeddings [N 512], of any length."""
        features = F.max_pool2d(self.prelu(self.bn1(self.conv1(crop_for_gray(image)))), 2)
        features = self.layer4(self.layer3(self.layer2(self.layer1(features))))
        embedding: Tensor = self.bn5(self.fc5(self.bn4(features).flatten(1)))
        return embedding


def _layer(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        ImprovedResidualBlock(channels_in, channels_out, stride), ImprovedResidualBlock(channels_out, channels_out, 1)
    )


class AlignedArcFace(nn.Module):
    """A network on ArcFace's crop, fed with crops in the generator's frame by a differentiable warp."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """Aligned faces RGB [N 3 S S] in [-1, 1] -> embeddings [N 512], of any length."""
        embedding: Tensor = self.network(crop_for_arcface(image))
        return embedding


def load_resnet_arcface(state: Mapping[str, Tensor]) -> ResNetArcFace:
    """Builds the ResNet-18.

    Raises:
        WeightsError: The state dict is another network's.
    """
    network = ResNetArcFace()
    # Old files carry no batch counters, which torch fills in and nothing reads.
    wanted, tensors = (
        {key.removeprefix("module."): value for key, value in held.items() if not key.endswith("num_batches_tracked")}
        for held in (network.state_dict(), state)
    )
    if tensors.keys() != wanted.keys() or any(tensors[key].shape != wanted[key].shape for key in wanted):
        raise WeightsError("These are not the weights of arcface_resnet18.pth: see losses.identity_weights.")
    network.load_state_dict({**network.state_dict(), **tensors})
    return network.eval().requires_grad_(False)


def load_onnx_arcface(path: Path) -> AlignedArcFace:
    """Turns an ONNX recognition network, input [N 3 112 112] RGB in [-1, 1], into a differentiable one.

    Raises:
        WeightsError: The file cannot be read, or is no network that can be turned into torch's.
        UsageError: The package onnx2torch is not installed.
    """
    if importlib.util.find_spec("onnx2torch") is None:
        raise UsageError("An identity network in ONNX needs the package onnx2torch: pip install onnx2torch.")
    if not path.is_file():
        raise WeightsError(f"The identity network {printable(path)} is missing: see losses.identity_weights.")
    with warnings.catch_warnings():
        # The converter's own dependencies warn about themselves.
        warnings.simplefilter("ignore")
        import onnx2torch
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
        from onnx.checker import ValidationError

        try:
            network = onnx2torch.convert(str(path))
        # The converter has no error of its own: a damaged file ends wherever its values first make no sense.
        except (DecodeError, ValidationError, OSError, RuntimeError, LookupError, ValueError, TypeError) as error:
            raise WeightsError(
                f"The identity network {printable(path)} is no readable ONNX network: see losses.identity_weights."
            ) from error
    return AlignedArcFace(network.eval().requires_grad_(False))
