"""Reads groups of images ahead in threads and stacks them into batches of one size."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import closing

import numpy as np
import torch
from numpy.typing import NDArray

from gfprestore.errors import PhotoError, printable
from gfprestore.evaluation.batch import ImageBatch
from gfprestore.evaluation.images import FailedImage, read_image
from gfprestore.evaluation.pairs import ImageGroup
from gfprestore.streams import map_ahead

READERS = min(8, os.cpu_count() or 2)
"""Threads that decode; eight keep pace with a quick GPU."""


def read_group(group: ImageGroup) -> NDArray[np.uint8] | FailedImage:
    """Reads the files of one image, RGB uint8 [K, 3, H, W]."""
    try:
        images = [read_image(path) for path in group.paths]
    except PhotoError as error:
        return FailedImage(group.name, str(error))
    sizes = {image.shape[:2] for image in images}
    if len(sizes) > 1:
        shown = ", ".join(
            f"{printable(path)} is {image.shape[1]}x{image.shape[0]}"
            for path, image in zip(group.paths, images, strict=True)
        )
        return FailedImage(group.name, f"The images to compare differ in size: {shown}.")
    return np.stack([image.transpose(2, 0, 1) for image in images])


def read_batches(
    groups: Iterable[ImageGroup], *, batch_size: int, device: str, has_truth: bool, has_background: bool
) -> Iterator[ImageBatch | FailedImage]:
    """Yields images in order, batched as long as their size stays; each file is read once.

    Memory is bounded by two batches and `ahead` groups: a batch, or two a reader.

    Args:
        groups: Files that belong together, in the order of `ImageBatch.images`.
        batch_size: Greatest number of groups in a batch.
        device: Concrete device that batches are moved to.
        has_truth: See `ImageBatch`.
        has_background: See `ImageBatch`.
    """
    waiting: list[tuple[str, NDArray[np.uint8]]] = []

    def take() -> Iterator[ImageBatch]:
        if waiting:
            images = torch.from_numpy(np.stack([images for _, images in waiting])).to(device)
            yield ImageBatch(tuple(name for name, _ in waiting), images, has_truth, has_background)
            waiting.clear()

    ordered = list(groups)
    with closing(map_ahead(ordered, read_group, workers=READERS, ahead=max(batch_size, 2 * READERS))) as results:
        for group, result in zip(ordered, results, strict=True):
            if isinstance(result, FailedImage):
                yield result
                continue
            if waiting and waiting[0][1].shape != result.shape:
                yield from take()
            waiting.append((group.name, result))
            if len(waiting) == batch_size:
                yield from take()
        yield from take()
