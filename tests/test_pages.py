"""Files of several pages: read one by one, written one by one, each with what stands beside its pixels."""

from __future__ import annotations

import gc
import io
import struct
import weakref
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from fakes import fake_models
from PIL import ExifTags, Image, ImageSequence
from raw_tiffs import long, short, text, write_raw_tiff
from sample_photos import colours, full_metadata, photo, saved

from gfprestore import photosteps
from gfprestore.errors import PageError, PhotoError
from gfprestore.folders import plan_jobs
from gfprestore.formats import exif
from gfprestore.formats.metadata import tag_as_restored
from gfprestore.job import Job
from gfprestore.options import RestoreOptions
from gfprestore.photo import Photo, PhotoMetadata
from gfprestore.photofile import read_photo, write_photo
from gfprestore.pipeline import restore_photos
from gfprestore.report import Failed, Restored
from gfprestore.reporting.reportfile import ReportFile


def some_pages() -> list[Photo]:
    """Of different depth, size, channels and descriptions."""
    metadata = replace(full_metadata(), comment=None)
    deep = Photo(colours(np.uint16, (23, 17)), replace(metadata, dpi=(600.0, 600.0), xmp=None))
    gray = photo(is_gray=True)
    return [replace(photo(), metadata=metadata), deep, gray, photo(np.uint16, is_gray=True), photo(has_alpha=True)]


def test_every_page_comes_back_with_its_own_metadata(tmp_path: Path) -> None:
    first, *others = pages = some_pages()
    path = tmp_path / "album.tif"
    assert write_photo(path, first, further_pages=iter(others)) == ()
    for number, page in enumerate(pages):
        back = read_photo(path, page=number)
        np.testing.assert_array_equal(back.pixels, page.pixels)
        assert (back.is_gray, back.pages, back.warnings) == (page.is_gray, len(pages), ())
        assert (back.alpha is None) == (page.alpha is None)
        for name in ("xmp", "iptc", "icc_profile"):
            assert getattr(back.metadata, name) == getattr(page.metadata, name), name
        assert back.metadata.dpi == (page.metadata.dpi or (1.0, 1.0))  # Pillow's word for none.
        if page.metadata.exif is not None:
            with Image.open(path) as image:
                image.seek(number)
                found = image.getexif()
                assert found[0x010E] == "Aunt Mary"
                assert found.get_ifd(ExifTags.IFD.Exif)[0x9003] == "1962:07:01 12:00:00"
                assert found.get_ifd(ExifTags.IFD.Exif)[0x927C] == b"maker note \x00\x01\x02" * 20
                assert found.get_ifd(ExifTags.IFD.GPSInfo)[1] == "N"


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("tagged", [False, True])
def test_a_page_keeps_its_exif_whatever_the_byte_order_of_the_first(order: str, tagged: bool, tmp_path: Path) -> None:
    says = write_raw_tiff(
        tmp_path / "says.tif", colours(), {270: text(b"Aunt Mary"), 274: short(order, 1)}, order=order
    )
    silent = read_photo(write_raw_tiff(tmp_path / "silent.tif", colours(), {}, order=order))
    first, further = (
        tag_as_restored(page.metadata, "m", "1") if tagged else page.metadata for page in (silent, read_photo(says))
    )
    write_photo(tmp_path / "a.tif", replace(silent, metadata=first), further_pages=[replace(silent, metadata=further)])
    found = read_photo(tmp_path / "a.tif", page=1)
    assert found.metadata.exif is not None and exif.text(found.metadata.exif, exif.DESCRIPTION) == b"Aunt Mary"
    assert exif.orientation(found.metadata.exif) == 1
    np.testing.assert_array_equal(found.pixels, colours())


@pytest.mark.parametrize("pointer", [long("<", 0x7FFFFFFF), (13, 1, struct.pack("<I", 0x7FFFFFFF))])
@pytest.mark.parametrize("tag", [0x8825, 0x8769, 0xC000])
def test_a_directory_out_of_place_does_not_cost_the_photo(
    tag: int, pointer: tuple[int, int, bytes], tmp_path: Path
) -> None:
    inner = {tag: pointer, 0x9003: text(b"1962:07:01 12:00:00")}
    page = read_photo(write_raw_tiff(tmp_path / "a.tif", colours(), {270: text(b"x")}, (exif.EXIF_DIRECTORY, inner)))
    write_photo(tmp_path / "b.tif", page, further_pages=[page])
    for number in range(2):
        found = Image.Exif()
        found.load(read_photo(tmp_path / "b.tif", page=number).metadata.exif or b"")
        assert found.get_ifd(exif.EXIF_DIRECTORY)[0x9003] == "1962:07:01 12:00:00"


