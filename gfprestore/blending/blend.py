"""Blend a restored crop with the photo's own, so that the same photo comes back.

Everything happens in the crop frame, on one Laplacian pyramid of the change: light and slow colour stay the photo's,
strength goes from fine octaves to coarse ones, the photo keeps detail it has more of, and its grain is given back.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from enum import Enum

import cv2
import numpy as np
from numpy.typing import NDArray

from gfprestore.blending.bands import FloatImage, band_gains, count_octaves, join_bands, scale_channels, split_bands
from gfprestore.blending.detail import photo_shares
from gfprestore.blending.grain import draw_grain, measure_grain
from gfprestore.blending.masks import oval_mask
from gfprestore.blending.sharpness import (
    FRAME_SAMPLING,
    LEAST_GRADIENT,
    LEAST_OCTAVES,
    NEARLY_SHARP,
    SHARP_ENOUGH,
    find_edges,
    gradient_energy,
    is_crisp,
    measure_halves,
    measure_sharpness,
)
from gfprestore.blending.tone import Tone, find_tone, lab_to_unit, pixels_to_lab
from gfprestore.photo import Pixels


@dataclass(frozen=True)
class BlendSettings:
    """How much of a restoration is taken."""

    strength: float = 0.8
    """0 leaves the face as it is, 1 takes all of the restoration but its light and slow colour."""

    grain: float = 1.0
    """Part of the photo's own noise that the restored face gets back, 0 to 1."""

    match_colour: bool = True
    """Keep the photo's light and slow colour."""

    keep_detail: bool = True
    """Leave sharp faces alone and keep the photo's detail where it has more than the restoration."""


class Verdict(Enum):
    """What became of one face."""

    RESTORED = "restored"
    OFF = "off"
    SHARP = "sharp"


@dataclass(frozen=True, eq=False)
class BlendedCrop:
    """A crop ready to be pasted, or the reason why there is none."""

    pixels: FloatImage | None
    """RGB float32 (S, S, 3) in the range of the original crop's dtype; None where the photo's pixels stay untouched."""

    verdict: Verdict
    """What was decided."""

    reason: str = ""
    """Why the face was left alone, as half a sentence; empty where it was restored."""


CHROMA_GAINS = (1.0, 1.0, 0.8, 0.5, 0.25)
"""Part of a colour change taken by octave, finest first: restorations clear up colour noise, which is fine, but also
"normalise" cheeks, lips and the colour of eyes, which are coarse."""

SMEARED_CHROMA_GAINS = (1.0, 1.0, 0.85, 0.8, 0.5)
"""The same where a photo's fine colour is lost: then its coarser colour is smeared, or noise, and leaves blotches. For
64 faces degraded as in the paper and the small model that ships, the gains that come nearest to the truth have medians
of 0.82, 0.84 and 0.58 from the third octave on."""

_COLOUR_OCTAVE = 1
"""Octave that tells whether a photo's fine colour is lost: the finest is lost to JPEG alone."""

_SMEARED, _CLEAR = 0.3, 0.7
"""Amplitude of its colour there, noise taken off, relative to the restoration's, at which it is lost and at which it is
there. What is near nothing in both, as in pale faces, counts as there."""

_FAINT_COLOUR = 0.05
"""Amplitude, in Lab units, that is near nothing."""


