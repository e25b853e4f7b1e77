"""`load_state_dict`: arrays out of a weights file, whoever made it, without running anything in it."""

from __future__ import annotations

import json
import mmap
import pickle
import struct
import warnings
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

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


_DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "<i1",
    "U8": "<u1",
    "BOOL": "|b1",
}
"""What a safetensors file may hold, as numpy calls it; bfloat16, which it does not know, as its bits."""

Arrays = dict[str, NDArray[Any]]


def load_state_dict(path: Path) -> Arrays:
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
    arrays = _read_pickle(path)
    if converted is not None:
        _keep(arrays, converted)
    return arrays


def _read_safetensors(path: Path) -> Arrays:
    try:
        # The library checks the header: types, shapes and places, none beyond the file. It would copy every tensor.
        with safe_open(path, "numpy"):
            pass
        with path.open("rb") as stream:
            # Private, since a file that is mapped to be read only gives arrays that torch warns of.
            mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
        start = 8 + int.from_bytes(mapped[:8], "little")
        header = json.loads(mapped[8:start])
        return {name: _array_of(entry, mapped, start) for name, entry in header.items() if name != "__metadata__"}
    except (SafetensorError, *_MALFORMED) as error:
        raise WeightsError(f"{printable(path)} is no readable safetensors file: {_first_line(error)}.") from error


def _array_of(entry: Mapping[str, Any], mapped: mmap.mmap, start: int) -> NDArray[Any]:
    """One tensor where it lies in the mapped file; bfloat16 as float32."""
    kind = entry["dtype"]
    if kind not in _DTYPES:
        raise ValueError(f"it holds tensors of the type {kind}, which weights do not have")
    array: NDArray[Any] = np.ndarray(entry["shape"], _DTYPES[kind], mapped, start + entry["data_offsets"][0])
    if kind == "BF16":
        return np.asarray(array.astype(np.uint32) << 16).view(np.float32)  # of no axes, a shift gives a number
    return array if array.flags.aligned else array.copy()


def _read_pickle(path: Path) -> Arrays:
    # Here, since its import takes seconds, and once converted a pickle is not read again.
    import torch

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
    return _arrays_of(loaded, path, size)


def _arrays_of(loaded: object, path: Path, size: int) -> Arrays:
    """Picks the state dict out of what a file holds, and refuses tensors that the file cannot have stored."""
    import torch

    from gfprestore.nn.tensors import as_arrays

    for name in _SETS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(name), Mapping):
            loaded = loaded[name]
            break
    if not isinstance(loaded, Mapping) or not loaded:
        raise WeightsError(f"{printable(path)} holds no state dict.")
    tensors = {}
    for name, tensor in loaded.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise WeightsError(f"{printable(path)} holds {printable(name)}, which is no tensor.")
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            raise WeightsError(f"{printable(path)} holds {printable(name)} in a form that weights do not have.")
        tensors[name] = tensor.detach()
    # Strides of zero make a tensor of any shape out of one number; copying it would fill the memory.
    wanted = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if wanted > size:
        raise WeightsError(f"{printable(path)} has {size} bytes and asks for tensors of {wanted}: it is refused.")
    try:
        arrays: Arrays = as_arrays(tensors)
    except TypeError as error:  # 8-bit floats and the like
        raise WeightsError(f"{printable(path)} holds tensors of a type that weights do not have.") from error
    return arrays


def _converted_path(path: Path) -> Path | None:
    digest = weights_digest(path)
    try:
        return user_cache_folder() / "converted" / f"{digest}.safetensors"
    except WeightsError:
        return None


def _keep(arrays: Arrays, target: Path) -> None:
    """Writes the safetensors form whole or not at all; a cache that cannot be written only costs time."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep_parts(target.parent, "*.part")
        with NamedTemporaryFile(dir=target.parent, suffix=".part", delete=False) as stream:
            part = Path(stream.name)
        try:
            save_file({name: np.asarray(array, order="C") for name, array in arrays.items()}, part)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    except (OSError, SafetensorError):
        return


def _first_line(error: BaseException) -> str:
    return printable((str(error) or type(error).__name__).strip().partition("\n")[0].rstrip(". "))
