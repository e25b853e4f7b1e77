"""Photos are read upright, at their depth, in their colours, with all that stands beside the pixels."""

from __future__ import annotations

import os
import struct
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps, PngImagePlugin
from raw_tiffs import long, short, undefined, write_raw_tiff
from sample_photos import chunk, colours, full_metadata, photo, profile, saved

from gfprestore.errors import PhotoError
from gfprestore.photofile import read_photo, write_photo


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


@pytest.mark.parametrize("suffix", [".tif", ".jpg", ".png", ".webp"])
@pytest.mark.parametrize("form", ['tiff:Orientation="%d"/>', "tiff:Orientation='%d'/>", "><tiff:Orientation>%d</a>"])
def test_an_orientation_that_only_xmp_names_is_applied_once(suffix: str, form: str, tmp_path: Path) -> None:
    packet = b"<a " + (form % 6).encode()
    for dtype in (np.uint8, np.uint16) if suffix == ".tif" else (np.uint8,):
        path = tmp_path / f"a{suffix}"
        if suffix == ".tif":
            write_raw_tiff(path, colours(dtype), {700: undefined(packet)})
        else:
            write_photo(path, photo(xmp=packet), quality=100, overwrite=True)
        found = read_photo(path)
        as_stored = np.rot90(found.pixels.astype(int), 1)
        np.testing.assert_allclose(as_stored, colours(dtype), atol=0 if suffix in (".tif", ".png") else 20)
        write_photo(tmp_path / f"b{suffix}", found, overwrite=True)
        assert read_photo(tmp_path / f"b{suffix}").pixels.shape == found.pixels.shape


@pytest.mark.parametrize("is_late", [True, False])
def test_xmp_before_and_after_the_pixels_of_a_png_is_read(is_late: bool, tmp_path: Path) -> None:
    """Some programs add it at the file's end."""
    write_photo(tmp_path / "a.png", photo())
    data = (tmp_path / "a.png").read_bytes()
    at = data.rindex(b"IEND") - 4 if is_late else data.index(b"IDAT") - 4
    xmp = chunk(b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + b'<a tiff:Orientation="6"/>')
    (tmp_path / "a.png").write_bytes(data[:at] + xmp + data[at:])
    found = read_photo(tmp_path / "a.png")
    assert found.metadata.xmp == b'<a tiff:Orientation="1"/>'
    np.testing.assert_array_equal(found.pixels, np.rot90(colours(), -1))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_tag_counts_where_xmp_says_otherwise(dtype: type, tmp_path: Path) -> None:
    tags = {274: short("<", 8), 700: undefined(b'<a tiff:Orientation="6"/>')}
    found = read_photo(write_raw_tiff(tmp_path / "a.tif", colours(dtype), tags))
    np.testing.assert_array_equal(found.pixels, np.rot90(colours(dtype), 1))
    assert found.metadata.xmp == b'<a tiff:Orientation="1"/>'


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


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("kind", [None, 0, 1, 2])
def test_a_fourth_channel_is_opacity_only_where_the_file_says_so(
    kind: int | None, dtype: type, order: str, tmp_path: Path
) -> None:
    unit = np.iinfo(dtype).max // 255
    stored = np.full((6, 8, 4), 60 * unit, dtype)
    stored[..., 3] = 120 * unit
    tags = {} if kind is None else {338: short(order, kind)}
    found = read_photo(write_raw_tiff(tmp_path / "a.tif", stored, tags, order=order))
    if kind in (1, 2):
        assert found.alpha is not None and (found.alpha == 120 * unit).all() and found.warnings == ()
    else:
        assert found.alpha is None
        assert found.warnings == (
            "A channel beside the colours was left out, since the file does not call it opacity.",
        )
    # Half of 127.5 shows at an opacity of 120 / 255.
    np.testing.assert_allclose(found.pixels / unit, 127.5 if kind == 1 else 60, atol=0.6)


@pytest.mark.parametrize("header_bytes", [108, 124])
@pytest.mark.parametrize("fourth", ["unused", "opacity"])
def test_a_fourth_byte_of_zero_everywhere_hides_no_bmp(fourth: str, header_bytes: int, tmp_path: Path) -> None:
    """Bitmaps with masks for four channels, BITMAPV4HEADER and BITMAPV5HEADER."""
    height, width = colours().shape[:2]
    opacity = np.zeros((height, width), np.uint8)
    opacity[3:, 5:] = 255 if fourth == "opacity" else 0
    stored = np.dstack([colours()[..., ::-1], opacity])[::-1].tobytes()  # BGRA, the last row first
    sizes = (header_bytes, width, height, 1, 32, 3, len(stored), 2835, 2835, 0, 0)
    header = struct.pack("<IiiHHIIiiII4I", *sizes, 0xFF0000, 0xFF00, 0xFF, 0xFF000000).ljust(header_bytes, b"\0")
    start = 14 + header_bytes
    path = tmp_path / "a.bmp"
    path.write_bytes(struct.pack("<2sIHHI", b"BM", start + len(stored), 0, 0, start) + header + stored)
    found = read_photo(path)
    np.testing.assert_array_equal(found.pixels, colours())
    if fourth == "unused":
        assert found.alpha is None
    else:
        np.testing.assert_array_equal(found.alpha, opacity)


def test_what_an_opacity_of_zero_hides_is_black(tmp_path: Path) -> None:
    stored = np.array([[[9000, 200, 65535, 0], [65535, 300, 0, 400]]], np.uint16)
    found = read_photo(write_raw_tiff(tmp_path / "a.tif", stored, {338: short("<", 1)}))
    assert found.pixels.tolist() == [[[0, 0, 0], [65535, 49151, 0]]]


