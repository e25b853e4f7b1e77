"""Pasting: what must not change, what must be smooth, and who wins where faces touch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gfprestore import paste
from gfprestore.align import FACE_TEMPLATE, align_face
from gfprestore.blending.masks import border_mask
from gfprestore.geometry import compose, invert, map_points, scaling
from gfprestore.native.library import load_library
from gfprestore.paste import FacePatch, paste_faces
from gfprestore.photo import DetectedFace, Photo, PhotoMetadata
from gfprestore.resize import output_size, resize_photo

SIZE = 512


@pytest.fixture(params=["compiled", "cv2"], autouse=True, scope="module")
def way(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every rule holds with the kernels and without."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "cv2":
            patch.setattr(paste, "load_library", lambda: None)
        elif load_library() is None:
            pytest.skip("no kernels are built for this processor")
        yield


def textured_photo(height: int = 300, width: int = 400, dtype: type = np.uint8, seed: int = 0) -> Photo:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    pixels = noise.astype(dtype) * np.array(257 if dtype == np.uint16 else 1, dtype)
    return Photo(pixels=pixels, metadata=PhotoMetadata("PNG"))


def landmarks_at(x: float, y: float, width: float, angle: float = 0.0) -> np.ndarray:
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (FACE_TEMPLATE - 256) * (width / SIZE) @ turn.T + [x, y]


def patch_of(photo: Photo, landmarks: np.ndarray, restored: np.ndarray | None = None) -> FacePatch:
    aligned = align_face(photo, DetectedFace(np.zeros(4), landmarks, 0.9), SIZE)
    change = aligned.crop if restored is None else restored
    return FacePatch(original=aligned.crop, restored=change, mask=border_mask(SIZE), to_crop=aligned.to_crop)


def upscaled(photo: Photo, scale: float) -> np.ndarray:
    height, width = photo.pixels.shape[:2]
    return resize_photo(photo.pixels, output_size(width, height, scale))


def mask_reach(patch: FacePatch, photo: Photo, canvas: np.ndarray) -> np.ndarray:
    """Canvas pixels whose centre lies where the mask may be above zero, by the pixel."""
    height, width = canvas.shape[:2]
    to_photo = scaling((width, height), (photo.pixels.shape[1], photo.pixels.shape[0]))
    rows, columns = np.mgrid[0:height, 0:width]
    points = map_points(compose(patch.to_crop, to_photo), np.stack([columns.ravel(), rows.ravel()], axis=1))
    return ((points > 0) & (points < SIZE - 1)).all(axis=1).reshape(height, width)


@settings(max_examples=15, deadline=None)
@given(
    st.floats(0.5, 4.0),
    st.floats(20, 900),
    st.floats(-3.1, 3.1),
    st.sampled_from([np.uint8, np.uint16]),
)
def test_an_unchanged_crop_changes_nothing(scale: float, width: float, angle: float, dtype: type) -> None:
    photo = textured_photo(90, 120, dtype)
    canvas = upscaled(photo, scale)
    before = canvas.copy()
    paste_faces(
        canvas, photo.pixels, [patch_of(photo, landmarks_at(60, 40, width, angle))], canvas_is_resized_photo=True
    )
    np.testing.assert_array_equal(canvas, before)


@pytest.mark.parametrize("scale", [1.0, 2.0, 3.7])
def test_an_unchanged_crop_on_a_drawn_background_gives_the_plain_photo_in_its_tone(scale: float) -> None:
    rows, columns = np.mgrid[0:200, 0:260]
    smooth = 127 + 100 * np.sin(columns / 9) * np.cos(rows / 11)
    photo = Photo(
        pixels=np.repeat(smooth[..., None], 3, axis=2).round().astype(np.uint8), metadata=PhotoMetadata("PNG")
    )
    plain = upscaled(photo, scale)
    grain = 15 * (-1) ** np.indices(plain.shape[:2]).sum(axis=0)[..., None]
    tone = np.array([-9, 4, 6])
    drawn = (plain + tone + grain).astype(np.uint8)
    canvas = drawn.copy()
    patch = patch_of(photo, landmarks_at(130, 100, 120))
    paste_faces(canvas, photo.pixels, [patch], canvas_is_resized_photo=False)
    inside = slice(int(85 * scale), int(115 * scale)), slice(int(115 * scale), int(145 * scale))
    error = canvas[inside].astype(float) - (plain[inside] + tone)
    assert np.sqrt((error**2).mean()) < 0.6


@pytest.mark.parametrize("width", [60, 300])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_face_is_as_light_as_a_background_that_drifts(width: int, dtype: type) -> None:
    """The network's picture is 10 levels darker on one side of the face and 10 lighter on the other."""
    level = 257 if dtype == np.uint16 else 1
    photo = Photo(pixels=np.full((300, 400, 3), 120 * level, dtype), metadata=PhotoMetadata("PNG"))
    drawn = upscaled(photo, 2.0)
    drift = (10 * level * np.tanh((np.arange(800) - 400) / width)).round().astype(int)
    drawn = (drawn + drift[:, None]).astype(dtype)
    canvas = drawn.copy()
    paste_faces(canvas, photo.pixels, [patch_of(photo, landmarks_at(200, 150, width))], canvas_is_resized_photo=False)
    assert np.abs(canvas.astype(int) - drawn).max() <= 1.5 * level


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pixels_outside_the_mask_are_untouched(dtype: type) -> None:
    photo = textured_photo(dtype=dtype)
    patch = patch_of(photo, landmarks_at(200, 150, 120, 0.3), restored=np.zeros((SIZE, SIZE, 3), dtype))
    canvas = upscaled(photo, 2.0)
    before = canvas.copy()
    paste_faces(canvas, photo.pixels, [patch], canvas_is_resized_photo=True)
    changed = (canvas != before).any(axis=2)
    assert changed.any()
    assert not (changed & ~mask_reach(patch, photo, canvas)).any()


