"""One step of GFP-GAN's training: the generator against its losses, then the discriminators (section 3.5)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor, nn

from gfprestore.nn.gfpgan import Gfpgan
from gfprestore.training import losses
from gfprestore.training.config import LossConfig
from gfprestore.training.dataset import Batch
from gfprestore.training.networks import FrozenNetworks
from gfprestore.training.regions import PARTS, cut_components

Values = dict[str, Tensor]
"""Losses by name, weighted as they are summed, without a graph."""

_NOISE, _CROP = 2, 3
"""Streams of random numbers under one seed, beside those of the data set."""


class RestorationObjective:
    """The losses of one run."""

    def __init__(
        self, config: LossConfig, frozen: FrozenNetworks, discriminators: nn.ModuleDict, *, seed: int, autocast: bool
    ) -> None:
        self._config = config
        self._frozen = frozen
        self._discriminators = discriminators
        self._seed = seed
        self._autocast = autocast

    def networks_run(self, device: torch.device) -> AbstractContextManager[object]:
        """What networks run under: autocast to bfloat16 where the run asks for it."""
        return torch.autocast(device.type, torch.bfloat16) if self._autocast else nullcontext()

    def generator_loss(
        self, generator: nn.Module, batch: Batch, step: int, noise: list[Tensor] | None
    ) -> tuple[Tensor, Tensor, Values]:
        """Restores a batch and weighs the result.

        Args:
            generator: GFP-GAN, or what wraps it.
            batch: The samples.
            step: Counts from 0.
            noise: The decoder's noise maps; None takes the stored ones.

        Returns:
            The sum of the losses, a scalar; the restored faces without a graph; and the losses by name.
        """
        config = self._config
        with self.networks_run(batch.truth.device):
            output, images, _ = generator(batch.degraded, return_pyramid=True, noise=noise)
        output, images = output.float(), [image.float() for image in images]
        terms: Values = {}
        if config.l1:
            terms["l1"] = config.l1 * losses.l1(output, batch.truth)
        if config.pyramid:
            # Afterwards with a weight of 0, so that every parameter keeps a gradient that processes can share.
            weight = config.pyramid if step < config.pyramid_steps else 0.0
            terms["pyramid"] = weight * losses.pyramid(images, batch.truth)
        terms |= self._perceptual(output, batch, step)
        terms |= self._identity(output, batch)
        if step >= config.adversarial_from:
            terms |= self._adversarial(output, batch)
        total = torch.stack(list(terms.values())).sum()
        return total, output.detach(), {name: term.detach() for name, term in terms.items()}

    def discriminator_loss(self, fake: Tensor, batch: Batch) -> tuple[Tensor, Values]:
        """Logistic losses of all discriminators on restored and true faces; the mean logits beside them."""
        terms, scores = {}, {}
        parts_fake = cut_components(fake, batch.boxes) if "mouth" in self._discriminators else []
        parts_truth = cut_components(batch.truth, batch.boxes) if "mouth" in self._discriminators else []
        pairs = dict(zip(PARTS, zip(parts_truth, parts_fake, strict=True), strict=False))
        pairs["face"] = (batch.truth, fake)
        for name, network in self._discriminators.items():
            real_logits, fake_logits = (self._logits(network, images) for images in pairs[name])
            terms[f"d_{name}"] = losses.discriminator_adversarial(real_logits, fake_logits)
            scores[f"real_{name}"], scores[f"fake_{name}"] = real_logits.mean(), fake_logits.mean()
        values = {name: term.detach() for name, term in (terms | scores).items()}
        return torch.stack(list(terms.values())).sum(), values

    def r1_loss(self, batch: Batch) -> tuple[Tensor, Values]:
        """R1 of the face's discriminator, times how seldom it comes; in fp32, since it is a second derivative."""
        real = batch.truth.detach().requires_grad_(True)
        penalty = losses.r1_penalty(self._discriminators["face"](real), real)
        loss = self._config.r1 / 2 * self._config.r1_every * penalty
        return loss, {"r1": penalty.detach()}

    def _logits(self, network: nn.Module, images: Tensor) -> Tensor:
        with self.networks_run(images.device):
            result = network(images)
        logits: Tensor = result[0] if isinstance(result, tuple) else result
        return logits.float()

    def _perceptual(self, output: Tensor, batch: Batch, step: int) -> Values:
        config, terms = self._config, {}
        if self._frozen.vgg19 is not None:
            with self.networks_run(output.device):
                features = self._frozen.vgg19(output)
                with torch.no_grad():
                    truths = self._frozen.vgg19(batch.truth)
            features, truths = [f.float() for f in features], [t.float() for t in truths]
            weights = config.perceptual_layers
            if config.perceptual:
                terms["perceptual"] = config.perceptual * losses.feature_content(features, truths, weights)
            if config.perceptual_style:
                terms["perceptual_style"] = config.perceptual_style * losses.feature_style(features, truths, weights)
        left, top = np.random.default_rng([self._seed, _CROP, step]).random(2)
        for name, weight in (("lpips", config.lpips), ("lpips_vgg", config.lpips_vgg)):
            distance = getattr(self._frozen, name)
            if distance is not None:
                with self.networks_run(output.device):
                    terms[name] = weight * distance(output, batch.truth, (left, top)).float()
        return terms

    def _identity(self, output: Tensor, batch: Batch) -> Values:
        config, terms = self._config, {}
        if self._frozen.identity is not None:
            # In fp32: a small network, and angles lose more to short numbers than images do.
            embedding = self._frozen.identity(output)
            with torch.no_grad():
                truth = self._frozen.identity(batch.truth)
            if config.identity:
                terms["identity"] = config.identity * losses.identity_l1(embedding, truth)
            if config.identity_cosine:
                terms["identity_cosine"] = config.identity_cosine * losses.identity_cosine(embedding, truth)
        return terms

    def _adversarial(self, output: Tensor, batch: Batch) -> Values:
        config, terms = self._config, {}
        if "face" in self._discriminators:
            logits = self._logits(self._discriminators["face"], output)
            terms["adversarial"] = config.adversarial * losses.generator_adversarial(logits)
        if "mouth" in self._discriminators:
            regions = cut_components(output, batch.boxes)
            truths = cut_components(batch.truth, batch.boxes)
            sums = [self._component(part, *pair) for part, *pair in zip(PARTS, regions, truths, strict=True)]
            for name in sums[0]:
                terms[name] = torch.stack([values[name] for values in sums]).sum()
        return terms

    def _component(self, part: str, region: Tensor, truth: Tensor) -> Values:
        """Losses of one facial component, equation 6."""
        config, network = self._config, self._discriminators[part]
        with self.networks_run(region.device):
            logits, features = network(region)
            with torch.no_grad():
                truths = network(truth)[1]
        features, truths = [f.float() for f in features], [t.float() for t in truths]
        terms = {}
        if config.component:
            terms["component"] = config.component * losses.generator_adversarial(logits.float())
        if config.component_style:
            terms["component_style"] = config.component_style * losses.feature_style(features, truths, STYLE_LAYERS)
        if config.component_matching:
            matching = losses.feature_content(features, truths, STYLE_LAYERS)
            terms["component_matching"] = config.component_matching * matching
        return terms


STYLE_LAYERS = (0.5, 1.0)
"""Weights of the component discriminators' two layers, as in the official code."""


def needs_face(config: LossConfig) -> bool:
    """Whether the losses need a discriminator of the whole face."""
    return config.adversarial > 0


def needs_components(config: LossConfig) -> bool:
    """Whether the losses need discriminators of the facial components."""
    return config.component > 0 or config.component_style > 0 or config.component_matching > 0


def sample_noise(network: Gfpgan, numbers: Sequence[int], seed: int, device: torch.device) -> list[Tensor]:
    """Draws noise maps for a batch, each sample's from its own number, so that no split of a batch changes them.

    Returns:
        Maps [N 1 S S], one for every styled convolution.
    """
    sides = [stored.shape[-1] for stored in network.stylegan_decoder.stored_noise()]
    rows = []
    for number in numbers:
        generator = np.random.default_rng([seed, _NOISE, number])
        rows.append([generator.standard_normal((1, side, side), dtype=np.float32) for side in sides])
    return [torch.from_numpy(np.stack(maps)).to(device) for maps in zip(*rows, strict=True)]
