"""The messages of thriftgo's plugin protocol ⇄ bytes: bare structs in Thrift's binary protocol.

A struct is a dict by field names; the table below says which fields each has. Values that are None are left out, unknown fields are skipped, so
that plugins of other versions are understood.
"""

from __future__ import annotations

import struct
from typing import Any, Final, TypeAlias

__all__ = ["WireError", "decode", "encode"]

_Type: TypeAlias = "str | tuple[str, str] | tuple[str, str, str]"

# Struct → field id → name and type. The numbers are those of thriftgo's parser/AST.thrift and plugin/protocol.thrift.
STRUCTS: Final[dict[str, dict[int, tuple[str, _Type]]]] = {
    "Request": {
        1: ("Version", "string"), 2: ("GeneratorParameters", ("list", "string")), 3: ("PluginParameters", ("list", "string")),
        4: ("Language", "string"), 5: ("OutputPath", "string"), 6: ("Recursive", "bool"), 7: ("AST", "Thrift"),
    },
    "Generated": {1: ("Content", "string"), 2: ("Name", "string"), 3: ("InsertionPoint", "string")},
    "Response": {1: ("Error", "string"), 2: ("Contents", ("list", "Generated")), 3: ("Warnings", ("list", "string"))},
    "Reference": {1: ("Name", "string"), 2: ("Index", "i32")},
    "Annotation": {1: ("Key", "string"), 2: ("Values", ("list", "string"))},
    "Type": {
        1: ("Name", "string"), 2: ("KeyType", "Type"), 3: ("ValueType", "Type"), 4: ("CppType", "string"),
        5: ("Annotations", ("list", "Annotation")), 6: ("Category", "i32"), 7: ("Reference", "Reference"), 8: ("IsTypedef", "bool"),
    },
    "Namespace": {1: ("Language", "string"), 2: ("Name", "string"), 3: ("Annotations", ("list", "Annotation"))},
    "Typedef": {1: ("Type", "Type"), 2: ("Alias", "string"), 3: ("Annotations", ("list", "Annotation")), 4: ("ReservedComments", "string")},
    "EnumValue": {1: ("Name", "string"), 2: ("Value", "i64"), 3: ("Annotations", ("list", "Annotation")), 4: ("ReservedComments", "string")},
    "Enum": {
        1: ("Name", "string"), 2: ("Values", ("list", "EnumValue")), 3: ("Annotations", ("list", "Annotation")), 4: ("ReservedComments", "string"),
    },
    "ConstValueExtra": {1: ("IsEnum", "bool"), 2: ("Index", "i32"), 3: ("Name", "string"), 4: ("Sel", "string")},
    "ConstValue": {1: ("Type", "i32"), 2: ("TypedValue", "ConstTypedValue"), 3: ("Extra", "ConstValueExtra")},
    "ConstTypedValue": {
        1: ("Double", "double"), 2: ("Int", "i64"), 3: ("Literal", "string"), 4: ("Identifier", "string"), 5: ("List", ("list", "ConstValue")),
        6: ("Map", ("list", "MapConstValue")),
    },
    "MapConstValue": {1: ("Key", "ConstValue"), 2: ("Value", "ConstValue")},
    "Constant": {
        1: ("Name", "string"), 2: ("Type", "Type"), 3: ("Value", "ConstValue"), 4: ("Annotations", ("list", "Annotation")),
        5: ("ReservedComments", "string"),
    },
    "Field": {
        1: ("ID", "i32"), 2: ("Name", "string"), 3: ("Requiredness", "i32"), 4: ("Type", "Type"), 5: ("Default", "ConstValue"),
        6: ("Annotations", ("list", "Annotation")), 7: ("ReservedComments", "string"),
    },
    "StructLike": {
        1: ("Category", "string"), 2: ("Name", "string"), 3: ("Fields", ("list", "Field")), 4: ("Annotations", ("list", "Annotation")),
        5: ("ReservedComments", "string"),
    },
    "Function": {
        1: ("Name", "string"), 2: ("Oneway", "bool"), 3: ("Void", "bool"), 4: ("FunctionType", "Type"), 5: ("Arguments", ("list", "Field")),
        6: ("Throws", ("list", "Field")), 7: ("Annotations", ("list", "Annotation")), 8: ("ReservedComments", "string"),
    },
    "Service": {
        1: ("Name", "string"), 2: ("Extends", "string"), 3: ("Functions", ("list", "Function")), 4: ("Annotations", ("list", "Annotation")),
        5: ("Reference", "Reference"), 6: ("ReservedComments", "string"),
    },
    "Include": {1: ("Path", "string"), 2: ("Reference", "Thrift"), 3: ("Used", "bool")},
    "Thrift": {
        1: ("Filename", "string"), 2: ("Includes", ("list", "Include")), 3: ("CppIncludes", ("list", "string")),
        4: ("Namespaces", ("list", "Namespace")), 5: ("Typedefs", ("list", "Typedef")), 6: ("Constants", ("list", "Constant")),
        7: ("Enums", ("list", "Enum")), 8: ("Structs", ("list", "StructLike")), 9: ("Unions", ("list", "StructLike")),
        10: ("Exceptions", ("list", "StructLike")), 11: ("Services", ("list", "Service")), 12: ("Name2Category", ("map", "string", "i32")),
    },
}  # fmt: skip

