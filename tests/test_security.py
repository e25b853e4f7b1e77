"""What README promises under Security: one test for each claim, in the same order."""

from __future__ import annotations

import ast
import hashlib
import logging
import os
import socket
import urllib.parse
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from broken_files import CRAFTED
from commands import call
from fakes import fake_models
from file_server import serve
from PIL import Image
from safetensors.torch import save_file

from gfprestore import download, run
from gfprestore.errors import ExitCode, WeightsError
from gfprestore.manifest import MANIFEST
from gfprestore.photofile import MAX_PIXELS, read_photo
from gfprestore.weights import read_state_dict, search_folders

PACKAGE = Path(__file__).resolve().parent.parent / "gfprestore"


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A cache and a working folder of its own; what the command sets for logging is taken back."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("GFPRESTORE_WEIGHTS", raising=False)
    monkeypatch.chdir(tmp_path)
    logger = logging.getLogger("gfprestore")
    handlers, level = logger.handlers[:], logger.level
    yield
    logger.handlers[:] = handlers
    logger.setLevel(level)


@pytest.fixture
def album(tmp_path: Path) -> Path:
    folder = tmp_path / "album"
    folder.mkdir()
    save_photo(folder / "a.png")
    return folder


def save_photo(path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    pixels[0, 0, 0] = 0
    Image.fromarray(pixels).save(path)


def everything_in(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


# Weights


class RunsOnLoad:
    """Pickled as a call: whoever unpickles it makes a folder."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("owned",)


def test_weights_that_run_code_when_loaded_are_refused(album: Path, tmp_path: Path) -> None:
    torch.save({"params_ema": {"weight": torch.ones(3)}, "extra": RunsOnLoad()}, tmp_path / "evil.pth")
    code, result = call(album, "-o", tmp_path / "out", "--model", tmp_path / "evil.pth", "--offline")
    assert code == ExitCode.WEIGHTS
    assert "not a file of weights and nothing else" in result.stderr
    assert not (tmp_path / "owned").exists()


def test_known_weights_with_another_digest_are_refused(album: Path, tmp_path: Path) -> None:
    entry = next(entry for entry in MANIFEST if entry.name == "mobilenet0.25")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / entry.file).write_bytes(bytes(entry.bytes))
    arguments = (album, "-o", tmp_path / "out", "--model", "compact", "--detector", entry.name, "--offline")
    code, result = call(*arguments, "--weights", tmp_path / "weights")
    assert code == ExitCode.WEIGHTS
    assert entry.sha256[:8] in result.stderr


def test_weights_that_unpack_to_more_than_their_size_are_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1_000_000)}, tmp_path / "whole.pth")
    with (
        zipfile.ZipFile(tmp_path / "whole.pth") as whole,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for member in whole.infolist():
            bomb.writestr(member.filename, whole.read(member))
    with pytest.raises(WeightsError, match="would unpack to"):
        read_state_dict(tmp_path / "bomb.pth")


def test_tensors_larger_than_their_file_are_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1).expand(1 << 20, 1 << 20)}, tmp_path / "huge.pth")
    with pytest.raises(WeightsError, match="asks for tensors of 4398046511104"):
        read_state_dict(tmp_path / "huge.pth")


def test_safetensors_ship_and_stand_in_for_pickles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(entry.file.endswith(".safetensors") for entry in MANIFEST if entry.url is None)
    torch.save({"a": torch.ones(3)}, tmp_path / "a.pth")
    save_file({"a": torch.ones(3)}, tmp_path / "a.safetensors")
    read_state_dict(tmp_path / "a.pth")
    # From here on nothing is unpickled: neither a safetensors file nor a pickle that was read before.
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("a pickle was read"))
    for name in ("a.safetensors", "a.pth"):
        assert read_state_dict(tmp_path / name)["a"].sum() == 3


# The network


def test_downloads_come_from_https_addresses_of_the_manifest_only(tmp_path: Path) -> None:
    urls = [entry.url for entry in MANIFEST if entry.url is not None]
    assert urls
    assert all(urllib.parse.urlsplit(url).scheme == "https" and urllib.parse.urlsplit(url).hostname for url in urls)
    assert all(entry.bytes > 0 and len(entry.sha256) == 64 for entry in MANIFEST)
    for url in ("http://127.0.0.1:1/x", "file:///etc/hostname", "ftp://127.0.0.1/x"):
        with pytest.raises(WeightsError, match="not an HTTPS address"):
            download.download(url, tmp_path / "x", size=1, sha256="0" * 64, patience_seconds=1)


def test_redirects_to_anything_but_https_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(b"x" * 100) as server, serve(b"x" * 100) as first:
        first.redirects_to = server.url  # over HTTP, as a downgrade would be
        usual = download._check_scheme
        # As if the first server had been asked over HTTPS.
        monkeypatch.setattr(download, "_check_scheme", lambda url: None if url == first.url else usual(url))
        with pytest.raises(WeightsError):
            download.download(first.url, tmp_path / "x", size=100, sha256="0" * 64, patience_seconds=5)
        assert server.ranges == [], "the second server was never asked"


def test_downloads_end_at_the_size_of_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "ALLOWED_SCHEMES", frozenset({"http"}))
    with serve(b"x" * 3_000_000) as server:
        server.endless = True
        with pytest.raises(WeightsError, match="more than the 2000000 bytes"):
            download.download(server.url, tmp_path / "x", size=2_000_000, sha256="0" * 64, patience_seconds=5)
    assert not list(tmp_path.glob("x*"))


def test_offline_opens_no_connection(album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(socket.socket, "connect", lambda _, address: asked.append(address))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *names, **__: asked.append(names) or [])
    assert call(album, "-o", tmp_path / "out", "--model", "1.4", "--offline")[0] == ExitCode.WEIGHTS
    assert asked == []


# Files


def test_links_out_of_the_input_are_followed_only_when_asked(album: Path, tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    save_photo(tmp_path / "private" / "secret.png")
    (album / "file.png").symlink_to(tmp_path / "private" / "secret.png")
    (album / "folder").symlink_to(tmp_path / "private")
    _, plain = call(album, "-o", tmp_path / "out", "--dry-run")
    assert len(plain.stdout.splitlines()) == 1
    _, followed = call(album, "-o", tmp_path / "out", "--dry-run", "--follow-links")
    assert len(followed.stdout.splitlines()) == 3


def hostile_names(folder: Path) -> None:
    """Photos whose names would lead elsewhere if they were split, shown or matched instead of kept."""
    names = (b"a..png", b"b\\..\\up.png", b"~.png", b"$HOME.png", b"-o.png", b"a;touch owned;.png", b"two\nlines.png")
    for name in names:
        with Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).open("wb") as stream:
            stream.write((folder / "a.png").read_bytes())


def test_nothing_is_written_outside_the_output(album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "load_models", lambda *_: fake_models())
    hostile_names(album)
    (album / "evil.jpg").write_bytes(CRAFTED["exif cycle"])
    before = everything_in(tmp_path)
    code, _ = call(album, "-o", tmp_path / "out", "--upscale", 1)
    assert code == ExitCode.OK
    after = everything_in(tmp_path)
    new = after.keys() - before.keys()
    assert len(new) == 9
    assert all(name.startswith("out" + os.sep) for name in new)
    assert {name: after[name] for name in before} == before, "and what was there is as it was"


def test_a_link_in_the_output_is_replaced_or_refused_and_never_written_through(
    album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "load_models", lambda *_: fake_models())
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "a.png").write_bytes(b"mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.png").symlink_to(precious / "a.png")
    assert call(album, "-o", tmp_path / "out", "--overwrite")[0] == ExitCode.OK
    assert not (tmp_path / "out" / "a.png").is_symlink()
    (album / "sub").mkdir()
    save_photo(album / "sub" / "b.png")
    (tmp_path / "out" / "sub").symlink_to(precious)
    assert call(album, "-o", tmp_path / "out")[0] == ExitCode.OUTPUT
    assert everything_in(precious) == {"a.png": hashlib.sha256(b"mine").hexdigest()}


def test_photos_that_claim_to_be_huge_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    for name in ("bomb png", "lying png", "lying jpeg"):
        (tmp_path / "photo").write_bytes(CRAFTED[name])
        with pytest.raises(Exception, match=rf"more than the {MAX_PIXELS // 10**6} megapixels|cannot hold a photo"):
            read_photo(tmp_path / "photo")


def test_files_that_are_programs_are_never_interpreted(tmp_path: Path) -> None:
    for name in ("postscript", "svg"):
        (tmp_path / "photo.jpg").write_bytes(CRAFTED[name])
        with pytest.raises(Exception, match="not a photo in a format that can be read"):
            read_photo(tmp_path / "photo.jpg")


def test_names_cannot_steer_the_terminal(album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "load_models", lambda *_: fake_models())
    (album / "\x1b[2Jgone\r\n.png").write_bytes(b"no photo")
    code, result = call(album, "-o", tmp_path / "out")
    assert code == ExitCode.SOME_FAILED
    assert "\\x1b[2Jgone\\r\\n.png" in result.stderr
    assert "\x1b" not in result.stderr


# The code


def test_no_shell_no_eval_and_no_pickle_of_our_own() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            settings = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert name not in {"eval", "exec", "compile", "__import__", "os.system", "os.popen"}, path
            assert not name.startswith(("pickle.", "marshal.", "shelve.", "yaml.")), path
            assert settings.get("shell", "False") == "False", path
            assert settings.get("allow_pickle", "False") == "False", path
            assert name != "torch.load" or settings.get("weights_only") == "True", path


def test_weights_are_looked_for_in_folders_of_this_user_only(tmp_path: Path) -> None:
    """A downloaded album cannot bring weights along: no folder of the input is searched."""
    searched = {folder.resolve() for folder in search_folders(None)}
    assert tmp_path / "album" not in searched
    assert tmp_path / "weights" in searched, "the working folder's weights are, and README says so"
