"""What a field mask does to a value: functions, made once for a mask, that copy what they change and share the rest.

Encoding leaves out a field whose slot is None, so a value without some fields is a copy with None in their slots: it needs no codec of its own.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Final

from codec.fieldmask import Node, kind_of
from codec.spec import ABSENT, OPTIONAL, REQUIRED, Field
from codec.structs import FrozenMap, Union
from codec.types import EnumType, List, Map, Primitive, Set, StructType, Type

__all__ = ["cutter"]

Cut = Callable[[Any], Any]

_ZEROS: Final[dict[str, object]] = {"bool": False, "double": 0.0, "string": "", "binary": b"", "uuid": None}


def cutter(type: Type, node: Node | None, mode: str) -> Cut | None:
    """The function that cuts a value of `type`; None where it is left as it is.

    `mode`: "omit" and "zero" make values to send, in which required fields stay or are zero; "default" fills as decoding does.
    """
    if node is None or node.kind == "Invalid" or (node.all and node.every is None and not node.black):
        return None
    if isinstance(type, StructType):
        return _struct(type.cls, node, mode)
    if isinstance(type, List | Set):
        return _sequence(type, node, mode)
    return _map(type, node, mode) if isinstance(type, Map) else None


def _struct(cls: Any, node: Node, mode: str) -> Cut | None:
    dropped: list[str] = []
    made: list[tuple[str, Callable[[], object]]] = []
    inside: list[tuple[str, Cut, bool]] = []
    for field in cls.__plan__.fields:
        if node.passes(field.id):
            child = node.child(field.id)
            # Every field has a type of its own: what a mask says of all of them holds where it fits.
            cut = cutter(field.type, child, mode) if child is None or child.kind == kind_of(field.type) else None
            if cut is not None:
                inside.append((field.name, cut, _is_union(field.type) and field.requiredness != REQUIRED))
        elif issubclass(cls, Union) or (mode != "default" and field.requiredness != REQUIRED):
            dropped.append(field.name)
        elif mode == "default":
            made.append((field.name, _default(field)))
        elif mode == "zero":
            made.append((field.name, _zero_of(field.type)))
        else:
            # It must go out, but of what a black list names no more than must go out in its turn.
            cut = cutter(field.type, node.child(field.id), mode)
            if cut is not None:
                inside.append((field.name, cut, False))
    if hasattr(cls, "__unknown__") and not node.black and not node.all:
        dropped.append("__unknown__")  # a white list names what goes along: nobody named these
    if not (dropped or made or inside):
        return None

    def cut_struct(value: Any) -> Any:
        new = copy.copy(value)
        put = object.__setattr__
        for name in dropped:
            put(new, name, None)
        for name, make in made:
            put(new, name, make())
        for name, cut, may_vanish in inside:
            held = getattr(value, name, None)
            if held is not None:
                part = cut(held)
                put(new, name, None if may_vanish and part.which is None else part)
        return new

    return cut_struct


def _sequence(type: List | Set, node: Node, mode: str) -> Cut:
    def cut_sequence(value: Any) -> Any:
        parts = []
        for index, item in enumerate(value):
            if node.passes(index):
                cut = element(index)
                parts.append(item if cut is None else cut(item))
        return parts if value.__class__ is list else value.__class__(parts)

    element = _cut_by_key(type.elem, node, mode)
    return cut_sequence


def _map(type: Map, node: Node, mode: str) -> Cut:
    def cut_map(value: Any) -> Any:
        parts = {}
        for key, item in value.items():
            name = _key(key)
            if node.passes(name):
                cut = element(name)
                parts[key] = item if cut is None else cut(item)
        return FrozenMap(parts) if isinstance(value, FrozenMap) else parts

    element = _cut_by_key(type.value, node, mode)
    return cut_map


def _cut_by_key(type: Type, node: Node, mode: str) -> Callable[[int | str], Cut | None]:
    """Key or index → how its value is cut."""
    if node.all or node.kind == "Scalar":
        cut = cutter(type, node.every, mode)
        return lambda _key: cut
    cuts = {key: cutter(type, child, mode) for key, child in node.children.items()}
    return cuts.get


def _key(key: Any) -> int | str:
    """A map's key as masks name it. Bytes that are no UTF-8 have no name, as the empty text has none that they could be taken for."""
    if isinstance(key, bytes):
        return key.decode(errors="surrogateescape")
    return key if isinstance(key, str) else int(key) if isinstance(key, int) else 0


def _is_union(type: Type) -> bool:
    return isinstance(type, StructType) and issubclass(type.cls, Union)


def _default(field: Field) -> Callable[[], object]:
    """What a field holds that did not come."""
    if field.factory is not None:
        return field.factory
    if field.default is not ABSENT:
        return lambda: field.default
    if field.requiredness == OPTIONAL or (field.requiredness != REQUIRED and isinstance(field.type, StructType)):
        return lambda: None
    return _zero_of(field.type)


def _zero_of(type: Type) -> Callable[[], object]:
    """Makes the zero of a type; for a struct one whose fields are as if nothing had come, required ones zero."""
    if isinstance(type, List):
        return list
    if isinstance(type, Set):
        return set
    if isinstance(type, Map):
        return dict
    if isinstance(type, StructType):
        return lambda: _zero_struct(type.cls)
    if isinstance(type, EnumType):
        return lambda: type.cls(0)
    if isinstance(type, Primitive):
        zero = _ZEROS.get(type.name, 0)
        return lambda: zero
    raise AssertionError(type)


def _zero_struct(cls: Any) -> Any:
    new = cls.__new__(cls)
    for field in cls.__plan__.fields:
        object.__setattr__(new, field.name, None if issubclass(cls, Union) else _default(field)())
    return new
