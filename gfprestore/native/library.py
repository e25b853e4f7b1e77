"""Finds the compiled kernels for this processor."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import platform
import sys
from functools import cache
from pathlib import Path

logger = logging.getLogger(__name__)

FOLDER = Path(__file__).parent / "compiled"
"""Where the build leaves the libraries, one for every kind of processor."""

SUFFIX = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
"""What shared libraries are called here."""

AVX2, FMA3, AVX512_SKX = 11, 12, 256
"""OpenCV's numbers of what processors may have, `cv::CpuFeatures`; the last is AVX-512 F, CD, BW, DQ and VL."""

INTERFACE_FILES = ("program.c", "program.h")
"""The sources that say how the kernels are called."""


def interface_digest(folder: Path = FOLDER.parent) -> str:
    """Tell one interface of the kernels from every other, in 64 characters."""
    return hashlib.sha256(b"".join((folder / name).read_bytes() for name in INTERFACE_FILES)).hexdigest()


class Step(ctypes.Structure):
    """One step of a program: `Step` of program.h, field for field."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("kind", "flags", "height", "width", "channels_in", "channels_out")),
        *(
            (name, ctypes.c_int32)
            for name in ("stride_in", "stride_out", "stride_residual", "stride_noise", "kept", "side", "pace")
        ),
        *((name, ctypes.c_int32) for name in ("first_tile", "tiles", "depth")),
        *((name, ctypes.c_void_p) for name in ("x", "weight", "style", "gain", "bias", "noise", "residual")),
        *((name, ctypes.c_void_p) for name in ("scale", "shift", "slopes", "mean", "filters", "y")),
        *((name, ctypes.c_float) for name in ("slope", "slope_between")),
    )


class Library:
    """The kernels for one kind of processor."""

    def __init__(self, path: Path) -> None:
        """Load a shared library.

        Raises:
            OSError: It is not there, not for this system, or compiled from sources that called its kernels otherwise.
        """
        self._library = ctypes.CDLL(str(path))
        if self._compiled_from() != interface_digest():
            raise OSError(f"{path} was compiled from other sources: python gfprestore/native/build.py mends that")
        index, pointer, integer = ctypes.c_int64, ctypes.c_void_p, ctypes.c_int32
        self.run_program = self._library.run_program
        self.run_program.argtypes = [pointer, integer, pointer, integer, pointer, index]
        self.run_program.restype = None
        self.pack_winograd = self._library.pack_winograd
        self.pack_winograd.argtypes = [pointer, integer, integer, pointer, integer, integer]
        self.pack_winograd.restype = None
        self.scratch_size = self._library.scratch_size
        self.scratch_size.argtypes = [pointer, integer, index]
        self.scratch_size.restype = index
        self.enlarge = self._library.enlarge
        self.enlarge.argtypes = [pointer, integer, integer, pointer]
        self.enlarge.restype = None
        self._library.enlarge_scratch.restype = index
        self.enlarge_scratch: int = self._library.enlarge_scratch()
        self.convert_rows, self.warp_rows = self._library.convert_rows, self._library.warp_rows
        for function in (self.convert_rows, self.warp_rows):
            function.argtypes = [pointer, integer, integer]
            function.restype = None
        self.paste_face = self._library.paste_face
        self.paste_face.argtypes = [pointer]
        self.paste_face.restype = None
        self.panel: int = self._library.panel_width()
        """Channels that a product holds in registers: two vectors."""
        self.lanes = self.panel // 2
        """Floats in a vector: widths are multiples of it."""
        self.has_half = bool(self._library.has_half())
        """Whether they multiply in bfloat16."""
        self.is_for_x86 = path.stem != "neon"
        """Whether they are for the processors of Intel's and AMD's instructions."""

    def _compiled_from(self) -> str:
        """The digest that the build left, or nothing: calls that pass other arguments would write anywhere."""
        interface = getattr(self._library, "interface", None)
        if interface is None:
            return ""
        interface.restype = ctypes.c_char_p
        return bytes(interface()).decode("ascii")


def kinds() -> tuple[str, ...]:
    """Kinds of kernels that this processor runs, the best first: names of libraries that the build may have left."""
    machine = platform.machine().lower()
    if machine in ("arm64", "aarch64"):
        return ("neon",)
    if machine not in ("x86_64", "amd64"):
        return ()
    # OpenCV tells what the processor has and, through OPENCV_CPU_DISABLE, what its user allows. It is imported here,
    # since what neither resizes nor restores need not wait for it.
    import cv2

    if not (cv2.checkHardwareSupport(AVX2) and cv2.checkHardwareSupport(FMA3)):
        return ()
    if not cv2.checkHardwareSupport(AVX512_SKX):
        return ("avx2",)
    return ("avx512bf16", "avx512", "avx2") if _flag("avx512_bf16") else ("avx512", "avx2")


@cache
def _flag(name: str) -> bool:
    try:
        return f" {name} " in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").replace("\n", " ")
    except OSError:
        return False


@cache
def load_library() -> Library | None:
    """The best kernels for this processor, or None where the build left none."""
    for kind in kinds():
        try:
            return Library(FOLDER / f"{kind}{SUFFIX}")
        except OSError as error:
            logger.debug("No %s kernels: %s.", kind, error)
    return None


def library_for(precision: str) -> Library | None:
    """The kernels to compute in a precision with, or None where something else is faster or nothing is here."""
    library = load_library()
    if library is None or precision == "fp32":
        return library
    # A processor with a unit for bfloat16 matrices would leave it idle here.
    return library if library.has_half and not _flag("amx_bf16") else None
