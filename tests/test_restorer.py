"""The restorer: crops in, crops out, alike in every batch and on every engine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gfprestore.errors import WeightsError
from gfprestore.nn.checkpoint import load_gfpgan
from gfprestore.nn.gfpgan import Gfpgan
from gfprestore.nn.pixels import PixelGfpgan
from gfprestore.nn.shape import GfpganShape
from gfprestore.nn.tensors import as_arrays
from gfprestore.nn.widths import released_widths
from gfprestore.restorer import FaceRestorer, build_restorer
from gfprestore.torch_engine import TorchEngine

SHAPE = GfpganShape(released_widths(64, 1, 1 / 32), released_widths(64, 1, 1 / 64), latent_size=16, mlp_layers=1)


def small_state() -> dict[str, NDArray[np.float32]]:
    torch.manual_seed(0)
    return as_arrays(Gfpgan(SHAPE).state_dict())


def crops(count: int) -> list[NDArray[np.uint8]]:
    return list(np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def restorer() -> FaceRestorer:
    return build_restorer(small_state(), device="cpu", precision="fp32")


def test_crops_are_restored_as_the_network_says_and_rounded(restorer: FaceRestorer) -> None:
    given = restorer.restore(crops(2))
    x = torch.from_numpy(np.stack(crops(2))).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.inference_mode():
        wanted = (load_gfpgan(small_state())(x) + 1) * 127.5
    exact = wanted.clamp(0, 255).permute(0, 2, 3, 1).numpy()
    assert restorer.size == 64
    assert all(crop.dtype == np.uint8 and crop.shape == (64, 64, 3) for crop in given)
    # Truncation would be off by up to one.
    assert np.abs(np.stack(given) - exact).max() <= 0.5 + 1e-3
    assert exact.std() > 1


def test_crop_has_the_same_bytes_in_every_batch(restorer: FaceRestorer) -> None:
    batch = crops(4)
    together = restorer.restore(batch)
    alone = [restorer.restore([crop])[0] for crop in batch]
    assert all(one.tobytes() == other.tobytes() for one, other in zip(together, alone, strict=True))


def test_engines_agree(restorer: FaceRestorer) -> None:
    torch_restorer = FaceRestorer(TorchEngine(PixelGfpgan(load_gfpgan(small_state())), "cpu", "fp32"), 64)
    for one, other in zip(restorer.restore(crops(2)), torch_restorer.restore(crops(2)), strict=True):
        assert np.abs(one.astype(int) - other).max() <= 1


def test_restorer_tells_where_it_runs(restorer: FaceRestorer) -> None:
    assert (restorer.device, restorer.precision) == ("cpu", "fp32")


def test_no_crops_give_none(restorer: FaceRestorer) -> None:
    assert restorer.restore([]) == []


@pytest.mark.parametrize("crop", [np.zeros((32, 32, 3), np.uint8), np.zeros((64, 64, 3), np.uint16)])
def test_wrong_crops_are_refused(restorer: FaceRestorer, crop: Any) -> None:
    with pytest.raises(ValueError, match="64x64"):
        restorer.restore([crop])


def test_foreign_weights_are_refused() -> None:
    with pytest.raises(WeightsError):
        build_restorer({"conv_first.weight": np.zeros(3, np.float32)}, device="cpu", precision="fp32")
