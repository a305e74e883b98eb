"""Three peers that read bytes of ours and write what they understood: thriftpy2, Apache's generated code, Apache's protocol class.

Each gives for an IDL file a `Peer`: a function from the name of a struct and its bytes to the bytes the peer makes of it.
What a peer drops or reads as something else is missing in its bytes, so a round trip shows it.
"""

from __future__ import annotations

import importlib
import itertools
import subprocess
import sys
import types
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from codec.spec import Field
from codec.types import EnumType, List, Map, Primitive, Set, StructType, Type
from tests.support import need

Peer = Callable[[str, bytes], bytes]

_numbers = itertools.count()


class Unable(Exception):
    """The peer cannot read the file, or not import what it makes of it."""


# ---- thriftpy2 -------------------------------------------------------------------------------------------------------


def thriftpy2(path: Path) -> Peer:
    """thriftpy2's own parser and its pure Python protocol. Structs by their names, arguments as `Service.method_args`."""
    library = need.module("thriftpy2")
    from thriftpy2.parser import parser as thrift_parser
    from thriftpy2.utils import deserialize, serialize

    thrift_parser._thrift_cache.clear()  # it knows included files by their base names, and would take another folder's for this one's
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            module = library.load(str(path), module_name=f"corpus{next(_numbers)}_thrift", include_dirs=[str(path.parent)])
        except Exception as error:  # what a parser of theirs raises is anybody's guess
            raise Unable(str(error)) from error

    def trip(name: str, data: bytes) -> bytes:
        owner, _, member = name.rpartition(".")
        cls = getattr(getattr(module, owner), member) if owner else getattr(module, name)
        return bytes(serialize(deserialize(cls.__new__(cls), data)))

    return trip


# ---- Apache's generated code -----------------------------------------------------------------------------------------


