"""The configuration of a training run: frozen dataclasses, every default in one place.

Where a key names a weights file, a name of `gfprestore-weights list` does as well.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from gfprestore.training.degradation_presets import RELEASE, DegradationPreset


@dataclass(frozen=True)
class DataConfig:
    """Where the faces come from."""

    sources: tuple[str, ...] = ()
    """Folders of aligned faces, LMDB folders (`*.lmdb`), tar shards (`*.tar`)."""

    held_out: int = 100
    """Faces at the end of each source, by name, that are never trained on; validation takes them."""

    flip: bool = True
    """Mirror every other face."""

    components: str | None = None
    """File of eyes and mouths (FFHQ's `.pth` or JSON); else a folder's `components.json`, or the mean face's."""

    workers: int = 4
    """Processes that read and degrade faces; 0 does it in the trainer's own. The faces are the same however many."""


@dataclass(frozen=True)
class GeneratorConfig:
    """The network, as `GfpganShape` in the official code's terms."""

    size: int = 512
    """Side of the faces in pixels."""

    channel_multiplier: float = 1.0
    """Width from 64 pixels up."""

    narrow: float = 1.0
    """Width of the decoder; the U-Net has half of it."""

    latent_size: int = 512
    """Values in one latent code."""

    mlp_layers: int = 8
    """Layers of the prior's mapping network."""

    sft: Literal["half", "full", "none"] = "half"
    """CS-SFT, plain SFT on all channels, or no spatial modulation (table 4)."""

    many_codes: bool = True
    """A latent code for every layer (W+)."""

    resampling: Literal["bilinear", "fir"] = "bilinear"
    """The clean architecture's or the paper's."""

    random_noise: bool = True
    """Draw the decoder's noise anew for each face; False trains with the maps that are stored in the weights."""

    prior: str | None = None
    """A StyleGAN2 for the decoder, official or of the `prior` recipe."""

    random_prior: bool = False
    """Whether the decoder may start at random where neither `prior` nor `weights` names a file: a small network trained
    from nothing, or "no prior" in table 4."""

    train_prior: bool = True
    """Train the decoder as well; the published configuration keeps a pretrained one as it is."""

    weights: str | None = None
    """Weights of a whole network to start from."""


@dataclass(frozen=True)
class LossConfig:
    """Weight of every loss, and the networks that they need; a weight of 0 leaves the loss out."""

    l1: float = 0.1
    """Reconstruction."""

    perceptual: float = 1.0
    """VGG-19 content."""

    perceptual_style: float = 50.0
    """VGG-19 style (Gram), of the published configuration."""

    perceptual_layers: tuple[float, ...] = (0.1, 0.1, 1.0, 1.0, 1.0)
    """Weights of conv1_2, conv2_2, conv3_4, conv4_4, conv5_4 in both."""

    vgg19: str | None = None
    """File of torchvision's VGG-19 weights."""

    lpips: float = 0.0
    """LPIPS with AlexNet at two scales."""

    lpips_alexnet: str | None = None
    """File of torchvision's AlexNet weights; else `alexnet`."""

    lpips_vgg: float = 0.0
    """LPIPS with VGG-16 on a crop of a third of the side."""

    lpips_vgg16: str | None = None
    """File of torchvision's VGG-16 weights; else `vgg16`."""

    pyramid: float = 1.0
    """L1 at every size of the U-Net."""

    pyramid_steps: int = 50_000
    """Steps after which the pyramid loss ends."""

    adversarial: float = 0.1
    """Logistic adversarial loss of the whole face."""

    adversarial_from: int = 0
    """Step from which the adversarial losses reach the generator."""

    r1: float = 10.0
    """Gamma of R1 on the discriminator."""

    r1_every: int = 16
    """Steps from one R1 to the next, which counts as often."""

    component: float = 1.0
    """Adversarial loss of each facial component."""

    component_style: float = 200.0
    """Feature style of the components: Gram matrices of their discriminators' features."""

    component_matching: float = 0.0
    """Feature matching of the components in its place (table 4)."""

    identity: float = 10.0
    """L1 between face embeddings."""

    identity_cosine: float = 0.0
    """1 - cosine between face embeddings."""

    identity_weights: str | None = None
    """File of the recognition network: `arcface_resnet18.pth`, or an ONNX network on ArcFace's crop; else
    `arcface-resnet18` where `identity` has a weight, and `w600k-mbf` where it has none."""


@dataclass(frozen=True)
class DiscriminatorConfig:
    """The discriminators."""

    kind: Literal["stylegan2", "patch"] = "stylegan2"
    """The paper's, or one that judges small patches."""

    channel_multiplier: float = 1.0
    """Width from 64 pixels up."""

    narrow: float = 1.0
    """Width; the components' discriminators follow it."""

    patch_width: int = 32
    """First width of the patch discriminator."""

    group: int = 4
    """Images whose deviation is taken together."""


@dataclass(frozen=True)
class OptimiserConfig:
    """Adam, and how its learning rate falls."""

    learning_rate: float = 2e-3
    """Of all networks."""

    equalised: bool = False
    """Start and move the generator's weights as StyleGAN2's equalised layers do, by the rate over the root of a layer's
    fan in (arXiv:1710.10196, section 4.1). The published 2e-3 is such a rate; for all weights alike it is too much and
    diverges. The discriminators' layers are equalised by themselves."""

    discriminator_rate: float = 1.0
    """Factor on it for the discriminators."""

    betas: tuple[float, float] = (0.0, 0.99)
    """Of the generator and the discriminator of the whole face."""

    component_betas: tuple[float, float] = (0.9, 0.99)
    """Of the components' discriminators."""

    warm_up: int = 0
    """Steps over which the rate rises."""

    milestones: tuple[int, ...] = (700_000, 750_000)
    """Steps after which the rate is multiplied by `gamma`."""

    gamma: float = 0.5
    """That factor."""

    decay_from: float = 1.0
    """Part of all steps after which the rate falls along a line to zero; 1 is never."""

    clip_norm: float = 0.0
    """Greatest norm of the generator's gradient; 0 does not clip."""

    ema_half_life: float = 10_000.0
    """Images after which a weight's share in the average has halved, counted as the published code does, in batches of
    32 whatever the batch is."""


@dataclass(frozen=True)
class PriorConfig:
    """Pretraining of the facial prior: StyleGAN2 (arXiv:1912.04958)."""

    mixing: float = 0.9
    """How often two codes are mixed."""

    path_length: float = 2.0
    """Weight of path length regularisation."""

    path_every: int = 4
    """Steps from one path length regularisation to the next."""

    path_batch_shrink: int = 2
    """By how much its batch is smaller."""


@dataclass(frozen=True)
class RunConfig:
    """How the training runs."""

    steps: int = 800_000
    """Steps of the optimisers."""

    batch: int = 12
    """Faces in a step, over all processes and micro-batches."""

    accumulate: int = 1
    """Micro-batches that a process's share is split into."""

    seed: int = 0
    """Seed of everything."""

    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `mps`; with torchrun each process takes the GPU of its local rank."""

    precision: Literal["fp32", "bf16"] = "bf16"
    """`bf16` runs the networks under autocast; weights, losses and optimisers stay fp32."""

    channels_last: bool = True
    """Lay out images and kernels with the channels last, which convolutions prefer."""

    compile: bool = False
    """Run the generator through `torch.compile`."""

    threads: int = 0
    """Threads of the processor; 0 leaves them to torch."""

    log_every: int = 100
    """Steps from one line of numbers to the next."""

    images_every: int = 1000
    """Steps from one grid of images to the next; 0 is none."""

    checkpoint_every: int = 5000
    """Steps from one checkpoint to the next."""

    keep: int = 3
    """Checkpoints that are kept; the best one is kept besides."""


@dataclass(frozen=True)
class ValidationConfig:
    """Measuring on degraded faces that are always the same."""

    every: int = 5000
    """Steps from one validation to the next; 0 is never."""

    sources: tuple[str, ...] = ()
    """As `data.sources`; without any, the faces that these hold out."""

    count: int = 100
    """Faces at most, spread evenly over the sources."""

    degradation: str = "article"
    """Preset that they are degraded with."""

    metrics: tuple[str, ...] = ("psnr", "ssim")
    """Of `psnr`, `ssim`, `lpips-alex`, `lpips-vgg`, `identity`; the last is the angle of the identity network."""

    best: str = "psnr"
    """Metric that decides which checkpoint is the best."""

    lpips_vgg: str | None = None
    """File of torchvision's VGG-16 weights, for `lpips-vgg`; else `vgg16`."""


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides a run."""

    recipe: Literal["restoration", "prior"] = "restoration"
    """Train GFP-GAN, or a StyleGAN2 as its prior."""

    data: DataConfig = field(default_factory=DataConfig)
    degradation: DegradationPreset = RELEASE
    """Named by `degradation.preset`, further fields change it."""

    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    losses: LossConfig = field(default_factory=LossConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    prior: PriorConfig = field(default_factory=PriorConfig)
    run: RunConfig = field(default_factory=RunConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
