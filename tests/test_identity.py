"""Identity: angles at the photo's own resolution, and strength lowered until a face is itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from real_faces import cut_face

from gfprestore.align import face_template
from gfprestore.errors import WeightsError
from gfprestore.evaluation.deg import angle_degrees, crop_for_arcface
from gfprestore.identity import (
    ARCFACE_SIZE,
    ARCFACE_TEMPLATE,
    LEAST_STRENGTH,
    FaceRecogniser,
    arcface_crop,
    identity_angles,
    reduce_to_photo,
    settle_identity,
)


def _spots(size):
    """A crop that is bright at the five points of the face template alone."""
    y, x = np.mgrid[:size, :size]
    crop = np.zeros((size, size, 3), np.uint8)
    for left, top in face_template(size):
        crop[np.hypot(x - left, y - top) < size / 60] = 255
    return crop


@pytest.mark.parametrize("size", [64, 256, 512, 1024])
def test_the_recogniser_sees_landmarks_where_it_expects_them(size):
    seen = arcface_crop(_spots(size))[..., 0].astype(float)
    assert seen.shape == (ARCFACE_SIZE, ARCFACE_SIZE)
    y, x = np.mgrid[:ARCFACE_SIZE, :ARCFACE_SIZE]
    for left, top in ARCFACE_TEMPLATE:
        weight = seen * (np.hypot(x - left, y - top) < 8)
        centre = np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()
        # The two templates are no exact similarity of each other.
        assert np.hypot(*(centre - (left, top))) < 3


def test_the_crop_is_that_of_the_deg_metric():
    crop = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
    other = crop_for_arcface(torch.from_numpy(crop.transpose(2, 0, 1)[None].astype(np.float32)))[0]
    assert np.abs(arcface_crop(crop).astype(float) - other.permute(1, 2, 0).numpy()).mean() < 6


def test_crops_come_down_to_the_photo_and_never_up():
    crop = np.random.default_rng(1).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    assert reduce_to_photo(crop, 1.0) is crop and reduce_to_photo(crop, 3.0) is crop
    half = reduce_to_photo(crop, 0.5)
    np.testing.assert_allclose(half, crop.reshape(32, 2, 32, 2, 3).mean((1, 3)), atol=0.51)


def _mean_colours(crops):
    return np.stack([crop.reshape(-1, 3).mean(axis=0) for crop in crops]).astype(np.float32)


def test_angles_against_their_closed_form():
    red, green, both = (np.full((32, 32, 3), colour, np.uint8) for colour in ((200, 0, 0), (0, 90, 0), (60, 60, 0)))
    angles = identity_angles(_mean_colours, red, [red, green, both], 1.0)
    assert angles == pytest.approx([0, 90, 45], abs=1e-3) and angles[0] == 0


@given(st.lists(st.floats(-1, 1), min_size=4, max_size=4), st.lists(st.floats(-1, 1), min_size=4, max_size=4))
def test_angles_are_those_of_the_deg_metric(first, second):
    vectors = np.array([first, second], np.float32) + np.float32(1.5)
    (angle,) = identity_angles(lambda crops: vectors, np.zeros((8, 8, 3), np.uint8), [np.zeros((8, 8, 3), np.uint8)], 1)
    assert angle == pytest.approx(float(angle_degrees(*torch.from_numpy(vectors))), abs=1e-4)


def test_a_restoration_is_compared_at_the_photos_resolution():
    sizes = []

    def embed(crops):
        sizes.extend(crop.shape[0] for crop in crops)
        return np.ones((len(crops), 2), np.float32)

    crop = np.zeros((512, 512, 3), np.uint8)
    identity_angles(embed, crop, [crop, crop], 0.25)
    assert sizes == [128, 128, 128]


def test_within_the_limit_nothing_is_lowered():
    verdict = settle_identity(lambda strength: 20.0, 0.8, 45.0)
    assert (verdict.strength, verdict.angle, verdict.reason) == (0.8, 20.0, "")


def test_strength_is_lowered_step_by_step_and_the_reason_told():
    tried = []

    def angle_at(strength):
        tried.append(strength)
        return 100 * strength

    verdict = settle_identity(angle_at, 0.8, 45.0)
    assert tried == [0.8, 0.6, 0.4]
    assert verdict.strength == 0.4 and verdict.angle == pytest.approx(40)
    assert "80°" in verdict.reason and "45°" in verdict.reason


def test_a_face_that_is_never_itself_is_left_alone():
    verdict = settle_identity(lambda strength: 70.0, 0.8, 45.0)
    assert verdict.strength == 0 and "70°" in verdict.reason and "45°" in verdict.reason


def test_nothing_asked_is_nothing_measured():
    assert settle_identity(lambda strength: pytest.fail("measured"), 0.0, 45.0).strength == 0


@given(st.floats(0, 1), st.floats(0, 180), st.floats(0, 250))
def test_the_result_is_within_the_limit_or_nothing(strength, limit, slope):
    verdict = settle_identity(lambda at: slope * at, strength, limit)
    assert 0 <= verdict.strength <= strength
    assert verdict.strength == 0 or slope * verdict.strength <= limit
    assert verdict.strength in (0, strength) or verdict.strength >= LEAST_STRENGTH - 1e-9


def test_a_file_that_is_no_recogniser_is_refused(tmp_path):
    path = tmp_path / "face.onnx"
    path.write_bytes(b"not a network")
    with pytest.raises(WeightsError, match="recogniser"):
        FaceRecogniser(path)


@pytest.mark.weights
def test_the_recogniser_tells_people_apart(real_weights, real_photos):
    path = real_weights / "w600k_mbf.onnx"
    if not path.is_file():
        pytest.skip("no w600k_mbf.onnx")
    recogniser = FaceRecogniser(path)
    girl, man, boy = (cut_face(real_photos, name) for name in ("old/a.png", "old/h.png", "scratched/b.png"))
    grainy = np.clip(man + np.random.default_rng(2).normal(0, 6, man.shape), 0, 255).astype(np.uint8)
    same, near, *others = identity_angles(recogniser.embed, man, [man, grainy, girl, boy], 0.5)
    assert same == 0 and near < 30 and min(others) > 60
    one_by_one = np.concatenate([recogniser.embed([crop]) for crop in (girl, man)])
    np.testing.assert_allclose(recogniser.embed([girl, man]), one_by_one, rtol=1e-3, atol=1e-3)
