"""Colour black-and-white and sepia photos: lightness from the photo, chroma from an estimate.

The estimate is made on a small copy, by DDColor (Kang et al., "DDColor: Towards Photo-Realistic Image Colorization via
Dual Decoders", ICCV 2023) where its weights can be had. Faces that a colouring generator restored lend their own
colour, so that skin is the same in the face and around it; without DDColor it is carried on over neck and ears
(`gfprestore.colorizing.skin_spread`). Then the chroma is enlarged with the photo's lightness as guide
(`gfprestore.colorizing.chroma`), so that it ends where things end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np

from gfprestore.blending.masks import MaskKind
from gfprestore.blending.tone import JUDGED_SIDE, Tone, judge_chroma
from gfprestore.colorizing.chroma import apply_chroma, guide_size
from gfprestore.colorizing.lab import Floats, lab_to_rgb, rgb_to_lab
from gfprestore.colorizing.skin_spread import calm_redness, spread_skin
from gfprestore.engine import Engine, build_engine
from gfprestore.errors import WeightsError
from gfprestore.geometry import compose, magnification, scaling
from gfprestore.photo import ColouredFace, Pixels
from gfprestore.resize import resize_photo

if TYPE_CHECKING:
    from torch import nn

# Side of the square that DDColor sees, as in its authors' own inference.
_NETWORK_SIDE = 512

# Chroma of DDColor's training images; what lies beyond is a blot.
_LARGEST_CHROMA = 110.0

# The warm tone of a hand-tinted print, at middle gray.
_TINT_A, _TINT_B = 4.0, 10.0

COLOUR_CAUTION = "Colours are guesses: those of skin, hair and clothes can be wrong, skin tone above all."
"""For the user and the report, as the authors of GFP-GAN warn."""

_TITLES = {"ddcolor": "DDColor", "ddcolor-tiny": "DDColor tiny"}


def _small_lab(pixels: Pixels, side: int) -> Floats:
    """L*a*b* of a copy no larger than `side`, (h, w, 3)."""
    small = resize_photo(pixels, guide_size(pixels.shape[1], pixels.shape[0], side))
    return rgb_to_lab(small.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max))


class ChromaSource(Protocol):
    """Estimates colours."""

    @property
    def description(self) -> str:
        """What it is, for the user."""
        ...

    @property
    def face_region(self) -> MaskKind:
        """How much of a face's own colours is better than this estimate."""
        ...

    def estimate(self, lab: Floats) -> Floats:
        """Estimate chroma.

        Args:
            lab: A small copy of the photo, (h, w, 3).

        Returns:
            float32 (h, w, 2): a and b.
        """
        ...


@dataclass(frozen=True)
class OwnChroma:
    """Keeps the photo's own chroma: for colouring faces alone."""

    description: str = "the photo's own tone"
    face_region: MaskKind = "face"

    def estimate(self, lab: Floats) -> Floats:
        """Give the photo's own chroma; see `ChromaSource.estimate`."""
        return lab[..., 1:].copy()


@dataclass(frozen=True)
class SoftTint:
    """Gives gray and toned photos one soft tint and leaves colours as they are: for want of what knows colours.

    A print's own tone goes: it is not the scene's, and faces in their colours would stand out of it.
    """

    description: str = "a soft tint"
    face_region: MaskKind = "head"

    def estimate(self, lab: Floats) -> Floats:
        """Give a tone that follows the lightness; see `ChromaSource.estimate`."""
        if not self.tints(lab):
            return lab[..., 1:].copy()
        light = lab[..., :1] / 100
        return (4 * light * (1 - light) * np.array([_TINT_A, _TINT_B], np.float32)).astype(np.float32)

    def tints(self, lab: Floats) -> bool:
        """Tell whether this copy of a photo, (h, w, 3), is gray or toned, so that it gets the tint."""
        size = guide_size(lab.shape[1], lab.shape[0], JUDGED_SIDE)
        small = np.asarray(cv2.resize(lab, size, interpolation=cv2.INTER_AREA), np.float32)
        return judge_chroma(small) is not Tone.COLOUR


