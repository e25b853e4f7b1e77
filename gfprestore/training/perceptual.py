"""Features that the perceptual losses compare: VGG-19 before its activations, and LPIPS."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gfprestore.errors import WeightsError

VGG_CONVOLUTIONS = (2, 2, 4, 4, 4)
"""Convolutions in each block of VGG-19 (arXiv:1409.1556, table 1, E), between poolings."""

VGG_CHANNELS = (64, 128, 256, 512, 512)
"""Their channels."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
"""torchvision's normalisation, for RGB in [0, 1]."""

NORM_FLOOR = 1e-10
"""Keeps the length of an all-zero feature from dividing by zero."""


class Vgg19Features(nn.Module):
    """The last convolution of each block of VGG-19 before its ReLU: conv1_2, conv2_2, conv3_4, conv4_4, conv5_4.

    Parameter names are torchvision's (`features.N.weight`).
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        self.taps: list[int] = []
        before = 3
        for count, channels in zip(VGG_CONVOLUTIONS, VGG_CHANNELS, strict=True):
            for _ in range(count):
                # Not in place: the tapped convolution's output is what the loss reads.
                layers += [nn.Conv2d(before, channels, 3, padding=1), nn.ReLU()]
                before = channels
            self.taps.append(len(layers) - 2)
            layers.append(nn.MaxPool2d(2, 2))
        # What comes after the last tap is never run.
        self.features = nn.Sequential(*layers[: self.taps[-1] + 1])
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor(IMAGENET_DEVIATION)[:, None, None], persistent=False)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Images RGB [N 3 H W] in [-1, 1] -> five features [N C h w], H, H/2, ... H/16."""
        features = ((image + 1) / 2 - self.mean) / self.deviation
        tapped = []
        for index, layer in enumerate(self.features):
            features = layer(features)
            if index in self.taps:
                tapped.append(features)
        return tapped


def load_vgg19(state: Mapping[str, Tensor]) -> Vgg19Features:
    """Builds the network with torchvision's weights.

    Args:
        state: State dict of torchvision's `vgg19` or of its features alone (`features.N.weight`).

    Raises:
        WeightsError: The state dict is another network's.
    """
    network = Vgg19Features()
    wanted = network.state_dict()
    for key, tensor in wanted.items():
        if key not in state or state[key].shape != tensor.shape:
            raise WeightsError(f"These are not torchvision's VGG-19 weights, which have {key!r}: see losses.vgg19.")
    network.load_state_dict({key: state[key].float() for key in wanted})
    return network.eval().requires_grad_(False)


class LpipsDistance(nn.Module):
    """LPIPS (arXiv:1801.03924) on a crop of the images, and, if asked to, on the whole of them as small as the crop.

    The small copy sees the whole face at a fraction of the full size's cost; the crop sees the texture.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        features: nn.Sequential,
        heads: Iterable[Tensor],
        taps: Sequence[int],
        *,
        shrink: int = 2,
        sees_whole: bool = True,
    ) -> None:
        """Takes a backbone.

        Args:
            features: Its layers.
            heads: Weights [1 C 1 1] of the channels at each tap.
            taps: Count of the layers before each comparison.
            shrink: Divides the images' side into the crop's.
            sees_whole: Whether to compare the whole images too, `shrink` times smaller.
        """
        super().__init__()
        self.features = features
        self.heads = nn.ParameterList(heads)
        self._taps = taps
        self._shrink = shrink
        self._sees_whole = sees_whole
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor(IMAGENET_DEVIATION)[:, None, None], persistent=False)

    def forward(self, output: Tensor, truth: Tensor, corner: tuple[float, float]) -> Tensor:
        """Measures the distance.

        Args:
            output: RGB [N 3 S S] in [-1, 1].
            truth: The same.
            corner: Upper left corner of the crop, each of x and y in 0 to 1 of where it can be.

        Returns:
            The sum of the views' means, a scalar.
        """
        side = output.shape[-1] // self._shrink
        left, top = (round(part * (output.shape[-1] - side)) for part in corner)
        views = []
        for image in (output, truth):
            parts = [image[..., top : top + side, left : left + side]]
            if self._sees_whole:
                parts.append(F.avg_pool2d(image, self._shrink))
            views.append(torch.cat(parts))
        with torch.no_grad():
            wanted = self.unit_features(views[1])
        terms = [
            ((found - want).square() * head).sum(1).mean()
            for found, want, head in zip(self.unit_features(views[0]), wanted, self.heads, strict=True)
        ]
        return (1 + self._sees_whole) * torch.stack(terms).sum()

    def unit_features(self, image: Tensor) -> list[Tensor]:
        """Features at every tap, scaled to length 1 over the channels."""
        features = ((image + 1) / 2 - self.mean) / self.deviation
        units = []
        for count, layer in enumerate(self.features, start=1):
            features = layer(features)
            if count in self._taps:
                plain = features.float()
                # Under the root, where the metric adds it after: the root of nothing has no gradient.
                units.append(plain * (plain.square().sum(1, keepdim=True) + NORM_FLOOR).rsqrt())
        return units
