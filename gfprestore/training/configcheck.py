"""Ranges of a configuration's values, and what its keys ask of each other: told at once, before anything is loaded."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from gfprestore.errors import UsageError
from gfprestore.nn.widths import full_widths
from gfprestore.training.config import LossConfig, TrainingConfig, ValidationConfig
from gfprestore.training.degradation_presets import PRESETS

SIZES = (32, 64, 128, 256, 512, 1024)
"""Sides of faces that the networks can have: they halve them down to 4 pixels."""

_AT_LEAST_ONE = {
    "generator.latent_size",
    "losses.r1_every",
    "discriminator.group",
    "discriminator.patch_width",
    "prior.path_every",
    "prior.path_batch_shrink",
    "run.batch",
    "run.accumulate",
    "run.log_every",
    "run.checkpoint_every",
    "validation.count",
    "degradation.jpeg_quality",
    "degradation.kernel_pixels",
}
"""Whole numbers that count or divide. All other numbers are 0 or more, if nothing below says otherwise."""

_MORE_THAN_NONE = {
    "generator.channel_multiplier",
    "generator.narrow",
    "discriminator.channel_multiplier",
    "discriminator.narrow",
    "optimiser.learning_rate",
    "optimiser.ema_half_life",
    "degradation.downscale",
}
"""Numbers that are divided by, or without which nothing is left."""

_AT_MOST = {
    "optimiser.betas": 1.0,
    "optimiser.component_betas": 1.0,
    "prior.mixing": 1.0,
    "degradation.jpeg_quality": 100.0,
    "degradation.hue": 0.5,
}
"""Greatest values; those of all probabilities are 1."""

_LEAST = {"degradation.hue": -0.5}
"""Least values where they are below 0."""

_SPANS = (
    *("blur_sigma", "downscale", "noise", "jpeg_quality", "brightness", "contrast", "saturation", "hue"),
    *("fading", "grain", "line_strength"),
)
"""Degradations that are drawn between two values."""

METRICS = ("psnr", "ssim", "lpips-alex", "lpips-vgg", "identity")
"""What validation measures."""

_COMPONENT_WIDTH = 64
"""First width of a facial component's discriminator."""

_PERCEPTUAL_LAYERS = 5
"""Layers of VGG-19 that `losses.perceptual_layers` weighs."""

_LATE_LOSSES = ("adversarial", "component", "component_style", "component_matching")
"""Losses that begin at `losses.adversarial_from`."""

_NO_WEIGHTS = ("r1",)
"""Numbers among the losses that weigh none of the generator's."""


def check_config(config: TrainingConfig) -> None:
    """Checks that the values of a configuration can be trained with.

    Raises:
        UsageError: A value is out of its range, or two do not go together; the message names the key.
    """
    for name, value in _numbers(config, ""):
        _check_range(name, value)
    if config.generator.size not in SIZES:
        raise UsageError(f"generator.size is one of {', '.join(map(str, SIZES))}, not {config.generator.size}.")
    for betas in ("betas", "component_betas"):
        if max(getattr(config.optimiser, betas)) >= 1:
            raise UsageError(f"optimiser.{betas} are below 1, or Adam never forgets.")
    if len(config.losses.perceptual_layers) != _PERCEPTUAL_LAYERS:
        raise UsageError(f"losses.perceptual_layers has {_PERCEPTUAL_LAYERS} values, one a layer.")
    _check_spans(config)
    _check_widths(config)
    if config.recipe == "restoration":
        _check_losses(config.losses)
        if config.validation.every:
            _check_validation(config.validation)
    elif not config.losses.adversarial:
        raise UsageError("The recipe prior learns from losses.adversarial alone: give it a weight.")


def _numbers(record: Any, where: str) -> Iterator[tuple[str, float]]:
    """Names and values of all numbers, those of lists one by one."""
    for item in dataclasses.fields(record):
        value, name = getattr(record, item.name), f"{where}{item.name}"
        if dataclasses.is_dataclass(value):
            yield from _numbers(value, f"{name}.")
            continue
        for entry in value if isinstance(value, tuple) else (value,):
            if isinstance(entry, (int, float)) and not isinstance(entry, bool):
                yield name, entry


def _check_range(name: str, value: float) -> None:
    # Comparisons are put so that NaN, which TOML can say, fails them.
    if name in _MORE_THAN_NONE:
        is_within, wanted = value > 0, "more than 0"
    else:
        least = 1 if name in _AT_LEAST_ONE else _LEAST.get(name, 0)
        is_within, wanted = value >= least, f"{least} or more"
    most = 1.0 if name.endswith("_probability") else _AT_MOST.get(name, math.inf)
    if is_within and value <= most and math.isfinite(value):
        return
    wanted = wanted if most == math.inf else f"{wanted} and at most {most:g}"
    raise UsageError(f"{name} is {wanted}, not {value}.")


def _check_spans(config: TrainingConfig) -> None:
    for name in _SPANS:
        least, greatest = getattr(config.degradation, name)
        if least > greatest:
            raise UsageError(f"degradation.{name} is its least value, then its greatest, not [{least}, {greatest}].")
    if config.degradation.kernel_pixels % 2 == 0:
        raise UsageError(f"degradation.kernel_pixels is odd, not {config.degradation.kernel_pixels}.")


def _check_widths(config: TrainingConfig) -> None:
    """A network has a channel at least everywhere; widths are cut to whole numbers."""
    size, is_restoring = config.generator.size, config.recipe == "restoration"
    # The U-Net has half the decoder's width.
    generator = min(full_widths(size, config.generator.channel_multiplier)) / (2 if is_restoring else 1)
    judge = math.inf
    if config.losses.adversarial and config.discriminator.kind == "stylegan2":
        judge = min(full_widths(size, config.discriminator.channel_multiplier))
    if is_restoring and (config.losses.component or config.losses.component_style or config.losses.component_matching):
        judge = min(judge, _COMPONENT_WIDTH)
    for name, width in (("generator", generator), ("discriminator", judge)):
        narrow = getattr(config, name).narrow
        if width * narrow < 1:
            raise UsageError(
                f"{name}.narrow is {1 / width:g} or more with faces of {size} pixels, not {narrow:g}: some of the"
                " network's layers would have no channel."
            )


def _check_validation(config: ValidationConfig) -> None:
    for name in config.metrics:
        if name not in METRICS:
            raise UsageError(f"validation.metrics has {', '.join(METRICS)}, not {name!r}.")
    if config.best not in config.metrics:
        raise UsageError(f"validation.best is one of validation.metrics, not {config.best!r}.")
    if config.degradation not in PRESETS:
        raise UsageError(f"validation.degradation is one of {', '.join(PRESETS)}, not {config.degradation!r}.")


def _check_losses(losses: LossConfig) -> None:
    """At every step some loss must reach the generator."""
    weights = {
        item.name: value
        for item in dataclasses.fields(losses)
        if isinstance(value := getattr(losses, item.name), float) and item.name not in _NO_WEIGHTS
    }
    if not any(weights.values()):
        raise UsageError("No loss has a weight, so nothing would be learnt: set losses.l1, for one.")
    if losses.adversarial_from and not any(weight for name, weight in weights.items() if name not in _LATE_LOSSES):
        raise UsageError("Only losses that begin at losses.adversarial_from have a weight: set it to 0, or losses.l1.")
