"""Messages for protobuf's own runtime: `x_pb2.py`, which makes the classes, and `x_pb2.pyi`, which types them.

Unlike protoc's, the modules import each other relatively, and the types say what a field takes: scalars are never None, message fields
are read-only, the names that HasField and WhichOneof take are literals.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field

from idlc import model
from idlc.bindings import Bindings
from idlc.emit_python import STUB_FORMAT, header, import_lines
from idlc.layout import INDENT, WIDTH, Group, Node, docstring, lay_out, quoted, quoted_bytes
from idlc.names import is_python_word
from idlc.packages import Place
from idlc.proto_features import has_presence
from idlc.proto_files import EnumType, MessageType, ProtoFile, TypeTable, field_doc, python_name, value_doc

__all__ = ["emit_messages", "emit_types", "import_sections", "module_name"]

_INTEGERS: Final = {
    Field.TYPE_INT32, Field.TYPE_INT64, Field.TYPE_UINT32, Field.TYPE_UINT64, Field.TYPE_SINT32, Field.TYPE_SINT64,
    Field.TYPE_FIXED32, Field.TYPE_FIXED64, Field.TYPE_SFIXED32, Field.TYPE_SFIXED64,
}  # fmt: skip
_SCALARS: Final = {
    **dict.fromkeys(_INTEGERS, "int"),
    Field.TYPE_DOUBLE: "float",
    Field.TYPE_FLOAT: "float",
    Field.TYPE_BOOL: "bool",
    Field.TYPE_STRING: "str",
    Field.TYPE_BYTES: "bytes",
}

# Bytes of a descriptor on one line of source.
_CHUNK: Final = 60


def module_name(place: Place) -> str:
    """The module of a file's messages: the name protoc's users know."""
    return f"{place.module}_pb2"


def emit_messages(file: ProtoFile, places: dict[model.Program, Place], version: str) -> str:
    """The text of `x_pb2.py`."""
    place = places[file.program]
    lines = [header(version, [file.program])]
    lines += docstring(f"Messages of {file.name}, made by protobuf's own runtime.")
    lines += ["", "from __future__ import annotations", "", "from weego import stub"]
    needed = [places[each] for each in file.program.includes]
    if needed:
        lines += ["", "# Imported files are registered first."]
        for other in sorted(needed, key=str):
            lines.append(f"from {_package_from(other, place)} import {module_name(other)}  # noqa: F401")
    lines += ["", f"stub.require({STUB_FORMAT}, __name__)", "", "DESCRIPTOR = stub.proto_file("]
    data = file.serialized()
    lines += [f"    {quoted_bytes(data[start : start + _CHUNK])}" for start in range(0, len(data), _CHUNK)] or ['    b""']
    lines += [")"]
    names: list[str] = []
    if file.messages:
        lines.append("")
    for message in file.messages:
        name = message.python[-1]
        lines.append(f'{name} = stub.proto_message(DESCRIPTOR, {quoted(message.descriptor.name)}, __name__)')
        names.append(name)
    for enum in file.enums:
        name = enum.python[-1]
        lines += ["", f'{name} = stub.proto_enum(DESCRIPTOR, {quoted(enum.descriptor.name)})']
        names.append(name)
        for value in enum.descriptor.value:
            lines.append(f"{python_name(value.name)} = {value.number}")
            names.append(python_name(value.name))
    if file.descriptor.extension:
        lines.append("")
    for extension in file.descriptor.extension:
        name = python_name(extension.name)
        lines.append(f'{name} = stub.proto_extension(DESCRIPTOR, {quoted(extension.name)})')
        names.append(name)
    return "\n".join(lines) + "\n"


def import_sections(imports: Iterable[tuple[str, list[tuple[str, str]]]]) -> list[str]:
    """Import lines, an empty one before each section: standard library, weego, relative."""
    lines: list[str] = []
    section = None
    for module, pairs in imports:
        kind = "." if module.startswith(".") else module if module == "weego" else "std"
        lines += [""] if section != kind else []
        section = kind
        lines += import_lines(module, pairs)
    return lines


def _package_from(other: Place, place: Place) -> str:
    """The relative package of another file's module."""
    seen = other.seen_from(place)
    package = seen[: len(seen) - len(other.module)]
    return package if set(package) == {"."} else package.removesuffix(".")


