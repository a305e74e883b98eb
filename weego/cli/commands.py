"""`weego`: the group. A command is imported when it is called, so that `weego --help` needs none of what they need."""

from __future__ import annotations

import importlib

import click

import weego as package

# name → (module, attribute, one line for the list of commands)
_COMMANDS = {
    "gen": ("weego.cli.gen", "gen", "Generate typed Python from Thrift and Protobuf IDL files."),
    "idl": ("weego.cli.idl", "idl", "Check, format, trim, compare and dump IDL files."),
    "new": ("weego.cli.new", "new", "Make a project, or add the methods that its IDL has gained."),
    "call": ("weego.cli.call", "call", "Call a method of a running server, with JSON and an IDL file."),
    "ctl": ("weego.cli.ctl", "ctl", "Ask a running server how it is, or tell it to reload or stop."),
}


class _Lazy(click.Group):
    """A group that knows the names of its commands and imports one when it is called."""

    def list_commands(self, context: click.Context) -> list[str]:
        """All names, as listed."""
        return list(_COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """Import the command of this name."""
        if name not in _COMMANDS:
            return None
        module, attribute, _ = _COMMANDS[name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands for --help, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in _COMMANDS.items()])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package.__version__, prog_name="weego")
def weego() -> None:
    """Tools for weego services; `weego-master` runs them."""
