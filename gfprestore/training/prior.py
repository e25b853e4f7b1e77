"""The prior recipe: pretraining the StyleGAN2 that becomes GFP-GAN's facial prior (arXiv:1912.04958).

The decoder alone, on clean faces: logistic adversarial loss, lazy R1, lazy path length regularisation, style mixing.
What it exports is what `generator.prior` reads.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
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
from gfprestore.training.recipe import average_into, ema_decay, group_by_rate, make_adam, mean_values, share_gradients

_CODES = 4
"""Stream of random numbers under one seed, beside those of the data set and the other recipe."""


class PathMean(nn.Module):
    """The running mean of path lengths, a module so that checkpoints keep it."""

    value: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("value", torch.zeros(()))


class PriorPretraining:
    """Networks, optimisers and the step; see `Recipe`."""

    def __init__(self, config: TrainingConfig, device: torch.device) -> None:
        if config.run.batch % config.prior.path_batch_shrink:
            raise UsageError("run.batch is a multiple of prior.path_batch_shrink.")
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
        for batch, draw in zip(batches, self._draws(step, 0), strict=True):
            with torch.no_grad():
                fake = self._synthesise(draw, batch)[0]
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
        for batch, draw in zip(batches, self._draws(step, 1), strict=True):
            loss = losses.generator_adversarial(self._logits(self._synthesise(draw, batch)[0]))
            torch.autograd.backward(self._config.losses.adversarial * loss / len(batches))
            parts.append({"adversarial": loss.detach()})
        share_gradients([self._decoder])
        self.optimisers["generator"].step()
        return mean_values(parts)

    def _regularise_paths(self, step: int, batches: Sequence[Batch]) -> dict[str, Tensor]:
        config = self._config.prior
        self.optimisers["generator"].zero_grad()
        parts, means = [], []
        for batch, draw in zip(batches, self._draws(step, 2), strict=True):
            count = max(1, len(batch) // config.path_batch_shrink)
            images, codes = self._synthesise(draw, batch, count=count, autocast=False)
            noise = torch.from_numpy(draw.standard_normal(images.shape, dtype=np.float32)).to(self._device)
            penalty, mean = losses.path_length_penalty(images, codes, noise, self._path_mean.value)
            torch.autograd.backward(config.path_length * config.path_every * penalty / len(batches))
            parts.append({"path_penalty": penalty.detach(), "path_length": mean})
            means.append(mean)
        share_gradients([self._decoder])
        self.optimisers["generator"].step()
        self._path_mean.value.copy_(torch.stack(means).mean())
        return mean_values(parts)

    def _draws(self, step: int, purpose: int) -> Iterator[np.random.Generator]:
        """A generator of random numbers for each micro-batch of this process."""
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        for index in range(self._config.run.accumulate):
            yield np.random.default_rng([self._config.run.seed, _CODES, step, purpose, rank, index])

    def _synthesise(
        self, draw: np.random.Generator, batch: Batch, *, count: int | None = None, autocast: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Draws codes and noise and makes images; returns both, codes [N K L]."""
        count = len(batch) if count is None else count
        rows = draw.standard_normal((2, count, self._config.generator.latent_size), dtype=np.float32)
        first, second = (self._decoder.map_noise(torch.from_numpy(row).to(self._device)) for row in rows)
        layers = torch.arange(self._layers, device=self._device)[None, :, None]
        is_mixed = draw.random() < self._config.prior.mixing
        crossing = int(draw.integers(1, self._layers)) if is_mixed else self._layers
        codes = torch.where(layers < crossing, first[:, None], second[:, None])  # [N K L]
        sides = [stored.shape[-1] for stored in self._decoder.stored_noise()]
        noise = [
            torch.from_numpy(draw.standard_normal((count, 1, side, side), dtype=np.float32)).to(self._device)
            for side in sides
        ]
        with self._networks_run() if autocast else nullcontext():
            images: Tensor = self._decoder(codes, noise=noise)
        return images.float(), codes

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
