"""Which photos are coloured, and how restored faces get their colour."""

from __future__ import annotations

import numpy as np
import pytest
from fakes import FakeRestorer

from gfprestore.align import FACE_TEMPLATE
from gfprestore.blending.tone import Tone, find_tone
from gfprestore.colouring import coloured_faces, decide_colouring
from gfprestore.options import RestoreOptions
from gfprestore.photo import AlignedFace, DetectedFace
from gfprestore.retouch import RestoredCrop


def painted(crop: np.ndarray) -> np.ndarray:
    """A colourist whose red follows the lightness and whose blue is its own."""
    assert (crop == crop[..., :1]).all(), "the colourist sees lightness only"
    result = crop.copy()
    result[..., 2] = 200
    return result


def aligned_faces(count: int) -> list[AlignedFace]:
    to_crop = np.array([[4.0, 0, -10], [0, 4.0, -20]])
    face = DetectedFace(np.array([0.0, 0, 9, 9]), FACE_TEMPLATE, 0.9)
    return [AlignedFace(face, np.zeros((512, 512, 3), np.uint8), to_crop) for _ in range(count)]


def crops_of(count: int, side: int = 512) -> list[RestoredCrop]:
    generator = np.random.default_rng(0)
    return [RestoredCrop(generator.integers(0, 256, (side, side, 3), dtype=np.uint8)) for _ in range(count)]


PLACES = {"batch_size": 2, "photo_size": (100, 80), "canvas_size": (200, 160)}


def test_faces_are_coloured_in_batches_from_their_lightness() -> None:
    crops, colourist = crops_of(5), FakeRestorer(painted)
    faces = coloured_faces(aligned_faces(5), crops, colourist, region="square", **PLACES)
    assert colourist.batches == [2, 2, 1]
    for face, crop in zip(faces, crops, strict=True):
        luma = crop.crop @ np.array([0.299, 0.587, 0.114])
        np.testing.assert_allclose(face.crop[..., 0], luma, atol=1)
        assert (face.crop[..., 2] == 200).all()
        # Canvas pixel x lies on photo pixel (x - 0.5) / 2.
        np.testing.assert_allclose(face.to_crop, [[2, 0, -11], [0, 2, -21]])


def test_crops_in_colour_are_taken_as_they_are() -> None:
    crops = crops_of(2)
    faces = coloured_faces(aligned_faces(2), crops, None, region="face", **PLACES)
    for face, crop in zip(faces, crops, strict=True):
        np.testing.assert_array_equal(face.crop, crop.crop)


def test_a_colourist_of_another_size_gives_crops_of_the_restorers() -> None:
    (face,) = coloured_faces(aligned_faces(1), crops_of(1, 256), FakeRestorer(painted), region="square", **PLACES)
    assert face.crop.shape == (256, 256, 3)
    assert face.mask.shape == (256, 256)


def test_a_tint_takes_more_of_the_crop_than_an_estimate_of_the_whole_photo() -> None:
    areas = {
        region: coloured_faces(aligned_faces(1), crops_of(1), None, region=region, **PLACES)[0].mask.mean()
        for region in ("face", "square")
    }
    assert areas["face"] < 0.9 * areas["square"]


@pytest.mark.parametrize(
    ("mode", "gray", "colour"),
    [("off", False, False), ("auto", True, False), ("faces", True, False), ("always", True, True)],
)
def test_colour_photos_are_left_alone_unless_always(mode: str, gray: bool, colour: bool) -> None:
    generator = np.random.default_rng(1)
    pixels = np.repeat(np.repeat(generator.integers(0, 256, (6, 8, 3), dtype=np.uint8), 10, 0), 10, 1)
    options = RestoreOptions(colorize=mode)  # type: ignore[arg-type]
    assert decide_colouring(np.repeat(pixels[..., :1], 3, axis=2), options) == (gray, [])
    assert decide_colouring(pixels, options) == (colour, [])


def test_a_photo_in_doubt_is_left_and_told_of() -> None:
    ramp = np.linspace(40, 220, 200)[None, :, None] * np.ones((160, 1, 3))
    ramp[:24, :, 2] -= 12  # stained along one side, more than a print's tone and less than a colour photo
    pixels = ramp.clip(0, 255).astype(np.uint8)
    assert find_tone(pixels) is Tone.FAINT
    for mode, told in (("auto", 1), ("faces", 1), ("always", 0), ("off", 0)):
        options = RestoreOptions(colorize=mode)  # type: ignore[arg-type]
        is_coloured, notes = decide_colouring(pixels, options)
        assert len(notes) == told
        assert is_coloured is (mode == "always")
