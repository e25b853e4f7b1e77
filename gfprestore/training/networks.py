"""Builds the networks of a run from its configuration."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from gfprestore.errors import UsageError, WeightsError, printable
from gfprestore.nn.checkpoint import load_gfpgan
from gfprestore.nn.gfpgan import Gfpgan, StyleGan2Decoder
from gfprestore.nn.paper_weights import clean_factor, to_clean
from gfprestore.nn.shape import GfpganShape, Resampling, Sft
from gfprestore.nn.tensors import as_tensors
from gfprestore.nn.widths import released_widths
from gfprestore.training.config import DiscriminatorConfig, GeneratorConfig, LossConfig
from gfprestore.training.discriminators import ComponentDiscriminator, PatchDiscriminator, StyleGan2Discriminator
from gfprestore.training.files import ARCFACES, named_file, wanted_file
from gfprestore.training.identity import load_onnx_arcface, load_resnet_arcface
from gfprestore.training.perceptual import LpipsDistance, Vgg19Features, load_vgg19
from gfprestore.training.regions import PARTS
from gfprestore.weights import read_state_dict, read_tensors

_DECODER = "stylegan_decoder."


def generator_shape(config: GeneratorConfig) -> GfpganShape:
    """The network's shape; the U-Net has half the decoder's width, as in all released weights."""
    return GfpganShape(
        decoder_widths=released_widths(config.size, config.channel_multiplier, config.narrow),
        unet_widths=released_widths(config.size, config.channel_multiplier, config.narrow / 2),
        latent_size=config.latent_size,
        mlp_layers=config.mlp_layers,
        sft=Sft(config.sft),
        many_codes=config.many_codes,
        resampling=Resampling(config.resampling),
    )


def build_generator(config: GeneratorConfig, *, equalised: bool = False) -> Gfpgan:
    """Builds the generator, with random values or those of the files that the configuration names.

    Random values come from torch's default generator.

    Args:
        config: Its section of the configuration.
        equalised: Whether its layers start and learn as equalised ones, `optimiser.equalised`.

    Raises:
        UsageError: No file is named and the configuration does not say that none is meant.
        WeightsError: A file does not fit the shape.
    """
    _require_prior(config)
    shape = generator_shape(config)
    if config.weights is not None:
        network = load_gfpgan(read_state_dict(named_file(config.weights, "generator.weights")))
        if network.shape != shape:
            raise WeightsError(f"{printable(config.weights)} is of another shape than [generator]: {network.shape}.")
        # The loader maps the file; training writes.
        network = copy.deepcopy(network)
    else:
        network = Gfpgan(shape)
        if equalised:
            initialise_as_published(network)
        else:
            initialise_unet(network)
    if config.prior is not None:
        load_prior_decoder(network.stylegan_decoder, config.prior)
    network.requires_grad_(True)
    network.stylegan_decoder.requires_grad_(config.train_prior)
    # Restoration maps no random code: parameters without a gradient would hold up processes that share gradients.
    network.stylegan_decoder.style_mlp.requires_grad_(False)
    return network.train()


def _require_prior(config: GeneratorConfig) -> None:
    """Sees to it that a decoder without a file behind it is one that was asked for, and that it learns."""
    if config.prior is not None or config.weights is not None:
        return
    if not config.train_prior:
        raise UsageError(
            "generator.train_prior = false keeps a prior, and neither generator.prior nor generator.weights names one:"
            " set one of them, --set generator.prior=FILE; `gfprestore-train run prior` makes such a file, and"
            " `gfprestore-weights fetch stylegan2-ffhq` has the official one."
        )
    if not config.random_prior:
        raise UsageError(
            "Neither generator.prior nor generator.weights names a file: set one of them, or --set"
            " generator.random_prior=true to train without a pretrained prior; `gfprestore-train run prior` makes one."
        )


def initialise_as_published(network: Gfpgan) -> None:
    """Starts the layers around the prior as the published training does.

    Its equalised layers store weights of variance 1; these have the variance of what those use. Biases are zero, but
    for the scales, which are around one.
    """
    for name, parameter in network.named_parameters():
        if name.startswith(_DECODER):
            continue
        if name.endswith(".weight"):
            nn.init.normal_(parameter, std=clean_factor(name, tuple(parameter.shape)))
        else:
            nn.init.constant_(parameter, 1.0 if re.fullmatch(r"condition_scale\.\d+\.2\.bias", name) else 0.0)


def initialise_unet(network: Gfpgan) -> None:
    """Starts the layers around the prior variance-preserving, scales close to one, shifts close to zero.

    Where the rate is not equalised, modulations that began as noise would stay it for long.
    """
    for part in (network.conv_body_down, network.conv_body_up, network.toRGB):
        for module in part.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=0.2)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
    for conditions, bias in ((network.condition_scale, 1.0), (network.condition_shift, 0.0)):
        for condition in conditions:
            last = condition.get_submodule("2")
            assert isinstance(last, nn.Conv2d) and last.bias is not None
            nn.init.normal_(last.weight, std=0.1 * (last.weight[0].numel()) ** -0.5)
            nn.init.constant_(last.bias, bias)


def load_prior_decoder(decoder: StyleGan2Decoder, file: str) -> None:
    """Puts a StyleGAN2's weights into a decoder.

    Args:
        decoder: It is changed.
        file: The official StyleGAN2 (`style_conv1.activate.bias`, equalised), or clean names, with or without
            `stylegan_decoder.` in front.

    Raises:
        WeightsError: The weights are another network's, or of another size.
    """
    state = read_state_dict(named_file(file, "generator.prior"))
    arrays = {f"{_DECODER}{key.removeprefix(_DECODER)}": value.astype(np.float32) for key, value in state.items()}
    if any(key.endswith("activate.bias") for key in arrays):
        arrays = to_clean(arrays)
    found = as_tensors({key.removeprefix(_DECODER): value for key, value in arrays.items()})
    wanted = decoder.state_dict()
    for key in sorted(wanted.keys() ^ found.keys()):
        raise WeightsError(f"generator.prior is no StyleGAN2 of this kind: it and [generator] differ in {key!r}.")
    for key, tensor in found.items():
        if tensor.shape != wanted[key].shape:
            shape = f"{key!r} of shape {tuple(tensor.shape)}"
            raise WeightsError(f"generator.prior has {shape}, not {tuple(wanted[key].shape)}: {_told_widths(found)}.")
    decoder.load_state_dict(found)


def _told_widths(decoder: Mapping[str, Tensor]) -> str:
    """The keys of [generator] that decide a decoder's widths, as its own tensors have them; `released_widths` back."""
    narrow = decoder["constant_input.weight"].shape[1] / released_widths(4)[-1]
    told = f"generator.narrow={narrow:g}"
    wide = decoder.get("to_rgbs.3.modulated_conv.weight")  # [1 3 C 1 1] at 64 pixels, the first that are multiplied
    if wide is not None:
        multiplier = wide.shape[2] / (released_widths(64, 1)[-1] * narrow)
        told = f"generator.channel_multiplier={multiplier:g} and {told}"
    return f"the file has {told}, latent codes of {decoder['style_mlp.1.weight'].shape[0]}; set [generator] alike"


