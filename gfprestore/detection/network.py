"""facexlib's RetinaFace in torch: for a GPU, for training, and where the compiled kernels do not run."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gfprestore.detection.priors import MEAN
from gfprestore.errors import WeightsError
from gfprestore.nn.tensors import as_tensors

if TYPE_CHECKING:
    from facexlib.detection.retinaface import RetinaFace


class DetectionNetwork(nn.Module):
    """RetinaFace from pixels to one row per prior box."""

    mean: Tensor

    def __init__(self, retinaface: nn.Module) -> None:
        """Take over facexlib's network."""
        super().__init__()
        self.retinaface = retinaface
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))

    def forward(self, photos: Tensor) -> Tensor:
        """Run the network.

        Args:
            photos: RGB uint8 (N, H, W, 3).

        Returns:
            (N, P, 15): score 0..1, four box offsets, ten landmark offsets, as facexlib encodes them.
        """
        pixels = photos.permute(0, 3, 1, 2).float() - self.mean  # [N H W C] -> [N C H W]
        boxes, scores, landmarks = self.retinaface(pixels.flip(1))
        return torch.cat([scores[..., 1:], boxes, landmarks], dim=2)


def build_network(kind: str) -> RetinaFace:
    """Build facexlib's RetinaFace with random weights, on the CPU, in evaluation mode.

    Args:
        kind: `mobile0.25` or `resnet50`.
    """
    # Here, since it imports torchvision, which takes longer than torch.
    from facexlib.detection.retinaface import RetinaFace

    with warnings.catch_warnings():
        # facexlib still builds torchvision's ResNet in the way that torchvision 0.13 renamed.
        warnings.filterwarnings("ignore", message="The parameter 'pretrained' is deprecated", category=UserWarning)
        warnings.filterwarnings("ignore", message="Arguments other than a weight enum", category=UserWarning)
        return RetinaFace(network_name=kind, device="cpu")


def load_network(state: Mapping[str, Any]) -> RetinaFace:
    """Build the RetinaFace that a state dict belongs to and load it.

    Args:
        state: Name -> array or tensor of any float type; names as facexlib's, with or without `module.`.

    Raises:
        WeightsError: These are not the weights of a RetinaFace.
    """
    state = as_tensors({name.removeprefix("module."): values for name, values in state.items()})
    network = build_network("resnet50" if "body.conv1.weight" in state else "mobile0.25")
    expected = network.state_dict()
    wrong = [name for name in state.keys() ^ expected.keys() if not name.endswith("num_batches_tracked")]
    wrong += [name for name in state.keys() & expected.keys() if state[name].shape != expected[name].shape]
    if wrong:
        raise WeightsError(
            f"These are not the weights of a RetinaFace face detector ({len(wrong)} tensors differ, such as "
            f"{min(wrong)}): name another with --detector."
        )
    # Only counts of training steps may be missing or in excess; evaluation does not read them.
    network.load_state_dict({name: state.get(name, value) for name, value in expected.items()})
    return network
