"""State dict in, network out: one canonical form, hyperparameters read from tensor shapes, a strict load."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gfprestore.errors import WeightsError
from gfprestore.nn.gfpgan import FIR_MARK, Gfpgan, GfpganShape, Sft
from gfprestore.nn.layers import Resampling
from gfprestore.nn.paper_weights import is_paper_style, to_clean

WRAPPERS = ("params_ema", "params", "state_dict")
"""Keys under which training programs store a state dict; the averaged weights come first."""

MOST_LEVELS = 10
"""Doublings from 4 pixels that are still believable: 4096 pixels. Released weights have 7."""

_HELP = "take another --model, or fetch the file anew with gfprestore-weights fetch."


def load_gfpgan(state: Mapping[str, Any]) -> Gfpgan:
    """Build the network that a state dict belongs to.

    Args:
        state: Clean weights (v1.2 to v1.4, the shipped ones) or the paper's (v1), bare or under `params_ema`, `params`
            or `state_dict`; any floating dtype.

    Returns:
        The network on the CPU, float32, in evaluation mode. Its parameters share memory with `state` where that is
        float32 already, so that a memory-mapped file is not copied.

    Raises:
        WeightsError: The state dict is damaged or of another network.
    """
    tensors = _canonical(state)
    if is_paper_style(tensors):
        tensors = to_clean(tensors) | {FIR_MARK: torch.ones(1)}
    shape = _deduce(tensors, Resampling.FIR if FIR_MARK in tensors else Resampling.BILINEAR)
    with torch.device("meta"):
        network = Gfpgan(shape)
    _check(tensors, network.state_dict())
    network.load_state_dict(tensors, strict=True, assign=True)
    return network.eval().requires_grad_(False)


def _canonical(state: Any) -> dict[str, Tensor]:
    """Unwrap, take off a `module.` in front, and make everything float32."""
    for wrapper in WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
            break
    if not isinstance(state, Mapping) or not state:
        raise WeightsError(f"This file holds no state dict of a network: {_HELP}")
    tensors = {}
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, Tensor) or not value.is_floating_point():
            raise WeightsError(f"The weights' entry {key!r} is not a tensor of real numbers: {_HELP}")
        least, most = torch.aminmax(value) if value.numel() else (torch.zeros(()), torch.zeros(()))
        if not bool(
            torch.isfinite(least) & torch.isfinite(most)
        ):  # one pass over the memory, where isfinite takes four
            raise WeightsError(f"The weights' entry {key!r} holds values that are not finite: {_HELP}")
        tensors[key.removeprefix("module.")] = value.detach().float()
    return tensors


def _sizes(tensors: Mapping[str, Tensor], key: str, axes: int) -> tuple[int, ...]:
    """Shape of one tensor, whose number of axes must be right."""
    if key not in tensors:
        raise WeightsError(f"These are not the weights of a GFP-GAN, which have an entry {key!r}: {_HELP}")
    sizes = tuple(tensors[key].shape)
    if len(sizes) != axes or 0 in sizes:
        raise WeightsError(f"The weights' entry {key!r} has a shape that no GFP-GAN has, {sizes}: {_HELP}")
    return sizes


def _deduce(tensors: Mapping[str, Tensor], resampling: Resampling) -> GfpganShape:
    """Read every hyperparameter but the resampling from the tensors' shapes."""
    unet_widths = [_sizes(tensors, "final_conv.weight", 4)[0]]
    decoder_widths = [_sizes(tensors, "stylegan_decoder.style_conv1.modulated_conv.weight", 5)[1]]
    while (key := f"conv_body_up.{len(unet_widths) - 1}.conv2.weight") in tensors and len(unet_widths) <= MOST_LEVELS:
        decoder_key = f"stylegan_decoder.style_convs.{2 * len(decoder_widths) - 2}.modulated_conv.weight"
        unet_widths.append(_sizes(tensors, key, 4)[0])
        decoder_widths.append(_sizes(tensors, decoder_key, 5)[1])
    latent_size = _sizes(tensors, "stylegan_decoder.style_conv1.modulated_conv.modulation.weight", 2)[1]
    mlp_layers = 0
    while f"stylegan_decoder.style_mlp.{2 * mlp_layers + 1}.weight" in tensors:
        mlp_layers += 1
    return GfpganShape(
        decoder_widths=tuple(decoder_widths),
        unet_widths=tuple(unet_widths),
        latent_size=latent_size,
        mlp_layers=mlp_layers,
        sft=_deduce_sft(tensors, decoder_widths),
        many_codes=_sizes(tensors, "final_linear.weight", 2)[0] != latent_size,
        resampling=resampling,
    )


def _deduce_sft(tensors: Mapping[str, Tensor], decoder_widths: list[int]) -> Sft:
    """Half, full or none, from the channels that the first scale has."""
    if not any(key.startswith("condition_") for key in tensors):
        return Sft.NONE
    modulated = _sizes(tensors, "condition_scale.0.2.weight", 4)[0]
    return Sft.FULL if modulated == decoder_widths[min(1, len(decoder_widths) - 1)] else Sft.HALF


def _check(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Every entry there, with its shape, and no other."""
    for key in sorted(wanted.keys() - tensors.keys())[:1]:
        raise WeightsError(f"The weights lack the entry {key!r} that a GFP-GAN of their kind has: {_HELP}")
    for key in sorted(tensors.keys() - wanted.keys())[:1]:
        raise WeightsError(f"The weights have an entry {key!r} that a GFP-GAN of their kind has not: {_HELP}")
    for key, tensor in tensors.items():
        if tensor.shape != wanted[key].shape:
            found, right = tuple(tensor.shape), tuple(wanted[key].shape)
            raise WeightsError(f"The weights' entry {key!r} has shape {found} instead of {right}: {_HELP}")
