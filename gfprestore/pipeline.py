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
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import takewhile
from pathlib import Path

import cv2
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
from gfprestore.engine import out_of_memory
from gfprestore.errors import GfprestoreError, PhotoError, printable
from gfprestore.extras import copy_times, draw_boxes, save_faces
from gfprestore.face_choice import FaceBox, box_of, choose_faces, faces_at
from gfprestore.folders import Job
from gfprestore.masks import Labels
from gfprestore.metadata import tag_as_restored
from gfprestore.models import Models
from gfprestore.options import RestoreOptions
from gfprestore.paste import paste_faces
from gfprestore.photo import AlignedFace, Photo
from gfprestore.photofile import read_photo
from gfprestore.photowrite import write_photo
from gfprestore.report import Failed, Outcome, RefusedRecord, Restored, Skipped
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

    refused: tuple[RefusedRecord, ...] = ()
    """What was taken for a face and is none to restore."""

    seconds: dict[str, float] = field(default_factory=dict)
    """Time spent on it so far, by stage."""


Stage = OpenPhoto | Outcome | None
"""What a stage hands on: a photo in work, an outcome, or None for a photo dropped since the run is stopping."""


def restore_photos(
    jobs: Iterable[Job], models: Models, options: RestoreOptions, *, should_stop: Callable[[], bool] = bool
) -> Generator[Outcome]:
    """Restores photos one after another and yields what became of each, in order.

    At most `batch_size` + 3 photos, and two more for each worker thread, are held at once. Closing the generator stops
    the work; photos that were being written are finished first. When an error ends the run, the photos in work behind
    it are finished and yielded before it is raised, so that every photo that is written has its outcome.

    Args:
        jobs: Sources and targets, from `plan_jobs`.
        models: The loaded networks, from `load_models`.
        options: What to do.
        should_stop: Asked between the steps, in any thread; once it says yes it must go on to. Photos that are being
            written then are finished and yielded, the others dropped, and the generator ends.

    Raises:
        UsageError: The file of `faces_from` cannot be read.
        DeviceError: The device's memory does not hold even one face.
        OutputError: The output folder cannot be written, for instance because the disk is full.
    """
    workers = min(4, os.cpu_count() or 1)
    wanted = None if options.faces_from is None else read_faces(options.faces_from)
    begun = takewhile(lambda _: not should_stop(), jobs)
    opened = map_ahead(begun, partial(_open, options=options, should_stop=should_stop), workers=workers, ahead=workers)
    find = partial(_find_faces, models=models, options=options, wanted=wanted, should_stop=should_stop)
    found = map_ahead(opened, find, workers=1, ahead=2)
    restored = map_batched(
        found,
        partial(_restore_batch, models, should_stop=should_stop),
        batch_size=options.batch_size,
        max_open=options.batch_size + 1,
    )
    finish = partial(_finish, models=models, options=options, should_stop=should_stop)
    for outcome in map_ahead(restored, finish, workers=workers, ahead=workers):
        if outcome is not None:
            yield outcome


@contextmanager
def _in_hand(job: Job) -> Iterator[None]:
    """Makes memory that runs out a fault of this photo, since the next may be smaller; names it in a bug's traceback.

    Raises:
        PhotoError: There is not enough memory for this photo.
    """
    name = printable(job.source)
    try:
        yield
    except MemoryError as error:
        raise PhotoError(f"{name} needs more memory than there is; close other programs or lower --upscale.") from error
    except cv2.error as error:
        if error.code != cv2.Error.StsNoMem:
            raise
        raise PhotoError(f"{name} needs more memory than there is; close other programs or lower --upscale.") from error
    except (PhotoError, GfprestoreError):
        raise
    except Exception as error:
        error.add_note(f"while {name} was restored")
        raise


def _open(job: Job, options: RestoreOptions, should_stop: Callable[[], bool]) -> Stage:
    if should_stop():
        return None
    if not options.overwrite and os.path.lexists(job.target):
        return Skipped(job, "the result exists already (--overwrite writes it anew)")
    start = time.perf_counter()
    try:
        with _in_hand(job):
            photo = read_photo(job.source)
            if options.descratch:
                photo = replace(photo, pixels=fill_scratches(photo.pixels, find_scratches(photo.pixels)))
    except PhotoError as error:
        return Failed(job, str(error))
    return OpenPhoto(job, photo, seconds={"read": time.perf_counter() - start})