def blend_crop(
    original: Pixels,
    restored: Pixels,
    *,
    sampling: float,
    settings: BlendSettings,
    tone: Tone | None = None,
) -> BlendedCrop:
    """Blend one restored crop with the photo's own.

    Args:
        original: The crop as cut from the photo, RGB uint8 or uint16, (S, S, 3).
        restored: What the generator made of it, RGB uint8 or uint16, (S, S, 3).
        sampling: Photo pixels per crop pixel; above 1 the crop is a reduced copy.
        settings: How much is taken.
        tone: Colours of the whole photo; None judges by the crop.

    Returns:
        The crop to paste. The same input gives the same bytes.
    """
    if settings.strength == 0.0:
        return BlendedCrop(None, Verdict.OFF, "strength is 0")
    tone = find_tone(original) if tone is None else tone
    lab = None if tone is Tone.GRAY else pixels_to_lab(original)
    seen = _examine(_channels(original, lab, tone), sampling, settings)
    if seen.sharpness >= SHARP_ENOUGH:
        return BlendedCrop(None, Verdict.SHARP, "it is sharp already")
    drawn = _channels(restored, None, tone)
    change = _change(seen, drawn, settings)
    if max(seen.sharpness, seen.sharpest_half) >= NEARLY_SHARP:
        # Grain that was taken off by request is no loss of detail.
        whole = change if settings.grain == 1.0 else _change(seen, drawn, replace(settings, grain=1.0))
        floor = LEAST_GRADIENT * gradient_energy(seen.lightness)
        if gradient_energy(seen.lightness + whole[..., 0]) < floor:
            return BlendedCrop(None, Verdict.SHARP, "its restoration is less sharp than the photo")
    return BlendedCrop(_apply(original, lab, change), Verdict.RESTORED)


@dataclass(frozen=True, eq=False)
class _Examined:
    """What is measured of the photo's crop."""

    bands: list[FloatImage]
    """Its pyramid, levels (h, w, C)."""

    lightness: FloatImage
    """(S, S), 0..100."""

    grain: NDArray[np.float32]
    """(K, C), from `measure_grain`."""

    sampling: float
    """Photo pixels per crop pixel."""

    sharpness: float
    """From `measure_sharpness`; 0 for a face that cannot be sharp in the frame, or is half blurred."""

    sharpest_half: float
    """The same of its sharpest half."""


def _examine(photo: FloatImage, sampling: float, settings: BlendSettings) -> _Examined:
    bands = split_bands(photo, count_octaves(photo.shape[0]))
    lightness = np.ascontiguousarray(photo[..., 0])
    grain = measure_grain(bands, lightness, sampling)
    sharpness = half = 0.0
    if settings.keep_detail and sampling >= FRAME_SAMPLING and len(grain) >= LEAST_OCTAVES:
        edges = find_edges(lightness)
        softest, half = measure_halves(bands, grain, edges, sampling)
        # Both measures: scratches pass for detail in the bands, an enlarged photo for crisp in its edges.
        if is_crisp(edges.steepness(), sampling) and softest >= NEARLY_SHARP:
            sharpness = measure_sharpness(bands, grain)
    return _Examined(bands, lightness, grain, sampling, sharpness, half)


def _channels(crop: Pixels, lab: FloatImage | None, tone: Tone) -> FloatImage:
    """Take what is blended: Lab (S, S, 3) of a colour photo, (S, S, 1) lightness 0..100 of any other."""
    if tone is Tone.GRAY:
        # Levels, not L: a gray pixel is one number, and so the result is gray to the bit.
        luma = np.asarray(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), np.float32)
        return luma[..., None] * np.float32(100 / np.iinfo(crop.dtype).max)
    lab = pixels_to_lab(crop) if lab is None else lab
    return lab if tone is Tone.COLOUR else np.ascontiguousarray(lab[..., :1])


