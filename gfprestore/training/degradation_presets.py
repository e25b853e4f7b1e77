"""The ranges that degradations are drawn from: the paper's, the published training configuration's, and old prints'.

Sources: GFP-GAN, arXiv:2101.04061, section 4.1 (`ARTICLE`), and the training configuration published with its code
(`RELEASE`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from gfprestore.training.degradation import Degradation
from gfprestore.training.jitter import ORDERS

Span = tuple[float, float]
"""Least and greatest value of a parameter that is drawn uniformly."""


@dataclass(frozen=True)
class DegradationPreset:
    """The ranges that the parameters are drawn from; every span is uniform."""

    blur_sigma: Span
    """Standard deviation of the blur in pixels."""

    downscale: Span
    """Factor r on both sides."""

    noise: Span
    """Standard deviation of the noise, of 255."""

    jpeg_quality: tuple[int, int]
    """Qualities, whole numbers."""

    kernel_pixels: int = 41
    """Side of the blur kernel; at the article's largest sigma, 10, it is cut at two deviations."""

    anisotropic_probability: float = 0.0
    """How often the two sigmas and the angle are drawn apart."""

    colour_shift: float = 0.0
    """Greatest shift of a channel, of 255, to either side."""

    colour_shift_probability: float = 0.0
    """How often channels are shifted."""

    jitter_probability: float = 0.0
    """How often brightness, contrast, saturation and hue are changed."""

    brightness: Span = (0.5, 1.5)
    """Factor on all channels where they are."""

    contrast: Span = (0.5, 1.5)
    """Factor on the distance to the mean gray."""

    saturation: Span = (0.0, 1.5)
    """Factor on the distance to every pixel's gray."""

    hue: Span = (-0.1, 0.1)
    """Turn of the hue, in circles."""

    gray_probability: float = 0.0
    """How often the photo loses its colours."""

    truth_keeps_tone: bool = False
    """Whether the truth has the degraded photo's tone: gray, sepia, colour shift and fading."""

    sepia_probability: float = 0.0
    """How often a gray photo is toned."""

    fading: Span = (0.0, 0.0)
    """Strength of fading where it happens."""

    fading_probability: float = 0.0
    """How often a print is faded."""

    grain: Span = (0.0, 0.0)
    """Standard deviation of the grain, of 255, where there is any."""

    grain_probability: float = 0.0
    """How often a print shows grain."""

    line_strength: Span = (0.0, 0.0)
    """Amplitude of scanner lines, of 255, where there are any."""

    line_probability: float = 0.0
    """How often a scan shows lines."""


ARTICLE = DegradationPreset(blur_sigma=(0.2, 10.0), downscale=(1.0, 8.0), noise=(0.0, 15.0), jpeg_quality=(60, 100))
"""Section 4.1 of the paper: isotropic blur, and nothing but the four steps of the formula. Tests degrade with it; the
configuration `article` adds its training's colour jitter."""

RELEASE = DegradationPreset(
    blur_sigma=(0.1, 10.0),
    downscale=(0.8, 8.0),
    noise=(0.0, 20.0),
    jpeg_quality=(60, 100),
    anisotropic_probability=0.5,
    colour_shift=20.0,
    colour_shift_probability=0.3,
    jitter_probability=0.3,
    gray_probability=0.01,
)
"""The published training configuration. It asks the network to colour gray photos, and to undo every change of
colour."""

OLDPRINT = DegradationPreset(
    blur_sigma=(0.1, 10.0),
    downscale=(0.8, 8.0),
    noise=(0.0, 20.0),
    jpeg_quality=(30, 100),
    anisotropic_probability=0.5,
    colour_shift=20.0,
    colour_shift_probability=0.3,
    gray_probability=0.3,
    truth_keeps_tone=True,
    sepia_probability=0.5,
    fading=(0.05, 0.6),
    fading_probability=0.3,
    grain=(2.0, 16.0),
    grain_probability=0.4,
    line_strength=(1.0, 8.0),
    line_probability=0.15,
)
"""The release preset widened to what scans of old prints show. The truth keeps a print's tone, since a face of another
tone would stand out in the print that it is pasted into, and since a lost tone can only be guessed. For the same reason
there is no jitter."""

PRESETS = {"article": ARTICLE, "release": RELEASE, "oldprint": OLDPRINT}
"""The presets by the name that a command or a configuration gives them."""

_GRAIN_PIXELS: Span = (0.4, 1.2)
_LINE_PERIOD: Span = (2.0, 12.0)
_SEPIA: Span = (0.3, 1.0)
_SEEDS = 2**48
"""Seeds stay below 2**53, so that every JSON reader keeps them whole."""


def draw_degradation(generator: np.random.Generator, preset: DegradationPreset) -> Degradation:
    """Draws one photo's degradation.

    Args:
        generator: Advanced by the draws; the same state gives the same record.
        preset: The ranges to draw from.
    """

    def happens(probability: float) -> bool:
        return bool(generator.random() < probability)

    def between(span: Span) -> float:
        return float(generator.uniform(*span))

    sigma, radians = between(preset.blur_sigma), 0.0
    blur_sigma = (sigma, sigma)
    if happens(preset.anisotropic_probability):
        blur_sigma, radians = (sigma, between(preset.blur_sigma)), between((-math.pi, math.pi))
    shift = preset.colour_shift if happens(preset.colour_shift_probability) else 0.0
    is_gray = happens(preset.gray_probability)
    degradation = Degradation(
        blur_sigma=blur_sigma,
        blur_radians=radians,
        kernel_pixels=preset.kernel_pixels,
        grain=between(preset.grain) if happens(preset.grain_probability) else 0.0,
        grain_pixels=between(_GRAIN_PIXELS),
        downscale=between(preset.downscale),
        noise=between(preset.noise),
        noise_seed=int(generator.integers(_SEEDS)),
        line_strength=between(preset.line_strength) if happens(preset.line_probability) else 0.0,
        line_period=between(_LINE_PERIOD),
        line_phase=float(generator.random()),
        lines_are_vertical=happens(0.5),
        jpeg_quality=int(generator.integers(preset.jpeg_quality[0], preset.jpeg_quality[1] + 1)),
        colour_shift=(between((-shift, shift)), between((-shift, shift)), between((-shift, shift))),
        is_gray=is_gray,
        truth_keeps_tone=preset.truth_keeps_tone,
        sepia=between(_SEPIA) if is_gray and happens(preset.sepia_probability) else 0.0,
        fading=between(preset.fading) if happens(preset.fading_probability) else 0.0,
    )
    # Last, so that the other draws are those of a preset without it.
    if not happens(preset.jitter_probability):
        return degradation
    brightness, contrast, saturation, hue = map(
        between, (preset.brightness, preset.contrast, preset.saturation, preset.hue)
    )
    order = int(generator.integers(len(ORDERS)))
    return replace(degradation, jitter=(brightness, contrast, saturation, hue), jitter_order=order)
