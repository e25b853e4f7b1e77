"""A thousand broken files: each is read as a sound photo or refused in one sentence, and nothing else happens."""

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from broken_files import CRAFTED, KINDS, broken, check_sound, mutated, png_header, read_or_refuse
from hypothesis import HealthCheck, given, settings
from sample_photos import chunk

from gfprestore.errors import PhotoError
from gfprestore.photofile import MAX_PIXELS, read_photo


@pytest.mark.parametrize("kind", KINDS)
def test_the_sound_ones_are_read(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(KINDS[kind])
    photo = read_photo(path)
    check_sound(photo)
    assert sorted(photo.pixels.shape[:2]) == [17, 23]


def test_a_thousand_broken_files(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    counts = {"read": 0, "refused": 0}
    path = tmp_path / "photo.jpg"
    for name, data in broken():
        path.write_bytes(data)
        try:
            counts[read_or_refuse(path)] += 1
        except BaseException as error:
            error.add_note(f"file: {name}")
            raise
    assert sum(counts.values()) > 1000
    assert min(counts.values()) > 200, "both ends of the test must be reached"
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", ""), "decoders print nothing"


MUST_REFUSE = {
    "empty": "is empty",
    "zeros": "not a photo",
    "text": "not a photo",
    "postscript": "not a photo",
    "svg": "not a photo",
    "lying png": "cannot hold a photo of 20000 x 20000",
    "bomb png": "more than",
    "lying jpeg": "more than the 400 megapixels",
    "only magic heic": "install|damaged",
}


@pytest.mark.parametrize("name", MUST_REFUSE)
def test_refusals_say_why(name: str, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(CRAFTED[name])
    with pytest.raises(PhotoError, match=MUST_REFUSE[name]):
        read_photo(path)


MUST_READ = ["1x1", "30000x1", "1x30000", "long comment", "many comments", "damaged profile"]


@pytest.mark.parametrize("name", [*MUST_READ, *(name for name in CRAFTED if name.startswith("exif"))])
def test_sound_pixels_are_read_whatever_stands_beside_them(name: str, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(CRAFTED[name])
    check_sound(read_photo(path))


@pytest.mark.parametrize("kind", ["jpeg", "jpeg-progressive", "png", "png-16", "tiff", "tiff-16", "webp", "bmp"])
def test_truncated_photos_are_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "photo"
    data = KINDS[kind]
    if kind == "tiff":  # Its pixels come first, so that any cut loses the directory.
        data = data[: len(data) - 4]
    path.write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(PhotoError):
        read_photo(path)


def names_of_all_sorts() -> list[bytes]:
    return [b"two\nlines.jpg", b"\xff\xfe.jpg", b"x" * 255, b"dots...", b"\x1b[31mred.jpg", b"CON", b" "]


@pytest.mark.parametrize("name", names_of_all_sorts())
@pytest.mark.parametrize("write", [lambda p: p.write_bytes(b"no photo"), lambda p: None])
def test_messages_stay_on_one_line_whatever_the_name(
    name: bytes, write: Callable[[Path], object], tmp_path: Path
) -> None:

    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    write(path)
    with pytest.raises(PhotoError) as caught:
        read_photo(path)
    assert str(caught.value).isprintable()
    str(caught.value).encode()


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:

    os.mkfifo(tmp_path / "pipe.jpg")
    for path in (tmp_path, tmp_path / "pipe.jpg", Path("/dev/null"), Path("a\0b.jpg"), tmp_path / ("x" * 300)):
        with pytest.raises(PhotoError):
            read_photo(path)


def test_the_bound_on_pixels_is_checked_before_they_are_decoded(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    side = int(MAX_PIXELS**0.5) + 1
    path.write_bytes(png_header(side, side, 1, 0) + chunk(b"IDAT", zlib.compress(bytes(side * (side // 8 + 1)))))
    with pytest.raises(PhotoError, match="400 megapixels"):
        read_photo(path)


@given(data=mutated())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_mutated_files_are_read_or_refused(tmp_path: Path, data: bytes) -> None:
    """`tests/benchmarks/fuzz.py` goes on with this for as long as one likes."""
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    read_or_refuse(path)


MEASURE = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from broken_files import KINDS, CRAFTED, read_or_refuse
path = Path(sys.argv[2])
peaks = []
for files in (KINDS, CRAFTED):
    for data in files.values():
        path.write_bytes(data)
        read_or_refuse(path)
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(*peaks)
"""


def test_crafted_files_take_little_memory(tmp_path: Path) -> None:
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(here), str(tmp_path / "photo")],
        capture_output=True,
        text=True,
        check=True,
        cwd=here.parent,
        env={**os.environ, "PYTHONPATH": str(here.parent)},
    )
    sound, crafted = (int(peak) / 1024 for peak in done.stdout.split())
    # A header may claim 16 megapixels without proof, at up to 16 bytes for each; those of the bombs claim far more.
    assert crafted - sound < 400, "MiB"
