"""Enlarge photos with the user's own `realesrgan` package: the official code, for comparison and for habit.

The package needs Python below 3.13, and a name that torchvision 0.17 took away. Its own tiling prints an out-of-memory
error and goes on with the neighbouring tile's pixels; here that ends the run with a sentence instead.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gfprestore.dropping import ShouldStop, drop_if
from gfprestore.errors import DeviceError, UsageError
from gfprestore.nn.tensors import as_tensors
from gfprestore.outofmemory import is_out_of_memory
from gfprestore.photo import Pixels
from gfprestore.resize import has_equal_channels, resize_photo

_GONE = "torchvision.transforms.functional_tensor"
_KEPT = "torchvision.transforms._functional_tensor"

# The package takes an array whose largest value is no more than this for 8 bit.
_LARGEST_8_BIT = 256


class PackageUpscaler:
    """Enlarges photos with `realesrgan.RealESRGANer`; see `gfprestore.background.Upscaler`."""

    def __init__(self, state: Mapping[str, Any], factor: int, *, device: str, tile_pixels: int | None = None) -> None:
        """Builds the package's network.

        Args:
            state: Weights of RealESRGAN_x2plus or x4plus, bare or under `params_ema`.
            factor: The network's own factor, 2 or 4.
            device: A concrete device.
            tile_pixels: The package's tile size; None runs whole photos.

        Raises:
            UsageError: The package is not installed, or does not work here.
        """
        self.description = f"Real-ESRGAN x{factor}plus (realesrgan package)"
        self._lock = threading.Lock()
        enhancer, network = _import_package()
        weights = as_tensors(state.get("params_ema", state))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "weights.pth"
            torch.save({"params_ema": {key: value.float() for key, value in weights.items()}}, path)
            self._enhancer = enhancer(
                scale=factor,
                model_path=str(path),
                model=network(num_in_ch=3, num_out_ch=3, num_feat=64, num_block=23, num_grow_ch=32, scale=factor),
                tile=tile_pixels or 0,
                device=torch.device(device),
            )

    def upscale(self, pixels: Pixels, size: tuple[int, int], should_stop: ShouldStop = bool) -> Pixels:
        """Enlarge one photo; see `Upscaler.upscale`. It asks only when its turn comes: the package hears nothing."""
        if pixels.dtype == np.uint16 and pixels.max() <= _LARGEST_8_BIT:
            return resize_photo(pixels, size)
        is_gray = has_equal_channels(pixels)
        source = pixels[..., 0] if is_gray else pixels[..., ::-1]
        talk = io.StringIO()
        try:
            with self._lock, contextlib.redirect_stdout(talk):
                drop_if(should_stop)
                result, _ = self._enhancer.enhance(source)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise _out_of_memory() from error
        if "Error" in talk.getvalue():
            raise _out_of_memory()
        planes = [result] * 3 if is_gray else [result[..., 2], result[..., 1], result[..., 0]]
        return resize_photo(np.stack(planes, axis=2), size)


def _out_of_memory() -> DeviceError:
    return DeviceError(
        "Memory does not hold a photo in the realesrgan package: lower --tile, or take --background real-esrgan."
    )


def _import_package() -> tuple[Any, Any]:
    """Import the package's runner and network, lending torchvision's lost module its old name."""
    try:
        if _GONE not in sys.modules:
            with contextlib.suppress(ModuleNotFoundError):  # an old torchvision has the old name
                sys.modules[_GONE] = importlib.import_module(_KEPT)
        enhancer = importlib.import_module("realesrgan").RealESRGANer
        network = importlib.import_module("basicsr.archs.rrdbnet_arch").RRDBNet
    except ImportError as error:
        raise UsageError(
            "--background realesrgan-package needs `pip install realesrgan` on Python below 3.13 "
            f"({error}): without it take --background real-esrgan."
        ) from error
    return enhancer, network
