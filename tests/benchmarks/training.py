"""Training images per second of this program against the official training step, on the same tensors and machine.

    python tests/benchmarks/training.py --gfpgan GFPGAN --basicsr BasicSR

The two folders are checkouts of TencentARC/GFPGAN and XPixelGroup/BasicSR; without them only this program is measured.
Both run the whole step of the release configuration in fp32 with two cores: generator, pyramid, L1, VGG-19 content and
style, the discriminator with R1, the components' discriminators with feature style, ArcFace identity, Adam, EMA. The
weights are random, which costs the same. The official fused activation, a CUDA kernel, is written out as its formula.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import tempfile
import time
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
import torchvision
from safetensors.torch import save_file
from torch import nn

from gfprestore.nn.gfpgan import StyleGan2Decoder
from gfprestore.training import networks, restoration
from gfprestore.training.config import TrainingConfig
from gfprestore.training.configfile import load_config
from gfprestore.training.dataset import Batch
from gfprestore.training.identity import ResNetArcFace
from gfprestore.training.perceptual import Vgg19Features
from gfprestore.training.regions import component_boxes, template_components


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gfpgan", type=Path, help="Checkout of the official program.")
    parser.add_argument("--basicsr", type=Path, help="Checkout of the library that it trains with.")
    parser.add_argument("--size", type=int, default=256, help="Side of the faces; the official sizes are 512.")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="Of this program.")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="cpu counts processor time: for a machine that is shared.",
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    batch = make_batch(options)
    steps: dict[str, Callable[[int], object]] = {"gfprestore": our_step(options, batch)}
    if options.gfpgan is not None and options.basicsr is not None:
        steps["official"] = official_step(options, batch)
    seconds = measure(steps, options)
    for name, spent in seconds.items():
        print(f"{name}: {options.batch / spent:.3f} images/s ({spent:.2f} s a step)")
    if "official" in seconds:
        print(f"ratio: {seconds['official'] / seconds['gfprestore']:.2f}")


def make_batch(options: argparse.Namespace) -> Batch:
    generator = torch.Generator().manual_seed(0)
    shape = (options.batch, 3, options.size, options.size)
    images = [torch.rand(shape, generator=generator) * 2 - 1 for _ in range(2)]
    boxes = torch.from_numpy(component_boxes(template_components())) * (options.size / 512)
    batch = Batch(*images, boxes.expand(options.batch, -1, -1), torch.arange(options.batch))
    return batch.to(torch.device(options.device), torch.contiguous_format)


def our_config(options: argparse.Namespace) -> TrainingConfig:
    config = load_config("release")
    return replace(
        config,
        generator=replace(config.generator, size=options.size, channel_multiplier=1.0),
        run=replace(config.run, precision=options.precision, batch=options.batch),
    )


def our_step(options: argparse.Namespace, batch: Batch) -> Callable[[int], object]:
    identity = ResNetArcFace().eval().requires_grad_(False)
    frozen = networks.FrozenNetworks(vgg19=Vgg19Features().requires_grad_(False), identity=identity)
    # Random values cost as much as the published ones, which need a download.
    restoration.load_frozen = lambda _config: frozen
    config = our_config(options)
    with tempfile.TemporaryDirectory() as folder:
        # So is the prior that the release keeps as it is.
        prior = Path(folder, "prior.safetensors")
        save_file(StyleGan2Decoder(networks.generator_shape(config.generator)).state_dict(), prior)
        config = replace(config, generator=replace(config.generator, prior=str(prior)))
        recipe = restoration.Restoration(config, torch.device(options.device))
    batch = batch.to(torch.device(options.device), torch.channels_last)
    return lambda step: recipe.train_step(step, [batch])


def official_step(options: argparse.Namespace, batch: Batch) -> Callable[[int], object]:
    """The official model object with the official networks, its step untouched."""
    modules = load_official(options.gfpgan, options.basicsr)
    model = object.__new__(modules["model"].GFPGANModel)
    size, device = options.size, options.device
    arch = modules["generator"].GFPGANv1Clean
    model.net_g = arch(
        size, 512, 1, None, True, num_mlp=8, input_is_latent=True, different_w=True, narrow=1, sft_half=True
    ).to(device)
    model.net_g_ema = arch(
        size, 512, 1, None, True, num_mlp=8, input_is_latent=True, different_w=True, narrow=1, sft_half=True
    ).to(device)
    model.net_d = modules["stylegan2"].StyleGAN2Discriminator(size, channel_multiplier=1).to(device)
    component = modules["paper"].FacialComponentDiscriminator
    model.net_d_left_eye, model.net_d_right_eye, model.net_d_mouth = (component().to(device) for _ in range(3))
    model.network_identity = modules["arcface"].ResNetArcFace("IRBlock", [2, 2, 2, 2], use_se=False).to(device).eval()
    model.network_identity.requires_grad_(False)
    set_official_losses(model, modules)
    model.opt = {
        "network_g": {"out_size": 512},
        "train": {"pyramid_loss_weight": 1, "comp_style_weight": 200, "identity_weight": 10},
        "dist": False,
    }
    model.log_size = size.bit_length() - 1
    model.use_facial_disc = model.use_identity = True
    model.net_d_iters, model.net_d_init_iters, model.net_d_reg_every, model.r1_reg_weight = 1, 0, 16, 10
    model.device = torch.device(device)
    model.lq, model.gt = batch.degraded, batch.truth
    model.loc_left_eyes, model.loc_right_eyes, model.loc_mouths = batch.boxes.unbind(1)
    set_official_optimisers(model)

    def step(number: int) -> None:
        model.gt = batch.truth.clone()
        model.optimize_parameters(number)

    return step


def set_official_losses(model: object, modules: dict[str, types.ModuleType]) -> None:
    gan, basic = modules["gan"], modules["basic"]
    names = dict(zip(("conv1_2", "conv2_2", "conv3_4", "conv4_4", "conv5_4"), (0.1, 0.1, 1, 1, 1), strict=True))
    model.cri_pix, model.cri_l1 = basic.L1Loss(0.1), basic.L1Loss()
    perceptual = basic.PerceptualLoss(names, perceptual_weight=1.0, style_weight=50, range_norm=True)
    model.cri_perceptual = perceptual.to(next(model.net_g.parameters()).device)
    model.cri_gan = gan.GANLoss("wgan_softplus", loss_weight=0.1)
    model.cri_component = gan.GANLoss("vanilla", loss_weight=1.0)
    model.reduce_loss_dict = lambda values: {name: float(value.detach().mean()) for name, value in values.items()}
    decay = 0.5 ** (32 / 10_000)

    def model_ema(decay: float = decay) -> None:
        with torch.no_grad():
            for held, new in zip(model.net_g_ema.parameters(), model.net_g.parameters(), strict=True):
                held.data.mul_(decay).add_(new.data, alpha=1 - decay)

    model.model_ema = model_ema


def set_official_optimisers(model: object) -> None:
    for name in ("g", "d", "d_left_eye", "d_right_eye", "d_mouth"):
        parameters = [p for p in getattr(model, f"net_{name}").parameters() if p.requires_grad]
        setattr(model, f"optimizer_{name}", torch.optim.Adam(parameters, 2e-3, betas=(0.0, 0.99)))


OFFICIAL_FILES = {
    "registry": "basicsr/basicsr/utils/registry.py",
    "upfirdn2d": "basicsr/basicsr/ops/upfirdn2d/upfirdn2d.py",
    "arch_util": "basicsr/basicsr/archs/arch_util.py",
    "vgg": "basicsr/basicsr/archs/vgg_arch.py",
    "util": "basicsr/basicsr/losses/loss_util.py",
    "basic": "basicsr/basicsr/losses/basic_loss.py",
    "gan": "basicsr/basicsr/losses/gan_loss.py",
    "stylegan2": "basicsr/basicsr/archs/stylegan2_arch.py",
    "clean": "gfpgan/gfpgan/archs/stylegan2_clean_arch.py",
    "generator": "gfpgan/gfpgan/archs/gfpganv1_clean_arch.py",
    "paper": "gfpgan/gfpgan/archs/gfpganv1_arch.py",
    "arcface": "gfpgan/gfpgan/archs/arcface_arch.py",
    "model": "gfpgan/gfpgan/models/gfpgan_model.py",
}
"""What a step needs, in the order of its imports; the first folder stands for the checkout."""

STUBS = {
    "basicsr": (),
    "basicsr.utils": ("get_root_logger", "imwrite", "tensor2img", "scandir"),
    "basicsr.archs": ("build_network",),
    "basicsr.losses": ("build_loss",),
    "basicsr.metrics": ("calculate_metric",),
    "basicsr.ops": (),
    "basicsr.ops.dcn": ("ModulatedDeformConvPack", "modulated_deform_conv"),
    "basicsr.models": (),
    "gfpgan": (),
    "gfpgan.archs": (),
    "gfpgan.models": (),
}
"""Packages whose own start would import everything, and the names that the step's files ask them for."""


