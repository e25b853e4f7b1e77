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

from gfprestore.blending.overlaps import Box, leave_room, shared_box
from gfprestore.geometry import Transform, compose, invert, magnification, map_points, scaling
from gfprestore.native.library import load_library
from gfprestore.native.pasting import paste_face
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

    Every face's change is added to the canvas as it was before any face, so that no face's change is laid on top of
    another's, and where masks overlap the larger face wins (`gfprestore.blending.overlaps.leave_room`).

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
    placed = [_place(patch, compose(patch.to_crop, to_photo), (width, height)) for patch in patches]
    # Smallest first; of equals the first wins, and so comes last.
    faces = sorted((face for face in reversed(placed) if face is not None), key=lambda face: face.size)
    grounds = []
    for rank, face in enumerate(faces):
        if canvas_is_resized_photo:
            is_touched = any(shared_box(face.box, smaller.box) for smaller in faces[:rank])
            window = _window(canvas, face.box)
            grounds.append(_Ground(window.copy() if is_touched else window, None))
        else:
            base = _resample_box(photo, to_photo, face.box)
            grounds.append(_Ground(base, _tone_between(base, _window(canvas, face.box))))
    for rank, (face, ground) in enumerate(zip(faces, grounds, strict=True)):
        larger = faces[rank + 1 :]
        room = leave_room(face.box, [(other.box, other.weights) for other in larger])
        _paste(_window(canvas, face.box), ground, face, room)


@dataclass(frozen=True, eq=False)
class _PlacedFace:
    """One face and where it lies on the canvas."""

    box: Box
    """Canvas pixels that its mask may touch."""

    size: float
    """Its crop's side in photo pixels, by the unit of the crop's side."""

    change: NDArray[np.float32]
    """What is added to the photo, and `original` with it; of the crop the part that the mask reaches, (h, w, 3)."""

    original: Pixels | None
    """Taken off `change`, (h, w, 3), dtype of the photo; None where that is done already."""

    mask: NDArray[np.float32]
    """Weight of the change, (h, w)."""

    canvas_to_change: Transform
    """Canvas pixel centres -> those of `change`."""

    def from_window(self, box: Box) -> Transform:
        """Returns pixel centres of a box of the canvas -> those of `change`."""
        return compose(self.canvas_to_change, _shift(*box[:2]))

    def weights(self, box: Box) -> NDArray[np.float32]:
        """Returns the mask for a box of the canvas."""
        # Linear, since a cubic warp would swing below zero and above one.
        return cast(NDArray[np.float32], _warp(self.mask, self.from_window(box), _size_of(box), cv2.INTER_LINEAR))


@dataclass(frozen=True, eq=False)
class _Ground:
    """What a face's change is added to."""

    base: Pixels
    """The plainly resized photo in the face's box, before any face."""

    tone: NDArray[np.float32] | None
    """What the canvas is lighter and more coloured than that, small, (h, w, 3); None for nothing."""


def _place(patch: FacePatch, canvas_to_crop: Transform, canvas_size: tuple[int, int]) -> _PlacedFace | None:
    """Returns a face as it is pasted, or None where its mask lies outside the canvas or is empty.

    Where the canvas is coarser than the crop, the crop is averaged down to the canvas's sampling first.
    """
    side = patch.mask.shape[0]
    shrunk = max(1, round(side / max(1.0, magnification(canvas_to_crop))))
    mask = patch.mask if shrunk == side else _shrink(patch.mask, shrunk)
    canvas_to_crop = compose(scaling((side, side), (shrunk, shrunk)), canvas_to_crop)
    rows, columns = np.flatnonzero(mask.max(axis=1)), np.flatnonzero(mask.max(axis=0))
    if rows.size == 0:
        return None
    reached = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    box = _box_on_canvas(reached, canvas_to_crop, canvas_size)
    if box is None:
        return None
    # Two pixels of cubic reach beyond the one of bilinear.
    left, top = (max(0, low - 2) for low in reached[:2])
    part = slice(top, reached[3] + 2), slice(left, reached[2] + 2)
    original = None if shrunk != side else patch.original[part]
    change = patch.restored if shrunk == side else _shrink(_difference(patch.restored, patch.original), shrunk)
    change = np.asarray(change[part], np.float32)
    size = 1 / magnification(patch.to_crop)
    return _PlacedFace(box, size, change, original, mask[part], compose(_shift(-left, -top), canvas_to_crop))


def _shrink(crop: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    return cast(NDArray[np.float32], cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA))


def _box_on_canvas(reached: Box, canvas_to_crop: Transform, canvas_size: tuple[int, int]) -> Box | None:
    """Returns the canvas pixels that a mask above zero in a box of the crop may touch; None outside the canvas."""
    # Bilinear reading reaches one crop pixel beyond the last weight above zero.
    left, top, right, bottom = reached[0] - 1, reached[1] - 1, reached[2], reached[3]
    corners = map_points(invert(canvas_to_crop), [[left, top], [right, top], [left, bottom], [right, bottom]])
    low = np.clip(np.floor(corners.min(axis=0)).astype(int), 0, canvas_size)
    high = np.clip(np.ceil(corners.max(axis=0)).astype(int) + 1, 0, canvas_size)
    if (low >= high).any():
        return None
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _paste(window: Pixels, ground: _Ground, face: _PlacedFace, room: NDArray[np.float32] | None) -> None:
    """Blends a face into its window of the canvas, in place, with its mask weakened to the room that there is."""
    tone = None if ground.tone is None else _enlarge_tone(ground.tone, _size_of(face.box))
    to_change = face.from_window(face.box)
    library = load_library()
    if library is not None:
        parts = face.change, face.mask, to_change
        paste_face(library, window, ground.base, *parts, original=face.original, tone=tone, room=room)
        return
    change = face.change if face.original is None else _difference(face.change, face.original)
    change = cast(NDArray[np.float32], _warp(change, to_change, _size_of(face.box), cv2.INTER_CUBIC))
    if tone is not None:
        change += tone
    mask = face.weights(face.box)
    if room is not None:
        mask *= room
    _blend(window, _changed(ground.base, change), mask)


def _window(canvas: Pixels, box: Box) -> Pixels:
    left, top, right, bottom = box
    return canvas[top:bottom, left:right]


def _size_of(box: Box) -> tuple[int, int]:
    return box[2] - box[0], box[3] - box[1]


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
    """Returns what `drawn` is lighter and more coloured than `base`, smoothly, as a small picture of their box."""
    height, width = base.shape[:2]
    spread = _TONE_SHARE * max(height, width)
    shrinkage = max(1.0, spread / _TONE_SPREAD)
    size = max(1, round(width / shrinkage)), max(1, round(height / shrinkage))
    tone = cv2.resize(_difference(drawn, base), size, interpolation=cv2.INTER_AREA)
    return cast(NDArray[np.float32], cv2.GaussianBlur(tone, (0, 0), spread / shrinkage))


def _enlarge_tone(tone: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    return cast(NDArray[np.float32], cv2.resize(tone, size, interpolation=cv2.INTER_LINEAR))


def _changed(base: Pixels, change: NDArray[np.float32]) -> Pixels:
    """Returns a box of the photo with a change added in full, rounded into the photo's dtype."""
    depth = cv2.CV_8U if base.dtype == np.uint8 else cv2.CV_16U
    return cast(Pixels, cv2.add(base, change, dtype=depth))


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