def apache(path: Path, folder: Path) -> Peer:
    """What Apache's compiler makes of the file, run by Apache's library. Names as for thriftpy2."""
    compiler = need.program("thrift", "apt-get install thrift-compiler")
    need.module("thrift")
    folder.mkdir()
    # Beside the options for Python 3 nothing: the classes that everybody gets.
    command = [compiler, "-r", "--gen", "py", "-out", str(folder), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unable(done.stdout + done.stderr)
    namespace, services = _namespace(path)
    with _only_for_now(folder):
        try:
            module = importlib.import_module(f"{namespace}.ttypes")
            owners = {name: importlib.import_module(f"{namespace}.{name}") for name in services}
        except Exception as error:  # generated code of theirs that does not import
            raise Unable(str(error)) from error

    def trip(name: str, data: bytes) -> bytes:
        from thrift.protocol.TBinaryProtocol import TBinaryProtocol
        from thrift.transport.TTransport import TMemoryBuffer

        owner, _, member = name.rpartition(".")
        cls = getattr(owners[owner], member) if owner else getattr(module, name)
        source, target = TBinaryProtocol(TMemoryBuffer(data)), TMemoryBuffer()
        if isinstance(cls.__dict__.get("read"), classmethod):  # exceptions: they cannot change once made
            value = cls.read(source)
        else:
            value = cls()
            value.read(source)
        value.write(TBinaryProtocol(target))
        return bytes(target.getvalue())

    return trip


def _namespace(path: Path) -> tuple[str, list[str]]:
    from idlc import model
    from idlc.errors import Report
    from idlc.resolver import resolve

    program = resolve([str(path)], [], Report())[-1]
    services = [each.name for each in program.definitions if isinstance(each, model.Service)]
    return program.namespaces.get("py", program.stem), services


@contextmanager
def _only_for_now(folder: Path) -> Iterator[None]:
    """Modules imported from the folder; afterwards no trace of them by name, for the next file has the same names."""
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            if isinstance(sys.modules[name], types.ModuleType) and str(folder) in str(getattr(sys.modules[name], "__file__", "")):
                del sys.modules[name]


# ---- Apache's protocol class, led by our tables ----------------------------------------------------------------------


def apache_protocol(structs: dict[str, tuple[Field, ...]]) -> Peer:
    """Every byte is read and written by Apache's TBinaryProtocol; which fields there are is what our tables say.

    For what neither of the others can hold: uuids, sets of lists, names that their parsers do not take.
    """
    need.module("thrift")
    from thrift.protocol.TBinaryProtocol import TBinaryProtocol
    from thrift.transport.TTransport import TMemoryBuffer

    def trip(name: str, data: bytes) -> bytes:
        source = TMemoryBuffer(data)
        value = _read_fields(TBinaryProtocol(source), structs[name])
        assert source.read(1) == b"", "bytes are left over"
        target = TMemoryBuffer()
        _write_fields(TBinaryProtocol(target), structs[name], value)
        return bytes(target.getvalue())

    return trip


_CODES = {"bool": 2, "byte": 3, "double": 4, "i16": 6, "i32": 8, "i64": 10, "string": 11, "binary": 11, "uuid": 16}
_METHODS = {"bool": "Bool", "byte": "Byte", "double": "Double", "i16": "I16", "i32": "I32", "i64": "I64", "string": "String", "binary": "Binary", "uuid": "Uuid"}


def _code(type: Type) -> int:
    match type:
        case Primitive():
            return _CODES[type.name]
        case EnumType():
            return 8
        case StructType():
            return 12
        case Map():
            return 13
        case Set():
            return 14
        case List():
            return 15


def _read_fields(protocol: Any, fields: tuple[Field, ...]) -> dict[int, Any]:
    by_id = {field.id: field for field in fields}
    found = {}
    protocol.readStructBegin()
    while True:
        _, code, number = protocol.readFieldBegin()
        if code == 0:
            break
        assert code == _code(by_id[number].type), f"field {number} has type {code}"
        found[number] = _read(protocol, by_id[number].type)
        protocol.readFieldEnd()
    protocol.readStructEnd()
    return found


def _read(protocol: Any, type: Type) -> Any:
    match type:
        case Primitive():
            return getattr(protocol, f"read{_METHODS[type.name]}")()
        case EnumType():
            return protocol.readI32()
        case StructType():
            return _read_fields(protocol, type.cls.__plan__.fields)
        case List(elem) | Set(elem):
            code, size = protocol.readListBegin() if isinstance(type, List) else protocol.readSetBegin()
            assert code == _code(elem)
            return [_read(protocol, elem) for _ in range(size)]
        case Map():
            key, item, size = protocol.readMapBegin()
            assert size == 0 or (key, item) == (_code(type.key), _code(type.value))
            return [(_read(protocol, type.key), _read(protocol, type.value)) for _ in range(size)]


def _write_fields(protocol: Any, fields: tuple[Field, ...], given: dict[int, Any]) -> None:
    protocol.writeStructBegin("")
    for field in fields:
        if field.id in given:
            protocol.writeFieldBegin("", _code(field.type), field.id)
            _write(protocol, field.type, given[field.id])
            protocol.writeFieldEnd()
    protocol.writeFieldStop()
    protocol.writeStructEnd()


def _write(protocol: Any, type: Type, given: Any) -> None:
    match type:
        case Primitive():
            assert type.name != "uuid" or isinstance(given, uuid.UUID)
            getattr(protocol, f"write{_METHODS[type.name]}")(given)
        case EnumType():
            protocol.writeI32(given)
        case StructType():
            _write_fields(protocol, type.cls.__plan__.fields, given)
        case List(elem) | Set(elem):
            begin = protocol.writeListBegin if isinstance(type, List) else protocol.writeSetBegin
            begin(_code(elem), len(given))
            for each in given:
                _write(protocol, elem, each)
        case Map():
            protocol.writeMapBegin(_code(type.key), _code(type.value), len(given))
            for key, each in given:
                _write(protocol, type.key, key)
                _write(protocol, type.value, each)
