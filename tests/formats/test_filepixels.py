"""Bands of rows put together are the pixels of the file, and none is larger than asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sample_photos import colours, photo

from gfprestore.formats.filepixels import FilePixels
from gfprestore.photo import Photo


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("is_gray", [False, True])
@pytest.mark.parametrize("has_alpha", [False, True])
@pytest.mark.parametrize("rows", [1, 5, 19, 100])
def test_bands_make_up_the_photo(dtype: type, is_gray: bool, has_alpha: bool, rows: int) -> None:
    original = photo(dtype, is_gray=is_gray, has_alpha=has_alpha)
    planes = [original.pixels[:, :, c] for c in range(1 if is_gray else 3)]
    if original.alpha is not None:
        planes.append(original.alpha)
    pixels = FilePixels(original)
    bands = list(pixels.bands(rows))
    assert pixels.size == (19, 31)
    assert all(len(band) == rows for band in bands[:-1])
    assert all(band.flags.c_contiguous and band.dtype == dtype for band in bands)
    np.testing.assert_array_equal(np.concatenate(bands), np.stack(planes, axis=2))


def test_a_format_may_change_the_rows() -> None:
    def without_opacity(band: Photo) -> Photo:
        return replace(band, pixels=255 - band.pixels, alpha=None)

    pixels = FilePixels(photo(has_alpha=True), without_opacity)
    np.testing.assert_array_equal(pixels.rows(3, 9), 255 - colours()[3:9])
