"""Deg: the angle, in degrees, between the identities of a restored face and of the truth.

Protocol `deg`: both images are crops aligned to the FFHQ template, square, of any size. For a recogniser of 112x112 RGB
input (ArcFace's own, as in InsightFace's models), the crop is mapped by the one similarity transform that brings the
five points of the FFHQ template nearest to those of the ArcFace template; crops more than twice too large are first
halved by means of 2x2 pixels, so that nothing aliases. For a recogniser of gray input (the published tables: a
ResNet-18 of 128x128) the whole crop is resized bilinearly, without smoothing, as the published script does. Values are
in [-1, 1]. Nothing is detected: landmarks found anew in a restored face would move with its errors.

`deg` is the mean over all pairs. `deg-over-1` leaves out the pairs under 1 degree, as the published mean does. Angles
of different recognisers cannot be compared: the published ones are of the ResNet-18 above.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from gfprestore.align import face_template, similarity_transform
from gfprestore.errors import UsageError, WeightsError
from gfprestore.evaluation.batch import ImageBatch, as_array
from gfprestore.evaluation.network import load_torchscript
from gfprestore.geometry import invert
from gfprestore.identity import ARCFACE_TEMPLATE

COLOUR_SIDE = 112
"""Side of a recogniser's RGB input."""

GRAY_SIDE = 128
"""Side of a recogniser's gray input."""

PUBLISHED_FLOOR = 1.0
"""Pairs under this angle are left out of the published mean."""

_GRAY = (0.2989, 0.5870, 0.1140)
"""Weights of R, G and B in the published script."""

Embed = Callable[[Tensor], Tensor]
"""Maps RGB uint8 crops [N, 3, S, S] to embeddings [N, D] of any length."""


def crop_for_arcface(crops: Tensor) -> Tensor:
    """Maps FFHQ-aligned crops to ArcFace's frame; gradients flow.

    Args:
        crops: RGB float [N, 3, S, S].

    Returns:
        The same range, [N, 3, 112, 112]; beyond the crop's edge it repeats the edge.
    """
    while crops.shape[-1] >= 2 * COLOUR_SIDE / _share_of_crop():
        crops = functional.avg_pool2d(crops, 2)
    side = crops.shape[-1]
    back = invert(similarity_transform(face_template(side), ARCFACE_TEMPLATE))
    centres = torch.arange(COLOUR_SIDE, dtype=torch.float64)
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    points = torch.stack([x, y, torch.ones_like(x)], dim=-1) @ torch.from_numpy(back).T  # [112 112 2]
    # grid_sample's range runs from the first pixel's outer edge, -1, to the last one's, 1.
    grid = ((2 * points + 1) / side - 1).to(crops)
    return functional.grid_sample(
        crops, grid.expand(len(crops), -1, -1, -1), mode="bilinear", padding_mode="border", align_corners=False
    )


def _share_of_crop() -> float:
    """Returns what part of an FFHQ crop's side ArcFace's frame covers, measured on either's own pixels."""
    to_arcface = similarity_transform(face_template(COLOUR_SIDE), ARCFACE_TEMPLATE)
    return 1 / float(np.sqrt(np.linalg.det(to_arcface[:, :2])))


def crop_for_gray(crops: Tensor) -> Tensor:
    """Maps crops, RGB float [N, 3, S, S], to gray [N, 1, 128, 128] of the same range."""
    gray = (crops * torch.tensor(_GRAY, device=crops.device)[:, None, None]).sum(1, keepdim=True)
    return functional.interpolate(gray, (GRAY_SIDE, GRAY_SIDE), mode="bilinear", align_corners=False)


def angle_degrees(first: Tensor, second: Tensor) -> Tensor:
    """Measures angles between vectors along the last axis, float64, 0 to 180; exactly 0 between equal ones.

    The arc cosine would lose all digits near 0; this is Kahan's form, 2 atan2(|a - b|, |a + b|) of unit vectors.
    """
    first, second = (functional.normalize(vectors.double(), dim=-1) for vectors in (first, second))
    return torch.rad2deg(2 * torch.atan2((first - second).norm(dim=-1), (first + second).norm(dim=-1)))


