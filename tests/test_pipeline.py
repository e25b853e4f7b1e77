"""The stream of photos: order, batches, bounds, failures as values, exact sizes, nothing lost."""

from __future__ import annotations

import errno
import gc
import os
import threading
import time
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click
import cv2
import numpy as np
import pytest
from fakes import FakeDetector, fake_models
from PIL import Image
from sample_photos import gray_profile, profile, scanner_profile, shown

from gfprestore import __version__, photosteps, pipeline
from gfprestore.cli import main
from gfprestore.colorize import SoftTint
from gfprestore.colorizing.lab import rgb_to_lab
from gfprestore.colour import from_srgb
from gfprestore.errors import DeviceError, OutputError
from gfprestore.extras import BOX_COLOURS
from gfprestore.folders import plan_jobs
from gfprestore.formats.gamma import gamma_profile
from gfprestore.job import Job
from gfprestore.options import RestoreOptions
from gfprestore.photo import DetectedFace, FoundFaces, Photo, PhotoMetadata, RefusedFace
from gfprestore.photofile import read_photo, write_photo
from gfprestore.photosteps import finish_photo
from gfprestore.pipeline import restore_photos
from gfprestore.report import Failed, Restored, Skipped
from gfprestore.reporting.reportfile import ReportFile, outcome_line
from gfprestore.resize import output_size, resize_photo
from gfprestore.workplan import plan_work


class Painted:
    """One strong colour everywhere."""

    description, face_region = "paint", "face"

    def estimate(self, lab: np.ndarray) -> np.ndarray:
        return np.broadcast_to(np.array([35, 30], np.float32), (*lab.shape[:2], 2)).copy()


class Redrawn:
    """Stands in for an upscaling network."""

    description = "Redrawer x2"

    def upscale(self, pixels: np.ndarray, size: tuple[int, int], should_stop: object = bool) -> np.ndarray:
        return resize_photo(pixels, size)


class NoFaces(FakeDetector):
    """Finds none, whatever the first pixel says."""

    def faces_of(self, pixels: np.ndarray) -> list[DetectedFace]:
        return []


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
    assert models.restorer.batches == [1, 4, 3]
    assert all(job.target.exists() for job in jobs)


