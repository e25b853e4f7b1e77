"""What is done to one photo: read, search, restore its faces, and make the whole photo anew."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gfprestore import __version__
from gfprestore.background import ResizeUpscaler
from gfprestore.blending.masks import Labels
from gfprestore.colorize import colorize_photo
from gfprestore.colour import to_8_bits, to_srgb, two_way_profile
from gfprestore.colouring import coloured_faces, decide_colouring
from gfprestore.descratch import fill_scratches, find_scratches
from gfprestore.dropping import drop_if
from gfprestore.errors import PageError, PhotoError, printable
from gfprestore.extras import copy_times, draw_boxes, save_faces
from gfprestore.finding import find_faces
from gfprestore.formats.metadata import tag_as_restored
from gfprestore.inwork import OpenPhoto, stamp_of
from gfprestore.job import Job
from gfprestore.models import Models
from gfprestore.options import RestoreOptions
from gfprestore.outofmemory import out_of_memory
from gfprestore.paste import paste_faces
from gfprestore.photo import Photo
from gfprestore.photofile import read_photo
from gfprestore.photowrite import holds_pages, write_photo
from gfprestore.report import FaceRecord, RefusedRecord, Restored, on_page
from gfprestore.reporting.chosenfaces import not_found
from gfprestore.resize import output_size, resize_photo
from gfprestore.retouch import RestoredCrop, Retouch, retouch_faces
from gfprestore.stagetimes import Stopwatch
from gfprestore.transparency import fill_hidden

logger = logging.getLogger(__name__)

_NOTED_SHARE = 0.01
_FILLED = "{:.1f} % of the photo was filled as scratches; look whether lettering or folds went with them."
"""From that share of the photo on this is told, and what."""

Crops = Sequence[NDArray[np.uint8]]
"""What the networks see of faces: 8-bit sRGB, each (S, S, 3)."""


def open_page(job: Job, options: RestoreOptions, page: int = 0) -> Photo:
    """Reads one page of a photo, without its scratches where that was asked for.

    Raises:
        PhotoError: It cannot be read.
    """
    photo = read_photo(job.source, page)
    if options.descratch:
        scratches = find_scratches(photo.pixels)
        share = float(scratches.mean())
        notes = (_FILLED.format(100 * share),) if share >= _NOTED_SHARE else ()
        pixels = fill_scratches(photo.pixels, scratches)
        photo = replace(photo, pixels=pixels, is_filled=share > 0, warnings=(*photo.warnings, *notes))
    return photo


def with_faces(work: OpenPhoto, models: Models, options: RestoreOptions) -> tuple[OpenPhoto, Crops]:
    """Returns the photo with its faces, and their crops."""
    wanted = None if work.wanted is None else work.wanted.get(work.page, ())
    faces = find_faces(work.photo, models.detector, models.restorer.size, options, wanted)
    photo = _with_note_of_missed(work, faces.missed)
    profile = two_way_profile(work.photo.metadata.icc_profile)  # What the networks draw has to go into the photo.
    crops = [to_8_bits(to_srgb(face.crop, profile)) for face in faces.chosen]
    return replace(work, photo=photo, faces=faces.chosen, refused=faces.refused), crops


def _with_note_of_missed(work: OpenPhoto, missed: int) -> Photo:
    """Returns the photo with a warning where faces that were chosen by hand are not found on its page, or no page."""
    if work.page == 0 and work.wanted is not None:
        missed += sum(len(boxes) for page, boxes in work.wanted.items() if page >= work.photo.pages)
    return replace(work.photo, warnings=(*work.photo.warnings, not_found(missed))) if missed else work.photo


def restore_crops(models: Models, crops: Crops) -> list[RestoredCrop]:
    """Restores one batch of crops and labels their pixels.

    Raises:
        OutOfMemoryError: The device's memory does not hold even one.
    """
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


def finish_photo(
    work: OpenPhoto,
    crops: Sequence[RestoredCrop],
    models: Models,
    options: RestoreOptions,
    should_stop: Callable[[], bool],
) -> Restored:
    """Puts the restored faces into the enlarged photo and writes it.

    Raises:
        DroppedError: The run stops before the photo is whole.
        PhotoError: A further page cannot be read, or the result cannot be made.
        TargetExistsError: The result appeared in the meantime.
        OutputError: The output folder cannot be written.
    """
    watch = Stopwatch({**work.seconds, "restore": sum(crop.seconds for crop in crops)})
    retouches = retouch_faces(work.photo, work.faces, crops, options, models.recogniser)
    watch.lap("retouch")
    is_coloured, doubts = _decide_colouring(work, models, options)
    result = _assemble(work, crops, retouches, models, options, watch, should_stop, is_coloured=is_coloured)
    if options.save_faces is not None:
        # First, since a photo whose result is there counts as done.
        profile = work.photo.metadata.icc_profile
        save_faces(options.save_faces, work.job.relative, work.faces, retouches, profile)
    records, refused = [retouch.record for retouch in retouches], [*work.refused]
    notes, coloured = [*work.photo.warnings, *doubts], [is_coloured]
    pages: Iterable[Photo] = ()
    if holds_pages(work.job.target):
        told = _Told(records, refused, notes, coloured)
        pages = _further_pages(work, models, options, should_stop, told, watch)
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
    watch.lap("write")
    size = result.pixels.shape[1], result.pixels.shape[0]
    outcome = Restored(work.job, tuple(records), size, watch.seconds, tuple(notes), tuple(refused), any(coloured))
    for line in outcome.decisions():
        logger.debug("%s: %s", printable(work.job.source), line)
    return outcome


@dataclass(frozen=True)
class _Told:
    """What the outcome will tell; further pages add to it."""

    records: list[FaceRecord]
    refused: list[RefusedRecord]
    notes: list[str]
    coloured: list[bool]


def _further_pages(
    work: OpenPhoto,
    models: Models,
    options: RestoreOptions,
    should_stop: Callable[[], bool],
    told: _Told,
    watch: Stopwatch,
) -> Iterator[Photo]:
    """Yields the restored pages after the first, each worked on when it is asked for, and adds to what is told.

    A page that is damaged by itself is left out, with a note.

    Raises:
        DroppedError: The run stops; there may be hundreds of pages.
        PhotoError: A page cannot be read, or the file is not the one that the first page came from.
    """
    for page in range(1, work.photo.pages):
        watch.lap("write")
        drop_if(should_stop)
        opened = None
        try:
            opened = replace(work, photo=open_page(work.job, options, page), page=page)
        except PageError as error:
            told.notes.append(str(error))
        if stamp_of(work.job.source) != work.stamp:
            raise PhotoError(f"{printable(work.job.source)} changed while it was read; run again once it is complete.")
        if opened is None:
            watch.lap("pages")
            continue
        opened, inputs = with_faces(opened, models, options)
        batches = [inputs[start : start + options.batch_size] for start in range(0, len(inputs), options.batch_size)]
        crops = [crop for batch in batches for crop in restore_crops(models, list(batch))]
        watch.lap("pages")
        retouches = retouch_faces(opened.photo, opened.faces, crops, options, models.recogniser)
        watch.lap("retouch")
        if options.save_faces is not None:
            name = work.job.relative.with_name(f"{work.job.relative.name}.page{page + 1}")
            save_faces(options.save_faces, name, opened.faces, retouches, opened.photo.metadata.icc_profile)
        told.records.extend(on_page(retouch.record, page + 1) for retouch in retouches)
        told.refused.extend(replace(item, page=page + 1) for item in opened.refused)
        is_coloured, doubts = _decide_colouring(opened, models, options)
        told.coloured.append(is_coloured)
        told.notes.extend(f"Page {page + 1}: {note}" for note in [*opened.photo.warnings, *doubts])
        yield _assemble(opened, crops, retouches, models, options, watch, should_stop, is_coloured=is_coloured)


def _decide_colouring(work: OpenPhoto, models: Models, options: RestoreOptions) -> tuple[bool, list[str]]:
    """Whether a photo or page will get colours, and what to tell of one that is left as it is."""
    wants, doubts = decide_colouring(work.photo.pixels, options)
    has_any = models.chroma is not None and options.color_strength > 0
    return wants and has_any and (options.colorize != "faces" or bool(work.faces)), doubts


def _assemble(
    work: OpenPhoto,
    crops: Sequence[RestoredCrop],
    retouches: Sequence[Retouch],
    models: Models,
    options: RestoreOptions,
    watch: Stopwatch,
    should_stop: Callable[[], bool],
    *,
    is_coloured: bool,
) -> Photo:
    """Returns the whole photo, upscaled, with its restored faces, and coloured if it is to be.

    Raises:
        DroppedError: The run stops; a network takes minutes for a large background.
    """
    photo = work.photo
    height, width = photo.pixels.shape[:2]
    size = output_size(width, height, options.upscale)
    pixels, alpha = photo.pixels, None
    if photo.alpha is not None:
        alpha = resize_photo(photo.alpha, size)
        pixels = pixels if size == (width, height) else fill_hidden(pixels, photo.alpha, options.upscale)
    canvas = models.upscaler.upscale(pixels, size, should_stop)
    watch.lap("background")
    metadata = photo.metadata
    patches = [retouch.patch for retouch in retouches if retouch.patch is not None]
    paste_faces(canvas, pixels, patches, canvas_is_resized_photo=isinstance(models.upscaler, ResizeUpscaler))
    watch.lap("paste")
    if is_coloured and models.chroma is not None:
        drop_if(should_stop)
        faces = coloured_faces(
            work.faces,
            crops,
            models.colourist,
            region=models.chroma.face_region,
            batch_size=options.batch_size,
            photo_size=(width, height),
            canvas_size=size,
        )
        # Colours are estimated as sRGB, and the profile of a gray scan may know none.
        canvas, metadata = to_srgb(canvas, metadata.icc_profile), replace(metadata, icc_profile=None)
        canvas = colorize_photo(canvas, models.chroma, faces, options.color_strength)
        watch.lap("colour")
    boxes: list[FaceRecord | RefusedRecord] = []
    if options.draw_boxes:
        boxes += [*(retouch.record for retouch in retouches), *work.refused]
        draw_boxes(canvas, (width, height), boxes)
    used = _used(models, options, has_faces=bool(patches), is_coloured=is_coloured, is_filled=photo.is_filled)
    if options.tag and used:
        metadata = tag_as_restored(metadata, ", ".join(used), __version__)
    is_gray = photo.is_gray and not is_coloured and not boxes
    return replace(photo, pixels=canvas, alpha=alpha, is_gray=is_gray, metadata=metadata)


def _used(models: Models, options: RestoreOptions, *, has_faces: bool, is_coloured: bool, is_filled: bool) -> list[str]:
    """What has changed a photo's pixels, beyond making them more or fewer: by name, for its metadata."""
    used = [models.face_model] if has_faces else []
    if not isinstance(models.upscaler, ResizeUpscaler) and options.background_strength > 0:
        used.append(models.upscaler.description)
    if is_coloured and models.chroma is not None:
        used.append(f"colour by {models.chroma.description}")
    if is_filled:
        used.append("scratches filled")
    return used
