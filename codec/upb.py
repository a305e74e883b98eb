"""Message classes of protobuf's own runtime (upb), made from the descriptors that `weego gen` wrote down.

The classes are those any other program of protobuf would make: the default pool keeps one class for each message, so a
`x_pb2` of protoc's and ours of the same file share it, and `Any`, reflection and JSON find every type.

The types that the emitted `.pyi` files speak of (`Message`, `RepeatedMessage` …) are in `upb.pyi`; here they are protobuf's.
"""

from __future__ import annotations

import importlib
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, symbol_database
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.message import Message

__all__ = ["EnumMeta", "Message", "proto_enum", "proto_extension", "proto_file", "proto_message"]

EnumMeta = EnumTypeWrapper

# Files that protobuf itself brings, so that they are in the pool in its own spelling: their modules register them.
_BUNDLED_PREFIX: Final = "google/protobuf/"


def proto_file(serialized: bytes) -> Any:
    """The FileDescriptor of a serialized FileDescriptorProto, registered in the default pool.

    The files it imports must be registered before. ImportError when another file of that name, or another definition of one
    of its names, is there already.
    """
    file = descriptor_pb2.FileDescriptorProto.FromString(serialized)
    bundled = _bundled(file.name)
    if bundled is not None:
        return bundled
    try:
        return descriptor_pool.Default().AddSerializedFile(serialized)
    except TypeError as error:
        raise ImportError(
            f"{file.name}: {error}. One process can hold one version of a .proto file: another module has registered a "
            "different one; generate both from the same file, or under different names (-I decides the name)"
        ) from error


def _bundled(name: str) -> Any:
    """protobuf's own descriptor of a file it brings; None if it brings none of that name."""
    if not name.startswith(_BUNDLED_PREFIX):
        return None
    module = name.removesuffix(".proto").replace("/", ".").replace("-", "_") + "_pb2"
    try:
        return importlib.import_module(module).DESCRIPTOR
    except ModuleNotFoundError:
        return None


def proto_message(file: Any, name: str, module: str) -> Any:
    """The class of a top-level message of `file`, with its nested ones; `module` is where pickle finds it again."""
    cls = message_factory.GetMessageClass(file.message_types_by_name[name])
    if not file.name.startswith(_BUNDLED_PREFIX) and cls.__module__ != module:
        _adopt(cls, module)
    return cls


def _adopt(cls: Any, module: str) -> None:
    cls.__module__ = module
    symbol_database.Default().RegisterMessage(cls)  # where pickle looks
    for nested in cls.DESCRIPTOR.nested_types:
        if not nested.GetOptions().map_entry:
            inner = message_factory.GetMessageClass(nested)
            inner.__qualname__ = f"{cls.__qualname__}.{nested.name}"
            _adopt(inner, module)


def proto_enum(file: Any, name: str) -> Any:
    """The names and numbers of a top-level enum of `file`."""
    return EnumTypeWrapper(file.enum_types_by_name[name])


def proto_extension(file: Any, name: str) -> Any:
    """The descriptor of an extension declared at the top of `file`: the key of `message.Extensions`."""
    return file.extensions_by_name[name]
