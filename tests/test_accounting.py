"""Under every fault: an exit code, a sentence, one line for each source, whole results; and the next run finishes."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
from broken_files import CRAFTED
from commands import call
from fakes import fake_models
from PIL import Image

from gfprestore import photofile, photosteps, photowrite, pipeline, run
from gfprestore.background import ResizeUpscaler
from gfprestore.errors import ExitCode
from gfprestore.models import Models
from gfprestore.outofmemory import out_of_memory
from gfprestore.photo import FoundFaces
from gfprestore.reporting.reportfile import ReportFile
from gfprestore.stopping import STOPPING, StopRequest
from gfprestore.workplan import WorkPlan

PHOTOS = 9
THE_ONE = 4
"""Number of the photo that meets the fault."""

NO_MEMORY = "needs more memory than there is"

Patch = pytest.MonkeyPatch
Calm = Callable[[tuple[str, ...]], dict[str, str]]


def darken(crop: np.ndarray) -> np.ndarray:
    return crop // 2


def make_album(folder: Path) -> Path:
    folder.mkdir()
    for index in range(PHOTOS):
        pixels = np.random.default_rng(index).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        # How many faces the stand-in finds, and which photo it is.
        pixels[0, 0] = (abs(index - THE_ONE) < 2, index, index)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def album(tmp_path: Path) -> Path:
    return make_album(tmp_path / "album")


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Calm:
    """Digests of the results of an undisturbed run, by its options."""
    folder = tmp_path_factory.mktemp("calm")
    album = make_album(folder / "album")

    @cache
    def results(options: tuple[str, ...]) -> dict[str, str]:
        out = folder / f"out{len(options)}"
        with pytest.MonkeyPatch.context() as patch:
            use(patch, fake_models(darken))
            assert call(album, "-o", out, *options)[0] == ExitCode.OK
        return digests(out)

    return results


def is_the_one(pixels: np.ndarray) -> bool:
    return pixels.shape[:2] == (40, 60) and int(pixels[0, 0, 1]) == THE_ONE and int(pixels[0, 0, 2]) == THE_ONE


def fails_once(patch: Patch, module: ModuleType, name: str, error: BaseException) -> None:
    """Lets a function of a module fail at its `THE_ONE`th call."""
    calls = iter(range(1000))
    usual = getattr(module, name)

    def function(*arguments: Any, **settings: Any) -> Any:
        if next(calls) == THE_ONE:
            raise error
        return usual(*arguments, **settings)

    patch.setattr(module, name, function)


def use(patch: Patch, models: Models) -> None:
    patch.setattr(run, "load_models", lambda *_: models)


class FailingDetector:
    """Finds what the usual stand-in finds, but for one photo."""

    def __init__(self, fail: Callable[[], object]) -> None:
        self.usual: Any = fake_models().detector
        self.fail = fail

    def search(self, photos: list[np.ndarray]) -> object:
        if is_the_one(photos[0]):
            self.fail()
        return self.usual.search(photos)


class NoDetector:
    """Finds nothing."""

    def search(self, photos: list[np.ndarray]) -> list[FoundFaces]:
        return [FoundFaces(()) for _ in photos]


class FailingUpscaler(ResizeUpscaler):
    """Enlarges as usual, but for one photo."""

    def upscale(self, pixels: Any, *more: Any) -> Any:
        if is_the_one(pixels):
            raise MemoryError
        return super().upscale(pixels, *more)


def raise_no_memory(*_: object) -> None:
    raise MemoryError


def allocate_too_much() -> None:
    """What OpenCV raises when an allocation fails: a petabyte is had nowhere."""
    cv2.resize(np.zeros((1, 1), np.uint8), (1 << 30, 1 << 20))


def detector_fails(patch: Patch, album: Path, fail: Callable[[], object]) -> None:
    use(patch, replace(fake_models(darken), detector=FailingDetector(fail)))  # type: ignore[arg-type]


def restorer_fails(patch: Patch, album: Path, error: BaseException) -> None:
    calls = iter(range(1000))

    def change(crop: np.ndarray) -> np.ndarray:
        if next(calls) == 1:
            raise error
        return crop // 2

    use(patch, fake_models(change))


def write_fails(patch: Patch, name: str, number: int) -> None:
    """Lets the operating system refuse a call for results, and for nothing else."""
    calls = iter(range(1000))
    usual = getattr(os, name)

    def function(what: Any, *more: Any) -> Any:
        path = what if isinstance(what, str | os.PathLike) else f"/proc/self/fd/{what}"
        path = os.fspath(path if name == "open" else Path(path).readlink())
        if path.endswith(".part") and next(calls) >= THE_ONE:
            raise OSError(number, os.strerror(number))
        return usual(what, *more)

    patch.setattr(os, name, function)


def source_vanishes(patch: Patch, album: Path) -> None:
    usual = photofile.read_photo

    def read(path: Path, page: int) -> object:
        if path.name == f"{THE_ONE}.png":
            path.unlink()
        return usual(path, page)

    patch.setattr(photosteps, "read_photo", read)


def source_changes(patch: Patch, album: Path) -> None:
    usual = photofile.decode_pixels

    def decode(image: Any, stream: Any) -> object:
        decoded = usual(image, stream)
        if is_the_one(decoded.pixels):
            with (album / f"{THE_ONE}.png").open("ab") as more:
                more.write(b"more")
        return decoded

    patch.setattr(photofile, "decode_pixels", decode)


def target_appears(patch: Patch, album: Path) -> None:
    usual = photowrite.write_photo

    def write(path: Path, *arguments: Any, **settings: Any) -> object:
        if path.name == f"{THE_ONE}.png":
            path.write_bytes(b"of somebody else")
        return usual(path, *arguments, **settings)

    patch.setattr(photosteps, "write_photo", write)


def asked_to_stop(patch: Patch, album: Path, number: signal.Signals) -> None:
    # As few photos in work as there may be, so that some are not reached.
    plan = WorkPlan(readers=1, read_ahead=1, found_ahead=1, most_open=1, finishers=1, finish_ahead=1, queue_bytes=1e9)
    patch.setattr(pipeline, "plan_work", lambda _: plan)
    patch.setattr(signal, "getsignal", lambda _: signal.default_int_handler)  # also where a shell ignores Ctrl-C
    usual = photowrite.write_photo

    def write(path: Path, *arguments: Any, **settings: Any) -> object:
        if path.name == "1.png":
            signal.raise_signal(number)
        return usual(path, *arguments, **settings)

    patch.setattr(photosteps, "write_photo", write)


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong in a run of `PHOTOS` photos."""

    arrange: Callable[[Patch, Path], object]
    code: int
    said: str
    lost: dict[str, int] | None = None
    """Statuses beside `restored`; None where they depend on how far the threads were."""
    options: tuple[str, ...] = ()