def test_gray_of_12_bits_is_as_bright_as_it_was(tmp_path: Path) -> None:
    levels = np.array([0, 1, 2047, 2048, 4094, 4095])
    packed = np.frombuffer(bytes.fromhex("".join(f"{level:03x}" for level in levels)), np.uint8)[None]
    tags = {256: long("<", len(levels)), 258: short("<", 12)}
    found = read_photo(write_raw_tiff(tmp_path / "a.tif", packed, tags))
    assert found.pixels[0, :, 0].tolist() == np.rint(levels / 4095 * 65535).tolist()
    assert found.is_gray


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


def with_hidden_level(png: bytes, level: int) -> bytes:
    """A PNG of gray with the chunk tRNS."""
    start, name = png.index(b"IDAT") - 4, b"tRNS" + struct.pack(">H", level)
    return png[:start] + struct.pack(">I", 2) + name + struct.pack(">I", zlib.crc32(name)) + png[start:]


def test_deep_gray_with_a_level_that_hides(tmp_path: Path) -> None:
    path, gray = tmp_path / "a.png", colours(np.uint16)[..., 0]
    write_photo(path, photo(np.uint16, is_gray=True))
    path.write_bytes(with_hidden_level(path.read_bytes(), int(gray[5, 7])))
    found = read_photo(path)
    np.testing.assert_array_equal(found.pixels[..., 0], gray)
    np.testing.assert_array_equal(found.alpha, np.where(gray == gray[5, 7], 0, 65535))
    assert found.is_gray
    write_photo(tmp_path / "b.png", found)
    np.testing.assert_array_equal(read_photo(tmp_path / "b.png").alpha, found.alpha)


@pytest.mark.parametrize(("bits", "hidden"), [(1, 0), (1, 1), (2, 2), (4, 0), (4, 11)])
def test_few_levels_of_gray_one_of_which_hides(bits: int, hidden: int, tmp_path: Path) -> None:
    levels = np.arange(1 << bits)
    rows = int("".join(f"{level:0{bits}b}" for level in levels).ljust(8, "0"), 2).to_bytes(-(-len(levels) * bits // 8))
    header = b"IHDR" + struct.pack(">IIBBBBB", len(levels), 1, bits, 0, 0, 0, 0)
    parts = [header, b"IDAT" + zlib.compress(b"\0" + rows), b"IEND"]
    chunks = [struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in parts]
    path = tmp_path / "a.png"
    path.write_bytes(with_hidden_level(b"\x89PNG\r\n\x1a\n" + b"".join(chunks), hidden))
    found = read_photo(path)
    np.testing.assert_array_equal(found.pixels[0, :, 0], levels * 255 // levels[-1])
    np.testing.assert_array_equal(found.alpha, [np.where(levels == hidden, 0, 255)])


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


def test_ycck_jpegs_are_read_as_their_cmyk_twins(tmp_path: Path) -> None:
    """The same inks stored both ways; Pillow writes the one without a transform, which is turned into the other."""
    patches = np.random.default_rng(0).integers(0, 200, (4, 4, 4), dtype=np.uint8)
    ink = np.asarray(Image.frombytes("CMYK", (4, 4), patches.tobytes()).resize((64, 64)))
    opponent = np.asarray(Image.fromarray(np.ascontiguousarray(ink[:, :, :3])).convert("YCbCr"))
    found = []
    for name, channels in (("cmyk.jpg", ink), ("ycck.jpg", np.dstack([255 - opponent, ink[:, :, 3]]))):
        image = Image.frombytes("CMYK", (64, 64), channels.tobytes())
        path = saved(tmp_path / name, image, quality=100, subsampling=0)
        data = bytearray(path.read_bytes())
        data[data.index(b"Adobe") + 11] = 2 if name == "ycck.jpg" else 0  # the transform, in Adobe's marker
        path.write_bytes(data)
        found.append(read_photo(path).pixels.astype(int))
    assert np.abs(found[0] - found[1]).max() <= 6
    assert np.ptp(found[0]) > 100


@pytest.mark.parametrize("format", ["gif", "webp", "png"])
def test_of_several_frames_the_first_is_read_with_a_warning(format: str, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (9, 9), (90 * n, 0, 0)) for n in range(3)]
    options = {"lossless": True} if format == "webp" else {}
    path = saved(tmp_path / f"a.{format}", frames[0], save_all=True, append_images=frames[1:], **options)
    found = read_photo(path)
    assert not found.pixels.any()
    assert found.warnings == ("Only the first of 3 frames was restored.",)


def test_exif_of_imagemagick_pngs_is_found(tmp_path: Path) -> None:
    block = full_metadata().exif
    assert block is not None
    text = PngImagePlugin.PngInfo()
    text.add_text("Raw profile type exif", f"\nexif\n{len(block):8}\n{block.hex()}\n")
    found = read_photo(saved(tmp_path / "a.png", Image.fromarray(colours()), pnginfo=text))
    assert found.metadata.exif == block


def test_pngs_with_long_profiles_and_texts_are_read(tmp_path: Path) -> None:
    """Pillow takes more than a megabyte for damage unless told otherwise."""
    long = profile("wide") + bytes(2_000_000)
    comment = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 2_000_000))
    write_photo(tmp_path / "a.png", photo(icc_profile=long))
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "b.png").write_bytes(data[:33] + comment + data[33:])
    for name in ("a.png", "b.png"):
        found = read_photo(tmp_path / name)
        assert found.metadata.icc_profile == long
        np.testing.assert_array_equal(found.pixels, colours())
    (tmp_path / "b.png").write_bytes(data[:33] + 40 * comment + data[33:])
    with pytest.raises(PhotoError):
        read_photo(tmp_path / "b.png")


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
