"""Reads and writes training configurations: TOML <-> `TrainingConfig`, presets, and `--set a.b=c`."""

from __future__ import annotations

import dataclasses
import json
import tomllib
import types
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from gfprestore.errors import UsageError, printable
from gfprestore.training.config import TrainingConfig
from gfprestore.training.configcheck import check_config
from gfprestore.training.degradation_presets import PRESETS, DegradationPreset

Record = TypeVar("Record")

_PRESET = "release"
"""The degradations that a configuration changes where it names none."""

_KINDS = {float: "a number", int: "a whole number", bool: "true or false", str: "text", tuple: "a list"}
"""What the types of values are called in messages."""


def preset_names() -> list[str]:
    """Names of the configurations that ship."""
    folder = resources.files("gfprestore.training") / "presets"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_config(name: str, changes: Iterable[str] = ()) -> TrainingConfig:
    """Reads a configuration.

    Args:
        name: A preset's name, or the path of a TOML file; a file's `base` names a preset or another file that it
            changes, a path relative to the file.
        changes: `a.b=c`, c in TOML's notation; what is none is taken as text.

    Raises:
        UsageError: There is no such file, or it says something that no configuration has.
    """
    return parse_config(_change(_read_table(name), _changes_table(changes)))


def parse_config(table: Mapping[str, Any]) -> TrainingConfig:
    """Makes a configuration out of nested tables; what they leave out has its default.

    Raises:
        UsageError: A key is unknown, or a value of the wrong kind or out of its range.
    """
    config = _parse_record(table, TrainingConfig, "")
    check_config(config)
    return config


def config_table(config: Any) -> dict[str, Any]:
    """Nested tables of plain values, from which `parse_config` makes the same configuration; None is left out."""
    table: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            table[item.name] = config_table(value)
        elif value is not None:
            table[item.name] = list(value) if isinstance(value, tuple) else value
    return table


def config_toml(config: TrainingConfig) -> str:
    """The configuration as TOML, whole."""
    top, sections = [], []
    for name, value in config_table(config).items():
        if isinstance(value, dict):
            sections.append(f"\n[{name}]\n" + "".join(f"{key} = {_toml(entry)}\n" for key, entry in value.items()))
        else:
            top.append(f"{name} = {_toml(value)}\n")
    return "".join(top + sections)


def _read_table(name: str, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    if name in seen:
        raise UsageError(f"The configurations {' and '.join(map(printable, seen))} are based on each other.")
    path = Path(name)
    if name in preset_names():
        text = (resources.files("gfprestore.training") / "presets" / f"{name}.toml").read_text(encoding="utf-8")
    else:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            known = ", ".join(preset_names())
            raise UsageError(
                f"CONFIG {printable(name)} cannot be read: name a TOML file, or a preset: {known}."
            ) from error
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"CONFIG {printable(name)} is no TOML file: {printable(error)}.") from error
    base = table.pop("base", None)
    if base is None:
        return table
    if not isinstance(base, str):
        raise UsageError("The key base of a configuration is a preset's name or a path.")
    below = base if base in preset_names() else str(path.parent / base)
    return _change(_read_table(below, (*seen, name)), table)


def _change(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Merges a configuration's tables; a preset of degradations takes the place of another one and what changed it."""
    name, merged = "degradation", _merge(below, above)
    held, new = (table.get(name) for table in (below, above))
    if isinstance(held, dict) and isinstance(new, dict):
        before = held.get("preset", _PRESET)
        if new.get("preset", before) != before:
            merged[name] = new
    return merged


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Tables merge key by key, other values of `above` replace those of `below`."""
    merged = dict(below)
    for key, value in above.items():
        held = merged.get(key)
        merged[key] = _merge(held, value) if isinstance(held, dict) and isinstance(value, dict) else value
    return merged


def _changes_table(changes: Iterable[str]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for change in changes:
        name, equals, text = change.partition("=")
        if not equals or not all(name.split(".")):
            raise UsageError(f"--set takes section.key=value, not {printable(change)}.")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except (tomllib.TOMLDecodeError, KeyError):
            value = text
        for part in reversed(name.split(".")):
            value = {part: value}
        table = _merge(table, value)
    return table


def _parse_record(table: Mapping[str, Any], kind: type[Record], where: str, base: Record | None = None) -> Record:
    hints = get_type_hints(kind)
    values = {}
    for key, value in table.items():
        name = f"{where}{key}"
        if key not in hints:
            raise UsageError(f"No configuration has the key {printable(name)}: there are {', '.join(hints)}.")
        values[key] = _parse_value(value, hints[key], name)
    return dataclasses.replace(base, **values) if base is not None else kind(**values)  # type: ignore[type-var]


def _parse_value(value: Any, kind: Any, name: str) -> Any:
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        kind = next(option for option in get_args(kind) if option is not type(None))
        return _parse_value(value, kind, name)
    if kind is DegradationPreset and isinstance(value, dict):
        return _parse_degradation(value, name)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if isinstance(value, dict):
            return _parse_record(value, kind, f"{name}.")
    elif origin is Literal:
        if value in get_args(kind):
            return value
        raise UsageError(f"{name} is one of {', '.join(map(repr, get_args(kind)))}, not {printable(repr(value))}.")
    elif origin is tuple:
        if isinstance(value, list):
            return _parse_tuple(value, get_args(kind), name)
    elif kind is float and type(value) in (int, float):
        return float(value)
    elif type(value) is kind:
        return value
    wanted = _KINDS.get(origin or kind, "a section")
    raise UsageError(f"{name} is {wanted}, not {printable(repr(value))}: see --print-config.")


def _parse_tuple(value: list[Any], kinds: tuple[Any, ...], name: str) -> tuple[Any, ...]:
    if kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(value)
    if len(kinds) != len(value):
        raise UsageError(f"{name} has {len(kinds)} values, not {len(value)}.")
    return tuple(_parse_value(entry, kind, name) for entry, kind in zip(value, kinds, strict=True))


def _parse_degradation(table: dict[str, Any], name: str) -> DegradationPreset:
    """A preset by its name, the release's without one, changed by further keys."""
    fields = dict(table)
    preset = fields.pop("preset", None)
    if preset is not None and preset not in PRESETS:
        raise UsageError(f"{name}.preset is one of {', '.join(PRESETS)}, not {printable(repr(preset))}.")
    base = PRESETS[preset or _PRESET]
    return _parse_record(fields, DegradationPreset, f"{name}.", base)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # JSON's strings are TOML's, but for DEL, which TOML wants escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return repr(value)