def test_other_readers_find_every_page(tmp_path: Path) -> None:
    first, *others = pages = some_pages()[:4]
    path = tmp_path / "album.tiff"
    write_photo(path, first, further_pages=others)
    channels = [page.pixels[:, :, 0] if page.is_gray else page.pixels for page in pages]
    with tifffile.TiffFile(path) as tiff:
        for found, expected in zip(tiff.pages, channels, strict=True):
            np.testing.assert_array_equal(found.asarray(), expected)
    _, decoded = cv2.imreadmulti(str(path), flags=cv2.IMREAD_UNCHANGED)
    for found, expected in zip(decoded, channels, strict=True):
        np.testing.assert_array_equal(found if found.ndim == 2 else found[:, :, ::-1], expected)


def test_a_page_is_written_before_the_next_is_asked_for(tmp_path: Path) -> None:
    folder, sizes = tmp_path / "out", []

    def pages():
        for _ in range(3):
            (part,) = folder.iterdir()
            sizes.append(part.stat().st_size)
            yield Photo(np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8), PhotoMetadata("TIFF"))

    write_photo(folder / "a.tif", next(iter(some_pages())), further_pages=pages())
    assert sizes[1] > 100_000 and sizes[2] > 2 * 100_000


def test_a_page_that_fails_leaves_no_file(tmp_path: Path) -> None:
    def pages():
        yield photo()
        raise MemoryError

    with pytest.raises(MemoryError):
        write_photo(tmp_path / "a.tif", photo(), further_pages=pages())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pages_turn_upright_each_by_itself(orientation: int, dtype: type, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(np.zeros((5, 6, 3), dtype), photometric="rgb")
        extra = [(274, "H", 1, orientation, True)]
        tiff.write(colours(dtype), photometric="rgb", extratags=extra)
    turned = {1: colours(dtype), 3: np.rot90(colours(dtype), 2), 6: np.rot90(colours(dtype), -1)}
    expected = turned.get(orientation, np.rot90(colours(dtype), 1))
    np.testing.assert_array_equal(read_photo(path, page=1).pixels, expected)


def test_previews_and_masks_are_no_pages(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        for index, kind in enumerate((0, 1, 2, 0)):
            tiff.write(np.full((8, 9, 3), 40 * index, np.uint8), photometric="rgb", subfiletype=kind)
            tiff.write(np.ones((8, 9), np.bool_), photometric="minisblack", subfiletype=4)
    assert [int(read_photo(path, page=page).pixels[0, 0, 0]) for page in range(3)] == [0, 80, 120]
    assert read_photo(path).pages == 3


def odd_page(order: str = "<", *, bigtiff: bool = False, **settings: object) -> bytes:
    """Three pages, the second of which holds measurements, and a smaller copy of it."""
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream, byteorder=order, bigtiff=bigtiff) as tiff:
        tiff.write(np.full((8, 9, 3), 40, np.uint8), photometric="rgb")
        tiff.write(np.zeros((32, 32, 3), np.float32), photometric="rgb", **settings)
        tiff.write(np.zeros((4, 4, 3), np.float32), photometric="rgb", subfiletype=1)
        tiff.write(np.full((8, 9, 3), 80, np.uint8), photometric="rgb")
    return stream.getvalue()


@pytest.mark.parametrize(("order", "bigtiff"), [("<", False), (">", False), ("<", True)])
@pytest.mark.parametrize("settings", [{}, {"tile": (16, 16)}, {"rowsperstrip": 1}])
def test_a_page_that_holds_no_photo_is_left_out_and_told(
    order: str, bigtiff: bool, settings: dict[str, object], tmp_path: Path
) -> None:
    (tmp_path / "a.tif").write_bytes(odd_page(order, bigtiff=bigtiff, **settings))
    first, second = (read_photo(tmp_path / "a.tif", page=page) for page in range(2))
    assert [int(page.pixels[0, 0, 0]) for page in (first, second)] == [40, 80]
    assert (first.pages, second.pages) == (2, 2)
    assert first.warnings == ("Page 2 stores its pixels in an unusual way and was left out.",)
    assert second.warnings == ()


def test_an_unknown_compression_counts_as_unusual(tmp_path: Path) -> None:
    data = odd_page()
    known, unknown = (struct.pack("<HHII", 259, 3, 1, number) for number in (1, 33003))
    third = data.replace(known, unknown).replace(unknown, known, 3)
    (tmp_path / "a.tif").write_bytes(third)
    assert len(read_photo(tmp_path / "a.tif").warnings) == 2


def test_an_odd_page_that_the_file_does_not_hold_is_damage(tmp_path: Path) -> None:
    data = odd_page()
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        page = tiff.pages[1]
        counts, places = page.tags[279], page.tags[273]
    for tag, number in ((counts, len(data)), (places, len(data) - 1)):
        damaged = bytearray(data)
        struct.pack_into("<HI", damaged, tag.offset + 2, 4, 1)
        struct.pack_into("<I", damaged, tag.offset + 8, number)
        (tmp_path / "a.tif").write_bytes(damaged)
        with pytest.raises(PhotoError):
            read_photo(tmp_path / "a.tif")


def test_albums_that_end_early_are_refused_wherever(tmp_path: Path) -> None:
    """The odd page's directory and pixels stand before the last page's, as most programs write them."""
    data = odd_page()
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        starts = [page.offset for page in tiff.pages]
    for end in {*range(100, len(data), 997), *range(starts[1] + 2, starts[1] + 60, 7), len(data) - 1}:
        (tmp_path / "a.tif").write_bytes(data[:end])
        with pytest.raises(PhotoError):
            for page in range(read_photo(tmp_path / "a.tif").pages):
                read_photo(tmp_path / "a.tif", page)


def test_a_copy_that_comes_first_is_no_page_either(tmp_path: Path) -> None:
    for kinds, expected in (((1, 0), [40]), ((1, 1), [0]), ((0, 1), [0]), ((1, 0, 1, 0), [40, 120])):
        with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
            for index, kind in enumerate(kinds):
                tiff.write(np.full((8, 9, 3), 40 * index, np.uint8), photometric="rgb", subfiletype=kind)
        count = read_photo(tmp_path / "a.tif").pages
        found = [int(read_photo(tmp_path / "a.tif", page=page).pixels[0, 0, 0]) for page in range(count)]
        assert found == expected


def test_files_of_one_page_have_one(tmp_path: Path) -> None:
    assert read_photo(saved(tmp_path / "a.tif", Image.new("L", (4, 4)))).pages == 1
    assert read_photo(saved(tmp_path / "a.jpg", Image.new("L", (4, 4)))).pages == 1


def _scanned_album(folder: Path, pages: int, suffix: str = ".tif") -> list[Job]:
    """A TIFF whose n-th page holds n faces for the stand-in detector."""
    folder.mkdir()
    frames = []
    for page in range(pages):
        pixels = cv2.GaussianBlur(np.random.default_rng(page).integers(0, 256, (60, 90, 3), np.uint8), (0, 0), 4)
        pixels[0, 0, 0] = page + 1
        frames.append(Image.fromarray(pixels))
    frames[0].save(folder / f"album{suffix}", save_all=True, append_images=frames[1:])
    return plan_jobs([folder], folder.parent / "restored")


def stripes(crop: np.ndarray) -> np.ndarray:
    drawn = crop.copy()
    drawn[::6] //= 2
    return drawn


def test_all_pages_are_restored_and_written(tmp_path: Path) -> None:
    jobs = _scanned_album(tmp_path / "in", 3)
    options = RestoreOptions(upscale=1, batch_size=2, save_faces=tmp_path / "faces")
    (outcome,) = restore_photos(jobs, fake_models(stripes), options)
    assert isinstance(outcome, Restored)
    assert [face.facts.get("page", 1) for face in outcome.faces] == [1, 2, 2, 3, 3, 3]
    assert outcome.warnings == ()
    # What the threads that finish photos do for further pages is not told as the work of other steps.
    assert outcome.seconds["pages"] > 0 and {*outcome.seconds} - {"pages"} <= {
        *("read", "detect", "restore", "retouch", "background", "paste", "write")
    }
    for page in range(3):
        before, after = read_photo(jobs[0].source, page), read_photo(jobs[0].target, page)
        assert after.pages == 3 and after.pixels.shape == before.pixels.shape
        assert (after.pixels != before.pixels).any(), page
        assert b"algorithmicallyEnhanced" in (after.metadata.xmp or b"")
    names = {path.name for path in (tmp_path / "faces").iterdir()}
    assert {"album.tif.1.before.png", "album.tif.page2.2.after.png", "album.tif.page3.3.before.png"} <= names


def test_faces_are_chosen_by_hand_on_every_page(tmp_path: Path) -> None:
    jobs = _scanned_album(tmp_path / "in", 3)
    (first,) = restore_photos(jobs, fake_models(stripes), RestoreOptions(upscale=1))
    assert isinstance(first, Restored)
    chosen = tmp_path / "chosen.jsonl"
    with ReportFile(chosen) as lines:
        lines.start(1, {})
        lines.add(replace(first, faces=(first.faces[1], first.faces[5])))
    options = RestoreOptions(upscale=1, overwrite=True, faces_from=chosen)
    (again,) = restore_photos(jobs, fake_models(stripes), options)
    assert isinstance(again, Restored)
    assert [(face.facts["page"], face.box) for face in again.faces] == [
        (2, first.faces[1].box),
        (3, first.faces[5].box),
    ]
    np.testing.assert_array_equal(read_photo(jobs[0].target).pixels, read_photo(jobs[0].source).pixels)


@pytest.mark.parametrize("damage", ["compression", "short strip"])
def test_a_damaged_page_is_left_out_and_told(damage: str, tmp_path: Path) -> None:
    jobs = _damaged_album(tmp_path / "in", damage)
    (outcome,) = restore_photos(jobs, fake_models(), RestoreOptions(upscale=1))
    assert isinstance(outcome, Restored), outcome
    assert [face.facts.get("page", 1) for face in outcome.faces] == [1, 3, 3, 3], "numbered as in the file"
    (note,) = outcome.warnings
    assert note.startswith("Page 2 is ") and note.endswith("and was left out.")
    assert read_photo(jobs[0].target).pages == 2
    for before, after in ((0, 0), (2, 1)):
        source, result = read_photo(jobs[0].source, before).pixels, read_photo(jobs[0].target, after).pixels
        np.testing.assert_allclose(result.astype(int), source, atol=3)  # But for the rounding of what comes back.


def test_a_page_that_the_file_does_not_hold_fails_the_photo(tmp_path: Path) -> None:
    jobs = _damaged_album(tmp_path / "in", "beyond the end")
    (outcome,) = restore_photos(jobs, fake_models(), RestoreOptions(upscale=1))
    assert isinstance(outcome, Failed), "it may be whole elsewhere, so no archive copy without it is made"
    assert not jobs[0].target.exists()


def test_a_damaged_page_is_told_by_its_number_among_all(tmp_path: Path) -> None:
    data = bytearray(odd_page())
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        struct.pack_into("<I", data, tiff.pages[3].tags[259].offset + 8, 8)  # Called compressed, and is not.
    (tmp_path / "a.tif").write_bytes(data)
    assert "Page 2 " in read_photo(tmp_path / "a.tif").warnings[0]
    with pytest.raises(PageError, match=r"^Page 3 is damaged .* and was left out\.$"):
        read_photo(tmp_path / "a.tif", 1)


def _damaged_album(folder: Path, damage: str) -> list[Job]:
    """As `_scanned_album`, of three pages with the second one damaged."""
    (job,) = _scanned_album(folder, 3)
    with Image.open(job.source) as image:
        frames = [frame.copy() for frame in ImageSequence.Iterator(image)]
    frames[0].save(job.source, save_all=True, append_images=frames[1:], compression="tiff_adobe_deflate")
    data = bytearray(job.source.read_bytes())
    with tifffile.TiffFile(job.source) as tiff:
        tags = tiff.pages[1].tags
        places, sizes = tags[273], tags[279]
    if damage == "compression":
        data[places.value[0] : places.value[0] + 20] = bytes(20)
    elif damage == "short strip":
        struct.pack_into("<I", data, sizes.offset + 8, sizes.value[0] // 2)
    else:
        struct.pack_into("<I", data, places.offset + 8, len(data) - 10)
    job.source.write_bytes(data)
    return [job]


def test_other_formats_hold_the_first_page_and_say_so(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    _scanned_album(folder, 3)
    jobs = plan_jobs([folder], tmp_path / "jpegs", format="jpg")
    (outcome,) = restore_photos(jobs, fake_models(), RestoreOptions(upscale=1, format="jpg"))
    assert isinstance(outcome, Restored)
    assert len(outcome.faces) == 1
    assert outcome.warnings == ("Only the first of 3 pages was restored; --format tiff restores them all.",)


def test_one_page_is_alive_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = _scanned_album(tmp_path / "in", 8)
    alive: weakref.WeakSet[Photo] = weakref.WeakSet()
    most = 0

    def counting_read(path: Path, page: int) -> Photo:
        nonlocal most
        gc.collect()
        found = read_photo(path, page)
        alive.add(found)
        most = max(most, len(alive))
        return found

    monkeypatch.setattr(photosteps, "read_photo", counting_read)
    (outcome,) = restore_photos(jobs, fake_models(), RestoreOptions(upscale=1))
    assert isinstance(outcome, Restored)
    # The first stays to the end, since the outcome tells of it; then the one before and the one that is read.
    assert most <= 3


def test_a_page_without_memory_fails_the_photo_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = _scanned_album(tmp_path / "in", 3)

    def read(path: Path, page: int) -> Photo:
        if page == 2:
            raise MemoryError
        return read_photo(path, page)

    monkeypatch.setattr(photosteps, "read_photo", read)
    (outcome,) = restore_photos(jobs, fake_models(), RestoreOptions())
    assert isinstance(outcome, Failed) and "memory" in outcome.error
    assert list(jobs[0].target.parent.iterdir()) == []
