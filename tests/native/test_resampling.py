"""Enlarging and warping by the kernels: against slow float64 twins, at every edge, by any number of threads."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_resize import slow_resize

from gfprestore.geometry import Transform, invert, map_points, scaling
from gfprestore.native import resampling
from gfprestore.native.library import FOLDER, SUFFIX, Library, kinds
from gfprestore.native.resampling import enlarge_lanczos, warp_lanczos

NAMES = [kind for kind in kinds() if (FOLDER / f"{kind}{SUFFIX}").exists()]
PRESENT = [Library(FOLDER / f"{kind}{SUFFIX}") for kind in NAMES]
DTYPES = (np.uint8, np.uint16)
LEVELS = {np.uint8: 0.501, np.uint16: 0.53}
"""Largest difference from float64: half a level of rounding, and what float sums of 64 products lose."""

pytestmark = pytest.mark.skipif(not PRESENT, reason="the kernels were not compiled, or not for this processor")
libraries = st.sampled_from(PRESENT)
dtypes = st.sampled_from(DTYPES)
seeds = st.integers(0, 99)


def noise(shape: tuple[int, ...], dtype: type, seed: int = 0) -> np.ndarray:
    """The hardest image: neighbours share nothing, and sums overshoot."""
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


def rotation(magnification: float, angle: float, centre: tuple[float, float], side: int) -> Transform:
    """Brings `centre` into the middle of a square."""
    turn = magnification * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.column_stack([turn, (side - 1) / 2 - turn @ centre])


def mirrored(index: np.ndarray, size: int) -> np.ndarray:
    return np.abs((index + size - 1) % (2 * size - 2) - (size - 1)) if size > 1 else np.zeros_like(index)


def slow_warp(pixels: np.ndarray, to_square: Transform, side: int) -> np.ndarray:
    """Eight by eight taps about every position, each looked up in the mirrored image."""
    rows, columns = np.mgrid[0:side, 0:side]
    positions = map_points(invert(to_square), np.stack([columns.ravel(), rows.ravel()], axis=1))
    taps = np.floor(positions).astype(int)[..., None] + np.arange(-3, 5)  # [N (x y) tap]
    distances = positions[..., None] - taps
    weights = np.sinc(distances) * np.sinc(distances / 4)
    weights /= weights.sum(axis=2, keepdims=True)
    x, y = mirrored(taps[:, 0], pixels.shape[1]), mirrored(taps[:, 1], pixels.shape[0])
    windows = pixels[y[:, :, None], x[:, None, :]].astype(np.float64)  # [N y x C]
    found = np.einsum("nyxc,ny,nx->nc", windows, weights[:, 1], weights[:, 0])
    return np.clip(found, 0, np.iinfo(pixels.dtype).max).reshape(side, side, 3)


@pytest.mark.parametrize("library", PRESENT, ids=NAMES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [(), (3,)])
def test_every_width_equals_the_slow_twin(library: Library, dtype: type, channels: tuple[int, ...]) -> None:
    for width in range(1, 41):
        pixels = noise((1 + width % 7, width, *channels), dtype, seed=width)
        size = 2 * width + width % 3, 9
        found = enlarge_lanczos(library, pixels, size)
        assert found.shape == (9, size[0], *channels)
        assert found.dtype == dtype
        assert np.abs(found - slow_resize(pixels, size)).max() <= LEVELS[dtype]


@settings(deadline=None, max_examples=60)
@given(
    library=libraries,
    dtype=dtypes,
    old=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    ratios=st.tuples(st.floats(1, 5), st.floats(1, 5)),
    channels=st.sampled_from([(), (3,)]),
    seed=seeds,
)
def test_any_enlargement_equals_the_slow_twin(
    library: Library,
    dtype: type,
    old: tuple[int, int],
    ratios: tuple[float, float],
    channels: tuple[int, ...],
    seed: int,
) -> None:
    pixels = noise((old[1], old[0], *channels), dtype, seed)
    size = int(old[0] * ratios[0]), int(old[1] * ratios[1])
    found = enlarge_lanczos(library, pixels, size)
    assert found.flags.c_contiguous
    assert np.abs(found - slow_resize(pixels, size)).max() <= LEVELS[dtype]


@pytest.mark.parametrize("library", PRESENT, ids=NAMES)
@pytest.mark.parametrize("size", [(1, 1), (256, 33), (257, 33), (511, 32), (769, 16), (1600, 9)])
def test_strips_meet_without_a_seam(library: Library, size: tuple[int, int]) -> None:
    for channels in ((), (3,)):
        pixels = noise((-(-size[1] // 2), -(-size[0] // 3), *channels), np.uint8)
        assert np.abs(enlarge_lanczos(library, pixels, size) - slow_resize(pixels, size)).max() <= LEVELS[np.uint8]


@pytest.mark.parametrize("library", PRESENT, ids=NAMES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_an_axis_that_keeps_its_size_is_left(library: Library, dtype: type) -> None:
    pixels = noise((21, 34, 3), dtype)
    np.testing.assert_array_equal(enlarge_lanczos(library, pixels, (34, 21)), pixels)
    wider = enlarge_lanczos(library, pixels, (70, 21))
    for row in (0, 7, 20):
        np.testing.assert_array_equal(wider[row : row + 1], enlarge_lanczos(library, pixels[row : row + 1], (70, 1)))


@settings(deadline=None, max_examples=60)
@given(
    library=libraries,
    dtype=dtypes,
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    magnification=st.floats(0.4, 9),
    angle=st.floats(-4, 4),
    away=st.tuples(st.floats(-3, 4), st.floats(-3, 4)),
    side=st.integers(1, 90),
    seed=seeds,
)
def test_any_warp_equals_the_slow_twin(
    library: Library,
    dtype: type,
    shape: tuple[int, int],
    magnification: float,
    angle: float,
    away: tuple[float, float],
    side: int,
    seed: int,
) -> None:
    pixels = noise((*shape, 3), dtype, seed)
    centre = away[0] * shape[1], away[1] * shape[0]
    to_square = rotation(magnification, angle, centre, side)
    found = warp_lanczos(library, pixels, to_square, side)
    assert found.shape == (side, side, 3)
    assert found.dtype == dtype
    assert np.abs(found - slow_warp(pixels, to_square, side)).max() <= LEVELS[dtype]


@pytest.mark.parametrize("library", PRESENT, ids=NAMES)
@pytest.mark.parametrize("shift", [0.0, -40.0, 1e5, -3e12, 1e300])
def test_positions_far_outside_are_mirrored_and_need_no_memory(library: Library, shift: float) -> None:
    pixels = noise((3, 5, 3), np.uint8)
    found = warp_lanczos(library, pixels, np.array([[1.0, 0.0, shift], [0.0, 1.0, -shift]]), 64)
    # Whole shifts show whole pixels, as far as doubles tell them apart.
    if abs(shift) < 1e15:
        x = mirrored(np.arange(64) - int(shift), 5)
        y = mirrored(np.arange(64) + int(shift), 3)
        np.testing.assert_array_equal(found, pixels[y[:, None], x])


@pytest.mark.parametrize("library", PRESENT, ids=NAMES)
def test_a_transform_that_makes_positions_infinite_reads_nothing_else(library: Library) -> None:
    squeezed = np.array([[1e-300, 0.0, 1e300], [0.0, 1e-300, 0.0]])
    with np.errstate(over="ignore"):
        found = warp_lanczos(library, np.full((4, 4, 3), 7, np.uint8), squeezed, 8)
    assert (found == 7).all()


@pytest.mark.parametrize("library", PRESENT, ids=NAMES)
def test_results_are_the_same_whatever_the_number_of_threads(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "PIXELS_OF_A_BAND", 1)
    photo, plane = noise((33, 41, 3), np.uint8), noise((33, 41), np.uint16)
    to_square = rotation(2.3, 0.4, (20, 16), 50)

    def results(threads: int) -> list[np.ndarray]:
        monkeypatch.setattr(resampling.cv2, "getNumThreads", lambda: threads)
        enlarged = [enlarge_lanczos(library, pixels, (97, 70)) for pixels in (photo, plane)]
        return [*enlarged, warp_lanczos(library, photo, to_square, 50)]

    expected = results(1)
    for threads in (2, 3, 7, 500):
        for found, same in zip(results(threads), expected, strict=True):
            np.testing.assert_array_equal(found, same)


@pytest.mark.parametrize("library", PRESENT, ids=NAMES)
def test_a_failure_in_a_thread_is_told(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "PIXELS_OF_A_BAND", 1)
    monkeypatch.setattr(resampling.cv2, "getNumThreads", lambda: 2)
    asked = []

    def refuse_the_second(size: int) -> np.ndarray:
        asked.append(size)
        if len(asked) == 2:
            raise MemoryError
        return np.zeros(size, np.uint8)

    monkeypatch.setattr(resampling, "aligned", refuse_the_second)
    with pytest.raises(MemoryError):
        enlarge_lanczos(library, noise((8, 8, 3), np.uint8), (16, 16))


@settings(deadline=None, max_examples=30)
@given(library=libraries, dtype=dtypes, width=st.integers(1, 40), seed=seeds)
def test_equal_channels_stay_equal_and_are_their_plane(library: Library, dtype: type, width: int, seed: int) -> None:
    plane = noise((13, width), dtype, seed)
    gray = np.stack([plane] * 3, axis=2)
    size = 2 * width + 1, 31
    enlarged = enlarge_lanczos(library, gray, size)
    warped = warp_lanczos(library, gray, rotation(1.7, 0.3, (width / 2, 6), 40), 40)
    for result in (enlarged, warped):
        np.testing.assert_array_equal(result[..., 0], result[..., 1])
        np.testing.assert_array_equal(result[..., 0], result[..., 2])
    np.testing.assert_array_equal(enlarged[..., 0], enlarge_lanczos(library, plane, size))


@pytest.mark.parametrize("library", PRESENT, ids=NAMES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_views_are_read_where_they_lie(library: Library, dtype: type) -> None:
    photo = noise((40, 50, 3), dtype)
    views = [
        photo[5:25, 7:31],
        photo[::-1],
        photo[::2, ::2],
        photo[:, ::-1],
        photo[..., ::-1],
        photo.transpose(1, 0, 2),
    ]
    to_square = rotation(1.5, 0.2, (9, 9), 30)
    for view in views:
        copy = view.copy()
        size = 2 * view.shape[1], 2 * view.shape[0]
        np.testing.assert_array_equal(enlarge_lanczos(library, view, size), enlarge_lanczos(library, copy, size))
        np.testing.assert_array_equal(
            enlarge_lanczos(library, view[..., 1], size), enlarge_lanczos(library, copy[..., 1].copy(), size)
        )
        np.testing.assert_array_equal(
            warp_lanczos(library, view, to_square, 30), warp_lanczos(library, copy, to_square, 30)
        )


@pytest.mark.parametrize("library", PRESENT, ids=NAMES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_agrees_with_opencv_as_far_as_that_is_exact(library: Library, dtype: type) -> None:
    smooth = cv2.GaussianBlur(np.random.default_rng(0).random((60, 80, 3)), (0, 0), 2)
    pixels = ((smooth - smooth.min()) / np.ptp(smooth) * np.iinfo(dtype).max).round().astype(dtype)
    size = 160, 120
    there = cv2.resize(pixels, size, interpolation=cv2.INTER_LANCZOS4)
    assert np.abs(enlarge_lanczos(library, pixels, size).astype(int) - there).max() <= 2
    to_square = scaling((80, 60), (128, 128))
    # Its positions are up to 1/64 pixel from where they should be.
    steepest = np.abs(np.diff(pixels.astype(int), axis=1)).max() + np.abs(np.diff(pixels.astype(int), axis=0)).max()
    there = cv2.warpAffine(pixels, to_square, (128, 128), flags=cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REFLECT_101)
    found = warp_lanczos(library, pixels, to_square, 128).astype(int)
    assert np.abs(found - there).max() <= 1.5 * steepest / 64 + 2


def test_weights_are_lanczos_wherever_a_position_lies() -> None:
    fraction = np.linspace(0, 1, 4001)
    taps = np.arange(-3, 5)
    exact = np.sinc(fraction[:, None] - taps) * np.sinc((fraction[:, None] - taps) / 4)
    exact /= exact.sum(axis=1, keepdims=True)
    powers = np.vander(fraction - 0.5, resampling.POWERS, increasing=True)
    assert np.abs(powers @ resampling._lanczos_polynomials().astype(np.float64) - exact).max() < 1.5e-7


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 1), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4, 3), ">u2"),
        np.zeros(4, np.uint8),
    ],
)
def test_other_arrays_are_refused(pixels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="not an image"):
        enlarge_lanczos(PRESENT[0], pixels, (9, 9))
    with pytest.raises(ValueError, match="not an image"):
        warp_lanczos(PRESENT[0], pixels, np.eye(2, 3), 9)


def test_other_sizes_and_transforms_are_refused() -> None:
    pixels = np.zeros((4, 5, 3), np.uint8)
    for size in ((4, 4), (5, 3), (0, 9)):
        with pytest.raises(ValueError, match="cannot be enlarged"):
            enlarge_lanczos(PRESENT[0], pixels, size)
    with pytest.raises(ValueError, match="side 0"):
        warp_lanczos(PRESENT[0], pixels, np.eye(2, 3), 0)
    with pytest.raises(ValueError, match="nan"):
        warp_lanczos(PRESENT[0], pixels, np.full((2, 3), np.nan), 9)