def load_official(gfpgan: Path, basicsr: Path) -> dict[str, types.ModuleType]:
    """Loads the official files that a step needs, without the rest of their packages."""
    for name, attributes in STUBS.items():
        sys.modules[name] = module = types.ModuleType(name)
        module.__path__ = []
        module.__dict__.update(dict.fromkeys(attributes, object))
    base = types.ModuleType("basicsr.models.base_model")
    base.BaseModel = object
    fused = types.ModuleType("basicsr.ops.fused_act")
    fused.__dict__.update(FusedLeakyReLU=FusedLeakyReLU, fused_leaky_relu=fused_leaky_relu)
    sys.modules |= {base.__name__: base, fused.__name__: fused}
    # The published file downloads VGG-19's weights; random ones cost the same.
    torchvision.models.vgg.vgg19 = lambda pretrained: VGG19(weights=None)
    checkouts = {"basicsr": basicsr, "gfpgan": gfpgan}
    modules = {}
    for key, path in OFFICIAL_FILES.items():
        checkout, _, inner = path.partition("/")
        name = inner.removesuffix(".py").replace("/", ".").replace(".upfirdn2d.upfirdn2d", ".upfirdn2d")
        spec = importlib.util.spec_from_file_location(name, checkouts[checkout] / inner)
        modules[key] = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(modules[key])
    return modules


