"""The classes that emitted code subclasses: Struct, Union, Enum, IdlException, and the map that can be hashed.

Equality, hash and copy of structs are native (`codec.plan.StructBase`); what is seldom called is here. Nothing here
asks an instance for one of our names without need, because a field of the IDL may have the same name and win.
"""

from __future__ import annotations

import copy
import enum
import reprlib
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Self, TypeVar

from codec.construct import install
from codec.plan import StructBase, StructPlan, value_hash
from codec.spec import Field, is_emitted
from codec.validation import validate

__all__ = ["Enum", "FrozenMap", "IdlException", "Struct", "Union", "define"]

K = TypeVar("K")
V_co = TypeVar("V_co", covariant=True)

# Enums travel as i32.
_MIN_NUMBER = -(2**31)
_MAX_NUMBER = 2**31 - 1


class Struct(StructBase):
    """Base of the emitted structs: a mutable value with typed slots.

    Two structs are equal when they are of the same class and their fields are equal, and they hash by value, so that
    `set<Message>` works; do not change one while it is in a set or the key of a dict.
    """

    __slots__ = ()
    __plan__: ClassVar[StructPlan]

    def copy(self, /, **changes: Any) -> Self:
        """A shallow copy, with the given fields replaced. TypeError for a field that does not exist."""
        new = copy.copy(self)
        _change(new, changes)
        return new

    def validate(self, /) -> None:
        """Raise ValidationError, which names every value that breaks a rule of the IDL (`vt.*` annotations)."""
        validate(self)

    @reprlib.recursive_repr("...")
    def __repr__(self) -> str:
        return f"{type(self).__qualname__}({_fields_text(self)})"

    def __getstate__(self) -> Any:
        """What is pickled and copied deeply: a view of what arrived (`py.view`) as the bytes that it shows."""
        state = object.__getstate__(self)
        if isinstance(state, tuple) and any(type(value) is memoryview for value in state[1].values()):
            attributes, slots = state
            state = attributes, {name: bytes(value) if type(value) is memoryview else value for name, value in slots.items()}
        return state

    def __setstate__(self, state: Any) -> None:
        """Restore a pickle, of another version of the IDL too: new fields get their defaults, fields gone are dropped."""
        attributes, slots = state if isinstance(state, tuple) else (state, None)
        cls = type(self)
        for name, value in (slots or {}).items():
            if hasattr(cls, name):
                object.__setattr__(self, name, value)
        for name, value in (attributes or {}).items():
            object.__setattr__(self, name, value)
        cls.__plan__.fill(self)


def _fields_text(struct: Struct) -> str:
    """The fields that are set, as `name=value, …`."""
    parts = []
    for name in type(struct).__plan__.names:
        value = getattr(struct, name, None)
        if value is not None:
            parts.append(f"{name}={value!r}")
    return ", ".join(parts)


def _change(struct: Struct, changes: dict[str, Any]) -> None:
    names = type(struct).__plan__.names
    for name, value in changes.items():
        if name not in names:
            raise TypeError(f"{type(struct).__name__} has no field {name!r}; it has {', '.join(names) or 'none'}")
        setattr(struct, name, value)


class Union(Struct):
    """Base of the emitted unions: exactly one member is set. Assigning one clears the others.

    A union from a newer peer may hold a member that this IDL does not know; then `which` is None.
    """

    __slots__ = ()

    def __init__(self, **members: Any) -> None:
        cls = type(self)
        names = cls.__plan__.names
        for name in members:
            if name not in names:
                raise TypeError(f"{cls.__name__} has no member {name!r}; it has {', '.join(names) or 'none'}")
        given = [name for name, value in members.items() if value is not None]
        if len(given) != 1:
            got = " and ".join(given) or "none"
            raise ValueError(f"{cls.__name__} takes exactly one of {', '.join(names)}; got {got}")
        for name in names:
            object.__setattr__(self, name, members.get(name))

    def __setattr__(self, name: str, value: Any) -> None:
        names = type(self).__plan__.names
        if value is not None and name in names:
            for other in names:
                if other != name:
                    object.__setattr__(self, other, None)
        object.__setattr__(self, name, value)

    @property
    def which(self) -> str | None:
        """Name of the member that is set; None when the peer set one that this IDL does not know."""
        for name in type(self).__plan__.names:
            if getattr(self, name, None) is not None:
                return name
        return None

    @property
    def value(self) -> Any:
        """Value of the member that is set, or None."""
        for name in type(self).__plan__.names:
            value = getattr(self, name, None)
            if value is not None:
                return value
        return None


class IdlException(Struct, Exception):
    """Base of the emitted exceptions: a struct that can be raised. Equal by value, like every struct."""

    def __new__(cls, *args: Any, **fields: Any) -> Self:
        """Exception's own allocator; the fields are slots and none of its business."""
        return Exception.__new__(cls)

    def __str__(self) -> str:
        """The message, if the IDL has such a field, and the other fields behind it."""
        plan = type(self).__plan__
        for name in _MESSAGE_NAMES:
            text = getattr(self, name, None) if name in plan.names else None
            if isinstance(text, str) and text:
                others = [f"{n}={getattr(self, n, None)!r}" for n in plan.names if n != name]
                others = [part for part in others if not part.endswith("=None")]
                return f"{text} ({', '.join(others)})" if others else text
        return _fields_text(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return _new_exception, (type(self),), object.__getstate__(self)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return type(self).__reduce__(self)


# Under these names an IDL's exception usually carries its text.
_MESSAGE_NAMES = ("message", "msg", "reason", "error_message", "errorMessage")


def _new_exception(cls: type[IdlException]) -> IdlException:
    return cls.__new__(cls)


class Enum(enum.IntEnum):
    """Base of the emitted enums: ints, and numbers that the IDL does not name are kept.

    `Color(7)` is a member named `UNKNOWN_7` when no member has that number. It equals 7 and every other `Color(7)`,
    but is a new object each time: it is not remembered, or a peer could make this process grow by sending ever new
    numbers.
    """

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, int) or isinstance(value, bool) or not _MIN_NUMBER <= value <= _MAX_NUMBER:
            return None
        member = int.__new__(cls, value)
        member._name_ = f"UNKNOWN_{value}"
        member._value_ = value
        return member

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return type(self), (self._value_,)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: Any) -> Self:
        return self


class FrozenMap(Mapping[K, V_co]):
    """A dict that cannot change and can be hashed: a map inside a set or in the key of another map."""

    __slots__ = ("_hash", "_items")

    _items: dict[K, V_co]
    _hash: int | None

    def __init__(self, items: Mapping[K, V_co] | None = None) -> None:
        object.__setattr__(self, "_items", dict(items or {}))
        object.__setattr__(self, "_hash", None)

    def __getitem__(self, key: K) -> V_co:
        return self._items[key]

    def __iter__(self) -> Iterator[K]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        known = self._hash
        if known is None:
            known = value_hash(self._items)
            object.__setattr__(self, "_hash", known)
        return known

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("a FrozenMap cannot change; make a dict of it, change that, and freeze it again")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("a FrozenMap cannot change; make a dict of it, change that, and freeze it again")

    def __repr__(self) -> str:
        return f"FrozenMap({self._items!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._items,)


def define(cls: type[Struct], *fields: Field) -> None:
    """Give an emitted class its field table and compile it. Classes that the fields name may be defined later."""
    cls.__plan__ = StructPlan(cls, fields, is_union=issubclass(cls, Union))
    if is_emitted(cls.__module__):
        install(cls)  # the constructor that `weego gen` wrote only sets the fields
