"""The convolutions of facexlib's RetinaFace (arXiv:1905.00641), read off its state dict and packed for the kernels.

Joined here are the normalisations with their convolutions, convolutions of one input with each other, and the heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gfprestore.native.convolutions import Kernel, Layers, Product
from gfprestore.native.library import Library
from gfprestore.native.operands import CHANNELS, Array

ROW = 15
"""Numbers for a prior: score, four of the box, ten of the landmarks."""

PRIORS = 2
"""Priors of every place."""

LEAK = 0.1
"""Slope below zero of all layers with MobileNet; ResNet's cut off at zero."""


class Separable(NamedTuple):
    """A convolution of every channel by itself and one across them."""

    filters: NDArray[np.float32]
    product: Product
    pace: int


class Bottleneck(NamedTuple):
    """A block of ResNet-50 (arXiv:1512.03385)."""

    narrow: Product
    middle: Kernel | Product
    """Tiled, or a product where it halves its input."""

    wide: Product
    shortcut: Product | None
    pace: int


class Context(NamedTuple):
    """SSH (arXiv:1708.03979), the layers that look around on one level: wide, 3x3 twice, 3x3 three times."""

    first: Kernel
    second: Kernel
    third: Kernel
    slopes: tuple[Array, Array]
    """Of the first two, by channel: what ends there is cut off at zero."""

    width: int
    """A quarter of the features that they make together."""


class Retinaface:
    """The convolutions of a RetinaFace.

    In bfloat16 the backbone of ResNet-50 and the pyramid multiply, which is nearly all of the work: landmarks move by
    0.3 % of the eyes' distance (the backbone's features so rounded in MobileNet's, on 54 faces of photos). What looks
    around and the heads stay in float: with them they would move by up to 15 %. MobileNet gains nothing.
    """

    def __init__(self, state: Mapping[str, NDArray[Any]], library: Library, precision: str) -> None:
        """Read and pack them.

        Args:
            state: Its weights.
            library: The kernels to pack them for.
            precision: `fp32`, or `bf16` for what gains by it.

        Raises:
            KeyError: Layers are missing.
            ValueError: Layers are too many or have other shapes: this is another network.
        """
        self.is_mobile = "body.stage1.0.0.weight" in state
        self.half = precision == "bf16" and not self.is_mobile
        """Whether any of it multiplies in bfloat16."""
        layers = Layers(state, library, self.half)
        if self.is_mobile:
            stem, width, widths = layers.fused("body.stage1.0.0", "body.stage1.0.1", 8, CHANNELS, 3), 64, (64, 128, 256)
        else:
            stem, width, widths = layers.fused("body.conv1", "body.bn1", 64, CHANNELS, 7), 256, (512, 1024, 2048)
        self.stem = layers.product(Kernel(stem.weight[:, ::-1], stem.bias), exact=True)  # photos are RGB, it takes BGR
        self.stages = _read_mobile(layers) if self.is_mobile else _read_resnet(layers)
        self.slope = LEAK if self.is_mobile else 0.0
        """Below zero, of the layers after the backbone."""

        self.laterals = [
            layers.backbone_product(layers.fused(f"fpn.output{i}.0", f"fpn.output{i}.1", width, inputs, 1))
            for i, inputs in enumerate(widths, 1)
        ]
        self.merges = [
            layers.tiled(layers.fused(f"fpn.merge{i}.0", f"fpn.merge{i}.1", width, width, 3)) for i in (1, 2)
        ]
        self.contexts = [_read_context(layers, f"ssh{i}", width, self.slope) for i in (1, 2, 3)]
        self.heads = [_read_head(layers, level, width) for level in range(3)]
        layers.require_all_read()


def _read_mobile(layers: Layers) -> list[list[Separable]]:
    """MobileNet-0.25's blocks (arXiv:1704.04861) by stage: after what width, and whether they halve their input."""
    inputs, stages = 8, []
    for stage, first, widths, halving in (
        (1, 1, (16, 32, 32, 64, 64), (1, 3)),
        (2, 0, (128,) * 6, (0,)),
        (3, 0, (256,) * 2, (0,)),
    ):
        blocks = []
        for block, width in enumerate(widths):
            name = f"body.stage{stage}.{first + block}"
            own = layers.fused(f"{name}.0", f"{name}.1", inputs, 1, 3)
            across = layers.fused(f"{name}.3", f"{name}.4", width, inputs, 1)
            pace = 2 if block in halving else 1
            blocks.append(Separable(layers.filters(own), layers.product(across, exact=True), pace))
            inputs = width
        stages.append(blocks)
    return stages


