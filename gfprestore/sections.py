"""A click command whose help groups its options under headings."""

from __future__ import annotations

import math
from collections.abc import Callable
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


def section(title: str) -> Callable[..., Callable[[F], F]]:
    """Returns a decorator like `click.option` that puts its options under a heading and shows their defaults."""

    def option(*declarations: str, **settings: Any) -> Callable[[F], F]:
        settings.setdefault("show_default", not settings.get("is_flag", False))
        return click.option(*declarations, cls=SectionOption, section=title, **settings)

    return option
