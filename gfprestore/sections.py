"""A click command whose help groups its options under headings."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


LAST_SECTION = "Talk and help"
"""Heading for the options that name none: click's own `--version` and `--help`."""


class SectionOption(click.Option):
    """An option that knows the heading it stands under."""

    def __init__(self, *args: Any, section: str = LAST_SECTION, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section


class SectionCommand(click.Command):
    """A command that lists its options by section, in the order in which the sections first appear."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes one block per section instead of click's single one."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                sections.setdefault(getattr(parameter, "section", LAST_SECTION), []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


class NamedPath(click.Path):
    """A path that need not exist or be readable, but is not empty.

    An empty one, such as an unset variable of a shell gives, would be the working folder.
    """

    def __init__(self) -> None:
        super().__init__(readable=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Returns the path, refusing the empty one."""
        if os.fspath(value) in ("", b""):
            self.fail("The name is empty; write . for the working folder.", param, ctx)
        return super().convert(value, param, ctx)


class FiniteRange(click.FloatRange):
    """A range of numbers that `nan` is not in, which compares as if it were."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Returns the number, refusing `nan`."""
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail("nan is not a number to work with.", param, ctx)
        return number


class AutoShare(FiniteRange):
    """A share from 0 to 1, or `auto` for all of it."""

    def __init__(self) -> None:
        super().__init__(0, 1)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Returns the share as a number."""
        return 1.0 if value == "auto" else super().convert(value, param, ctx)


class BareChoice(click.Choice):  # type: ignore[type-arg]  # generic from click 8.2 on
    """A choice for an option that may stand alone: click takes the word after it for its value, be it an input.

    Args:
        choices: What may be chosen.
        bare: What the option means alone.
    """

    def __init__(self, choices: Sequence[str], *, bare: str) -> None:
        super().__init__(choices)
        self.bare = bare

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Returns the choice; what is none is refused with advice on how to part it from the option."""
        try:
            return str(super().convert(value, param, ctx))
        except click.BadParameter as error:
            name = "The option" if param is None else param.opts[-1]
            message = (
                f"{error.message.rstrip('.')}; alone, {name} must be followed by another option or by --, "
                f"or be written as {name}={self.bare}."
            )
            raise click.BadParameter(message, ctx, param) from error


def section(title: str) -> Callable[..., Callable[[F], F]]:
    """Returns a decorator like `click.option` that puts its options under a heading and shows their defaults."""

    def option(*declarations: str, **settings: Any) -> Callable[[F], F]:
        settings.setdefault("show_default", not settings.get("is_flag", False))
        return click.option(*declarations, cls=SectionOption, section=title, **settings)

    return option
