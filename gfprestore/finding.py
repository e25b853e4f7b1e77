"""Which faces of a photo are worked on: found, chosen among, and cut out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gfprestore.align import align_face, whole_photo_face
from gfprestore.detect import FaceDetector
from gfprestore.detection.face_choice import FaceBox, box_of, choose_faces, faces_at
from gfprestore.options import RestoreOptions
from gfprestore.photo import AlignedFace, Photo
from gfprestore.report import RefusedRecord


@dataclass(frozen=True, eq=False)
class Faces:
    """What was found in a photo and is worked on."""

    chosen: tuple[AlignedFace, ...]
    """The chosen faces, largest first."""

    refused: tuple[RefusedRecord, ...] = ()
    """What was taken for a face and refused."""

    missed: int = 0
    """How many faces chosen by hand were not found again."""


def find_faces(
    photo: Photo,
    detector: FaceDetector | None,
    size: int,
    options: RestoreOptions,
    wanted: Sequence[FaceBox] | None = None,
) -> Faces:
    """Finds the faces of a photo and cuts them out.

    Args:
        photo: The whole photo.
        detector: Finds them; only the option `aligned` goes without.
        size: Side of the crops.
        options: Which faces are chosen.
        wanted: Boxes of the faces that were chosen by hand; None is no such choice.

    Raises:
        DeviceError: The device's memory does not hold even one view of the photo.
    """
    if options.aligned:
        whole = whole_photo_face(photo, size)
        kept, missed = ([whole.face], 0) if wanted is None else faces_at([whole.face], wanted)
        return Faces((whole,) if kept else (), missed=missed)
    assert detector is not None, "only --aligned goes without a detector"
    (found,) = detector.search([photo.pixels])
    faces, missed = (found.faces, 0) if wanted is None else faces_at(found.faces, wanted)
    height, width = photo.pixels.shape[:2]
    chosen = choose_faces(faces, (width, height), only_center=options.only_center, largest=options.largest)
    refused = tuple(RefusedRecord(box_of(item.face), item.face.score, item.reason) for item in found.refused)
    return Faces(tuple(align_face(photo, face, size) for face in chosen), refused, missed)