def build_discriminators(
    size: int, config: DiscriminatorConfig, *, has_face: bool, has_components: bool
) -> nn.ModuleDict:
    """Builds the discriminators that the losses need: `face`, and one for each facial component."""
    networks: dict[str, nn.Module] = {}
    if has_face:
        networks["face"] = (
            PatchDiscriminator(config.patch_width)
            if config.kind == "patch"
            else StyleGan2Discriminator(size, config.channel_multiplier, config.narrow, config.group)
        )
    if has_components:
        networks.update({part: ComponentDiscriminator(config.narrow) for part in PARTS})
    return nn.ModuleDict(networks).train()


class FrozenNetworks(nn.Module):
    """The networks that losses look through and nothing trains; None where no loss needs them."""

    def __init__(
        self,
        vgg19: Vgg19Features | None = None,
        lpips: LpipsDistance | None = None,
        lpips_vgg: LpipsDistance | None = None,
        identity: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.vgg19 = vgg19
        self.lpips = lpips
        self.lpips_vgg = lpips_vgg
        self.identity = identity


def load_frozen(config: LossConfig) -> FrozenNetworks:
    """Loads what the losses with a weight need.

    Raises:
        UsageError: A loss has a weight and its network no file.
        WeightsError: A file is damaged or another network's.
    """
    frozen = FrozenNetworks()
    if loss := _weighing(config, "perceptual", "perceptual_style"):
        frozen.vgg19 = load_vgg19(read_tensors(wanted_file(config.vgg19, "losses.vgg19", loss)))
    if loss := _weighing(config, "lpips"):
        path = wanted_file(config.lpips_alexnet, "losses.lpips_alexnet", loss)
        frozen.lpips = _load_distance("alex", path, shrink=2, sees_whole=True)
    if loss := _weighing(config, "lpips_vgg"):
        path = wanted_file(config.lpips_vgg16, "losses.lpips_vgg16", loss)
        # VGG-16 costs more than the generator: a small crop, and AlexNet for the whole.
        frozen.lpips_vgg = _load_distance("vgg", path, shrink=3, sees_whole=False)
    if loss := _weighing(config, "identity", "identity_cosine"):
        frozen.identity = load_identity(identity_file(config, loss))
    return frozen


def _load_distance(backbone: Literal["alex", "vgg"], path: Path, *, shrink: int, sees_whole: bool) -> LpipsDistance:
    from gfprestore.evaluation.lpips_metric import load_lpips

    network = load_lpips(backbone, read_tensors(path))
    distance = LpipsDistance(network.features, network.heads, network.taps, shrink=shrink, sees_whole=sees_whole)
    return distance.requires_grad_(False)


def load_identity(path: Path) -> nn.Module:
    """Loads a recognition network: ONNX on ArcFace's crop, or the official ResNet-18."""
    return load_onnx_arcface(path) if path.suffix == ".onnx" else load_resnet_arcface(read_tensors(path))


def identity_file(config: LossConfig, asker: str) -> Path:
    """The recognition network's file; `asker` as in `wanted_file`."""
    standard = ARCFACES["losses.identity" if config.identity else "losses.identity_cosine"]
    return wanted_file(config.identity_weights, "losses.identity_weights", asker, standard)


def _weighing(config: LossConfig, *losses: str) -> str | None:
    """The first of the losses that has a weight, in words; None where none has one."""
    return next((f"losses.{loss} has a weight" for loss in losses if getattr(config, loss)), None)


def lay_out_channels_last(network: nn.Module) -> nn.Module:
    """Stores every convolution's kernel with the channels last; `Module.to` would refuse StyleGAN2's five axes."""
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network
