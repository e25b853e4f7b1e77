"""The compiled way of pasting, beside its formula in slow float64, and what it must refuse."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gfprestore.geometry import Transform, invert, map_points
from gfprestore.native import pasting
from gfprestore.native.library import FOLDER, SUFFIX, Library, kinds

LIBRARIES = [Library(path) for kind in kinds() if (path := FOLDER / f"{kind}{SUFFIX}").exists()]
pytestmark = pytest.mark.skipif(not LIBRARIES, reason="no kernels are built for this processor")

DTYPES = [np.uint8, np.uint16]
UNIT = {np.uint8: 1, np.uint16: 257}
MASKS = ["inside", "all ones", "empty", "anything", "one pixel"]


def cubic(distance: np.ndarray) -> np.ndarray:
    """Keys' kernel of slope -0.75."""
    a, d = -0.75, np.abs(distance)
    near, far = (a + 2) * d**3 - (a + 3) * d**2 + 1, a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
    return np.where(d < 1, near, np.where(d < 2, far, 0.0))


def linear(distance: np.ndarray) -> np.ndarray:
    return np.maximum(0.0, 1 - np.abs(distance))


def read(image: np.ndarray, points: np.ndarray, kernel) -> np.ndarray:
    """An image (h, w, C) at points (N, 2) beyond whose borders the outermost pixels go on, in float64 (N, C)."""
    total = np.zeros((len(points), image.shape[2]))
    whole = np.floor(points).astype(int)
    height, width = image.shape[:2]
    for down in range(-1, 3):
        for across in range(-1, 3):
            column, row = whole[:, 0] + across, whole[:, 1] + down
            weight = kernel(points[:, 0] - column) * kernel(points[:, 1] - row)
            taps = image[row.clip(0, height - 1), column.clip(0, width - 1)].astype(np.float64)
            total += weight[:, None] * taps
    return total


def slow_paste(
    window, base, change, mask, to_change, original=None, tone=None, room=None
) -> tuple[np.ndarray, np.ndarray]:
    """What `paste_face` is to make of a window, and where a rounding is so close to a tie that floats may miss it."""
    height, width = window.shape[:2]
    most = np.iinfo(window.dtype).max
    rows, columns = np.mgrid[:height, :width]
    points = map_points(to_change, np.stack([columns.ravel(), rows.ravel()], axis=1))
    added = change.astype(np.float64) - (0 if original is None else original)
    moved = read(added, points, cubic).reshape(height, width, 3) + (0 if tone is None else tone)
    target = np.rint(base + moved).clip(0, most)
    weight = read(mask[..., None], points, linear).reshape(height, width, 1)
    weight = weight * (1 if room is None else room[..., None])
    blended = window + (target - window) * weight
    # Floats of 24 bits, sums of 16 of them, and positions to 2^-18 of a pixel.
    ties = [np.abs(value - np.floor(value) - 0.5) < 5e-6 * most for value in (base + moved, blended)]
    return np.rint(blended).astype(window.dtype), ties[0] | ties[1]


