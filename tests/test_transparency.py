"""What opacity hides takes its colours from beside it, and what shows stays as it is."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gfprestore import transparency
from gfprestore.resize import resize_photo
from gfprestore.transparency import fill_hidden


def photo_and_opacity(seed: int, hidden: float, dtype: type = np.uint8) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    pixels = random.integers(1, 256, (31, 40, 3)).astype(dtype)
    return pixels, np.where(random.random((31, 40)) < hidden, 0, random.integers(1, 256, (31, 40))).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 99), hidden=st.sampled_from([0.0, 0.02, 0.5, 0.98, 1.0]), band=st.sampled_from([3, 512]))
def test_what_shows_stays_and_what_is_hidden_takes_a_nearest_colour(
    dtype: type, seed: int, hidden: float, band: int
) -> None:
    pixels, alpha = photo_and_opacity(seed, hidden, dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transparency, "_BAND_ROWS", band)
        filled = fill_hidden(pixels, alpha, 2.0)
    np.testing.assert_array_equal(filled[alpha > 0], pixels[alpha > 0])
    shown, unseen = np.argwhere(alpha > 0), np.argwhere(alpha == 0)[::17]
    if not len(shown):
        np.testing.assert_array_equal(filled, pixels)
        return
    away = np.hypot(*(unseen[:, None] - shown).transpose(2, 0, 1))  # [hidden shown]
    nearest = away.min(axis=1, initial=np.inf)
    is_taken = (filled[tuple(unseen.T)][:, None] == pixels[tuple(shown.T)]).all(axis=2)
    from_taken = np.where(is_taken, away, np.inf).min(axis=1, initial=np.inf)
    assert (from_taken <= nearest * 1.05)[nearest <= 15].all()  # The distances of cv2 are so exact.
    far = unseen[nearest > 17]
    np.testing.assert_array_equal(filled[tuple(far.T)], pixels[tuple(far.T)])


def test_nothing_hidden_costs_nothing() -> None:
    pixels, alpha = photo_and_opacity(0, 0.0)
    assert fill_hidden(pixels, alpha, 2.0) is pixels


@pytest.mark.parametrize("scale", [0.04, 0.37, 1.7, 2, 4])
def test_no_rim_is_seen_whatever_the_photo_is_laid_on(scale: float) -> None:
    """A light photo whose hidden surroundings are black."""
    y, x = np.mgrid[:200, :160]
    alpha = np.where(np.hypot(y - 100, x - 80) < 60, 255, 0).astype(np.uint8)
    pixels = np.where(alpha[..., None] > 0, 200, 0).astype(np.uint8).repeat(3, axis=2)
    size = round(160 * scale), round(200 * scale)
    colours = resize_photo(fill_hidden(pixels, alpha, scale), size)
    opacity = resize_photo(alpha, size)
    np.testing.assert_array_equal(colours[opacity > 0], 200)


def test_memory_beside_the_result_is_a_band() -> None:
    pixels = np.full((6000, 300, 3), 9, np.uint8)
    alpha = np.zeros((6000, 300), np.uint8)
    alpha[::9] = 255
    tracemalloc.start()
    fill_hidden(pixels, alpha, 2.0)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < pixels.nbytes + 600 * 300 * 40
