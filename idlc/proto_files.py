"""Descriptors → what the emitters need: each file's place, each type's Python name, each comment.

A `.proto` file becomes a `model.Program` like a Thrift file does, so that packages, modules and method names follow the same
rules; its messages and enums stay descriptors, for the model's types are Thrift's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from google.protobuf.descriptor_pb2 import FileDescriptorProto

from idlc import ast, model
from idlc.errors import Position, Source
from idlc.names import is_python_word

__all__ = ["EnumType", "MessageType", "ProtoFile", "TypeTable", "python_name", "read_files"]

# Field numbers of descriptor.proto, as the paths of SourceCodeInfo name them.
_PACKAGE: Final = 2
_MESSAGE: Final = 4
_ENUM: Final = 5
_SERVICE: Final = 6
_EXTENSION: Final = 7
_SYNTAX: Final = 12
_EDITION: Final = 14
_FIELD: Final = 2
_NESTED: Final = 3
_NESTED_ENUM: Final = 4
_ENUM_VALUE: Final = 2
_METHOD: Final = 2
_ONEOF: Final = 8

# MethodOptions.IdempotencyLevel: NO_SIDE_EFFECTS and IDEMPOTENT.
_IDEMPOTENT: Final = (1, 2)

Path = tuple[int, ...]


def python_name(name: str) -> str:
    """The Python name of a message, enum or field: its own, or with an underscore behind a keyword."""
    return name + "_" if is_python_word(name) or name in ("annotations", "__init__") else name


@dataclass(slots=True, eq=False)
class EnumType:
    """An enum and where it is defined."""

    file: ProtoFile
    descriptor: Any
    scope: tuple[str, ...]
    """Python names of the messages around it."""
    path: Path

    @property
    def python(self) -> tuple[str, ...]:
        """Its Python name, from the module inwards."""
        return (*self.scope, python_name(self.descriptor.name))


@dataclass(slots=True, eq=False)
class MessageType:
    """A message and where it is defined, with the messages and enums inside it."""

    file: ProtoFile
    descriptor: Any
    scope: tuple[str, ...]
    path: Path
    full_name: str
    messages: list[MessageType] = field(default_factory=list)
    enums: list[EnumType] = field(default_factory=list)

    @property
    def python(self) -> tuple[str, ...]:
        """Its Python name, from the module inwards."""
        return (*self.scope, python_name(self.descriptor.name))

    @property
    def inner_names(self) -> list[str]:
        """Python names of the messages and enums inside."""
        return [each.python[-1] for each in self.messages] + [each.python[-1] for each in self.enums]

    @property
    def is_map_entry(self) -> bool:
        """Is it the pair that stands behind a map field?"""
        return bool(self.descriptor.options.map_entry)

    def walk(self) -> Iterator[MessageType]:
        """Itself and all that is inside."""
        yield self
        for inner in self.messages:
            yield from inner.walk()


TypeTable = dict[str, MessageType | EnumType]
"""`.package.Outer.Inner` → the type."""


@dataclass(slots=True, eq=False)
class ProtoFile:
    """One `.proto` file."""

    descriptor: FileDescriptorProto
    program: model.Program
    messages: list[MessageType] = field(default_factory=list)
    enums: list[EnumType] = field(default_factory=list)
    comments: dict[Path, str] = field(default_factory=dict)
    lines: dict[Path, int] = field(default_factory=dict)
    """Where things stand, as SourceCodeInfo counts: from 0."""

    @property
    def name(self) -> str:
        """The name other files import it by."""
        return str(self.descriptor.name)

    @property
    def package(self) -> str:
        """The Protobuf package, perhaps empty."""
        return str(self.descriptor.package)

    def doc(self, path: Path) -> str:
        """The comment at a path of SourceCodeInfo."""
        return self.comments.get(path, "")

    def position(self, path: Path) -> Position:
        """The line of what is at a path of SourceCodeInfo."""
        source = self.program.document.source
        return Position(source, _line_offset(source, self.lines.get(path, 0)))

    @property
    def file_doc(self) -> str:
        """The comment on the package or syntax line."""
        for path in ((_PACKAGE,), (_SYNTAX,), (_EDITION,)):
            if self.doc(path):
                return self.doc(path)
        return ""

    def top_types(self) -> list[MessageType | EnumType]:
        """The messages and enums that are inside no other."""
        return [*self.messages, *self.enums]

    def services(self) -> list[model.Service]:
        """The services, in the order of the file."""
        return [each for each in self.program.definitions if isinstance(each, model.Service)]

    def method(self, service: model.Service, function: model.Function) -> Any:
        """The MethodDescriptorProto of a function."""
        owner = next(each for each in self.descriptor.service if each.name == service.name)
        return next(each for each in owner.method if each.name == function.name)

    def serialized(self) -> bytes:
        """The descriptor as protoc's own Python generator embeds it, so that both may be loaded in one process.

        Without comments, and without the JSON names that follow from the field names.
        """
        bare = FileDescriptorProto()
        bare.CopyFrom(self.descriptor)
        bare.ClearField("source_code_info")
        for each in bare.extension:
            _drop_json_name(each)
        for message in bare.message_type:
            _drop_json_names(message)
        data: bytes = bare.SerializeToString(deterministic=True)
        return data


def is_idempotent(method: Any) -> bool:
    """Does the IDL say that calling twice does no more than calling once?"""
    return method.options.idempotency_level in _IDEMPOTENT


def read_files(descriptors: Sequence[FileDescriptorProto], sources: dict[str, str]) -> tuple[list[ProtoFile], TypeTable]:
    """The files of a descriptor set, imported ones before those that import them, and all their types by full name.

    `sources` maps the name of a file to its path on disk, where there is one.
    """
    by_name: dict[str, ProtoFile] = {}
    types: TypeTable = {}
    for descriptor in descriptors:
        file = _file(descriptor, sources.get(descriptor.name))
        file.program.includes += [by_name[name].program for name in descriptor.dependency if name in by_name]
        by_name[descriptor.name] = file
        prefix = f".{descriptor.package}" if descriptor.package else ""
        for index, message in enumerate(descriptor.message_type):
            file.messages.append(_message(file, message, (), prefix, (_MESSAGE, index), types))
        for index, enum in enumerate(descriptor.enum_type):
            file.enums.append(_enum(file, enum, (), prefix, (_ENUM, index), types))
    return list(by_name.values()), types


def _file(descriptor: FileDescriptorProto, path: str | None) -> ProtoFile:
    data = b""
    if path is not None:
        try:
            with open(path, "rb") as file:
                data = file.read()
        except OSError:
            path = None
    if path is None:
        data = descriptor.SerializeToString(deterministic=True)
    source = Source(path or descriptor.name, data.decode("utf-8", "replace") if path is not None else "")
    stem = descriptor.name.rpartition("/")[2].removesuffix(".proto")
    program = model.Program(
        path or descriptor.name, stem, hashlib.sha256(data).hexdigest(), ast.Document(source, "", (), (), ())
    )
    if descriptor.package:
        program.namespaces["py"] = descriptor.package
    made = ProtoFile(descriptor, program)
    for location in descriptor.source_code_info.location:
        key = tuple(location.path)
        made.lines.setdefault(key, location.span[0])
        text = location.leading_comments or location.trailing_comments
        if text.strip() and key not in made.comments:
            made.comments[key] = _comment(text)
    for index, service in enumerate(descriptor.service):
        made.program.definitions.append(_service(made, service, (_SERVICE, index)))
    program.document = ast.Document(source, made.file_doc, (), (), ())
    return made


def _service(file: ProtoFile, service: Any, path: Path) -> model.Service:
    functions = []
    for index, method in enumerate(service.method):
        where = (*path, _METHOD, index)
        mode: model.StreamingMode = "unary"
        if method.client_streaming:
            mode = "bidirectional" if method.server_streaming else "client"
        elif method.server_streaming:
            mode = "server"
        functions.append(model.Function(method.name, False, None, (), (), mode, file.position(where), file.doc(where)))
    return model.Service(file.program, service.name, None, tuple(functions), file.position(path), file.doc(path))


def _line_offset(source: Source, line: int) -> int:
    """Where a line, counted from 0, has its first word."""
    start = 0
    for _ in range(line):
        start = source.text.find("\n", start) + 1
    while start < len(source.text) and source.text[start] in " \t":
        start += 1
    return start


def _message(
    file: ProtoFile, descriptor: Any, scope: tuple[str, ...], prefix: str, path: Path, types: TypeTable
) -> MessageType:
    full_name = f"{prefix}.{descriptor.name}"
    made = MessageType(file, descriptor, scope, path, full_name[1:])
    types[full_name] = made
    for index, inner in enumerate(descriptor.nested_type):
        made.messages.append(_message(file, inner, made.python, full_name, (*path, _NESTED, index), types))
    for index, enum in enumerate(descriptor.enum_type):
        made.enums.append(_enum(file, enum, made.python, full_name, (*path, _NESTED_ENUM, index), types))
    return made


def _enum(
    file: ProtoFile, descriptor: Any, scope: tuple[str, ...], prefix: str, path: Path, types: TypeTable
) -> EnumType:
    made = EnumType(file, descriptor, scope, path)
    types[f"{prefix}.{descriptor.name}"] = made
    return made


def _comment(text: str) -> str:
    """A comment without the blank that follows `//` on each line."""
    lines = text.rstrip().split("\n")
    if all(line.startswith(" ") or not line.strip() for line in lines):
        lines = [line[1:] for line in lines]
    return "\n".join(line.rstrip() for line in lines).strip("\n")


def field_doc(message: MessageType, index: int) -> str:
    """The comment of a field."""
    return message.file.doc((*message.path, _FIELD, index))


def value_position(enum: EnumType, index: int) -> Position:
    """The line of an enum value."""
    return enum.file.position((*enum.path, _ENUM_VALUE, index))


def value_doc(enum: EnumType, index: int) -> str:
    """The comment of an enum value."""
    return enum.file.doc((*enum.path, _ENUM_VALUE, index))


def oneof_doc(message: MessageType, index: int) -> str:
    """The comment of a oneof."""
    return message.file.doc((*message.path, _ONEOF, index))


def _drop_json_names(message: Any) -> None:
    for each in (*message.field, *message.extension):
        _drop_json_name(each)
    for inner in message.nested_type:
        _drop_json_names(inner)


def _drop_json_name(each: Any) -> None:
    if each.json_name == json_name(each.name):
        each.ClearField("json_name")


def json_name(name: str) -> str:
    """The JSON name a field gets by itself: `foo_bar` → `fooBar` (protobuf's `ToJsonName`)."""
    result = []
    capitalise = False
    for char in name:
        if char == "_":
            capitalise = True
        else:
            result.append(char.upper() if capitalise and char.isascii() else char)
            capitalise = False
    return "".join(result)
