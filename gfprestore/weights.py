"""Weights on this machine: find them, fetch them, choose between them, read them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gfprestore.digest import user_cache_folder, weights_digest
from gfprestore.download import download
from gfprestore.errors import WeightsError, printable
from gfprestore.manifest import SUFFIXES, Kind, WeightsFile, check_choice, find_entry, known_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

Progress = Callable[[WeightsFile, int], None]
"""Told which file is fetched and how many of its bytes are here."""

Notify = Callable[[str], None]
"""Shows the user one sentence."""

_NAMED_PATIENCE_SECONDS = 20.0
_AUTO_PATIENCE_SECONDS = 4.0
"""Waiting for a host that nobody asked for by name: short, for the shipped weights do the job meanwhile."""


def search_folders(folder: Path | None = None) -> list[Path]:
    """Folders that weights are looked for in, first one first.

    `folder`, `$GFPRESTORE_WEIGHTS`, `./weights`, the user's cache, and the weights that ship with gfprestore.

    Raises:
        WeightsError: `$GFPRESTORE_WEIGHTS` names no folder.
    """
    folders = [] if folder is None else [folder]
    if named := os.environ.get("GFPRESTORE_WEIGHTS"):
        if not Path(named).is_dir():
            raise WeightsError(f"GFPRESTORE_WEIGHTS is {printable(named)}, which is not a folder.")
        folders.append(Path(named))
    return [*folders, Path("weights"), user_cache_folder(), shipped_folder()]


def shipped_folder() -> Path:
    """Folder of the weights that ship: inside the installed package, or at the root of a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "shipped_weights"
    return installed if installed.is_dir() else package.parent / "weights"


def find_weights(name: str, *, folder: Path | None = None) -> Path | None:
    """Finds a file of the manifest whose size and digest are right.

    Args:
        name: Name as `known_weights` takes it.
        folder: Searched before all others.

    Returns:
        Its path, or None where no folder holds it.

    Raises:
        WeightsError: The name is unknown, or the first file of that name is damaged.
    """
    entry = known_weights(name)
    copies = copies_of(entry, folder=folder)
    if not copies:
        return None
    check_weights(copies[0], entry)
    return copies[0]


def copies_of(entry: WeightsFile, *, folder: Path | None = None) -> list[Path]:
    """Every file of an entry's name that lies in a folder of `search_folders`, in their order, right or damaged."""
    copies: dict[Path, Path] = {}
    for place in search_folders(folder):
        path = place / entry.file
        if path.is_file():
            # In a checkout, ./weights and the weights that ship are one folder: its file counts once.
            copies.setdefault(path.resolve(), path)
    return list(copies.values())


def check_weights(path: Path, entry: WeightsFile, *, trust_record: bool = True) -> None:
    """Compares a file with its entry.

    Raises:
        WeightsError: Its size or digest differs, or it cannot be read.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise WeightsError(f"The weights {printable(path)} cannot be read: {error.strerror}.") from error
    advice = f"delete it and run `gfprestore-weights fetch {entry.name}`." if entry.url else "install gfprestore anew."
    if size != entry.bytes:
        raise WeightsError(f"{printable(path)} has {size} bytes where {entry.bytes} are right: {advice}")
    digest = weights_digest(path, trust_record=trust_record)
    if digest != entry.sha256:
        raise WeightsError(f"{printable(path)} has SHA-256 {digest} where {entry.sha256} is right: {advice}")


def fetch_weights(
    name: str,
    *,
    into: Path | None = None,
    progress: Progress | None = None,
    patience_seconds: float = _NAMED_PATIENCE_SECONDS,
) -> Path:
    """Downloads a file of the manifest, unless it is there already.

    Args:
        name: Name as `known_weights` takes it.
        into: Folder for the file; the user's cache by default.
        progress: Called as bytes arrive.
        patience_seconds: How long to wait for the host's first answer.

    Raises:
        WeightsError: The file ships and is not fetched, cannot be had, or a damaged one is in its place.
    """
    entry = known_weights(name)
    if entry.url is None:
        raise WeightsError(f"The weights {entry.name} are not for fetching: {how_to_get(entry)}")
    target = (user_cache_folder() if into is None else into) / entry.file
    if not target.exists():
        try:
            download(
                entry.url,
                target,
                size=entry.bytes,
                sha256=entry.sha256,
                patience_seconds=patience_seconds,
                progress=None if progress is None else lambda here, _: progress(entry, here),
            )
        except WeightsError as error:
            reason = str(error).rstrip(".")
            advice = how_to_get(entry, target.parent)
            raise WeightsError(f"The weights {entry.name} cannot be fetched ({reason}): {advice}") from error
    check_weights(target, entry)
    return target


def how_to_get(entry: WeightsFile, folder: Path | None = None) -> str:
    """Closing words of a message about absent weights.

    Args:
        entry: What is absent.
        folder: Where to put it; the user's cache unless given.
    """
    if entry.url is None:
        return "they ship with gfprestore, so install it anew."
    place = printable(folder or user_cache_folder())
    return f"run `gfprestore-weights fetch {entry.name}` where there is a network, or put {entry.url} into {place}."


def ensure_weights(
    name: str,
    *,
    folder: Path | None = None,
    offline: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Finds a file of the manifest, or fetches it into the user's cache.

    Raises:
        WeightsError: It is not here and cannot be had; the sentence says where from and where to.
    """
    found = find_weights(name, folder=folder)
    return found or _obtain(known_weights(name), folder=folder, offline=offline, progress=progress)


