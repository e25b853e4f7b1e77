"""The levels of the house: what each module may import while it is itself imported, and what only one may import."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "gfprestore"
FILES = {
    ".".join(("gfprestore", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
STANDARD = frozenset(sys.stdlib_module_names)

STANDARD_LIBRARY_ONLY = [
    "errors",
    "options",
    "folders",
    "streams",
    "report",
    "manifest",
    "digest",
    "download",
    "weights",
    "nn.widths",
    "nn.shape",
    "nn.entries",
]
CLICK_ONLY = ["command", "cli", "weights_cli", "training.cli", "evaluation.cli"]
PIXELS_ONLY = ["photo", "photofile", "align", "paste", "resize", "geometry", "transparency", "curves"]
WITHOUT_TORCH = [
    "nn.weights",
    "statedict",
    "engine",
    "models",
    "pipeline",
    "parsing",
    "identity",
    "native.parser",
    "background",
]
"""Torch takes longer to import than a first photo to restore, so what can do without it never waits for it."""
SIBLINGS = ["training", "evaluation"]
"""May use each other and everything else, and nothing else uses them: whoever restores photos needs no trainer."""
PARTS = {
    "formats": {"colour", "photo"},
    "blending": {"photo", "resize"},
    "detection": {"align", "colour", "errors", "geometry", "nn", "photo", "resize"},
    "colorizing": {"blending", "errors", "geometry", "nn", "photo"},
    "upscaling": {"dropping", "engine", "errors", "machine", "native", "nn", "outofmemory", "photo", "resize"},
    "reporting": {"errors", "job", "options", "report"},
}
"""Folders that are one step of the work each, and all else in this package that their modules may import."""
OWNERS = {
    "facexlib": {"detection.network", "parsing_network"},
    "spandrel": {"upscaling.network", "colorizing.network"},
}
"""Packages that stand behind one interface, and the modules that may import them, anywhere in their code."""


def imports(tree: ast.AST) -> Iterator[tuple[str, bool]]:
    """Every module that a tree imports and whether that happens when it is itself imported."""

    def walk(node: ast.AST, now: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((alias.name, now) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, "imports are absolute"
                assert child.module is not None
                yield child.module, now
                yield from ((f"{child.module}.{alias.name}", now) for alias in child.names)
            elif isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
                yield from walk(ast.Module(child.orelse, []), now)
            else:
                yield from walk(
                    child, now and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                )

    yield from walk(tree, True)


@cache
def imported_by(module: str) -> frozenset[tuple[str, bool]]:
    return frozenset(imports(ast.parse(FILES[module].read_text(encoding="utf-8"))))


def own_imports(module: str) -> set[str]:
    """The modules of this package that come along when one is imported, but for its parents."""
    return {name for name, now in imported_by(module) if now and name in FILES and name != module}


def everything_along(module: str, seen: set[str] | None = None) -> set[str]:
    seen = set() if seen is None else seen
    for name in own_imports(module) - seen:
        seen.add(name)
        everything_along(name, seen)
    return seen


def packages_along(module: str) -> set[str]:
    """Top-level names of the foreign packages that are imported when a module is."""
    modules = {module} | everything_along(module)
    names = {name.partition(".")[0] for one in modules for name, now in imported_by(one) if now}
    return names - STANDARD - {"gfprestore"}


def test_the_reader_of_imports_sees_what_python_would_import() -> None:
    source = """
import one.two
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import hidden
else:
    import shown
try:
    from three import four
except ImportError:
    four = None
class A:
    import five
    def method(self):
        import later
"""
    found = dict(imports(ast.parse(source)))
    assert {name for name, now in found.items() if now} >= {"one.two", "shown", "three", "five"}
    assert "hidden" not in found
    assert found["later"] is False


@pytest.mark.parametrize("module", STANDARD_LIBRARY_ONLY)
def test_lowest_level_needs_the_standard_library_only(module: str) -> None:
    assert packages_along(f"gfprestore.{module}") == set()


@pytest.mark.parametrize("module", CLICK_ONLY)
def test_commands_start_with_click_only(module: str) -> None:
    assert packages_along(f"gfprestore.{module}") <= {"click"}


@pytest.mark.parametrize("module", PIXELS_ONLY)
def test_pixel_level_needs_no_torch(module: str) -> None:
    assert packages_along(f"gfprestore.{module}") <= {"numpy", "cv2", "PIL"}


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_what_runs_on_the_compiled_kernels_needs_no_torch(module: str) -> None:
    assert packages_along(f"gfprestore.{module}") & {"torch", "torchvision", "openvino", "facexlib"} == set()


@pytest.mark.parametrize("module", [name for name in FILES if name.startswith("gfprestore.nn.")])
def test_networks_know_torch_and_each_other_only(module: str) -> None:
    foreign = {name.partition(".")[0] for name, _ in imported_by(module)} - STANDARD
    assert foreign <= {"torch", "numpy", "gfprestore"}
    # Errors are at the bottom of every level: a checkpoint that does not fit is told as such.
    assert all(one.startswith("gfprestore.nn") or one == "gfprestore.errors" for one in everything_along(module))


def test_nothing_that_restores_imports_a_sibling() -> None:
    siblings = tuple(f"gfprestore.{name}" for name in SIBLINGS)
    restoring = [name for name in FILES if not name.startswith(siblings)]
    assert [name for name in restoring if any(found.startswith(siblings) for found, _ in imported_by(name))] == []


@pytest.mark.parametrize("part", PARTS)
def test_part_knows_what_it_stands_on_and_no_more(part: str) -> None:
    members = [name for name in FILES if name.startswith(f"gfprestore.{part}.")]
    assert len(members) > 1
    known = {
        found.split(".")[1] for name in members for found, _ in imported_by(name) if found.startswith("gfprestore.")
    }
    assert known <= PARTS[part] | {part}


@pytest.mark.parametrize("package", OWNERS)
def test_package_is_imported_by_its_owner_only(package: str) -> None:
    users = {name for name in FILES if any(found.partition(".")[0] == package for found, _ in imported_by(name))}
    assert users <= {f"gfprestore.{owner}" for owner in OWNERS[package]}


def test_modules_stand_on_levels() -> None:
    """No two modules need each other, so each has a place above all that it needs."""
    assert [name for name in FILES if name in everything_along(name)] == []


def test_pipeline_knows_no_command() -> None:
    along = everything_along("gfprestore.pipeline")
    assert along & {f"gfprestore.{name}" for name in (*CLICK_ONLY, "progress", "run")} == set()
