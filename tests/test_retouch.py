"""Each face's own decision: strength lowered for identity's sake, faces left alone, masks and profiles."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from dead_leaves import leaves
from PIL import ImageCms
from real_faces import EYES

from gfprestore.align import FACE_TEMPLATE, align_face, face_template, similarity_transform
from gfprestore.blending.masks import FaceLabel
from gfprestore.colour import to_8_bits, to_srgb
from gfprestore.evaluation.seam import seam_ratio, seam_step
from gfprestore.formats.gamma import gamma_profile
from gfprestore.geometry import invert, map_points
from gfprestore.options import RestoreOptions
from gfprestore.paste import paste_faces
from gfprestore.photo import DetectedFace, Photo, PhotoMetadata
from gfprestore.photofile import read_photo
from gfprestore.resize import output_size, resize_photo
from gfprestore.retouch import RestoredCrop, retouch_faces


def blurred_photo(metadata: PhotoMetadata | None = None) -> Photo:
    noise = np.random.default_rng(3).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    pixels = cv2.GaussianBlur(noise, (0, 0), 6)
    return Photo(np.ascontiguousarray(pixels), metadata or PhotoMetadata("PNG"))


def face_of(photo: Photo):
    landmarks = (FACE_TEMPLATE - 256) * (200 / 512) + 150
    return align_face(photo, DetectedFace(np.array([90.0, 90, 210, 210]), landmarks, 0.9), 512)


def sharper(crop: np.ndarray) -> np.ndarray:
    drawn = crop.copy()
    drawn[::12] //= 2
    return drawn


class FakeRecogniser:
    """Sees an angle that grows with the change: crops are told apart by how strong their lines are."""

    def __init__(self, degrees_at_full_change: float) -> None:
        self.degrees = degrees_at_full_change

    def embed(self, crops: list[np.ndarray]) -> np.ndarray:
        lines = np.array([np.abs(np.diff(crop.astype(float), axis=0)).mean() for crop in crops])
        change = lines / lines[0] - 1
        angles = np.deg2rad(self.degrees * np.clip(change, 0, None))
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def decide(options: RestoreOptions, recogniser=None, restored: RestoredCrop | None = None):
    photo = blurred_photo()
    face = face_of(photo)
    crop = RestoredCrop(sharper(face.crop)) if restored is None else restored
    (retouch,) = retouch_faces(photo, [face], [crop], replace(options, grain=0), recogniser)
    return retouch


def test_a_face_is_restored_at_the_strength_asked_for() -> None:
    retouch = decide(RestoreOptions(strength=0.7))
    assert (retouch.record.action, retouch.record.strength, retouch.record.reason) == ("restored", 0.7, "")
    assert retouch.patch is not None


def test_strength_zero_leaves_the_face_alone() -> None:
    retouch = decide(RestoreOptions(strength=0))
    assert retouch.patch is None
    assert retouch.record.action == "kept"
    assert retouch.record.strength == 0


def test_identity_lowers_the_strength_and_gives_up_at_last() -> None:
    free = decide(RestoreOptions(identity_limit=40), FakeRecogniser(0.0))
    assert (free.record.strength, free.record.reason) == (RestoreOptions().strength, "")
    assert free.record.facts["identity_degrees"] == 0
    limited = decide(RestoreOptions(identity_limit=10), FakeRecogniser(0.6))
    assert limited.patch is not None
    assert 0 < limited.record.strength < RestoreOptions().strength
    assert limited.record.reason
    assert limited.record.facts["identity_degrees"] <= 10
    refused = decide(RestoreOptions(identity_limit=0.5), FakeRecogniser(1.0))
    assert refused.patch is None
    assert refused.record.action == "kept"
    assert refused.record.reason


def test_without_a_limit_nothing_is_measured() -> None:
    assert "identity_degrees" not in decide(RestoreOptions(), FakeRecogniser(90.0)).record.facts


def test_what_parsing_shows_shapes_the_mask() -> None:
    face = face_of(blurred_photo())
    labels = np.full((512, 512), FaceLabel.BACKGROUND, np.uint8)
    cv2.ellipse(labels, (256, 270), (120, 160), 0, 0, 360, int(FaceLabel.SKIN), -1)
    labels[230:260, 150:360] = FaceLabel.GLASSES
    crop = RestoredCrop(sharper(face.crop), labels, labels)
    kept = decide(RestoreOptions(), restored=crop).patch
    asked = decide(RestoreOptions(restore_occluders=True), restored=crop).patch
    assert kept is not None and asked is not None
    assert kept.mask[245, 256] == 0
    assert asked.mask[245, 256] > 0.5
    assert kept.mask[330, 256] > 0.5


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_wide_gamut_photo_changes_in_its_own_numbers(dtype: type) -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    photo = blurred_photo(PhotoMetadata("PNG", icc_profile=lab))
    photo = replace(photo, pixels=photo.pixels.astype(dtype) * np.array(257 if dtype == np.uint16 else 1, dtype))
    face = face_of(photo)
    seen = to_srgb(face.crop, lab)
    unchanged = RestoredCrop((seen // (257 if dtype == np.uint16 else 1)).astype(np.uint8))
    (retouch,) = retouch_faces(photo, [face], [unchanged], RestoreOptions(grain=0))
    assert retouch.patch is not None
    change = np.abs(retouch.patch.restored - face.crop.astype(np.float32))
    assert change.max() <= 1.5 * (257 if dtype == np.uint16 else 1)


@pytest.mark.parametrize("is_gray", [False, True])
def test_dark_tones_of_a_deep_linear_photo_get_no_steps(is_gray: bool) -> None:
    """A level of 8 bits in it is as much as thirteen dark ones that the generator drew in sRGB."""
    linear = gamma_profile(1.0, is_gray=is_gray)
    y, x = np.mgrid[:300, :300]
    waves = (110 + 90 * np.sin(x / 7) * np.sin(y / 7)).astype(np.uint16)  # Where sRGB is 12.92 times as bright.
    photo = Photo(np.repeat(waves[..., None], 3, axis=2), PhotoMetadata("PNG", icc_profile=linear), is_gray=is_gray)
    face = face_of(photo)
    seen = to_8_bits(to_srgb(face.crop, linear))
    (retouch,) = retouch_faces(photo, [face], [RestoredCrop(seen)], RestoreOptions(grain=0, strength=1.0))
    assert retouch.patch is not None
    assert 12.92 * np.abs(retouch.patch.restored - face.crop.astype(int)).max() <= 257


def _pasted(photo: Photo, landmarks: np.ndarray, draw, options: RestoreOptions) -> tuple[np.ndarray, np.ndarray]:
    """The result and the plainly enlarged photo."""
    box = np.concatenate([landmarks.min(axis=0), landmarks.max(axis=0)])
    face = align_face(photo, DetectedFace(box, landmarks, 0.9), 512)
    retouches = retouch_faces(photo, [face], [RestoredCrop(draw(face.crop))], options)
    height, width = photo.pixels.shape[:2]
    plain = resize_photo(photo.pixels, output_size(width, height, options.upscale))
    canvas = plain.copy()
    paste_faces(canvas, photo.pixels, [each.patch for each in retouches if each.patch], canvas_is_resized_photo=True)
    return canvas, plain


@pytest.mark.parametrize("mask", ["face", "head", "square"])
@pytest.mark.parametrize("crop_pixels", [40, 120, 400])
def test_on_a_flat_photo_no_seam_is_seen_whatever_was_drawn(mask, crop_pixels: int) -> None:
    photo = Photo(np.full((520, 520, 3), 120, np.uint8), PhotoMetadata("PNG"))
    landmarks = (FACE_TEMPLATE - 256) * (crop_pixels / 512) + 260
    drawn = cv2.resize(
        np.random.default_rng(1).integers(0, 256, (24, 24, 3), dtype=np.uint8),
        (512, 512),
        interpolation=cv2.INTER_CUBIC,
    )
    result, plain = _pasted(photo, landmarks, lambda crop: drawn, RestoreOptions(strength=1.0, mask=mask))
    assert (result != plain).any()
    assert seam_step(result, plain) < 12


@pytest.mark.parametrize("name", sorted(EYES))
def test_on_real_photos_the_border_is_hardly_steeper_than_the_photo(name: str, real_photos) -> None:
    photo = read_photo(real_photos / name)
    to_crop = similarity_transform(np.array(EYES[name]), face_template(512)[:2])
    landmarks = map_points(invert(to_crop), face_template(512))

    def draw(crop: np.ndarray) -> np.ndarray:
        smooth = cv2.bilateralFilter(crop, 0, 30, 5).astype(np.float32)
        return np.clip(smooth + 3 * (smooth - cv2.GaussianBlur(smooth, (0, 0), 4)), 0, 255).astype(np.uint8)

    result, plain = _pasted(photo, landmarks, draw, RestoreOptions(strength=1.0))
    assert np.abs(result.astype(float) - plain).max() > 30
    assert seam_step(result, plain) < 12
    assert seam_ratio(result, plain) < 1.5


@pytest.mark.parametrize("model", ["constant", "blurred", "shifted", "inverted", "sharpened"])
@pytest.mark.parametrize("photo_kind", ["sharp", "half blurred", "noisy"])
def test_a_sharp_face_of_1500_pixels_keeps_its_gradients_whatever_the_model(photo_kind: str, model: str) -> None:
    lightness = leaves(seed=2, size=1600, count=12000).copy()
    if photo_kind == "half blurred":
        lightness[:, 800:] = cv2.GaussianBlur(lightness, (0, 0), 9)[:, 800:]
    elif photo_kind == "noisy":
        lightness += np.random.default_rng(0).normal(0, 4, lightness.shape).astype(np.float32)
    pixels = np.repeat(np.clip(lightness * 2.55, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
    photo = Photo(np.ascontiguousarray(pixels), PhotoMetadata("PNG"))

    def draw(crop: np.ndarray) -> np.ndarray:
        blurred = cv2.GaussianBlur(crop, (0, 0), 3)
        return {
            "constant": np.full_like(crop, 128),
            "blurred": blurred,
            "shifted": np.roll(crop, 9, axis=1),
            "inverted": 255 - crop,
            "sharpened": cv2.addWeighted(crop, 2, blurred, -1, 0),
        }[model]

    landmarks = (FACE_TEMPLATE - 256) * (1500 / 512) + 800
    result, plain = _pasted(photo, landmarks, draw, RestoreOptions(upscale=1))
    after, before = (float(np.square(np.diff(each[..., 0].astype(float), axis=1)).sum()) for each in (result, plain))
    assert after >= 0.98 * before
