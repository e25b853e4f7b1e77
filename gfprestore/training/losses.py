"""The training objective of GFP-GAN, term by term (arXiv:2101.04061, section 3.5).

Every function is pure and takes float tensors: images RGB [N 3 H W] in [-1, 1], features [N C H W], embeddings [N E].
Every one gives a scalar without its weight, which the configuration holds. Means run over the batch, so that the
gradients of processes that share a batch average to those of one process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def l1(output: Tensor, truth: Tensor) -> Tensor:
    """Reconstruction, equation 4: mean of |y' - y|."""
    return (output - truth).abs().mean()


def image_pyramid(image: Tensor, count: int) -> list[Tensor]:
    """The image at `count` sizes, each half the next, smallest first; the last is the image itself."""
    levels = [image]
    for _ in range(count - 1):
        levels.insert(0, F.interpolate(levels[0], scale_factor=0.5, mode="bilinear", align_corners=False))
    return levels


def pyramid(outputs: Sequence[Tensor], truth: Tensor) -> Tensor:
    """Pyramid restoration (section 3.2): sum over the sizes of the mean |F_rgb - y|.

    Args:
        outputs: The U-Net's images, smallest first, each twice the one before; the last of the truth's size.
        truth: The truth.
    """
    levels = image_pyramid(truth, len(outputs))
    return torch.stack([l1(output, level) for output, level in zip(outputs, levels, strict=True)]).sum()


def gram(features: Tensor) -> Tensor:
    """Gram matrix of the channels, [N C H W] -> [N C C], divided by C H W."""
    flat = features.flatten(2)  # [N C H*W]
    # In one type under autocast as well: sums over a whole map overflow the short ones' precision.
    with torch.autocast(features.device.type, enabled=False):
        flat = flat if flat.dtype == torch.float64 else flat.float()
        return flat @ flat.mT / flat[0].numel()


def feature_content(outputs: Sequence[Tensor], truths: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Perceptual content, equation 4: sum over layers of w |phi(y') - phi(y)|."""
    return _over_layers(outputs, truths, weights, l1)


def feature_style(outputs: Sequence[Tensor], truths: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Style: sum over layers of w |Gram(psi(y')) - Gram(psi(y))|, for VGG and, in equation 6, for facial components."""
    return _over_layers(outputs, truths, weights, lambda output, truth: l1(gram(output), gram(truth)))


def _over_layers(
    outputs: Sequence[Tensor],
    truths: Sequence[Tensor],
    weights: Sequence[float],
    distance: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    terms = [w * distance(o, t) for o, t, w in zip(outputs, truths, weights, strict=True)]
    return torch.stack(terms).sum()


def generator_adversarial(fake_logits: Tensor) -> Tensor:
    """Non-saturating logistic loss, equation 5: -log sigmoid(D(y'))."""
    return F.softplus(-fake_logits).mean()


def discriminator_adversarial(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Logistic loss of a discriminator: -log sigmoid(D(y)) - log(1 - sigmoid(D(y')))."""
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def r1_penalty(real_logits: Tensor, real: Tensor) -> Tensor:
    """R1 (Mescheder et al., arXiv:1801.04406, equation 9), without gamma / 2: E |grad_y D(y)|^2.

    Of many logits for an image, one a patch, it is divided by their number: gradients of patches that lie apart do not
    overlap, so that the square of their sum grows with it while the adversarial loss is their mean.

    Args:
        real_logits: D(y), any shape whose first axis is N.
        real: y, which requires a gradient.
    """
    (gradient,) = torch.autograd.grad(real_logits.sum(), real, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean() / real_logits[0].numel()


PATH_DECAY = 0.01
"""Share of a batch in the running mean of path lengths."""


def path_length_penalty(images: Tensor, codes: Tensor, noise: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Path length regularisation of StyleGAN2 (arXiv:1912.04958, section 3.2): E (|J_w^T y| - a)^2.

    Args:
        images: Synthesised images.
        codes: Latent codes [N K L] that they were made from, which require a gradient.
        noise: Standard normal, of the images' shape.
        mean: The running mean of lengths before this batch, a scalar.

    Returns:
        The penalty, against a running mean a that this batch has moved, and that mean without a graph.
    """
    scaled = images * noise / (images.shape[2] * images.shape[3]) ** 0.5
    (gradient,) = torch.autograd.grad(scaled.sum(), codes, create_graph=True)
    lengths = gradient.square().sum(2).mean(1).sqrt()  # [N]
    moved = mean + PATH_DECAY * (lengths.mean() - mean)
    return (lengths - moved).square().mean(), moved.detach()


def identity_l1(output: Tensor, truth: Tensor) -> Tensor:
    """Identity preserving, equation 7: mean of |eta(y') - eta(y)| over the embedding's values."""
    return l1(output, truth)


def identity_cosine(output: Tensor, truth: Tensor) -> Tensor:
    """Identity as the angle sees it: mean of 1 - cos(eta(y'), eta(y))."""
    return (1 - F.cosine_similarity(output, truth, dim=1)).mean()
