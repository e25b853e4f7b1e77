"""Alignment: closed form against other people's solvers, crops against loops."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.transform import SimilarityTransform

from gfprestore import align
from gfprestore.align import (
    FACE_TEMPLATE,
    align_face,
    alignment_residual,
    cut_crop,
    face_template,
    similarity_transform,
    whole_photo_face,
)
from gfprestore.geometry import invert, map_points, scaling
from gfprestore.native.library import load_library
from gfprestore.photo import DetectedFace, Photo, PhotoMetadata
from gfprestore.resize import resize_photo

landmark_noise = st.lists(st.tuples(st.floats(-20, 20), st.floats(-20, 20)), min_size=5, max_size=5).map(np.array)


@pytest.fixture(params=["kernels", "OpenCV"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the kernels, where there are any, and without."""
    if request.param == "OpenCV":
        monkeypatch.setattr(align, "load_library", lambda: None)


def smooth_values(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The values of `smooth_photo` anywhere, (..., 3)."""
    return np.stack([127 + 100 * np.sin(x / 17 + k) * np.cos(y / 13 - k) for k in range(3)], axis=-1)


def smooth_photo(height: int = 240, width: int = 320) -> Photo:
    rows, columns = np.mgrid[0:height, 0:width]
    return Photo(pixels=smooth_values(columns, rows).round().astype(np.uint8), metadata=PhotoMetadata("PNG"))


@given(landmark_noise, st.floats(0.01, 20), st.floats(-3.14, 3.14), st.floats(-500, 500))
def test_similarity_is_the_least_squares_one(noise: np.ndarray, scale: float, angle: float, shift: float) -> None:
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    source = scale * (FACE_TEMPLATE + noise) @ turn.T + shift
    reference = SimilarityTransform.from_estimate(source, FACE_TEMPLATE)
    np.testing.assert_allclose(similarity_transform(source, FACE_TEMPLATE), reference.params[:2], rtol=1e-6, atol=1e-5)


def test_similarity_never_mirrors() -> None:
    mirrored = FACE_TEMPLATE * [-1.0, 1.0]
    assert np.linalg.det(similarity_transform(mirrored, FACE_TEMPLATE)[:, :2]) > 0


def test_landmarks_that_coincide_are_refused() -> None:
    with pytest.raises(ValueError, match="coincide"):
        similarity_transform(np.zeros((5, 2)), FACE_TEMPLATE)


def test_template_scales_with_the_crop() -> None:
    np.testing.assert_array_equal(face_template(512), FACE_TEMPLATE)
    np.testing.assert_allclose(face_template(256), (FACE_TEMPLATE - 0.5) / 2, atol=1e-9)


def test_template_is_facexlibs() -> None:
    helper = pytest.importorskip("facexlib.utils.face_restoration_helper")
    source = inspect.getsource(helper.FaceRestoreHelper.__init__)
    for value in FACE_TEMPLATE.flat:
        assert f"{value}" in source


def test_residual_tells_a_face_from_nonsense() -> None:
    turned = map_points(scaling((10, 10), (33, 33)), FACE_TEMPLATE)
    assert alignment_residual(turned) < 1e-9
    in_a_row = np.stack([np.arange(5.0) * 10, np.zeros(5)], axis=1)
    assert alignment_residual(in_a_row) > 0.25


def test_aligned_landmarks_lie_on_the_template() -> None:
    photo = smooth_photo()
    landmarks = map_points(scaling((512, 512), (100, 100)), FACE_TEMPLATE) + [60.0, 70.0]
    aligned = align_face(photo, DetectedFace(np.zeros(4), landmarks, 0.9), 512)
    np.testing.assert_allclose(map_points(aligned.to_crop, landmarks), FACE_TEMPLATE, atol=1e-6)
    assert aligned.crop.shape == (512, 512, 3)
    assert aligned.crop.dtype == np.uint8


@settings(max_examples=20, deadline=None)
@given(st.floats(1.0, 4.0), st.floats(-0.5, 0.5), st.sampled_from([np.uint8, np.uint16]), st.booleans())
def test_crop_samples_the_photo_where_the_transform_says(
    scale: float, angle: float, dtype: type, has_kernels: bool
) -> None:
    unit = 257 if dtype == np.uint16 else 1
    pixels = smooth_photo().pixels.astype(dtype) * np.array(unit, dtype)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    to_crop = np.column_stack([turn, [32, 32] - turn @ [160, 120]])
    with pytest.MonkeyPatch.context() as patch:
        if not has_kernels:
            patch.setattr(align, "load_library", lambda: None)
        crop = cut_crop(pixels, to_crop, 64)
    points = np.random.default_rng(0).integers(0, 64, (50, 2))
    expected = smooth_values(*map_points(invert(to_crop), points).T) * unit
    # Half a level from the photo's own rounding, half from the crop's; cv2 places samples on a grid of 1/32 pixel.
    np.testing.assert_allclose(crop[points[:, 1], points[:, 0]], expected, atol=1.5 * unit)


@pytest.mark.usefixtures("either_way")
def test_large_face_is_averaged_down_not_skipped() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (1200, 1200, 3), dtype=np.uint8)
    crop = cut_crop(noise, scaling((1200, 1200), (100, 100)), 100)
    # The mean of 144 uniform values deviates by 6; a bilinear warp alone would leave about 49.
    assert 4 < crop.std() < 9


@pytest.mark.usefixtures("either_way")
def test_crop_beyond_the_photo_is_mirrored() -> None:
    photo = smooth_photo(64, 64)
    shifted = np.array([[1.0, 0.0, 32.0], [0.0, 1.0, 0.0]])
    crop = cut_crop(photo.pixels, shifted, 64)
    np.testing.assert_array_equal(crop[:, :32], photo.pixels[:, 32:0:-1])


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("size", [(30_000, 40), (40, 33_000), (1, 1), (2, 700)])
def test_extreme_photos_have_crops(size: tuple[int, int]) -> None:
    width, height = size
    photo = Photo(pixels=np.full((height, width, 3), 9, np.uint8), metadata=PhotoMetadata("PNG"))
    landmarks = FACE_TEMPLATE * 0.05 + [width / 2, height / 2]
    aligned = align_face(photo, DetectedFace(np.zeros(4), landmarks, 0.9), 512)
    assert (aligned.crop == 9).all()


@pytest.mark.usefixtures("either_way")
def test_whole_photo_as_crop() -> None:
    photo = smooth_photo(256, 256)
    aligned = whole_photo_face(photo, 512)
    np.testing.assert_allclose(map_points(aligned.to_crop, aligned.face.landmarks), FACE_TEMPLATE, atol=1e-9)
    small = photo.pixels.astype(float)
    back = aligned.crop.reshape(256, 2, 256, 2, 3).mean(axis=(1, 3))
    assert np.abs(back - small)[2:-2, 2:-2].max() < 4


def test_a_crop_is_part_of_the_plainly_enlarged_photo() -> None:
    """To the level: in a face that is enlarged, the kernels see the positions that resizing sees."""
    if load_library() is None:
        pytest.skip("OpenCV places samples on a grid of 1/32 pixel")
    pixels = np.random.default_rng(2).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    enlarged = resize_photo(pixels, (210, 270)).astype(int)
    to_crop = scaling((70, 90), (210, 270)) - [[0, 0, 50], [0, 0, 80]]
    crop = cut_crop(pixels, to_crop, 128)
    assert np.abs(crop - enlarged[80:208, 50:178]).max() <= 1
    assert np.mean(crop == enlarged[80:208, 50:178]) > 0.999
