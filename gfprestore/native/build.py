"""Compiles the kernels while the package is built: a hook of hatchling, and a script for work in a checkout.

    python gfprestore/native/build.py

Takes the system's C compiler, or the one in the package `ziglang`, which the hook asks for where there is none. Without
either, or where compiling fails, the package is built without kernels and says so: it then runs the same networks
slower.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path(__file__).parent
COMPILED = FOLDER / "compiled"
SOURCE = FOLDER / "program.c"
INTERFACE_FILES = ("program.c", "program.h")  # as library.py has them, which is not there yet
SUFFIX = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")

OPTIMISE = ("-O3", "-ffp-contract=fast", "-fno-math-errno", "-fvisibility=hidden", "-shared")
# The tiles' short loops are vectors already, and must be unrolled whole for these to stay in registers (5 % faster).
UNROLL = ("-fno-tree-slp-vectorize", "--param", "max-completely-peeled-insns=4000")
AVX512 = ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mprefer-vector-width=512")

KINDS: dict[str, dict[str, tuple[str, ...]]] = {
    "x86_64": {"avx512bf16": (*AVX512, "-mavx512bf16"), "avx512": AVX512, "avx2": ("-mavx2", "-mfma")},
    "arm64": {"neon": ()},
}
"""For every machine its kinds of processors, as `gfprestore.native.library.kinds` names them, and their settings."""

MACHINES = {"amd64": "x86_64", "aarch64": "arm64"}
"""Other names of machines."""


def find_compiler() -> list[str] | None:
    """Command of a compiler that takes the settings above."""
    if command := os.environ.get("CC"):
        return shlex.split(command)
    if sys.platform != "win32":  # Microsoft's compiler knows none of the settings
        for name in ("cc", "gcc", "clang"):
            if path := shutil.which(name):
                return [path]
    return [sys.executable, "-m", "ziglang", "cc"] if importlib.util.find_spec("ziglang") else None


def compile_kernels() -> list[Path]:
    """Compile what is missing or older than its sources.

    Returns:
        The libraries.

    Raises:
        OSError: There is no compiler, or the folder cannot be written.
        subprocess.CalledProcessError: The compiler failed.
    """
    machine = platform.machine().lower()
    newest = max(path.stat().st_mtime for path in (SOURCE, *FOLDER.glob("*.h")))
    libraries = []
    for kind, settings in KINDS.get(MACHINES.get(machine, machine), {}).items():
        library = COMPILED / f"{kind}{SUFFIX}"
        if not library.exists() or library.stat().st_mtime < newest:
            _compile(library, settings)
        libraries.append(library)
    return libraries


def _compile(library: Path, settings: tuple[str, ...]) -> None:
    compiler = find_compiler()
    if compiler is None:
        raise FileNotFoundError("there is no C compiler")
    COMPILED.mkdir(exist_ok=True)
    # What a run loads must be whole, also when another build runs beside this one.
    unfinished = library.with_name(f".{library.stem}.{os.getpid()}{SUFFIX}")
    position = () if sys.platform == "win32" else ("-fPIC", "-lm")
    base = ("-mcpu=baseline",) if "ziglang" in compiler else ()
    interface = hashlib.sha256(b"".join((FOLDER / name).read_bytes() for name in INTERFACE_FILES)).hexdigest()
    command = [
        *compiler,
        *base,
        *OPTIMISE,
        *UNROLL,
        *settings,
        f'-DINTERFACE="{interface}"',
        str(SOURCE),
        "-o",
        str(unfinished),
        *position,
    ]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
        unfinished.replace(library)
    finally:
        unfinished.unlink(missing_ok=True)


class KernelBuildHook(BuildHookInterface[Any]):
    """Puts the kernels into the wheel."""

    def dependencies(self) -> list[str]:
        """A compiler, where the system has none."""
        return [] if find_compiler() else ["ziglang>=0.13"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and mark the wheel as one for this system."""
        if self.target_name != "wheel":
            return
        try:
            libraries = compile_kernels()
        except (OSError, subprocess.CalledProcessError) as error:
            detail = getattr(error, "stderr", "") or error
            self.app.display_warning(f"The fast kernels are left out, since they could not be compiled: {detail}")
            return
        if not libraries:
            return
        from packaging.tags import sys_tags

        build_data["artifacts"].append("/gfprestore/native/compiled/*")
        build_data["pure_python"] = False
        # The libraries are called through ctypes: they suit every Python of this system.
        build_data["tag"] = f"py3-none-{next(sys_tags()).platform}"


if __name__ == "__main__":
    for compiled in compile_kernels():
        sys.stdout.write(f"{compiled}\n")