def emit_types(file: ProtoFile, types: TypeTable, places: dict[model.Program, Place], version: str) -> str:
    """The text of `x_pb2.pyi`."""
    return _Types(file, types, places).text(version)


@dataclass(slots=True)
class _Attribute:
    """A field as Python sees it."""

    field: Any
    type: str
    given: str
    """What the constructor takes."""
    is_writable: bool
    doc: str


class _Types:
    def __init__(self, file: ProtoFile, types: TypeTable, places: dict[model.Program, Place]) -> None:
        self._file = file
        self._types = types
        self._places = places
        self._place = places[file.program]
        self._bindings = Bindings()
        self._bindings.define([*self._top_names(), "DESCRIPTOR"])

    def _top_names(self) -> list[str]:
        names = [each.python[-1] for each in self._file.top_types()]
        names += [python_name(value.name) for enum in self._file.enums for value in enum.descriptor.value]
        return names + [python_name(each.name) for each in self._file.descriptor.extension]

    def text(self, version: str) -> str:
        body: list[str] = [f"DESCRIPTOR: {self._bindings.imported('typing', 'Any')}"]
        for enum in self._file.enums:
            body += ["", *self._enum(enum, ""), ""]
            body += [f"{python_name(value.name)}: {self._own(enum, ())}" for value in enum.descriptor.value]
        for message in self._file.messages:
            body += ["", *self._message(message, "")]
        if self._file.descriptor.extension:
            body.append("")
        body += [f"{python_name(each.name)}: {self._extension(each, ())}" for each in self._file.descriptor.extension]
        for name in (each.python[0] for each in self._file.top_types()):
            hint = self._bindings.imported("typing", "TypeAlias") if self._bindings.aliases(name) else ""
            body += [f"{other}: {hint} = {name}" for other in self._bindings.aliases(name)]
        lines = [header(version, [self._file.program]), *import_sections(self._bindings.imports())]
        return "\n".join([*lines, "", *body]) + "\n"

    # Names

    def _stub(self, name: str, hidden: Collection[str]) -> str:
        return f"{self._bindings.imported('weego', 'stub', hidden)}.{name}"

    def _own(self, type_: MessageType | EnumType, hidden: Collection[str]) -> str:
        return self._named(type_, hidden)

    def _named(self, type_: MessageType | EnumType, hidden: Collection[str]) -> str:
        top, *inner = type_.python
        if type_.file is self._file:
            return ".".join([self._bindings.own(top, hidden), *inner])
        place = self._places[type_.file.program]
        module = f"{_package_from(place, self._place)}"
        module = module + module_name(place) if set(module) == {"."} else f"{module}.{module_name(place)}"
        return ".".join([self._bindings.imported(module, top, hidden), *inner])

    def _value_type(self, each: Any, hidden: Collection[str]) -> str:
        """The type of one value of a field."""
        if each.type in _SCALARS:
            return self._bindings.builtin(_SCALARS[each.type], hidden)
        return self._named(self._types[each.type_name], hidden)

    # Enums

    def _enum(self, enum: EnumType, indent: str) -> list[str]:
        inner = indent + INDENT
        hidden = {value.name for value in enum.descriptor.value}
        base = self._bindings.builtin("int")
        lines = [f"{indent}class {enum.python[-1]}({base}, metaclass={self._stub('EnumMeta', ())}):"]
        lines += docstring(enum.file.doc(enum.path), inner)
        hint = self._bindings.imported("typing", "ClassVar", hidden)
        for index, value in enumerate(enum.descriptor.value):
            if not _is_unwritable(value.name):
                lines.append(f"{inner}{value.name}: {hint}[{self._named(enum, hidden)}]")
                lines += docstring(value_doc(enum, index), inner)
        return lines if len(lines) > 1 else [*lines, f"{inner}..."]

    # Messages

    def _message(self, message: MessageType, indent: str) -> list[str]:
        inner = indent + INDENT
        base = self._stub("Message", ())
        lines = [f"{indent}class {message.python[-1]}({base}):"]
        lines += docstring(message.file.doc(message.path), inner)
        hidden = self._names_inside(message)
        for enum in message.enums:
            lines += ["", *self._enum(enum, inner), ""]
            lines += [
                f"{inner}{value.name}: {self._bindings.imported('typing', 'ClassVar', hidden)}[{self._named(enum, hidden)}]"
                for value in enum.descriptor.value
                if not _is_unwritable(value.name)
            ]
        for each in message.messages:
            if not each.is_map_entry:
                lines += ["", *self._message(each, inner)]
        attributes = [self._attribute(message, index, each, hidden) for index, each in enumerate(message.descriptor.field)]
        for attribute in attributes:
            lines += self._declare(attribute, inner, hidden)
        for each in message.descriptor.extension:
            if not _is_unwritable(each.name):
                hint = self._bindings.imported("typing", "ClassVar", hidden)
                lines.append(f"{inner}{each.name}: {hint}[{self._extension(each, hidden)}]")
        lines += self._constructor(attributes, inner, hidden)
        lines += self._presence(message, inner, hidden)
        return lines

    def _names_inside(self, message: MessageType) -> set[str]:
        names = {each.name for each in message.descriptor.field} | {each.name for each in message.descriptor.extension}
        names |= {each.python[-1] for each in message.messages} | {each.python[-1] for each in message.enums}
        return names | {value.name for enum in message.enums for value in enum.descriptor.value}

    def _attribute(self, message: MessageType, index: int, each: Any, hidden: Collection[str]) -> _Attribute:
        doc = field_doc(message, index)
        entry = self._types.get(each.type_name)
        if each.label != Field.LABEL_REPEATED:
            plain = self._value_type(each, hidden)
            is_message = each.type in (Field.TYPE_MESSAGE, Field.TYPE_GROUP)
            given = f"{plain} | None"
            if each.type == Field.TYPE_ENUM:
                given = f"{plain} | {self._bindings.builtin('str', hidden)} | None"
            if is_message:
                given = f"{plain} | {self._fields(hidden)} | None"
            return _Attribute(each, plain, given, not is_message, doc)
        if isinstance(entry, MessageType) and entry.is_map_entry:
            key, value = entry.descriptor.field
            kind = "MessageMap" if value.type == Field.TYPE_MESSAGE else "ScalarMap"
            pair = f"{self._value_type(key, hidden)}, {self._value_type(value, hidden)}"
            mapping = self._bindings.imported("collections.abc", "Mapping", hidden)
            return _Attribute(each, f"{self._stub(kind, hidden)}[{pair}]", f"{mapping}[{pair}] | None", False, doc)
        is_message = each.type in (Field.TYPE_MESSAGE, Field.TYPE_GROUP)
        kind = "RepeatedMessage" if is_message else "RepeatedScalar"
        plain = self._value_type(each, hidden)
        iterable = self._bindings.imported("collections.abc", "Iterable", hidden)
        taken = f"{plain} | {self._fields(hidden)}" if is_message else plain
        return _Attribute(each, f"{self._stub(kind, hidden)}[{plain}]", f"{iterable}[{taken}] | None", False, doc)

    def _any(self, hidden: Collection[str]) -> str:
        return self._bindings.imported("typing", "Any", hidden)

    def _fields(self, hidden: Collection[str]) -> str:
        """What stands for a message in a constructor: its fields by name."""
        mapping = self._bindings.imported("collections.abc", "Mapping", hidden)
        return f"{mapping}[{self._bindings.builtin('str', hidden)}, {self._any(hidden)}]"

    def _declare(self, attribute: _Attribute, indent: str, hidden: Collection[str]) -> list[str]:
        name = attribute.field.name
        if _is_unwritable(name):
            return []  # only getattr reaches it
        if attribute.is_writable:
            return [f"{indent}{name}: {attribute.type}", *docstring(attribute.doc, indent)]
        decorator = self._bindings.builtin("property", hidden)
        lines = [f"{indent}@{decorator}", f"{indent}def {name}(self) -> {attribute.type}:"]
        if not attribute.doc:
            return [lines[0], lines[1] + " ..."]
        return lines + docstring(attribute.doc, indent + INDENT)

    def _constructor(self, attributes: list[_Attribute], indent: str, hidden: Collection[str]) -> list[str]:
        parameters: list[Node] = [f"{a.field.name}: {a.given} = ..." for a in attributes if not _is_unwritable(a.field.name)]
        self_name = "self"
        while self_name in hidden:
            self_name += "_"
        words = any(_is_unwritable(a.field.name) for a in attributes)
        rest: list[Node] = [f"**fields: {self._any(hidden)}"] if words else []
        items = (self_name, *(["*"] if parameters else []), *parameters, *rest)
        return lay_out(Group("def __init__(", items, ") -> None: ..."), indent)

    def _presence(self, message: MessageType, indent: str, hidden: Collection[str]) -> list[str]:
        fields = list(message.descriptor.field)
        synthetic = {each.oneof_index for each in fields if each.proto3_optional}
        oneofs = {
            index: [each.name for each in fields if each.HasField("oneof_index") and each.oneof_index == index]
            for index in range(len(message.descriptor.oneof_decl))
            if index not in synthetic
        }
        names = [message.descriptor.oneof_decl[index].name for index in oneofs]
        has = [each.name for each in fields if has_presence(message, each)] + names
        literal = self._bindings.imported("typing", "Literal", hidden) if fields else ""
        boolean = self._bindings.builtin("bool", hidden)
        lines: list[str] = []
        if has:
            lines += _method("HasField", "field_name", f"{literal}[{_strings(has)}]", boolean, indent)
        clear = [each.name for each in fields] + names
        if clear:
            lines += _method("ClearField", "field_name", f"{literal}[{_strings(clear)}]", "None", indent)
        choices = [
            ("oneof_group", f"{literal}[{quoted(message.descriptor.oneof_decl[index].name)}]", f"{literal}[{_strings(members)}] | None")
            for index, members in oneofs.items()
        ]
        for parameter, taken, given in choices:
            if len(choices) > 1:
                lines.append(f"{indent}@{self._bindings.imported('typing', 'overload', hidden)}")
            lines += _method("WhichOneof", parameter, taken, given, indent)
        return lines

    def _extension(self, each: Any, hidden: Collection[str]) -> str:
        extendee = self._types[each.extendee]
        value = self._value_type(each, hidden)
        if each.label == Field.LABEL_REPEATED:
            is_message = each.type in (Field.TYPE_MESSAGE, Field.TYPE_GROUP)
            value = f"{self._stub('RepeatedMessage' if is_message else 'RepeatedScalar', hidden)}[{value}]"
        return f"{self._stub('Extension', hidden)}[{self._named(extendee, hidden)}, {value}]"


def _is_unwritable(name: str) -> bool:
    """Only getattr and `**` reach it: keywords, and what Python mangles."""
    return is_python_word(name) or (name.startswith("__") and not name.endswith("__"))


def _strings(names: list[str]) -> str:
    return ", ".join(quoted(name) for name in names)


def _method(name: str, parameter: str, taken: str, given: str, indent: str) -> list[str]:
    line = f"{indent}def {name}(self, {parameter}: {taken}) -> {given}: ..."
    if len(line) <= WIDTH:
        return [line]
    return lay_out(Group(f"def {name}(", ("self", f"{parameter}: {taken}"), f") -> {given}: ..."), indent)