def _change(seen: _Examined, drawn: FloatImage, settings: BlendSettings) -> FloatImage:
    """Work out what is added to the photo's channels, (S, S, C), grain included."""
    photo_bands, grain = seen.bands, seen.grain
    octaves, channels = grain.shape
    drawn_bands = split_bands(drawn, octaves)
    smeared = _smeared_colour(photo_bands, drawn_bands, grain) if channels > 1 else 0.0
    gains = _gains(settings.strength, octaves, channels, smeared)
    shares: list[FloatImage | None] = [None] * octaves
    if settings.keep_detail:
        shares = photo_shares(photo_bands, drawn_bands, grain, seen.lightness, seen.sampling)
    drawn_grain = measure_grain(drawn_bands, drawn[..., 0], seen.sampling, in_doubt_more=True)
    remaining = (1 - gains) ** 2 * grain**2 + gains**2 * drawn_grain**2
    amounts = np.float32(settings.grain) * np.sqrt(np.maximum(grain**2 - remaining, np.float32(0)))
    change = drawn_bands  # taken over: new arrays of this size cost more than the arithmetic
    slow_gain = np.zeros_like(gains[-1]) if settings.match_colour else gains[-1]
    for octave, gain in enumerate([*gains, slow_gain]):
        change[octave] -= photo_bands[octave]
        if (gain != 1).any():
            scale_channels(change[octave], gain)
    for octave, share in enumerate(shares):
        if share is not None:
            _weaken(change[octave], share)
    joined = join_bands(change)
    if amounts.any():
        noise = draw_grain(amounts, seen.lightness, _seed(seen.lightness))
        if shares[0] is not None:
            # Where the photo's own detail stands, its noise does too.
            _weaken(noise, shares[0])
        joined += noise
    return joined


def _weaken(image: FloatImage, share: FloatImage) -> None:
    """Take a share (h, w, 1) off an image (h, w, C), in place."""
    # Stacked by cv2: numpy takes five times as long to spread one channel over three.
    rest = 1 - share
    image *= rest if image.shape[2] == 1 else cv2.merge([rest] * image.shape[2])


def _smeared_colour(photo: list[FloatImage], drawn: list[FloatImage], grain: NDArray[np.float32]) -> float:
    """Say how far a photo's fine colour is lost, 0 to 1."""
    octave = min(_COLOUR_OCTAVE, len(grain) - 1)
    weight = oval_mask(photo[octave].shape[0])[..., None]
    own, other = (float((np.square(bands[octave][..., 1:]) * weight).sum() / weight.sum()) for bands in (photo, drawn))
    own = max(own - float(np.square(grain[octave, 1:]).sum()), 0.0)
    ratio = np.sqrt((own + _FAINT_COLOUR**2) / (other + _FAINT_COLOUR**2))
    return float(np.clip((_CLEAR - ratio) / (_CLEAR - _SMEARED), 0, 1))


def _gains(strength: float, octaves: int, channels: int, smeared: float) -> NDArray[np.float32]:
    """Say how much of the change each octave and channel takes, (K, C)."""
    gains = np.repeat(np.array(band_gains(strength, octaves), np.float32)[:, None], channels, axis=1)
    reach = np.linspace(0, len(CHROMA_GAINS) - 1, octaves)
    by_octave = (1 - smeared) * np.array(CHROMA_GAINS) + smeared * np.array(SMEARED_CHROMA_GAINS)
    gains[:, 1:] *= np.interp(reach, np.arange(len(by_octave)), by_octave)[:, None]
    return gains.astype(np.float32)


def _seed(lightness: FloatImage) -> int:
    """Number the photo's own content, so that faces differ in their grain and runs do not.

    Nor do processors, which round landmarks and so crops otherwise: a few means in whole numbers hardly ever change.
    """
    means = np.asarray(cv2.resize(lightness, (4, 4), interpolation=cv2.INTER_AREA))
    return zlib.crc32(np.rint(means).astype(np.int8).tobytes())


def _apply(original: Pixels, lab: FloatImage | None, change: FloatImage) -> FloatImage:
    """Add a change of the blended channels to the crop, in its own range."""
    most = np.float32(np.iinfo(original.dtype).max)
    if lab is None:
        return np.clip(original + change * (most / 100), 0, most)
    after = lab.copy()
    after[..., : change.shape[2]] += change
    # The difference of both conversions: where nothing changes, not even their rounding does.
    result = lab_to_unit(after)
    result -= lab_to_unit(lab)
    result *= most
    result += original
    return np.clip(result, 0, most, out=result)
