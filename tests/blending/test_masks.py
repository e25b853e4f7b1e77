"""Masks: no step, nothing at the border, occluders and other faces left alone, overlaps settled."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gfprestore.blending.masks import (
    BORDER_FEATHER,
    BORDER_MARGIN,
    FaceLabel,
    border_mask,
    face_mask,
    oval_mask,
)

SIZE = 512
STEP_LIMIT = 12 / 255
KINDS = ("face", "head", "square")


def _steepest(mask):
    return max(np.abs(np.diff(mask, axis=0)).max(), np.abs(np.diff(mask, axis=1)).max())


def _portrait(size=SIZE):
    """Labels of a plain head: an oval of skin with eyes, in hair, over clothes."""
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    labels = np.full((size, size), FaceLabel.BACKGROUND, np.uint8)
    labels[y > 0.9] = FaceLabel.CLOTHES
    labels[((x - 0.5) / 0.42) ** 2 + ((y - 0.42) / 0.4) ** 2 < 1] = FaceLabel.HAIR
    labels[((x - 0.5) / 0.3) ** 2 + ((y - 0.55) / 0.36) ** 2 < 1] = FaceLabel.SKIN
    for centre in (0.377, 0.623):
        labels[((x - centre) / 0.05) ** 2 + ((y - 0.47) / 0.025) ** 2 < 1] = FaceLabel.LEFT_EYE
    return labels


@pytest.mark.parametrize("size", [64, 128, 256, 512])
def test_border_mask_is_zero_before_the_border_and_one_inside(size):
    mask = border_mask(size)
    margin = int(BORDER_MARGIN * size)
    assert mask.dtype == np.float32 and mask.shape == (size, size)
    assert not mask[:margin].any() and not mask[-margin:].any()
    assert not mask[:, :margin].any() and not mask[:, -margin:].any()
    inside = int(np.ceil((BORDER_MARGIN + BORDER_FEATHER) * size)) + 1
    assert (mask[inside:-inside, size // 2] == 1).all()
    assert mask.min() == 0 and mask.max() == 1


def test_border_mask_follows_its_closed_form():
    # A slow twin: the distance to a rounded square, point by point, through its smoothstep.
    size, feather = 96, 0.2
    half, radius = size / 2 - BORDER_MARGIN * size, feather * size
    mask = border_mask(size, feather)
    for row, column in [(0, 0), (5, 48), (12, 13), (20, 90), (47, 47), (95, 40), (8, 8)]:
        offset = np.maximum(np.abs(np.array([row, column]) - (size - 1) / 2) - (half - radius), 0)
        ramp = np.clip((radius - np.hypot(*offset)) / radius, 0, 1)
        assert mask[row, column] == pytest.approx(ramp**2 * (3 - 2 * ramp), abs=1e-5)


def test_border_mask_has_no_step_and_no_kink():
    mask = border_mask(SIZE).astype(np.float64)
    assert _steepest(mask) < STEP_LIMIT / 2
    for axis in (0, 1):
        # A kink would bend as much as a slope is steep; a smoothstep bends by at most 6 / width^2 per pixel.
        assert np.abs(np.diff(mask, 2, axis=axis)).max() < 1.1 * 6 / (BORDER_FEATHER * SIZE) ** 2


@pytest.mark.parametrize("feather", [0.0, -0.1, 0.6])
def test_border_mask_refuses_a_feather_that_does_not_fit(feather):
    with pytest.raises(ValueError, match="feather"):
        border_mask(64, feather)


@pytest.mark.parametrize("kind", KINDS)
def test_masks_are_shared_and_cannot_be_written(kind):
    assert oval_mask(64, kind) is oval_mask(64, kind)
    with pytest.raises(ValueError, match="read-only"):
        oval_mask(64, kind)[0, 0] = 1


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_parser_the_mask_is_a_smooth_oval_about_the_face(kind):
    mask = face_mask(SIZE, kind)
    assert mask is oval_mask(SIZE, kind)
    assert _steepest(mask) < STEP_LIMIT
    assert not mask[: int(BORDER_MARGIN * SIZE)].any()
    # Eyes, nose and mouth are wholly inside.
    for x, y in [(193, 240), (319, 240), (257, 314), (201, 371), (313, 371)]:
        assert mask[y, x] == 1
    assert (oval_mask(SIZE, "face") <= oval_mask(SIZE, "head") + 1e-6).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("output_pixels", [0.1, 0.3, 1.0, 3.0])
def test_parsed_masks_have_no_step(kind, output_pixels):
    mask = face_mask(SIZE, kind, before=_portrait(), output_pixels=output_pixels)
    assert _steepest(mask) < STEP_LIMIT
    assert mask.min() >= 0 and mask.max() <= 1
    assert not mask[: int(BORDER_MARGIN * SIZE)].any()
    assert mask[270, 256] == 1


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(KINDS), st.booleans())
def test_whatever_the_labels_no_mask_has_a_step(seed, kind, protect):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 19, (2, 8, 8), dtype=np.uint8)
    before, after = coarse.repeat(32, axis=1).repeat(32, axis=2)
    mask = face_mask(256, kind, before=before, after=after, protect_glasses=protect)
    # A crop half as large holds each feather in half as many pixels.
    assert _steepest(mask) < 2 * STEP_LIMIT
    assert mask.min() >= 0 and mask.max() <= 1


def test_the_kinds_replace_what_they_say():
    labels = _portrait()
    face, head = (face_mask(SIZE, kind, before=labels) for kind in ("face", "head"))
    hair = labels == FaceLabel.HAIR
    far = cv2.erode(hair.astype(np.uint8), np.ones((61, 61))) > 0
    assert far.any() and not face[far].any()
    assert head[far].min() > 0.8
    background = labels == FaceLabel.BACKGROUND
    assert not head[cv2.erode(background.astype(np.uint8), np.ones((61, 61))) > 0].any()
    # The face's own outline is replaced with it: half of the weight lies there.
    outline = (cv2.dilate((labels == FaceLabel.SKIN).astype(np.uint8), np.ones((3, 3))) > 0) & hair
    assert 0.3 < np.median(face[outline]) < 0.8
    assert face_mask(SIZE, "square", before=labels)[256, 80] == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("occluder", [FaceLabel.GLASSES, FaceLabel.HAT])
def test_occluders_keep_their_own_pixels_unless_asked(kind, occluder):
    labels = _portrait()
    labels[300:340, 200:300] = occluder
    mask = face_mask(SIZE, kind, before=labels)
    assert not mask[300:340, 200:300].any()
    assert face_mask(SIZE, kind, before=labels, restore_occluders=True)[320, 250] == 1


def test_a_hand_that_would_become_a_cheek_keeps_its_own_pixels():
    before, after = _portrait(), _portrait()
    before[330:400, 150:230] = FaceLabel.BACKGROUND
    mask = face_mask(SIZE, "face", before=before, after=after)
    assert not mask[330:400, 150:230].any()
    assert mask[300, 256] == 1


def test_a_parser_that_sees_no_face_in_a_blurred_photo_is_not_believed():
    after = _portrait()
    blind = np.zeros_like(after)
    alone = face_mask(SIZE, "face", before=after, after=after)
    np.testing.assert_array_equal(face_mask(SIZE, "face", before=blind, after=after), alone)


def test_specks_are_neither_glasses_nor_hats():
    before, after = _portrait(), _portrait()
    clean = face_mask(SIZE, "face", before=before, after=after)
    before[250:260, 240:260] = FaceLabel.GLASSES
    after[200:210, 240:260] = FaceLabel.HAT
    np.testing.assert_array_equal(face_mask(SIZE, "face", before=before, after=after), clean)


def test_small_tears_in_a_face_are_closed():
    after = _portrait()
    after[230:246, 256:420] = FaceLabel.HAIR
    mask = face_mask(SIZE, "face", before=after)
    assert mask[238, 300] == 1


@pytest.mark.parametrize("worn_before", [True, False])
def test_invented_and_removed_glasses_are_kept_out(worn_before):
    plain, spectacles = _portrait(), _portrait()
    spectacles[225:270, 160:350] = FaceLabel.GLASSES
    before, after = (spectacles, plain) if worn_before else (plain, spectacles)
    protected = face_mask(SIZE, "face", before=before, after=after, restore_occluders=True)
    assert not protected[225:270, 160:350].any()
    both = face_mask(SIZE, "face", before=spectacles, after=spectacles, restore_occluders=True)
    assert both[247, 256] == 1
    let = face_mask(SIZE, "face", before=before, after=after, restore_occluders=True, protect_glasses=False)
    assert let[247, 256] == 1


def test_the_same_glasses_outlined_twice_are_restored_when_asked():
    before, after = _portrait(), _portrait()
    before[225:270, 160:350], after[228:274, 165:352] = FaceLabel.GLASSES, FaceLabel.GLASSES
    mask = face_mask(SIZE, "face", before=before, after=after, restore_occluders=True)
    assert mask[225:274, 180:330].min() == 1


def test_another_face_in_the_crop_is_not_replaced():
    labels = _portrait()
    labels[:, :40] = FaceLabel.BACKGROUND
    labels[200:400, 26:70] = FaceLabel.SKIN
    labels[:, 70:110] = np.where(labels[:, 70:110] == FaceLabel.SKIN, FaceLabel.HAIR, labels[:, 70:110])
    mask = face_mask(SIZE, "face", before=labels)
    assert not mask[:, :70].any()
    assert mask[270, 256] == 1


def test_labels_without_a_face_fall_back_to_the_oval():
    nothing = np.zeros((SIZE, SIZE), np.uint8)
    assert face_mask(SIZE, "face", before=nothing) is oval_mask(SIZE, "face")


def test_small_faces_get_a_wider_edge():
    widths = [(face_mask(SIZE, before=_portrait(), output_pixels=scale)[280] % 1 > 0).sum() for scale in (1, 0.25, 0.1)]
    assert widths[0] < widths[1] < widths[2]
