"""JPEGs written in bands are those that an encoder makes of the whole photo at once."""

from __future__ import annotations

import io
import tracemalloc

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, JpegImagePlugin
from sample_photos import full_metadata, profile

from gfprestore.formats import jpegwriter
from gfprestore.formats.filepixels import FilePixels
from gfprestore.formats.jpegwriter import write_jpeg
from gfprestore.photo import Photo, PhotoMetadata, Pixels

SAMPLINGS = st.sampled_from([0, 1, 2])


def noise(height: int, width: int, *, is_gray: bool = False) -> Pixels:
    """Smooth and rough parts, so that all frequencies occur; equal channels for gray."""
    random = np.random.default_rng(height * 1000 + width)
    levels = random.integers(0, 256, (height, width, 1 if is_gray else 3))
    levels[:, : width // 2] = levels[:, : width // 2] // 8 + np.arange(height)[:, None, None] % 200
    return np.ascontiguousarray(np.broadcast_to(levels, (height, width, 3)).astype(np.uint8))


def written(
    pixels: Pixels, metadata: PhotoMetadata, *, quality: int | None = None, is_gray: bool = False, band: int = 1 << 20
) -> bytes:
    stream = io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jpegwriter, "BAND_PIXELS", band)
        write_jpeg(stream, FilePixels(Photo(pixels, metadata, is_gray=is_gray)), metadata, quality)
    return stream.getvalue()


def at_once(pixels: Pixels, *, is_gray: bool = False, **settings: object) -> bytes:
    """What Pillow makes of the whole."""
    stream = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if is_gray else pixels).save(stream, "JPEG", **settings)
    return stream.getvalue()


def decoded(data: bytes) -> tuple[Pixels, Pixels]:
    """What two decoders read, the one of which stops at every damage."""
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return np.asarray(image), cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 200), st.integers(1, 70), SAMPLINGS, st.booleans(), st.integers(1, 5000), st.integers(30, 100))
def test_bands_decode_to_the_same_pixels_as_the_whole(
    height: int, width: int, subsampling: int, is_gray: bool, band: int, quality: int
) -> None:
    pixels = noise(height, width, is_gray=is_gray)
    usual = at_once(pixels, is_gray=is_gray, quality=quality, subsampling=subsampling)
    with Image.open(io.BytesIO(usual)) as image:
        tables = {number: list(table) for number, table in image.quantization.items()}  # type: ignore[attr-defined]
    metadata = PhotoMetadata("JPEG", jpeg_tables=tables, jpeg_subsampling=subsampling)
    ours = written(pixels, metadata, is_gray=is_gray, band=band)
    for found, expected in zip(decoded(ours), decoded(usual), strict=True):
        np.testing.assert_array_equal(found, expected)
    with Image.open(io.BytesIO(ours)) as image:
        assert isinstance(image, JpegImagePlugin.JpegImageFile)
        assert {number: list(table) for number, table in image.quantization.items()} == tables
        assert is_gray or JpegImagePlugin.get_sampling(image) == subsampling


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (17, 33), (250, 301)])
@pytest.mark.parametrize("is_gray", [False, True])
def test_what_fits_into_one_band_is_pillows_own_file(size: tuple[int, int], is_gray: bool) -> None:
    pixels = noise(*size, is_gray=is_gray)
    for quality in (None, 1, 80, 100):
        usual = at_once(pixels, is_gray=is_gray, quality=quality or 95, subsampling=0)
        assert written(pixels, PhotoMetadata("PNG"), quality=quality, is_gray=is_gray) == usual


