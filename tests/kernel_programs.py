"""Runs steps of programs by themselves on the compiled kernels."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gfprestore.native.alignment import aligned
from gfprestore.native.library import FOLDER, SUFFIX, kinds
from gfprestore.native.operands import Features
from gfprestore.native.program import ProgramBuilder
from gfprestore.nn.gfpgan import Gfpgan
from gfprestore.nn.tensors import as_arrays
from gfprestore.nn.weights import GfpganWeights

PRESENT = [kind for kind in kinds() if (FOLDER / f"{kind}{SUFFIX}").exists()]
"""Kinds of kernels that this processor runs and the build has left."""

needs_kernels = pytest.mark.skipif(not PRESENT, reason="the kernels were not compiled, or not for this processor")

EXACT = 4e-5
"""Of the largest value: float sums of a few thousand products in another order, and the tiles' transforms, of which the
large ones lose three times as much as the small."""


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, np.float32))


def weights_of(network: Gfpgan) -> GfpganWeights:
    return GfpganWeights(network.shape, as_arrays(network.state_dict()))


def innermost(x: Tensor) -> NDArray[np.float32]:
    """[1 C H W] -> [H W C]."""
    return np.ascontiguousarray(x[0].permute(1, 2, 0).numpy())


def put(builder: ProgramBuilder, x: Tensor) -> tuple[Features, NDArray[np.float32]]:
    """Features that are there before the first step."""
    features = builder.features((x.shape[2], x.shape[3]), x.shape[1])
    return features, innermost(x)


def run(builder: ProgramBuilder, given: list[tuple[Features, NDArray[np.float32]]], result: Features) -> Tensor:
    """Features [1 C H W] after a run on one thread."""
    result.buffer.last = len(builder.steps)
    for features, _ in given:
        features.buffer.first = 0
    program = builder.build()
    with ThreadPoolExecutor(1) as pool:
        builder.pack_kernels(pool)
    for features, values in given:
        floats = program.view(features.buffer).view(np.float32)
        floats[: values.size] = values.ravel()
    program.prepare()
    program.run(1, aligned(program.scratch_size))
    floats = program.view(result.buffer).view(np.float32)
    shape = 1, result.height, result.width, result.channels
    return torch.from_numpy(floats[: math.prod(shape)].reshape(shape).copy()).permute(0, 3, 1, 2)


def error(given: Tensor, wanted: Tensor) -> float:
    return float((given - wanted).abs().max() / wanted.abs().max())


def settle(network: nn.Module, scale: float) -> None:
    """Gives random weights normalisations that keep the signal alive and shift it, so that borders and slopes count."""
    network.train()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.3)
        for _ in range(3):
            network(torch.randn(2, 3, 64, 64) * scale)
