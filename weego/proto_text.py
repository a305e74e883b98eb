"""Descriptors as `.proto` text: what `weego call --describe` shows. For people: options, reserved ranges and comments are left out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor

__all__ = ["describe"]

_WORDS: Final = {
    getattr(FieldDescriptor, f"TYPE_{name.upper()}"): name
    for name in (
        "double", "float", "int64", "uint64", "int32", "fixed64", "fixed32", "bool", "string", "bytes", "uint32", "sfixed32", "sfixed64", "sint32", "sint64",
    )
}  # fmt: skip
_INDENT: Final = "  "


def describe(pool: Any, symbol: str) -> str | None:
    """A service, message, enum or method of a pool with all the messages and enums it needs; None when there is no such thing."""
    for find in (pool.FindServiceByName, pool.FindMessageTypeByName, pool.FindEnumTypeByName, pool.FindMethodByName):
        try:
            found = find(symbol)
        except KeyError:
            continue
        return "\n\n".join(_all(found)) + "\n"
    return None


def _all(first: Any) -> Iterator[str]:
    seen: set[str] = set()
    waiting = [first]
    while waiting:
        each = waiting.pop(0)
        if each.full_name in seen or each.full_name.startswith("google.protobuf."):
            continue
        seen.add(each.full_name)
        if hasattr(each, "methods"):
            yield _service(each)
            waiting += [kind for method in each.methods for kind in (method.input_type, method.output_type)]
        elif hasattr(each, "input_type"):
            yield _method(each)
            waiting += [each.input_type, each.output_type]
        elif hasattr(each, "fields"):
            yield _message(each)
            waiting += [kind for field in each.fields for kind in _needs(field)]
        else:
            yield _enum(each)


def _needs(field: Any) -> list[Any]:
    if field.message_type is not None:
        if field.message_type.GetOptions().map_entry:
            return _needs(field.message_type.fields_by_name["value"])
        return [field.message_type]
    return [] if field.enum_type is None else [field.enum_type]


def _service(service: Any) -> str:
    lines = [f"service {service.full_name} {{", *(_INDENT + _method(method) for method in service.methods), "}"]
    return "\n".join(lines)


def _method(method: Any) -> str:
    taken = ("stream " if method.client_streaming else "") + method.input_type.full_name
    given = ("stream " if method.server_streaming else "") + method.output_type.full_name
    return f"rpc {method.name}({taken}) returns ({given});"


def _message(message: Any) -> str:
    lines = [f"message {message.full_name} {{"]
    open_oneof = None
    for field in message.fields:
        oneof = field.containing_oneof
        if oneof is not None and len(oneof.fields) == 1 and oneof.name == f"_{field.name}":
            oneof = None  # how `optional` of proto3 is kept
        if open_oneof is not None and open_oneof is not oneof:
            lines.append(f"{_INDENT}}}")
            open_oneof = None
        if oneof is not None and open_oneof is None:
            lines.append(f"{_INDENT}oneof {oneof.name} {{")
            open_oneof = oneof
        lines.append(f"{_INDENT * (2 if oneof is not None else 1)}{_field(field, in_oneof=oneof is not None)}")
    if open_oneof is not None:
        lines.append(f"{_INDENT}}}")
    return "\n".join([*lines, "}"])


def _field(field: Any, *, in_oneof: bool) -> str:
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
        return f"map<{_type(key)}, {_type(value)}> {field.name} = {field.number};"
    label = ""
    if field.is_repeated:
        label = "repeated "
    elif field.is_required:
        label = "required "
    elif field.has_presence and not in_oneof and entry is None:
        label = "optional "
    return f"{label}{_type(field)} {field.name} = {field.number};"


def _type(field: Any) -> str:
    kind = field.message_type or field.enum_type
    return kind.full_name if kind is not None else _WORDS[field.type]


def _enum(enum: Any) -> str:
    return "\n".join([f"enum {enum.full_name} {{", *(f"{_INDENT}{value.name} = {value.number};" for value in enum.values), "}"])