ONE_FAILED = {"failed": 1}
FAULTS = {
    "no memory to decode": Fault(
        lambda patch, _: fails_once(patch, photofile, "decode_pixels", MemoryError()), 3, NO_MEMORY, ONE_FAILED
    ),
    "no memory to find scratches": Fault(
        lambda patch, _: fails_once(patch, photosteps, "find_scratches", MemoryError()),
        3,
        NO_MEMORY,
        ONE_FAILED,
        ("--descratch",),
    ),
    "no memory to detect": Fault(
        lambda patch, album: detector_fails(patch, album, raise_no_memory), 3, NO_MEMORY, ONE_FAILED
    ),
    "no memory for opencv": Fault(
        lambda patch, album: detector_fails(patch, album, allocate_too_much), 3, NO_MEMORY, ONE_FAILED
    ),
    "no memory on the device": Fault(
        lambda patch, album: restorer_fails(patch, album, out_of_memory("cpu")), 6, "lower --batch-size"
    ),
    "no memory for a batch": Fault(
        lambda patch, album: restorer_fails(patch, album, MemoryError()), 6, "lower --batch-size"
    ),
    "no memory for the background": Fault(
        lambda patch, _: use(patch, replace(fake_models(darken), upscaler=FailingUpscaler("failing", "lanczos"))),
        3,
        NO_MEMORY,
        ONE_FAILED,
    ),
    "no memory to retouch": Fault(
        lambda patch, _: fails_once(patch, photosteps, "retouch_faces", MemoryError()), 3, NO_MEMORY, ONE_FAILED
    ),
    "no memory to paste": Fault(
        lambda patch, _: fails_once(patch, photosteps, "paste_faces", MemoryError()), 3, NO_MEMORY, ONE_FAILED
    ),
    "no memory to encode": Fault(
        lambda patch, _: fails_once(patch, photowrite, "encode_png", MemoryError()), 3, NO_MEMORY, ONE_FAILED
    ),
    "full disk": Fault(lambda patch, _: write_fails(patch, "fsync", errno.ENOSPC), 7, "the disk is full"),
    "read-only output": Fault(lambda patch, _: write_fails(patch, "open", errno.EROFS), 7, "is read-only"),
    "forbidden output": Fault(lambda patch, _: write_fails(patch, "open", errno.EACCES), 7, "permission is denied"),
    "source that vanishes": Fault(source_vanishes, 3, "cannot be read (No such file", ONE_FAILED),
    "source that changes": Fault(source_changes, 3, "changed while it was read", ONE_FAILED),
    "target that appears": Fault(target_appears, 0, "1 skipped", {"skipped": 1}),
    "interrupted": Fault(lambda patch, album: asked_to_stop(patch, album, signal.SIGINT), 130, "interrupted"),
    "terminated": Fault(lambda patch, album: asked_to_stop(patch, album, signal.SIGTERM), 143, "terminated"),
}


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def check_account(report: Path, album: Path, out: Path, before: set[str], code: int) -> Counter[str]:
    """Compares a report with the folders; returns how often each status is."""
    first, *photos, last = [json.loads(line) for line in report.read_text().splitlines()]
    assert first["photos"] == PHOTOS
    assert Counter(line["source"] for line in photos) == Counter(str(album / name) for name in before)
    statuses = Counter(line["status"] for line in photos)
    assert sum(last[key] for key in ("restored", "without_face", "skipped", "failed", "unreached")) == PHOTOS
    assert [last[key] for key in ("skipped", "failed", "unreached")] == [
        statuses[key] for key in ("skipped", "failed", "unreached")
    ]
    assert last["exit_code"] == code
    whole = {Path(line["target"]).name for line in photos if line["status"] in ("restored", "skipped")}
    assert {path.name for path in out.iterdir()} == whole, "what is told to be written is there, and nothing else"
    return statuses


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_accounted_for_and_the_next_run_finishes(
    name: str, album: Path, tmp_path: Path, calm: Calm
) -> None:
    fault, out, report = FAULTS[name], tmp_path / "out", tmp_path / "report.jsonl"
    sources = digests(album)
    with pytest.MonkeyPatch.context() as patch:
        use(patch, fake_models(darken))
        fault.arrange(patch, album)
        arguments = (album, "-o", out, "--report", report, "--batch-size", 2, *fault.options)
        code, result = call(*arguments)
    assert code == fault.code, result.output
    assert fault.said in result.stderr
    assert "Traceback" not in result.stderr
    assert " restored" in result.stderr, "the summary is said"
    statuses = check_account(report, album, out, set(sources), code)
    if fault.lost is not None:
        assert statuses == {"restored": PHOTOS - sum(fault.lost.values()), **fault.lost}
    else:
        assert statuses["restored"] >= 1
        assert statuses["unreached"] >= 1
    if not name.startswith("source"):
        assert digests(album) == sources

    check_next_run(album, out, fault.options, calm)


