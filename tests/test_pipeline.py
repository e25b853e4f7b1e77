"""The stream of photos: order, batches, bounds, failures as values, exact sizes, nothing lost."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import cv2
import numpy as np
import pytest
from fakes import fake_models
from PIL import Image

from gfprestore import pipeline
from gfprestore.errors import DeviceError, OutputError
from gfprestore.folders import Job, plan_jobs
from gfprestore.options import RestoreOptions
from gfprestore.photo import Photo
from gfprestore.photofile import read_photo
from gfprestore.pipeline import restore_photos, to_8_bit
from gfprestore.report import Failed, Restored, Skipped
from gfprestore.resize import output_size, resize_photo


def photo_pixels(faces: int, height: int = 60, width: int = 90) -> np.ndarray:
    pixels = np.random.default_rng(faces).integers(0, 256, (height, width, 3), dtype=np.uint8)
    pixels[0, 0, 0] = faces
    return pixels


def album(folder: Path, counts: list[int]) -> list[Job]:
    folder.mkdir(exist_ok=True)
    for index, faces in enumerate(counts):
        Image.fromarray(photo_pixels(faces)).save(folder / f"{index:04d}.png")
    return plan_jobs([folder], folder.parent / "restored")


def test_outcomes_come_in_order_and_batches_span_photos(tmp_path: Path) -> None:
    jobs = album(tmp_path / "in", [1, 0, 2, 3, 0, 1, 1])
    models = fake_models()
    outcomes = list(restore_photos(jobs, models, RestoreOptions(batch_size=4)))
    assert [outcome.job for outcome in outcomes] == jobs
    assert [len(outcome.faces) for outcome in outcomes if isinstance(outcome, Restored)] == [1, 0, 2, 3, 0, 1, 1]
    assert models.restorer.batches == [4, 4]
    assert all(job.target.exists() for job in jobs)


@pytest.mark.parametrize("scale", [0.37, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("faces", [0, 2])
def test_an_identity_restorer_gives_the_plain_photo_of_exact_size(tmp_path: Path, scale: float, faces: int) -> None:
    jobs = album(tmp_path / "in", [faces])
    (outcome,) = restore_photos(jobs, fake_models(), RestoreOptions(upscale=scale))
    assert isinstance(outcome, Restored)
    size = output_size(90, 60, scale)
    assert outcome.size == size
    written = read_photo(jobs[0].target).pixels
    np.testing.assert_array_equal(written, resize_photo(photo_pixels(faces), size))


def test_the_restoration_reaches_the_photo(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    smooth = cv2.GaussianBlur(photo_pixels(1), (0, 0), 3)
    smooth[0, 0, 0] = 1
    Image.fromarray(smooth).save(folder / "a.png")
    jobs = plan_jobs([folder], tmp_path / "restored")
    list(restore_photos(jobs, fake_models(lambda crop: np.full_like(crop, 200)), RestoreOptions(upscale=2)))
    written = read_photo(jobs[0].target).pixels.astype(int)
    np.testing.assert_allclose(written[50:70, 80:100], 200, atol=2)


def test_a_broken_photo_is_a_value_and_the_run_goes_on(tmp_path: Path) -> None:
    jobs = album(tmp_path / "in", [1, 1, 1])
    jobs[1].source.write_bytes(b"not a photo")
    outcomes = list(restore_photos(jobs, fake_models(), RestoreOptions()))
    assert [type(outcome) for outcome in outcomes] == [Restored, Failed, Restored]
    assert not jobs[1].target.exists()
    assert "\n" not in outcomes[1].error


def test_a_source_that_vanished_is_a_value(tmp_path: Path) -> None:
    jobs = album(tmp_path / "in", [1, 1])
    jobs[0].source.unlink()
    outcomes = list(restore_photos(jobs, fake_models(), RestoreOptions()))
    assert [type(outcome) for outcome in outcomes] == [Failed, Restored]


def test_existing_results_are_skipped_unless_overwritten(tmp_path: Path) -> None:
    jobs = album(tmp_path / "in", [1, 1])
    jobs[0].target.parent.mkdir()
    jobs[0].target.write_bytes(b"mine")
    outcomes = list(restore_photos(jobs, fake_models(), RestoreOptions()))
    assert [type(outcome) for outcome in outcomes] == [Skipped, Restored]
    assert jobs[0].target.read_bytes() == b"mine"
    again = list(restore_photos(jobs, fake_models(), RestoreOptions(overwrite=True)))
    assert [type(outcome) for outcome in again] == [Restored, Restored]
    assert read_photo(jobs[0].target).pixels.shape == (120, 180, 3)


def test_aligned_photos_are_restored_whole(tmp_path: Path) -> None:
    jobs = album(tmp_path / "in", [0])
    models = fake_models(lambda crop: np.full_like(crop, 77))
    list(restore_photos(jobs, models, RestoreOptions(aligned=True, upscale=1)))
    written = read_photo(jobs[0].target).pixels.astype(float)
    assert abs(written.mean() - 77) < 8


def test_sixteen_bits_stay_sixteen_bits(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    ramp = np.linspace(0, 65535, 90 * 60).reshape(60, 90).astype(np.uint16)
    pixels = np.repeat(ramp[..., None], 3, axis=2)
    pixels[0, 0] = 1
    cv2.imwrite(str(folder / "deep.png"), pixels)
    jobs = plan_jobs([folder], tmp_path / "restored")
    (outcome,) = restore_photos(jobs, fake_models(), RestoreOptions(upscale=1))
    assert isinstance(outcome, Restored)
    np.testing.assert_array_equal(read_photo(jobs[0].target).pixels, pixels)


def test_alpha_and_gray_come_back(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    rgba = np.dstack([photo_pixels(1), np.tile(np.arange(90, dtype=np.uint8), (60, 1))])
    Image.fromarray(rgba).save(folder / "alpha.png")
    Image.fromarray(np.ascontiguousarray(photo_pixels(1)[..., 0])).save(folder / "gray.png")
    jobs = plan_jobs([folder], tmp_path / "restored")
    list(restore_photos(jobs, fake_models(), RestoreOptions(upscale=2)))
    alpha, gray = (Image.open(job.target) for job in jobs)
    with alpha, gray:
        assert (alpha.mode, alpha.size) == ("RGBA", (180, 120))
        assert (gray.mode, gray.size) == ("L", (180, 120))


def test_the_number_of_photos_held_does_not_grow_with_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: weakref.WeakSet[Photo] = weakref.WeakSet()
    most = 0

    def counting_read(path: Path) -> Photo:
        nonlocal most
        photo = read_photo(path)
        alive.add(photo)
        most = max(most, len(alive))
        return photo

    monkeypatch.setattr(pipeline, "read_photo", counting_read)
    peaks = []
    for count in (30, 120):
        most = 0
        jobs = album(tmp_path / f"in{count}", [1] + [0] * (count - 1))
        for _ in restore_photos(jobs, fake_models(), RestoreOptions(overwrite=True, batch_size=4)):
            gc.collect()
        peaks.append(most)
    assert peaks[1] <= 4 + 3 + 2 * 4 + 2
    assert peaks[1] <= peaks[0] + 2


def test_a_full_disk_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = album(tmp_path / "in", [0, 0, 0])

    def full(*_: object, **__: object) -> None:
        raise OutputError("the disk is full")

    monkeypatch.setattr(pipeline, "write_photo", full)
    with pytest.raises(OutputError):
        list(restore_photos(jobs, fake_models(), RestoreOptions()))


def test_a_device_without_memory_ends_the_run(tmp_path: Path) -> None:
    jobs = album(tmp_path / "in", [1])

    def fail(crop: np.ndarray) -> np.ndarray:
        raise DeviceError("no memory")

    with pytest.raises(DeviceError):
        list(restore_photos(jobs, fake_models(fail), RestoreOptions()))


def test_closing_early_leaves_whole_results_only(tmp_path: Path) -> None:
    jobs = album(tmp_path / "in", [1] * 8)
    stream = restore_photos(jobs, fake_models(), RestoreOptions(batch_size=1))
    next(stream)
    stream.close()
    written = list((tmp_path / "restored").rglob("*"))
    assert {path.name for path in written} <= {job.target.name for job in jobs}
    for path in written:
        assert read_photo(path).pixels.shape == (120, 180, 3)


def test_to_8_bit_is_the_nearest_level() -> None:
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    pixels = np.repeat(levels[..., None], 3, axis=2)
    expected = np.rint(levels.astype(np.float64) / 257)
    np.testing.assert_array_equal(to_8_bit(pixels)[..., 1], expected)
