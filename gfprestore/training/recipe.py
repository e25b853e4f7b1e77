"""What a recipe is to the training loop, and what all recipes share: averages, optimisers, shared gradients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from gfprestore.nn.paper_weights import MLP_RATE, clean_factor
from gfprestore.training.config import OptimiserConfig
from gfprestore.training.dataset import Batch

EMA_BATCH = 32
"""Images that the published code counts for a step when it averages weights."""

ADAM_EPSILON = 1e-8
"""Added to the root of Adam's second moment, torch's default and StyleGAN2's."""


class Recipe(Protocol):
    """One kind of training."""

    modules: dict[str, nn.Module]
    """Everything that is saved, by name; `generator` and its average `generator_ema` among it."""

    optimisers: dict[str, torch.optim.Optimizer]
    """By the name of what they train."""

    def train_step(self, step: int, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Runs one step on the micro-batches of this process and returns its numbers by name, scalars."""
        ...

    def sample(self, batch: Batch) -> Tensor:
        """Returns images of the averaged generator, RGB [N 3 S S] around [-1, 1]."""
        ...


def average_into(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Moves an exponential average of weights one step on: `average = decay * average + (1 - decay) * network`."""
    with torch.no_grad():
        for held, new in zip(average.parameters(), network.parameters(), strict=True):
            held.lerp_(new, 1 - decay)
        for held_map, new_map in zip(average.buffers(), network.buffers(), strict=True):
            held_map.copy_(new_map)


def ema_decay(config: OptimiserConfig) -> float:
    """Decay of the average for one step."""
    return float(0.5 ** (EMA_BATCH / config.ema_half_life))


def learning_rate_factor(config: OptimiserConfig, step: int, steps: int) -> float:
    """Factor on the learning rate of a step, counted from 0."""
    factor = config.gamma ** sum(step >= milestone for milestone in config.milestones)
    if step < config.warm_up:
        factor *= (step + 1) / config.warm_up
    start = config.decay_from * steps
    if step >= start and steps > start:
        factor *= (steps - step) / (steps - start)
    return float(factor)


def set_learning_rates(optimisers: Iterable[torch.optim.Optimizer], factor: float) -> None:
    """Sets the learning rate of every group to its first one times a factor."""
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = group["first_lr"] * factor


def group_by_rate(
    parameters: Iterable[tuple[str, nn.Parameter]], *, equalised: bool
) -> dict[float, list[nn.Parameter]]:
    """Sorts a generator's parameters by the factor on their learning rate, greatest first.

    With an equalised learning rate (Karras et al., arXiv:1710.10196, section 4.1) a layer stores w/c and multiplies by
    c when it is used: a step of Adam, which does not see the gradient's scale, moves w by c times the rate. Our layers
    hold w itself; for the same step their rate is c times as great.

    Args:
        parameters: By their names in `Gfpgan`; those that need no gradient are left out.
        equalised: Whether to move them as the paper's network moves; otherwise all alike, but for the mapping network.
    """
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in parameters:
        if not parameter.requires_grad:
            continue
        plain = MLP_RATE if ".style_mlp." in name else 1.0
        groups.setdefault(clean_factor(name, tuple(parameter.shape)) if equalised else plain, []).append(parameter)
    return dict(sorted(groups.items(), reverse=True))


def make_adam(
    groups: Mapping[float, Iterable[nn.Parameter]], rate: float, betas: tuple[float, float], lazy_every: int = 0
) -> torch.optim.Optimizer:
    """Makes an Adam; with lazy regularisation its rate and memory shrink as StyleGAN2's do (appendix B).

    Args:
        groups: Parameters by the factor on their rate; those that need no gradient are left out.
        rate: Learning rate.
        betas: Of Adam.
        lazy_every: Steps from one regularisation to the next; 0 is none.
    """
    ratio = lazy_every / (lazy_every + 1) if lazy_every else 1.0
    made = [
        {
            "params": [parameter for parameter in parameters if parameter.requires_grad],
            "lr": rate * ratio * factor,
            "first_lr": rate * ratio * factor,
            # The gradient of w is 1/c of that of w/c, to which the epsilon belongs.
            "eps": ADAM_EPSILON / factor,
        }
        for factor, parameters in groups.items()
    ]
    return torch.optim.Adam(made, betas=(betas[0] ** ratio, betas[1] ** ratio))


def clip_gradient(generator: nn.Module, config: OptimiserConfig) -> dict[str, Tensor]:
    """Shortens the generator's gradient where `clip_norm` asks for it; returns its length before as `gradient`."""
    if not config.clip_norm:
        return {}
    parameters = [parameter for parameter in generator.parameters() if parameter.grad is not None]
    return {"gradient": nn.utils.clip_grad_norm_(parameters, config.clip_norm)}


def share_gradients(networks: Iterable[nn.Module]) -> None:
    """Averages gradients over the processes; nothing where there is one.

    For the discriminators, in DistributedDataParallel's place: they are frozen in half of each step, and R1 takes a
    second derivative, which its hooks do not know.
    """
    if not dist.is_initialized():
        return
    gradients = [p.grad for network in networks for p in network.parameters() if p.grad is not None]
    if not gradients:
        return
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    start = 0
    for gradient in gradients:
        gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
        start += gradient.numel()


def mean_of_processes(value: Tensor) -> Tensor:
    """Turns a tensor into its mean over the processes, in place, and returns it: the same in all of them."""
    if dist.is_initialized():
        dist.all_reduce(value)
        value /= dist.get_world_size()
    return value


def mean_values(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Means over the micro-batches, by name."""
    return {name: torch.stack([part[name] for part in parts]).mean() for name in parts[0]}