def some_mask(kind: str, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    mask = np.zeros((height, width), np.float32)
    if kind == "inside":
        mask[1:-1, 1:-1] = rng.random((height - 2, width - 2))
    elif kind == "all ones":
        mask[:] = 1
    elif kind == "anything":
        mask[:] = rng.random((height, width))
    elif kind == "one pixel":
        mask[height // 2, width // 2] = 1
    return mask


def centred(size: tuple[int, int], face: tuple[int, int], magnified: float, angle: float) -> Transform:
    """Window -> face, centre on centre."""
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / magnified
    middle, target = (np.array([(side - 1) / 2 for side in sides]) for sides in (size, face))
    return np.column_stack([turn, target - turn @ middle])


def smooth(shape: tuple[int, ...], most: float, rng: np.random.Generator) -> np.ndarray:
    return cv2.GaussianBlur(rng.uniform(0, most, shape).astype(np.float32), (0, 0), 1.0)


def assert_equal_but_for_ties(result: np.ndarray, expected: np.ndarray, ties: np.ndarray) -> None:
    difference = np.abs(result.astype(int) - expected.astype(int))
    assert difference.max() <= 1
    assert not difference[~ties].any()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 70),
    st.integers(1, 40),
    st.integers(3, 40),
    st.integers(3, 40),
    st.floats(0.3, 6.0),
    st.floats(-3.1, 3.1),
    st.tuples(st.floats(-30, 30), st.floats(-30, 30)),
    st.sampled_from(MASKS),
    st.sampled_from(DTYPES),
    st.tuples(*[st.booleans()] * 4),
    st.integers(0, 2**32 - 1),
)
def test_as_the_formula(
    width, height, face_width, face_height, magnified, angle, offset, kind, dtype, has, seed
) -> None:
    rng = np.random.default_rng(seed)
    most = np.iinfo(dtype).max
    canvas = rng.integers(0, most, (height + 4, width + 6, 3), dtype, endpoint=True)
    window = canvas[2:-2, 3:-3]
    has_original, has_base, has_tone, has_room = has
    change = smooth((face_height, face_width, 3), most, rng)
    mask = some_mask(kind, face_height, face_width, rng)
    to_change = centred((width, height), (face_width, face_height), magnified, angle)
    to_change[:, 2] += offset
    more = {
        "original": rng.integers(0, most, change.shape, dtype) if has_original else None,
        "tone": rng.normal(0, 0.05 * most, window.shape).astype(np.float32) if has_tone else None,
        "room": rng.random((height, width), np.float32) if has_room else None,
    }
    base = rng.integers(0, most, window.shape, dtype, endpoint=True) if has_base else window
    expected, ties = slow_paste(window, base, change, mask, to_change, **more)
    for library in LIBRARIES:
        result = canvas.copy()
        inside = result[2:-2, 3:-3]
        pasting.paste_face(library, inside, base if has_base else inside, change, mask, to_change, **more)
        assert_equal_but_for_ties(inside, expected, ties)
        inside[:] = window
        np.testing.assert_array_equal(result, canvas)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("magnified", "angle"), [(1.0, 0.0), (2.3, 0.3), (5.5, -1.2)])
def test_as_cv2_within_its_own_error(dtype: type, magnified: float, angle: float) -> None:
    rng = np.random.default_rng(1)
    unit = UNIT[dtype]
    change = cv2.GaussianBlur(rng.normal(0, 30 * unit, (90, 100, 3)).astype(np.float32), (0, 0), 2.0)
    mask = np.zeros((90, 100), np.float32)
    mask[10:-10, 10:-10] = 1
    mask = cv2.GaussianBlur(mask, (0, 0), 2.5)
    window = (rng.integers(60, 190, (220, 230, 3)) * unit).astype(dtype)
    to_change = centred((230, 220), (100, 90), magnified, angle)
    flags, border = cv2.WARP_INVERSE_MAP, cv2.BORDER_REPLICATE
    moved = cv2.warpAffine(change, to_change, (230, 220), flags=flags | cv2.INTER_CUBIC, borderMode=border)
    weight = cv2.warpAffine(mask, to_change, (230, 220), flags=flags | cv2.INTER_LINEAR, borderMode=border)
    expected = window + (np.rint(window + moved) - window) * weight[..., None]
    # cv2 may round positions to 1/32 of a pixel.
    slope = max(np.abs(np.diff(change, axis=axis)).max() for axis in (0, 1))
    steep = max(np.abs(np.diff(mask, axis=axis)).max() for axis in (0, 1))
    for library in LIBRARIES:
        result = window.copy()
        pasting.paste_face(library, result, result, change, mask, to_change)
        assert np.abs(result - expected).max() <= 1 + (slope + np.abs(change).max() * steep) * np.sqrt(2) / 32
        assert np.abs(result.astype(float) - window).max() > 5 * unit


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_does_not_change_and_what_has_no_weight_stay_to_the_bit(dtype: type) -> None:
    rng = np.random.default_rng(2)
    canvas = rng.integers(0, np.iinfo(dtype).max, (150, 170, 3), dtype, endpoint=True)
    crop = rng.integers(0, np.iinfo(dtype).max, (64, 64, 3), dtype)
    mask = some_mask("inside", 64, 64, rng)
    to_crop = centred((170, 150), (64, 64), 1.7, 0.4)
    rows, columns = np.mgrid[:150, :170]
    points = map_points(to_crop, np.stack([columns.ravel(), rows.ravel()], axis=1))
    outside = ((points <= 0) | (points >= 63)).any(axis=1).reshape(150, 170)
    for library in LIBRARIES:
        result = canvas.copy()
        pasting.paste_face(library, result, result, crop.astype(np.float32), mask, to_crop, original=crop)
        np.testing.assert_array_equal(result, canvas)
        pasting.paste_face(library, result, result, 255 * UNIT[dtype] - crop.astype(np.float32), mask, to_crop)
        np.testing.assert_array_equal(result[outside], canvas[outside])
        assert (result[~outside] != canvas[~outside]).any()


