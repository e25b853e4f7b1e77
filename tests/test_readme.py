"""README says what is so: its help block, its commands, its Python, its table of exit codes."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from gfprestore.cli import main
from gfprestore.errors import ExitCode

PROJECT = Path(__file__).resolve().parent.parent
README = (PROJECT / "README.md").read_text(encoding="utf-8")


def block_after(marker: str) -> str:
    found = re.search(rf"<!-- {marker} -->\n```\n(.*?)```", README, re.DOTALL)
    assert found, f"README has no block {marker}"
    return found[1]


def test_the_help_block_is_the_help() -> None:
    result = CliRunner().invoke(main, ["--help"], prog_name="gfprestore", terminal_width=100)
    assert block_after("help") == result.output


def test_every_example_is_understood() -> None:
    examples = re.findall(r"^gfprestore (.*?)(?:\s+#.*)?$", README, re.MULTILINE)
    assert len(examples) >= 8
    for example in examples:
        arguments = shlex.split(example)
        context = main.make_context("gfprestore", arguments)
        assert context.params["output"] is not None


@pytest.mark.parametrize("script", ["evaluation", "training", "weights"])
def test_every_example_of_the_other_scripts_is_understood(script: str) -> None:
    name = {"evaluation": "eval", "training": "train", "weights": "weights"}[script]
    module = importlib.import_module("gfprestore.weights_cli" if script == "weights" else f"gfprestore.{script}.cli")
    group = next(value for value in vars(module).values() if isinstance(value, click.Group))
    examples = re.findall(rf"(?:^|`)gfprestore-{name} (\w+[^`\n#]*)", README, re.MULTILINE)
    assert examples
    for example in examples:
        verb, *arguments = shlex.split(example)
        assert verb in group.commands
        if script != "weights" and "--help" not in arguments:
            # Paths need not exist here; options and verbs must.
            command = group.commands[verb]
            known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
            assert {part for part in arguments if part.startswith("-")} <= known


def test_the_main_command_ends_in_one_that_is_understood() -> None:
    last = block_after("main command").strip().split(" && ")[-1]
    program, *arguments = last.split()
    assert program == ".venv/bin/gfprestore"
    context = main.make_context("gfprestore", arguments)
    assert all((PROJECT / path).exists() for path in context.params["inputs"])


def test_the_exit_codes_are_all_there() -> None:
    table = README.split("### Exit status")[1].split("##")[0]
    listed = {
        int(number) for cell in re.findall(r"^\| ([\d, ]+) \|", table, re.MULTILINE) for number in cell.split(",")
    }
    assert listed == {int(code) for code in ExitCode}


def test_the_python_example_compiles_and_its_imports_hold() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    imports = [line for line in code.splitlines() if line.startswith("from ")]
    namespace: dict[str, object] = {}
    for line in imports:
        module, names = re.fullmatch(r"from (\S+) import (.+)", line).groups()  # type: ignore[union-attr]
        imported = __import__(module, fromlist=[names])
        for name in names.split(", "):
            namespace[name] = getattr(imported, name)
    compile(code, "README.md", "exec")
    assert {"plan_jobs", "load_models", "RestoreOptions", "restore_photos"} <= namespace.keys()


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#]+)\)", README))
def test_links_lead_somewhere(target: str) -> None:
    assert (PROJECT / target).exists()


def test_the_model_cards_configurations_are_read(tmp_path: Path) -> None:
    from gfprestore.training.configfile import load_config

    blocks = re.findall(
        r"```toml\n(.*?)```", (PROJECT / "weights" / "README.md").read_text(encoding="utf-8"), re.DOTALL
    )
    assert len(blocks) == 2
    for block in blocks:
        (tmp_path / "card.toml").write_text(block, encoding="utf-8")
        assert load_config(str(tmp_path / "card.toml")).generator.weights is not None


def test_what_the_first_training_looks_through_is_fetched_before() -> None:
    from gfprestore.training.configfile import load_config
    from gfprestore.training.files import ARCFACES, STANDARD

    losses = load_config("compact").losses
    assert losses.lpips and losses.identity_cosine and not (losses.identity or losses.perceptual or losses.lpips_vgg)
    wanted = {STANDARD["losses.lpips_alexnet"], ARCFACES["losses.identity_cosine"]}
    fetched = README.split("## Training")[1].split("gfprestore-weights fetch ")[1].splitlines()[0]
    assert set(fetched.split()) == wanted