@pytest.mark.parametrize("scale", [0.37, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("faces", [0, 2])
def test_an_identity_restorer_gives_the_plain_photo_of_exact_size(tmp_path: Path, scale: float, faces: int) -> None:
    jobs = album(tmp_path / "in", [faces])
    (outcome,) = restore_photos(jobs, fake_models(), RestoreOptions(upscale=scale, grain=0))
    assert isinstance(outcome, Restored)
    size = output_size(90, 60, scale)
    assert outcome.size == size
    written = read_photo(jobs[0].target).pixels
    np.testing.assert_array_equal(written, resize_photo(photo_pixels(faces), size))


def smooth_album(folder: Path) -> list[Job]:
    folder.mkdir()
    smooth = cv2.GaussianBlur(photo_pixels(1), (0, 0), 3)
    smooth[0, 0, 0] = 1
    Image.fromarray(smooth).save(folder / "a.png")
    return plan_jobs([folder], folder.parent / "restored")


def stripes(crop: np.ndarray) -> np.ndarray:
    """A crop with fine dark lines, which is what a restoration may add: detail."""
    drawn = crop.copy()
    drawn[::12] //= 2
    return drawn


def test_the_restoration_reaches_the_photo_and_follows_strength(tmp_path: Path) -> None:
    jobs = smooth_album(tmp_path / "in")
    plain = resize_photo(read_photo(jobs[0].source).pixels, (720, 480)).astype(int)
    reach = []
    for strength in (0.0, 0.4, 1.0):
        options = RestoreOptions(upscale=8, strength=strength, overwrite=True, grain=0)
        (outcome,) = restore_photos(jobs, fake_models(stripes), options)
        assert isinstance(outcome, Restored)
        assert outcome.faces[0].action == ("kept" if strength == 0 else "restored")
        reach.append(np.abs(read_photo(jobs[0].target).pixels - plain)[200:280, 320:400].mean())
    assert reach[0] == 0
    assert 0 < reach[1] < reach[2]


def test_a_gray_photo_stays_gray_whatever_the_generator_paints(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    gray = np.repeat(cv2.GaussianBlur(photo_pixels(1), (0, 0), 2)[..., :1], 3, axis=2)
    gray[0, 0] = 1
    Image.fromarray(gray).save(folder / "a.png")
    jobs = plan_jobs([folder], tmp_path / "restored")
    models = fake_models(lambda crop: stripes(crop) // np.array([1, 2, 3], np.uint8))
    list(restore_photos(jobs, models, RestoreOptions()))
    written = read_photo(jobs[0].target).pixels
    assert (written == written[..., :1]).all()


def test_gray_photos_are_coloured_and_colour_photos_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    gray = cv2.GaussianBlur(photo_pixels(1), (0, 0), 3)[..., 0]
    Image.fromarray(np.ascontiguousarray(gray)).save(folder / "gray.png")
    coarse = np.random.default_rng(2).integers(30, 220, (6, 8, 3)).astype(np.uint8)
    colour = cv2.resize(coarse, (90, 60), interpolation=cv2.INTER_LINEAR)
    Image.fromarray(colour).save(folder / "red.png")
    jobs = plan_jobs([folder], tmp_path / "restored")
    models = replace(fake_models(), chroma=SoftTint())
    plain = [RestoreOptions(grain=0), RestoreOptions(grain=0, colorize="auto", overwrite=True)]
    before, after = (
        [list(restore_photos(jobs, models, options)) and read_photo(job.target).pixels for job in jobs]
        for options in plain
    )
    assert (before[0] == before[0][..., :1]).all()
    lightness = [rgb_to_lab(pixels[0].astype(np.float32) / 255)[..., 0] for pixels in (before, after)]
    assert not (after[0] == after[0][..., :1]).all()
    np.testing.assert_allclose(*lightness, atol=1.0)
    np.testing.assert_array_equal(before[1], after[1])


def test_the_report_tells_which_photos_were_coloured(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    gray = Image.fromarray(np.tile(np.arange(20, 220, dtype=np.uint8), (60, 1)))
    coarse = np.random.default_rng(2).integers(30, 220, (6, 8, 3)).astype(np.uint8)
    colour = Image.fromarray(cv2.resize(coarse, (90, 60), interpolation=cv2.INTER_LINEAR))
    gray.save(folder / "a.png")
    colour.save(folder / "b.png")
    colour.save(folder / "c.tif", save_all=True, append_images=[gray.convert("RGB")])
    jobs = plan_jobs([folder], tmp_path / "restored")
    painted = replace(fake_models(), chroma=Painted(), detector=NoFaces())  # type: ignore[arg-type]
    for models, chosen, expected in (
        (painted, {"colorize": "auto"}, [True, False, True]),
        (painted, {"colorize": "auto", "color_strength": 0.0}, [False, False, False]),
        (painted, {"colorize": "faces"}, [False, False, False]),  # There is no face.
        (replace(painted, chroma=None), {}, [False, False, False]),
    ):
        options = RestoreOptions(upscale=1, overwrite=True, **chosen)  # type: ignore[arg-type]
        outcomes = list(restore_photos(jobs, models, options))
        assert [outcome_line(outcome)["coloured"] for outcome in outcomes] == expected
        shown = [read_photo(jobs[0].target), read_photo(jobs[1].target), read_photo(jobs[2].target, 1)]
        assert [np.ptp(page.pixels.astype(int), axis=2).max() > 50 for page in shown] == [
            expected[0],
            True,
            expected[2],
        ]


@pytest.mark.parametrize("chosen", [{}, {"largest": 1}, {"only_center": True}])
def test_boxes_are_drawn_as_the_help_says(chosen: dict[str, object], tmp_path: Path) -> None:
    jobs = album(tmp_path / "in", [3])
    options = RestoreOptions(upscale=1, draw_boxes=True, **chosen)  # type: ignore[arg-type]
    list(restore_photos(jobs, fake_models(stripes), options))
    green = (read_photo(jobs[0].target).pixels == BOX_COLOURS["restored"]).all(axis=2)
    assert cv2.connectedComponents(green.astype(np.uint8))[0] - 1 == (1 if chosen else 3)
    (told,) = (
        option.help for option in main.params if isinstance(option, click.Option) and option.name == "draw_boxes"
    )
    assert told is not None
    assert "green around restored faces, orange around those left as they were, red" in told
    assert "--largest and its like leave out get none" in told


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("kind", ["wide", "gray"])
def test_colours_are_the_same_whatever_the_profile_of_the_photo(kind: str, deep: bool, tmp_path: Path) -> None:
    profiled = profile("wide") if kind == "wide" else gray_profile(1.8)
    folder = tmp_path / "in"
    folder.mkdir()
    flat = np.full((60, 90, 3), 160 * 257 if deep else 160, np.uint16 if deep else np.uint8)
    for name, icc_profile in (("plain.png", None), ("profiled.png", profiled)):
        # What looks alike in both.
        pixels = from_srgb(flat, icc_profile)
        write_photo(folder / name, Photo(pixels, PhotoMetadata("PNG", icc_profile=icc_profile), is_gray=True))
    jobs = plan_jobs([folder], tmp_path / "restored")
    models = replace(fake_models(), chroma=Painted(), detector=NoFaces())  # type: ignore[arg-type]
    list(restore_photos(jobs, models, RestoreOptions(upscale=1, colorize="auto")))
    plain, found = (shown(job.target)[20, 20].astype(int) for job in jobs)
    assert np.ptp(plain) > 50
    np.testing.assert_allclose(found, plain, atol=2)
    assert read_photo(jobs[1].target).pixels.dtype == flat.dtype


def test_colouring_keeps_the_brightness_of_a_scanner_profile_without_a_way_back(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    flat = Photo(np.full((60, 90, 3), 100, np.uint8), PhotoMetadata("PNG", icc_profile=scanner_profile(1.0)))
    write_photo(folder / "scan.png", flat)
    jobs = plan_jobs([folder], tmp_path / "restored")
    models = replace(fake_models(), chroma=Painted(), detector=NoFaces())  # type: ignore[arg-type]
    list(restore_photos(jobs, models, RestoreOptions(upscale=1, colorize="auto")))
    before, after = (
        rgb_to_lab(shown(path)[20:21, 20].astype(np.float32) / 255) for path in (jobs[0].source, jobs[0].target)
    )
    assert np.abs(after - before)[:, 1:].min() > 10
    np.testing.assert_allclose(after[:, 0], before[:, 0], atol=1)


@pytest.mark.parametrize("one_way", [False, True])
def test_networks_see_srgb_only_where_what_they_draw_can_go_back(one_way: bool, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    icc_profile = scanner_profile(1.0) if one_way else gamma_profile(1.0, is_gray=False)
    write_photo(folder / "a.png", Photo(photo_pixels(1), PhotoMetadata("PNG", icc_profile=icc_profile)))
    (job,) = plan_jobs([folder], tmp_path / "restored")
    seen = []

    def look(crop: np.ndarray) -> np.ndarray:
        seen.append(crop)
        return crop

    list(restore_photos([job], fake_models(look), RestoreOptions(upscale=1, grain=0)))
    brighter = seen[0][200:300, 200:300].mean() - photo_pixels(1).mean()
    assert brighter < 20 if one_way else brighter > 40
    # Either way they have drawn what they saw.
    np.testing.assert_allclose(read_photo(job.target).pixels, photo_pixels(1).astype(int), atol=8)


def test_boxes_are_in_colour_on_a_gray_photo(tmp_path: Path) -> None:
    jobs = smooth_album(tmp_path / "in")
    gray = cv2.cvtColor(read_photo(jobs[0].source).pixels, cv2.COLOR_RGB2GRAY)
    gray[0, 0] = 1
    Image.fromarray(gray).save(jobs[0].source)
    list(restore_photos(jobs, fake_models(stripes), RestoreOptions(upscale=1, draw_boxes=True)))
    assert (read_photo(jobs[0].target).pixels == [0, 255, 0]).all(axis=2).any()


def test_gray_photo_without_a_box_stays_gray(tmp_path: Path) -> None:
    jobs = smooth_album(tmp_path / "in")
    gray = cv2.cvtColor(read_photo(jobs[0].source).pixels, cv2.COLOR_RGB2GRAY)
    gray[0, 0] = 0
    Image.fromarray(gray).save(jobs[0].source)
    (outcome,) = restore_photos(jobs, fake_models(), RestoreOptions(upscale=1, draw_boxes=True))
    assert isinstance(outcome, Restored) and not outcome.faces
    with Image.open(jobs[0].target) as written:
        assert written.mode == "L"


def test_faces_chosen_by_hand(tmp_path: Path) -> None:
    jobs = album(tmp_path / "in", [3, 2])
    outcomes = list(restore_photos(jobs, fake_models(), RestoreOptions()))
    chosen = tmp_path / "chosen.jsonl"
    with ReportFile(chosen) as lines:
        lines.start(1, {})
        first = outcomes[0]
        assert isinstance(first, Restored)
        lines.add(replace(first, faces=first.faces[1:2]))
    again = list(restore_photos(jobs, fake_models(), RestoreOptions(overwrite=True, faces_from=chosen)))
    assert [[face.box for face in outcome.faces] for outcome in again] == [[first.faces[1].box], []]


def test_extras_crops_boxes_times_and_tags(tmp_path: Path) -> None:
    jobs = smooth_album(tmp_path / "in")
    os.utime(jobs[0].source, ns=(10**18, 10**18))
    options = RestoreOptions(upscale=1, save_faces=tmp_path / "faces", draw_boxes=True, preserve_times=True)
    (outcome,) = restore_photos(jobs, fake_models(stripes), options)
    assert isinstance(outcome, Restored)
    assert sorted(p.name for p in (tmp_path / "faces").iterdir()) == ["a.png.1.after.png", "a.png.1.before.png"]
    assert jobs[0].target.stat().st_mtime_ns == 10**18
    written = read_photo(jobs[0].target)
    assert (written.pixels == [0, 255, 0]).all(axis=2).any()
    assert b"algorithmicallyEnhanced" in (written.metadata.xmp or b"")
    untagged = replace(options, tag=False, overwrite=True)
    list(restore_photos(jobs, fake_models(stripes), untagged))
    assert b"algorithmicallyEnhanced" not in (read_photo(jobs[0].target).metadata.xmp or b"")


def test_a_refused_crop_names_the_option_of_the_crops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = smooth_album(tmp_path / "in")
    usual = os.open

    def refuse(path: object, *more: int) -> int:
        if str(path).startswith(str(tmp_path / "faces")):
            raise OSError(errno.ENOSPC, "No space left on device")
        return usual(path, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refuse)
    options = RestoreOptions(upscale=1, save_faces=tmp_path / "faces")
    with pytest.raises(OutputError, match=r"the disk is full.*--save-faces"):
        list(restore_photos(jobs, fake_models(stripes), options))


def scratched() -> np.ndarray:
    pixels = np.full((300, 400, 3), 90, np.uint8)
    pixels[:, 200:202] = 250
    return pixels


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"upscaler": Redrawn()}, "gfprestore {} (Redrawer x2)"),
        ({"chroma": Painted()}, "gfprestore {} (colour by paint)"),
        ({"descratch": True}, "gfprestore {} (scratches filled)"),
        ({"upscaler": Redrawn(), "background_strength": 0.0}, None),
        ({}, None),
    ],
)
def test_whatever_changes_pixels_is_named_in_the_result(
    changed: dict[str, object], named: str | None, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    Image.fromarray(scratched()).save(folder / "a.png")
    models = replace(
        fake_models(),
        detector=NoFaces(),  # type: ignore[arg-type]
        **{name: value for name, value in changed.items() if name in ("upscaler", "chroma")},  # type: ignore[arg-type]
    )
    settings = {name: value for name, value in changed.items() if name not in ("upscaler", "chroma")}
    options = RestoreOptions(colorize="always" if "chroma" in changed else "off", **settings)  # type: ignore[arg-type]
    jobs = plan_jobs([folder], tmp_path / "restored")
    list(restore_photos(jobs, models, options))
    metadata = read_photo(jobs[0].target).metadata
    assert (b"algorithmicallyEnhanced" in (metadata.xmp or b"")) is (named is not None)
    assert (named is None) or named.format(__version__).encode() in (metadata.exif or b"")


@pytest.mark.parametrize(("width", "is_told"), [(2, True), (0, False)])
def test_how_much_was_filled_is_told_where_it_is_much(width: int, is_told: bool, tmp_path: Path) -> None:
    pixels = scratched()
    pixels[:, 200 + width : 202] = 90
    Image.fromarray(pixels).save(tmp_path / "a.png")
    models = replace(fake_models(), detector=NoFaces())  # type: ignore[arg-type]
    jobs = plan_jobs([tmp_path / "a.png"], tmp_path / "restored")
    (outcome,) = restore_photos(jobs, models, RestoreOptions(descratch=True))
    assert isinstance(outcome, Restored)
    assert any("% of the photo was filled as scratches" in warning for warning in outcome.warnings) is is_told


def test_crops_of_an_earlier_run_give_way(tmp_path: Path) -> None:
    jobs = album(tmp_path / "in", [3])
    options = RestoreOptions(upscale=1, save_faces=tmp_path / "faces", overwrite=True)
    list(restore_photos(jobs, fake_models(stripes), options))
    other = tmp_path / "faces" / "other.png.9.before.png"
    other.write_bytes(b"")
    assert len(list((tmp_path / "faces").iterdir())) == 7
    list(restore_photos(jobs, fake_models(stripes), replace(options, largest=1, strength=0)))
    assert {path.name for path in (tmp_path / "faces").iterdir()} == {"0000.png.1.before.png", other.name}


def test_crops_carry_the_profile_of_their_photo(tmp_path: Path) -> None:
    jobs = smooth_album(tmp_path / "in")
    pixels = read_photo(jobs[0].source).pixels
    wide = profile("wide")  # It holds the time at which it was made.
    Image.fromarray(pixels).save(jobs[0].source, icc_profile=wide)
    list(restore_photos(jobs, fake_models(stripes), RestoreOptions(upscale=1, save_faces=tmp_path / "faces")))
    for path in (tmp_path / "faces").iterdir():
        assert read_photo(path).metadata.icc_profile == wide


def test_refused_faces_are_told_and_drawn(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    jobs = smooth_album(tmp_path / "in")
    models = fake_models()

    class Refusing(FakeDetector):
        def search(self, photos: Sequence[np.ndarray]) -> list[FoundFaces]:
            (found,) = super().search(photos)
            return [replace(found, refused=(RefusedFace(self.face(60.0, 60.0, 60.0, 0.8), "it is a clock"),))]

    models = replace(models, detector=Refusing())  # type: ignore[arg-type]
    with caplog.at_level("DEBUG", logger="gfprestore"):
        (outcome,) = restore_photos(jobs, models, RestoreOptions(upscale=1, draw_boxes=True))
    assert isinstance(outcome, Restored)
    assert [(item.box, item.reason) for item in outcome.refused] == [((40.0, 40.0, 80.0, 80.0), "it is a clock")]
    assert (read_photo(jobs[0].target).pixels == [255, 0, 0]).all(axis=2).any()
    assert "a.png: no face at (40, 40, 80, 80): it is a clock" in caplog.text


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


def test_aligned_photos_are_restored_to_their_very_edge(tmp_path: Path) -> None:
    jobs = smooth_album(tmp_path / "in")
    models = replace(fake_models(stripes), detector=None)
    list(restore_photos(jobs, models, RestoreOptions(aligned=True, upscale=8, grain=0)))
    plain = resize_photo(read_photo(jobs[0].source).pixels, (720, 480)).astype(int)
    change = np.abs(read_photo(jobs[0].target).pixels - plain)
    assert change[:, :3].mean() > 0.8 * change.mean() > 0


def test_sixteen_bits_stay_sixteen_bits(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    ramp = np.linspace(0, 65535, 90 * 60).reshape(60, 90).astype(np.uint16)
    pixels = np.repeat(ramp[..., None], 3, axis=2)
    pixels[0, 0] = 1
    cv2.imwrite(str(folder / "deep.png"), pixels)
    jobs = plan_jobs([folder], tmp_path / "restored")
    (outcome,) = restore_photos(jobs, fake_models(), RestoreOptions(upscale=1, grain=0))
    assert isinstance(outcome, Restored)
    written = read_photo(jobs[0].target).pixels
    assert written.dtype == np.uint16
    # The generator sees 8 bits: what it gives back is half a level of those off at most. Outside the face nothing is.
    assert np.abs(written.astype(int) - pixels).max() <= 129
    np.testing.assert_array_equal(written[:, :10], pixels[:, :10])


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


@pytest.mark.parametrize("is_drawn", [False, True])
@pytest.mark.parametrize("faces", [0, 1])
def test_transparent_edges_get_no_dark_rim(faces: int, is_drawn: bool, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    rgba = np.zeros((60, 90, 4), np.uint8)
    rgba[10:, 20:] = (200, 200, 200, 255)
    rgba[0, 0, 0] = faces
    Image.fromarray(rgba).save(folder / "a.png")
    (job,) = plan_jobs([folder], tmp_path / "restored")
    models = replace(fake_models(), upscaler=Redrawn()) if is_drawn else fake_models()
    list(restore_photos([job], models, RestoreOptions(upscale=2, grain=0)))
    found = read_photo(job.target)
    assert found.alpha is not None
    assert (found.pixels[found.alpha > 0] >= 195).all()


def test_what_is_hidden_stays_where_nothing_is_resampled(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    rgba = np.dstack([photo_pixels(0), np.tile(np.arange(90, dtype=np.uint8) // 45, (60, 1))])
    Image.fromarray(rgba).save(folder / "a.png")
    (job,) = plan_jobs([folder], tmp_path / "restored")
    list(restore_photos([job], fake_models(), RestoreOptions(upscale=1)))
    np.testing.assert_array_equal(read_photo(job.target).pixels, photo_pixels(0))


class PhotosHeld:
    """Counts the photos that are in memory at the same time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.alive: weakref.WeakSet[Photo] = weakref.WeakSet()
        self.most = 0
        monkeypatch.setattr(photosteps, "read_photo", self.read)

    def read(self, path: Path, page: int) -> Photo:
        photo = read_photo(path, page)
        self.alive.add(photo)
        self.most = max(self.most, len(self.alive))
        return photo


def test_the_number_of_photos_held_does_not_grow_with_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = PhotosHeld(monkeypatch)
    peaks = []
    for count in (30, 120):
        held.most = 0
        jobs = album(tmp_path / f"in{count}", [1] + [0] * (count - 1))
        for _ in restore_photos(jobs, fake_models(), RestoreOptions(overwrite=True, batch_size=4)):
            gc.collect()
        peaks.append(held.most)
    assert peaks[1] <= plan_work(4).most_photos
    assert peaks[1] <= peaks[0] + 2


@pytest.mark.parametrize("batch_size", [4, 32])
def test_large_photos_are_held_in_small_numbers_whatever_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    # Each photo is as large as a queue may be.
    plan = replace(plan_work(batch_size), queue_bytes=60 * 90 * 3, readers=1, read_ahead=1, finishers=2)
    monkeypatch.setattr(pipeline, "plan_work", lambda _: plan)
    held = PhotosHeld(monkeypatch)
    jobs = album(tmp_path / "in", [1, 0] * 20)
    for _ in restore_photos(jobs, fake_models(), RestoreOptions(batch_size=batch_size, upscale=0.5)):
        gc.collect()
    # Read, looked at, gathered, finished, and one more that is handed on between each two of them.
    assert held.most <= 7


def test_photos_are_finished_in_numbers_that_their_results_allow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = most = 0
    lock = threading.Lock()

    def slow(*arguments: object) -> object:
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        time.sleep(0.03)
        outcome = finish_photo(*arguments)  # type: ignore[arg-type]
        with lock:
            busy -= 1
        return outcome

    monkeypatch.setattr(pipeline, "finish_photo", slow)
    jobs = album(tmp_path / "in", [0] * 8)
    # Three photos fit in a queue, so do two with results of half their sides, but not one with four times its sides.
    plan = replace(plan_work(4), queue_bytes=60 * 90 * 3 * 3, finishers=4, finish_ahead=8)
    monkeypatch.setattr(pipeline, "plan_work", lambda _: plan)
    for upscale, is_one_by_one in ((4, True), (0.5, False)):
        most = 0
        list(restore_photos(jobs, fake_models(), RestoreOptions(upscale=upscale, overwrite=True)))
        assert (most == 1) is is_one_by_one


def test_a_full_disk_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = album(tmp_path / "in", [0, 0, 0])

    def full(*_: object, **__: object) -> None:
        raise OutputError("the disk is full")

    monkeypatch.setattr(photosteps, "write_photo", full)
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
