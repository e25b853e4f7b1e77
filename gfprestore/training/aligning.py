"""Makes training faces out of photos: finds them, cuts them out in the generator's frame, keeps their landmarks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from gfprestore.align import (
    TEMPLATE_SIZE,
    align_face,
    alignment_residual,
    face_template,
    similarity_transform,
    whole_photo_face,
)
from gfprestore.atomic import atomic_file
from gfprestore.detect import FaceDetector
from gfprestore.errors import PhotoError
from gfprestore.geometry import magnification, map_points, scaling
from gfprestore.job import Job
from gfprestore.photo import DetectedFace, Photo, Pixels
from gfprestore.photofile import read_photo
from gfprestore.training.facenames import FaceNames
from gfprestore.training.regions import (
    COMPONENTS_FILE,
    Components,
    components_from_landmarks,
    read_components,
    write_components,
)

LARGEST_RESIDUAL = 0.25
"""Alignment residual over which five points are no face that a generator could learn from: a profile, or nonsense."""

_WRITE_EVERY = 500
"""Photos after which the landmarks found so far are written: an interrupted run keeps them."""


@dataclass
class AlignReport:
    """What became of the photos."""

    faces: int = 0
    """Faces that were written, or whose landmarks were found."""

    small: int = 0
    """Faces left out since they would have been enlarged."""

    turned: int = 0
    """Faces left out since they are profiles, or no faces."""

    empty: int = 0
    """Photos without a face."""

    known: int = 0
    """Photos passed over since their faces are there, of an earlier run."""

    failed: int = 0
    """Photos that could not be read, or whose faces could not be written."""


def align_photos(
    jobs: Iterable[Job],
    output: Path,
    detector: FaceDetector,
    *,
    size: int,
    enlarge: float,
    notify: Callable[[str], None],
) -> AlignReport:
    """Cuts the faces of photos out, one PNG each, and writes their components.

    A photo whose faces are there already is passed over, so that a run can be taken up again. Photos that are called
    alike, of several albums, have faces of different names.

    Args:
        jobs: Photos with targets below the output folder.
        output: That folder.
        detector: Finds the faces.
        size: Side of the faces in pixels.
        enlarge: Greatest factor by which a face may be enlarged; a blurred truth teaches blur.
        notify: Told of photos that could not be read, or whose faces could not be written.

    Raises:
        OutputError: The folder cannot be written.
    """
    report, components, names = AlignReport(), _known_components(output), FaceNames(output)
    taken = {name.rpartition("_")[0] for name in components}
    try:
        for number, job in enumerate(jobs, start=1):
            stem = names.choose(job, taken)
            if stem in taken:
                report.known += 1
                continue
            photo = _read(job, report, notify)
            if photo is None:
                continue
            faces = detector.detect([photo.pixels])[0]
            report.empty += not faces
            fit = [face for face in faces if _is_fit(face, size, enlarge, report)]
            cut = _cut_faces(photo, stem, fit, output, size, report, notify)
            components |= cut
            if cut:
                taken.add(stem)
                names.keep(stem, job)
            if number % _WRITE_EVERY == 0:
                _write_both(output, names, components)
    finally:
        _write_both(output, names, components)
    return report


def _cut_faces(
    photo: Photo,
    stem: str,
    faces: Sequence[DetectedFace],
    output: Path,
    size: int,
    report: AlignReport,
    notify: Callable[[str], None],
) -> dict[str, Components]:
    """Writes the faces of a photo; gives the components of all by name, or of none where one cannot be written."""
    cut = {}
    try:
        for index, face in enumerate(faces):
            name = f"{stem}_{index}"
            cut[name] = _cut_face(photo, face, output / f"{name}.png", size)
    except PhotoError as error:
        report.failed += 1
        notify(str(error))
        return {}
    report.faces += len(cut)
    return cut


def _write_both(output: Path, names: FaceNames, components: Mapping[str, Components]) -> None:
    # In this order: a face whose photo is not known is taken to be that of whoever asks.
    names.write()
    write_components(output / COMPONENTS_FILE, components)


def find_landmarks(
    jobs: Iterable[Job], output: Path, detector: FaceDetector, *, notify: Callable[[str], None]
) -> AlignReport:
    """Finds the landmarks of faces that are aligned already and writes their components alone.

    Args:
        jobs: Aligned faces.
        output: Folder for the file of components.
        detector: Finds the face nearest to the frame's own; a crop without one is left to the mean face.
        notify: Told of photos that could not be read.

    Raises:
        OutputError: The folder cannot be written.
    """
    report, components = AlignReport(), _known_components(output)
    for number, job in enumerate(jobs, start=1):
        name = job.relative.with_suffix("").as_posix()
        if name in components:
            report.known += 1
            continue
        photo = _read(job, report, notify)
        if photo is None:
            continue
        crop = whole_photo_face(photo, TEMPLATE_SIZE)
        faces = detector.detect([_as_bytes(crop.crop)])[0]
        if not faces:
            report.empty += 1
            continue
        centre = np.full(2, (TEMPLATE_SIZE - 1) / 2)
        nearest = min(faces, key=lambda face: float(np.linalg.norm(face.landmarks.mean(axis=0) - centre)))
        components[name] = components_from_landmarks(nearest.landmarks)
        report.faces += 1
        if number % _WRITE_EVERY == 0:
            write_components(output / COMPONENTS_FILE, components)
    write_components(output / COMPONENTS_FILE, components)
    return report


def _known_components(output: Path) -> dict[str, Components]:
    path = output / COMPONENTS_FILE
    return read_components(path) if path.is_file() else {}


def _read(job: Job, report: AlignReport, notify: Callable[[str], None]) -> Photo | None:
    try:
        return read_photo(job.source)
    except PhotoError as error:
        report.failed += 1
        notify(str(error))
        return None


def _is_fit(face: DetectedFace, size: int, enlarge: float, report: AlignReport) -> bool:
    """Whether a face is one to learn from; counts those that are not."""
    if alignment_residual(face.landmarks) > LARGEST_RESIDUAL:
        report.turned += 1
        return False
    if magnification(similarity_transform(face.landmarks, face_template(size))) > enlarge:
        report.small += 1
        return False
    return True


def _cut_face(photo: Photo, face: DetectedFace, target: Path, size: int) -> Components:
    """Writes one face; returns its components in crops of 512 pixels, which their file is for, whatever `size` is."""
    aligned = align_face(photo, face, size)
    _, encoded = cv2.imencode(".png", cv2.cvtColor(_as_bytes(aligned.crop), cv2.COLOR_RGB2BGR))
    with atomic_file(target, overwrite=True) as stream:
        stream.write(encoded.tobytes())
    to_template = scaling((size, size), (TEMPLATE_SIZE, TEMPLATE_SIZE))
    landmarks = map_points(aligned.to_crop, face.landmarks)
    return components_from_landmarks(map_points(to_template, landmarks))


def _as_bytes(pixels: Pixels) -> NDArray[np.uint8]:
    """RGB of 8 or 16 bits -> 8 bits, rounded."""
    if pixels.dtype == np.uint8:
        return np.asarray(pixels, dtype=np.uint8)
    return np.asarray((pixels.astype(np.uint32) + 128) // 257, dtype=np.uint8)
