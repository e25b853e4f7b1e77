"""Photos are written as they are: pixels, depth, opacity, quality and all that stands beside the pixels."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sample_photos import LOSSLESS, colours, full_metadata, gray_profile, photo, profile, saved, scanner_profile, shown

from gfprestore.colour import to_srgb
from gfprestore.errors import PhotoError
from gfprestore.formats import exif
from gfprestore.formats.filepixels import FilePixels
from gfprestore.formats.metadata import tag_as_restored
from gfprestore.formats.tiffwriter import write_tiff
from gfprestore.photo import Photo, PhotoMetadata
from gfprestore.photofile import read_photo, write_photo


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
    # Gray with opacity at 16 bits goes into a TIFF as four channels, which more readers know.
    assert back.is_gray is (is_gray and not (has_alpha and dtype is np.uint16 and suffix == ".tiff"))
    assert back.warnings == ()


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 40), st.integers(1, 40), st.sampled_from([np.uint8, np.uint16]), st.booleans(), st.sampled_from("<>")
)
def test_other_readers_read_our_tiff(height: int, width: int, dtype: type, is_gray: bool, order: str) -> None:
    values = np.random.default_rng(height).integers(0, np.iinfo(dtype).max, (height, width, 3), dtype=dtype)
    if is_gray:
        values = np.repeat(values[:, :, :1], 3, axis=2)
    channels = values[:, :, 0] if is_gray else values
    block = (b"II*\x00\x08\x00\x00\x00" if order == "<" else b"MM\x00*\x00\x00\x00\x08") + bytes(6)
    stream = io.BytesIO()
    write_tiff(
        stream,
        FilePixels(Photo(values, PhotoMetadata("TIFF"), is_gray=is_gray)),
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


def renumbered(data: bytes, tables: dict[int, int]) -> bytes:
    """A JPEG of Pillow's with other numbers for its quantisation tables."""
    edited, at = bytearray(data), 2
    while edited[at + 1] != 0xDA:
        length = int.from_bytes(edited[at + 2 : at + 4], "big")
        if edited[at + 1] == 0xDB:
            places = range(at + 4, at + 2 + length, 65)
        elif edited[at + 1] == 0xC0:
            places = range(at + 12, at + 2 + length, 3)
        else:
            places = range(0)
        for place in places:
            edited[place] = tables[edited[place]]
        at += 2 + length
    return bytes(edited)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("tables", [{0: 1, 1: 2}, {0: 2, 1: 0}, {0: 1, 1: 0}, {0: 3, 1: 1}])
