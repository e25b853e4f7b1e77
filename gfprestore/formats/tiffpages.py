"""Finds the pages of a TIFF among its frames, some of which are smaller copies, masks or measurements."""

from __future__ import annotations

import itertools
from contextlib import suppress
from typing import BinaryIO, cast

from PIL import Image, TiffImagePlugin

from gfprestore.formats.tifftags import holds_its_pixels

_SUBFILE, _OLD_SUBFILE = 254, 255
_COPY_OR_MASK, _OLD_COPY = 0b101, 2
"""Tags of a frame, and what they say of a reduced copy or a mask (TIFF 6.0, pages 36 and 40)."""

_UNKNOWN_WAYS = (SyntaxError, KeyError)
"""What Pillow raises for pixels or a compression that it does not know; it holds the frame's tags all the same."""


_MOST_ODD = 100
"""Pages that are left out of one file; each takes a walk along all directories, of which a hostile file has many."""


def find_pages(image: Image.Image, stream: BinaryIO) -> tuple[list[int], list[int]]:
    """Finds the frames that are pages of their own, not smaller copies or masks of one.

    Args:
        image: A TIFF, opened; left at another frame.
        stream: The file that it was opened from.

    Returns:
        Frames from 0, at least one: the first where all are copies; and the numbers, from 1 and among all pages, of
        those after it whose pixels cannot be read, although they are there.

    Raises:
        SyntaxError: A page's pixels are unknown, and the file does not hold all that it names; or there are many such.
        KeyError: As before.
    """
    pages = [] if _is_copy(image) else [0]
    odd: list[int] = []
    for frame in itertools.count(1):
        fault = None
        try:
            image.seek(frame)
        except EOFError:
            break
        except _UNKNOWN_WAYS as error:
            fault = error
        if _is_copy(image):
            continue
        if fault is None:
            pages.append(frame)
        elif len(odd) < _MOST_ODD and holds_its_pixels(stream, frame):
            odd.append(len(pages) + len(odd) + 1)
        else:
            raise fault
    return pages or [0], odd


def turn_to(image: Image.Image, frame: int) -> None:
    """Seeks a frame, without what Pillow still holds of the frames that it has passed, such as their profiles."""
    if getattr(image, "n_frames", 1) > 1:
        with suppress(*_UNKNOWN_WAYS):  # Away from it, since seeking where it stands does nothing.
            image.seek(0 if frame else 1)
        image.info.clear()
        image.seek(frame)


def _is_copy(image: Image.Image) -> bool:
    tags = cast("TiffImagePlugin.TiffImageFile", image).tag_v2
    kind, old_kind = tags.get(_SUBFILE), tags.get(_OLD_SUBFILE)
    return (isinstance(kind, int) and bool(kind & _COPY_OR_MASK)) or old_kind == _OLD_COPY
