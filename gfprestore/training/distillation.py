"""Losses that make one RetinaFace imitate another of the same layout.

RetinaFace: Deng et al., "RetinaFace: Single-stage Dense Face Localisation in the Wild", arXiv 1905.00641. The teacher's
class probabilities, boxes and landmarks (the tasks of section 3.1) and its inner features are the targets; nothing else
labels the photos. The features are learned first, layer by layer, each on the teacher's own input to it: the block-wise
distillation of Li et al., arXiv 1911.13053, at its finest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

HEADS = ("BboxHead", "ClassHead", "LandmarkHead")

WINDOW = 40
"""Side of the part of a layer's input that it learns from; the first layers' whole maps would cost most of the step."""

NOISE_SHARE = 1.0
"""Standard deviation of the noise added to a layer's input, in that of the input's channels together."""

SMALL_ERROR = 0.1
"""Errors of encoded offsets below this count squared, larger ones linearly; a tenth of the offsets' unit."""


@dataclass(frozen=True)
class Losses:
    """The losses of one batch, each unweighted."""

    score: Tensor
    """Class probabilities, at all priors."""

    box: Tensor
    """Boxes, at priors where the teacher sees a face."""

    landmark: Tensor
    """Landmarks, at the same priors."""


def run_network(network: nn.Module, photos: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Run a RetinaFace up to its logits.

    Args:
        network: facexlib's RetinaFace.
        photos: RGB less the mean, float (N, 3, H, W).

    Returns:
        Box offsets (N, P, 4), logits of being a face (N, P) and landmark offsets (N, P, 10), all as facexlib encodes
        them, with P priors.
    """
    pyramid = network.get_submodule("fpn")(list(network.get_submodule("body")(photos.flip(1)).values()))
    context = [network.get_submodule(f"ssh{level + 1}")(pyramid[level]) for level in range(3)]
    boxes, classes, landmarks = (
        torch.cat([network.get_submodule(f"{head}.{level}")(context[level]) for level in range(3)], dim=1)
        for head in HEADS
    )
    return boxes, classes[..., 1] - classes[..., 0], landmarks  # softmax over two is the sigmoid of their difference


def layer_names(network: nn.Module) -> list[tuple[str, str | None]]:
    """Name the layers of a RetinaFace that are learned one by one.

    Returns:
        Each convolution and the normalisation after it, None for the heads' which have none.
    """
    names = {module: name for name, module in network.named_modules()}
    after: dict[str, str] = {}
    for module in network.modules():
        if isinstance(module, nn.Sequential):
            for first, second in pairwise(module):
                if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                    after[names[first]] = names[second]
    return [(name, after.get(name)) for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]


def run_layer(network: nn.Module, layer: tuple[str, str | None], features: Tensor) -> Tensor:
    """Run one layer of `layer_names`, up to before its activation."""
    convolution, normalisation = layer
    output: Tensor = network.get_submodule(convolution)(features)
    return network.get_submodule(normalisation)(output) if normalisation else output


def record_inputs(network: nn.Module, photos: Tensor) -> dict[str, Tensor]:
    """Run a network and keep what goes into each convolution, by its name.

    Args:
        network: facexlib's RetinaFace, in evaluation mode.
        photos: RGB less the mean, float (N, 3, H, W).
    """
    record: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, tuple[Tensor]], None]:
        def hook(_layer: nn.Module, inputs: tuple[Tensor]) -> None:
            record[name] = inputs[0]

        return hook

    hooks = [network.get_submodule(name).register_forward_pre_hook(keep(name)) for name, _ in layer_names(network)]
    try:
        with torch.no_grad():
            run_network(network, photos)
    finally:
        for hook in hooks:
            hook.remove()
    return record


def layer_losses(
    student: nn.Module, teacher: nn.Module, photos: Tensor, generator: torch.Generator
) -> dict[str, Tensor]:
    """Compute each student layer's `relative_error` on a window of the teacher's own input to it, with noise added.

    Natural features are smooth, so that the fine structure of a kernel hardly shows in its output: half of every
    window's variance is white noise, through which all directions of the kernel are seen alike.

    Args:
        student: facexlib's RetinaFace.
        teacher: The same, in evaluation mode.
        photos: RGB less the mean, float (N, 3, H, W); sides of 256 or more where N is one, or the spread of the
            coarsest features is that of a single value.
        generator: Source of windows and noise.
    """
    record = record_inputs(teacher, photos)
    losses = {}
    for layer in layer_names(teacher):
        features = record[layer[0]]
        top, left = (
            int(torch.randint(max(side - WINDOW, 0) + 1, (), generator=generator)) for side in features.shape[2:]
        )
        window = features[:, :, top : top + WINDOW, left : left + WINDOW]
        spread = features[:, :, ::4, ::4].std(dim=(0, 2, 3)).square().mean().sqrt()
        # Uniform noise of width 1 has a standard deviation of 12 ** -0.5.
        noise = (torch.rand(window.shape, generator=generator) - 0.5) * 12**0.5
        given = window + noise * (spread * NOISE_SHARE)
        with torch.no_grad():
            wanted = run_layer(teacher, layer, given)
        losses[layer[0]] = relative_error(run_layer(student, layer, given), wanted)
    return losses


def quality_focal_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy with soft targets, weighted by the squared error of the probability, summed.

    Li et al., "Generalized Focal Loss", arXiv 2006.04388, equation 3, with beta = 2.

    Args:
        logits: Any shape.
        targets: Probabilities, shape of `logits`.
    """
    error = (logits.sigmoid() - targets).detach()
    return (error.square() * functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")).sum()


def relative_error(found: Tensor, wanted: Tensor) -> Tensor:
    """Squared error relative to the wanted variance, which is that of no relation at all.

    Half of the unit is the channel's own variance and half their mean, so that channels that hardly move do not count
    as much as the others.

    Args:
        found: Features (N, C, H, W).
        wanted: The same of the teacher.
    """
    variance = wanted.var(dim=(0, 2, 3), keepdim=True) + 1e-6
    return 2 * ((found - wanted).square() / (variance + variance.mean())).mean()


def distillation_losses(student: nn.Module, teacher: nn.Module, photos: Tensor, least_score: float) -> Losses:
    """Compute the losses of one batch.

    Args:
        student: Network in training mode.
        teacher: Network in evaluation mode.
        photos: RGB less the mean, float (N, 3, H, W).
        least_score: Boxes and landmarks are learned at priors where the teacher is at least this sure.
    """
    with torch.no_grad():
        boxes, logits, landmarks = run_network(teacher, photos)
        targets = logits.sigmoid()
        weight = torch.where(targets >= least_score, targets, 0.0)
        total = weight.sum().clamp(min=1.0)
    found_boxes, found_logits, found_landmarks = run_network(student, photos)
    box = functional.smooth_l1_loss(found_boxes, boxes, reduction="none", beta=SMALL_ERROR).mean(dim=2)
    landmark = functional.smooth_l1_loss(found_landmarks, landmarks, reduction="none", beta=SMALL_ERROR).mean(dim=2)
    return Losses(
        score=quality_focal_loss(found_logits, targets) / total,
        box=(box * weight).sum() / total,
        landmark=(landmark * weight).sum() / total,
    )
