"""Bringing restored faces back into their photo, at a cost that follows the faces and not the photo.

What is pasted is the *change* that restoration made, crop against crop, added to the plainly resized photo. So an
unchanged crop changes nothing at all, and whatever the crop could not hold (the photo's own detail above the crop's
sampling, its grain) stays where it was. On a background that a network drew, the resized photo takes on its tone first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from gfprestore.geometry import Transform, compose, invert, magnification, map_points, scaling
from gfprestore.overlaps import Box, settle_overlaps
from gfprestore.photo import Pixels

# Of a face's box, the spread over which its tone follows that of a drawn background: narrower than the feather of its
# mask, so that the tone has met before the face ends, and wide enough to leave everything that is drawn to the photo.
_TONE_SHARE = 1 / 16

# Pixels of spread at which tones are blurred; wider ones are shrunk first, which a blur does not show.
_TONE_SPREAD = 2.0


@dataclass(frozen=True, eq=False)
class FacePatch:
    """One restored face on its way back into its photo."""

    original: Pixels
    """The crop as it was cut from the photo: RGB, dtype of the photo, (S, S, 3)."""

    restored: NDArray[Any]
    """The crop as it shall be: RGB, (S, S, 3), any real dtype, in the range of `original`."""

    mask: NDArray[np.float32]
    """Weight of the change, (S, S), 0 to 1, falling smoothly to 0 before the crop's border."""

    to_crop: Transform
    """Photo pixel centres -> crop pixel centres."""


def paste_faces(canvas: Pixels, photo: Pixels, patches: Sequence[FacePatch], *, canvas_is_resized_photo: bool) -> None:
    """Blends restored faces into the upscaled photo, in place.

    The faces are worked out before any is blended, so that no face's change is laid on top of another's, and where
    masks overlap the larger face wins (`gfprestore.overlaps.settle_overlaps`).

    Args:
        canvas: The upscaled photo, RGB, dtype of `photo`, (H', W', 3). Pixels outside every mask stay bit-identical.
        photo: The photo that the crops were cut from, (H, W, 3).
        patches: The faces, in any order.
        canvas_is_resized_photo: `canvas` is `photo` resized and nothing more, so it can serve as the photo's own
            detail. Otherwise (a network drew the background) that detail is resampled from `photo`, for each face's
            box alone, and made as light and as coloured as the canvas is there: networks change tones by several
            levels over whole regions, which would show as a light or dark face.
    """
    height, width = canvas.shape[:2]
    to_photo = scaling((width, height), (photo.shape[1], photo.shape[0]))
    boxes, masks, targets, sizes = [], [], [], []
    for patch in patches:
        canvas_to_crop = compose(patch.to_crop, to_photo)
        box = _masked_box(patch.mask, canvas_to_crop, (width, height))
        if box is None:
            continue
        change = _warp_to_box(_difference(patch.restored, patch.original), canvas_to_crop, box, cv2.INTER_CUBIC)
        base = _window(canvas, box)
        if not canvas_is_resized_photo:
            drawn, base = base, _resample_box(photo, to_photo, box)
            change += _tone_between(base, drawn)
        boxes.append(box)
        masks.append(_warp_mask(patch.mask, canvas_to_crop, box))
        targets.append(_changed(base, change))
        sizes.append(1 / magnification(patch.to_crop))
    masks = settle_overlaps(boxes, masks, sizes)
    for index in sorted(range(len(boxes)), key=sizes.__getitem__):
        _blend(_window(canvas, boxes[index]), targets[index], masks[index])


def _window(canvas: Pixels, box: Box) -> Pixels:
    left, top, right, bottom = box
    return canvas[top:bottom, left:right]


