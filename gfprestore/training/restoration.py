"""The restoration recipe: GFP-GAN against all its losses."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import nullcontext

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gfprestore.training.config import TrainingConfig
from gfprestore.training.dataset import Batch
from gfprestore.training.networks import (
    build_discriminators,
    build_generator,
    lay_out_channels_last,
    load_frozen,
)
from gfprestore.training.objective import RestorationObjective, needs_components, needs_face, sample_noise
from gfprestore.training.recipe import (
    average_into,
    clip_gradient,
    ema_decay,
    group_by_rate,
    make_adam,
    mean_values,
    share_gradients,
)


class Restoration:
    """Networks, optimisers and the step; see `Recipe`."""

    def __init__(self, config: TrainingConfig, device: torch.device) -> None:
        self._config = config
        torch.manual_seed(config.run.seed)
        generator = build_generator(config.generator, equalised=config.optimiser.equalised)
        if not config.losses.pyramid:
            generator.toRGB.requires_grad_(False)
        self._discriminators = build_discriminators(
            config.generator.size,
            config.discriminator,
            has_face=needs_face(config.losses),
            has_components=needs_components(config.losses),
        )
        self._frozen = load_frozen(config.losses)
        networks: list[nn.Module] = [generator, self._discriminators, self._frozen]
        for network in networks:
            network.to(device)
            if config.run.channels_last:
                lay_out_channels_last(network)
        average = copy.deepcopy(generator).eval().requires_grad_(False)
        self._generator, self._average = generator, average
        self.modules = {"generator": generator, "generator_ema": average, "discriminators": self._discriminators}
        self._wrapped = self._wrap(generator)
        self.optimisers = self._make_optimisers()
        self._objective = RestorationObjective(
            config.losses,
            self._frozen,
            self._discriminators,
            seed=config.run.seed,
            autocast=config.run.precision == "bf16",
        )

    def train_step(self, step: int, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Runs one step; see `Recipe`."""
        values, fakes = self._train_generator(step, batches)
        if len(self._discriminators):
            values |= self._train_discriminators(step, batches, fakes)
        return values

    @torch.no_grad()
    def sample(self, batch: Batch) -> Tensor:
        """Restores a batch with the averaged generator and the stored noise, as the tool does."""
        with self._objective.networks_run(batch.degraded.device):
            output: Tensor = self._average(batch.degraded)
        return output.float()

    def _train_generator(self, step: int, batches: Sequence[Batch]) -> tuple[dict[str, Tensor], list[Tensor]]:
        self._discriminators.requires_grad_(False)
        optimiser = self.optimisers["generator"]
        optimiser.zero_grad()
        parts, fakes = [], []
        for index, batch in enumerate(batches):
            noise = None
            if self._config.generator.random_noise:
                device = batch.truth.device
                noise = sample_noise(self._generator, batch.numbers.tolist(), self._config.run.seed, device)
            with self._gradients_stay(is_last=index == len(batches) - 1):
                total, fake, values = self._objective.generator_loss(self._wrapped, batch, step, noise)
                torch.autograd.backward(total / len(batches))
            fakes.append(fake)
            parts.append(values)
        means = mean_values(parts) | clip_gradient(self._generator, self._config.optimiser)
        optimiser.step()
        average_into(self._average, self._generator, ema_decay(self._config.optimiser))
        return means, fakes

    def _train_discriminators(self, step: int, batches: Sequence[Batch], fakes: Sequence[Tensor]) -> dict[str, Tensor]:
        self._discriminators.requires_grad_(True)
        optimisers = [optimiser for name, optimiser in self.optimisers.items() if name != "generator"]
        for optimiser in optimisers:
            optimiser.zero_grad()
        has_r1 = "face" in self._discriminators and self._config.losses.r1 > 0
        has_r1 = has_r1 and step % self._config.losses.r1_every == 0
        parts = []
        for batch, fake in zip(batches, fakes, strict=True):
            loss, values = self._objective.discriminator_loss(fake, batch)
            torch.autograd.backward(loss / len(batches))
            if has_r1:
                penalty, more = self._objective.r1_loss(batch)
                torch.autograd.backward(penalty / len(batches))
                values |= more
            parts.append(values)
        share_gradients([self._discriminators])
        for optimiser in optimisers:
            optimiser.step()
        return mean_values(parts)

    def _make_optimisers(self) -> dict[str, torch.optim.Optimizer]:
        config, losses = self._config.optimiser, self._config.losses
        groups = group_by_rate(self._generator.named_parameters(), equalised=config.equalised)
        optimisers = {"generator": make_adam(groups, config.learning_rate, config.betas)}
        rate = config.learning_rate * config.discriminator_rate
        for name, network in self._discriminators.items():
            is_face = name == "face"
            betas = config.betas if is_face else config.component_betas
            lazy = losses.r1_every if is_face and losses.r1 else 0
            optimisers[name] = make_adam({1.0: network.parameters()}, rate, betas, lazy)
        return optimisers

    def _wrap(self, generator: nn.Module) -> nn.Module:
        """Compiles, and shares gradients between processes, where the run asks for it."""
        if self._config.run.compile:
            generator = torch.compile(generator)  # type: ignore[assignment]
        if not dist.is_initialized():
            return generator
        # Without modulations and without the pyramid loss nothing reads the U-Net's way up.
        has_unused = self._config.generator.sft == "none" and not self._config.losses.pyramid
        return DistributedDataParallel(generator, broadcast_buffers=False, find_unused_parameters=has_unused)

    def _gradients_stay(self, *, is_last: bool):  # type: ignore[no-untyped-def]
        """Leaves gradients in this process until the last micro-batch, so that they travel once."""
        if isinstance(self._wrapped, DistributedDataParallel) and not is_last:
            return self._wrapped.no_sync()
        return nullcontext()
