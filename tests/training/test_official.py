"""The recognition network and the components' discriminator against the official ones, on the same weights.

`golden/networks_official.npz` holds what the official code gave on the tensors that `numbers` makes here:
TencentARC/GFPGAN at 7552a7791caad982045a7bbe5634bbf1cd5c8679 (`ResNetArcFace` of IRBlocks without squeeze and
excitation, on what `gray_resize_for_identity` makes of the image; `FacialComponentDiscriminator`) with the layers of
XPixelGroup/BasicSR at 8d56e3a045f9fb3e1d8872f92ee4a4f07f886b0a, on the CPU with their fused activation kernel written
out as its formula. The weights would be 100 MB: both sides drew them by the same rule.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from gfprestore.training import losses
from gfprestore.training.discriminators import ComponentDiscriminator
from gfprestore.training.identity import ResNetArcFace, load_resnet_arcface

pytestmark = pytest.mark.usefixtures("one_thread")

GOLDEN = Path(__file__).parents[1] / "golden" / "networks_official.npz"


@pytest.fixture(scope="module")
def official() -> dict[str, Tensor]:
    with np.load(GOLDEN) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def numbers(random: np.random.RandomState, *shape: int) -> Tensor:
    """Uniform in [-1, 1], from the generator whose numbers numpy never changes."""
    return torch.from_numpy(random.uniform(-1, 1, shape).astype(np.float32))


def close(value: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(value, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


def test_component_discriminator_equals_the_official_one(official):
    network, random = ComponentDiscriminator(), np.random.RandomState(1)
    for layer in ("conv1", "conv2", "conv3", "conv4", "conv5", "final_conv"):
        for kind in ("weight", "bias"):
            parameter = network.get_parameter(f"{layer}.{kind}")
            parameter.data = numbers(random, *parameter.shape)
    image = numbers(np.random.RandomState(2), 2, 3, 20, 20).requires_grad_(True)
    logits, (half, quarter) = network(image)
    close(logits.detach(), official["component_logits"])
    close(half.detach()[:, ::16, ::2, ::2], official["component_half"])
    close(quarter.detach()[:, ::16], official["component_quarter"])
    (gradient,) = torch.autograd.grad(losses.generator_adversarial(logits), image)
    close(gradient[:, :, ::4, ::4], official["component_gradient"])


@pytest.mark.parametrize("has_counters", [False, True])
def test_arcface_equals_the_official_one(official, has_counters):
    state, random = ResNetArcFace().state_dict(), np.random.RandomState(3)
    counters = [key for key in state if key.endswith("num_batches_tracked")]
    if not has_counters:
        # As files from before torch counted batches.
        for key in counters:
            del state[key]
    for key in sorted(state.keys() - set(counters)):
        drawn = numbers(random, *state[key].shape)
        if key.endswith("running_var"):
            drawn = drawn / 2 + 1
        elif drawn.ndim > 1:
            drawn *= (3 / drawn[0].numel()) ** 0.5
        elif key.endswith("weight"):
            drawn = drawn / 4 + (0.25 if "prelu" in key else 1)
        else:
            drawn = drawn / 4
        state[key] = drawn
    network = load_resnet_arcface({f"module.{key}": value for key, value in state.items()})
    face = numbers(np.random.RandomState(4), 2, 3, 48, 48)
    close(network(face), official["arcface_embedding"])
