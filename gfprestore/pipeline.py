"""The main job as a stream: photos in, outcomes out.

    plan -> open -> find faces -> restore in batches across photos -> paste and write -> outcome
            threads  one thread    the caller's thread               threads

Every stage is bounded, so memory follows the number of photos in work and never the size of the folder. What happens to
one photo is a value: a stage that meets an outcome instead of work hands it on.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import cast

import numpy as np
from numpy.typing import NDArray

from gfprestore.align import align_face, whole_photo_face
from gfprestore.errors import PhotoError
from gfprestore.face_choice import choose_faces
from gfprestore.folders import Job
from gfprestore.masks import border_mask
from gfprestore.models import Models
from gfprestore.options import RestoreOptions
from gfprestore.paste import FacePatch, paste_faces
from gfprestore.photo import AlignedFace, Photo, Pixels
from gfprestore.photofile import read_photo, write_photo
from gfprestore.report import FaceRecord, Failed, Outcome, Restored, Skipped
from gfprestore.resize import output_size, resize_photo
from gfprestore.streams import map_ahead, map_batched

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class OpenPhoto:
    """A photo in work."""

    job: Job
    """Where it comes from and goes to."""

    photo: Photo
    """The whole photo."""

    faces: tuple[AlignedFace, ...] = ()
    """Its faces, once they were looked for."""

    seconds: dict[str, float] = field(default_factory=dict)
    """Time spent on it so far, by stage."""


@dataclass(frozen=True, eq=False)
class RestoredCrop:
    """What the generator made of one crop."""

    crop: NDArray[np.uint8]
    """RGB uint8, (S, S, 3)."""

    seconds: float
    """Its share of the time of its batch."""


def restore_photos(jobs: Iterable[Job], models: Models, options: RestoreOptions) -> Generator[Outcome]:
    """Restores photos one after another and yields what became of each, in order.

    At most `batch_size` + 3 photos, and two more for each worker thread, are held at once. Closing the generator stops
    the work; photos that were being written are finished first.

    Args:
        jobs: Sources and targets, from `plan_jobs`.
        models: The loaded networks, from `load_models`.
        options: What to do.

    Raises:
        DeviceError: The device's memory does not hold even one face.
        OutputError: The output folder cannot be written, for instance because the disk is full.
    """
    workers = min(4, os.cpu_count() or 1)
    opened = map_ahead(jobs, partial(_open, options=options), workers=workers, ahead=workers)
    found = map_ahead(opened, partial(_find_faces, models=models, options=options), workers=1, ahead=2)
    groups = ((work, _crops_of(work)) for work in found)
    restored = map_batched(
        groups, partial(_restore_batch, models), batch_size=options.batch_size, max_open=options.batch_size + 1
    )
    yield from map_ahead(restored, partial(_finish, models=models, options=options), workers=workers, ahead=workers)


def _open(job: Job, options: RestoreOptions) -> OpenPhoto | Outcome:
    if not options.overwrite and job.target.exists():
        return Skipped(job, "the result exists already (--overwrite writes it anew)")
    start = time.perf_counter()
    try:
        photo = read_photo(job.source)
    except PhotoError as error:
        return Failed(job, str(error))
    return OpenPhoto(job, photo, seconds={"read": time.perf_counter() - start})


def _find_faces(work: OpenPhoto | Outcome, models: Models, options: RestoreOptions) -> OpenPhoto | Outcome:
    if not isinstance(work, OpenPhoto):
        return work
    start = time.perf_counter()
    photo, size = work.photo, models.restorer.size
    if options.aligned:
        faces = [whole_photo_face(photo, size)]
    else:
        assert models.detector is not None, "only --aligned goes without a detector"
        height, width = photo.pixels.shape[:2]
        found = models.detector.detect([photo.pixels])[0]
        chosen = choose_faces(found, (width, height), only_center=options.only_center)
        faces = [align_face(photo, face, size) for face in chosen]
    logger.debug("%s: %d faces", work.job.source, len(faces))
    return OpenPhoto(work.job, photo, tuple(faces), {**work.seconds, "detect": time.perf_counter() - start})


def _crops_of(work: OpenPhoto | Outcome) -> Sequence[NDArray[np.uint8]]:
    return [to_8_bit(face.crop) for face in work.faces] if isinstance(work, OpenPhoto) else []


def _restore_batch(models: Models, crops: list[NDArray[np.uint8]]) -> list[RestoredCrop]:
    start = time.perf_counter()
    restored = models.restorer.restore(crops)
    share = (time.perf_counter() - start) / len(crops)
    return [RestoredCrop(crop, share) for crop in restored]


def _finish(
    batched: tuple[OpenPhoto | Outcome, list[RestoredCrop]], models: Models, options: RestoreOptions
) -> Outcome:
    work, crops = batched
    if not isinstance(work, OpenPhoto):
        return work
    start = time.perf_counter()
    result = _assemble(work, crops, options)
    pasted = time.perf_counter()
    try:
        write_photo(work.job.target, result, quality=options.quality, overwrite=options.overwrite)
    except PhotoError as error:
        return Failed(work.job, str(error))
    height, width = result.pixels.shape[:2]
    seconds = {
        **work.seconds,
        "restore": sum(crop.seconds for crop in crops),
        "paste": pasted - start,
        "write": time.perf_counter() - pasted,
    }
    records = tuple(_record(face) for face in work.faces)
    return Restored(work.job, records, (width, height), seconds, work.photo.warnings)


def _assemble(work: OpenPhoto, crops: Sequence[RestoredCrop], options: RestoreOptions) -> Photo:
    """Returns the whole photo, upscaled, with its restored faces."""
    photo = work.photo
    height, width = photo.pixels.shape[:2]
    size = output_size(width, height, options.upscale)
    canvas = resize_photo(photo.pixels, size)
    patches = [_patch(face, restored.crop, photo, options) for face, restored in zip(work.faces, crops, strict=True)]
    paste_faces(canvas, photo.pixels, patches, canvas_is_resized_photo=True)
    alpha = None if photo.alpha is None else resize_photo(photo.alpha, size)
    return replace(photo, pixels=canvas, alpha=alpha)


def _patch(face: AlignedFace, restored: NDArray[np.uint8], photo: Photo, options: RestoreOptions) -> FacePatch:
    size = restored.shape[0]
    mask = np.ones((size, size), np.float32) if options.aligned else border_mask(size)
    # Both sides of the change are 8 bit, so that what 16 bits hold between two levels stays in the photo.
    original = to_8_bit(face.crop)
    unit = 257 if photo.pixels.dtype == np.uint16 else 1
    return FacePatch(_in_units(original, unit), _in_units(restored, unit), mask, face.to_crop)


def _in_units(crop: NDArray[np.uint8], unit: int) -> Pixels:
    return crop if unit == 1 else crop.astype(np.uint16) * np.uint16(unit)


def to_8_bit(pixels: Pixels) -> NDArray[np.uint8]:
    """Returns RGB pixels rounded to 8 bits: 65535 becomes 255."""
    if pixels.dtype == np.uint8:
        return cast(NDArray[np.uint8], pixels)
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _record(face: AlignedFace) -> FaceRecord:
    left, top, right, bottom = (float(side) for side in face.face.box)
    return FaceRecord(box=(left, top, right, bottom), score=face.face.score, action="restored")