def _find_faces(
    work: Stage,
    models: Models,
    options: RestoreOptions,
    wanted: Mapping[Path, Sequence[FaceBox]] | None,
    should_stop: Callable[[], bool],
) -> tuple[Stage, Sequence[NDArray[np.uint8]]]:
    """Returns the photo with its faces, and what the networks see of them: crops in 8-bit sRGB."""
    if not isinstance(work, OpenPhoto):
        return work, []
    if should_stop():
        return None, []
    start = time.perf_counter()
    try:
        with _in_hand(work.job):
            faces, refused = _faces_of(work, models, options, wanted)
            crops = [to_8_bits(to_srgb(face.crop, work.photo.metadata.icc_profile)) for face in faces]
    except PhotoError as error:
        return Failed(work.job, str(error)), []
    logger.debug("%s: %d face%s", work.job.source, len(faces), "" if len(faces) == 1 else "s")
    seconds = {**work.seconds, "detect": time.perf_counter() - start}
    return OpenPhoto(work.job, work.photo, tuple(faces), refused, seconds), crops


def _faces_of(
    work: OpenPhoto, models: Models, options: RestoreOptions, wanted: Mapping[Path, Sequence[FaceBox]] | None
) -> tuple[list[AlignedFace], tuple[RefusedRecord, ...]]:
    photo, size = work.photo, models.restorer.size
    if options.aligned:
        return [whole_photo_face(photo, size)], ()
    assert models.detector is not None, "only --aligned goes without a detector"
    height, width = photo.pixels.shape[:2]
    found = models.detector.search([photo.pixels])[0]
    faces = found.faces
    if wanted is not None:
        faces = tuple(faces_at(faces, wanted.get(work.job.source, ())))
    chosen = choose_faces(faces, (width, height), only_center=options.only_center, largest=options.largest)
    refused = tuple(RefusedRecord(box_of(item.face), item.face.score, item.reason) for item in found.refused)
    return [align_face(photo, face, size) for face in chosen], refused


def _restore_batch(
    models: Models, crops: list[NDArray[np.uint8]], should_stop: Callable[[], bool]
) -> Sequence[RestoredCrop | None]:
    if should_stop():
        return [None] * len(crops)
    start = time.perf_counter()
    try:
        restored = models.restorer.restore(crops)
        labels: list[tuple[Labels | None, Labels | None]] = [(None, None)] * len(crops)
        if models.parser is not None:
            parsed = models.parser.parse([*crops, *restored])
            labels = list(zip(parsed[: len(crops)], parsed[len(crops) :], strict=True))
    except MemoryError as error:
        raise out_of_memory(models.restorer.device) from error
    share = (time.perf_counter() - start) / len(crops)
    return [RestoredCrop(crop, *pair, share) for crop, pair in zip(restored, labels, strict=True)]


def _finish(
    batched: tuple[Stage, list[RestoredCrop | None]],
    models: Models,
    options: RestoreOptions,
    should_stop: Callable[[], bool],
) -> Outcome | None:
    work, restored = batched
    if not isinstance(work, OpenPhoto):
        return work
    crops = [crop for crop in restored if crop is not None]
    if should_stop() or len(crops) < len(restored):
        return None
    try:
        with _in_hand(work.job):
            return _write(work, crops, models, options)
    except TargetExistsError:
        return Skipped(work.job, "the result appeared while the photo was restored (--overwrite writes it anew)")
    except PhotoError as error:
        return Failed(work.job, str(error))


def _write(work: OpenPhoto, crops: Sequence[RestoredCrop], models: Models, options: RestoreOptions) -> Restored:
    start = time.perf_counter()
    retouches = retouch_faces(work.photo, work.faces, crops, options, models.recogniser)
    retouched = time.perf_counter()
    result = _assemble(work, crops, retouches, models, options)
    pasted = time.perf_counter()
    if options.save_faces is not None:
        # First, since a photo whose result is there counts as done.
        save_faces(options.save_faces, work.job.relative, work.faces, retouches)
    notes = [
        *work.photo.warnings,
        *write_photo(work.job.target, result, quality=options.quality, overwrite=options.overwrite),
    ]
    if options.preserve_times:
        try:
            copy_times(work.job.source, work.job.target)
        except PhotoError as error:
            notes.append(str(error))
    seconds = {
        **work.seconds,
        "restore": sum(crop.seconds for crop in crops),
        "retouch": retouched - start,
        "paste": pasted - retouched,
        "write": time.perf_counter() - pasted,
    }
    height, width = result.pixels.shape[:2]
    records = tuple(retouch.record for retouch in retouches)
    outcome = Restored(work.job, records, (width, height), seconds, tuple(notes), work.refused)
    for line in outcome.decisions():
        logger.debug("%s: %s", work.job.source, line)
    return outcome


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
        draw_boxes(canvas, (width, height), [*(retouch.record for retouch in retouches), *work.refused])
    alpha = None if photo.alpha is None else resize_photo(photo.alpha, size)
    metadata = photo.metadata
    if options.tag and (patches or is_coloured):
        metadata = tag_as_restored(metadata, models.face_model, __version__)
    return replace(photo, pixels=canvas, alpha=alpha, is_gray=photo.is_gray and not is_coloured, metadata=metadata)
