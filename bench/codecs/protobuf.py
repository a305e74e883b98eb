"""Protobuf's upb: the IDL's twin in Protobuf, built from descriptors at run time, so that no protoc is needed.

A upb message keeps its values in C memory: setting or reading a field converts it. So its bare encode and decode leave
out work the others do in theirs, and only "build + encode" and "decode + read" compare like with like.
"""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any, cast

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.internal import api_implementation

from bench.messages import KEYS, Types, strings

_PACKAGE = "weego_bench"
_Field = descriptor_pb2.FieldDescriptorProto
_STRING, _INT64, _MESSAGE = _Field.TYPE_STRING, _Field.TYPE_INT64, _Field.TYPE_MESSAGE

if api_implementation.Type() != "upb":
    raise ImportError(f"protobuf runs on {api_implementation.Type()!r} here, not on upb")


def _add(message: Any, number: int, name: str, kind: int, of: str = "", *, repeated: bool = False) -> None:
    label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
    field = message.field.add(name=name, number=number, type=kind, label=label)
    if of:
        field.type_name = f".{_PACKAGE}.{of}"


@cache
def types() -> Types:
    """Message classes; a set is a repeated field, as Protobuf has no sets."""
    file = descriptor_pb2.FileDescriptorProto(name="bench/bench.proto", package=_PACKAGE, syntax="proto3")
    for name in ("EchoRequest", "EchoResponse"):
        message = file.message_type.add(name=name)
        _add(message, 1, "action", _STRING)
        _add(message, 2, "msg", _STRING)
    for name in ("Item", "Group"):
        message = file.message_type.add(name=name)
        _add(message, 1, "id", _INT64)
        _add(message, 2, "value", _STRING)
    _add(message, 3, "items", _MESSAGE, "Item", repeated=True)
    for name in ("ComplexRequest", "ComplexResponse"):
        message = file.message_type.add(name=name)
        entry = message.nested_type.add(name="ItemMapEntry")
        entry.options.map_entry = True
        _add(entry, 1, "key", _STRING)
        _add(entry, 2, "value", _MESSAGE, "Item")
        _add(message, 1, "action", _STRING)
        _add(message, 2, "msg", _STRING)
        _add(message, 3, "itemMap", _MESSAGE, f"{name}.ItemMapEntry", repeated=True)
        _add(message, 4, "itemList", _MESSAGE, "Item", repeated=True)
        _add(message, 5, "groupSet", _MESSAGE, "Group", repeated=True)
        _add(message, 6, "flag", _MESSAGE, "Group")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    classes = {
        message.name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{message.name}"))
        for message in file.message_type
    }
    return cast("Types", SimpleNamespace(**classes, group_set=list))


def build(cls: Any) -> Any:
    """A new complex message, filled in place: the quickest of upb's ways (messages given to a constructor are copied)."""
    long, short = strings()
    message = cls(action="complex", msg="a complex message")
    items = message.itemMap
    for index, key in enumerate(KEYS):
        item = items[key]
        item.id = index
        item.value = long[index]
    add = message.itemList.add
    for index, value in enumerate(short):
        item = add()
        item.id = index
        item.value = value
    message.groupSet.add(id=1, value=long[-2])
    flag = message.flag
    flag.id = 2
    flag.value = long[-1]
    return message


def encode(value: Any) -> bytes:
    """``value`` in Protobuf's wire format."""
    return cast("bytes", value.SerializeToString())


def decode(cls: Any, data: bytes) -> Any:
    """A new ``cls`` from Protobuf's wire format."""
    return cls.FromString(data)
