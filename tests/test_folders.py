"""Planning: what is found, where it goes, and what is refused before any work."""

from __future__ import annotations

import logging
import os
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gfprestore import folders
from gfprestore.errors import NoPhotosError, OutputError, UsageError, printable
from gfprestore.folders import FORMAT_SUFFIXES, plan_jobs, target_name
from gfprestore.job import Job
from gfprestore.photowrite import _WRITERS
from gfprestore.walk import _advance, _expand, split_suffix


@pytest.fixture
def album(tmp_path: Path) -> Path:
    make(tmp_path / "in", "b.jpg", "a.PNG", "notes.txt", "z/c.tif", "m/n/d.JPeG", "m/e.webp", ".hidden/x.jpg", ".y.jpg")
    return tmp_path / "in"


def make(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def relatives(jobs: list[Job]) -> list[str]:
    return [str(job.relative) for job in jobs]


def test_folder_is_walked_in_order_with_its_folders_kept(album: Path, tmp_path: Path) -> None:
    jobs = plan_jobs([album], tmp_path / "out")
    assert relatives(jobs) == ["a.PNG", "b.jpg", "m/e.webp", "m/n/d.JPeG", "z/c.tif"]
    assert all(job.source == album / job.relative and job.target == tmp_path / "out" / job.relative for job in jobs)
    assert not (tmp_path / "out").exists()


def test_files_folders_and_patterns_mix_without_doubles(album: Path, tmp_path: Path) -> None:
    inputs = [album / "notes.txt", album / "m", album / "*.jpg", album / "b.jpg"]
    assert relatives(plan_jobs(inputs, tmp_path / "out")) == ["notes.txt.png", "e.webp", "n/d.JPeG", "b.jpg"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*", ["a.PNG", "b.jpg", "m/e.webp", "m/n/d.JPeG", "z/c.tif"]),
        ("*.jpg", ["b.jpg"]),
        ("**/*.[jJ]*", ["b.jpg", "m/n/d.JPeG"]),
        ("**", ["a.PNG", "b.jpg", "m/e.webp", "m/n/d.JPeG", "z/c.tif"]),
        ("m/**/d.*", ["n/d.JPeG"]),
        ("**/n/**/*", ["m/n/d.JPeG"]),
        ("?", ["m/e.webp", "m/n/d.JPeG", "z/c.tif"]),
        ("[m-y]/*.webp", ["m/e.webp"]),
    ],
)
def test_patterns(album: Path, tmp_path: Path, pattern: str, found: list[str]) -> None:
    assert relatives(plan_jobs([album / pattern], tmp_path / "out")) == found


NAMES = st.sampled_from(["a", "b", "ab", "*", "?", "a*", "**"])


@given(st.lists(st.sampled_from(["a", "b", "ab"]), min_size=1, max_size=5), st.lists(NAMES, max_size=4))
def test_pattern_states_equal_trying_every_way(path: list[str], pattern: list[str]) -> None:
    """The pattern matches the path or one of its folders, by plain recursion."""

    def matches(names: list[str], parts: list[str]) -> bool:
        if not parts:
            return True  # A folder matched: all in it counts.
        if parts[0] == "**":
            return matches(names, parts[1:]) or (bool(names) and matches(names[1:], parts))
        return bool(names) and fnmatch(names[0], parts[0]) and matches(names[1:], parts[1:])

    states = _expand({0}, tuple(pattern))
    for name in path:
        states = _advance(states, name, tuple(pattern))
    assert (len(pattern) in states) == matches(path, pattern)


def test_a_file_with_a_pattern_for_a_name_is_that_file(tmp_path: Path) -> None:
    make(tmp_path, "a[1].jpg", "a1.jpg")
    assert relatives(plan_jobs([tmp_path / "a[1].jpg"], tmp_path / "out")) == ["a[1].jpg"]


