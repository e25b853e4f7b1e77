"""Where training faces are stored: folders, LMDB, tar shards. All give bytes of image files by position."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from gfprestore.errors import UsageError, printable
from gfprestore.training.regions import COMPONENTS_FILE

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
"""Endings of files that are faces, in lower case."""


class FaceSource(Protocol):
    """An ordered set of image files."""

    @property
    def names(self) -> Sequence[str]:
        """Name of each face, without its ending, in the order of the positions."""
        ...

    @property
    def components_file(self) -> Path | None:
        """File of the faces' components that lies beside them, if one does."""
        ...

    def read(self, position: int) -> bytes:
        """Returns the bytes of one image file; safe in any process."""
        ...

    def whole_name(self, position: int) -> str:
        """Returns where a face lies and its whole name, for messages."""
        ...


class FolderSource:
    """The image files of a folder and its sub-folders, by path."""

    def __init__(self, folder: Path) -> None:
        self._paths = sorted(
            Path(root) / name for root, _, names in os.walk(folder) for name in names if _is_face(name)
        )
        self.names = [path.relative_to(folder).with_suffix("").as_posix() for path in self._paths]
        self.components_file = _components_file(folder)

    def read(self, position: int) -> bytes:
        """Returns the bytes of one image file."""
        return self._paths[position].read_bytes()

    def whole_name(self, position: int) -> str:
        """Returns the path of one image file."""
        return str(self._paths[position])


@dataclass(frozen=True)
class _Member:
    """Where in a shard a file's bytes are."""

    name: str
    start: int
    length: int


class TarSource:
    """The image files of a tar shard, in the order of their names; other members, such as texts, are skipped.

    The index is read once; each face is then one read at its place, so that shards serve random access as well.
    Names are those below the packed folder, whether it was packed as `.` or by its files, and hidden files, such as the
    `._face.png` of macOS, are none of the faces: as in a folder.
    """

    components_file: Path | None = None

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with tarfile.open(path, "r:") as archive:
                members = [
                    _Member(_plain_name(member.name), member.offset_data, member.size)
                    for member in archive
                    if member.isreg() and _is_face(member.name)
                ]
        except (tarfile.TarError, OSError) as error:
            raise UsageError(f"{printable(path)} is no uncompressed tar shard: see data.sources.") from error
        self._members = sorted(members, key=lambda member: member.name)
        self.names = [member.name.rpartition(".")[0] for member in self._members]

    def read(self, position: int) -> bytes:
        """Returns the bytes of one image file."""
        member = self._members[position]
        with self._path.open("rb") as stream:
            stream.seek(member.start)
            return stream.read(member.length)

    def whole_name(self, position: int) -> str:
        """Returns the shard's path and the member's name."""
        return f"{self._path}: {self._members[position].name}"


