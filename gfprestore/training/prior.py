"""The prior recipe: pretraining the StyleGAN2 that becomes GFP-GAN's facial prior (arXiv:1912.04958).

The decoder alone, on clean faces: logistic adversarial loss, lazy R1, lazy path length regularisation, style mixing.
What it exports is what `generator.prior` reads.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gfprestore.errors import UsageError
from gfprestore.nn.gfpgan import StyleGan2Decoder
from gfprestore.training import losses
from gfprestore.training.config import TrainingConfig
from gfprestore.training.dataset import Batch
from gfprestore.training.networks import (
    build_discriminators,
    generator_shape,
    lay_out_channels_last,
    load_prior_decoder,
)
from gfprestore.training.recipe import (
    average_into,
    clip_gradient,
    ema_decay,
    group_by_rate,
    make_adam,
    mean_of_processes,
    mean_values,
    share_gradients,
)

_CODES = 4
"""Stream of random numbers under one seed, beside those of the data set and the other recipe."""

_FOR_DISCRIMINATOR, _FOR_DECODER, _FOR_PATHS, _PATHS = range(4)
"""Streams of one step: codes for each of its three parts, and the directions that path lengths are measured along."""


@dataclass(frozen=True, eq=False)
class _Draw:
    """What one image is synthesised from."""

    codes: NDArray[np.float32]
    """Two random codes, (2, L)."""

    crossing: int
    """Layer from which the second one takes over."""

    noise: list[NDArray[np.float32]]
    """Maps (1, S, S), one for every styled convolution."""


class PathMean(nn.Module):
    """The running mean of path lengths, a module so that checkpoints keep it."""

    value: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("value", torch.zeros(()))


class PriorPretraining:
    """Networks, optimisers and the step; see `Recipe`."""

    def __init__(self, config: TrainingConfig, device: torch.device) -> None:
        _check(config)
        self._config = config
        self._device = device
        torch.manual_seed(config.run.seed)
        decoder = StyleGan2Decoder(generator_shape(config.generator))
        if config.generator.prior is not None:
            load_prior_decoder(decoder, config.generator.prior)
        self._decoder = decoder.to(device).train()
        self._discriminators = build_discriminators(
            config.generator.size, config.discriminator, has_face=True, has_components=False
        ).to(device)
        if config.run.channels_last:
            lay_out_channels_last(self._decoder)
            lay_out_channels_last(self._discriminators)
        self._average = copy.deepcopy(self._decoder).eval().requires_grad_(False)
        self._path_mean = PathMean().to(device)
        self.modules = {
            "generator": self._decoder,
            "generator_ema": self._average,
            "discriminators": self._discriminators,
            "path_mean": self._path_mean,
        }
        self.optimisers = self._make_optimisers()

    def train_step(self, step: int, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Runs one step: the discriminator, then the generator; see `Recipe`."""
        values = self._train_discriminator(step, batches)
        values |= self._train_decoder(step, batches)
        if step % self._config.prior.path_every == 0 and self._config.prior.path_length:
            values |= self._regularise_paths(step, batches)
        average_into(self._average, self._decoder, ema_decay(self._config.optimiser))
        return values

    @torch.no_grad()
    def sample(self, batch: Batch) -> Tensor:
        """Draws as many faces as the batch has, always the same ones."""
        rows = np.random.default_rng([self._config.run.seed, _CODES]).standard_normal(
            (len(batch), self._config.generator.latent_size), dtype=np.float32
        )
        codes = self._average.map_noise(torch.from_numpy(rows).to(self._device))
        with self._networks_run():
            images: Tensor = self._average(codes[:, None].expand(-1, self._layers, -1))
        return images.float()

    @property
    def _layers(self) -> int:
        return generator_shape(self._config.generator).code_count

    def _train_discriminator(self, step: int, batches: Sequence[Batch]) -> dict[str, Tensor]:
        config, network = self._config.losses, self._discriminators["face"]
        self._set_trained(is_decoder=False)
        self.optimisers["face"].zero_grad()
        parts = []
        for batch in batches:
            with torch.no_grad():
                fake = self._synthesise(step, _FOR_DISCRIMINATOR, batch)[0]
            real_logits, fake_logits = self._logits(batch.truth), self._logits(fake)
            loss = losses.discriminator_adversarial(real_logits, fake_logits)
            torch.autograd.backward(loss / len(batches))
            values = {"d_face": loss.detach(), "real_face": real_logits.mean(), "fake_face": fake_logits.mean()}
            if config.r1 and step % config.r1_every == 0:
                real = batch.truth.detach().requires_grad_(True)
                penalty = losses.r1_penalty(network(real), real)
                torch.autograd.backward(config.r1 / 2 * config.r1_every * penalty / len(batches))
                values["r1"] = penalty.detach()
            parts.append({name: value.detach() for name, value in values.items()})
        share_gradients([network])
        self.optimisers["face"].step()
        return mean_values(parts)

    def _train_decoder(self, step: int, batches: Sequence[Batch]) -> dict[str, Tensor]:
        self._set_trained(is_decoder=True)
        self.optimisers["generator"].zero_grad()
        parts = []
        for batch in batches:
            loss = losses.generator_adversarial(self._logits(self._synthesise(step, _FOR_DECODER, batch)[0]))
            torch.autograd.backward(self._config.losses.adversarial * loss / len(batches))
            parts.append({"adversarial": loss.detach()})
        share_gradients([self._decoder])
        means = mean_values(parts) | clip_gradient(self._decoder, self._config.optimiser)
        self.optimisers["generator"].step()
        return means

    def _regularise_paths(self, step: int, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Path length regularisation, on the first samples of every micro-batch.

        As in StyleGAN2's code, a part of the batch is compared with a mean that it alone has moved; the mean that is
        kept is moved by all parts.
        """
        config = self._config.prior
        self.optimisers["generator"].zero_grad()
        parts, means = [], []
        for batch in batches:
            count = max(1, len(batch) // config.path_batch_shrink)
            images, codes = self._synthesise(step, _FOR_PATHS, batch, count=count, autocast=False)
            noise = self._path_noise(step, batch.numbers.tolist()[:count], images.shape[1:])
            penalty, mean = losses.path_length_penalty(images, codes, noise, self._path_mean.value)
            torch.autograd.backward(config.path_length * config.path_every * penalty / len(batches))
            parts.append({"path_penalty": penalty.detach(), "path_length": mean})
            means.append(mean)
        share_gradients([self._decoder])
        clip_gradient(self._decoder, self._config.optimiser)
        self.optimisers["generator"].step()
        self._path_mean.value.copy_(mean_of_processes(torch.stack(means).mean()))
        return mean_values(parts)

    def _path_noise(self, step: int, numbers: Sequence[int], shape: Sequence[int]) -> Tensor:
        """The directions [N 3 S S] that path lengths are measured along, each sample's from its number."""
        seeds = ([self._config.run.seed, _CODES, step, _PATHS, number] for number in numbers)
        rows = [np.random.default_rng(seed).standard_normal(shape, dtype=np.float32) for seed in seeds]
        return torch.from_numpy(np.stack(rows)).to(self._device)

    def _synthesise(
        self, step: int, purpose: int, batch: Batch, *, count: int | None = None, autocast: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Draws codes and noise and makes images; returns both, codes [N K L].

        Args:
            step: Counts from 0.
            purpose: What the images are for, one of the streams of a step.
            batch: Each of its samples has codes and noise of its own, whichever process or micro-batch has the sample.
            count: Take the first so many samples; None takes all.
            autocast: Whether the run's precision holds.
        """
        sides = [stored.shape[-1] for stored in self._decoder.stored_noise()]
        draws = [self._draw(step, purpose, number, sides) for number in batch.numbers.tolist()[:count]]
        rows = torch.from_numpy(np.stack([draw.codes for draw in draws], axis=1)).to(self._device)  # [2 N L]
        first, second = (self._decoder.map_noise(row) for row in rows)
        crossing = torch.tensor([draw.crossing for draw in draws], device=self._device)[:, None, None]  # [N 1 1]
        layers = torch.arange(self._layers, device=self._device)[None, :, None]  # [1 K 1]
        codes = torch.where(layers < crossing, first[:, None], second[:, None])  # [N K L]
        maps = zip(*(draw.noise for draw in draws), strict=True)
        noise = [torch.from_numpy(np.stack(one_size)).to(self._device) for one_size in maps]  # each [N 1 S S]
        with self._networks_run() if autocast else nullcontext():
            images: Tensor = self._decoder(codes, noise=noise)
        return images.float(), codes

    def _draw(self, step: int, purpose: int, number: int, sides: Sequence[int]) -> _Draw:
        """Draws what one sample is synthesised from, always the same for its number."""
        generator = np.random.default_rng([self._config.run.seed, _CODES, step, purpose, number])
        codes = generator.standard_normal((2, self._config.generator.latent_size), dtype=np.float32)
        is_mixed = generator.random() < self._config.prior.mixing
        crossing = int(generator.integers(1, self._layers)) if is_mixed else self._layers
        noise = [generator.standard_normal((1, side, side), dtype=np.float32) for side in sides]
        return _Draw(codes, crossing, noise)

    def _logits(self, images: Tensor) -> Tensor:
        with self._networks_run():
            logits: Tensor = self._discriminators["face"](images)
        return logits.float()

    def _networks_run(self) -> AbstractContextManager[object]:
        is_short = self._config.run.precision == "bf16"
        return torch.autocast(self._device.type, torch.bfloat16) if is_short else nullcontext()

    def _set_trained(self, *, is_decoder: bool) -> None:
        self._decoder.requires_grad_(is_decoder)
        self._discriminators.requires_grad_(not is_decoder)

    def _make_optimisers(self) -> dict[str, torch.optim.Optimizer]:
        config, every = self._config.optimiser, self._config.prior.path_every
        named = [(f"stylegan_decoder.{name}", parameter) for name, parameter in self._decoder.named_parameters()]
        groups = group_by_rate(named, equalised=config.equalised)
        generator = make_adam(groups, config.learning_rate, config.betas, every)
        rate = config.learning_rate * config.discriminator_rate
        lazy = self._config.losses.r1_every if self._config.losses.r1 else 0
        face = make_adam({1.0: self._discriminators.parameters()}, rate, config.betas, lazy)
        return {"generator": generator, "face": face}


def _check(config: TrainingConfig) -> None:
    """Refuses what this recipe cannot do.

    Raises:
        UsageError: It is asked for.
    """
    if config.run.batch % config.prior.path_batch_shrink:
        raise UsageError("run.batch is a multiple of prior.path_batch_shrink.")
    if config.generator.weights is not None:
        raise UsageError(
            "generator.weights is a whole GFP-GAN and the recipe prior trains its decoder alone:"
            " name a StyleGAN2 to start from with generator.prior."
        )
    if config.run.compile:
        # Its backward graphs have no derivative of their own.
        raise UsageError(
            "run.compile does not do second derivatives, which path lengths need: leave it to restoration."
        )
