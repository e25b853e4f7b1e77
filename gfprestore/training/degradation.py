"""The degradation model: how a clean face becomes a training input or a test photo (GFP-GAN, arXiv:2101.04061, 4.1).

    x = [(y * k) downsampled by r + n] JPEG-coded with quality q, then resized back to the size of y

Drawing (`degradation_presets.draw_degradation`) and applying are apart: `degrade_photo` is a pure function of pixels
and a `Degradation` of plain numbers. A record written to a file remakes the same pixels. Nothing here keeps state, so
data loader workers may call it freely.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from gfprestore.training.jitter import NO_JITTER, Jitter, jitter_colours

LUMA: NDArray[np.float32] = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""ITU-R BT.601 weights of R, G and B, those of the gray that `cv2.cvtColor` makes."""

SEPIA_TONE: NDArray[np.float32] = np.array([1.08, 0.94, 0.76], dtype=np.float32)
"""Factors on the gray of a print that is toned all the way; their luma is 0.96, so its brightness stays."""

FADED_BLACK: NDArray[np.float32] = np.array([96, 84, 72], dtype=np.float32)
"""What black becomes on a print that is faded all the way."""

FADED_WHITE: NDArray[np.float32] = np.array([250, 238, 208], dtype=np.float32)
"""What white becomes there: yellowed paper."""


@dataclass(frozen=True)
class Degradation:
    """What happens to one photo, in this order; with the defaults, nothing does."""

    blur_sigma: tuple[float, float] = (0.0, 0.0)
    """Standard deviations of the Gaussian kernel along its two axes, in pixels; 0 on both is no blur."""

    blur_radians: float = 0.0
    """Angle of the kernel's first axis to the rows; no matter where the sigmas are equal."""

    kernel_pixels: int = 41
    """Side of the square that the kernel is cut to, odd."""

    grain: float = 0.0
    """Standard deviation of the film's grain in the middle tones, of 255; the same on all channels."""

    grain_pixels: float = 1.0
    """Standard deviation of the blur that makes grains larger than a pixel."""

    downscale: float = 1.0
    """Factor r by which both sides shrink before noise and JPEG; under 1 they grow."""

    noise: float = 0.0
    """Standard deviation of the noise, of 255, independent in each channel."""

    noise_seed: int = 0
    """Seed of grain and noise."""

    line_strength: float = 0.0
    """Amplitude of a scanner's lines, of 255."""

    line_period: float = 4.0
    """Pixels, after shrinking, from one scanner line to the next."""

    line_phase: float = 0.0
    """Part of a period by which the lines are shifted, 0 to 1."""

    lines_are_vertical: bool = False
    """The scanner's lines run down the photo."""

    jpeg_quality: int | None = None
    """Quality of the JPEG coding, 1 to 100; None is no coding."""

    colour_shift: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Added to R, G and B, of 255."""

    is_gray: bool = False
    """The photo has lost its colours."""

    truth_keeps_tone: bool = False
    """The truth has the degraded photo's tone: as gray, as sepia, as much shifted in colour and as faded."""

    sepia: float = 0.0
    """Strength of the sepia toning of a gray photo, 0 to 1."""

    fading: float = 0.0
    """How far blacks have paled and whites have yellowed, 0 to 1."""

    jitter: Jitter = NO_JITTER
    """Factors of brightness, contrast and saturation, and the hue's turn in circles."""

    jitter_order: int = 0
    """Which of `gfprestore.training.jitter.ORDERS` these four are done in."""


def degrade_photo(pixels: NDArray[np.uint8], degradation: Degradation) -> NDArray[np.uint8]:
    """Degrades one photo.

    Args:
        pixels: RGB uint8 (H, W, 3); it is not changed.
        degradation: What to do.

    Returns:
        RGB uint8 (H, W, 3), a new array; equal to `pixels` where the degradation is all off.
    """
    generator = np.random.default_rng(degradation.noise_seed)
    image = _blur(pixels.astype(np.float32), degradation)
    image = _add_grain(image, degradation, generator)
    if degradation.downscale != 1:
        image = _resize(image, *(max(1, int(side / degradation.downscale)) for side in pixels.shape[:2]))
    if degradation.noise > 0:
        image = image + generator.standard_normal(image.shape, dtype=np.float32) * np.float32(degradation.noise)
    image = _add_lines(image, degradation)
    if degradation.jpeg_quality is not None:
        image = _code_as_jpeg(image, degradation.jpeg_quality)
    return _as_bytes(_tone(_resize(image, *pixels.shape[:2]), degradation))


