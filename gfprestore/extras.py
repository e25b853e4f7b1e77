"""What a run leaves beside the photos when asked: crops of the faces, boxes drawn onto results, kept file times."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import cv2
import numpy as np

from gfprestore.errors import OutputError, PhotoError, printable
from gfprestore.geometry import map_points, scaling
from gfprestore.photo import AlignedFace, Photo, PhotoMetadata, Pixels
from gfprestore.photowrite import write_photo
from gfprestore.places import crop_path
from gfprestore.report import FaceRecord, RefusedRecord
from gfprestore.retouch import Retouch

BOX_COLOURS = {"restored": (0, 255, 0), "kept": (255, 160, 0), "refused": (255, 0, 0)}
"""RGB of the drawn boxes, by what was done to the face."""


def save_faces(
    folder: Path,
    relative: Path,
    faces: Sequence[AlignedFace],
    retouches: Sequence[Retouch],
    icc_profile: bytes | None = None,
) -> None:
    """Writes each face's crop before and after as PNG: `folder/sub/photo.jpg.1.before.png` and `... .1.after.png`.

    A face that keeps its own pixels has no file of after. Crops of an earlier run give way, since they belong to a
    result that was written anew.

    Args:
        folder: Where they go.
        relative: Path of the photo below its own output folder, kept here.
        faces: Cut from the photo.
        retouches: What became of them, in the same order.
        icc_profile: The photo's, which its crops are in too.

    Raises:
        OutputError: The folder cannot be written.
        PhotoError: A file cannot be written.
    """
    metadata = PhotoMetadata("PNG", icc_profile=icc_profile)
    for number, (face, retouch) in enumerate(zip(faces, retouches, strict=True), start=1):
        pictures = {"before": face.crop}
        if retouch.patch is not None:
            pictures["after"] = np.rint(retouch.patch.restored).astype(face.crop.dtype)
        else:
            _remove(crop_path(folder, relative, number, "after"))
        for when, pixels in pictures.items():
            photo = Photo(cast(Pixels, np.ascontiguousarray(pixels)), metadata)
            write_photo(crop_path(folder, relative, number, when), photo, overwrite=True, option="--save-faces")
    # What an earlier run found beyond. Last first, so that where this is stopped, no gap hides the rest.
    beyond = itertools.count(len(faces) + 1)
    stale = list(itertools.takewhile(lambda n: crop_path(folder, relative, n, "before").exists(), beyond))
    for number in reversed(stale):
        _remove(crop_path(folder, relative, number, "after"))
        _remove(crop_path(folder, relative, number, "before"))


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"{printable(path)} of an earlier run cannot be removed ({error.strerror});"
            " name another folder with --save-faces."
        ) from error


def draw_boxes(canvas: Pixels, photo_size: tuple[int, int], records: Sequence[FaceRecord | RefusedRecord]) -> None:
    """Draws the box of every face that was worked on onto the result, in place: green if restored, orange if kept.

    What was taken for a face and refused is red.

    Args:
        canvas: The result, RGB uint8 or uint16, (H', W', 3).
        photo_size: (W, H) of the photo that the boxes are given in.
        records: What was found.
    """
    height, width = canvas.shape[:2]
    to_canvas = scaling(photo_size, (width, height))
    unit = 257 if canvas.dtype == np.uint16 else 1
    thickness = max(1, round(max(width, height) / 600))
    for record in records:
        left, top, right, bottom = map_points(to_canvas, np.reshape(record.box, (2, 2))).round().astype(int).ravel()
        action = record.action if isinstance(record, FaceRecord) else "refused"
        colour = tuple(unit * level for level in BOX_COLOURS[action])
        cv2.rectangle(canvas, (int(left), int(top)), (int(right), int(bottom)), colour, thickness)


def copy_times(source: Path, target: Path) -> None:
    """Gives a result the times of access and change of its source.

    Raises:
        PhotoError: The source is gone, or the file system refuses.
    """
    try:
        status = source.stat()
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
    except OSError as error:
        raise PhotoError(f"The times of {printable(source)} cannot be kept ({error.strerror}).") from error
