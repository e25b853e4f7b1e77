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
from dataclasses import replace
from functools import partial
from itertools import takewhile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gfprestore import __version__
from gfprestore.atomic import TargetExistsError
from gfprestore.background import ResizeUpscaler
from gfprestore.colorize import colorize_photo
from gfprestore.colour import to_8_bits, to_srgb
from gfprestore.colouring import coloured_faces, has_to_be_coloured
from gfprestore.descratch import fill_scratches, find_scratches
from gfprestore.engine import out_of_memory
from gfprestore.errors import PhotoError, printable
from gfprestore.extras import copy_times, draw_boxes, save_faces
from gfprestore.finding import find_faces
from gfprestore.folders import Job
from gfprestore.inwork import DroppedError, OpenPhoto, Wanted, in_hand, stamp_of
from gfprestore.masks import Labels
from gfprestore.metadata import tag_as_restored
from gfprestore.models import Models
from gfprestore.options import RestoreOptions
from gfprestore.paste import paste_faces
from gfprestore.photo import Photo
from gfprestore.photofile import read_photo
from gfprestore.photowrite import holds_pages, write_photo
from gfprestore.report import FaceRecord, Failed, Outcome, RefusedRecord, Restored, Skipped, on_page
from gfprestore.reportfile import read_faces
from gfprestore.resize import output_size, resize_photo
from gfprestore.retouch import RestoredCrop, Retouch, retouch_faces
from gfprestore.streams import map_ahead, map_batched

logger = logging.getLogger(__name__)

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
    outcomes = map_ahead(restored, finish, workers=workers, ahead=workers)
    yield from (outcome for outcome in outcomes if outcome is not None)


def _open(job: Job, options: RestoreOptions, should_stop: Callable[[], bool]) -> Stage:
    if should_stop():
        return None
    if not options.overwrite and os.path.lexists(job.target):
        return Skipped(job, "the result exists already (--overwrite writes it anew)")
    start = time.perf_counter()
    stamp = stamp_of(job.source)
    try:
        with in_hand(job):
            photo = _read(job, options)
    except PhotoError as error:
        return Failed(job, str(error))
    return OpenPhoto(job, photo, stamp, seconds={"read": time.perf_counter() - start})


def _read(job: Job, options: RestoreOptions, page: int = 0) -> Photo:
    photo = read_photo(job.source, page)
    if options.descratch:
        photo = replace(photo, pixels=fill_scratches(photo.pixels, find_scratches(photo.pixels)))
    return photo


def _find_faces(
    work: Stage,
    models: Models,
    options: RestoreOptions,
    wanted: Mapping[Path, Wanted] | None,
    should_stop: Callable[[], bool],
) -> tuple[Stage, Sequence[NDArray[np.uint8]]]:
    """Returns the photo with its faces, and what the networks see of them: crops in 8-bit sRGB."""
    if not isinstance(work, OpenPhoto):
        return work, []
    if should_stop():
        return None, []
    start = time.perf_counter()
    try:
        with in_hand(work.job):
            chosen = None if wanted is None else wanted.get(work.job.source, {})
            found, crops = _with_faces(replace(work, wanted=chosen), models, options)
    except PhotoError as error:
        return Failed(work.job, str(error)), []
    logger.debug("%s: %d face%s", work.job.source, len(crops), "" if len(crops) == 1 else "s")
    return replace(found, seconds={**work.seconds, "detect": time.perf_counter() - start}), crops


def _with_faces(
    work: OpenPhoto, models: Models, options: RestoreOptions
) -> tuple[OpenPhoto, Sequence[NDArray[np.uint8]]]:
    wanted = None if work.wanted is None else work.wanted.get(work.page, ())
    faces, refused = find_faces(work.photo, models.detector, models.restorer.size, options, wanted)
    crops = [to_8_bits(to_srgb(face.crop, work.photo.metadata.icc_profile)) for face in faces]
    return replace(work, faces=faces, refused=refused), crops


def _restore_batch(
    models: Models, crops: list[NDArray[np.uint8]], should_stop: Callable[[], bool]
) -> Sequence[RestoredCrop | None]:
    return [None] * len(crops) if should_stop() else _restored(models, crops)


def _restored(models: Models, crops: list[NDArray[np.uint8]]) -> list[RestoredCrop]:
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
        with in_hand(work.job):
            return _write(work, crops, models, options, should_stop)
    except DroppedError:
        return None
    except TargetExistsError:
        return Skipped(work.job, "the result appeared while the photo was restored (--overwrite writes it anew)")
    except PhotoError as error:
        return Failed(work.job, str(error))


def _write(
    work: OpenPhoto,
    crops: Sequence[RestoredCrop],
    models: Models,
    options: RestoreOptions,
    should_stop: Callable[[], bool],
) -> Restored:
    start = time.perf_counter()
    retouches = retouch_faces(work.photo, work.faces, crops, options, models.recogniser)
    retouched = time.perf_counter()
    result = _assemble(work, crops, retouches, models, options)
    pasted = time.perf_counter()
    if options.save_faces is not None:
        # First, since a photo whose result is there counts as done.
        save_faces(options.save_faces, work.job.relative, work.faces, retouches)
    records, refused, notes = [retouch.record for retouch in retouches], [*work.refused], [*work.photo.warnings]
    pages: Iterable[Photo] = ()
    if holds_pages(work.job.target):
        pages = _further_pages(work, models, options, should_stop, records, refused, notes)
    elif work.photo.pages > 1:
        notes.append(f"Only the first of {work.photo.pages} pages was restored; --format tiff restores them all.")
    notes += write_photo(
        work.job.target, result, quality=options.quality, overwrite=options.overwrite, further_pages=pages
    )
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
    size = result.pixels.shape[1], result.pixels.shape[0]
    outcome = Restored(work.job, tuple(records), size, seconds, tuple(notes), tuple(refused))
    for line in outcome.decisions():
        logger.debug("%s: %s", work.job.source, line)
    return outcome


def _further_pages(
    work: OpenPhoto,
    models: Models,
    options: RestoreOptions,
    should_stop: Callable[[], bool],
    records: list[FaceRecord],
    refused: list[RefusedRecord],
    notes: list[str],
) -> Iterator[Photo]:
    """Yields the restored pages after the first, each worked on when it is asked for, and adds to what is told.

    Raises:
        DroppedError: The run stops; there may be hundreds of pages.
        PhotoError: A page cannot be read, or the file is not the one that the first page came from.
    """
    for page in range(1, work.photo.pages):
        if should_stop():
            raise DroppedError
        opened = replace(work, photo=_read(work.job, options, page), page=page)
        if stamp_of(work.job.source) != work.stamp:
            raise PhotoError(f"{printable(work.job.source)} changed while it was read; run again once it is complete.")
        opened, inputs = _with_faces(opened, models, options)
        batches = [inputs[start : start + options.batch_size] for start in range(0, len(inputs), options.batch_size)]
        crops = [crop for batch in batches for crop in _restored(models, list(batch))]
        retouches = retouch_faces(opened.photo, opened.faces, crops, options, models.recogniser)
        if options.save_faces is not None:
            name = work.job.relative.with_name(f"{work.job.relative.name}.page{page + 1}")
            save_faces(options.save_faces, name, opened.faces, retouches)
        records += [on_page(retouch.record, page + 1) for retouch in retouches]
        refused += [replace(item, page=page + 1) for item in opened.refused]
        notes += [f"Page {page + 1}: {note}" for note in opened.photo.warnings]
        yield _assemble(opened, crops, retouches, models, options)


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
