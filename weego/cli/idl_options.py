"""Options that every command which reads IDL shares: where includes lie, whom to follow, what to make of warnings."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import click

from idlc.errors import ANY_CODE, Diagnostic, Level

__all__ = ["dialect_option", "include_option", "levels", "show", "warnings_option"]

_Command = TypeVar("_Command", bound=Callable[..., Any])
_LEVELS: dict[str, Level] = {"error": "error", "warn": "warn", "ignore": "ignore"}


def include_option(command: _Command) -> _Command:
    """`-I DIR`, repeatable: the parameter `include`."""
    option: Callable[[_Command], _Command] = click.option("-I", "--include", multiple=True, metavar="DIR", help="Folder to look for includes in; may be repeated.")
    return option(command)


def dialect_option(command: _Command) -> _Command:
    """`--dialect apache|kitex`: the parameter `dialect`."""
    option: Callable[[_Command], _Command] = click.option(
        "--dialect",
        type=click.Choice(["apache", "kitex"]),
        default="apache",
        show_default=True,
        help="Whom to follow where compilers read one text differently: fields without ids, 017.",
    )
    return option(command)


def warnings_option(command: _Command) -> _Command:
    """`-W LEVEL[=CODE]`, repeatable: the parameter `warnings`, a dict of levels by code."""
    option: Callable[[_Command], _Command] = click.option(
        "-W",
        "warnings",
        multiple=True,
        metavar="LEVEL[=CODE]",
        callback=lambda _context, _parameter, given: levels(given),
        help="error, warn or ignore: of all warnings, or of those with a code (-W error -W ignore=no-id).",
    )
    return option(command)


def levels(given: Iterable[str]) -> dict[str, Level]:
    """`["error", "ignore=no-id"]` as what `idlc` takes; later ones win. click.BadParameter for anything else."""
    found: dict[str, Level] = {}
    for each in given:
        word, _, code = each.partition("=")
        if word not in _LEVELS or each.endswith("="):
            raise click.BadParameter(f"{each!r}: write error, warn or ignore, and a code behind it if you like: error=no-id")
        found[code or ANY_CODE] = _LEVELS[word]
    return found


def show(diagnostics: Iterable[Diagnostic], *, whole: bool = False) -> None:
    """Print diagnostics to stderr, one line each, or with the source they are about."""
    for each in diagnostics:
        click.echo(each.render() if whole or sys.stderr.isatty() else str(each), err=True)


def relative(path: str | os.PathLike[str]) -> str:
    """A path as one would type it here."""
    text = os.path.relpath(path)
    return os.fspath(path) if text.startswith("..") else text
