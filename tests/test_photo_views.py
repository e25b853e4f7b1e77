"""The sizes at which a photo is searched: bounds, and exact ways back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gfprestore.geometry import map_points
from gfprestore.photo import DetectedFace
from gfprestore.photo_views import COARSE_VIEW, PADDING, VIEWS, View, make_looks, turn_face_back, turn_photo

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

    assert sizes(4032, 3024) == [(2560, 1920), (1280, 960), (640, 480)]
    assert sizes(1024, 768) == [(1280, 960), (640, 480)]
    assert sizes(200, 100) == [(400, 200), (200, 100)]
    assert sizes(1, 1) == [(2, 2), (1, 1)]
    # A panorama keeps enough height for its faces.
    assert sizes(9000, 300)[0][1] >= 200


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
