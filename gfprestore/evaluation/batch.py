"""`ImageBatch`: images that are read once and moved to the device once, whatever is measured on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gfprestore.evaluation.matching import match_channels


@dataclass(frozen=True, eq=False)
class ImageBatch:
    """N images of one size: what each of M methods made of them, and what that is measured against."""

    names: tuple[str, ...]
    """N relative names without suffix, for messages and tables."""

    images: Tensor
    """RGB uint8 [N, K, 3, H, W] on the device: the truth first, the M methods, the background last."""

    has_truth: bool
    """The first of the K is the truth."""

    has_background: bool = False
    """The last of the K is the photo without its faces pasted."""

    @property
    def restored(self) -> Tensor:
        """RGB uint8 [N, M, 3, H, W]."""
        return self.images[:, int(self.has_truth) : self.images.shape[1] - int(self.has_background)]

    @property
    def truth(self) -> Tensor:
        """RGB uint8 [N, 3, H, W]."""
        if not self.has_truth:
            raise ValueError("this batch has no truth")
        return self.images[:, 0]

    @property
    def truth_and_restored(self) -> Tensor:
        """RGB uint8 [N, 1 + M, 3, H, W], contiguous: the truth first."""
        if not self.has_truth:
            raise ValueError("this batch has no truth")
        return self.images[:, : self.images.shape[1] - int(self.has_background)].contiguous()

    @property
    def background(self) -> Tensor:
        """RGB uint8 [N, 3, H, W]."""
        if not self.has_background:
            raise ValueError("this batch has no background")
        return self.images[:, -1]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of all its images, in pixels."""
        return self.images.shape[-2], self.images.shape[-1]

    def unmeasured(self) -> NDArray[np.float64]:
        """Values of a metric that cannot measure images of this size: NaN, [N, M]."""
        return np.full(self.restored.shape[:2], np.nan)

    @cached_property
    def matched(self) -> Tensor:
        """`restored` with the channels of the truth (`match_channels`), float32 [N, M, 3, H, W], not clipped."""
        return match_channels(self.restored, self.truth)


class Metric(Protocol):
    """Something measured on each image of each method."""

    def measure(self, batch: ImageBatch) -> Mapping[str, NDArray[np.float64]]:
        """Measures a batch; each column's values are [N, M], NaN where an image cannot be measured."""
        ...


def as_array(values: Tensor) -> NDArray[np.float64]:
    """Brings values to the processor, and there to float64, which Apple's GPUs do not know."""
    return values.cpu().to(torch.float64).numpy()


def as_pixels(images: Tensor) -> NDArray[np.uint8]:
    """Brings uint8 images [..., 3, H, W] to the processor as contiguous [..., H, W, 3]."""
    return np.ascontiguousarray(images.movedim(-3, -1).cpu().numpy())