def load_recogniser(path: Path, device: str) -> Embed:
    """Loads an ONNX or TorchScript recogniser.

    An ONNX model runs on the processor, whatever the device; TorchScript runs on the device. Input: 112x112 RGB, or,
    where the model's first weights have one channel, 128x128 gray.

    Raises:
        WeightsError: The file is neither, or its input is of another shape.
    """
    network = _OnnxRecogniser(path) if path.suffix.lower() == ".onnx" else _ScriptedRecogniser(path, device)

    @torch.inference_mode()
    def embed(crops: Tensor) -> Tensor:
        inputs = crops.float() / 127.5 - 1
        return network.run(crop_for_gray(inputs) if network.is_gray else crop_for_arcface(inputs))

    return embed


class _OnnxRecogniser:
    def __init__(self, path: Path) -> None:
        # Here, since platforms without this package have every other metric.
        try:
            import openvino

            from gfprestore.openvino_core import shared_core
        except ImportError:
            raise UsageError("An ONNX recogniser needs the package openvino: give a TorchScript one.") from None
        core = shared_core()
        try:
            model = core.read_model(path)
        except RuntimeError as error:
            raise WeightsError(f"{path} is no ONNX model: see --metric-weights recogniser=FILE.") from error
        shape = model.input(0).partial_shape
        self.is_gray = _is_gray(path, tuple(axis.get_length() if axis.is_static else 0 for axis in shape)[1:])
        side = GRAY_SIDE if self.is_gray else COLOUR_SIDE
        model.reshape([1, 1 if self.is_gray else 3, side, side])
        settings = {"INFERENCE_PRECISION_HINT": openvino.Type.f32, "PERFORMANCE_HINT": "LATENCY"}
        self._request = core.compile_model(model, "CPU", settings).create_infer_request()

    def run(self, inputs: Tensor) -> Tensor:
        """One face at a time: an embedding then never depends on its batch."""
        rows = []
        for item in inputs.cpu().numpy():
            self._request.infer([np.ascontiguousarray(item[None])])
            rows.append(np.array(self._request.output_tensors[0].data[0]))
        return torch.from_numpy(np.stack(rows)).to(inputs.device)


class _ScriptedRecogniser:
    def __init__(self, path: Path, device: str) -> None:
        self._network: nn.Module = load_torchscript(path).to(device)
        first = next((p for p in self._network.parameters() if p.ndim == 4), None)
        channels = 3 if first is None else first.shape[1]
        self.is_gray = _is_gray(path, (channels, 0, 0))

    def run(self, inputs: Tensor) -> Tensor:
        result: Tensor = self._network(inputs)
        return result.flatten(1)


def _is_gray(path: Path, shape: tuple[int, ...]) -> bool:
    """Whether a recogniser's input (C, H, W), 0 where it is free, is gray; refuses what this protocol cannot feed."""
    for channels, side in ((3, COLOUR_SIDE), (1, GRAY_SIDE)):
        if shape[0] == channels and all(axis in (0, side) for axis in shape[1:]):
            return channels == 1
    raise WeightsError(f"{path} takes {shape}, not 112x112 RGB or 128x128 gray: see --metric-weights recogniser=FILE.")


class DegMetric:
    """Identity angles of the restored crops to the truth."""

    def __init__(self, embed: Embed) -> None:
        self._embed = embed

    def measure(self, batch: ImageBatch) -> dict[str, NDArray[np.float64]]:
        """Measures a batch; see `Metric`. NaN where images are not square; in `deg-over-1` also under 1 degree."""
        height, width = batch.size
        if height != width:
            return {"deg": batch.unmeasured(), "deg-over-1": batch.unmeasured()}
        images = batch.truth_and_restored  # [N K 3 S S]
        embeddings = self._embed(images.flatten(0, 1)).cpu().reshape(*images.shape[:2], -1)  # [N K D]
        angles = as_array(angle_degrees(embeddings[:, 1:], embeddings[:, :1]))
        return {"deg": angles, "deg-over-1": np.where(angles < PUBLISHED_FLOOR, np.nan, angles)}
