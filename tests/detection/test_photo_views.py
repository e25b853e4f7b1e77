"""The sizes at which a photo is searched: bounds, and exact ways back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gfprestore.detection.photo_views import (
    COARSE_VIEW,
    PADDING,
    TILED_VIEW,
    VIEWS,
    View,
    cut_tiles,
    make_looks,
    turn_face_back,
    turn_photo,
)
from gfprestore.geometry import map_points
from gfprestore.photo import DetectedFace

SIDES = st.integers(1, 400)


@settings(max_examples=40, deadline=None)
@given(width=SIDES, height=SIDES, pixels=st.integers(30, 50_000), scale=st.sampled_from([1.0, 2.0]))
def test_a_look_spans_exactly_its_photo(width: int, height: int, pixels: int, scale: float) -> None:
    (look,) = make_looks(np.zeros((height, width, 3), np.uint8), [View(pixels, scale, 100.0)])
    corners = map_points(look.to_photo, [[-0.5, -0.5], [look.size[0] - 0.5, look.size[1] - 0.5]])
    np.testing.assert_allclose(corners, [[-0.5, -0.5], [width - 0.5, height - 0.5]], atol=1e-9)
    assert look.pixels.shape[0] % 32 == look.pixels.shape[1] % 32 == 0
    assert 0 <= look.pixels.shape[0] - look.size[1] < 32
    assert 0 <= look.pixels.shape[1] - look.size[0] < 32
    assert look.size[0] <= max(1, round(width * scale))
    # Rounding may add half a pixel to each side.
    assert look.size[0] * look.size[1] <= pixels + look.size[0] + look.size[1] + 1


@pytest.mark.parametrize("view", [View(90 * 60, 1.0, 100.0), View(10**6, 2.0, 100.0)], ids=["shrunk", "enlarged"])
def test_what_is_seen_lies_where_the_transform_says(view: View) -> None:
    x, y = np.meshgrid(np.arange(150), np.arange(100))
    photo = np.stack([x, y, np.zeros_like(x)], axis=2).astype(np.uint8)
    (look,) = make_looks(photo, [view])
    width, height = look.size
    columns, rows = np.meshgrid(np.arange(4, width - 4), np.arange(4, height - 4))
    expected = map_points(look.to_photo, np.stack([columns.ravel(), rows.ravel()], axis=1))
    seen = look.pixels[4 : height - 4, 4 : width - 4, :2].reshape(-1, 2)
    # A ramp's value is its place; 8 bits round it by half a level, area averages again.
    np.testing.assert_allclose(seen, expected, atol=0.76)
    assert abs((seen - expected).mean()) < 0.1


def test_views_of_small_and_large_photos() -> None:
    def sizes(width: int, height: int) -> list[tuple[int, int]]:
        return [look.size for look in make_looks(np.zeros((height, width, 3), np.uint8), VIEWS)]

    assert sizes(4032, 3024) == [(2136, 1632)] * 4 + [(1280, 960), (640, 480)]
    assert sizes(2200, 1500)[0] == (2200, 1500)
    assert sizes(1024, 768) == [(1280, 960), (640, 480)]
    assert sizes(200, 100) == [(400, 200), (200, 100)]
    assert sizes(1, 1) == [(2, 2), (1, 1)]
    # A panorama keeps enough height for its faces.
    assert sizes(9000, 300)[0][1] >= 200


@settings(max_examples=60, deadline=None)
@given(width=st.integers(1, 6000), height=st.integers(1, 6000), data=st.data())
def test_every_small_face_lies_whole_in_the_tile_that_owns_it(width: int, height: int, data: st.DataObject) -> None:
    tiles = cut_tiles((width, height), TILED_VIEW)
    assert min(left for left, *_ in tiles) == min(top for _, top, *_ in tiles) == 0
    assert max(tile[2] for tile in tiles) == width and max(tile[3] for tile in tiles) == height
    x, y = data.draw(st.floats(0, width - 1)), data.draw(st.floats(0, height - 1))
    owners = []
    for left, top, right, bottom, (own_left, own_top, own_right, own_bottom) in tiles:
        assert right - left <= TILED_VIEW.tile_side and bottom - top <= TILED_VIEW.tile_side
        if own_left <= x - left <= own_right and own_top <= y - top <= own_bottom:
            owners.append((left, top, right, bottom))
    assert 1 <= len(owners) <= 4
    reach = 0.7 * TILED_VIEW.largest_face
    for left, top, right, bottom in owners:
        assert max(x - reach, 0) >= left and max(y - reach, 0) >= top
        assert min(x + reach, width - 1) <= right - 1 and min(y + reach, height - 1) <= bottom - 1


def test_tiles_show_the_photo_where_their_transforms_say() -> None:
    x, y = np.meshgrid(np.arange(250), np.arange(200))
    photo = np.stack([x, y, np.zeros_like(x)], axis=2).astype(np.uint8)
    looks = make_looks(photo, [View(10**6, 1.0, largest_face=20.0, tile_side=100)])
    assert len(looks) == 12
    for look in looks:
        width, height = look.size
        left, top = map_points(look.to_photo, [[0, 0]])[0].astype(int)
        np.testing.assert_array_equal(look.pixels[:height, :width], photo[top : top + height, left : left + width])


def test_the_pixels_that_are_looked_at_are_bounded() -> None:
    photo = np.broadcast_to(np.zeros(3, np.uint8), (9000, 14000, 3))
    looked = sum(look.pixels.shape[0] * look.pixels.shape[1] for look in make_looks(photo, VIEWS))
    assert looked < 1.5 * TILED_VIEW.pixels


def test_sixteen_bits_are_seen_as_eight() -> None:
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
    (eight,) = make_looks(photo, [COARSE_VIEW])
    (sixteen,) = make_looks(photo.astype(np.uint16) * 257, [COARSE_VIEW])
    np.testing.assert_array_equal(eight.pixels, sixteen.pixels)
    np.testing.assert_array_equal(eight.pixels[60:, :], np.broadcast_to(PADDING, (4, 96, 3)))


@given(width=st.integers(1, 30), height=st.integers(1, 30), turns=st.integers(0, 3), data=st.data())
def test_a_point_of_the_turned_photo_finds_its_pixel(width: int, height: int, turns: int, data: st.DataObject) -> None:
    photo = np.random.default_rng(0).integers(0, 2**16, (height, width, 3), dtype=np.uint16)
    turned = turn_photo(photo, turns)
    x = data.draw(st.integers(0, turned.shape[1] - 1))
    y = data.draw(st.integers(0, turned.shape[0] - 1))
    face = DetectedFace(np.array([x - 2.0, y - 1.0, x + 3.0, y + 5.0]), np.full((5, 2), [x, y], np.float64), 0.5)
    back = turn_face_back(face, turns, (width, height))
    for column, row in back.landmarks.astype(int):
        np.testing.assert_array_equal(photo[row, column], turned[y, x])
    assert (back.box[2:] > back.box[:2]).all()
    sides = back.box[2:] - back.box[:2]
    assert sorted(sides) == [5.0, 6.0]