@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_tables_of_any_maker_and_coarse_ones_are_used_in_every_band(subsampling: int) -> None:
    pixels = noise(300, 40)
    for steps in (3, 70, 300):  # Steps above 255 take 16 bits in the file.
        tables = {0: [min(steps + n, 255 if steps < 256 else 999) for n in range(64)], 1: [steps] * 64}
        ours = written(pixels, PhotoMetadata("JPEG", jpeg_tables=tables, jpeg_subsampling=subsampling), band=700)
        usual = at_once(pixels, qtables=tables, subsampling=subsampling)
        for found, expected in zip(decoded(ours), decoded(usual), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_markers_take_turns_and_the_interval_is_that_of_a_band() -> None:
    """T.81, B.2.4.4 and E.1.4: the same number of units before each marker, and markers count up to 7 and again."""
    data = written(noise(16 * 20 + 5, 100), PhotoMetadata("PNG"), band=16 * 100)
    found = [data[at + 1] - 0xD0 for at in range(len(data) - 1) if data[at] == 0xFF and 0xD0 <= data[at + 1] <= 0xD7]
    assert found == [number % 8 for number in range(20)]
    interval = data.index(b"\xff\xdd\x00\x04")
    assert int.from_bytes(data[interval + 4 : interval + 6], "big") == 13 * 2  # 100 pixels are 13 blocks.


def test_no_band_has_more_units_than_a_restart_interval_counts() -> None:
    """T.81, table B.7: up to 65535. Units are 8 x 8 pixels, the last in a row filled up; one band needs no interval."""
    widths = np.arange(1, 65501)
    rows = np.maximum(16, jpegwriter.BAND_PIXELS // widths)
    units = -(-rows // 8) * -(-widths // 8)
    assert units[rows < 65500].max() <= 65535


def test_the_widest_photo_fits_into_a_restart_interval() -> None:
    pixels = np.zeros((40, 65500, 3), np.uint8)
    pixels[:, ::7] = 200
    for found, expected in zip(
        decoded(written(pixels, PhotoMetadata("PNG"))), decoded(at_once(pixels, quality=95, subsampling=0)), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


def test_metadata_stand_once_in_a_file_of_many_bands() -> None:
    long = bytearray(profile("wide"))
    long += np.random.default_rng(0).integers(0, 256, 150_000, np.uint8).tobytes()  # Three segments.
    base = full_metadata()
    metadata = PhotoMetadata("JPEG", base.exif, bytes(long), base.xmp, base.iptc, (300.0, 150.0), comment=b"attic")
    pixels = noise(333, 100)
    data = written(pixels, metadata, band=1600)
    usual = at_once(pixels, quality=95, subsampling=0)
    assert base.exif is not None and base.iptc is not None
    assert [data.count(part) for part in (b"JFIF", base.exif, base.iptc, b"attic", b"ICC_PROFILE")] == [1, 1, 1, 1, 3]
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (100, 333)
        assert image.info["icc_profile"] == bytes(long)
        assert image.info["exif"] == b"Exif\x00\x00" + base.exif
        assert image.info["xmp"] == base.xmp
        assert image.info["comment"] == b"attic"
        assert image.info["dpi"] == (300, 150)
    np.testing.assert_array_equal(decoded(data)[0], decoded(usual)[0])


def test_metadata_may_look_like_the_encoders_own_segments() -> None:
    """Frame and scan are found by the lengths of what stands before them, not by their look."""
    lookalike = b"\xff\xc0\x00\x11\x08\x00\x10\x00\x10\xff\xda\x00\x0c\xff\xd9" * 20
    pixels = noise(100, 50)
    data = written(pixels, PhotoMetadata("JPEG", xmp=lookalike, comment=lookalike), band=800)
    np.testing.assert_array_equal(decoded(data)[0], decoded(at_once(pixels, quality=95, subsampling=0))[0])
    with Image.open(io.BytesIO(data)) as image:
        assert image.info["comment"] == image.info["xmp"] == lookalike


def test_tables_that_no_encoder_takes() -> None:
    with pytest.raises(ValueError, match="quantization"):
        written(noise(100, 50), PhotoMetadata("JPEG", jpeg_tables={0: [1, 2, 3]}), band=800)


def test_the_encoder_holds_bands_and_not_the_photo() -> None:
    """Python's own allocations: the array for Pillow, what it writes to, and the file's parts."""

    class Sink(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: object) -> int:
            return len(data)  # type: ignore[arg-type]

    pixels = noise(4000, 500)
    tracemalloc.start()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(jpegwriter, "BAND_PIXELS", 16 * 500)
            write_jpeg(Sink(), FilePixels(Photo(pixels, PhotoMetadata("PNG"))), PhotoMetadata("PNG"), None)  # type: ignore[arg-type]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < pixels.nbytes / 8
