"""Struct classes for tests of the codec, made the way emitted code makes them, but from a few words."""

from __future__ import annotations

from typing import Any

from weego import stub


def struct(
    name: str, *fields: stub.Field, base: type[stub.Struct] = stub.Struct, keeps_unknown: bool = False, **members: Any
) -> Any:
    """A defined struct class. Its constructor takes any fields by keyword; absent ones get their defaults."""
    names = [field.name for field in fields] + (["__unknown__"] if keeps_unknown else [])
    cls = declare(name, *names, base=base, **members)
    stub.define(cls, *fields)
    return cls


def declare(name: str, *names: str, base: type[stub.Struct] = stub.Struct, **members: Any) -> Any:
    """A struct class without its field table yet."""
    body: dict[str, Any] = {"__slots__": names, "__module__": __name__, **members}
    if not issubclass(base, stub.Union):
        body["__init__"] = _init
    return type(base)(name, (base,), body)


def _init(self: Any, **values: Any) -> None:
    for name, value in values.items():
        setattr(self, name, value)
    type(self).__plan__.fill(self)


def one(type: Any, requiredness: Any = stub.DEFAULT, **options: Any) -> Any:
    """A struct with one field `x`, id 1, of this type."""
    return struct("One", stub.Field(1, "x", type, requiredness, **options))


class Color(stub.Enum):
    RED = 0
    GREEN = 1
    DARK = -5
    FAR = 100_000


class Point(stub.Struct):
    __slots__ = ("x", "y")

    def __init__(self, *, x: int = 0, y: int = 0) -> None:
        self.x = x
        self.y = y


class Node(stub.Struct):
    """Recursive."""

    __slots__ = ("children", "name", "next")

    def __init__(self, *, name: str = "", next: Node | None = None, children: list[Node] | None = None) -> None:
        self.name = name
        self.next = next
        self.children = [] if children is None else children


class Shape(stub.Union):
    __slots__ = ("count", "label", "point")

    def __init__(self, *, point: Point | None = None, label: str | None = None, count: int | None = None) -> None:
        super().__init__(point=point, label=label, count=count)


class NotFound(stub.IdlException):
    __slots__ = ("key", "message")

    def __init__(self, *, message: str = "", key: int = 0) -> None:
        self.message = message
        self.key = key


stub.define(Point, stub.Field(1, "x", stub.I32), stub.Field(2, "y", stub.I32))
stub.define(
    Node,
    stub.Field(1, "name", stub.STRING),
    stub.Field(2, "next", stub.StructType(Node), stub.OPTIONAL),
    stub.Field(3, "children", stub.List(stub.StructType(Node))),
)
stub.define(
    Shape,
    stub.Field(1, "point", stub.StructType(Point)),
    stub.Field(2, "label", stub.STRING),
    stub.Field(3, "count", stub.I32),
)
stub.define(NotFound, stub.Field(1, "message", stub.STRING), stub.Field(2, "key", stub.I64))
