"""The engine: one network, the same numbers on torch and OpenVINO, whatever the batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gfprestore.engine import build_engine, resolve_device, resolve_precision
from gfprestore.errors import DeviceError


class Doubler(nn.Module):
    """uint8 NHWC pixels in; a convolution of them and their mean out."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(3, 5, 3, padding=1)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        image = pixels.permute(0, 3, 1, 2).float() / 255
        features = self.convolution(image)
        return features, features.mean((1, 2, 3))


@pytest.mark.parametrize("prefer_openvino", [False, True])
@pytest.mark.parametrize("sides", [(16, 16), (None, None)])
def test_engine_gives_the_networks_own_numbers(prefer_openvino: bool, sides: tuple[int | None, int | None]) -> None:
    network = Doubler().eval()
    batch = np.random.default_rng(1).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    with torch.inference_mode():
        expected = [output.numpy() for output in network(torch.from_numpy(batch))]
    engine = build_engine(
        network, (None, *sides, 3), input_dtype="uint8", device="cpu", precision="fp32", prefer_openvino=prefer_openvino
    )
    for given, wanted in zip(engine.run(batch), expected, strict=True):
        np.testing.assert_allclose(given, wanted, rtol=1e-5, atol=1e-6)


def test_unknown_device_and_precision_are_refused_by_name() -> None:
    with pytest.raises(DeviceError, match="--device"):
        resolve_device("tpu")
    with pytest.raises(DeviceError, match="--precision"):
        resolve_precision("fp16", "cpu")