def test_a_folder_with_a_pattern_for_a_name_is_that_folder(tmp_path: Path) -> None:
    make(tmp_path, "Album [1962]/a.png", "Album [1962]/[b]/c.png", "Album 1/a.png", "x/Album [1]/a.png")
    for pattern, found in (
        ("Album [1962]/*.png", ["a.png"]),
        ("Album [1962]/[b]/?.png", ["c.png"]),
        ("Album [1962]/**/*.png", ["[b]/c.png", "a.png"]),
        ("Album [0-9]/*.png", ["Album 1/a.png"]),
    ):
        assert relatives(plan_jobs([tmp_path / pattern], tmp_path / "out")) == found


def test_links_out_of_the_tree_are_left_out_and_told(
    album: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make(tmp_path, "secret/s.jpg")
    (album / "out-link.jpg").symlink_to(tmp_path / "secret" / "s.jpg")
    (album / "folder-link").symlink_to(tmp_path / "secret")
    (album / "loop").symlink_to(album)
    (album / "self.jpg").symlink_to("self.jpg")
    (album / "inner.jpg").symlink_to("b.jpg")
    (album / "nowhere.jpg").symlink_to("gone.jpg")
    os.mkfifo(album / "pipe.jpg")
    with caplog.at_level(logging.WARNING):
        found = relatives(plan_jobs([album], tmp_path / "out"))
    expected = ["a.PNG", "b.jpg", "inner.jpg", "m/e.webp", "m/n/d.JPeG", "nowhere.jpg", "z/c.tif"]
    assert found == expected
    assert caplog.messages == [
        f"Left out in {album}, since no file of that folder is behind the name: 2.",
        f"2 links out of the input folders were left out, such as {album}/folder-link; --follow-links takes them.",
    ]
    assert relatives(plan_jobs([album / "**"], tmp_path / "out")) == expected
    assert relatives(plan_jobs([album / "out-link.jpg", album / "folder-link"], tmp_path / "out")) == [
        "out-link.jpg",
        "s.jpg",
    ], "named by the user, a link is followed"


def test_links_are_followed_when_asked_and_the_walk_ends(album: Path, tmp_path: Path) -> None:
    make(tmp_path, "elsewhere/s.jpg", "elsewhere/deep/t.jpg", "out/r.jpg")
    (album / "folder-link").symlink_to(tmp_path / "elsewhere")
    (album / "file-link.jpg").symlink_to(tmp_path / "elsewhere" / "s.jpg")
    (album / "loop").symlink_to(album)
    (tmp_path / "elsewhere" / "deep" / "back").symlink_to(album)
    (tmp_path / "elsewhere" / "up").symlink_to(tmp_path / "elsewhere")
    (album / "results").symlink_to(tmp_path / "out")
    plain = ["a.PNG", "b.jpg", "m/e.webp", "m/n/d.JPeG", "z/c.tif"]
    assert relatives(plan_jobs([album], tmp_path / "out")) == plain
    followed = sorted([*plain, "file-link.jpg", "folder-link/s.jpg", "folder-link/deep/t.jpg"])
    for root in (album, album / "**"):
        assert sorted(relatives(plan_jobs([root], tmp_path / "out", follows_links=True))) == followed


def test_a_tangle_of_links_is_walked_soon(tmp_path: Path) -> None:
    folders = [tmp_path / "in" / str(number) for number in range(12)]
    for folder in folders:
        make(folder, "a.jpg")
        for other in folders:
            (folder / f"to-{other.name}").symlink_to(other)
    found = relatives(plan_jobs([tmp_path / "in"], tmp_path / "out", follows_links=True))
    assert len(found) <= len(folders) * 2


def test_a_link_out_of_the_output_is_refused(album: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "precious").mkdir()
    (tmp_path / "out" / "z").symlink_to(tmp_path / "precious")
    with pytest.raises(OutputError, match="leads out of the output"):
        plan_jobs([album], tmp_path / "out")
    (tmp_path / "out" / "z").unlink()
    (tmp_path / "out" / "z").symlink_to(tmp_path / "out" / "m")
    assert len(plan_jobs([album], tmp_path / "out")) == 5, "a link inside it does no harm"


ODD_NAMES = [
    b"two\nlines.jpg",
    b"\xff\xfe\x80.jpg",
    b"x" * 251 + b".jpg",
    b"dots...jpg",
    b"CON.jpg",
    b" .jpg",
    b"a\\b.jpg",
    "\u202eevil.jpg".encode(),
    b"-o.jpg",
]


def test_odd_names_survive(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ODD_NAMES:
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(b"")
    jobs = plan_jobs([folder], tmp_path / "out")
    assert sorted(os.fsencode(job.target.name) for job in jobs) == sorted(ODD_NAMES)
    for job in jobs:
        assert job.source.exists()
        line = printable(job.source)
        assert line.isprintable()
        line.encode("utf-8")


def test_a_last_dot_is_no_suffix(tmp_path: Path) -> None:
    make(tmp_path, "photo.", "photo.jpg.")
    assert relatives(plan_jobs([tmp_path / "photo."], tmp_path / "out")) == ["photo..png"]


@given(st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=20), st.sampled_from(["", ".jpg", ".TIF"]))
def test_target_names_have_a_suffix_that_can_be_written(stem: str, suffix: str) -> None:
    assume(stem.strip("."))  # What a name of dots alone ends with is no suffix.
    for format in ("auto", *FORMAT_SUFFIXES):
        name = target_name(stem + suffix, format)
        found = split_suffix(name)[1].lower()
        assert found in (folders.KEPT_SUFFIXES if format == "auto" else FORMAT_SUFFIXES[format])
        assert target_name(name, format) == name


def test_every_kept_suffix_has_a_writer() -> None:
    assert set(_WRITERS) == folders.KEPT_SUFFIXES


def test_missing_inputs_are_named(album: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nope1\.jpg, .*nope2"):
        plan_jobs([album, tmp_path / "nope1.jpg", tmp_path / "nope2"], tmp_path / "out")


def test_inputs_without_a_photo(tmp_path: Path) -> None:
    make(tmp_path, "in/notes.txt")
    for given_input in ("in", "in/*.jpg", "none/*.jpg"):
        with pytest.raises(NoPhotosError, match="No photo was found in"):
            plan_jobs([tmp_path / given_input], tmp_path / "out")


def test_a_pattern_without_a_match_beside_photos_is_told(
    album: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert len(plan_jobs([album / "*.bmp", album / "*.jpg"], tmp_path / "out")) == 1
    assert caplog.messages == [f"{album}/*.bmp matches no photo."]


def test_pipes_and_devices_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(UsageError, match="neither a file nor a folder"):
        plan_jobs([tmp_path / "pipe.jpg"], tmp_path / "out")


@pytest.mark.parametrize(
    ("names", "inputs", "format"),
    [
        (["x/a.jpg", "y/a.jpg"], ["x", "y"], "auto"),
        (["x/a.jpg", "y/a.jpg"], ["x/a.jpg", "y"], "auto"),
        (["x/a.heic", "y/a.heic"], ["x", "y"], "auto"),
        (["x/a.jpg", "y/a.jpg"], ["x", "y"], "png"),
        (["in/a.heic", "in/a.heic.jpg", "in/a.jpg"], ["in"], "auto"),
    ],
)
def test_two_sources_of_one_target_are_refused(
    tmp_path: Path, names: list[str], inputs: list[str], format: str
) -> None:
    make(tmp_path, *names)
    with pytest.raises(UsageError) as caught:
        plan_jobs([tmp_path / name for name in inputs], tmp_path / "out", format=format)
    message = str(caught.value)
    assert all(str(tmp_path / name) in message for name in names[:2])
    assert "--output" in message
    assert "--format" not in message


@pytest.mark.parametrize(
    ("names", "format", "planned"),
    [
        (["x.heic", "x.jpg", "y.heic"], "auto", ["x.heic.jpg", "x.jpg", "y.jpg"]),
        (["scan.gif", "scan.png"], "auto", ["scan.gif.png", "scan.png"]),
        (["x.avif", "x.heic"], "auto", ["x.avif.jpg", "x.heic.jpg"]),
        (["a.jpg", "a.png", "a.tif", "b.tif"], "png", ["a.jpg.png", "a.png", "a.tif.png", "b.png"]),
        (["m/x.heic", "x.jpg"], "auto", ["m/x.jpg", "x.jpg"]),
    ],
)
def test_a_suffix_is_kept_where_only_that_tells_sources_apart(
    tmp_path: Path, names: list[str], format: str, planned: list[str]
) -> None:
    make(tmp_path / "in", *names)
    for _ in range(2):
        assert relatives(plan_jobs([tmp_path / "in"], tmp_path / "out", format=format)) == planned
        for name in planned:  # What lies in the output has no say, so that the next run skips it.
            make(tmp_path / "out", name)
    for name, result in zip(names, planned, strict=True):
        alone = plan_jobs([tmp_path / "in" / name], tmp_path / "alone", format=format)
        if "x.avif" not in names:  # Neither has the name of a result: only together do they collide.
            assert alone[0].relative.name == Path(result).name, "the same as among the others"


def test_a_suffix_is_kept_for_a_photo_beside_the_source_though_it_is_no_input(tmp_path: Path) -> None:
    make(tmp_path / "in", "x.heic", "x.jpg")
    assert relatives(plan_jobs([tmp_path / "in" / "*.heic"], tmp_path / "out")) == ["x.heic.jpg"]
    make(tmp_path / "own", "x.heic")
    for _ in range(2):
        assert relatives(plan_jobs([tmp_path / "own" / "x.heic"], tmp_path / "own")) == ["x.jpg"]
        make(tmp_path / "own", "x.jpg")
    make(tmp_path / "case", "x.heic", "X.JPG")
    assert relatives(plan_jobs([tmp_path / "case"], tmp_path / "out")) == ["X.JPG", "x.jpg"]


def test_suffixes_are_kept_by_the_letters_that_the_output_tells_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "in", "IMG_1.HEIC", "IMG_1.JPG")
    monkeypatch.setattr(folders, "_ignores_case", lambda output: True)
    assert relatives(plan_jobs([tmp_path / "in"], tmp_path / "out")) == ["IMG_1.HEIC.jpg", "IMG_1.JPG"]


def test_names_that_differ_in_case_collide_where_the_output_ignores_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "in/A.jpg", "in/a.jpg", "in/\u00e9.jpg", "in/e\u0301.jpg")
    assert len(plan_jobs([tmp_path / "in"], tmp_path / "out")) == 4
    monkeypatch.setattr(folders, "_ignores_case", lambda output: True)
    with pytest.raises(UsageError, match="would both be written"):
        plan_jobs([tmp_path / "in"], tmp_path / "out")


def test_the_case_of_this_file_system_is_found_without_writing(tmp_path: Path) -> None:
    make(tmp_path, "probe/x")
    ignores = (tmp_path / "PROBE").exists()
    assert folders._ignores_case(tmp_path / "probe") is ignores
    assert folders._ignores_case(tmp_path / "probe" / "new" / "1") is ignores


@pytest.mark.parametrize("output", ["in", "in/out", "in/m/new/deep", "link/out", "in/../in"])
def test_output_inside_an_input_folder_is_refused(album: Path, tmp_path: Path, output: str) -> None:
    (tmp_path / "link").symlink_to(album)
    with pytest.raises(OutputError, match="--output"):
        plan_jobs([album], tmp_path / output)


def test_overwriting_a_source_is_refused_but_a_neighbour_is_fine(album: Path, tmp_path: Path) -> None:
    assert relatives(plan_jobs([album / "m"], album)) == ["e.webp", "n/d.JPeG"]
    (tmp_path / "link").symlink_to(album)
    for given_input, output in (
        (album / "b.jpg", album),
        (album / "b.jpg", tmp_path / "link"),
        (album / "*.jpg", album),
    ):
        with pytest.raises(OutputError, match="would overwrite the source"):
            plan_jobs([given_input], output)


def test_overwriting_another_jobs_source_is_refused(tmp_path: Path) -> None:
    make(tmp_path, "x/a.jpg", "y/sub/a.jpg")
    with pytest.raises(OutputError, match=r"x/a\.jpg would overwrite the source .*y/sub/a\.jpg"):
        plan_jobs([tmp_path / "x" / "a.jpg", tmp_path / "y" / "sub" / "a.jpg"], tmp_path / "y" / "sub")


def test_a_second_run_of_a_pattern_passes_over_the_results(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "m/b.jpg", "restored/a.jpg")
    assert relatives(plan_jobs([tmp_path / "**" / "*.jpg"], tmp_path / "restored")) == ["a.jpg", "m/b.jpg"]


def test_output_must_be_a_writable_folder(album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "file")
    for output in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match="is not a folder"):
            plan_jobs([album], output)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(OutputError, match="cannot be written"):
        plan_jobs([album], tmp_path / "out")


