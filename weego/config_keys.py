"""What a table of the configuration is made of: keys with types, bounds and meanings, as reader, writer and schema see them."""

from __future__ import annotations

import types
import typing
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, ClassVar, Final

import msgspec

__all__ = ["OCTAL", "Between", "ConfigError", "Key", "Table", "keys_of", "options_of", "table_of"]

OCTAL: Final = ("mode", "umask")  # keys whose numbers are permissions


class ConfigError(Exception):
    """A mistake in the configuration: `str()` is one line with file, line, key, what is wrong and what is allowed.

    The process answers with exit code 78 (EX_CONFIG of sysexits.h).
    """

    def __init__(self, file: str, line: int | None, where: str, problem: str) -> None:
        self.file = file
        self.line = line
        self.where = where
        self.problem = problem
        super().__init__(file, line, where, problem)

    def __str__(self) -> str:
        position = f"{self.file}:{self.line}" if self.line else self.file
        return ": ".join(part for part in (position, self.where, self.problem) if part)


@dataclass(frozen=True)
class Between:
    """The numbers a field may have, both ends included."""

    least: float
    most: float



class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One table of the file: immutable, and an unknown key is an error."""

    example: ClassVar[str] = ""
    """A line of one, for who has none and needs one."""


@dataclass(frozen=True)
class Key:
    """One field of a table as the reader, the schema and the docs see it."""

    name: str  # in the file
    field: str  # in Python
    type: Any
    required: bool
    default: Any
    doc: str
    bounds: Between | None


@cache
def keys_of(table: type[Table]) -> dict[str, Key]:
    """The keys of a table, by their names in the file."""
    keys = {}
    for field in msgspec.structs.fields(table):
        kind, notes = field.type, []
        if typing.get_origin(kind) is Annotated:
            kind, *notes = typing.get_args(kind)
        keys[field.encode_name] = Key(
            name=field.encode_name,
            field=field.name,
            type=kind,
            required=field.required,
            default=None if field.required else _default(field),
            doc=next((note for note in notes if isinstance(note, str)), ""),
            bounds=next((note for note in notes if isinstance(note, Between)), None),
        )
    return keys


def _default(field: Any) -> Any:
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


def table_of(kind: Any) -> type[Table] | None:
    """The table type in `Limits`, `Admin | None` or `tuple[Listen, ...]`; None for a plain value."""
    for option in (kind, *typing.get_args(kind)):
        if isinstance(option, type) and issubclass(option, Table):
            return option
    return None


def options_of(kind: Any) -> tuple[Any, ...]:
    """The members of a union, None left out: TOML has no null."""
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return tuple(option for option in typing.get_args(kind) if option is not type(None))
    return (kind,)
