"""Inception-v3 of 2015, whose features FID is defined on (Szegedy et al., arXiv:1512.00567; Heusel et al., 1706.08500).

The original is a TensorFlow graph. Its port for torch has torchvision's layout, with two differences that decide the
figures: average pooling leaves the padding out of the mean, and the last block pools by maximum. It must match
`pt_inception-2015-12-05-6726825d.pth`, the file of the `pytorch-fid` and `torch-fidelity` projects.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import inception

from gfprestore.errors import WeightsError
from gfprestore.evaluation.network import load_torchscript

FEATURES = 2048
"""Length of a feature vector: the last pooling layer."""

INPUT_PIXELS = 299
"""Side of the network's input."""

_CLASSES = 1008
"""Outputs of the classifier in the file; it plays no part here."""


def _mean_pool(features: Tensor) -> Tensor:
    return functional.avg_pool2d(features, 3, stride=1, padding=1, count_include_pad=False)


class _BlockA(inception.InceptionA):  # type: ignore[misc]
    def _forward(self, x: Tensor) -> list[Tensor]:
        return [
            self.branch1x1(x),
            self.branch5x5_2(self.branch5x5_1(x)),
            self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x))),
            self.branch_pool(_mean_pool(x)),
        ]


class _BlockC(inception.InceptionC):  # type: ignore[misc]
    def _forward(self, x: Tensor) -> list[Tensor]:
        double = self.branch7x7dbl_2(self.branch7x7dbl_1(x))
        return [
            self.branch1x1(x),
            self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x))),
            self.branch7x7dbl_5(self.branch7x7dbl_4(self.branch7x7dbl_3(double))),
            self.branch_pool(_mean_pool(x)),
        ]


class _BlockE(inception.InceptionE):  # type: ignore[misc]
    pools_by_maximum = False

    def _forward(self, x: Tensor) -> list[Tensor]:
        single = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pooled = functional.max_pool2d(x, 3, stride=1, padding=1) if self.pools_by_maximum else _mean_pool(x)
        return [
            self.branch1x1(x),
            torch.cat([self.branch3x3_2a(single), self.branch3x3_2b(single)], 1),
            torch.cat([self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)], 1),
            self.branch_pool(pooled),
        ]


class _LastBlockE(_BlockE):
    pools_by_maximum = True


def build_inception() -> nn.Module:
    """Builds the network with random weights: float [N, 3, 299, 299] in [-1, 1] -> [N, 2048]."""
    blocks = [inception.BasicConv2d, _BlockA, inception.InceptionB, _BlockC, inception.InceptionD, _BlockE]
    network: nn.Module = inception.Inception3(
        num_classes=_CLASSES,
        aux_logits=False,
        init_weights=False,
        inception_blocks=[*blocks, inception.InceptionAux],
    )
    last = _LastBlockE(2048)
    network.Mixed_7c = last
    return network


class InceptionFeatures(nn.Module):
    """FID's features of images of any size."""

    def __init__(self, body: nn.Module) -> None:
        """Takes over a body that maps float [N, 3, 299, 299] in [-1, 1] to [N, 2048] (or [N, 2048, 1, 1])."""
        super().__init__()
        self.body = body

    def forward(self, images: Tensor) -> Tensor:
        """Computes features.

        Args:
            images: RGB uint8 [N, 3, H, W].

        Returns:
            float32 [N, 2048]. The images are resized to 299 bilinearly, pixel centres in place, without smoothing, as
            `pytorch-fid` and the published face restoration figures do.
        """
        inputs = images.float() / 127.5 - 1
        sides = (INPUT_PIXELS, INPUT_PIXELS)
        inputs = functional.interpolate(inputs, sides, mode="bilinear", align_corners=False)
        features: Tensor = self.body(inputs)
        return features.flatten(1)


def load_inception(weights: Mapping[str, Tensor]) -> InceptionFeatures:
    """Builds the network from the state dict of `pytorch-fid`'s file.

    Raises:
        WeightsError: The state dict is another network's.
    """
    network = build_inception()
    wanted = network.state_dict()
    # Old files carry no batch counters, and nothing reads them.
    missing = [key for key in wanted if key not in weights and not key.endswith("num_batches_tracked")]
    if missing or any(weights[key].shape != wanted[key].shape for key in wanted if key in weights):
        raise WeightsError("These are not pytorch-fid's Inception weights: see --metric-weights inception=FILE.")
    network.load_state_dict({key: weights.get(key, value) for key, value in wanted.items()})
    network.fc = nn.Identity()
    return InceptionFeatures(network.eval().requires_grad_(False))


def load_scripted_inception(path: Path) -> InceptionFeatures:
    """Loads a TorchScript network: float [N, 3, 299, 299] in [-1, 1] -> [N, 2048].

    Raises:
        WeightsError: The file is no TorchScript network, or gives another number of features.
    """
    features = InceptionFeatures(load_torchscript(path))
    with torch.inference_mode():
        given = features(torch.zeros(1, 3, INPUT_PIXELS, INPUT_PIXELS, dtype=torch.uint8)).shape[1]
    if given != FEATURES:
        raise WeightsError(f"{path} gives {given} features where FID's Inception gives {FEATURES}.")
    return features
