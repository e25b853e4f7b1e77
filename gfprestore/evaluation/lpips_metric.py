"""LPIPS v0.1: a distance of deep features, with AlexNet or VGG-16.

Source: Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", arXiv:1801.03924.

Protocol `lpips-vgg` and `lpips-alex`: RGB in [-1, 1], at the images' own size, no resizing; the mean over the map, then
the sum over five layers, as the `lpips` package computes it. The published face restoration tables use VGG. The feature
weights are torchvision's; the heads that weigh the channels are those of the `lpips` package.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gfprestore.errors import UsageError, WeightsError
from gfprestore.evaluation.batch import ImageBatch, as_array
from gfprestore.evaluation.network import MetricNetwork

Backbone = Literal["alex", "vgg"]

_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
"""The input's normalisation, for RGB in [-1, 1] (section 2.1 of the package's documentation)."""

_NORM_FLOOR = 1e-10
"""Keeps the normalisation of an all-zero feature finite."""

_CHANNELS: dict[Backbone, tuple[int, ...]] = {"alex": (64, 192, 384, 256, 256), "vgg": (64, 128, 256, 512, 512)}

LEAST_SIDE: Mapping[Backbone, int] = {"alex": 31, "vgg": 16}
"""Side in pixels under which a pooling layer has nothing left to pool."""


def _alexnet_slices() -> list[list[nn.Module]]:
    """Layers up to each tap, numbered through as in torchvision's `alexnet().features`."""
    return [
        [nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU()],
        [nn.MaxPool2d(3, 2), nn.Conv2d(64, 192, 5, padding=2), nn.ReLU()],
        [nn.MaxPool2d(3, 2), nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()],
        [nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()],
        [nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()],
    ]


def _vgg16_slices() -> list[list[nn.Module]]:
    """Layers up to each tap, numbered through as in torchvision's `vgg16().features`."""
    slices: list[list[nn.Module]] = []
    before = 3
    for channels, convolutions in zip(_CHANNELS["vgg"], (2, 2, 3, 3, 3), strict=True):
        layers: list[nn.Module] = [nn.MaxPool2d(2, 2)] if slices else []
        for _ in range(convolutions):
            layers += [nn.Conv2d(before, channels, 3, padding=1), nn.ReLU()]
            before = channels
        slices.append(layers)
    return slices


class LpipsNetwork(nn.Module):
    """Distances of several images to one truth, in one pass over the features of all of them."""

    _shift: Tensor
    _scale: Tensor

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        slices = _alexnet_slices() if backbone == "alex" else _vgg16_slices()
        self.features = nn.Sequential(*(layer for layers in slices for layer in layers))
        self.taps = [sum(map(len, slices[: index + 1])) for index in range(len(slices))]
        self.heads = nn.ParameterList(nn.Parameter(torch.ones(1, c, 1, 1)) for c in _CHANNELS[backbone])
        self.register_buffer("_shift", torch.tensor(_SHIFT)[:, None, None], persistent=False)
        self.register_buffer("_scale", torch.tensor(_SCALE)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Measures distances.

        Args:
            images: RGB uint8 [N, 1 + M, 3, H, W]: the truth, then M images to compare with it.

        Returns:
            float32 [N, M], 0 for equal images.
        """
        return self.distances(images.float() / 127.5 - 1)

    def distances(self, images: Tensor) -> Tensor:
        """Measures distances of images in [-1, 1]; gradients flow.

        Args:
            images: RGB float [N, 1 + M, 3, H, W] in [-1, 1]: the truth, then M images to compare with it.

        Returns:
            float32 [N, M].
        """
        kinds = images.shape[1]
        features = (images.flatten(0, 1) - self._shift) / self._scale  # [N*K 3 H W]
        total = torch.zeros(len(images), kinds - 1, device=images.device)
        start = 0
        for tap, head in zip(self.taps, self.heads, strict=True):
            for layer in self.features[start:tap]:
                features = layer(features)
            start = tap
            total = total + _tap_distance(features, head, kinds)
        return total


def _tap_distance(features: Tensor, head: Tensor, kinds: int) -> Tensor:
    """Distance at one layer, equation 1 of the paper, [N, M].

    Args:
        features: [N*K, C, h, w].
        head: Weights of the channels, [1, C, 1, 1].
        kinds: K.
    """
    unit = features / (features.square().sum(1, keepdim=True).sqrt() + _NORM_FLOOR)
    unit = unit.reshape(-1, kinds, *unit.shape[1:])  # [N K C h w]
    difference: Tensor = (unit[:, 1:] - unit[:, :1]).square()
    return (difference * head).sum(2).mean((2, 3))


def load_lpips(backbone: Backbone, features: Mapping[str, Tensor]) -> LpipsNetwork:
    """Builds the network with torchvision's features and the heads of the `lpips` package.

    Args:
        backbone: `alex` or `vgg`.
        features: State dict of torchvision's whole network or of its features alone (`features.0.weight`, ...), in
            any floating type; the classifier is not needed.

    Raises:
        WeightsError: The state dict is not that network's.
        UsageError: The `lpips` package is not installed.
    """
    network = LpipsNetwork(backbone)
    wanted = network.features.state_dict()
    found = {key.removeprefix("features."): value for key, value in features.items() if key.startswith("features.")}
    if found.keys() != wanted.keys() or any(found[key].shape != wanted[key].shape for key in wanted):
        raise WeightsError(f"These are not torchvision's weights of the LPIPS backbone {backbone!r}: see --weights.")
    network.features.load_state_dict({key: value.float() for key, value in found.items()})
    heads = torch.load(_heads_file(backbone), map_location="cpu", weights_only=True)
    for index, head in enumerate(network.heads):
        head.data.copy_(heads[f"lin{index}.model.1.weight"])
    return network.eval().requires_grad_(False)


def _heads_file(backbone: Backbone) -> Path:
    spec = importlib.util.find_spec("lpips")
    if spec is None or spec.origin is None:
        raise UsageError("LPIPS needs the package lpips: pip install 'gfprestore[eval]', or name other --metrics.")
    return Path(spec.origin).parent / "weights" / "v0.1" / f"{backbone}.pth"


class LpipsMetric:
    """LPIPS of the restored images to the truth; the column is `lpips-` and the backbone."""

    def __init__(self, backbone: Backbone, network: MetricNetwork) -> None:
        self._column = f"lpips-{backbone}"
        self._least_side = LEAST_SIDE[backbone]
        self._network = network

    def measure(self, batch: ImageBatch) -> dict[str, NDArray[np.float64]]:
        """Measures a batch; see `Metric`. Images smaller than the network takes are NaN."""
        if min(batch.size) < self._least_side:
            return {self._column: batch.unmeasured()}
        return {self._column: as_array(self._network.run(batch.truth_and_restored))}
