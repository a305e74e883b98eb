"""Random values of IDL types, for round trips: whatever the type can hold, shallow where types nest for ever."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from random import Random
from typing import Any

from codec.spec import ABSENT, OPTIONAL, REQUIRED, Field
from codec.structs import FrozenMap, Union
from codec.types import EnumType, List, Map, Primitive, Set, StructType, Type

_BITS = {"byte": 8, "i16": 16, "i32": 32, "i64": 64}
_TEXTS = ("", "a", "grün", "日本語 \U0001f600", 'quote " and \\', "x" * 40)
_DOUBLES = (0.0, -0.0, 1.5, -2.25e-300, 1.7976931348623157e308, float("inf"), 3.141592653589793)
# Below this depth structs are left out where the IDL allows it, and containers are empty.
DEEPEST = 3


class Endless(Exception):
    """A struct that requires itself: nobody can make one."""


def value(random: Random, type: Type, depth: int = 0, *, hashable: bool = False) -> Any:
    """A value of the type. Endless when there is none."""
    match type:
        case Primitive():
            return _primitive(random, type.name)
        case EnumType():
            return random.choice(list(type.cls)) if list(type.cls) else type.cls(3)
        case StructType():
            return struct(random, type.cls, depth + 1)
    count = random.randint(0, 3) if depth < DEEPEST else 0
    match type:
        case List(elem):
            items = [value(random, elem, depth + 1, hashable=hashable) for _ in range(count)]
            return tuple(items) if hashable else items
        case Set(elem):
            members = {value(random, elem, depth + 1, hashable=True) for _ in range(count)}
            return frozenset(members) if hashable else members
        case Map():
            pairs = {
                value(random, type.key, depth + 1, hashable=True): value(random, type.value, depth + 1, hashable=hashable)
                for _ in range(count)
            }
            return FrozenMap(pairs) if hashable else pairs


def _primitive(random: Random, name: str) -> Any:
    if name in _BITS:
        bound = 1 << (_BITS[name] - 1)
        return random.choice([0, 1, -1, bound - 1, -bound, random.randrange(-bound, bound)])
    match name:
        case "bool":
            return random.random() < 0.5
        case "double":
            return random.choice(_DOUBLES)
        case "string":
            return random.choice(_TEXTS)
        case "binary":
            return random.randbytes(random.randint(0, 9))
        case "uuid":
            return uuid.UUID(int=random.getrandbits(128))
    raise AssertionError(name)


def struct(random: Random, cls: Any, depth: int = 0) -> Any:
    """An instance with random fields. Endless when there is none."""
    return cls(**given(random, cls.__plan__.fields, depth, union=issubclass(cls, Union)))


def given(random: Random, fields: Sequence[Field], depth: int = 0, *, union: bool = False) -> dict[str, Any]:
    """Python name → value of those fields that are set."""
    if depth > 2 * DEEPEST:
        raise Endless
    if union:
        for field in random.sample(fields, len(fields)):
            try:
                return {field.name: value(random, field.type, depth)}
            except Endless:
                continue
        raise Endless
    found = {}
    for field in fields:
        may_be_absent = field.requiredness == OPTIONAL and field.default is ABSENT and field.factory is None
        is_struct = isinstance(field.type, StructType)
        leave_out = (may_be_absent and random.random() < 0.3) or (is_struct and depth >= DEEPEST)
        if field.requiredness == REQUIRED or not leave_out:
            try:
                found[field.name] = value(random, field.type, depth)
            except Endless:
                if field.requiredness == REQUIRED:
                    raise
    return found
