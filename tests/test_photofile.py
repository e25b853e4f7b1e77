"""Photos survive the way in and out: pixels, depth, opacity, orientation, colours and all that stands beside them."""

from __future__ import annotations

import io
import os
import threading
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from gfprestore.errors import PhotoError
from gfprestore.metadata import tag_as_restored
from gfprestore.photo import Photo, PhotoMetadata, Pixels
from gfprestore.photofile import read_photo, write_photo

LOSSLESS = (".png", ".tiff")


def colours(dtype: type = np.uint8, size: tuple[int, int] = (19, 31)) -> Pixels:
    """Every channel differs, so that swapped channels or axes show; the low bits of 16 are used."""
    y, x = np.mgrid[: size[0], : size[1]]
    pixels = np.stack([x * 8, y * 13, (x + 2 * y) * 3], axis=-1)
    if dtype is np.uint16:
        return (pixels * 257 + x[..., None] * 7 + np.arange(3)).clip(0, 65535).astype(np.uint16)
    return pixels.astype(np.uint8)


def photo(dtype: type = np.uint8, *, is_gray: bool = False, has_alpha: bool = False, **metadata: object) -> Photo:
    pixels = colours(dtype)
    if is_gray:
        pixels = np.repeat(pixels[:, :, :1], 3, axis=2)
    alpha = np.ascontiguousarray(colours(dtype)[:, :, 1]) if has_alpha else None
    return Photo(pixels, PhotoMetadata("PNG", **metadata), alpha, is_gray)  # type: ignore[arg-type]


def saved(path: Path, image: Image.Image, **settings: object) -> Path:
    image.save(path, **settings)
    return path


def profile(kind: str) -> bytes:
    """A profile: sRGB, or one with wide primaries and a gamma of 1.8 made by changing sRGB's numbers."""
    made = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    if kind == "wide":
        for entry in range(int.from_bytes(made[128:132], "big")):
            at = 132 + 12 * entry
            tag, offset = bytes(made[at : at + 4]), int.from_bytes(made[at + 4 : at + 8], "big")
            if tag == b"rXYZ":  # More red than sRGB's 0.436, 0.222, 0.014.
                made[offset + 8 : offset + 20] = b"".join(
                    round(v * 65536).to_bytes(4, "big") for v in (0.610, 0.311, 0.019)
                )
            if tag == b"gXYZ":
                made[offset + 8 : offset + 20] = b"".join(
                    round(v * 65536).to_bytes(4, "big") for v in (0.205, 0.626, 0.061)
                )
    return bytes(made)