@pytest.mark.parametrize("width", [150, 256, 400])
def test_no_step_on_a_flat_photo(width: int) -> None:
    photo = Photo(pixels=np.full((450, 500, 3), 60, np.uint8), metadata=PhotoMetadata("PNG"))
    patch = patch_of(photo, landmarks_at(250, 225, width), restored=np.full((SIZE, SIZE, 3), 255, np.uint8))
    canvas = upscaled(photo, 2.0)
    paste_faces(canvas, photo.pixels, [patch], canvas_is_resized_photo=True)
    assert canvas.max() == 255
    steps = max(np.abs(np.diff(canvas.astype(int), axis=axis)).max() for axis in (0, 1))
    assert steps <= 12


def test_a_moved_dot_comes_back_where_it_was() -> None:
    photo = Photo(pixels=np.zeros((200, 200, 3), np.uint8), metadata=PhotoMetadata("PNG"))
    patch = patch_of(photo, landmarks_at(100, 100, 128))
    where = np.array([240.0, 260.0])
    rows, columns = np.mgrid[0:SIZE, 0:SIZE]
    dot = 255 * np.exp(-((columns - where[0]) ** 2 + (rows - where[1]) ** 2) / (2 * 12.0**2))
    restored = np.repeat(dot[..., None], 3, axis=2).round().astype(np.uint8)
    for scale in (1.0, 2.0, 4.0):
        canvas = upscaled(photo, scale)
        changed = FacePatch(patch.original, restored, patch.mask, patch.to_crop)
        paste_faces(canvas, photo.pixels, [changed], canvas_is_resized_photo=True)
        weights = canvas[..., 0].astype(float)
        rows_c, columns_c = np.mgrid[0 : canvas.shape[0], 0 : canvas.shape[1]]
        centre = np.array([(weights * columns_c).sum(), (weights * rows_c).sum()]) / weights.sum()
        on_canvas = compose(scaling((200, 200), (canvas.shape[1], canvas.shape[0])), invert(patch.to_crop))
        np.testing.assert_allclose(centre, map_points(on_canvas, where[None])[0], atol=0.03 * scale)


def test_detail_finer_than_the_crop_stays() -> None:
    photo = textured_photo(1400, 1400)
    patch = patch_of(photo, landmarks_at(700, 700, 1300))
    darker = FacePatch(
        patch.original, np.maximum(patch.original.astype(int) - 20, 0).astype(np.uint8), patch.mask, patch.to_crop
    )
    canvas = upscaled(photo, 1.0)
    before = canvas.copy()
    paste_faces(canvas, photo.pixels, [darker], canvas_is_resized_photo=True)
    middle = (slice(500, 900), slice(500, 900))
    assert canvas[middle].std() > 0.98 * before[middle].std()
    assert 10 < before[middle].mean() - canvas[middle].mean() < 21


def test_the_larger_face_wins_and_changes_are_not_summed() -> None:
    photo = Photo(pixels=np.full((400, 500, 3), 100, np.uint8), metadata=PhotoMetadata("PNG"))
    small = patch_of(photo, landmarks_at(210, 200, 150), restored=np.full((SIZE, SIZE, 3), 150, np.uint8))
    large = patch_of(photo, landmarks_at(290, 200, 220), restored=np.full((SIZE, SIZE, 3), 180, np.uint8))
    results = []
    for order in ([small, large], [large, small]):
        canvas = upscaled(photo, 1.0)
        paste_faces(canvas, photo.pixels, order, canvas_is_resized_photo=True)
        results.append(canvas)
    np.testing.assert_array_equal(results[0], results[1])
    assert results[0].max() == 180
    assert (results[0][190:210, 240:340] == 180).all()
    assert (results[0][190:210, 180:185] == 150).all()


@pytest.mark.parametrize("where", [(-400, 50), (0, 0), (399, 299)])
def test_faces_at_and_beyond_the_edge(where: tuple[int, int]) -> None:
    photo = textured_photo()
    patch = patch_of(photo, landmarks_at(*where, 200), restored=np.zeros((SIZE, SIZE, 3), np.uint8))
    canvas = upscaled(photo, 2.0)
    before = canvas.copy()
    paste_faces(canvas, photo.pixels, [patch], canvas_is_resized_photo=True)
    assert canvas.shape == before.shape
    assert (canvas != before).any() == (where[0] >= 0)


def test_an_empty_mask_changes_nothing() -> None:
    photo = textured_photo()
    patch = patch_of(photo, landmarks_at(200, 150, 120), restored=np.zeros((SIZE, SIZE, 3), np.uint8))
    canvas = upscaled(photo, 1.0)
    before = canvas.copy()
    masked = FacePatch(patch.original, patch.restored, np.zeros((SIZE, SIZE), np.float32), patch.to_crop)
    paste_faces(canvas, photo.pixels, [masked], canvas_is_resized_photo=True)
    np.testing.assert_array_equal(canvas, before)
