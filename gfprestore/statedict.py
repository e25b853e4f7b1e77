"""`load_state_dict`: tensors out of a weights file, whoever made it, without running anything in it."""

from __future__ import annotations

import pickle
import struct
import warnings
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from gfprestore.digest import sweep_parts, user_cache_folder, weights_digest
from gfprestore.errors import WeightsError, printable

_SETS = ("params_ema", "g_ema", "params", "state_dict")
"""Keys under which training code stores a state dict, the one to prefer first."""

_MALFORMED = (
    pickle.UnpicklingError,
    struct.error,
    RuntimeError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    MemoryError,
    OSError,
)
"""What reading a malformed file raises: torch's readers check little, so damage shows as any of these."""

_ARCHIVE_OVERHEAD = 1.05
"""`torch.save` compresses nothing: what an archive unpacks to is its own size, but for its index."""


def load_state_dict(path: Path) -> dict[str, Tensor]:
    """Reads a weights file; see `gfprestore.weights.read_state_dict`.

    A pickle is read once, then kept as safetensors in the user's cache under the digest of the file it came from: that
    form holds nothing but tensors and is mapped into memory instead of read.

    Raises:
        WeightsError: The file is damaged, holds code, or asks for more memory than its own size.
    """
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    converted = _converted_path(path)
    if converted is not None and converted.is_file():
        # A damaged copy is simply made again below.
        with suppress(WeightsError):
            return _read_safetensors(converted)
    tensors = _read_pickle(path)
    if converted is not None:
        _keep(tensors, converted)
    return tensors


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, *_MALFORMED) as error:
        raise WeightsError(f"{printable(path)} is no readable safetensors file: {_first_line(error)}.") from error


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        is_archive = zipfile.is_zipfile(path)
        size = path.stat().st_size
        if is_archive:
            with zipfile.ZipFile(path) as archive:
                unpacked = sum(member.file_size for member in archive.infolist())
            if unpacked > size * _ARCHIVE_OVERHEAD:
                raise WeightsError(f"{printable(path)} would unpack to {unpacked} bytes from {size}: it is refused.")
        with warnings.catch_warnings():
            # About unusual pickles: such a file is read or refused, and either says enough.
            warnings.simplefilter("ignore")
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive)
    except zipfile.BadZipFile as error:
        raise WeightsError(f"{printable(path)} is damaged: {_first_line(error)}.") from error
    except _MALFORMED as error:
        raise WeightsError(
            f"{printable(path)} is not a file of weights and nothing else: {_first_line(error)}."
        ) from error
    return _tensors_of(loaded, path, size)


def _tensors_of(loaded: object, path: Path, size: int) -> dict[str, Tensor]:
    """Picks the state dict out of what a file holds, and refuses tensors that the file cannot have stored."""
    for name in _SETS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(name), Mapping):
            loaded = loaded[name]
            break
    if not isinstance(loaded, Mapping) or not loaded:
        raise WeightsError(f"{printable(path)} holds no state dict.")
    tensors = {}
    for name, tensor in loaded.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise WeightsError(f"{printable(path)} holds {printable(name)}, which is no tensor.")
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            raise WeightsError(f"{printable(path)} holds {printable(name)} in a form that weights do not have.")
        tensors[name] = tensor.detach()
    # Strides of zero make a tensor of any shape out of one number; copying it would fill the memory.
    wanted = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if wanted > size:
        raise WeightsError(f"{printable(path)} has {size} bytes and asks for tensors of {wanted}: it is refused.")
    return tensors


def _converted_path(path: Path) -> Path | None:
    digest = weights_digest(path)
    try:
        return user_cache_folder() / "converted" / f"{digest}.safetensors"
    except WeightsError:
        return None


def _keep(tensors: dict[str, Tensor], target: Path) -> None:
    """Writes the safetensors form whole or not at all; a cache that cannot be written only costs time."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep_parts(target.parent, "*.part")
        with NamedTemporaryFile(dir=target.parent, suffix=".part", delete=False) as stream:
            part = Path(stream.name)
        try:
            # Cloned, since tensors that share their numbers are two in a safetensors file.
            save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, part)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    except (OSError, SafetensorError):
        return


def _first_line(error: BaseException) -> str:
    return printable((str(error) or type(error).__name__).strip().partition("\n")[0].rstrip(". "))
