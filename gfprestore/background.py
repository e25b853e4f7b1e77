"""Enlarge whole photos: by resampling, or by an upscaling network in tiles.

`build_upscaler` turns what the user chose into an `Upscaler`. On the processor the compiled kernels run Real-ESRGAN's
two networks and whatever is built like them; all others, and those on a GPU, come through spandrel, which knows some
hundred community models from their state dicts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from gfprestore.dropping import ShouldStop, drop_if
from gfprestore.errors import UsageError, WeightsError
from gfprestore.photo import Pixels
from gfprestore.resize import Enlargement, resize_photo
from gfprestore.upscaling.kernel_network import read_kernel_network
from gfprestore.upscaling.upscaler import NetworkUpscaler, TiledNetwork
from gfprestore.weights import read_state_dict

CHOICES = ("auto", "real-esrgan", "lanczos", "none", "realesrgan-package")
"""Words that `--background` knows beside the path of a weights file."""

ReadWeights = Callable[[str], Mapping[str, Any]]
"""Gives the state dict of weights named in the manifest, or raises `WeightsError`."""

_X2 = "realesrgan-x2plus"
_X4 = "realesrgan-x4plus"
_X4_QUICK = "realesr-general-x4v3"
_TITLES = {_X2: "Real-ESRGAN x2plus", _X4: "Real-ESRGAN x4plus", _X4_QUICK: "Real-ESRGAN general x4v3"}

_NETWORK_SUFFIXES = (".pth", ".pt", ".safetensors", ".ckpt")


class Upscaler(Protocol):
    """Enlarges whole photos to an exact size; safe to call from several threads."""

    @property
    def description(self) -> str:
        """What it is, for the user: `Real-ESRGAN x2plus`, `Lanczos`."""
        ...

    def upscale(self, pixels: Pixels, size: tuple[int, int], should_stop: ShouldStop = bool) -> Pixels:
        """Enlarge one photo.

        Args:
            pixels: RGB, uint8 or uint16, (H, W, 3).
            size: Exact new (W, H).
            should_stop: Asked between tiles, where there are tiles.

        Returns:
            RGB of `size`, with the dtype of `pixels`; exactly gray where `pixels` is.

        Raises:
            DeviceError: Memory does not hold even the smallest tile.
            DroppedError: `should_stop` said yes.
        """
        ...


@dataclass(frozen=True)
class ResizeUpscaler:
    """Enlarges by resampling alone."""

    description: str
    """Name of the kernel."""

    enlargement: Enlargement
    """Kernel for growing axes."""

    def upscale(self, pixels: Pixels, size: tuple[int, int], should_stop: ShouldStop = bool) -> Pixels:
        """Enlarge one photo; see `Upscaler.upscale`."""
        drop_if(should_stop)
        return resize_photo(pixels, size, self.enlargement)


LANCZOS = ResizeUpscaler("Lanczos", "lanczos")
BILINEAR = ResizeUpscaler("bilinear", "linear")


def build_upscaler(
    choice: str,
    scale: float,
    *,
    read_weights: ReadWeights,
    device: str,
    precision: str,
    keeps_precision: bool = False,
    tile_pixels: int | None = None,
    strength: float = 1.0,
    cache_folder: Path | None = None,
    notify: Callable[[str], None],
) -> Upscaler:
    """Make the upscaler that the user chose.

    `auto` is Real-ESRGAN on a GPU where its weights can be had, and Lanczos otherwise: on a processor the network
    takes minutes for a photo of twelve megapixels, so there it runs only when asked for by name. A scale of 1 or less
    has nothing to enlarge, so there `auto` resamples without a word. Up to a scale of 2 Real-ESRGAN is x2plus; beyond
    it x4plus on a GPU, and on a processor general-x4v3, which is ten times cheaper.

    Args:
        choice: One of `CHOICES`, or the path of an upscaling network that spandrel knows. `none` leaves the background
            as it is, only made as large as it must be, bilinearly.
        scale: Factor on both sides; decides which Real-ESRGAN.
        read_weights: Finds or fetches weights by their name in the manifest.
        device: A concrete device, from `resolve_device`.
        precision: `fp32` or `bf16`; networks that bf16 would harm run in fp32.
        keeps_precision: Whether to compute in bf16 also where our own kernels run the network and its tiles then
            differ, for the sake of speed.
        tile_pixels: Largest side of a tile; None takes what the free memory allows.
        strength: Share of the network's result, 0 to 1; the rest is Lanczos.
        cache_folder: Where the engine keeps compiled models.
        notify: Takes one line for the user about a choice made here.

    Raises:
        UsageError: The choice is neither a word nor a file that holds an RGB upscaler, or a package is missing.
        WeightsError: The weights asked for by name cannot be had, or are damaged.
    """
    if choice == "lanczos":
        return LANCZOS
    if choice == "none":
        return BILINEAR
    if choice == "auto" and (device == "cpu" or scale <= 1):
        if scale > 1:
            notify("Background: Lanczos, quick on a processor; --background real-esrgan is sharper and far slower.")
        return LANCZOS

    def build(title: str, state: Mapping[str, NDArray[Any]]) -> Upscaler:
        network = load_network(title, state, device, precision)
        return NetworkUpscaler(
            network,
            device=device,
            precision=precision if keeps_precision else network.steady_precision(precision),
            tile_pixels=tile_pixels,
            strength=strength,
            cache_folder=cache_folder,
        )

    name = real_esrgan_name(scale, device)
    if choice == "auto":
        try:
            state = read_weights(name)
        except WeightsError as error:
            notify(f"Background: Lanczos, because the weights of {_TITLES[name]} cannot be had. {error}")
            return LANCZOS
        return build(_TITLES[name], state)
    if choice == "real-esrgan":
        return build(_TITLES[name], read_weights(name))
    if choice == "realesrgan-package":
        from gfprestore.upscaling.package import PackageUpscaler

        name = _X2 if scale <= 2 else _X4
        return PackageUpscaler(read_weights(name), 2 if scale <= 2 else 4, device=device, tile_pixels=tile_pixels)
    path = Path(choice)
    if not path.is_file() or path.suffix.lower() not in _NETWORK_SUFFIXES:
        words, suffixes = ", ".join(CHOICES), ", ".join(_NETWORK_SUFFIXES)
        raise UsageError(f"--background takes {words} or a weights file ({suffixes}); {choice!r} is none of these.")
    return build(path.stem, read_state_dict(path))


def load_network(title: str, state: Mapping[str, NDArray[Any]], device: str, precision: str) -> TiledNetwork:
    """The upscaling network that a state dict is of, in the form that runs best.

    Args:
        title: What to call it in messages.
        state: State dict, of any float type.
        device: A concrete device.
        precision: `fp32` or `bf16`.

    Raises:
        UsageError: spandrel does not know it either, or it does not turn RGB into RGB.
    """
    network = read_kernel_network(title, state, precision) if device == "cpu" else None
    if network is not None:
        return network
    # Here, since these come by way of torch, which takes seconds to import and which the kernels do without.
    from gfprestore.upscaling.network import load_upscaling_network

    return load_upscaling_network(title, state)


def real_esrgan_name(scale: float, device: str) -> str:
    """Name in the manifest of the Real-ESRGAN for a scale on a device."""
    if scale <= 2:
        return _X2
    return _X4_QUICK if device == "cpu" else _X4
