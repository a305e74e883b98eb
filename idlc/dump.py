"""The model as plain data: `weego idl dump`, the reflection a server serves, and a way in for tools in any language.

The shape is stable and versioned by `FORMAT`: new keys may appear, those that are there keep their meaning. Types are
`"i32"`, `{"list": T}`, `{"set": T}`, `{"map": [K, V]}`, or `{"name": "file.Name"}` for what an IDL defines.
"""

from __future__ import annotations

import base64
import contextlib
import math
import uuid
from collections.abc import Sequence
from typing import Any, Final

from idlc import model
from idlc.options import OptionError, options

__all__ = ["FORMAT", "dump", "dump_program", "plain_type", "plain_value"]

FORMAT: Final = 1


def dump(programs: Sequence[model.Program]) -> dict[str, Any]:
    """All files: what `json.dumps` takes."""
    return {"format": FORMAT, "files": [dump_program(program) for program in programs]}


def dump_program(program: model.Program) -> dict[str, Any]:
    """One file."""
    found: dict[str, Any] = {
        "name": program.stem,
        "path": program.path,
        "sha256": program.digest,
        "doc": program.doc,
        "namespaces": program.namespaces,
        "includes": [included.stem for included in program.includes],
        "typedefs": [],
        "enums": [],
        "constants": [],
        "structs": [],
        "services": [],
    }
    for definition in program.definitions:
        match definition:
            case model.Alias():
                found["typedefs"].append({**_common(definition), "type": plain_type(definition.target)})
            case model.Enum():
                members = [{**_common(member, program), "value": member.value} for member in definition.members]
                found["enums"].append({**_common(definition, program), "members": members})
            case model.Const():
                value = plain_value(definition.value, definition.type)
                found["constants"].append({**_common(definition), "type": plain_type(definition.type), "value": value})
            case model.Struct():
                fields = [_field(each, program) for each in definition.fields]
                found["structs"].append({**_common(definition, program), "kind": definition.kind, "fields": fields})
            case model.Service():
                base = None if definition.base is None else _qualified(definition.base)
                functions = [_function(each, program) for each in definition.functions]
                found["services"].append({**_common(definition, program), "extends": base, "methods": functions})
    return found


def _common(item: Any, program: model.Program | None = None) -> dict[str, Any]:
    """Name, line, and comment, annotations and typed options (of those who can have some) where there are any."""
    found: dict[str, Any] = {"name": item.name, "line": item.pos.line}
    if item.doc:
        found["doc"] = item.doc
    if item.annotations:
        annotations: dict[str, list[str]] = {}
        for each in item.annotations:
            annotations.setdefault(each.key, []).append(each.value)
        found["annotations"] = annotations
        if program is not None:
            with contextlib.suppress(OptionError):  # said as a warning
                if typed := options(program, item):
                    found["options"] = _plain_option(typed)
    return found


def _plain_option(value: Any) -> Any:
    match value:
        case dict():
            return {str(_plain_option(key)): _plain_option(each) for key, each in value.items()}
        case list():
            return [_plain_option(each) for each in value]
    return _scalar(value)


def _field(field: model.Field, program: model.Program | None = None) -> dict[str, Any]:
    found = {"id": field.id, **_common(field, program), "type": plain_type(field.type), "requiredness": field.requiredness}
    return found if field.default is None else {**found, "default": plain_value(field.default, field.type)}


def _function(function: model.Function, program: model.Program) -> dict[str, Any]:
    return {
        **_common(function, program),
        "result": None if function.result is None else plain_type(function.result),
        "arguments": [_field(each) for each in function.args],
        "throws": [_field(each) for each in function.throws],
        "oneway": function.oneway,
        "streaming": function.streaming or "unary",
        "idempotent": function.idempotent,
    }


def _qualified(definition: model.Definition) -> str:
    return f"{definition.program.stem}.{definition.name}"


def plain_type(type_: model.Type) -> Any:
    """A type as data; typedefs keep their names."""
    match type_:
        case model.Base(name):
            return name
        case model.ListOf(elem):
            return {"list": plain_type(elem)}
        case model.SetOf(elem):
            return {"set": plain_type(elem)}
        case model.MapOf(key, value):
            return {"map": [plain_type(key), plain_type(value)]}
        case _:
            return {"name": _qualified(type_)}


def plain_value(value: model.Value, type_: model.Type) -> Any:
    """A value of a type as data, as `weego.dynamic` writes JSON: binary in base64, enums by name, maps without text keys as pairs.

    Required fields that a constant leaves out are there with the zero of their type, as in Python.
    """
    type_ = model.strip(type_)
    match model.plain(value), type_:
        case model.Scalar(data), _:
            return _scalar(data)
        case model.Member(_, member), _:
            return member.name
        case model.Sequence(items), model.ListOf(elem) | model.SetOf(elem):
            return [plain_value(item, elem) for item in items]
        case model.Mapping(pairs), model.MapOf(key, each):
            plain = [(plain_value(left, key), plain_value(right, each)) for left, right in pairs]
            return dict(plain) if model.strip(key) == model.Base("string") else [list(pair) for pair in plain]
        case model.Construction(struct, fields), _:
            given = {field.name: plain_value(item, field.type) for field, item in fields}
            for field in struct.fields:
                if field.name not in given and field.requiredness == "required":
                    given[field.name] = _zero(field.type) if field.default is None else plain_value(field.default, field.type)
            return given
    raise AssertionError(value, type_)


def _zero(type_: model.Type) -> Any:
    match model.strip(type_):
        case model.Base("bool"):
            return False
        case model.Base("string" | "binary"):
            return ""
        case model.Base("uuid"):
            return str(uuid.UUID(int=0))
        case model.ListOf() | model.SetOf():
            return []
        case model.MapOf(key, _):
            return {} if model.strip(key) == model.Base("string") else []
        case model.Struct(kind="struct" | "exception") as struct:
            return {field.name: _zero(field.type) for field in struct.fields if field.requiredness == "required"}
        case model.Struct():
            return {}
    return 0


def _scalar(data: bool | float | str | bytes | uuid.UUID) -> Any:
    match data:
        case bytes():
            return base64.b64encode(data).decode()
        case uuid.UUID():
            return str(data)
        case float() if not math.isfinite(data):
            return "NaN" if math.isnan(data) else "Infinity" if data > 0 else "-Infinity"
    return data
