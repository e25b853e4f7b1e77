"""Turn weights of the paper's architecture (GFPGANv1.pth) into the clean architecture's names and values.

The paper's network is StyleGAN2's: weights are stored at unit variance and scaled by `1/sqrt(fan in)` when used
(equalised learning rate), every leaky ReLU is followed by a gain of sqrt(2), and residual sums are divided by sqrt(2).
All of that is folded into the stored values here. Its resampling cannot be folded: the network is then built with
`Resampling.FIR`, which makes the conversion exact up to rounding, the border included.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from gfprestore.errors import WeightsError

PAPER_KEY = "conv_body_first.0.weight"
"""Every paper-style state dict has this key, and no clean one."""

GAIN = 2**0.5
"""After every leaky ReLU of the paper's network; it passes through, since the function is positively homogeneous."""

MLP_RATE = 0.01
"""The mapping network's learning rate multiplier, by which its weights and biases are scaled when used."""


@dataclass(frozen=True)
class Rule:
    """How one kind of tensor is converted."""

    pattern: str
    """Regular expression of the whole key."""

    key: str
    """The clean key, with `\\1` groups."""

    factor: float = 1.0
    """What the values are multiplied by."""

    is_equalised: bool = False
    """Multiply by `1/sqrt(fan in)` as well."""


_CONDITION = r"(condition_(?:scale|shift)\.\d+)"
_DECODER = r"stylegan_decoder\."
_STYLED = rf"({_DECODER}style_conv(?:1|s\.\d+))"

RULES = (
    # U-Net. A block's sum is divided by sqrt(2), which cancels the gain of its second convolution.
    Rule(r"(conv_body_first|final_conv)\.0\.weight", r"\1.weight", GAIN, True),
    Rule(r"(conv_body_first|final_conv)\.1\.bias", r"\1.bias", GAIN),
    Rule(r"(conv_body_(?:down|up)\.\d+\.conv1)\.0\.weight", r"\1.weight", GAIN, True),
    Rule(r"(conv_body_(?:down|up)\.\d+\.conv1)\.1\.bias", r"\1.bias", GAIN),
    Rule(r"(conv_body_down\.\d+\.conv2)\.1\.weight", r"\1.weight", 1, True),
    Rule(r"(conv_body_down\.\d+\.conv2)\.2\.bias", r"\1.bias"),
    Rule(r"(conv_body_down\.\d+\.skip)\.1\.weight", r"\1.weight", 1 / GAIN, True),
    Rule(r"(conv_body_up\.\d+\.conv2)\.weight", r"\1.weight", 1, True),
    Rule(r"(conv_body_up\.\d+\.conv2)\.activation\.bias", r"\1.bias"),
    Rule(r"(conv_body_up\.\d+\.skip)\.weight", r"\1.weight", 1 / GAIN, True),
    Rule(r"(toRGB\.\d+|final_linear)\.weight", r"\1.weight", 1, True),
    Rule(r"(toRGB\.\d+|final_linear)\.bias", r"\1.bias"),
    # CS-SFT: only the first of the two convolutions is activated.
    Rule(rf"{_CONDITION}\.0\.weight", r"\1.0.weight", GAIN, True),
    Rule(rf"{_CONDITION}\.0\.bias", r"\1.0.bias", GAIN),
    Rule(rf"{_CONDITION}\.2\.weight", r"\1.2.weight", 1, True),
    Rule(rf"{_CONDITION}\.2\.bias", r"\1.2.bias"),
    # StyleGAN2 decoder.
    Rule(rf"({_DECODER}.*\.modulation)\.weight", r"\1.weight", 1, True),
    Rule(rf"({_DECODER}.*\.modulation)\.bias", r"\1.bias"),
    Rule(rf"({_DECODER}.*\.modulated_conv)\.weight", r"\1.weight", 1, True),
    Rule(rf"{_STYLED}\.weight", r"\1.weight", GAIN),
    Rule(rf"{_STYLED}\.activate\.bias", r"\1.bias", GAIN),
    Rule(rf"({_DECODER}to_rgb(?:1|s\.\d+))\.bias", r"\1.bias"),
    Rule(rf"({_DECODER}(?:constant_input\.weight|noises\.noise\d+))", r"\1"),
    Rule(rf"({_DECODER}style_mlp\.\d+)\.weight", r"\1.weight", MLP_RATE * GAIN, True),
    Rule(rf"({_DECODER}style_mlp\.\d+)\.bias", r"\1.bias", MLP_RATE * GAIN),
)

_UPSAMPLING_KERNEL = re.compile(rf"{_DECODER}style_convs\.\d*[02468]\.modulated_conv\.weight")


def is_paper_style(state: Mapping[str, Tensor]) -> bool:
    """Whether a canonical state dict is of the paper's architecture."""
    return PAPER_KEY in state


def to_clean(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert a paper-style state dict, float32, to the clean names and values.

    Raises:
        WeightsError: A key belongs to no part of the network.
    """
    return dict(_convert(key, tensor) for key, tensor in state.items())


def _convert(key: str, tensor: Tensor) -> tuple[str, Tensor]:
    for rule in RULES:
        match = re.fullmatch(rule.pattern, key)
        if match:
            break
    else:
        raise WeightsError(
            f"These weights are not those of the paper's GFP-GAN: it has no {key!r}; try another --model."
        )
    factor = rule.factor
    if rule.is_equalised:
        fan_in = tensor[0].numel() if tensor.ndim < 5 else tensor[0, 0].numel()  # [O I ...] or [1 O I K K]
        factor *= fan_in**-0.5
    if _UPSAMPLING_KERNEL.fullmatch(key):
        # The paper upsamples with a transposed convolution, which reads its kernel backwards.
        tensor = tensor.flip(-1, -2)
    if rule.pattern.endswith(r"activate\.bias"):
        tensor = tensor[None, :, None, None]  # [1 C 1 1]
    return _renumber_mlp(match.expand(rule.key)), tensor * factor


def _renumber_mlp(key: str) -> str:
    """The clean mapping network counts its activations as layers of their own: n becomes 2n - 1."""
    return re.sub(r"(?<=style_mlp\.)\d+", lambda index: str(2 * int(index[0]) - 1), key)