def test_tables_may_have_any_numbers(mode: str, tables: dict[int, int], tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", Image.fromarray(colours()).convert(mode), quality=60)
    usual = read_photo(path)
    path.write_bytes(renumbered(path.read_bytes(), tables))
    found = read_photo(path)
    np.testing.assert_array_equal(found.pixels, usual.pixels)
    assert found.metadata.jpeg_tables == usual.metadata.jpeg_tables
    write_photo(tmp_path / "b.jpg", found)
    write_photo(tmp_path / "c.jpg", usual)
    assert (tmp_path / "b.jpg").read_bytes() == (tmp_path / "c.jpg").read_bytes()


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
    assert found.iptc == (metadata.iptc if suffix != ".webp" else None)
    assert found.dpi == pytest.approx(metadata.dpi, rel=1e-4)
    assert found.comment == (metadata.comment if suffix == ".jpg" else None)
    if suffix == ".png":
        assert found.png_text == ((b"tEXt", b"Comment\0from the attic"),)
    told = {".webp": ["IPTC", "comment"], ".tif": ["comment"]}.get(suffix, [])
    assert [word in sentence for word, sentence in zip(told, lost, strict=True)] == [True] * len(told)


@pytest.mark.parametrize("comment", [b"attic", "Großmutter".encode(), "Großmutter".encode("latin-1"), b"a\0b\0"])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_a_comment_becomes_text_or_a_description(comment: bytes, suffix: str, tmp_path: Path) -> None:
    text = comment.rstrip(b"\0").replace(b"\0", b" ")
    empty = Image.Exif()
    empty[0x010E] = "    "
    for block in (None, empty.tobytes()[6:]):
        path = tmp_path / f"a{suffix}"
        assert write_photo(path, photo(comment=comment, exif=block), overwrite=True) == ()
        found = read_photo(path).metadata
        if suffix == ".png":
            ((name, content),) = found.png_text
            assert content == b"Comment" + bytes(5 if name == b"iTXt" else 1) + text
            with Image.open(path) as image:
                assert image.info["Comment"].encode("utf-8" if name == b"iTXt" else "latin-1") == text
        else:
            assert exif.text(found.exif or b"", exif.DESCRIPTION) == text
            assert write_photo(path, photo(comment=comment, exif=found.exif), overwrite=True) == ()
    write_photo(tmp_path / f"b{suffix}", photo(comment=b"\0"))
    assert read_photo(tmp_path / f"b{suffix}").metadata.png_text == ()


@pytest.mark.parametrize("block", [None, b"II*\0\x08\0\0\0" + bytes(6), b"MM\0*\0\0\0\x08" + bytes(6)])
def test_a_webp_holds_the_resolution_in_its_exif(block: bytes | None, tmp_path: Path) -> None:
    write_photo(tmp_path / "a.webp", photo(dpi=(600.0, 299.5), exif=block))
    with Image.open(tmp_path / "a.webp") as image:
        found = image.getexif()
    assert [float(found[tag]) for tag in (0x011A, 0x011B, 0x0128)] == [600, 299.5, 2]
    again = read_photo(tmp_path / "a.webp")
    assert again.metadata.dpi == (600.0, 299.5)
    write_photo(tmp_path / "b.webp", again)
    assert read_photo(tmp_path / "b.webp").metadata.exif == again.metadata.exif


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


STORAGE = {254: 1, 262: 6, 266: 2, 322: 32, 323: 32, 324: (8, 9), 325: (1, 1), 330: 8, 338: 2, 339: (3, 3, 3), 532: 5}
"""Of a reduced copy in tiles, bits the other way round, with opacity and floating point: tags as Pillow takes them."""


@pytest.mark.parametrize("tag", STORAGE)
def test_how_pixels_were_stored_elsewhere_is_not_said_of_a_tiffs(tag: int, tmp_path: Path) -> None:
    """Programs that turn TIFF into JPEG carry its tags along in the EXIF block."""
    block = Image.Exif()
    block[tag] = STORAGE[tag]
    block[0x010E] = "Aunt Mary"
    block[0x4746] = 5
    block[0x9003] = "1962:07:01 12:00:00"
    block.get_ifd(0x8825)[1] = "N"
    path = tmp_path / "a.tif"
    write_photo(path, Photo(colours(), PhotoMetadata("JPEG", exif=block.tobytes()[6:])))
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.asarray(image), colours())
        found = image.getexif()
        assert (found[0x010E], found[0x4746], found[0x9003]) == ("Aunt Mary", 5, "1962:07:01 12:00:00")
        assert found.get_ifd(0x8825)[1] == "N"
        assert found.get(tag) in (None, 2)  # RGB, by its own right.
    np.testing.assert_array_equal(tifffile.imread(path), colours())


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


def test_a_profile_for_gray_does_not_go_into_a_webp(tmp_path: Path) -> None:
    """Its pixels are colours, gray ones too."""
    for_gray = profile("srgb")[:16] + b"GRAY" + profile("srgb")[20:]
    for suffix, kept in ((".png", for_gray), (".webp", None)):
        write_photo(tmp_path / f"a{suffix}", photo(is_gray=True, icc_profile=for_gray))
        assert read_photo(tmp_path / f"a{suffix}").metadata.icc_profile == kept


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp", ".bmp"])
@pytest.mark.parametrize("is_gray", [True, False])
def test_gray_looks_the_same_where_its_profile_is_dropped(suffix: str, is_gray: bool, tmp_path: Path) -> None:
    flat = Image.fromarray(np.full((40, 40), 128, np.uint8))
    path = saved(tmp_path / "gray.png", flat, icc_profile=gray_profile(1.8))
    expected = shown(path)[20, 20]
    assert abs(int(expected[0]) - 128) > 10
    write_photo(tmp_path / f"a{suffix}", replace(read_photo(path), is_gray=is_gray))
    np.testing.assert_allclose(shown(tmp_path / f"a{suffix}")[20, 20], expected.astype(int), atol=1)