@pytest.mark.parametrize("suffix", LOSSLESS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("is_gray", [False, True])
@pytest.mark.parametrize("has_alpha", [False, True])
def test_lossless_formats_keep_every_bit(
    suffix: str, dtype: type, is_gray: bool, has_alpha: bool, tmp_path: Path
) -> None:
    original = photo(dtype, is_gray=is_gray, has_alpha=has_alpha)
    path = tmp_path / f"photo{suffix}"
    assert write_photo(path, original) == ()
    back = read_photo(path)
    assert back.pixels.dtype == dtype
    np.testing.assert_array_equal(back.pixels, original.pixels)
    if has_alpha:
        np.testing.assert_array_equal(back.alpha, original.alpha)
    else:
        assert back.alpha is None
    # Gray with opacity at 16 bits is written as four channels, which more readers know.
    assert back.is_gray is (is_gray and not (has_alpha and dtype is np.uint16))
    assert back.warnings == ()


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 40), st.integers(1, 40), st.sampled_from([np.uint8, np.uint16]), st.booleans(), st.sampled_from("<>")
)
def test_other_readers_read_our_tiff(height: int, width: int, dtype: type, is_gray: bool, order: str) -> None:
    from gfprestore.tiffwriter import write_tiff

    values = np.random.default_rng(height).integers(0, np.iinfo(dtype).max, (height, width, 3), dtype=dtype)
    channels = np.ascontiguousarray(values[:, :, 0]) if is_gray else values
    block = (b"II*\x00\x08\x00\x00\x00" if order == "<" else b"MM\x00*\x00\x00\x00\x08") + bytes(6)
    stream = io.BytesIO()
    write_tiff(
        stream,
        channels,
        PhotoMetadata("TIFF", exif=block, dpi=(300, 200.5), xmp=b"<x/>", iptc=b"\x1c\x02\x50\x00\x03Bob"),
    )
    with tifffile.TiffFile(io.BytesIO(stream.getvalue())) as tiff:
        np.testing.assert_array_equal(tiff.asarray(), channels)
        tags = tiff.pages[0].tags
        assert tags["XResolution"].value == (300_000, 1000)
        assert tags["YResolution"].value == (200_500, 1000)
        assert tags["XMP"].value == b"<x/>"
        assert tags["IPTCNAA"].value == b"\x1c\x02\x50\x00\x03Bob"
    decoded = cv2.imdecode(np.frombuffer(stream.getvalue(), np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(decoded if is_gray else decoded[:, :, ::-1], channels)


def test_a_large_tiff_has_several_strips(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, (700, 500, 3), dtype=np.uint16)
    write_photo(tmp_path / "a.tif", Photo(pixels, PhotoMetadata("TIFF")))
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert len(tiff.pages[0].dataoffsets) > 1
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_orientation_is_applied_and_reset(orientation: int, suffix: str, tmp_path: Path) -> None:
    block = Image.Exif()
    block[0x0112] = orientation
    block[0x010F] = "Maker"
    stored = Image.fromarray(colours())
    path = saved(tmp_path / f"a{suffix}", stored, exif=block, **({"lossless": True} if suffix == ".webp" else {}))
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    found = read_photo(path)
    np.testing.assert_array_equal(found.pixels, expected)
    assert found.pixels.flags.c_contiguous
    write_photo(tmp_path / f"b{suffix}", found)
    with Image.open(tmp_path / f"b{suffix}") as image:
        assert image.getexif().get(0x0112, 1) == 1
        assert image.getexif()[0x010F] == "Maker"


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_orientation_of_deep_tiffs_is_applied_once(orientation: int, tmp_path: Path) -> None:
    pixels = colours(np.uint16)
    turns = {1: 0, 3: 2, 6: 3, 8: 1}[orientation]
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, photometric="rgb", extratags=[(0x0112, 3, 1, orientation, True)])
    np.testing.assert_array_equal(read_photo(path).pixels, np.rot90(pixels, turns))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiffs_that_count_from_white(dtype: type, tmp_path: Path) -> None:
    gray = np.ascontiguousarray(colours(dtype)[:, :, 0])
    tifffile.imwrite(tmp_path / "a.tif", gray, photometric="miniswhite")
    found = read_photo(tmp_path / "a.tif")
    np.testing.assert_array_equal(found.pixels[:, :, 2], np.iinfo(dtype).max - gray)
    assert found.is_gray


@pytest.mark.parametrize("order", "<>")
def test_sixteen_bit_tiffs_of_both_byte_orders(order: str, tmp_path: Path) -> None:
    for pixels in (colours(np.uint16), np.ascontiguousarray(colours(np.uint16)[:, :, 0])):
        tifffile.imwrite(tmp_path / "a.tif", pixels, byteorder=order, compression="deflate")
        found = read_photo(tmp_path / "a.tif").pixels
        np.testing.assert_array_equal(found if pixels.ndim == 3 else found[:, :, 0], pixels)


def test_planes_stored_apart_are_read_at_8_bits_and_refused_at_16(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, colours().transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(read_photo(path).pixels, colours())
    tifffile.imwrite(path, colours(np.uint16).transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    with pytest.raises(PhotoError, match="separate planes"):
        read_photo(path)


def test_float_tiffs_from_0_to_1_are_read_and_others_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    gray = np.linspace(0, 1, 24, dtype=np.float32).reshape(4, 6)
    tifffile.imwrite(path, gray)
    found = read_photo(path)
    np.testing.assert_array_equal(found.pixels[:, :, 1], np.rint(gray * 65535))
    assert found.is_gray
    for bad in (gray * 255, gray - 0.5, np.where(gray > 0.5, np.nan, gray)):
        tifffile.imwrite(path, bad.astype(np.float32))
        with pytest.raises(PhotoError, match=r"a\.tif holds floating-point values outside 0 to 1"):
            read_photo(path)


def test_whole_numbers_of_32_bits_and_signed_ones(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    gray = np.array([[0, 2**31, 2**32 - 1]], dtype=np.uint32)
    tifffile.imwrite(path, gray)
    assert read_photo(path).pixels[0, :, 0].tolist() == [0, 2**15, 65535]
    tifffile.imwrite(path, gray.astype(np.int16))
    with pytest.raises(PhotoError, match="signed"):
        read_photo(path)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_modes_read_as_pillow_converts_them(mode: str, tmp_path: Path) -> None:
    stored = Image.fromarray(colours()).convert("RGBA")
    stored.putalpha(Image.fromarray(colours()[:, :, 1].copy()))
    image = stored.convert(mode) if mode != "P" else stored.convert("RGB").convert("P")
    path = saved(tmp_path / ("a.tif" if mode == "CMYK" else "a.png"), image)
    found = read_photo(path)
    np.testing.assert_array_equal(found.pixels, np.asarray(image.convert("RGBA").convert("RGB")))
    assert found.is_gray is (mode in ("1", "L", "LA"))
    assert (found.alpha is not None) is mode.endswith("A")


def test_palettes_with_transparency(tmp_path: Path) -> None:
    image = Image.fromarray(colours()).convert("P")
    path = saved(tmp_path / "a.png", image, transparency=bytes(range(256)))
    found = read_photo(path)
    assert found.alpha is not None
    np.testing.assert_array_equal(found.alpha, np.asarray(image))


def test_a_palette_of_grays_is_gray(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.gif", Image.fromarray(colours()[:, :, 0].copy()))
    found = read_photo(path)
    assert found.is_gray
    write_photo(tmp_path / "b.png", found)
    with Image.open(tmp_path / "b.png") as image:
        assert image.mode == "L"


def test_cmyk_jpegs_are_not_inverted(tmp_path: Path) -> None:
    white = Image.new("CMYK", (16, 16), (0, 0, 0, 0))
    found = read_photo(saved(tmp_path / "a.jpg", white))
    assert found.pixels.min() >= 250
    assert "CMYK" in found.warnings[0]
    assert found.metadata.icc_profile is None


@pytest.mark.parametrize("format", ["tif", "gif", "webp", "png"])
def test_of_several_frames_the_first_is_read_with_a_warning(format: str, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (9, 9), (90 * n, 0, 0)) for n in range(3)]
    options = {"lossless": True} if format == "webp" else {}
    path = saved(tmp_path / f"a.{format}", frames[0], save_all=True, append_images=frames[1:], **options)
    found = read_photo(path)
    assert not found.pixels.any()
    assert found.warnings == (f"Only the first of 3 {'pages' if format == 'tif' else 'frames'} was restored.",)


def test_jpegs_are_written_with_their_sources_tables(tmp_path: Path) -> None:
    noisy = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    for quality, subsampling in ((61, 2), (88, 1), (97, 0)):
        path = saved(tmp_path / "a.jpg", noisy, quality=quality, subsampling=subsampling)
        write_photo(tmp_path / "b.jpg", read_photo(path), overwrite=True)
        found, source = read_photo(tmp_path / "b.jpg").metadata, read_photo(path).metadata
        assert found.jpeg_tables == source.jpeg_tables
        assert found.jpeg_subsampling == source.jpeg_subsampling == subsampling
    write_photo(tmp_path / "c.jpg", read_photo(path), quality=30)
    asked = read_photo(tmp_path / "c.jpg").metadata
    expected = read_photo(saved(tmp_path / "d.jpg", noisy, quality=30)).metadata
    assert asked.jpeg_tables == expected.jpeg_tables
    assert asked.jpeg_subsampling == 0


def full_metadata() -> PhotoMetadata:
    block = Image.Exif()
    block[0x010E] = "Aunt Mary"
    block.get_ifd(0x8769)[0x9003] = "1962:07:01 12:00:00"
    block.get_ifd(0x8769)[0x927C] = b"maker note \x00\x01\x02" * 20
    block.get_ifd(0x8825)[1] = "N"
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="r"><a/></rdf:RDF></x:xmpmeta>'
    return PhotoMetadata(
        "JPEG",
        exif=block.tobytes()[6:],
        icc_profile=profile("wide"),
        xmp=xmp,
        iptc=b"\x1c\x02\x50\x00\x03Bob",
        dpi=(300.0, 150.0),
        comment=b"from the attic",
    )


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_what_stands_beside_the_pixels_is_kept(suffix: str, tmp_path: Path) -> None:
    metadata = full_metadata()
    lost = write_photo(tmp_path / f"a{suffix}", Photo(colours(), metadata))
    found = read_photo(tmp_path / f"a{suffix}").metadata
    assert found.icc_profile == metadata.icc_profile
    assert found.xmp == metadata.xmp
    assert found.exif is not None
    kept = Image.Exif()
    kept.load(found.exif)
    assert kept[0x010E] == "Aunt Mary"
    assert kept.get_ifd(0x8769)[0x9003] == "1962:07:01 12:00:00"
    assert kept.get_ifd(0x8769)[0x927C] == b"maker note \x00\x01\x02" * 20
    assert kept.get_ifd(0x8825)[1] == "N"
    if suffix in (".jpg", ".tif"):
        assert found.iptc == metadata.iptc
        assert lost == ()
    else:
        assert ["IPTC" in sentence for sentence in lost] == [True]
    if suffix != ".webp":
        assert found.dpi == pytest.approx(metadata.dpi, rel=1e-4)
    assert found.comment == (metadata.comment if suffix == ".jpg" else None)


def test_exif_in_a_jpeg_keeps_its_bytes_and_offsets(tmp_path: Path) -> None:
    """Maker notes hold offsets from the block's start, so nothing in it may move."""
    block = full_metadata().exif
    assert block is not None
    path = saved(tmp_path / "a.jpg", Image.fromarray(colours()), exif=b"Exif\x00\x00" + block)
    write_photo(tmp_path / "b.jpg", read_photo(path))
    assert read_photo(tmp_path / "b.jpg").metadata.exif == block
    write_photo(tmp_path / "c.tif", read_photo(path))
    at = block.index(b"maker note")
    assert (tmp_path / "c.tif").read_bytes()[at : at + 10] == b"maker note"


def test_exif_of_imagemagick_pngs_is_found(tmp_path: Path) -> None:
    block = full_metadata().exif
    assert block is not None
    text = PngImagePlugin.PngInfo()
    text.add_text("Raw profile type exif", f"\nexif\n{len(block):8}\n{block.hex()}\n")
    found = read_photo(saved(tmp_path / "a.png", Image.fromarray(colours()), pnginfo=text))
    assert found.metadata.exif == block


@pytest.mark.parametrize("suffix", [".jpg", ".bmp"])
def test_opacity_is_laid_on_white_where_the_format_has_none(suffix: str, tmp_path: Path) -> None:
    pixels = np.full((16, 16, 3), 40, np.uint8)
    alpha = np.zeros((16, 16), np.uint8)
    alpha[8:] = 255
    lost = write_photo(tmp_path / f"a{suffix}", Photo(pixels, PhotoMetadata("PNG"), alpha))
    found = read_photo(tmp_path / f"a{suffix}").pixels
    assert found[:8].min() >= 253
    np.testing.assert_allclose(found[8:], 40, atol=2)
    assert "on white" in lost[0]
    assert write_photo(tmp_path / f"b{suffix}", Photo(pixels, PhotoMetadata("PNG"), alpha | 255)) == ()


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".bmp"])
def test_sixteen_bits_are_rounded_where_the_format_has_eight(suffix: str, tmp_path: Path) -> None:
    original = photo(np.uint16)
    lost = write_photo(tmp_path / f"a{suffix}", original, quality=100)
    assert "reduced to 8" in lost[-1]
    np.testing.assert_allclose(read_photo(tmp_path / f"a{suffix}").pixels, original.pixels / 257, atol=12)


def test_gray_stays_gray_unless_its_profile_is_for_colour(tmp_path: Path) -> None:
    for name, icc_profile, mode in (("a.jpg", None, "L"), ("b.jpg", profile("wide"), "RGB"), ("c.bmp", None, "L")):
        write_photo(tmp_path / name, photo(is_gray=True, icc_profile=icc_profile))
        with Image.open(tmp_path / name) as image:
            assert image.mode == mode
            assert image.info.get("icc_profile") == icc_profile


def test_a_bmp_holds_srgb_since_it_holds_no_profile(tmp_path: Path) -> None:
    from gfprestore.colour import to_srgb

    wide = profile("wide")
    write_photo(tmp_path / "a.bmp", photo(icc_profile=wide))
    np.testing.assert_array_equal(read_photo(tmp_path / "a.bmp").pixels, to_srgb(colours(), wide))


def test_metadata_too_long_for_a_jpeg_is_left_out_and_told(tmp_path: Path) -> None:
    long = PhotoMetadata("PNG", exif=full_metadata().exif + bytes(70_000), xmp=b"x" * 70_000, iptc=b"\x1c" * 70_000)  # type: ignore[operator]
    lost = write_photo(tmp_path / "a.jpg", Photo(colours(), long))
    assert [sentence.split()[1] for sentence in lost] == ["EXIF", "XMP", "IPTC"]
    assert read_photo(tmp_path / "a.jpg").metadata.exif is None


@pytest.mark.parametrize(("suffix", "side"), [(".jpg", 65501), (".webp", 16384)])
def test_sides_beyond_the_formats_limit(suffix: str, side: int, tmp_path: Path) -> None:
    with pytest.raises(PhotoError, match=r"--format png"):
        write_photo(tmp_path / f"a{suffix}", Photo(np.zeros((1, side, 3), np.uint8), PhotoMetadata("PNG")))
    assert list(tmp_path.iterdir()) == []


def test_a_suffix_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(PhotoError, match="--format"):
        write_photo(tmp_path / "a.gif", photo())


def test_the_same_photo_gives_the_same_bytes(tmp_path: Path) -> None:
    metadata = full_metadata()
    for suffix in (".jpg", ".png", ".tif", ".webp", ".bmp"):
        written = []
        for name in ("a", "b"):
            tagged = tag_as_restored(metadata, "GFPGANv1.4", "1.0")
            write_photo(tmp_path / (name + suffix), Photo(colours(), tagged))
            written.append((tmp_path / (name + suffix)).read_bytes())
        assert written[0] == written[1]


def test_photos_are_read_in_threads_without_remarks(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(colours()).save(path, exif=b"Exif\x00\x00II*\x00\xff\xff\x00\x00")
    failures: list[BaseException] = []

    def read() -> None:
        try:
            for _ in range(20):
                assert len(read_photo(path).warnings) == 1
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []


def test_reading_leaves_no_descriptor_open(tmp_path: Path) -> None:
    write_photo(tmp_path / "a.png", photo())
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:-30])
    read_photo(tmp_path / "a.png")
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(5):
        read_photo(tmp_path / "a.png")
        with pytest.raises(PhotoError):
            read_photo(tmp_path / "b.png")
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_real_photos_are_read_as_pillow_reads_them(real_photos: Path) -> None:
    paths = [p for p in sorted(real_photos.rglob("*")) if p.suffix.lower() in (".jpg", ".jpeg", ".png")]
    for path in paths[:6]:
        with Image.open(path) as image:
            expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        np.testing.assert_array_equal(read_photo(path).pixels, expected)