def _masked_box(mask: NDArray[np.float32], canvas_to_crop: Transform, canvas_size: tuple[int, int]) -> Box | None:
    """Returns the canvas pixels that a mask may touch, or None where it lies outside the canvas or is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return None
    # Bilinear reading reaches one crop pixel beyond the last weight above zero.
    left, right, top, bottom = columns[0] - 1, columns[-1] + 1, rows[0] - 1, rows[-1] + 1
    corners = map_points(invert(canvas_to_crop), [[left, top], [right, top], [left, bottom], [right, bottom]])
    # One canvas pixel more, since a shrunk mask is averaged over its neighbours.
    low = np.clip(np.floor(corners.min(axis=0)).astype(int) - 1, 0, canvas_size)
    high = np.clip(np.ceil(corners.max(axis=0)).astype(int) + 2, 0, canvas_size)
    if (low >= high).any():
        return None
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _resample_box(photo: Pixels, to_photo: Transform, box: Box) -> Pixels:
    """Returns a box of the plainly resized photo, without resizing the rest of it."""
    left, top, right, bottom = box
    corners = map_points(to_photo, [[left, top], [right, bottom]])
    # Two pixels of cubic reach. Only this window is handed on: cv2 warps no source wider than 32,767 pixels.
    low = np.clip(np.floor(corners[0]).astype(int) - 2, 0, None)
    high = np.ceil(corners[1]).astype(int) + 3
    window = photo[low[1] : high[1], low[0] : high[0]]
    to_window = compose(_shift(-low[0], -low[1]), compose(to_photo, _shift(left, top)))
    return cast(Pixels, _warp(window, to_window, (right - left, bottom - top), cv2.INTER_CUBIC))


def _shift(x: float, y: float) -> Transform:
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y]])


def _tone_between(base: Pixels, drawn: Pixels) -> NDArray[np.float32]:
    """Returns what `drawn` is lighter and more coloured than `base`, smoothly, for every pixel of a box."""
    height, width = base.shape[:2]
    spread = _TONE_SHARE * max(height, width)
    shrinkage = max(1.0, spread / _TONE_SPREAD)
    size = max(1, round(width / shrinkage)), max(1, round(height / shrinkage))
    tone = cv2.resize(_difference(drawn, base), size, interpolation=cv2.INTER_AREA)
    tone = cv2.GaussianBlur(tone, (0, 0), spread / shrinkage)
    tone = cv2.resize(tone, (width, height), interpolation=cv2.INTER_LINEAR)
    return cast(NDArray[np.float32], tone)


def _changed(base: Pixels, change: NDArray[np.float32]) -> Pixels:
    """Returns a box of the photo with a change added in full, rounded into the photo's dtype."""
    depth = cv2.CV_8U if base.dtype == np.uint8 else cv2.CV_16U
    return cast(Pixels, cv2.add(base, change, dtype=depth))


def _warp_mask(mask: NDArray[np.float32], canvas_to_crop: Transform, box: Box) -> NDArray[np.float32]:
    # Linear, since a cubic warp would swing below zero and above one.
    return _warp_to_box(mask, canvas_to_crop, box, cv2.INTER_LINEAR)


def _warp_to_box(
    crop: NDArray[np.float32], canvas_to_crop: Transform, box: Box, interpolation: int
) -> NDArray[np.float32]:
    """Warps something in the crop's frame to a box of the canvas; beyond the crop its border pixels go on.

    Where the canvas is coarser than the crop, the crop is averaged down to the canvas's sampling first.
    """
    left, top, right, bottom = box
    box_to_crop = compose(canvas_to_crop, _shift(left, top))
    crop_pixels_per_pixel = magnification(box_to_crop)
    if crop_pixels_per_pixel > 1.0:
        size = crop.shape[0]
        shrunk = max(1, round(size / crop_pixels_per_pixel))
        crop = cast(NDArray[np.float32], cv2.resize(crop, (shrunk, shrunk), interpolation=cv2.INTER_AREA))
        box_to_crop = compose(scaling((size, size), (shrunk, shrunk)), box_to_crop)
    warped = _warp(crop, box_to_crop, (right - left, bottom - top), interpolation)
    return cast(NDArray[np.float32], warped)


def _warp(source: NDArray[Any], target_to_source: Transform, size: tuple[int, int], interpolation: int) -> NDArray[Any]:
    flags = interpolation | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(source, target_to_source, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)


def _blend(window: Pixels, target: Pixels, mask: NDArray[np.float32]) -> None:
    """Moves a window of the canvas towards its target by the mask's weight, in place, rounding once."""
    difference = _difference(target, window)
    difference *= mask[..., None]
    depth = cv2.CV_8U if window.dtype == np.uint8 else cv2.CV_16U
    np.copyto(window, cv2.add(window, difference, dtype=depth))


def _difference(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float32]:
    return cast(NDArray[np.float32], cv2.subtract(first, second, dtype=cv2.CV_32F))