@pytest.mark.parametrize("page", [0, 1])
def test_deep_gray_with_opacity_looks_the_same_in_a_tiff(page: int, tmp_path: Path) -> None:
    """It takes four channels there, for which a profile for gray is none."""
    own = photo(np.uint16, is_gray=True, has_alpha=True, icc_profile=gray_profile(1.8))
    path = tmp_path / "a.tif"
    write_photo(path, own if page == 0 else photo(), further_pages=[own] if page else [])
    found = read_photo(path, page)
    assert found.metadata.icc_profile is None
    np.testing.assert_array_equal(found.pixels, to_srgb(own.pixels, gray_profile(1.8)))
    np.testing.assert_array_equal(found.alpha, own.alpha)
    # PNG holds gray with opacity, and the profile with it.
    write_photo(tmp_path / "a.png", own)
    kept = read_photo(tmp_path / "a.png")
    assert kept.is_gray and kept.metadata.icc_profile == gray_profile(1.8)
    np.testing.assert_array_equal(kept.pixels, own.pixels)


def test_a_bmp_holds_srgb_since_it_holds_no_profile(tmp_path: Path) -> None:
    wide = profile("wide")
    write_photo(tmp_path / "a.bmp", photo(icc_profile=wide))
    np.testing.assert_array_equal(read_photo(tmp_path / "a.bmp").pixels, to_srgb(colours(), wide))


def test_a_bmp_of_a_scan_whose_profile_leads_no_way_back_looks_the_same(tmp_path: Path) -> None:
    path = tmp_path / "scan.png"
    write_photo(path, photo(icc_profile=scanner_profile(1.0)))
    write_photo(tmp_path / "a.bmp", read_photo(path))
    np.testing.assert_allclose(shown(tmp_path / "a.bmp"), shown(path).astype(int), atol=1)


def test_metadata_too_long_for_a_jpeg_is_left_out_and_told(tmp_path: Path) -> None:
    long = PhotoMetadata("PNG", exif=full_metadata().exif + bytes(70_000), xmp=b"x" * 70_000, iptc=b"\x1c" * 70_000)  # type: ignore[operator]
    lost = write_photo(tmp_path / "a.jpg", Photo(colours(), long))
    assert [sentence.split()[1] for sentence in lost] == ["EXIF", "XMP", "IPTC"]
    assert read_photo(tmp_path / "a.jpg").metadata.exif is None


@pytest.mark.parametrize(("room", "padding", "told"), [(500, 0, ()), (50, 0, ("EXIF", "XMP")), (50, 600, ("EXIF",))])
def test_a_tag_without_room_in_a_jpeg_costs_nothing_else(
    room: int, padding: int, told: tuple[str, ...], tmp_path: Path
) -> None:
    base = full_metadata()
    head = b"<x:xmpmeta xmlns:rdf='r'><rdf:RDF>Aunt"
    tail = b" " * padding + b"</rdf:RDF></x:xmpmeta>" + b" " * padding + b'<?xpacket end="w"?>'
    packet = head + b"x" * (65504 - room - len(head + tail)) + tail
    block = (base.exif or b"") + bytes(65527 - room - len(base.exif or b""))
    untagged = photo(exif=block, xmp=packet)
    assert write_photo(tmp_path / "a.jpg", untagged) == ()
    tagged = replace(untagged, metadata=tag_as_restored(untagged.metadata, "a model", "1"))
    notes = write_photo(tmp_path / "b.jpg", tagged)
    assert [note.split()[1] for note in notes] == list(told)
    assert all("no room for the tag" in note for note in notes)
    found = read_photo(tmp_path / "b.jpg").metadata
    assert found.exif is not None and exif.text(found.exif, exif.DESCRIPTION) == b"Aunt Mary"
    assert (b"a model" in exif.text(found.exif, exif.SOFTWARE)) is ("EXIF" not in told)
    assert found.xmp is not None and found.xmp.startswith(head)
    assert (b"a model" in found.xmp) is ("XMP" not in told)