class NetworkChroma:
    """Estimates colours with DDColor."""

    face_region: MaskKind = "face"

    def __init__(self, description: str, engine: Engine) -> None:
        """Takes an engine that runs a `ColourNetwork`."""
        self.description = description
        self._engine = engine

    def estimate(self, lab: Floats) -> Floats:
        """Run DDColor on the lightness, squeezed to its square; see `ChromaSource.estimate`."""
        gray = lab.copy()
        gray[..., 1:] = 0
        square = cv2.resize(lab_to_rgb(gray), (_NETWORK_SIDE, _NETWORK_SIDE), interpolation=cv2.INTER_AREA)
        (chroma,) = self._engine.run(np.clip(square, 0, 1)[None])
        clipped = np.clip(chroma[0], -_LARGEST_CHROMA, _LARGEST_CHROMA).astype(np.float32)
        return np.asarray(cv2.resize(clipped, (lab.shape[1], lab.shape[0]), interpolation=cv2.INTER_LINEAR), np.float32)


def colorize_photo(
    pixels: Pixels, source: ChromaSource, faces: Sequence[ColouredFace] = (), strength: float = 1.0
) -> Pixels:
    """Colour a photo.

    Args:
        pixels: RGB, uint8 or uint16, (H, W, 3), its faces already restored.
        source: Estimates the chroma of the whole photo.
        faces: Faces in colour, placed in this photo.
        strength: Share of the new colour, 0 to 1; the rest is the photo's own. At 0 the photo is unchanged.

    Returns:
        RGB of the shape and dtype of `pixels`; its lightness is that of `pixels` but for rounding.
    """
    if strength == 0:
        return pixels.copy()
    lab = _small_lab(pixels, _NETWORK_SIDE)
    chroma = source.estimate(lab)
    to_photo = scaling((lab.shape[1], lab.shape[0]), (pixels.shape[1], pixels.shape[0]))
    placed = [replace(face, to_crop=compose(face.to_crop, to_photo)) for face in faces]
    is_skin_gray = isinstance(source, SoftTint) and source.tints(lab)
    if is_skin_gray:
        chroma = spread_skin(chroma, lab[..., 0], placed)
    for face in placed:
        own = rgb_to_lab(face.crop / np.float32(255))
        chroma = _blend_face(chroma, face, calm_redness(own) if is_skin_gray else own[..., 1:])
    return apply_chroma(pixels, lab[..., 0], chroma, strength)


def _blend_face(chroma: Floats, face: ColouredFace, own: Floats) -> Floats:
    """Put a face's own chroma, (S, S, 2), into the small estimate that it is placed in, feathered by its mask."""
    steps = magnification(face.to_crop)  # crop pixels in one of the estimate's
    values = np.dstack([own, face.mask]).astype(np.float32)
    if steps > 1:
        values = np.asarray(cv2.GaussianBlur(values, (0, 0), steps / 2), np.float32)
    small = chroma.shape[1], chroma.shape[0]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    placed = np.asarray(cv2.warpAffine(values, face.to_crop, small, flags=flags), np.float32)
    weight = placed[..., 2:]
    return chroma + weight * (placed[..., :2] - chroma)


def _load_network(state: Mapping[str, Any]) -> nn.Module:
    # Here, since it needs torch, which runs without these weights do without.
    from gfprestore.colorizing.network import load_colour_network

    return load_colour_network(state)


def build_chroma_source(
    *,
    read_weights: Callable[[str], Mapping[str, Any]],
    device: str,
    precision: str,
    cache_folder: Path | None = None,
    notify: Callable[[str], None],
) -> ChromaSource:
    """Make what `--colorize` estimates colours with: DDColor, the large one on a GPU, or a soft tint for want of it.

    Args:
        read_weights: Finds or fetches weights by their name in the manifest.
        device: A concrete device.
        precision: `fp32` or `bf16`.
        cache_folder: Where the engine keeps compiled models.
        notify: Takes one line for the user about what is used instead of DDColor.
    """
    names = ("ddcolor-tiny", "ddcolor") if device == "cpu" else ("ddcolor", "ddcolor-tiny")
    reasons = []
    for name in names:
        try:
            network = _load_network(read_weights(name))
        except WeightsError as error:
            reasons.append(str(error))
        except ImportError:
            reasons = ["DDColor needs `pip install gfprestore[colorize]`."]
            break
        else:
            shape = (None, _NETWORK_SIDE, _NETWORK_SIDE, 3)
            engine = build_engine(network, shape, device=device, precision=precision, cache_folder=cache_folder)
            return NetworkChroma(_TITLES[name], engine)
    notify(f"Colour: all but the faces gets a soft tint only, because DDColor cannot be had. {reasons[0]}")
    return SoftTint()