@pytest.fixture
def unreadable_m(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets nobody read folders named m, as file modes would where tests do not run as root."""
    scan = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "m":
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)


@pytest.mark.usefixtures("unreadable_m")
def test_a_folder_inside_that_cannot_be_read_is_a_job_that_fails(album: Path, tmp_path: Path) -> None:
    make(album, "m.png")
    make(tmp_path / "in2", "m/x.jpg", "y.jpg")
    for given_input in (album, album / "**"):
        jobs = plan_jobs([given_input, tmp_path / "in2"], tmp_path / "out")
        assert relatives(jobs) == ["a.PNG", "b.jpg", "m", "m.png", "z/c.tif", "m", "y.jpg"]
        faulty = [job for job in jobs if job.fault is not None]
        assert [job.source for job in faulty] == [album / "m", tmp_path / "in2" / "m"]
        assert all("The folder cannot be read (Permission denied)" in (job.fault or "") for job in faulty)


@pytest.mark.usefixtures("unreadable_m")
def test_where_nothing_is_found_what_was_left_out_is_told(album: Path, tmp_path: Path) -> None:
    make(tmp_path / "in2", "m/x.jpg")
    (tmp_path / "in2" / "link.jpg").symlink_to(album / "b.jpg")
    with pytest.raises(NoPhotosError, match=r"Access is missing to .*/m\..*link\.jpg; --follow-links takes it\."):
        plan_jobs([tmp_path / "in2"], tmp_path / "out")


@pytest.mark.usefixtures("unreadable_m")
def test_a_named_folder_that_cannot_be_read_is_an_error(album: Path, tmp_path: Path) -> None:
    for given_input in (album / "m", album / "m" / "*.webp"):
        with pytest.raises(UsageError, match=r"/m cannot be read \(Permission denied\)"):
            plan_jobs([album / "b.jpg", given_input], tmp_path / "out")


def test_links_to_themselves_or_without_access_are_left_out_when_links_are_followed(
    album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (album / "self").symlink_to("self")
    (album / "self.jpg").symlink_to("self.jpg")
    plain = ["a.PNG", "b.jpg", "m/e.webp", "m/n/d.JPeG", "z/c.tif"]
    assert relatives(plan_jobs([album], tmp_path / "out", follows_links=True)) == plain
    assert caplog.messages == [f"Left out in {album}, since no file of that folder is behind the name: 2."]
    # As root everything is readable, so the refusal of a file behind a link is played.
    (album / "closed.jpg").symlink_to(tmp_path / "closed" / "x.jpg")
    is_file = Path.is_file

    def refuse(path: Path) -> bool:
        if path.parent.name == "closed":
            raise PermissionError(13, "Permission denied")
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", refuse)
    assert relatives(plan_jobs([album], tmp_path / "out", follows_links=True)) == plain


def test_folders_deeper_than_pythons_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    depth = sys.getrecursionlimit() + 50
    monkeypatch.chdir(tmp_path)
    for _ in range(depth):
        Path("d").mkdir()
        os.chdir("d")
    Path("a.jpg").touch()
    assert len(plan_jobs([tmp_path], tmp_path.parent / "out")) == 1
    Path("a.jpg").unlink()
    for _ in range(depth):  # Tools that delete folders recursively would fail as well.
        os.chdir("..")
        Path("d").rmdir()


def test_planning_asks_about_each_file_once_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planning a large folder must not ask the file system several times about every photo."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(2000):
        (folder / f"{number}.jpg").touch()
    calls = 0
    stat = os.stat

    def counting(*arguments: object, **named: object) -> os.stat_result:
        nonlocal calls
        calls += 1
        return stat(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", counting)
    assert len(plan_jobs([folder], tmp_path / "out")) == 2000
    assert calls < 2000 * 1.1