def _obtain(
    entry: WeightsFile,
    *,
    folder: Path | None,
    offline: bool,
    progress: Progress | None,
    patience_seconds: float = _NAMED_PATIENCE_SECONDS,
) -> Path:
    """Fetches what is not here, or says how to come by it."""
    if entry.url is None:
        raise WeightsError(f"The weights {entry.name} are not here: {how_to_get(entry)}")
    if offline:
        advice = how_to_get(entry, folder)
        raise WeightsError(f"The weights {entry.name} are not here and --offline forbids fetching them: {advice}")
    return fetch_weights(entry.name, progress=progress, patience_seconds=patience_seconds)


def choose_face_model(
    model: str,
    *,
    folder: Path | None = None,
    offline: bool = False,
    progress: Progress | None = None,
    notify: Notify,
) -> tuple[str, Path]:
    """Chooses the face restoration weights.

    Args:
        model: `auto`, a name of the manifest, or the path of a file of one's own, which no digest is known for.
        folder: Searched first.
        offline: Never connect.
        progress: Called as bytes arrive.
        notify: Told when the shipped compact model stands in for the official one.

    Returns:
        The name for reports, and the file.

    Raises:
        WeightsError: What was asked for by name cannot be had.
    """
    if model != "auto":
        return _by_name(model, "face", folder=folder, offline=offline, progress=progress)
    official = find_weights("1.4", folder=folder)
    if official is None:
        try:
            official = _obtain(
                known_weights("1.4"),
                folder=folder,
                offline=offline,
                progress=progress,
                patience_seconds=_AUTO_PATIENCE_SECONDS,
            )
        except WeightsError as error:
            compact = ensure_weights("compact", folder=folder, offline=True)
            notify(f"Restoring with the small model that ships, not GFP-GAN v1.4. {error}")
            return "compact", compact
    return "1.4", official


def choose_detector(
    detector: str = "auto",
    *,
    folder: Path | None = None,
    offline: bool = False,
    progress: Progress | None = None,
) -> tuple[str, Path]:
    """Chooses the face detector's weights: `auto` is the best that is here, and nothing is fetched for it.

    Args:
        detector: `auto`, a name of the manifest, or the path of a file of one's own.
        folder: Searched first.
        offline: Never connect.
        progress: Called as bytes arrive.

    Returns:
        The name for reports, and the file.

    Raises:
        WeightsError: What was asked for by name cannot be had, or the shipped detector is missing.
    """
    if detector != "auto":
        return _by_name(detector, "detector", folder=folder, offline=offline, progress=progress)
    for name in ("resnet50", "mobilenet0.25"):
        found = find_weights(name, folder=folder)
        if found is not None:
            return name, found
    return "detector-compact", ensure_weights("detector-compact", folder=folder, offline=True)


def read_state_dict(path: Path) -> dict[str, NDArray[Any]]:
    """Reads a weights file without running anything that it holds.

    Args:
        path: A safetensors file, or a file that `torch.save` wrote.

    Returns:
        Name -> array as stored, but for bfloat16, which comes as float32; of several sets in one file the averaged one
        (`params_ema`). What can be is mapped into memory instead of read.

    Raises:
        WeightsError: The file is damaged, holds code, or asks for more memory than its own size.
    """
    # Here, since finding or listing weights needs no numpy.
    from gfprestore.statedict import load_state_dict

    return load_state_dict(path)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """`read_state_dict` for torch: tensors on the CPU instead of arrays."""
    # Here, since torch takes over a second to import.
    from gfprestore.nn.tensors import as_tensors

    return as_tensors(read_state_dict(path))


def _by_name(
    name: str, kind: Kind, *, folder: Path | None, offline: bool, progress: Progress | None
) -> tuple[str, Path]:
    check_choice(name, kind)
    path, entry = Path(name), find_entry(name)
    if entry is None or (path.suffix in SUFFIXES and path.is_file()):
        return path.stem, path
    return entry.name, ensure_weights(entry.name, folder=folder, offline=offline, progress=progress)
