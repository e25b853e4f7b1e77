from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gfprestore.evaluation.batch import ImageBatch
from gfprestore.evaluation.lmd import LmdMetric, landmark_distance
from gfprestore.evaluation.seam import SeamMetric, seam_ratio, seam_step
from gfprestore.photo import DetectedFace


def paste(background: np.ndarray, box: tuple[int, int, int, int], weights: np.ndarray, colour: int) -> np.ndarray:
    result = background.astype(float)
    top, bottom, left, right = box
    part = result[top:bottom, left:right]
    result[top:bottom, left:right] = part + weights[..., None] * (colour - part)
    return np.rint(result).astype(np.uint8)


def ramp(side: int, feather: int) -> np.ndarray:
    line = np.minimum(np.arange(side), np.arange(side)[::-1]).clip(0, feather) / feather
    return np.minimum.outer(line, line)


def test_a_hard_edge_shows_all_of_the_difference():
    background = np.full((60, 80, 3), 100, np.uint8)
    assert seam_step(paste(background, (10, 40, 20, 50), np.ones((30, 30)), 180), background) == pytest.approx(80)


def test_a_feathered_edge_shows_one_step_of_its_ramp(make_image):
    background = np.full((60, 80, 3), 100, np.uint8)
    assert seam_step(paste(background, (10, 50, 20, 60), ramp(40, 16), 180), background) == pytest.approx(80 / 16)
    cut = ramp(40, 16)
    cut[:4], cut[-4:], cut[:, :4], cut[:, -4:] = 0, 0, 0, 0
    assert seam_step(paste(background, (10, 50, 20, 60), cut, 180), background) == pytest.approx(80 * 4 / 16)


def test_luma_weighs_the_channels():
    background = np.zeros((20, 20, 3), np.uint8)
    restored = background.copy()
    restored[5:9, 5:9] = (100, 0, 0)
    assert seam_step(restored, background) == pytest.approx(29.9, rel=1e-5)


def test_steps_inside_a_face_and_specks_do_not_count():
    background = np.full((60, 60, 3), 100, np.uint8)
    restored = paste(background, (10, 50, 10, 50), ramp(40, 20), 120)
    restored[28:32, 28:32] = 250
    restored[25, 25] = 100
    assert seam_step(restored, background) == pytest.approx(1)


def test_nothing_pasted_and_no_background_left():
    background = np.zeros((8, 8, 3), np.uint8)
    assert seam_step(background, background) == 0
    assert math.isnan(seam_step(background + 1, background))


def test_a_face_at_the_photo_s_edge_has_no_seam_there():
    background = np.full((40, 40, 3), 50, np.uint8)
    weights = np.minimum(np.arange(20)[::-1], 10)[:, None] / 10 * np.ones((1, 40))
    assert seam_step(paste(background, (0, 20, 0, 40), weights, 150), background) == pytest.approx(10)


def test_a_change_of_sign_inside_a_face_is_no_border():
    background = np.full((60, 60, 3), 100, np.uint8)
    tilt = np.linspace(-40, 40, 41)[:, None] * np.ones(41)
    restored = background.copy()
    restored[10:51, 10:51] = np.rint(100 + tilt * ramp(41, 16))[..., None]
    # The row in the middle is unchanged from one side of the face to the other.
    assert (restored[30] == background[30]).all()
    restored[29:32, 28:33] = np.array([[130, 130, 130, 130, 130], [100, 100, 100, 100, 100], [70] * 5])[..., None]
    assert seam_step(restored, background) <= 40 / 16


def test_a_seam_hides_where_the_photo_is_as_steep():
    rng = np.random.default_rng(0)
    busy = rng.integers(60, 140, (80, 80, 3)).astype(np.uint8)
    flat = np.full((80, 80, 3), 100, np.uint8)
    weights = np.ones((40, 40))
    assert seam_ratio(paste(busy, (20, 60, 20, 60), weights, 130), busy) < 1.2
    assert seam_ratio(paste(flat, (20, 60, 20, 60), weights, 130), flat) == pytest.approx(30)
    assert seam_ratio(paste(flat, (20, 60, 20, 60), ramp(40, 19), 110), flat) <= 1
    assert seam_ratio(flat, flat) == 1
    assert math.isnan(seam_ratio(flat + 1, flat))


def test_batches_of_seams():
    background = torch.full((2, 3, 20, 20), 100, dtype=torch.uint8)
    restored = background[:, None].repeat(1, 2, 1, 1, 1)
    restored[1, 1, :, 5:9, 5:9] = 130
    images = torch.cat([restored, background[:, None]], dim=1)
    batch = ImageBatch(("a", "b"), images, has_truth=False, has_background=True)
    measured = SeamMetric().measure(batch)
    np.testing.assert_allclose(measured["seam"], [[0, 0], [0, 30]], rtol=1e-5)
    np.testing.assert_allclose(measured["seam-ratio"], [[1, 1], [1, 30]], rtol=1e-5)


def face(shift: float) -> DetectedFace:
    return DetectedFace(np.zeros(4), np.arange(10.0).reshape(5, 2) + [shift * 0.6, shift * 0.8], 1.0)


def test_landmark_distance_takes_the_nearest_face():
    assert landmark_distance([face(9), face(3)], [face(0), face(9)]) == pytest.approx(3)
    assert math.isnan(landmark_distance([], [face(0)]))
    assert math.isnan(landmark_distance([face(0)], []))


def test_batches_of_landmarks():
    class ByBrightness:
        def detect(self, photos):
            assert all(photo.shape == (16, 16, 3) and photo.flags.c_contiguous for photo in photos)
            return [[face(float(photo[0, 0, 0]))] if photo[0, 0, 0] < 200 else [] for photo in photos]

    levels = torch.tensor([[0, 5, 255], [10, 10, 12]], dtype=torch.uint8)
    images = levels[:, :, None, None, None].expand(2, 3, 3, 16, 16)
    values = LmdMetric(ByBrightness()).measure(ImageBatch(("a", "b"), images, has_truth=True))["lmd"]
    np.testing.assert_allclose(values, [[5, np.nan], [0, 2]])