def test_exif_without_room_for_the_tag_names_the_results_size(tmp_path: Path) -> None:
    made = Image.Exif()
    made.get_ifd(exif.EXIF_DIRECTORY)[0xA002] = 5
    block = made.tobytes()[6:]
    tagged = tag_as_restored(PhotoMetadata("JPEG", exif=block + bytes(65527 - len(block))), "m", "1")
    write_photo(tmp_path / "a.jpg", Photo(colours(), tagged))
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.getexif().get_ifd(exif.EXIF_DIRECTORY)[0xA002] == image.width


@pytest.mark.parametrize(("suffix", "side"), [(".jpg", 65501), (".webp", 16384)])
def test_sides_beyond_the_formats_limit(suffix: str, side: int, tmp_path: Path) -> None:
    with pytest.raises(PhotoError, match=r"--format png"):
        write_photo(tmp_path / f"a{suffix}", Photo(np.zeros((1, side, 3), np.uint8), PhotoMetadata("PNG")))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("code", "expected", "words"),
    [
        (1, MemoryError, "error 1"),
        (2, MemoryError, "error 2"),
        (6, PhotoError, "--format png"),
        (4, PhotoError, "encoding error 4"),
    ],
)
def test_what_libwebps_error_numbers_mean(
    code: int, expected: type[Exception], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(*_: object, **__: object) -> None:
        raise ValueError(f"encoding error {code}")

    monkeypatch.setattr(Image.Image, "save", save)
    with pytest.raises(expected, match=words):
        write_photo(tmp_path / "a.webp", photo())
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


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".bmp"])
def test_an_encoder_that_fails_leaves_nothing(suffix: str, tmp_path: Path) -> None:
    """In the last rows, so that formats written in bands have written most of the file."""

    class Broken(np.ndarray):
        """Pixels of which the last rows cannot be had."""

        def __getitem__(self, key: object) -> object:
            if isinstance(key, slice) and key.stop >= len(self):
                raise ValueError("no such rows")
            return super().__getitem__(key)

    pixels = np.zeros((2500, 1000, 3), np.uint8).view(Broken)
    with pytest.raises(PhotoError, match=r"cannot be written \(no such rows\)"):
        write_photo(tmp_path / f"a{suffix}", Photo(pixels, PhotoMetadata("PNG")))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".jpg", ".bmp"])
def test_large_photos_are_flattened_as_small_ones(suffix: str, tmp_path: Path) -> None:
    """Opacity and depth are changed band by band, and no seam shows."""
    random = np.random.default_rng(0)
    pixels = np.repeat(np.repeat(random.integers(0, 65536, (15, 20, 3), np.uint16), 64, 0), 64, 1)
    alpha = np.repeat(np.repeat(random.integers(0, 65536, (15, 20), np.uint16), 64, 0), 64, 1)
    lost = write_photo(tmp_path / f"a{suffix}", Photo(pixels, PhotoMetadata("PNG"), alpha))
    assert len(lost) == 2
    share = alpha[:, :, None] / 65535
    expected = pixels / 257 * share + 255 * (1 - share)
    # Rounding of pixels, opacity and their product; blocks of one colour outlive a JPEG with few levels of error.
    tolerance = 6 if suffix == ".jpg" else 1.5
    np.testing.assert_allclose(read_photo(tmp_path / f"a{suffix}").pixels, expected, atol=tolerance)


def test_a_large_bmp_is_srgb_in_every_band(tmp_path: Path) -> None:
    pixels = colours(size=(700, 800))
    write_photo(tmp_path / "a.bmp", Photo(pixels, PhotoMetadata("PNG", icc_profile=profile("wide"))))
    np.testing.assert_array_equal(read_photo(tmp_path / "a.bmp").pixels, to_srgb(pixels, profile("wide")))