def check_next_run(album: Path, out: Path, options: tuple[str, ...], calm: Calm) -> None:
    """The same command again finishes the job; what it gives is what an undisturbed run gives."""
    with pytest.MonkeyPatch.context() as patch:
        use(patch, fake_models(darken))
        assert call(album, "-o", out, *options)[0] == ExitCode.OK
    again = digests(out)
    expected = {name: digest for name, digest in calm(options).items() if (album / name).exists()}
    foreign = {key for key in again if (out / key).read_bytes() == b"of somebody else"}
    assert again.keys() == expected.keys()
    assert {key for key in again if again[key] != expected[key]} <= foreign


def test_every_broken_file_has_its_line_whatever_its_name(tmp_path: Path) -> None:
    names = [b"two\nlines", b"\xff\xfe", b"x" * 250, b"dots..", b"CON", b" ", b"\x1b[31mred", b"a\\b", b"-o"]
    folder = tmp_path / "album"
    folder.mkdir()
    for number, data in enumerate(CRAFTED.values()):
        name = names[number] if number < len(names) else b"%d" % number
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name + b".jpg")).write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        use(patch, replace(fake_models(), detector=NoDetector()))  # type: ignore[arg-type]
        code, result = call(folder, "-o", tmp_path / "out", "--report", tmp_path / "report.jsonl", "--upscale", 0.1)
    _, *photos, last = [json.loads(line) for line in (tmp_path / "report.jsonl").read_text().splitlines()]
    assert code == ExitCode.SOME_FAILED
    assert {os.fsencode(line["source"]) for line in photos} == {os.fsencode(path) for path in folder.iterdir()}
    assert last["failed"] + last["without_face"] == len(photos) == len(CRAFTED)
    told = [line for line in result.stderr.splitlines() if line.startswith("failed: ")]
    assert len(told) == last["failed"] > 30
    assert len(list((tmp_path / "out").iterdir())) == last["without_face"] > 5