_CODES: Final = {"bool": 2, "double": 4, "i32": 8, "i64": 10, "string": 11, "map": 13, "list": 15}
_FIXED: Final = {2: 1, 3: 1, 4: 8, 6: 2, 8: 4, 10: 8, 16: 16}
_STRUCT: Final = 12
# Deeper than any IDL that the parser lets through.
_MAX_DEPTH: Final = 512


class WireError(ValueError):
    """The bytes are no message of the protocol."""


def _code(type_: _Type) -> int:
    return _CODES.get(type_ if isinstance(type_, str) else type_[0], _STRUCT)


# ---- writing ---------------------------------------------------------------------------------------------------------


def encode(name: str, value: dict[str, Any]) -> bytes:
    """The bytes of a struct of the table."""
    out = bytearray()
    _write(out, name, value)
    return bytes(out)


def _write(out: bytearray, type_: _Type, value: Any) -> None:
    match type_:
        case "bool":
            out.append(bool(value))
        case "i32":
            out += struct.pack(">i", value)
        case "i64":
            out += struct.pack(">q", value)
        case "double":
            out += struct.pack(">d", value)
        case "string":
            data = value.encode("utf-8", "surrogateescape")
            out += struct.pack(">i", len(data)) + data
        case ("list", elem):
            out += struct.pack(">Bi", _code(elem), len(value))
            for each in value:
                _write(out, elem, each)
        case ("map", key, item):
            out += struct.pack(">BBi", _code(key), _code(item), len(value))
            for each, of in value.items():
                _write(out, key, each)
                _write(out, item, of)
        case str():
            for number, (name, field) in STRUCTS[type_].items():
                if value.get(name) is not None:
                    out += struct.pack(">Bh", _code(field), number)
                    _write(out, field, value[name])
            out.append(0)


# ---- reading ---------------------------------------------------------------------------------------------------------


def decode(name: str, data: bytes) -> dict[str, Any]:
    """A struct of the table from bytes; what stands behind it (thriftgo's trailer) is not looked at. WireError when it is none."""
    try:
        found: dict[str, Any] = _Reader(data).read(name, 0)
    except (struct.error, IndexError) as error:
        raise WireError(f"the message ends too early: {error}") from None
    return found


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def _unpack(self, form: str) -> Any:
        (value,) = struct.unpack_from(form, self._data, self._at)
        self._at += struct.calcsize(form)
        return value

    def _count(self) -> int:
        count: int = self._unpack(">i")
        if not 0 <= count <= len(self._data):
            raise WireError(f"{count} items in a message of {len(self._data)} bytes")
        return count

    def read(self, type_: _Type, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            raise WireError("nested too deeply")
        match type_:
            case "bool":
                return self._unpack(">b") != 0
            case "i32":
                return self._unpack(">i")
            case "i64":
                return self._unpack(">q")
            case "double":
                return self._unpack(">d")
            case "string":
                size = self._count()
                data = self._data[self._at : self._at + size]
                if len(data) < size:
                    raise WireError("the message ends inside a text")
                self._at += size
                return data.decode("utf-8", "replace")
            case ("list", elem):
                self._expect(self._unpack(">B"), elem)
                return [self.read(elem, depth + 1) for _ in range(self._count())]
            case ("map", key, item):
                self._unpack(">B")
                self._unpack(">B")
                return {self.read(key, depth + 1): self.read(item, depth + 1) for _ in range(self._count())}
            case _:
                return self._struct(str(type_), depth)

    def _expect(self, code: int, type_: _Type) -> None:
        if code != _code(type_):
            raise WireError(f"type {code} where {_code(type_)} was expected")

    def _struct(self, name: str, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while (code := self._unpack(">B")) != 0:
            number = self._unpack(">h")
            known = STRUCTS[name].get(number)
            if known is None or _code(known[1]) != code:
                self._skip(code, depth + 1)
            else:
                found[known[0]] = self.read(known[1], depth + 1)
        return found

    def _skip(self, code: int, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise WireError("nested too deeply")
        if code in _FIXED:
            self._at += _FIXED[code]
        elif code == _CODES["string"]:
            size = self._count()  # which moves on by itself
            self._at += size
        elif code == _STRUCT:
            while (inner := self._unpack(">B")) != 0:
                self._unpack(">h")
                self._skip(inner, depth + 1)
        elif code == _CODES["map"]:
            key, item = self._unpack(">B"), self._unpack(">B")
            for _ in range(self._count()):
                self._skip(key, depth + 1)
                self._skip(item, depth + 1)
        elif code in (14, 15):
            elem = self._unpack(">B")
            for _ in range(self._count()):
                self._skip(elem, depth + 1)
        else:
            raise WireError(f"unknown type {code}")
