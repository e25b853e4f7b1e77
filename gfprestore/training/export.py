"""Makes weights that `gfprestore` loads out of a checkpoint, and a model card beside them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from gfprestore.atomic import output_file
from gfprestore.errors import UsageError, printable
from gfprestore.nn.checkpoint import load_gfpgan
from gfprestore.nn.gfpgan import StyleGan2Decoder
from gfprestore.training.checkpoints import checkpoint_config, read_checkpoint
from gfprestore.training.config import TrainingConfig
from gfprestore.training.configfile import config_table, config_toml
from gfprestore.training.networks import generator_shape

PRECISIONS = {"fp16": torch.float16, "fp32": torch.float32}
"""Types that weights are stored in; the tool computes in the type it chooses, whatever the file's."""

LARGEST_HALF = 65504.0
"""Greatest number of fp16."""


def export_checkpoint(checkpoint: Path, target: Path, *, precision: str, overwrite: bool) -> Path:
    """Writes the averaged generator as safetensors, and a model card.

    A checkpoint of the `prior` recipe gives a StyleGAN2, for `generator.prior`.

    Args:
        checkpoint: File of a run.
        target: `*.safetensors`.
        precision: `fp16` or `fp32`.
        overwrite: Whether to replace a file that is there.

    Returns:
        Path of the model card, the target's name with `.md`.

    Raises:
        UsageError: The checkpoint cannot be read or its weights are ruined, the target has another ending, or a file is
            there already.
        OutputError: The folder cannot be written.
    """
    if target.suffix != ".safetensors":
        raise UsageError(f"--output {printable(target)} is not called *.safetensors.")
    card = target.with_suffix(".md")
    for path in (target, card):
        if not overwrite and os.path.lexists(path):
            raise UsageError(f"{printable(path)} is there already: use --overwrite to replace it.")
    content = read_checkpoint(checkpoint)
    config = without_folders(checkpoint_config(content))
    tensors = _stored(content["modules"]["generator_ema"], precision)
    # What cannot be loaded is not written, nor what draws no picture.
    _check_drawing(tensors, config)
    data = safetensors.torch.save(tensors, metadata=_metadata(content, config, precision))
    # Before anything is written: weights never stand without their card.
    text = model_card(content, config, name=target.name, data=data, precision=precision)
    for path, written in ((card, text.encode("utf-8")), (target, data)):
        _write(path, written, overwrite=overwrite)
    return card


def _check_drawing(tensors: Mapping[str, Tensor], config: TrainingConfig) -> None:
    """Runs the network once on noise, with its weights as they will be read from the file.

    Raises:
        UsageError: What it draws has no numbers: weights may be numbers and too large to compute with.
    """
    random, shape = torch.Generator().manual_seed(0), generator_shape(config.generator)
    with torch.inference_mode():
        if config.recipe == "restoration":
            face = torch.rand(1, 3, shape.out_size, shape.out_size, generator=random) * 2 - 1
            drawn = load_gfpgan(tensors).eval()(face)
        else:
            decoder = StyleGan2Decoder(shape).eval()
            decoder.load_state_dict({key: tensor.float() for key, tensor in tensors.items()})
            code = decoder.map_noise(torch.randn(1, shape.latent_size, generator=random))
            drawn = decoder(code[:, None].expand(-1, shape.code_count, -1))  # [1 K L]
    if not bool(drawn.isfinite().all()):
        raise UsageError("The training had diverged: these weights draw no picture; name an earlier CHECKPOINT.")


def _write(path: Path, data: bytes, *, overwrite: bool) -> None:
    with output_file(path, overwrite=overwrite) as stream:
        stream.write(data)


