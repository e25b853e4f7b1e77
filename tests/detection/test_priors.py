"""Prior boxes and their decoding, against facexlib's loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from facexlib.detection.retinaface import generate_config
from facexlib.detection.retinaface_utils import PriorBox, decode, decode_landm
from hypothesis import given, settings
from hypothesis import strategies as st

from gfprestore.detection.priors import decode_faces, prior_boxes

CONFIG = generate_config("mobile0.25")


@settings(max_examples=15, deadline=None)
@given(height=st.integers(1, 150), width=st.integers(1, 150))
def test_priors_are_facexlibs_in_pixels(height: int, width: int) -> None:
    official = PriorBox(CONFIG, image_size=(height, width)).forward().numpy()
    ours = prior_boxes(height, width)
    assert ours.shape == (len(official), 3)
    pixels = official * [width, height, width, height]
    np.testing.assert_allclose(ours[:, [0, 1, 2, 2]], pixels, rtol=1e-5)


def test_priors_are_made_once_and_cannot_be_changed() -> None:
    assert prior_boxes(64, 96) is prior_boxes(64, 96)
    with pytest.raises(ValueError, match="read-only"):
        prior_boxes(64, 96)[0, 0] = 1


@settings(max_examples=15, deadline=None)
@given(height=st.integers(1, 120), width=st.integers(1, 120), seed=st.integers(0, 2**32 - 1))
def test_decoding_is_facexlibs_half_a_pixel_to_the_left(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = len(prior_boxes(height, width))
    output = np.concatenate([rng.random((rows, 1)), rng.normal(0, 2, (rows, 14))], axis=1).astype(np.float32)
    scores, boxes, landmarks = decode_faces(output, (height, width), 0.7)

    priors = PriorBox(CONFIG, image_size=(height, width)).forward()
    scale = np.array([width, height])
    official_boxes = decode(torch.from_numpy(output[:, 1:5]), priors, CONFIG["variance"]).numpy()
    official_landmarks = decode_landm(torch.from_numpy(output[:, 5:]), priors, CONFIG["variance"]).numpy()
    kept = output[:, 0] > 0.7
    np.testing.assert_array_equal(scores, output[kept, 0])
    np.testing.assert_allclose(boxes.reshape(-1, 2, 2) + 0.5, official_boxes[kept].reshape(-1, 2, 2) * scale, atol=2e-3)
    np.testing.assert_allclose(landmarks + 0.5, official_landmarks[kept].reshape(-1, 5, 2) * scale, atol=2e-3)


def test_absurd_sizes_do_not_overflow() -> None:
    output = np.full((len(prior_boxes(32, 32)), 15), 1e9, np.float32)
    _, boxes, _ = decode_faces(output, (32, 32), 0.5)
    assert np.isfinite(boxes).all()
