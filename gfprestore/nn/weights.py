"""The weights of a GFP-GAN as arrays, without torch: one canonical form, hyperparameters read from shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gfprestore.errors import WeightsError
from gfprestore.nn.entries import entries_of
from gfprestore.nn.paper_weights import is_paper_style, to_clean
from gfprestore.nn.shape import FIR_MARK, GfpganShape, Resampling, Sft

WRAPPERS = ("params_ema", "params", "state_dict")
"""Keys under which training programs store a state dict; the averaged weights come first."""

MOST_LEVELS = 10
"""Doublings from 4 pixels that are still believable: 4096 pixels. Released weights have 7."""

_HELP = "take another --model, or fetch the file anew with gfprestore-weights fetch."

Arrays = dict[str, NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class GfpganWeights:
    """A state dict with all that a network of its shape needs, and nothing else."""

    shape: GfpganShape
    """Of the network."""

    arrays: Arrays
    """By the clean architecture's names, float32, finite."""


def read_gfpgan_weights(state: Mapping[str, Any]) -> GfpganWeights:
    """Check the weights of a GFP-GAN.

    Args:
        state: Clean weights (v1.2 to v1.4, the shipped ones) or the paper's (v1), bare or under `params_ema`, `params`
            or `state_dict`; arrays of any floating dtype.

    Returns:
        The weights. They share memory with `state` where that is float32 already, so that a memory-mapped file is not
        copied.

    Raises:
        WeightsError: The state dict is damaged or of another network.
    """
    arrays = _canonical(state)
    if is_paper_style(arrays):
        arrays = to_clean(arrays) | {FIR_MARK: np.ones(1, np.float32)}
    shape = _deduce(arrays, Resampling.FIR if FIR_MARK in arrays else Resampling.BILINEAR)
    _check(arrays, entries_of(shape))
    return GfpganWeights(shape, arrays)


def unwrap(state: Any) -> Any:
    """Take off what training programs wrap around a state dict, if they did."""
    for wrapper in WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            return state[wrapper]
    return state


def _canonical(state: Any) -> Arrays:
    """Unwrap, take off a `module.` in front, and make everything float32."""
    state = unwrap(state)
    if not isinstance(state, Mapping) or not state:
        raise WeightsError(f"This file holds no state dict of a network: {_HELP}")
    arrays = {}
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, np.ndarray) or value.dtype.kind != "f":
            raise WeightsError(f"The weights' entry {key!r} is not a tensor of real numbers: {_HELP}")
        array = value.astype(np.float32, copy=False)
        if array.size and not (np.isfinite(array.min()) and np.isfinite(array.max())):
            raise WeightsError(f"The weights' entry {key!r} holds values that are not finite: {_HELP}")
        arrays[key.removeprefix("module.")] = array
    return arrays


def _sizes(arrays: Arrays, key: str, axes: int) -> tuple[int, ...]:
    """Shape of one array, whose number of axes must be right."""
    if key not in arrays:
        raise WeightsError(f"These are not the weights of a GFP-GAN, which have an entry {key!r}: {_HELP}")
    sizes = arrays[key].shape
    if len(sizes) != axes or 0 in sizes:
        raise WeightsError(f"The weights' entry {key!r} has a shape that no GFP-GAN has, {sizes}: {_HELP}")
    return sizes


def _deduce(arrays: Arrays, resampling: Resampling) -> GfpganShape:
    """Read every hyperparameter but the resampling from the arrays' shapes."""
    unet_widths = [_sizes(arrays, "final_conv.weight", 4)[0]]
    decoder_widths = [_sizes(arrays, "stylegan_decoder.style_conv1.modulated_conv.weight", 5)[1]]
    while (key := f"conv_body_up.{len(unet_widths) - 1}.conv2.weight") in arrays and len(unet_widths) <= MOST_LEVELS:
        decoder_key = f"stylegan_decoder.style_convs.{2 * len(decoder_widths) - 2}.modulated_conv.weight"
        unet_widths.append(_sizes(arrays, key, 4)[0])
        decoder_widths.append(_sizes(arrays, decoder_key, 5)[1])
    latent_size = _sizes(arrays, "stylegan_decoder.style_conv1.modulated_conv.modulation.weight", 2)[1]
    mlp_layers = 0
    while f"stylegan_decoder.style_mlp.{2 * mlp_layers + 1}.weight" in arrays:
        mlp_layers += 1
    return GfpganShape(
        decoder_widths=tuple(decoder_widths),
        unet_widths=tuple(unet_widths),
        latent_size=latent_size,
        mlp_layers=mlp_layers,
        sft=_deduce_sft(arrays, decoder_widths),
        many_codes=_sizes(arrays, "final_linear.weight", 2)[0] != latent_size,
        resampling=resampling,
    )


def _deduce_sft(arrays: Arrays, decoder_widths: list[int]) -> Sft:
    """Half, full or none, from the channels that the first scale has."""
    if not any(key.startswith("condition_") for key in arrays):
        return Sft.NONE
    modulated = _sizes(arrays, "condition_scale.0.2.weight", 4)[0]
    return Sft.FULL if modulated == decoder_widths[min(1, len(decoder_widths) - 1)] else Sft.HALF


def _check(arrays: Arrays, wanted: Mapping[str, tuple[int, ...]]) -> None:
    """Every entry there, with its shape, and no other."""
    for key in sorted(wanted.keys() - arrays.keys())[:1]:
        raise WeightsError(f"The weights lack the entry {key!r} that a GFP-GAN of their kind has: {_HELP}")
    for key in sorted(arrays.keys() - wanted.keys())[:1]:
        raise WeightsError(f"The weights have an entry {key!r} that a GFP-GAN of their kind has not: {_HELP}")
    for key, array in arrays.items():
        if array.shape != wanted[key]:
            raise WeightsError(f"The weights' entry {key!r} has shape {array.shape} instead of {wanted[key]}: {_HELP}")