def degrade_truth(pixels: NDArray[np.uint8], degradation: Degradation) -> NDArray[np.uint8]:
    """Returns what a perfect restoration of the degraded photo would give.

    Args:
        pixels: The clean photo, RGB uint8 (H, W, 3).
        degradation: What was done to it.

    Returns:
        `pixels` itself, or, where the truth keeps the degraded photo's tone, a new array of its shape.
    """
    if not degradation.truth_keeps_tone:
        return pixels
    return _as_bytes(_tone(pixels.astype(np.float32), degradation))


def gaussian_kernel(sigma: tuple[float, float], radians: float, pixels: int) -> NDArray[np.float32]:
    """Returns a rotated Gaussian, float32 (pixels, pixels), that sums to 1.

    The density is exp(-d' S^-1 d / 2) with S = R diag(sigma²) R', sampled at pixel centres.

    Args:
        sigma: Standard deviations along the two axes, in pixels, above 0.
        radians: Angle of the first axis to the rows.
        pixels: Side, odd.
    """
    reach = pixels // 2
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float64)
    cosine, sine = math.cos(radians), math.sin(radians)
    along, across = cosine * columns + sine * rows, cosine * rows - sine * columns
    kernel = np.exp(-0.5 * ((along / sigma[0]) ** 2 + (across / sigma[1]) ** 2))
    return np.asarray(kernel / kernel.sum(), dtype=np.float32)


def _blur(image: NDArray[np.float32], degradation: Degradation) -> NDArray[np.float32]:
    sigma = degradation.blur_sigma
    if max(sigma) <= 0:
        return image
    if sigma[0] == sigma[1]:
        line = cv2.getGaussianKernel(degradation.kernel_pixels, sigma[0], cv2.CV_32F)
        return np.asarray(cv2.sepFilter2D(image, -1, line, line), dtype=np.float32)
    kernel = gaussian_kernel(sigma, degradation.blur_radians, degradation.kernel_pixels)
    return np.asarray(cv2.filter2D(image, -1, kernel), dtype=np.float32)


def _add_grain(
    image: NDArray[np.float32], degradation: Degradation, generator: np.random.Generator
) -> NDArray[np.float32]:
    """Adds clumps that are strongest in the middle tones: in black and in white, all of the film agrees."""
    if degradation.grain <= 0:
        return image
    clumps = generator.standard_normal(image.shape[:2], dtype=np.float32)
    blurred = np.asarray(cv2.GaussianBlur(clumps, (0, 0), degradation.grain_pixels), dtype=np.float32)
    scale = degradation.grain / max(float(blurred.std()), 1e-6)
    luma = image @ LUMA / np.float32(255)
    middle = np.clip(4 * luma * (1 - luma), 0.1, 1.0)
    return np.asarray(image + (blurred * middle * np.float32(scale))[..., None], dtype=np.float32)


def _add_lines(image: NDArray[np.float32], degradation: Degradation) -> NDArray[np.float32]:
    if degradation.line_strength <= 0:
        return image
    count = image.shape[1] if degradation.lines_are_vertical else image.shape[0]
    turns = np.arange(count) / degradation.line_period + degradation.line_phase
    lines = (degradation.line_strength * np.sin(2 * np.pi * turns)).astype(np.float32)
    return image + (lines[None, :, None] if degradation.lines_are_vertical else lines[:, None, None])


def _code_as_jpeg(image: NDArray[np.float32], quality: int) -> NDArray[np.float32]:
    """Codes and decodes; cv2 keeps BGR, so the channels are turned there and back."""
    bgr = cv2.cvtColor(_as_bytes(image), cv2.COLOR_RGB2BGR)
    _, coded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(coded, cv2.IMREAD_COLOR)
    assert decoded is not None, "cv2 cannot decode what it has just coded"
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), dtype=np.float32)


def _resize(image: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Resizes bilinearly, without smoothing first, as the published code does both ways."""
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.float32)


def _tone(image: NDArray[np.float32], degradation: Degradation) -> NDArray[np.float32]:
    """Changes what belongs to the print as a whole: its colours and its contrast."""
    image = image + np.array(degradation.colour_shift, dtype=np.float32)
    if degradation.is_gray:
        gray = (image @ LUMA)[..., None]
        image = gray * (1 + np.float32(degradation.sepia) * (SEPIA_TONE - 1))
    if degradation.jitter != NO_JITTER:
        unit = np.asarray(np.clip(image, 0, 255) / 255, dtype=np.float32)
        image = 255 * jitter_colours(unit, degradation.jitter, degradation.jitter_order)
    return _fade(np.asarray(image, dtype=np.float32), degradation.fading)


def _fade(image: NDArray[np.float32], strength: float) -> NDArray[np.float32]:
    if strength <= 0:
        return image
    faded = FADED_BLACK + np.clip(image, 0, 255) * ((FADED_WHITE - FADED_BLACK) / np.float32(255))
    return image + np.float32(strength) * (faded - image)


def _as_bytes(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
