"""The base of native Protobuf messages: structs with slots that `weego gen --messages native` emits."""

from __future__ import annotations

import copy
import reprlib
from typing import Any, ClassVar, Self

from codec.proto_plan import ProtoBase, ProtoPlan
from codec.spec import ABSENT

__all__ = ["ProtoStruct"]


class ProtoStruct(ProtoBase):
    """A message of plain Python values, read and written by native code.

    Scalars without presence are never None; what can be absent is None when it is: messages, `optional` scalars, members of a
    oneof. Setting a member of a oneof clears the others. Lists and dicts are plain ones. Fields that the peer knows and this IDL does
    not are kept and sent on. Equal by value; not hashable, for a message can change.
    """

    __slots__ = ("_unknown",)
    __plan__: ClassVar[ProtoPlan]
    _unknown: bytes

    def copy(self, /, **changes: Any) -> Self:
        """A shallow copy, with the given fields replaced. TypeError for a field that does not exist."""
        new = copy.copy(self)
        names = type(self).__plan__.names
        for name, value in changes.items():
            if name not in names:
                raise TypeError(f"{type(self).__name__} has no field {name!r}; it has {', '.join(names) or 'none'}")
            setattr(new, name, value)
        return new

    @reprlib.recursive_repr("...")
    def __repr__(self) -> str:
        plan = type(self).__plan__
        parts = []
        for field in plan.fields:
            value = getattr(self, field.name, None)
            # What is as it was when it was made says nothing, unless it is known to be there.
            if value is None or (field.presence == "implicit" and not value):
                continue
            parts.append(f"{field.name}={value!r}")
        if getattr(self, "_unknown", None):
            parts.append(f"<{len(self._unknown)} bytes of unknown fields>")
        return f"{type(self).__qualname__}({', '.join(parts)})"

    def __setstate__(self, state: Any) -> None:
        """Restore a pickle, of another version of the IDL too: new fields get their defaults, fields gone are dropped."""
        attributes, slots = state if isinstance(state, tuple) else (state, None)
        cls = type(self)
        names = {*cls.__plan__.names, "_unknown"}
        for name, value in (slots or {}).items():
            # A oneof's member that is None must not clear the one that is set.
            if name in names and value is not None:
                setattr(self, name, value)
        for name, value in (attributes or {}).items():
            object.__setattr__(self, name, value)
        cls.__plan__.fill(self)


def unknown_fields(message: ProtoStruct) -> bytes:
    """The fields of a message that its IDL does not know, as they came."""
    return getattr(message, "_unknown", None) or b""


def or_default(message: ProtoStruct, name: str) -> Any:
    """A field's value, or what it stands for while it is absent: its `default` in the IDL, else the zero value of its type."""
    value = getattr(message, name)
    if value is not None:
        return value
    field = next(each for each in type(message).__plan__.fields if each.name == name)
    if field.default is not ABSENT:
        return field.default
    if isinstance(field.type, str):
        return {"string": "", "bytes": b"", "bool": False, "double": 0.0, "float": 0.0}.get(field.type, 0)
    return field.type()