def without_folders(value: Any) -> Any:
    """A configuration whose files and folders are named without their place, which is the trainer's own affair."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: without_folders(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **parts)
    if isinstance(value, tuple):
        return tuple(map(without_folders, value))
    # Windows' rule takes both kinds of separators.
    return PureWindowsPath(value).name if isinstance(value, str) and ("/" in value or "\\" in value) else value


def model_card(content: Mapping[str, Any], config: TrainingConfig, *, name: str, data: bytes, precision: str) -> str:
    """The model card of exported weights, Markdown: what they are, how they were made, what was measured.

    Args:
        content: The checkpoint.
        config: Its configuration.
        name: Name of the weights' file.
        data: Its bytes.
        precision: The type that they are stored in.
    """
    steps = content["progress"]["step"]
    values = sum(tensor.numel() for tensor in content["modules"]["generator_ema"].values())
    started = f", from `{Path(config.generator.weights).name}`" if config.generator.weights else ""
    facts = [
        f"- Kind: {'GFP-GAN' if config.recipe == 'restoration' else 'StyleGAN2, a prior for GFP-GAN'},"
        f" {config.generator.size} x {config.generator.size} pixels, {values:,} values, {precision}",
        f"- Size: {len(data):,} bytes",
        f"- SHA-256: `{hashlib.sha256(data).hexdigest()}`",
        f"- Made by: gfprestore {content['version']}, recipe `{config.recipe}`, seed {config.run.seed}",
        f"- Trained: {steps:,} steps of {config.run.batch} faces, {steps * config.run.batch:,} faces seen{started}",
    ]
    lines = [f"# {name}", "", *facts, "", "## Validation", "", *_validation(content, config), ""]
    lines += ["## Configuration", "", "```toml", config_toml(config).rstrip(), "```", ""]
    lines += ["## Limits and licence", "", *_LIMITS, ""]
    return "\n".join(lines)


_LIMITS = (
    "The network knows faces like those it was trained on; it fills in what a degraded photo does not show, so a",
    "restored face is a guess and no evidence of who or what was there. Heavy damage, profiles, glasses and hands come",
    "out worse. Whoever publishes these weights must add where the training faces came from, and under",
    "which terms: the terms of the faces and of the weights that the training started from go on here.",
)


def _validation(content: Mapping[str, Any], config: TrainingConfig) -> list[str]:
    history = content["progress"]["history"]
    # Older checkpoints of a prior hold comparisons of random faces with truths that they do not have.
    if not history or config.recipe == "prior":
        return ["Nothing was measured while these weights were trained; `gfprestore-eval` measures them."]
    # A run that went on with other metrics has rows that lack some.
    names = list(dict.fromkeys(name for entry in history for name in entry if name not in _NO_METRICS))
    rows = [f"| {entry['step']} | " + " | ".join(_cell(entry, name) for name in names) + " |" for entry in history]
    about = f"{_measured(history[-1], config)}; degraded with the preset {config.validation.degradation}."
    return [about, "", f"| step | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|", *rows]


_NO_METRICS = ("step", "faces", "measured", "seen")
"""What a validation holds besides metrics."""


def _cell(entry: Mapping[str, Any], name: str) -> str:
    return f"{entry[name]:.4g}" if name in entry else ""


def _measured(entry: Mapping[str, Any], config: TrainingConfig) -> str:
    """On which faces the last validation was measured, as far as the checkpoint knows."""
    if "faces" not in entry:
        return f"At most {config.validation.count} faces"
    if entry["seen"] is None:
        return f"{entry['faces']} faces; whether any was trained on before the run's faces changed is not known"
    if entry["seen"]:
        return f"{entry['faces']} faces, {entry['seen']} of them trained on as well"
    return f"{entry['faces']} faces never trained on"


def _stored(state: Mapping[str, Tensor], precision: str) -> dict[str, Tensor]:
    """The state dict in the file's type.

    Raises:
        UsageError: A value is no number, or does not fit into fp16.
    """
    kind = PRECISIONS[precision]
    tensors = {}
    for key, tensor in state.items():
        if not bool(tensor.isfinite().all()):
            raise UsageError(f"The training had diverged: entry {key!r} has no numbers; name an earlier CHECKPOINT.")
        if kind is torch.float16 and float(tensor.abs().max()) > LARGEST_HALF:
            raise UsageError(f"The weights' entry {key!r} has values too large for fp16: use --precision fp32.")
        tensors[key] = tensor.to(kind).contiguous()
    return tensors


def _metadata(content: Mapping[str, Any], config: TrainingConfig, precision: str) -> dict[str, str]:
    """Header of the file: text by name, so that the weights tell what they are."""
    return {
        "format": "pt",
        "made_by": f"gfprestore {content['version']}",
        "recipe": config.recipe,
        "precision": precision,
        "steps": str(content["progress"]["step"]),
        "config": json.dumps(config_table(config)),
    }
