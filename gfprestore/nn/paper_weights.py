"""Turn weights of the paper's architecture (GFPGANv1.pth) into the clean architecture's names and values.

The paper's network is StyleGAN2's: weights are stored at unit variance and scaled by `1/sqrt(fan in)` when used
(equalised learning rate), every leaky ReLU is followed by a gain of sqrt(2), and residual sums are divided by sqrt(2).
All of that is folded into the stored values here. Its resampling cannot be folded: the network is then built with
`Resampling.FIR`, which makes the conversion exact up to rounding, the border included.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gfprestore.errors import WeightsError

PAPER_KEY = "conv_body_first.0.weight"
"""Every paper-style state dict has this key, and no clean one."""

Floats = NDArray[np.float32]

GAIN = 2**0.5
"""After every leaky ReLU of the paper's network; it passes through, since the function is positively homogeneous."""

MLP_RATE = 0.01
"""The mapping network's learning rate multiplier, by which its weights and biases are scaled when used."""


@dataclass(frozen=True)
class Rule:
    """How one kind of tensor is converted; both keys are the part's and an ending."""

    part: str
    """Regular expression of what both keys begin with."""

    stored: str
    """Ending of the paper's key."""

    clean: str
    """Ending of the clean key."""

    factor: float = 1.0
    """What the values are multiplied by."""

    is_equalised: bool = False
    """Multiply by `1/sqrt(fan in)` as well."""

    def factor_of(self, shape: tuple[int, ...]) -> float:
        """What the values of an array of this shape, of either form, are multiplied by to become clean ones."""
        if not self.is_equalised:
            return self.factor
        fan_in = math.prod(shape[1:] if len(shape) < 5 else shape[2:])  # [O I ...] or [1 O I K K]
        return float(self.factor * fan_in**-0.5)


_DECODER = r"stylegan_decoder\."
_BLOCK = r"conv_body_(?:down|up)\.\d+\."
_CONDITION = r"condition_(?:scale|shift)\.\d+"
_STYLED = rf"{_DECODER}style_conv(?:1|s\.\d+)"

RULES = (
    # U-Net. A block's sum is divided by sqrt(2), which cancels the gain of its second convolution.
    Rule(r"(?:conv_body_first|final_conv)", ".0.weight", ".weight", GAIN, True),
    Rule(r"(?:conv_body_first|final_conv)", ".1.bias", ".bias", GAIN),
    Rule(rf"{_BLOCK}conv1", ".0.weight", ".weight", GAIN, True),
    Rule(rf"{_BLOCK}conv1", ".1.bias", ".bias", GAIN),
    Rule(r"conv_body_down\.\d+\.conv2", ".1.weight", ".weight", 1, True),
    Rule(r"conv_body_down\.\d+\.conv2", ".2.bias", ".bias"),
    Rule(r"conv_body_down\.\d+\.skip", ".1.weight", ".weight", 1 / GAIN, True),
    Rule(r"conv_body_up\.\d+\.conv2", ".weight", ".weight", 1, True),
    Rule(r"conv_body_up\.\d+\.conv2", ".activation.bias", ".bias"),
    Rule(r"conv_body_up\.\d+\.skip", ".weight", ".weight", 1 / GAIN, True),
    Rule(r"(?:toRGB\.\d+|final_linear)", ".weight", ".weight", 1, True),
    Rule(r"(?:toRGB\.\d+|final_linear)", ".bias", ".bias"),
    # CS-SFT: only the first of the two convolutions is activated.
    Rule(_CONDITION, ".0.weight", ".0.weight", GAIN, True),
    Rule(_CONDITION, ".0.bias", ".0.bias", GAIN),
    Rule(_CONDITION, ".2.weight", ".2.weight", 1, True),
    Rule(_CONDITION, ".2.bias", ".2.bias"),
    # StyleGAN2 decoder.
    Rule(rf"{_DECODER}.*\.modulation", ".weight", ".weight", 1, True),
    Rule(rf"{_DECODER}.*\.modulation", ".bias", ".bias"),
    Rule(rf"{_DECODER}.*\.modulated_conv", ".weight", ".weight", 1, True),
    Rule(_STYLED, ".weight", ".weight", GAIN),
    Rule(_STYLED, ".activate.bias", ".bias", GAIN),
    Rule(rf"{_DECODER}to_rgb(?:1|s\.\d+)", ".bias", ".bias"),
    Rule(rf"{_DECODER}(?:constant_input\.weight|noises\.noise\d+)", "", ""),
    # The paper's index here is another than the clean one: see `_renumber_mlp`.
    Rule(rf"{_DECODER}style_mlp\.\d+", ".weight", ".weight", MLP_RATE * GAIN, True),
    Rule(rf"{_DECODER}style_mlp\.\d+", ".bias", ".bias", MLP_RATE * GAIN),
)

_UPSAMPLING_KERNEL = re.compile(rf"{_DECODER}style_convs\.\d*[02468]\.modulated_conv\.weight")


def is_paper_style(state: Mapping[str, object]) -> bool:
    """Whether a canonical state dict is of the paper's architecture."""
    return PAPER_KEY in state


def to_clean(state: Mapping[str, Floats]) -> dict[str, Floats]:
    """Convert a paper-style state dict, float32, to the clean names and values.

    Raises:
        WeightsError: A key belongs to no part of the network.
    """
    return dict(_convert(key, array) for key, array in state.items())


def clean_factor(key: str, shape: tuple[int, ...]) -> float:
    """What one value of the clean network is in terms of the paper's stored one.

    Args:
        key: Clean name of a parameter, with `stylegan_decoder.` in front of the decoder's.
        shape: The parameter's.

    Raises:
        KeyError: The network has no such parameter.
    """
    for rule in RULES:
        if re.fullmatch(rule.part + re.escape(rule.clean), key):
            return rule.factor_of(shape)
    raise KeyError(key)


def _convert(key: str, array: Floats) -> tuple[str, Floats]:
    for rule in RULES:
        match = re.fullmatch(f"({rule.part}){re.escape(rule.stored)}", key)
        if match:
            break
    else:
        raise WeightsError(
            f"These weights are not those of the paper's GFP-GAN: it has no {key!r}; try another --model."
        )
    factor = rule.factor_of(array.shape)
    if _UPSAMPLING_KERNEL.fullmatch(key):
        # The paper upsamples with a transposed convolution, which reads its kernel backwards.
        array = array[..., ::-1, ::-1]
    if rule.stored == ".activate.bias":
        array = array[None, :, None, None]  # [1 C 1 1]
    return _renumber_mlp(match[1] + rule.clean), np.ascontiguousarray(array * np.float32(factor))


def _renumber_mlp(key: str) -> str:
    """The clean mapping network counts its activations as layers of their own: n becomes 2n - 1."""
    return re.sub(r"(?<=style_mlp\.)\d+", lambda index: str(2 * int(index[0]) - 1), key)
