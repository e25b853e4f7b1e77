"""Transforms between pixel frames."""

from __future__ import annotations

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gfprestore.geometry import compose, invert, magnification, map_points, scaling

sides = st.integers(1, 5000)
sizes = st.tuples(sides, sides)


@given(sizes, sizes)
def test_scaling_keeps_the_outer_edges(source: tuple[int, int], target: tuple[int, int]) -> None:
    corners = np.array([[-0.5, -0.5], [source[0] - 0.5, source[1] - 0.5]])
    expected = np.array([[-0.5, -0.5], [target[0] - 0.5, target[1] - 0.5]])
    np.testing.assert_allclose(map_points(scaling(source, target), corners), expected, atol=1e-9)


@given(sizes, sizes)
def test_scaling_and_its_inverse_compose_to_nothing(source: tuple[int, int], target: tuple[int, int]) -> None:
    there_and_back = compose(invert(scaling(source, target)), scaling(source, target))
    np.testing.assert_allclose(there_and_back, np.eye(2, 3), atol=1e-9)
    np.testing.assert_allclose(scaling(target, source), invert(scaling(source, target)), atol=1e-9)


def test_scaling_is_the_frame_of_cv2_resize() -> None:
    ramp = np.tile(np.arange(40, dtype=np.float32), (30, 1))
    resized = cv2.resize(ramp, (100, 90), interpolation=cv2.INTER_LINEAR)
    # A linear ramp resized linearly holds, away from the edges, each pixel's own source coordinate.
    columns = map_points(scaling((100, 90), (40, 30)), np.stack([np.arange(100), np.zeros(100)], axis=1))[:, 0]
    np.testing.assert_allclose(resized[45, 5:95], columns[5:95], atol=1e-4)


def test_compose_applies_the_first_first() -> None:
    turn = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]])
    shift = np.array([[1.0, 0.0, 5.0], [0.0, 1.0, 7.0]])
    point = np.array([[1.0, 2.0]])
    np.testing.assert_allclose(
        map_points(compose(shift, turn), point), map_points(shift, map_points(turn, point)), atol=1e-12
    )


def test_magnification_of_a_turned_scaling() -> None:
    angle = 0.7
    turn = np.array([[np.cos(angle), -np.sin(angle), 3.0], [np.sin(angle), np.cos(angle), -2.0]])
    assert np.isclose(magnification(turn * np.array([2.5, 2.5, 1.0])), 2.5)