def fused_leaky_relu(x: torch.Tensor, bias: torch.Tensor, slope: float = 0.2, scale: float = 2**0.5) -> torch.Tensor:
    """The official CUDA kernel's formula."""
    return F.leaky_relu(x + bias.view(1, -1, *([1] * (x.ndim - 2))), slope) * scale


class FusedLeakyReLU(nn.Module):
    """The official layer around that kernel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return fused_leaky_relu(x, self.bias)


VGG19 = torchvision.models.vgg.vgg19


def measure(steps: dict[str, Callable[[int], object]], options: argparse.Namespace) -> dict[str, float]:
    """Seconds a step by name: medians of rounds side by side, with a sixteenth of what R1 adds."""
    lazy: dict[str, list[float]] = {name: [] for name in steps}
    plain: dict[str, list[float]] = {name: [] for name in steps}
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    for count in range(options.rounds + 1):
        for name, step in steps.items():
            # Step 16 has R1; the first round only warms up.
            for number, spent in ((1, plain), (16, lazy)):
                start = clock()
                step(number)
                if options.device.startswith("cuda"):
                    torch.cuda.synchronize()
                if count:
                    spent[name].append(clock() - start)
    medians = {name: (statistics.median(plain[name]), statistics.median(lazy[name])) for name in steps}
    return {name: without + (with_r1 - without) / 16 for name, (without, with_r1) in medians.items()}


if __name__ == "__main__":
    main()
