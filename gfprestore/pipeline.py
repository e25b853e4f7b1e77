"""The main job as a stream: photos in, outcomes out.

    plan -> open -> find faces -> restore in batches across photos -> paste and write -> outcome
            threads  one thread    the caller's thread               threads

Every stage is bounded, so memory follows the number of photos in work and never the size of the folder. What happens to
one photo is a value: a stage that meets an outcome instead of work hands it on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

from gfprestore.atomic import TargetExistsError
from gfprestore.dropping import DroppedError
from gfprestore.errors import PhotoError, printable
from gfprestore.inwork import OpenPhoto, in_hand, stamp_of
from gfprestore.job import Job
from gfprestore.models import Models
from gfprestore.options import RestoreOptions
from gfprestore.photosteps import Crops, finish_photo, open_page, restore_crops, with_faces
from gfprestore.report import Failed, Outcome, Restored, Skipped
from gfprestore.reporting.chosenfaces import NOT_LISTED, ChosenFaces, read_faces
from gfprestore.retouch import RestoredCrop
from gfprestore.settled import settle
from gfprestore.stagetimes import Stopwatch
from gfprestore.streams import map_ahead, map_batched
from gfprestore.workplan import plan_work

logger = logging.getLogger(__name__)

Stage = OpenPhoto | Outcome | None
"""What a stage hands on: a photo in work, an outcome, or None for a photo dropped since the run is stopping."""


def restore_photos(
    jobs: Iterable[Job],
    models: Models,
    options: RestoreOptions,
    *,
    chosen: ChosenFaces | None = None,
    should_stop: Callable[[], bool] = bool,
    note_written: Callable[[Restored], None] = lambda _: None,
) -> Generator[Outcome]:
    """Restores photos one after another and yields what became of each, in order.

    At most `plan_work(batch_size).most_photos` are held at once, fewer where they are large. Closing the generator
    stops the work; photos that were being written are finished first. When an error ends the run, the photos in work
    behind it are finished and yielded before it is raised, so that every photo that is written has its outcome.

    Args:
        jobs: Sources and targets, from `plan_jobs`.
        models: The loaded networks, from `load_models`.
        options: What to do.
        chosen: Boxes of the faces to restore; None reads the file of `options.faces_from`, if there is one.
        should_stop: Asked between the steps, in any thread; once it says yes it must go on to. Photos that are being
            written then are finished and yielded, the others dropped, and the generator ends.
        note_written: Told of every result as soon as it is written, in any thread: whoever leaves the generator early
            learns so of those that it did not come to yield.

    Raises:
        UsageError: The file of `faces_from` cannot be read.
        DeviceError: The device's memory does not hold even one face.
        OutputError: The output folder cannot be written, for instance because the disk is full.
    """
    plan = plan_work(options.batch_size)
    if chosen is None and options.faces_from is not None:
        chosen = read_faces(options.faces_from)
    begun = takewhile(lambda _: not should_stop(), jobs)
    read = partial(_open, options=options, should_stop=should_stop)
    opened = map_ahead(begun, read, workers=plan.readers, ahead=plan.read_ahead)
    find = partial(_find_faces, models=models, options=options, wanted=chosen, should_stop=should_stop)
    found = map_ahead(opened, find, workers=1, ahead=plan.found_ahead, weigh=_pixel_bytes, limit=plan.queue_bytes)
    restored = map_batched(
        found,
        partial(_restore_batch, models, should_stop=should_stop),
        batch_size=options.batch_size,
        max_open=plan.most_open,
        first=1,
        weigh=_pixel_bytes,
        limit=plan.queue_bytes,
    )
    finish = partial(_finish, models=models, options=options, should_stop=should_stop, note_written=note_written)
    outcomes = map_ahead(
        restored,
        finish,
        workers=plan.finishers,
        ahead=plan.finish_ahead,
        # The photo and its result, which at --upscale 4 is sixteen times as large.
        weigh=lambda batched: _pixel_bytes(batched[0]) * (1 + options.upscale**2),
        limit=plan.queue_bytes,
    )
    yield from (outcome for outcome in outcomes if outcome is not None)


def _pixel_bytes(work: Stage) -> float:
    return float(work.photo.pixels.nbytes) if isinstance(work, OpenPhoto) else 0.0


def _open(job: Job, options: RestoreOptions, should_stop: Callable[[], bool]) -> Stage:
    if should_stop():
        return None
    settled = settle(job, options)
    if settled is not None:
        return settled
    watch = Stopwatch()
    stamp = stamp_of(job.source)
    try:
        with in_hand(job):
            photo = open_page(job, options)
    except PhotoError as error:
        return Failed(job, str(error))
    watch.lap("read")
    return OpenPhoto(job, photo, stamp, seconds=watch.seconds)


def _find_faces(
    work: Stage,
    models: Models,
    options: RestoreOptions,
    wanted: ChosenFaces | None,
    should_stop: Callable[[], bool],
) -> tuple[Stage, Crops]:
    """Returns the photo with its faces, and what the networks see of them: crops in 8-bit sRGB."""
    if not isinstance(work, OpenPhoto):
        return work, []
    if should_stop():
        return None, []
    watch = Stopwatch(work.seconds)
    try:
        with in_hand(work.job):
            found, crops = with_faces(_with_choice(work, wanted), models, options)
    except PhotoError as error:
        return Failed(work.job, str(error)), []
    logger.debug("%s: %d face%s", printable(work.job.source), len(crops), "" if len(crops) == 1 else "s")
    watch.lap("detect")
    return replace(found, seconds=watch.seconds), crops


def _with_choice(work: OpenPhoto, wanted: ChosenFaces | None) -> OpenPhoto:
    if wanted is None:
        return work
    chosen = wanted.of(work.job.source)
    if chosen is not None:
        return replace(work, wanted=chosen)
    photo = replace(work.photo, warnings=(*work.photo.warnings, NOT_LISTED))
    return replace(work, photo=photo, wanted={})


def _restore_batch(
    models: Models, crops: list[NDArray[np.uint8]], should_stop: Callable[[], bool]
) -> Sequence[RestoredCrop | None]:
    return [None] * len(crops) if should_stop() else restore_crops(models, crops)


def _finish(
    batched: tuple[Stage, list[RestoredCrop | None]],
    models: Models,
    options: RestoreOptions,
    should_stop: Callable[[], bool],
    note_written: Callable[[Restored], None],
) -> Outcome | None:
    work, restored = batched
    if not isinstance(work, OpenPhoto):
        return work
    crops = [crop for crop in restored if crop is not None]
    if should_stop() or len(crops) < len(restored):
        return None
    try:
        with in_hand(work.job):
            outcome = finish_photo(work, crops, models, options, should_stop)
        note_written(outcome)
        return outcome
    except DroppedError:
        return None
    except TargetExistsError:
        return Skipped(work.job, "the result appeared while the photo was restored (--overwrite writes it anew)")
    except PhotoError as error:
        return Failed(work.job, str(error))