def test_a_name_too_long_for_its_result_is_one_failure(album: Path, tmp_path: Path) -> None:
    (album / "0.png").rename(album / ("x" * 251 + ".png"))
    with pytest.MonkeyPatch.context() as patch:
        use(patch, fake_models())
        code, result = call(album, "-o", tmp_path / "out", "--format", "tiff")
        assert code == ExitCode.SOME_FAILED
        assert "too long to be written" in result.stderr
        assert len(list((tmp_path / "out").iterdir())) == PHOTOS - 1
        assert call(album / ("y" * 300), "-o", tmp_path / "out")[0] == ExitCode.USAGE


def slowly(patch: Patch, act: Callable[[], object]) -> None:
    """Lets photos be written for a while, and something happen when the third of them is begun."""
    usual = photowrite.write_photo
    calls = iter(range(1000))

    def write(path: Path, *arguments: Any, **settings: Any) -> object:
        if next(calls) == 2:
            act()
        time.sleep(0.3)
        return usual(path, *arguments, **settings)

    patch.setattr(photosteps, "write_photo", write)


def test_two_signals_in_a_row_leave_no_result_untold(album: Path, tmp_path: Path) -> None:
    out, report = tmp_path / "out", tmp_path / "report.jsonl"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signal, "getsignal", lambda _: signal.default_int_handler)
        taken, take = threading.Semaphore(0), StopRequest._take

        def counted(*arguments: Any) -> None:
            try:
                take(*arguments)
            finally:
                taken.release()

        def interrupt_twice() -> None:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)
                taken.acquire(timeout=60)

        patch.setattr(StopRequest, "_take", counted)
        use(patch, fake_models(darken))
        slowly(patch, interrupt_twice)
        code, result = call(album, "-o", out, "--report", report)
    assert code == ExitCode.INTERRUPTED
    statuses = check_account(report, album, out, {path.name for path in album.iterdir()}, code)
    assert statuses["restored"] >= 1
    assert statuses["unreached"] >= 1
    assert result.stderr.count(STOPPING) == 1


