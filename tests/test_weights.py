"""Finding, verifying, fetching, choosing and reading weights; every hostile file is refused."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import random
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from file_server import FileServer, serve
from safetensors.torch import save_file

from gfprestore import digest, download, manifest, weights
from gfprestore.digest import weights_digest
from gfprestore.errors import ExitCode, WeightsError
from gfprestore.manifest import MANIFEST, WeightsFile, check_choice, known_weights
from gfprestore.weights import (
    choose_detector,
    choose_face_model,
    ensure_weights,
    fetch_weights,
    find_weights,
    read_state_dict,
    search_folders,
    shipped_folder,
)

CONTENT = b"weights" * 1000
DETECTOR = b"detector" * 100


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache, an empty working folder, no variable: nothing of this machine is found or written."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("GFPRESTORE_WEIGHTS", raising=False)
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setattr(download, "_silent_hosts", {})
    return tmp_path


@pytest.fixture
def small_official_files(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A manifest whose 1.4 and ResNet-50 are a few bytes, the former served by a server on this machine."""
    with serve(CONTENT) as server:
        small = {
            "1.4": {"bytes": len(CONTENT), "sha256": hashlib.sha256(CONTENT).hexdigest(), "url": server.url},
            "resnet50": {"bytes": len(DETECTOR), "sha256": hashlib.sha256(DETECTOR).hexdigest(), "url": server.url},
        }
        entries = tuple(replace(entry, **small.get(entry.name, {})) for entry in MANIFEST)  # type: ignore[arg-type]
        monkeypatch.setattr(manifest, "MANIFEST", entries)
        monkeypatch.setattr(download, "ALLOWED_SCHEMES", frozenset({"http"}))
        yield server


def put(folder: Path, content: bytes = CONTENT, file: str = "GFPGANv1.4.pth") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file
    path.write_bytes(content)
    return path


# The manifest


def test_entries_are_distinct_and_complete() -> None:
    for field in ("name", "file", "sha256", "url"):
        values = [getattr(entry, field) for entry in MANIFEST if getattr(entry, field)]
        assert len(values) == len(set(values))
    for entry in MANIFEST:
        assert entry.licence
        if entry.url is not None:
            assert entry.url.startswith("https://")
            assert entry.url.endswith("/" + entry.file)
            assert len(bytes.fromhex(entry.sha256)) == 32
            assert entry.bytes > 10_000


@pytest.mark.parametrize("entry", [entry for entry in MANIFEST if entry.url is None], ids=lambda entry: entry.name)
def test_shipped_files_are_what_the_manifest_says(entry: WeightsFile) -> None:
    content = (shipped_folder() / entry.file).read_bytes()
    assert (len(content), hashlib.sha256(content).hexdigest()) == (entry.bytes, entry.sha256)


def test_shipped_files_stay_under_forty_megabytes() -> None:
    assert sum(path.stat().st_size for path in shipped_folder().iterdir()) < 40_000_000


@pytest.mark.parametrize("name", ["1.4", "GFPGANv1.4", "gfpganv1.4.PTH"])
def test_entry_is_known_by_name_and_file_name(name: str) -> None:
    assert known_weights(name).file == "GFPGANv1.4.pth"


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(WeightsError, match=r"'1\.5'; known are 1\.4, 1\.3") as caught:
        known_weights("1.5")
    assert caught.value.exit_code == ExitCode.WEIGHTS == 5


# Finding


