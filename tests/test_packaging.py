"""The built wheel: what it carries, and that it works in an empty environment, from another folder."""

from __future__ import annotations

import configparser
import email
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import gfprestore
from gfprestore.manifest import MANIFEST
from gfprestore.native.library import kinds

PROJECT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as `pip install .` builds it, without a second environment for the builder."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(PROJECT)]
    subprocess.run(build, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_wheel_carries_kernels_for_this_system_and_any_python(wheel: Path, names: set[str]) -> None:
    name, version, python, abi, platform = wheel.stem.split("-")
    assert (name, version, python, abi) == ("gfprestore", gfprestore.__version__, "py3", "none")
    compiled = {Path(name).stem for name in names if name.startswith("gfprestore/native/compiled/")}
    assert compiled and platform != "any"
    assert set(kinds()) <= compiled


def test_wheel_without_a_compiler_runs_on_every_platform(tmp_path: Path) -> None:
    copy = tmp_path / "project"
    shutil.copytree(
        PROJECT / "gfprestore", copy / "gfprestore", ignore=shutil.ignore_patterns("compiled", "__pycache__")
    )
    shutil.copytree(PROJECT / "weights", copy / "weights")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, copy)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(copy)]
    done = subprocess.run(
        build, check=True, capture_output=True, text=True, env=os.environ | {"CC": str(tmp_path / "no compiler")}
    )
    assert "The fast kernels are left out" in done.stdout + done.stderr
    assert (tmp_path / f"gfprestore-{gfprestore.__version__}-py3-none-any.whl").exists()


def test_wheel_carries_every_module_and_its_types(names: set[str]) -> None:
    modules = {path.relative_to(PROJECT).as_posix() for path in (PROJECT / "gfprestore").rglob("*.py")}
    assert modules <= names
    assert "gfprestore/py.typed" in names
    assert not [name for name in names if "__pycache__" in name or name.startswith(("tests", "examples"))]


def test_wheel_carries_the_weights_that_ship(wheel: Path, names: set[str]) -> None:
    shipped = {f"gfprestore/shipped_weights/{entry.file}" for entry in MANIFEST if entry.url is None}
    assert shipped <= names
    assert "gfprestore/shipped_weights/README.md" in names
    with zipfile.ZipFile(wheel) as archive:
        for entry in MANIFEST:
            if entry.url is None:
                assert archive.getinfo(f"gfprestore/shipped_weights/{entry.file}").file_size == entry.bytes


def test_every_console_script_can_be_called(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (listed,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        parser = configparser.ConfigParser(delimiters=("=",))
        parser.read_string(archive.read(listed).decode())
    scripts = dict(parser["console_scripts"])
    assert set(scripts) == {"gfprestore", "gfprestore-train", "gfprestore-eval", "gfprestore-weights"}
    for name, target in scripts.items():
        module, function = target.split(":")
        program = f"import sys; sys.argv = ['{name}', '--help']; from {module} import {function}; {function}()"
        ended = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"PYTHONPATH": str(PROJECT)},
        )
        assert (ended.returncode, ended.stderr) == (0, "")
        assert f"Usage: {name} " in ended.stdout


def test_metadata_names_licence_python_and_what_it_needs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (listed,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(listed))
        assert any(name.endswith("licenses/LICENSE") for name in archive.namelist())
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    needed = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert any(line.startswith("torch>=") for line in needed)
    assert not [line for line in needed if line.startswith(("basicsr", "gfpgan", "realesrgan"))]


@pytest.mark.slow
def test_wheel_works_alone(wheel: Path, tmp_path: Path) -> None:
    """The weights command needs click alone of all dependencies, so it installs in seconds; `.ci/run` does the rest."""
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=True)
    scripts = environment / ("Scripts" if sys.platform == "win32" else "bin")
    pip = [str(scripts / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--no-deps", str(wheel)], check=True)
    subprocess.run([*pip, "click"], check=True)
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "GFPRESTORE_WEIGHTS")}
    clean["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    ended = subprocess.run(
        [str(scripts / "gfprestore-weights"), "verify"],
        cwd=tmp_path,
        env=clean,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = ended.stdout.splitlines()
    assert len(lines) == len([entry for entry in MANIFEST if entry.url is None])
    assert all(line.startswith("right ") and "shipped_weights" in line for line in lines)
    assert f"{os.sep}venv{os.sep}" in lines[0]
    for script in ("gfprestore", "gfprestore-weights", "gfprestore-train", "gfprestore-eval"):
        subprocess.run([str(scripts / script), "--help"], cwd=tmp_path, env=clean, capture_output=True, check=True)