def test_transforms_that_lead_nowhere_read_nothing_else() -> None:
    """Whatever a transform is, all that is read are the face's own pixels: its border, where they lie beyond it."""
    change, mask = np.full((8, 8, 3), 40, np.float32), np.ones((8, 8), np.float32)
    for library in LIBRARIES:
        for value in (1e300, -1e300, np.inf, -np.inf, np.nan, 1e9):
            window = np.full((3, 40, 3), 100, np.uint8)
            to_change = np.full((2, 3), value)
            pasting.paste_face(library, window, window, change, mask, to_change)
            assert (window == 140).all()


def test_each_library_gives_the_same_picture() -> None:
    rng = np.random.default_rng(3)
    canvas = rng.integers(0, 255, (100, 120, 3), np.uint8)
    change = rng.normal(0, 30, (64, 64, 3)).astype(np.float32)
    mask = some_mask("inside", 64, 64, rng)
    results = []
    for library in LIBRARIES:
        result = canvas.copy()
        pasting.paste_face(library, result, result, change, mask, centred((120, 100), (64, 64), 1.6, 0.2))
        results.append(result.astype(int))
    assert all(np.abs(result - results[0]).max() <= 1 and np.mean(result != results[0]) < 1e-3 for result in results)


@pytest.mark.parametrize(
    "wrong",
    [
        {"base": np.zeros((10, 11, 3), np.uint8)},
        {"base": np.zeros((10, 12, 3), np.uint16)},
        {"base": np.zeros((10, 24, 3), np.uint8)[:, ::2]},
        {"window": np.zeros((10, 12, 3), np.float32)},
        {"window": np.zeros((10, 12, 4), np.uint8)[..., :3]},
        {"window": np.broadcast_to(np.uint8(0), (10, 12, 3))},
        {"change": np.zeros((8, 9, 3), np.float64)},
        {"change": np.zeros((8, 8, 3), np.float32)},
        {"change": np.zeros((8, 9, 4), np.float32)},
        {"mask": np.zeros((8, 9), np.float64)},
        {"mask": np.zeros((9, 8), np.float32).T},
        {"mask": np.zeros((0, 9), np.float32), "change": np.zeros((0, 9, 3), np.float32)},
        {"original": np.zeros((8, 9, 3), np.uint16)},
        {"tone": np.zeros((10, 13, 3), np.float32)[:, :12]},
        {"room": np.zeros((10, 12), np.float64)},
        {"room": np.zeros((12, 10), np.float32)},
        {"window_to_change": np.eye(3)},
    ],
    ids=lambda wrong: " ".join(f"{name}{value.shape}{value.dtype}" for name, value in wrong.items()),
)
def test_arrays_that_do_not_fit_are_refused(wrong: dict[str, np.ndarray]) -> None:
    fitting = {
        "window": np.zeros((10, 12, 3), np.uint8),
        "base": np.zeros((10, 12, 3), np.uint8),
        "change": np.zeros((8, 9, 3), np.float32),
        "mask": np.zeros((8, 9), np.float32),
        "window_to_change": invert(np.array([[1.0, 0, 0], [0, 1.0, 0]])),
    }
    pasting.paste_face(LIBRARIES[0], **fitting)
    with pytest.raises(ValueError):
        pasting.paste_face(LIBRARIES[0], **(fitting | wrong))