def test_folders_are_searched_in_the_documented_order(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = alone / "named"
    named.mkdir()
    monkeypatch.setenv("GFPRESTORE_WEIGHTS", str(named))
    expected = [alone / "option", named, Path("weights"), alone / "cache" / "gfprestore", shipped_folder()]
    assert search_folders(alone / "option") == expected


@pytest.mark.usefixtures("small_official_files")
def test_first_folder_that_has_the_file_wins(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_weights("1.4") is None
    in_cache = put(alone / "cache" / "gfprestore")
    assert find_weights("1.4") == in_cache
    put(Path("weights"))
    assert find_weights("1.4") == Path("weights/GFPGANv1.4.pth")
    in_named = put(alone / "named")
    monkeypatch.setenv("GFPRESTORE_WEIGHTS", str(alone / "named"))
    assert find_weights("1.4") == in_named
    in_option = put(alone / "option")
    assert find_weights("1.4", folder=alone / "option") == in_option


def test_variable_that_names_no_folder_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GFPRESTORE_WEIGHTS", "/no/such/folder")
    with pytest.raises(WeightsError, match="GFPRESTORE_WEIGHTS is /no/such/folder"):
        find_weights("1.4")


@pytest.mark.usefixtures("small_official_files")
def test_truncated_file_is_refused(alone: Path) -> None:
    path = put(alone / "w", CONTENT[:-1])
    with pytest.raises(WeightsError, match=r"6999 bytes where 7000 are right.*fetch 1\.4") as caught:
        find_weights("1.4", folder=alone / "w")
    assert str(path) in str(caught.value)


@pytest.mark.usefixtures("small_official_files")
def test_changed_file_is_refused_with_its_digest(alone: Path) -> None:
    changed = b"W" + CONTENT[1:]
    path = put(alone / "w", changed)
    with pytest.raises(WeightsError) as caught:
        find_weights("1.4", folder=alone / "w")
    assert str(path) in str(caught.value)
    assert hashlib.sha256(changed).hexdigest() in str(caught.value)
    assert known_weights("1.4").sha256 in str(caught.value)


# Digests


def settled(path: Path) -> Path:
    """Makes a file old enough for its digest to be recorded."""
    before = time.time() - 60
    os.utime(path, (before, before))
    return path


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are really read for their digest."""
    names: list[str] = []
    original = hashlib.file_digest

    def counted(stream: io.BufferedReader, kind: str) -> object:
        names.append(Path(stream.name).name)
        return original(stream, kind)

    monkeypatch.setattr(digest.hashlib, "file_digest", counted)
    return names


def test_file_is_hashed_once(alone: Path, hashed: list[str]) -> None:
    path = settled(put(alone / "w"))
    expected = hashlib.sha256(CONTENT).hexdigest()
    assert [weights_digest(path) for _ in range(3)] == [expected] * 3
    assert hashed == ["GFPGANv1.4.pth"]
    assert weights_digest(path, trust_record=False) == expected
    assert len(hashed) == 2


def test_changed_file_is_hashed_again(alone: Path, hashed: list[str]) -> None:
    path = settled(put(alone / "w"))
    weights_digest(path)
    settled(put(alone / "w", CONTENT + b"!"))
    assert weights_digest(path) == hashlib.sha256(CONTENT + b"!").hexdigest()
    replacement = put(alone / "w", CONTENT[::-1] + b"!", file="new")
    os.utime(replacement, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    replacement.replace(path)  # Same size, same time: only the inode tells.
    assert weights_digest(path) == hashlib.sha256(CONTENT[::-1] + b"!").hexdigest()
    assert len(hashed) == 3


def test_file_changed_just_now_is_not_recorded(alone: Path, hashed: list[str]) -> None:
    path = put(alone / "w")
    weights_digest(path)
    weights_digest(path)
    assert len(hashed) == 2


@pytest.mark.parametrize("damage", ["", "[]", "{", '{"a": 1}', "\0\xff"])
def test_damaged_record_is_passed_over(alone: Path, damage: str) -> None:
    (alone / "cache" / "gfprestore").mkdir(parents=True)
    (alone / "cache" / "gfprestore" / "digests.json").write_text(damage, encoding="latin-1")
    assert weights_digest(settled(put(alone / "w"))) == hashlib.sha256(CONTENT).hexdigest()


def test_cache_that_cannot_be_written_is_passed_over(alone: Path) -> None:
    (alone / "cache").write_bytes(b"a file where the folder would be")
    assert weights_digest(settled(put(alone / "w"))) == hashlib.sha256(CONTENT).hexdigest()


def test_absent_file_is_told(alone: Path) -> None:
    with pytest.raises(WeightsError, match="cannot be read"):
        weights_digest(alone / "absent.pth")


# Fetching


def test_absent_file_is_fetched_into_the_cache_once(alone: Path, small_official_files: FileServer) -> None:
    seen: list[tuple[str, int]] = []
    for _ in range(2):
        path = ensure_weights("1.4", progress=lambda entry, here: seen.append((entry.name, here)))
    assert path == alone / "cache" / "gfprestore" / "GFPGANv1.4.pth"
    assert path.read_bytes() == CONTENT
    assert seen == [("1.4", len(CONTENT))]
    assert len(small_official_files.ranges) == 1


def test_offline_never_connects_and_says_what_to_do(small_official_files: FileServer) -> None:
    with pytest.raises(WeightsError) as caught:
        ensure_weights("1.4", offline=True)
    message = str(caught.value)
    assert "--offline" in message
    assert "`gfprestore-weights fetch 1.4`" in message
    assert small_official_files.url in message
    assert str(digest.user_cache_folder()) in message
    assert small_official_files.ranges == []


def test_failed_fetch_says_why_and_what_to_do(small_official_files: FileServer) -> None:
    small_official_files.status = 404
    with pytest.raises(WeightsError, match=r"answers 404 Not Found\): run `gfprestore-weights fetch 1\.4`"):
        ensure_weights("1.4")


def test_damaged_file_in_the_way_of_a_fetch_is_told(alone: Path, small_official_files: FileServer) -> None:
    put(alone / "into", b"something else")
    with pytest.raises(WeightsError, match="delete it"):
        fetch_weights("1.4", into=alone / "into")
    assert small_official_files.ranges == []


def test_shipped_files_are_never_fetched() -> None:
    with pytest.raises(WeightsError, match="install it anew"):
        fetch_weights("compact")


# Choosing


def test_auto_takes_the_official_model_where_it_is(alone: Path, small_official_files: FileServer) -> None:
    path = put(alone / "w")
    told: list[str] = []
    assert choose_face_model("auto", folder=alone / "w", offline=True, notify=told.append) == ("1.4", path)
    assert told == []
    assert small_official_files.ranges == []


@pytest.mark.usefixtures("small_official_files")
def test_auto_fetches_the_official_model() -> None:
    name, path = choose_face_model("auto", notify=pytest.fail)
    assert (name, path.read_bytes()) == ("1.4", CONTENT)


@pytest.mark.parametrize("offline", [True, False])
def test_auto_falls_back_to_the_shipped_model_and_says_so(small_official_files: FileServer, offline: bool) -> None:
    small_official_files.status = 503
    told: list[str] = []
    name, path = choose_face_model("auto", offline=offline, notify=told.append)
    assert (name, path) == ("compact", shipped_folder() / "gfprestore_compact_fp16.safetensors")
    assert len(told) == 1
    assert "small model that ships" in told[0]
    assert ("--offline" if offline else "503") in told[0]
    assert "\n" not in told[0]


@pytest.mark.usefixtures("small_official_files")
def test_auto_refuses_a_damaged_official_file(alone: Path) -> None:
    put(alone / "w", b"something else")
    with pytest.raises(WeightsError, match="14 bytes where 7000 are right"):
        choose_face_model("auto", folder=alone / "w", offline=True, notify=pytest.fail)


@pytest.mark.usefixtures("small_official_files")
@pytest.mark.parametrize("model", ["1.4", "gfpganv1.3", "1"])
def test_model_asked_for_by_name_is_never_replaced(model: str) -> None:
    with pytest.raises(WeightsError, match=f"weights {known_weights(model).name} are not here"):
        choose_face_model(model, offline=True, notify=pytest.fail)


@pytest.mark.parametrize("model", ["resnet50", "codeformer", "realesrgan-x2plus"])
def test_model_for_something_else_is_refused(model: str) -> None:
    with pytest.raises(WeightsError, match=r"no face model; --model takes auto, 1\.4, 1\.3, 1\.2, 1, compact"):
        choose_face_model(model, offline=True, notify=pytest.fail)


@pytest.mark.parametrize("kind", ["face", "detector"])
def test_an_unknown_name_is_told_the_names_of_its_own_option(kind: Literal["face", "detector"]) -> None:
    option = {"face": "--model", "detector": "--detector"}[kind]
    with pytest.raises(WeightsError, match=rf"^foo is no {kind} model; {option} takes auto, ") as caught:
        check_choice("foo", kind)
    assert "niqe" not in str(caught.value)
    for path in ("foo.pth", "folder/foo"):
        with pytest.raises(WeightsError, match=f"no weights file {path}; check {option}"):
            check_choice(path, kind)


def test_file_of_ones_own_is_taken_as_it_is(alone: Path) -> None:
    path = put(alone / "mine", b"no digest is known", file="my_model.pth")
    assert choose_face_model(str(path), offline=True, notify=pytest.fail) == ("my_model", path)


@pytest.mark.usefixtures("small_official_files")
def test_detector_is_the_best_one_here_and_none_is_fetched(
    alone: Path, small_official_files: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    resnet = put(alone / "w", DETECTOR, file="detection_Resnet50_Final.pth")
    assert choose_detector(folder=alone / "w") == ("resnet50", resnet)
    monkeypatch.setattr(weights, "shipped_folder", lambda: alone / "nothing ships")
    with pytest.raises(WeightsError, match="detector-compact are not here"):
        choose_detector()
    assert small_official_files.ranges == []


# Reading

TENSORS = {"a.weight": torch.arange(12.0).reshape(3, 4), "b": torch.ones(5, dtype=torch.float16)}


def same(found: dict[str, np.ndarray]) -> bool:
    return found.keys() == TENSORS.keys() and all(
        found[name].dtype == tensor.numpy().dtype and np.array_equal(found[name], tensor.numpy())
        for name, tensor in TENSORS.items()
    )


@pytest.mark.parametrize("wrapped_in", [None, "params", "params_ema", "state_dict"])
@pytest.mark.parametrize("archive", [True, False])
def test_pickle_is_read_and_then_its_converted_copy(
    alone: Path, monkeypatch: pytest.MonkeyPatch, archive: bool, wrapped_in: str | None
) -> None:
    path = alone / "x.pth"
    other = "params" if wrapped_in == "params_ema" else "optimizer"
    stored = TENSORS if wrapped_in is None else {"iterations": 3, other: {"wrong": torch.ones(1)}, wrapped_in: TENSORS}
    torch.save(stored, path, _use_new_zipfile_serialization=archive)
    assert same(read_state_dict(path))
    copies = list((alone / "cache" / "gfprestore" / "converted").iterdir())
    assert [copy.name for copy in copies] == [f"{weights_digest(path)}.safetensors"]
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("the pickle was read again"))
    assert same(read_state_dict(path))


def test_damaged_copy_is_made_again(alone: Path) -> None:
    path = alone / "x.pth"
    torch.save(TENSORS, path)
    read_state_dict(path)
    (copy,) = (alone / "cache" / "gfprestore" / "converted").iterdir()
    whole = copy.read_bytes()
    copy.write_bytes(whole[:50])
    assert same(read_state_dict(path))
    assert copy.read_bytes() == whole


def test_copies_that_a_killed_process_left_half_written_are_swept_away(alone: Path) -> None:
    folder = alone / "cache" / "gfprestore" / "converted"
    folder.mkdir(parents=True)
    for name, age in (("abandoned.part", 7200), ("in-work.part", 60)):
        (folder / name).write_bytes(b"half")
        os.utime(folder / name, (time.time() - age,) * 2)
    torch.save(TENSORS, alone / "x.pth")
    read_state_dict(alone / "x.pth")
    assert sorted(path.suffix for path in folder.iterdir()) == [".part", ".safetensors"]
    assert (folder / "in-work.part").exists()


def test_reading_does_without_a_cache(alone: Path) -> None:
    (alone / "cache").write_bytes(b"a file where the folder would be")
    torch.save(TENSORS, alone / "x.pth")
    assert same(read_state_dict(alone / "x.pth"))


def test_tensors_that_share_their_numbers_are_read(alone: Path) -> None:
    numbers = torch.arange(10.0)
    # Two views of one half each: as many numbers as are stored.
    torch.save({"a": numbers[:5], "b": numbers[5:]}, alone / "x.pth")
    for _ in range(2):
        found = read_state_dict(alone / "x.pth")
        assert np.array_equal(np.concatenate([found["a"], found["b"]]), numbers.numpy())


def test_safetensors_are_read(alone: Path) -> None:
    save_file(TENSORS, alone / "x.safetensors", metadata={"architecture": "none"})
    assert same(read_state_dict(alone / "x.safetensors"))


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_brain_floats_come_as_floats_of_the_same_value(alone: Path, suffix: str) -> None:
    stored = {"a": torch.linspace(-3, 3, 50).reshape(5, 10).bfloat16(), "b": torch.tensor(1.5).bfloat16()}
    path = alone / f"x.{suffix}"
    if suffix == "pth":
        torch.save(stored, path)
    else:
        save_file(stored, path)
    for _ in range(2):  # a pickle's converted copy as well
        found = read_state_dict(path)
        assert all(isinstance(array, np.ndarray) and array.dtype == np.float32 for array in found.values())
        for name, tensor in stored.items():
            assert np.array_equal(found[name], tensor.float().numpy()) and found[name].shape == tuple(tensor.shape)


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_types_that_weights_do_not_have_are_refused(alone: Path, suffix: str) -> None:
    stored = {"a": torch.zeros(4, dtype=torch.float8_e4m3fn)}
    if suffix == "pth":
        torch.save(stored, alone / "x.pth")
    else:
        save_file(stored, alone / "x.safetensors")
    with pytest.raises(WeightsError, match="type"):
        read_state_dict(alone / f"x.{suffix}")


def test_tensors_that_lie_askew_in_their_file_are_read(alone: Path) -> None:
    """Safetensors may follow each other without a gap: behind a single byte floats are on no multiple of their size."""
    path = alone / "x.safetensors"
    header = {
        "a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
        "b": {"dtype": "F32", "shape": [2], "data_offsets": [1, 9]},
        "c": {"dtype": "F32", "shape": [0, 3], "data_offsets": [9, 9]},
    }
    text = json.dumps(header).encode().ljust(160)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"\7" + np.float32([1, -2]).tobytes())
    found = read_state_dict(path)
    assert found["a"].tolist() == [7] and found["b"].tolist() == [1, -2] and found["c"].shape == (0, 3)
    assert all(array.flags.aligned for array in found.values())


class RunsOnLoad:
    """Pickled as a call: whoever unpickles it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("archive", [True, False])
def test_pickle_that_runs_code_is_refused(alone: Path, archive: bool) -> None:
    path = alone / "x.pth"
    torch.save({"a": torch.ones(3), "b": RunsOnLoad(alone / "owned")}, path, _use_new_zipfile_serialization=archive)
    with pytest.raises(WeightsError, match="not a file of weights and nothing else"):
        read_state_dict(path)
    assert not (alone / "owned").exists()


def test_plain_pickle_that_runs_code_is_refused(alone: Path) -> None:
    (alone / "x.pth").write_bytes(pickle.dumps(RunsOnLoad(alone / "owned")))
    with pytest.raises(WeightsError):
        read_state_dict(alone / "x.pth")
    assert not (alone / "owned").exists()


def test_zip_bomb_is_refused(alone: Path) -> None:
    torch.save({"a": torch.zeros(5_000_000)}, alone / "whole.pth")
    with (
        zipfile.ZipFile(alone / "whole.pth") as whole,
        zipfile.ZipFile(alone / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for member in whole.infolist():
            bomb.writestr(member.filename, whole.read(member))
    assert (alone / "bomb.pth").stat().st_size < 100_000
    with pytest.raises(WeightsError, match="would unpack to"):
        read_state_dict(alone / "bomb.pth")


@pytest.mark.parametrize("archive", [True, False])
def test_shape_beyond_the_file_is_refused(alone: Path, archive: bool) -> None:
    huge = torch.ones(1).expand(1 << 20, 1 << 20)
    torch.save({"a": huge}, alone / "x.pth", _use_new_zipfile_serialization=archive)
    with pytest.raises(WeightsError, match="asks for tensors of 4398046511104"):
        read_state_dict(alone / "x.pth")


@pytest.mark.parametrize(
    "stored",
    [
        {},
        [torch.ones(1)],
        "text",
        {"a": torch.ones(1), "b": 3},
        {"params": {1: torch.ones(1)}},
        {"a": torch.ones(3, device="meta")},
        {"a": torch.eye(3).to_sparse()},
    ],
)
def test_what_is_no_state_dict_is_refused(alone: Path, stored: object) -> None:
    torch.save(stored, alone / "x.pth")
    with pytest.raises(WeightsError):
        read_state_dict(alone / "x.pth")


@pytest.mark.parametrize("form", ["archive", "legacy", "safetensors"])
def test_broken_files_are_refused_whatever_broke(alone: Path, form: str) -> None:
    """A thousand truncated and bit-flipped files give tensors or a WeightsError, nothing else."""
    path = alone / ("x.safetensors" if form == "safetensors" else "x.pth")
    if form == "safetensors":
        save_file(TENSORS, path)
    else:
        torch.save(TENSORS, path, _use_new_zipfile_serialization=form == "archive")
    whole = path.read_bytes()
    chance = random.Random(form)
    refused = 0
    for _ in range(330):
        broken = bytearray(whole[: chance.randrange(len(whole))] if chance.random() < 0.3 else whole)
        for _ in range(chance.randrange(1, 4)):
            if broken:
                broken[chance.randrange(len(broken))] ^= 1 << chance.randrange(8)
        path.write_bytes(broken)
        try:
            found = read_state_dict(path)
        except WeightsError as error:
            refused += 1
            assert "\n" not in str(error)
        else:
            assert all(isinstance(array, np.ndarray) for array in found.values())
    assert refused > 50


@pytest.mark.weights
def test_official_files_are_read(real_weights: Path) -> None:
    found = read_state_dict(real_weights / "detection_mobilenet0.25_Final.pth")
    assert len(found) == 300
    assert all(isinstance(array, np.ndarray) for array in found.values())
    assert choose_detector("mobilenet0.25", folder=real_weights, offline=True)[0] == "mobilenet0.25"
