"""Brings a restored face back into its photo with the compiled kernels, in one pass over the canvas."""

from __future__ import annotations

import ctypes
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gfprestore.geometry import Transform
from gfprestore.native.alignment import aligned
from gfprestore.native.library import Library
from gfprestore.photo import Pixels

# Pixels that the kernel repeats around a face, on both sides together: PADS of program.h.
_PADS = 5

_FLOATS_PER_PIXEL = 4

# The kernel counts the floats of a face in 32 bits.
_MOST_FLOATS = 2**31 - 1


class _Paste(ctypes.Structure):
    """One face: `Paste` of program.h, field for field."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("canvas", "base", "tone", "room")),
        *((name, ctypes.c_void_p) for name in ("change", "original", "mask", "face")),
        ("to_face", ctypes.c_double * 6),
        *((f"{name}_line", ctypes.c_int64) for name in ("canvas", "base", "change", "original", "mask")),
        *((name, ctypes.c_int32) for name in ("height", "width", "face_height", "face_width", "bytes")),
    )


class _Scratch(threading.local):
    """Memory of each thread for a face: fresh memory costs more than all that is written into it."""

    def __init__(self) -> None:
        self._bytes = aligned(0)

    def address(self, size: int) -> int:
        """Returns where `size` bytes are that begin at a cache line."""
        if size > self._bytes.size:
            self._bytes = aligned(size)
        return self._bytes.ctypes.data


_scratch = _Scratch()


def paste_face(
    library: Library,
    window: Pixels,
    base: Pixels,
    change: NDArray[np.float32],
    mask: NDArray[np.float32],
    window_to_change: Transform,
    *,
    original: Pixels | None = None,
    tone: NDArray[np.float32] | None = None,
    room: NDArray[np.float32] | None = None,
) -> None:
    """Blends a face's change into a window of the canvas, in place.

    The change is read by cubic interpolation as `cv2.INTER_CUBIC` weighs it, the mask by linear; beyond their borders
    their outermost pixels go on. Every pixel becomes `window + (target - window) * mask * room`, rounded, where
    `target` is `base + change + tone`, rounded and clipped.

    Args:
        library: The kernels.
        window: RGB uint8 or uint16 (H, W, 3); like all arrays here but for the steps from row to row, C-contiguous.
        base: What the change is added to, as `window`; may be the window itself.
        change: float32 (h, w, 3), in the range of the window's dtype.
        mask: float32 (h, w), 0 to 1.
        window_to_change: Pixel centres of the window -> those of `change` and `mask`.
        original: (h, w, 3) of the window's dtype, taken off `change`; None for zero.
        tone: float32 (H, W, 3); None for zero.
        room: float32 (H, W), 0 to 1; None for one.

    Raises:
        ValueError: An array does not fit the others, or cannot be passed as it is.
    """
    height, width = window.shape[:2]
    if not window.flags.writeable or window.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"no face can be pasted into {window.dtype} {window.shape}")
    task = _face_task(change, mask, original, window_to_change, window.dtype)
    task.canvas, task.canvas_line = _address(window, (height, width, 3), window.dtype), window.strides[0]
    task.base, task.base_line = _address(base, (height, width, 3), window.dtype), base.strides[0]
    if tone is not None:
        task.tone = _address(tone, (height, width, 3), np.float32, lines_touch=True)
    if room is not None:
        task.room = _address(room, (height, width), np.float32, lines_touch=True)
    task.height, task.width, task.bytes = height, width, window.dtype.itemsize
    library.paste_face(ctypes.byref(task))


def _face_task(
    change: NDArray[np.float32],
    mask: NDArray[np.float32],
    original: Pixels | None,
    window_to_change: Transform,
    dtype: np.dtype[Any],
) -> _Paste:
    """Returns a task with all that it has to be told of the face."""
    height, width = mask.shape
    floats = _FLOATS_PER_PIXEL * (height + _PADS) * (width + _PADS)
    if mask.size == 0 or floats > _MOST_FLOATS or window_to_change.shape != (2, 3):
        raise ValueError(f"no face of {mask.shape} can be pasted by a transform of {window_to_change.shape}")
    task = _Paste(face_height=height, face_width=width, face=_scratch.address(4 * floats))
    task.to_face[:] = window_to_change.ravel().tolist()
    task.change, task.change_line = _address(change, (height, width, 3), np.float32), change.strides[0]
    task.mask, task.mask_line = _address(mask, (height, width), np.float32), mask.strides[0]
    if original is not None:
        task.original, task.original_line = _address(original, (height, width, 3), dtype), original.strides[0]
    return task


def _address(array: NDArray[Any], shape: tuple[int, ...], dtype: Any, *, lines_touch: bool = False) -> int:
    """Returns where an array begins.

    Raises:
        ValueError: It is of another shape or dtype, or the pixels of a row lie apart.
    """
    item = array.dtype.itemsize
    steps = (3 * item, item)[-(len(shape) - 1) :]
    is_whole = array.flags.c_contiguous if lines_touch else array.strides[1:] == steps
    if array.shape != shape or array.dtype != dtype or not is_whole:
        raise ValueError(f"{array.dtype} {array.shape} in steps of {array.strides} is not {dtype} {shape}")
    return int(array.ctypes.data)
