"""Random messages of protobuf's own classes, and the native ones beside them."""

from __future__ import annotations

import math
import struct
from random import Random
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

_TEXTS = ("", "a", "hello world", "é", "日本語", "x" * 200, "\0", "🙂")
_FLOATS = (0.0, -0.0, 1.5, -2.25, 1e30, math.inf, -math.inf, 3.4028234663852886e38)
_BOUNDS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
MAX_DEPTH = 4


def scalar(field: FieldDescriptor, random: Random) -> Any:
    """A value that fits the field."""
    kind = field.cpp_type
    if kind in _BOUNDS:
        low, high = _BOUNDS[kind]
        return random.choice((0, 1, low, high, random.randint(low, high), random.randint(max(low, -200), 200)))
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return random.random() < 0.5
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        numbers = [value.number for value in field.enum_type.values]
        if not field.enum_type.is_closed and random.random() < 0.2:
            return random.choice((-1, 7777, 2**31 - 1, -(2**31)))
        return random.choice(numbers)
    if kind == FieldDescriptor.CPPTYPE_STRING:
        if field.type == FieldDescriptor.TYPE_BYTES:
            return random.choice((b"", b"\xff\0", random.randbytes(random.choice((1, 5, 130)))))
        return random.choice(_TEXTS)
    if kind == FieldDescriptor.CPPTYPE_FLOAT:
        return struct.unpack("<f", struct.pack("<f", random.choice(_FLOATS)))[0]
    return random.choice((*_FLOATS, random.random()))


def is_map(field: FieldDescriptor) -> bool:
    """Is it a map?"""
    return bool(field.message_type is not None and field.message_type.GetOptions().map_entry)


def fill(message: Any, random: Random, depth: int = 0, density: float = 0.6) -> Any:
    """Give `message` random fields; required ones always."""
    descriptor: Descriptor = message.DESCRIPTOR
    for field in descriptor.fields:
        required = field.is_required
        if not required and random.random() > density:
            continue
        if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE and depth >= MAX_DEPTH and not required:
            continue
        _set(message, field, random, depth, density)
    return message


def _set(message: Any, field: FieldDescriptor, random: Random, depth: int, density: float) -> None:
    target = getattr(message, field.name)
    if is_map(field):
        key, value = field.message_type.fields_by_name["key"], field.message_type.fields_by_name["value"]
        for _ in range(random.randint(0, 3)):
            if value.message_type is not None:
                fill(target[scalar(key, random)], random, depth + 1, density)
            else:
                target[scalar(key, random)] = scalar(value, random)
    elif field.is_repeated:
        for _ in range(random.choice((0, 1, 2, 5))):
            if field.message_type is not None:
                fill(target.add(), random, depth + 1, density)
            else:
                target.append(scalar(field, random))
    elif field.message_type is not None:
        target.SetInParent()
        fill(target, random, depth + 1, density)
    else:
        setattr(message, field.name, scalar(field, random))


def differences(native: Any, message: Any, path: str = "") -> list[str]:
    """Where the native message does not say what protobuf's says; read field by field."""
    found: list[str] = []
    fields = {each.wire_name or each.name: each for each in type(native).__plan__.fields}
    for field in message.DESCRIPTOR.fields:
        ours = fields[field.name]
        mine = getattr(native, ours.name)
        where = f"{path}.{field.name}"
        theirs = getattr(message, field.name)
        if is_map(field):
            if set(mine) != set(theirs):
                found.append(f"{where}: keys {set(mine)} are {set(theirs)}")
                continue
            for key in mine:
                found += _compare(mine[key], theirs[key], f"{where}[{key!r}]")
        elif field.is_repeated:
            if len(mine) != len(theirs):
                found.append(f"{where}: {len(mine)} elements are {len(theirs)}")
                continue
            for i, (a, b) in enumerate(zip(mine, theirs, strict=True)):
                found += _compare(a, b, f"{where}[{i}]")
        elif field.has_presence and not message.HasField(field.name):
            if mine is not None:
                found.append(f"{where}: {mine!r} is absent")
        elif field.has_presence and mine is None:
            found.append(f"{where}: absent is {theirs!r}")
        else:
            found += _compare(mine, theirs, where)
    return found


def _compare(mine: Any, theirs: Any, where: str) -> list[str]:
    if hasattr(theirs, "DESCRIPTOR"):
        return differences(mine, theirs, where)
    if isinstance(theirs, float) and math.isnan(theirs):
        return [] if math.isnan(mine) else [f"{where}: {mine!r} is nan"]
    if isinstance(theirs, bytes) and isinstance(mine, str):  # text that is no UTF-8, which protobuf gives as bytes
        mine = mine.encode("utf-8", "surrogateescape")
    same = mine == theirs and (not isinstance(theirs, float) or math.copysign(1, mine) == math.copysign(1, theirs))
    return [] if same else [f"{where}: {mine!r} is {theirs!r}"]
