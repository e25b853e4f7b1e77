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
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gfprestore import __version__
from gfprestore.align import align_face, whole_photo_face
from gfprestore.atomic import TargetExistsError
from gfprestore.background import ResizeUpscaler
from gfprestore.colorize import colorize_photo
from gfprestore.colour import to_8_bits, to_srgb
from gfprestore.colouring import coloured_faces, has_to_be_coloured
from gfprestore.descratch import fill_scratches, find_scratches
from gfprestore.errors import PhotoError
from gfprestore.extras import copy_times, draw_boxes, save_faces
from gfprestore.face_choice import FaceBox, choose_faces, faces_at
from gfprestore.folders import Job
from gfprestore.masks import Labels
from gfprestore.metadata import tag_as_restored
from gfprestore.models import Models
from gfprestore.options import RestoreOptions
from gfprestore.paste import paste_faces
from gfprestore.photo import AlignedFace, Photo
from gfprestore.photofile import read_photo
from gfprestore.photowrite import write_photo
from gfprestore.report import Failed, Outcome, Restored, Skipped
from gfprestore.reportfile import read_faces
from gfprestore.resize import output_size, resize_photo
from gfprestore.retouch import RestoredCrop, Retouch, retouch_faces
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


def restore_photos(jobs: Iterable[Job], models: Models, options: RestoreOptions) -> Generator[Outcome]:
    """Restores photos one after another and yields what became of each, in order.

    At most `batch_size` + 3 photos, and two more for each worker thread, are held at once. Closing the generator stops
    the work; photos that were being written are finished first.

    Args:
        jobs: Sources and targets, from `plan_jobs`.
        models: The loaded networks, from `load_models`.
        options: What to do.

    Raises:
        UsageError: The file of `faces_from` cannot be read.
        DeviceError: The device's memory does not hold even one face.
        OutputError: The output folder cannot be written, for instance because the disk is full.
    """
    workers = min(4, os.cpu_count() or 1)
    wanted = None if options.faces_from is None else read_faces(options.faces_from)
    opened = map_ahead(jobs, partial(_open, options=options), workers=workers, ahead=workers)
    found = map_ahead(opened, partial(_find_faces, models=models, options=options, wanted=wanted), workers=1, ahead=2)
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
        if options.descratch:
            photo = replace(photo, pixels=fill_scratches(photo.pixels, find_scratches(photo.pixels)))
    except PhotoError as error:
        return Failed(job, str(error))
    return OpenPhoto(job, photo, seconds={"read": time.perf_counter() - start})


def _find_faces(
    work: OpenPhoto | Outcome, models: Models, options: RestoreOptions, wanted: Mapping[Path, Sequence[FaceBox]] | None
) -> OpenPhoto | Outcome:
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
        if wanted is not None:
            found = faces_at(found, wanted.get(work.job.source, ()))
        chosen = choose_faces(found, (width, height), only_center=options.only_center, largest=options.largest)
        faces = [align_face(photo, face, size) for face in chosen]
    logger.debug("%s: %d faces", work.job.source, len(faces))
    return OpenPhoto(work.job, photo, tuple(faces), {**work.seconds, "detect": time.perf_counter() - start})


def _crops_of(work: OpenPhoto | Outcome) -> Sequence[NDArray[np.uint8]]:
    """What the networks see: crops in 8-bit sRGB."""
    if not isinstance(work, OpenPhoto):
        return []
    profile = work.photo.metadata.icc_profile
    return [to_8_bits(to_srgb(face.crop, profile)) for face in work.faces]


def _restore_batch(models: Models, crops: list[NDArray[np.uint8]]) -> list[RestoredCrop]:
    start = time.perf_counter()
    restored = models.restorer.restore(crops)
    labels: list[tuple[Labels | None, Labels | None]] = [(None, None)] * len(crops)
    if models.parser is not None:
        parsed = models.parser.parse([*crops, *restored])
        labels = list(zip(parsed[: len(crops)], parsed[len(crops) :], strict=True))
    share = (time.perf_counter() - start) / len(crops)
    return [RestoredCrop(crop, *pair, share) for crop, pair in zip(restored, labels, strict=True)]


def _finish(
    batched: tuple[OpenPhoto | Outcome, list[RestoredCrop]], models: Models, options: RestoreOptions
) -> Outcome:
    work, crops = batched
    if not isinstance(work, OpenPhoto):
        return work
    start = time.perf_counter()
    retouches = retouch_faces(work.photo, work.faces, crops, options, models.recogniser)
    retouched = time.perf_counter()
    result = _assemble(work, crops, retouches, models, options)
    pasted = time.perf_counter()
    try:
        lost = write_photo(work.job.target, result, quality=options.quality, overwrite=options.overwrite)
        if options.preserve_times:
            copy_times(work.job.source, work.job.target)
        if options.save_faces is not None:
            save_faces(options.save_faces, work.job.relative, work.faces, retouches)
    except TargetExistsError:
        return Skipped(work.job, "the result appeared while the photo was restored (--overwrite writes it anew)")
    except PhotoError as error:
        return Failed(work.job, str(error))
    seconds = {
        **work.seconds,
        "restore": sum(crop.seconds for crop in crops),
        "retouch": retouched - start,
        "paste": pasted - retouched,
        "write": time.perf_counter() - pasted,
    }
    height, width = result.pixels.shape[:2]
    records = tuple(retouch.record for retouch in retouches)
    return Restored(work.job, records, (width, height), seconds, (*work.photo.warnings, *lost))


def _assemble(
    work: OpenPhoto,
    crops: Sequence[RestoredCrop],
    retouches: Sequence[Retouch],
    models: Models,
    options: RestoreOptions,
) -> Photo:
    """Returns the whole photo, upscaled, with its restored faces, and coloured where that was asked for."""
    photo = work.photo
    height, width = photo.pixels.shape[:2]
    size = output_size(width, height, options.upscale)
    canvas = models.upscaler.upscale(photo.pixels, size)
    patches = [retouch.patch for retouch in retouches if retouch.patch is not None]
    paste_faces(canvas, photo.pixels, patches, canvas_is_resized_photo=isinstance(models.upscaler, ResizeUpscaler))
    is_coloured = models.chroma is not None and has_to_be_coloured(photo.pixels, options)
    if models.chroma is not None and is_coloured:
        faces = coloured_faces(work.faces, crops, models.face_model, (width, height), size)
        canvas = colorize_photo(canvas, models.chroma, faces, options.color_strength)
    if options.draw_boxes:
        draw_boxes(canvas, (width, height), [retouch.record for retouch in retouches])
    alpha = None if photo.alpha is None else resize_photo(photo.alpha, size)
    metadata = photo.metadata
    if options.tag and (patches or is_coloured):
        metadata = tag_as_restored(metadata, models.face_model, __version__)
    return replace(photo, pixels=canvas, alpha=alpha, is_gray=photo.is_gray and not is_coloured, metadata=metadata)