class LmdbSource:
    """An LMDB folder in the official layout: `meta_info.txt` names the images, the keys have no endings."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._environment: Any = None
        self._owner = 0
        try:
            lines = (folder / "meta_info.txt").read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise UsageError(f"{printable(folder)} has no meta_info.txt: see data.sources.") from error
        self.names = [line.split(" ")[0].rpartition(".")[0] for line in lines if line]
        self.components_file = _components_file(folder)

    def read(self, position: int) -> bytes:
        """Returns the bytes of one image file."""
        with self._open().begin(write=False) as transaction:
            value = transaction.get(self.names[position].encode())
        if value is None:
            raise UsageError(f"{printable(self._folder)} lacks {printable(self.names[position])}: see data.sources.")
        return bytes(value)

    def whole_name(self, position: int) -> str:
        """Returns the folder's path and the face's key."""
        return f"{self._folder}: {self.names[position]}"

    def _open(self) -> Any:
        # An environment must not cross a fork: every process opens its own.
        if self._environment is None or self._owner != os.getpid():
            try:
                import lmdb
            except ImportError as error:
                raise UsageError("Reading LMDB needs the package lmdb: pip install lmdb.") from error
            try:
                self._environment = lmdb.open(
                    str(self._folder), readonly=True, lock=False, readahead=False, max_readers=2048
                )
            except lmdb.Error as error:
                raise UsageError(f"{printable(self._folder)} is no readable LMDB: see data.sources.") from error
            self._owner = os.getpid()
        return self._environment

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_environment": None}


@dataclass(frozen=True, eq=False)
class FaceSet:
    """Faces of several sources, counted through."""

    places: tuple[tuple[FaceSource, int], ...]
    """Source and position of each face."""

    def __len__(self) -> int:
        return len(self.places)

    def name(self, index: int) -> str:
        """Name of a face, without its ending."""
        source, position = self.places[index]
        return source.names[position]

    def whole_name(self, index: int) -> str:
        """Where a face lies, from the root, and its whole name; one face has one such name, however it is reached."""
        source, position = self.places[index]
        return os.path.abspath(source.whole_name(position))  # noqa: PTH100

    def digest(self) -> str:
        """Digest of which faces these are, by their whole names."""
        names = "\n".join(self.whole_name(index) for index in range(len(self)))
        return hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()

    def read(self, index: int, size: int) -> NDArray[np.uint8]:
        """Reads a face: RGB uint8 (size, size, 3); one of another size is resized.

        Raises:
            UsageError: The file cannot be read, is no image, or is no square.
        """
        source, position = self.places[index]
        decoded = None
        # OpenCV raises where a header promises more pixels than it takes, and returns None for what is no image.
        with suppress(OSError, cv2.error):
            encoded = np.frombuffer(source.read(position), dtype=np.uint8)
            decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR) if encoded.size else None
        if decoded is None:
            name = printable(source.whole_name(position))
            raise UsageError(f"{name} is no readable image: mend or remove it, see data.sources, and run again.")
        height, width = decoded.shape[:2]
        if height != width:
            name = printable(source.whole_name(position))
            raise UsageError(
                f"{name} has {width} x {height} pixels, but an aligned face is a square: cut faces out with"
                " gfprestore-train align, or remove it."
            )
        if height != size:
            # Averaging avoids aliasing where the face shrinks; it is no interpolation where it grows.
            method = cv2.INTER_AREA if height > size else cv2.INTER_CUBIC
            decoded = cv2.resize(decoded, (size, size), interpolation=method)
        return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def open_faces(sources: Sequence[str], held_out: int = 0) -> tuple[FaceSet, FaceSet]:
    """Opens sources.

    Args:
        sources: Folders, LMDB folders (`*.lmdb`), tar shards (`*.tar`).
        held_out: How many faces at the end of each source to keep apart.

    Returns:
        The faces to train on, and those held out.

    Raises:
        UsageError: A source is missing or holds no more faces than are held out.
    """
    if not sources:
        raise UsageError("No faces to train on: name folders of aligned faces, --set 'data.sources=[\"faces\"]'.")
    kept: list[tuple[FaceSource, int]] = []
    apart: list[tuple[FaceSource, int]] = []
    for name in sources:
        source = _open_source(Path(name))
        count = len(source.names)
        if not count:
            raise UsageError(f"{printable(name)} has no faces: see data.sources.")
        if count <= held_out:
            raise UsageError(
                f"{printable(name)} has {count} faces and data.held_out keeps {held_out} of each source apart for"
                f" validation: name more faces, or --set data.held_out={min(count - 1, max(1, count // 5))}."
            )
        kept += [(source, position) for position in range(count - held_out)]
        apart += [(source, position) for position in range(count - held_out, count)]
    return FaceSet(tuple(kept)), FaceSet(tuple(apart))


def _open_source(path: Path) -> FaceSource:
    if path.suffix == ".lmdb" and path.is_dir():
        return LmdbSource(path)
    if path.is_dir():
        return FolderSource(path)
    if path.suffix == ".tar" and path.is_file():
        return TarSource(path)
    raise UsageError(f"{printable(path)} is no folder, LMDB folder or tar shard: see data.sources.")


def _is_face(name: str) -> bool:
    """Whether a file is one by its name, with or without folders before it."""
    last = name.rpartition("/")[2]
    return last.lower().endswith(IMAGE_SUFFIXES) and not last.startswith(".")


def _plain_name(name: str) -> str:
    """`./a//b.png` -> `a/b.png`."""
    return PurePosixPath(name).as_posix().lstrip("/")


def _components_file(folder: Path) -> Path | None:
    path = folder / COMPONENTS_FILE
    return path if path.is_file() else None