def _read_resnet(layers: Layers) -> list[list[Bottleneck]]:
    """ResNet-50's stages, of which the first two give their features together as the finest level."""
    inputs, stages = 64, []
    for stage, count in ((1, 3), (2, 4), (3, 6), (4, 3)):
        width = 32 * 2**stage
        blocks = []
        for block in range(count):
            blocks.append(_read_bottleneck(layers, f"body.layer{stage}.{block}", inputs, width, stage > 1))
            inputs = 4 * width
        stages.append(blocks)
    return [stages[0] + stages[1], *stages[2:]]


def _read_bottleneck(layers: Layers, name: str, inputs: int, width: int, halves: bool) -> Bottleneck:
    """A block; where its input has not the width of its result it is the first of a stage, and may halve it."""
    is_first = inputs != 4 * width
    pace = 2 if is_first and halves else 1
    narrow = layers.fused(f"{name}.conv1", f"{name}.bn1", width, inputs, 1)
    middle = layers.fused(f"{name}.conv2", f"{name}.bn2", width, width, 3)
    wide = layers.fused(f"{name}.conv3", f"{name}.bn3", 4 * width, width, 1)
    shortcut = None
    if is_first:
        shortcut = layers.backbone_product(
            layers.fused(f"{name}.downsample.0", f"{name}.downsample.1", 4 * width, inputs, 1)
        )
    packed = layers.backbone_product(middle) if pace > 1 else layers.tiled(middle)
    return Bottleneck(layers.backbone_product(narrow), packed, layers.backbone_product(wide), shortcut, pace)


def _read_context(layers: Layers, name: str, width: int, slope: float) -> Context:
    half, quarter = width // 2, width // 4
    wide, twice, again, fourth, fifth = (
        layers.fused(f"{name}.{part}.0", f"{name}.{part}.1", outputs, inputs, 3)
        for part, outputs, inputs in (
            ("conv3X3", half, width),
            ("conv5X5_1", quarter, width),
            ("conv5X5_2", quarter, quarter),
            ("conv7X7_2", quarter, quarter),
            ("conv7x7_3", quarter, quarter),
        )
    )
    first, second = layers.tiled(wide, twice), layers.tiled(fourth, again)
    slopes = [np.full(len(kernel.bias), slope, np.float32) for kernel in (first, second)]
    slopes[0][:half], slopes[1][quarter:half] = 0, 0
    return Context(first, second, layers.tiled(fifth), (slopes[0], slopes[1]), quarter)


def _read_head(layers: Layers, level: int, width: int) -> Product:
    """The heads of one level as one product, in the order of its input and of the rows that it gives."""
    score, box, landmarks = (
        _read_part(layers, f"{kind}Head.{level}.conv1x1", numbers, width)
        for kind, numbers in (("Class", 2), ("Bbox", 4), ("Landmark", 10))
    )
    # Of two classes only how much the second exceeds the first counts.
    score = Kernel(*(array[:, 1:] - array[:, :1] for array in score))
    weight, bias = (np.concatenate(parts, axis=1) for parts in zip(score, box, landmarks, strict=True))
    weight, bias = weight.reshape(-1, width), bias.ravel()  # [A 15 I] -> [A15 I]
    # Officially 3x3, 5x5, 7x7; in memory the half lies between the quarters.
    half, quarter = width // 2, width // 4
    order = [*range(half, half + quarter), *range(half), *range(half + quarter, width)]
    return layers.product(Kernel(weight[:, order, None, None], bias))


def _read_part(layers: Layers, name: str, numbers: int, inputs: int) -> Kernel:
    """A 1x1 convolution [A numbers, I, 1, 1] as [A numbers I], its bias as [A numbers]."""
    weight = layers.read(f"{name}.weight", PRIORS * numbers, inputs, 1, 1).reshape(PRIORS, numbers, inputs)
    return Kernel(weight, layers.read(f"{name}.bias", PRIORS * numbers).reshape(PRIORS, numbers))
