"""Groups of commands that are imported one by one, when they are called: `keyfit` and `keyfit-publish`."""

import importlib
from collections.abc import Mapping
from typing import Any

import click


class LazyGroup(click.Group):
    """A group that imports a command's module only when the command is used.

    Args:
        table: command -> one line for the list; in the order in which they are listed.
        package: where each lies in a module of its name, as `command`.
    """

    def __init__(self, *args: Any, table: Mapping[str, str], package: str, **more: Any) -> None:
        super().__init__(*args, **more)
        self._table = table
        self._package = package

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the table."""
        return list(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in self._table:
            return None
        command: click.Command = importlib.import_module(f"{self._package}.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list, without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self._table.items()))
