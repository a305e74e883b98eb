"""A configuration written down: as TOML with every default, and as the JSON Schema that editors use."""

from __future__ import annotations

import json
import typing
from typing import Any, Literal

from weego.config_keys import OCTAL, Between, Key, Table, keys_of, options_of, table_of
from weego.units import Duration, Size

__all__ = ["dump", "schema_of"]


def dump(config: Table) -> str:
    """`config`, defaults included, as a TOML document."""
    blocks: list[str] = []
    for key in keys_of(type(config)).values():
        _dump(key.name, key, getattr(config, key.field), blocks)
    return "\n\n".join(blocks) + "\n"


def _dump(title: str, key: Key, value: Any, blocks: list[str]) -> None:
    """The table or tables of one key; what is inside them stands in their lines."""
    if value is None:
        return
    if isinstance(value, dict):
        for name, each in value.items():
            _dump(f"{title}.{json.dumps(name)}", key, each, blocks)
        return
    several = isinstance(value, tuple)
    tables: tuple[Table, ...] = value if several else (value,)
    for table in tables:
        pairs = [(entry.name, getattr(table, entry.field)) for entry in keys_of(type(table)).values()]
        header = f"[[{title}]]" if several else f"[{title}]"
        blocks.append("\n".join([header, *(f"{name} = {_toml(name, v)}" for name, v in pairs if v is not None and v != ())]))


def _toml(name: str, value: object) -> str:
    if isinstance(value, (Duration, Size)):
        return f'"{value}"'
    if name in OCTAL:
        return f"0o{value:o}"
    if isinstance(value, Table):
        pairs = [(key.name, getattr(value, key.field)) for key in keys_of(type(value)).values()]
        return "{ " + ", ".join(f"{key} = {_toml(key, each)}" for key, each in pairs if each is not None and each != ()) + " }"
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(name, each) for each in value) + "]"
    if isinstance(value, dict):
        inside = ", ".join(f"{json.dumps(key)} = {_toml(name, each)}" for key, each in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    # A JSON string is a TOML basic string but for DEL, which TOML wants escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def schema_of(root: type[Table]) -> dict[str, Any]:
    """The JSON Schema of a file that is a `root`."""
    document = _table_schema(root)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "weego server configuration",
        **document,
    }


def _table_schema(table: type[Table]) -> dict[str, Any]:
    keys = keys_of(table)
    return {
        "description": " ".join((table.__doc__ or "").split()),
        "type": "object",
        "additionalProperties": False,
        "required": [key.name for key in keys.values() if key.required],
        "properties": {key.name: _key_schema(key) for key in keys.values()},
    }


def _key_schema(key: Key) -> dict[str, Any]:
    if (table := table_of(key.type)) is not None:
        inner = _table_schema(table)
        if typing.get_origin(key.type) is dict:
            return {"type": "object", "additionalProperties": inner}
        return {"type": "array", "minItems": 1, "items": inner} if typing.get_origin(key.type) is tuple else inner
    options = [_leaf_schema(kind, key.bounds) for kind in options_of(key.type)]
    result: dict[str, Any] = {"description": key.doc}
    result.update(options[0] if len(options) == 1 else {"anyOf": options})
    if key.default is not None:
        shown = isinstance(key.default, (Duration, Size))
        result["default"] = str(key.default) if shown else list(key.default) if isinstance(key.default, tuple) else key.default
    return result


def _leaf_schema(kind: Any, bounds: Between | None) -> dict[str, Any]:
    if typing.get_origin(kind) is Literal:
        return {"enum": list(typing.get_args(kind))}
    if kind in (Duration, Size):
        pattern = r"^\s*(\d+(\.\d+)?\s*(us|ms|s|m|h|d)\s*)+$" if kind is Duration else r"^\s*\d+(\.\d+)?\s*([kKmMgG]i?)?[bB]\s*$"
        number = {"type": "number" if kind is Duration else "integer"}
        return {"anyOf": [{"type": "string", "pattern": pattern}, number]}
    if kind == tuple[str, ...]:
        return {"type": "array", "items": {"type": "string"}}
    if kind == dict[str, str]:
        return {"type": "object", "additionalProperties": {"type": "string"}}
    result: dict[str, Any] = {"type": {int: "integer", float: "number", str: "string", bool: "boolean"}[kind]}
    if bounds and kind in (int, float):
        result.update(minimum=bounds.least, maximum=bounds.most)
    return result
