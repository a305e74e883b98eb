"""Plain TOML values into tables, with every complaint at its line."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
import typing
from typing import Any, Literal

import msgspec

from weego import tomlmap
from weego.config_keys import OCTAL, Between, ConfigError, Key, Table, keys_of, options_of, table_of
from weego.units import Duration, Size

__all__ = ["Reader", "read", "shown", "text_of"]


def read(path: str, root: type[Table]) -> tuple[Any, Reader]:
    """The file at `path` as a `root`, and what read it, for complaints about its keys. ConfigError."""
    text = text_of(path)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(path, text, error) from None
    reader = Reader(path, tomlmap.positions(text), root)
    return reader.table(root, document, ()), reader


def text_of(path: str) -> str:
    """What stands in the file at `path`. ConfigError."""
    try:
        with open(path, "rb") as file:
            raw = file.read()
    except OSError as error:
        raise ConfigError(path, None, "", (error.strerror or str(error)).lower()) from None
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(path, line, "", "not UTF-8: TOML files are") from None


def _syntax_error(path: str, text: str, error: tomllib.TOMLDecodeError) -> ConfigError:
    message = str(error)
    if match := re.fullmatch(r"(.*) \(at line (\d+), column \d+\)", message, re.DOTALL):
        message, line = match[1], int(match[2])
    else:
        message, line = message.removesuffix(" (at end of document)"), len(text.splitlines())
    return ConfigError(path, line, "", f"not valid TOML: {message[:1].lower()}{message[1:]}")


class Reader:
    """Makes tables. `lines` are those of the keys in `file`, `root` is the type of the whole."""

    def __init__(self, file: str, lines: dict[tomlmap.Path, int], root: type[Table]) -> None:
        self.file = file
        self.lines = lines
        self.root = root

    def table(self, kind: type[Table], values: object, path: tomlmap.Path) -> Any:
        """A `kind` of what stands at `path`. ConfigError."""
        if not isinstance(values, dict):
            raise self.error(path, "expected a table")
        keys = keys_of(kind)
        for name in values:
            if name not in keys:
                raise self.error((*path, name), self.unknown(kind, name))
        arguments = {}
        for key in keys.values():
            if key.name in values:
                arguments[key.field] = self.value(key, values[key.name], (*path, key.name))
            elif key.required:
                raise self.error((*path, key.name), f"missing: {_meaning(key)}")
        return kind(**arguments)

    def value(self, key: Key, value: object, path: tomlmap.Path) -> Any:
        """What a key has: a table, several, or a plain value. ConfigError."""
        kind = key.type
        if (table := table_of(kind)) is None:
            return self.leaf(key, value, path)
        if typing.get_origin(kind) is dict:
            if not isinstance(value, dict):
                raise self.error(path, f"there may be several, each with its name: write [{'.'.join(map(str, path))}.NAME]")
            return {name: self.table(table, each, (*path, name)) for name, each in value.items()}
        if typing.get_origin(kind) is not tuple:
            return self.table(table, value, path)
        if not isinstance(value, list):
            raise self.error(path, f"there may be several: write [[{key.name}]] with double brackets")
        if not value:
            raise self.error(path, f"missing: {_meaning(key)}")
        return tuple(self.table(table, element, (*path, index)) for index, element in enumerate(value))

    def leaf(self, key: Key, value: object, path: tomlmap.Path) -> Any:
        """A plain value. ConfigError."""
        for kind in options_of(key.type):
            try:
                result = _convert(kind, value)
            except ValueError:
                continue
            in_bounds = not key.bounds or isinstance(result, str) or key.bounds.least <= result <= key.bounds.most
            if in_bounds:
                return result
        hint = "; write it in octal, as 0o660" if key.name in OCTAL else ""
        raise self.error(path, f"{shown(value)} is not {_allowed(key)}{hint}")

    def unknown(self, table: type[Table], name: str) -> str:
        """Why a key is not known, with the likely one: near in spelling, or the same in another table."""
        known = keys_of(table)
        noun = "table" if table is self.root else "key"
        for title, key in keys_of(self.root).items():
            other = table_of(key.type)
            if other and other is not table and name in keys_of(other):
                return f"unknown {noun}, did you mean {self.title((title, 0))} {name}?"
        if close := difflib.get_close_matches(name, known, n=1):
            return f'unknown {noun}, did you mean "{close[0]}"?'
        return f"unknown {noun}; known here: {', '.join(known)}"

    def title(self, path: tomlmap.Path) -> str:
        """("listen", 0, "address") as the reader of the file sees it: [[listen]] address."""
        if not path:
            return ""
        table, rest = path[0], path[1:]
        key = keys_of(self.root).get(str(table))
        if key and typing.get_origin(key.type) is dict and rest:
            table, rest = f"{table}.{rest[0]}", rest[1:]
        several = typing.get_origin(key.type) is tuple if key else bool(rest) and isinstance(rest[0], int)
        names = ".".join(str(name) for name in rest if isinstance(name, str))
        return f"{'[[' if several else '['}{table}{']]' if several else ']'} {names}".strip()

    def error(self, path: tomlmap.Path, problem: str) -> ConfigError:
        """A ConfigError at the path, or, for what is missing, at the table it is missing from."""
        at = path
        while at and at not in self.lines:
            at = at[:-1]
        return ConfigError(self.file, self.lines.get(at), self.title(path), problem)


def _convert(kind: Any, value: object) -> Any:
    """One plain value to its type, exactly: no text for numbers, no numbers for booleans. ValueError if it is not one."""
    if kind in (Duration, Size):
        return kind.parse(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return msgspec.convert(value, kind, strict=True)


def shown(value: object) -> str:
    """A value as a complaint quotes it."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "…"


def _meaning(key: Key) -> str:
    if key.doc:
        return key.doc[0].lower() + key.doc[1:].rstrip(".")
    table = table_of(key.type)
    return f"add at least one, such as: [[{key.name}]] {table.example}" if table is not None and table.example else ""


def _allowed(key: Key) -> str:
    """What a key takes, in words."""
    return " or ".join(_words(kind, key.bounds) for kind in reversed(options_of(key.type)))


def _words(kind: Any, bounds: Between | None) -> str:
    if typing.get_origin(kind) is Literal:
        choices = [f'"{choice}"' for choice in typing.get_args(kind)]
        return choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}"
    words: dict[Any, str] = {
        int: "a whole number",
        float: "a number",
        tuple[str, ...]: "a list of texts",
        dict[str, str]: "a table of texts",
        str: "text in quotes",
        bool: "true or false",
        Duration: 'a duration like "30s", "500ms" or "2m"',
        Size: 'a size like "16MiB", "64KiB" or "1MB"',
    }
    limits = ""
    if bounds and kind is not str:
        show = kind if kind in (Duration, Size) else (lambda number: f"{number:g}") if kind is float else int
        limits = f" from {show(bounds.least)} to {show(bounds.most)}"
    return words[kind] + limits
