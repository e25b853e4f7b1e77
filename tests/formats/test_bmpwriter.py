"""BMPs written in bands are Pillow's to the byte."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gfprestore.formats import bmpwriter
from gfprestore.formats.bmpwriter import write_bmp
from gfprestore.formats.filepixels import FilePixels
from gfprestore.photo import Photo, PhotoMetadata


@settings(max_examples=40, deadline=None)
@given(
    *(st.integers(1, 40), st.integers(1, 20), st.booleans(), st.integers(1, 500)),
    st.sampled_from([None, (300.0, 150.0), (72.0, 72.0)]),
)
def test_bands_make_the_file_that_pillow_makes(
    height: int, width: int, is_gray: bool, band_bytes: int, dpi: tuple[float, float] | None
) -> None:
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3)).astype(np.uint8)
    if is_gray:
        pixels[:] = pixels[:, :, :1].copy()
    usual, ours = io.BytesIO(), io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if is_gray else pixels).save(usual, "BMP", **({} if dpi is None else {"dpi": dpi}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bmpwriter, "_BAND_BYTES", band_bytes)
        write_bmp(ours, FilePixels(Photo(pixels, PhotoMetadata("BMP"), is_gray=is_gray)), dpi)
    assert ours.getvalue() == usual.getvalue()


def test_a_file_over_four_gibibytes_is_refused_before_it_is_written() -> None:
    row = np.zeros((1, 40_000, 3), np.uint8)
    tall = Photo(np.broadcast_to(row, (40_000, 40_000, 3)), PhotoMetadata("BMP"))
    stream = io.BytesIO()
    with pytest.raises(ValueError, match="--format png"):
        write_bmp(stream, FilePixels(tall), None)
    assert stream.getvalue() == b""
