"""Apache Thrift: the classes its compiler would generate (``--gen py:slots``), and its C accelerator.

They are written here by hand because the compiler is no part of the Python package. What matters for speed is as in
generated code: a plain class with slots, an ``__init__`` with defaults, a field table, and the one call to the
accelerator in ``read`` and ``write``. A set of structs needs structs with a hash, so Group has one.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, ClassVar, cast

from thrift.protocol.TBinaryProtocol import TBinaryProtocolAccelerated
from thrift.Thrift import TType
from thrift.transport import TTransport
from thrift.TRecursive import fix_spec

if TYPE_CHECKING:
    from bench.messages import Types


class Struct:
    """What all generated structs share."""

    __slots__ = ()
    thrift_spec: ClassVar[tuple[Any, ...]]

    def read(self, protocol: Any) -> None:
        if protocol._fast_decode is None or not isinstance(protocol.trans, TTransport.CReadableTransport):
            raise RuntimeError("Apache Thrift's accelerator is missing: the installed thrift has no fastbinary")
        protocol._fast_decode(self, protocol, [self.__class__, self.thrift_spec])

    def write(self, protocol: Any) -> None:
        protocol.trans.write(protocol._fast_encode(self, [self.__class__, self.thrift_spec]))


class EchoRequest(Struct):
    __slots__ = ("action", "msg")

    def __init__(self, action: Any = None, msg: Any = None) -> None:
        self.action = action
        self.msg = msg


class EchoResponse(Struct):
    __slots__ = ("action", "msg")

    def __init__(self, action: Any = None, msg: Any = None) -> None:
        self.action = action
        self.msg = msg


class Item(Struct):
    __slots__ = ("id", "value")

    def __init__(self, id: Any = None, value: Any = None) -> None:
        self.id = id
        self.value = value


class Group(Struct):
    __slots__ = ("id", "items", "value")

    def __init__(self, id: Any = None, value: Any = None, items: Any = None) -> None:
        self.id = id
        self.value = value
        self.items = items

    def __hash__(self) -> int:
        return hash((self.id, self.value))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Group) and (self.id, self.value, self.items) == (other.id, other.value, other.items)


class ComplexRequest(Struct):
    __slots__ = ("action", "cost", "flag", "groupSet", "itemList", "itemMap", "msg")

    def __init__(
        self,
        action: Any = None,
        msg: Any = None,
        itemMap: Any = None,  # noqa: N803 - the IDL's names
        itemList: Any = None,  # noqa: N803
        groupSet: Any = None,  # noqa: N803
        flag: Any = None,
        cost: Any = None,
    ) -> None:
        self.action = action
        self.msg = msg
        self.itemMap = itemMap
        self.itemList = itemList
        self.groupSet = groupSet
        self.flag = flag
        self.cost = cost


class ComplexResponse(Struct):
    __slots__ = ("action", "flag", "groupSet", "itemList", "itemMap", "msg")

    def __init__(
        self,
        action: Any = None,
        msg: Any = None,
        itemMap: Any = None,  # noqa: N803 - the IDL's names
        itemList: Any = None,  # noqa: N803
        groupSet: Any = None,  # noqa: N803
        flag: Any = None,
    ) -> None:
        self.action = action
        self.msg = msg
        self.itemMap = itemMap
        self.itemList = itemList
        self.groupSet = groupSet
        self.flag = flag


class EchoArgs(Struct):
    __slots__ = ("req",)

    def __init__(self, req: Any = None) -> None:
        self.req = req


class EchoResult(Struct):
    __slots__ = ("success",)

    def __init__(self, success: Any = None) -> None:
        self.success = success


class EchoComplexArgs(Struct):
    __slots__ = ("req",)

    def __init__(self, req: Any = None) -> None:
        self.req = req


class EchoComplexResult(Struct):
    __slots__ = ("success",)

    def __init__(self, success: Any = None) -> None:
        self.success = success


def _string(number: int, name: str) -> tuple[Any, ...]:
    return (number, TType.STRING, name, "UTF8", None)


def _struct(number: int, name: str, cls: type[Struct]) -> tuple[Any, ...]:
    return (number, TType.STRUCT, name, [cls, None], None)


_ITEMS = (TType.STRUCT, [Item, None], False)
_COMPLEX = (
    None,
    _string(1, "action"),
    _string(2, "msg"),
    (3, TType.MAP, "itemMap", (TType.STRING, "UTF8", TType.STRUCT, [Item, None], False), None),
    (4, TType.LIST, "itemList", _ITEMS, None),
    (5, TType.SET, "groupSet", (TType.STRUCT, [Group, None], False), None),
    _struct(6, "flag", Group),
)
EchoRequest.thrift_spec = EchoResponse.thrift_spec = (None, _string(1, "action"), _string(2, "msg"))
Item.thrift_spec = (None, (1, TType.I64, "id", None, None), _string(2, "value"))
Group.thrift_spec = (*Item.thrift_spec, (3, TType.LIST, "items", _ITEMS, None))
ComplexRequest.thrift_spec = (*_COMPLEX, _string(7, "cost"))
ComplexResponse.thrift_spec = _COMPLEX
EchoArgs.thrift_spec = (None, _struct(1, "req", EchoRequest))
EchoResult.thrift_spec = (_struct(0, "success", EchoResponse),)
EchoComplexArgs.thrift_spec = (None, _struct(1, "req", ComplexRequest))
EchoComplexResult.thrift_spec = (_struct(0, "success", ComplexResponse),)
fix_spec(Struct.__subclasses__())

group_set = set


def types() -> Types:
    """Classes of the IDL."""
    return cast("Types", sys.modules[__name__])


def encode(value: Any) -> bytes:
    """``value`` in Thrift binary by the accelerator."""
    buffer = TTransport.TMemoryBuffer()
    value.write(TBinaryProtocolAccelerated(buffer, fallback=False))
    return cast("bytes", buffer.getvalue())


def decode(cls: Any, data: bytes) -> Any:
    """A new ``cls`` from Thrift binary by the accelerator."""
    value = cls()
    value.read(TBinaryProtocolAccelerated(TTransport.TMemoryBuffer(data), fallback=False))
    return value