def test_a_report_that_breaks_off_leaves_no_result_uncounted(album: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        use(patch, fake_models(darken))
        slowly(patch, lambda: None)

        def write(self: ReportFile, line: dict[str, object]) -> None:
            if line["kind"] == "photo":
                raise self._failure(BrokenPipeError(errno.EPIPE, "Broken pipe"))

        patch.setattr(ReportFile, "_write", write)
        code, result = call(album, "-o", out, "--report", tmp_path / "report.jsonl")
    assert code == ExitCode.OUTPUT
    assert "Broken pipe" in result.stderr
    left = PHOTOS - len(list(out.iterdir()))
    assert 0 < left < PHOTOS
    assert f"{left} not reached" in result.stderr


def many_pages(path: Path, pages: int) -> Path:
    path.parent.mkdir()
    chance = np.random.default_rng(0)
    images = [Image.fromarray(chance.integers(0, 256, (40, 60, 3), dtype=np.uint8)) for _ in range(pages)]
    images[0].save(path, save_all=True, append_images=images[1:])
    return path


def on_page(patch: Patch, number: int, act: Callable[[], object]) -> list[int]:
    """Does something when a page is read; returns the pages read, which grow."""
    read: list[int] = []
    usual = photofile.read_photo

    def read_photo(path: Path, page: int = 0) -> object:
        read.append(page)
        photo = usual(path, page)
        if page == number:
            act()
        return photo

    patch.setattr(photosteps, "read_photo", read_photo)
    use(patch, replace(fake_models(), detector=NoDetector()))  # type: ignore[arg-type]
    return read


def test_a_run_stops_between_the_pages_of_a_photo(tmp_path: Path) -> None:
    source = many_pages(tmp_path / "album" / "a.tif", 9)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signal, "getsignal", lambda _: signal.default_int_handler)
        heard, take = threading.Event(), StopRequest._take
        patch.setattr(StopRequest, "_take", lambda *arguments: (take(*arguments), heard.set()))
        # To the process, as a terminal sends it: the main thread, which waits, hears of it a moment later. Were the run
        # over by then, the signal would end the tests.
        read = on_page(patch, 3, lambda: (os.kill(os.getpid(), signal.SIGINT), heard.wait(60)))
        code, _ = call(source, "-o", tmp_path / "out", "--report", tmp_path / "report.jsonl")
    assert code == ExitCode.INTERRUPTED
    assert read[:4] == [0, 1, 2, 3]
    assert len(read) < 9
    assert list((tmp_path / "out").iterdir()) == []
    _, line, _ = [json.loads(text) for text in (tmp_path / "report.jsonl").read_text().splitlines()]
    assert line["status"] == "unreached"


def test_pages_of_a_file_that_changes_meanwhile_are_not_mixed(tmp_path: Path) -> None:
    source = many_pages(tmp_path / "album" / "a.tif", 4)

    def write_anew() -> None:
        data = source.read_bytes()
        source.unlink()
        source.write_bytes(data + b"more")

    with pytest.MonkeyPatch.context() as patch:
        on_page(patch, 1, write_anew)
        code, result = call(source, "-o", tmp_path / "out")
    assert code == ExitCode.SOME_FAILED
    assert "changed while it was read" in result.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_a_thread_that_raises_ends_the_run_with_its_traceback_and_the_account(
    album: Path, tmp_path: Path, calm: Calm
) -> None:
    out, report = tmp_path / "out", tmp_path / "report.jsonl"
    sources = digests(album)
    with pytest.MonkeyPatch.context() as patch:
        use(patch, fake_models(darken))
        fails_once(patch, photosteps, "paste_faces", KeyError("a bug"))
        with pytest.raises(KeyError) as raised:
            call(album, "-o", out, "--report", report)
    (note,) = raised.value.__notes__
    assert note.startswith(f"while {album}")
    assert note.endswith("was restored")
    statuses = check_account(report, album, out, set(sources), 1)
    assert statuses["restored"] >= 1
    assert statuses["unreached"] >= 1
    assert digests(album) == sources
    check_next_run(album, out, (), calm)


def test_a_report_on_a_full_disk_ends_the_run_and_the_summary_is_said(album: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        use(patch, fake_models(darken))
        usual = os.fsync

        def fsync(descriptor: int) -> None:
            if Path(f"/proc/self/fd/{descriptor}").readlink().suffix == ".jsonl":
                raise OSError(errno.ENOSPC, "No space left on device")
            usual(descriptor)

        patch.setattr(os, "fsync", fsync)
        code, result = call(album, "-o", tmp_path / "out", "--report", tmp_path / "report.jsonl")
    assert code == ExitCode.OUTPUT
    assert "The report" in result.stderr and "No space left" in result.stderr
    assert f"3 photos restored (3 faces), {PHOTOS - 3} without a face" in result.stderr
