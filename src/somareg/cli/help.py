"""The help of the command line, and the lazy loading of commands.

Help is plain text in the sections of `options.py` and `flags.py`: drawing it with Rich takes longer than all the rest.
A command's module is imported when the command is called or its own help is asked for; the list of commands is made
from one line for each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer.main
from typer.core import TyperCommand, TyperGroup

SETTINGS: Mapping[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@dataclass(frozen=True)
class Entry:
    """A command before it is loaded.

    Attributes:
        home: module and name, such as "somareg.cli.warp:warp": a function, or a `typer.Typer` of several commands.
        summary: one line for the list of commands: the first paragraph of its own help.
        epilog: what its own help ends with.
    """

    home: str
    summary: str
    epilog: str | None = None

    def load(self, name: str) -> Any:
        """The command, imported."""
        module, _, attribute = self.home.partition(":")
        made = getattr(import_module(module), attribute)
        if not isinstance(made, typer.Typer):
            function, made = made, typer.Typer(rich_markup_mode=None, add_completion=False)
            made.command(name, cls=Command, epilog=self.epilog, context_settings=dict(SETTINGS))(function)
        command = typer.main.get_command(made)
        command.name = name
        return command


class Command(TyperCommand):
    """A command whose options are listed in sections."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, options without a section, then the sections in the order in which they are named."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                section = "Arguments" if parameter.param_type_name == "argument" else "Options"
                sections.setdefault(getattr(parameter, "rich_help_panel", None) or section, []).append(record)
        for section, records in sections.items():
            if records:
                with formatter.section(section):
                    formatter.write_dl(records)


class Group(TyperGroup):
    """Commands, each with the whole first paragraph of its help; Typer cuts it off."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """See `TyperGroup`."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, _summary(command)) for name, command in self.commands.items()])


class Commands(Group):
    """Commands that are imported when they are called."""

    entries: Mapping[str, Entry] = {}

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, entry in self.entries.items():
            self.add_command(TyperCommand(name, help=entry.summary), name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is called, with what it needs."""
        name, known, rest = super().resolve_command(ctx, args)
        return name, known and self.entries[str(name)].load(str(name)), rest


def _summary(command: Any) -> str:
    return " ".join(str(command.help or "").split("\n\n")[0].split())
