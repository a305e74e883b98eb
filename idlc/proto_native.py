"""Native messages: the classes of a `.proto` file as structs with slots, and the tables that tell the codec about them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Final

from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field

from idlc import model
from idlc.bindings import Bindings, natural_order
from idlc.layout import INDENT, WIDTH, Group, Node, call, docstring, lay_out, quoted, tuple_of
from idlc.names import Names, is_python_word
from idlc.packages import Place
from idlc.proto_features import features_of_enum, features_of_field, is_group, is_map, is_packed
from idlc.proto_files import (
    EnumType,
    MessageType,
    ProtoFile,
    TypeTable,
    field_doc,
    oneof_doc,
    value_doc,
    value_position,
)

__all__ = ["Native"]

_KINDS: Final = {
    Field.TYPE_DOUBLE: "double", Field.TYPE_FLOAT: "float", Field.TYPE_INT64: "int64", Field.TYPE_UINT64: "uint64",
    Field.TYPE_INT32: "int32", Field.TYPE_FIXED64: "fixed64", Field.TYPE_FIXED32: "fixed32", Field.TYPE_BOOL: "bool",
    Field.TYPE_STRING: "string", Field.TYPE_BYTES: "bytes", Field.TYPE_UINT32: "uint32", Field.TYPE_SFIXED32: "sfixed32",
    Field.TYPE_SFIXED64: "sfixed64", Field.TYPE_SINT32: "sint32", Field.TYPE_SINT64: "sint64",
}  # fmt: skip
_PYTHON: Final = {"double": "float", "float": "float", "bool": "bool", "string": "str", "bytes": "bytes"}
_ZEROS: Final = {"float": "0.0", "bool": "False", "str": '""', "bytes": 'b""', "int": "0"}

# What the base class keeps in an instance, and the public name a field may hide.
_RESERVED: Final = ("_unknown",)
_OURS: Final = ("copy",)


@dataclass(slots=True)
class _Attribute:
    """A field as Python sees it."""

    field: Any
    name: str
    type: str
    """Of the attribute."""
    default: str | None
    """What stands in the constructor's signature: None for a required field."""
    make: str | None
    """What the constructor makes for None, if the attribute cannot be None."""
    doc: str


@dataclass(slots=True)
class Native:
    """Emits the messages and enums of one file."""

    file: ProtoFile
    types: TypeTable
    places: dict[model.Program, Place]
    names: Names
    bindings: Bindings
    _enums: dict[int, model.Enum] = field(default_factory=dict)

    # Names

    def _stub(self, name: str, hidden: Collection[str] = ()) -> str:
        return f"{self.bindings.imported('weego', 'stub', hidden)}.{name}"

    def reference(self, type_: MessageType | EnumType, hidden: Collection[str] = ()) -> str:
        """How to write a type in this module where the names `hidden` mean something else."""
        top, *inner = type_.python
        if type_.file is self.file:
            return ".".join([self.bindings.own(top, hidden), *inner])
        seen = self.places[type_.file.program].seen_from(self.places[self.file.program])
        return ".".join([self.bindings.imported(seen, top, hidden), *inner])

    def _value_type(self, each: Any, hidden: Collection[str]) -> str:
        if each.type in _KINDS:
            return self.bindings.builtin(_PYTHON.get(_KINDS[each.type], "int"), hidden)
        return self.reference(self.types[each.type_name], hidden)

    def _member_names(self, enum: EnumType) -> dict[str, str]:
        """IDL name → Python name of an enum's values."""
        made = self._enums.get(id(enum))
        if made is None:
            members = tuple(
                model.EnumMember(value.name, value.number, value_position(enum, index))
                for index, value in enumerate(enum.descriptor.value)
            )
            position = enum.file.position(enum.path)
            made = self._enums[id(enum)] = model.Enum(enum.file.program, ".".join(enum.python), members, position)
        return {member.name: self.names.member(made, member) for member in made.members}

    # Classes

    def emit(self) -> list[list[str]]:
        """Enums, then messages: each a block of lines."""
        return [self._enum(enum, "") for enum in self.file.enums] + [self._message(each, "") for each in self.file.messages]

    def _enum(self, enum: EnumType, indent: str) -> list[str]:
        inner = indent + INDENT
        names = self._member_names(enum)
        lines = [f"{indent}class {enum.python[-1]}({self._stub('Enum')}):"]
        lines += docstring(enum.file.doc(enum.path), inner)
        lines += [""] if len(lines) > 1 else []
        for index, value in enumerate(enum.descriptor.value):
            lines.append(f"{inner}{names[value.name]} = {value.number}")
            lines += docstring(value_doc(enum, index), inner)
        return lines

    def _message(self, message: MessageType, indent: str) -> list[str]:
        inner = indent + INDENT
        table = field_names(message)
        oneofs = self._oneofs(message)
        hidden = {*table.values(), *oneofs, *message.inner_names}
        lines = [f"{indent}class {message.python[-1]}({self._stub('ProtoStruct')}):"]
        lines += docstring(message.file.doc(message.path), inner)
        start = len(lines)
        for enum in message.enums:
            lines += ["", *self._enum(enum, inner)]
        for each in message.messages:
            if not each.is_map_entry:
                lines += ["", *self._message(each, inner)]
        lines += [""] if len(lines) > 1 else []
        if start == 1 and len(lines) > 1 and not lines[1]:
            del lines[1]
        slots = tuple_of(quoted(name) for name in sorted(table.values(), key=natural_order))
        lines += lay_out(Group("__slots__ = (", slots.items, ")", lone_comma=True), inner)
        attributes = [
            self._attribute(message, index, each, table[each.name], hidden)
            for index, each in enumerate(message.descriptor.field)
        ]
        for attribute in attributes:
            ignore = "  # type: ignore[assignment, unused-ignore]" if attribute.name in _OURS else ""
            lines.append(f"{inner}{attribute.name}: {attribute.type}{ignore}")
            lines += docstring(attribute.doc, inner)
        for name in _OURS:
            if name in hidden:
                lines.append(f"{inner}{_free(name + '_', hidden)} = {self._stub('ProtoStruct', hidden)}.{name}")
        if attributes:
            lines += ["", *self._constructor(attributes, inner, hidden)]
        for name, (index, members) in oneofs.items():
            lines += ["", *self._which(name, [table[member] for member in members], oneof_doc(message, index), inner, hidden)]
        return lines

    def _attribute(self, message: MessageType, index: int, each: Any, name: str, hidden: Collection[str]) -> _Attribute:
        doc = field_doc(message, index)
        entry = is_map(each, self.types)
        if entry is not None:
            key, value = entry.descriptor.field
            outer = self.bindings.builtin("dict", hidden)
            plain = f"{outer}[{self._value_type(key, hidden)}, {self._value_type(value, hidden)}]"
            return _Attribute(each, name, plain, "None", "{}", doc)
        plain = self._value_type(each, hidden)
        if each.label == Field.LABEL_REPEATED:
            return _Attribute(each, name, f"{self.bindings.builtin('list', hidden)}[{plain}]", "None", "[]", doc)
        features = features_of_field(message, each)
        if features.is_required:
            return _Attribute(each, name, plain, None, None, doc)
        if not features.is_implicit:
            return _Attribute(each, name, f"{plain} | None", "None", None, doc)
        if each.type == Field.TYPE_ENUM:
            return _Attribute(each, name, plain, "None", "enum", doc)
        return _Attribute(each, name, plain, _ZEROS[_PYTHON.get(_KINDS[each.type], "int")], None, doc)

    def _constructor(self, attributes: list[_Attribute], indent: str, hidden: Collection[str]) -> list[str]:
        slots = {attribute.name for attribute in attributes}
        self_name = _free("self", slots)
        parameters: list[Node] = [self_name, "*"]
        body: list[str] = []
        for attribute in attributes:
            annotation = attribute.type
            if attribute.make is not None:
                annotation += " | None"
            ending = "" if attribute.default is None else f" = {attribute.default}"
            parameters.append(f"{attribute.name}: {annotation}{ending}")
            value = attribute.name
            if attribute.make is not None:
                make = attribute.make
                if make == "enum":
                    make = self._zero(self.types[attribute.field.type_name], {*slots, self_name})
                value = f"{make} if {attribute.name} is None else {attribute.name}"
            line = f"{self_name}.{attribute.name} = {value}"
            body += [line] if len(indent + INDENT + line) <= WIDTH else [f"{self_name}.{attribute.name} = (", INDENT + value, ")"]
        lines = lay_out(Group("def __init__(", tuple(parameters), ") -> None:"), indent)
        return lines + [indent + INDENT + line for line in body]

    def _zero(self, enum: Any, hidden: Collection[str]) -> str:
        assert isinstance(enum, EnumType)
        names = self._member_names(enum)
        zero = next((value.name for value in enum.descriptor.value if value.number == 0), None)
        owner = self.reference(enum, hidden)
        return f"{owner}(0)" if zero is None else f"{owner}.{names[zero]}"

    def _oneofs(self, message: MessageType) -> dict[str, tuple[int, list[str]]]:
        """Name of the property → index of the oneof and its members. What protoc makes of `optional` is none."""
        fields = list(message.descriptor.field)
        synthetic = {each.oneof_index for each in fields if each.proto3_optional}
        taken = {*field_names(message).values(), *message.inner_names}
        found: dict[str, tuple[int, list[str]]] = {}
        for index, oneof in enumerate(message.descriptor.oneof_decl):
            members = [each.name for each in fields if each.HasField("oneof_index") and each.oneof_index == index]
            if index not in synthetic:
                found[_free(f"which_{oneof.name}", taken)] = (index, members)
        return found

    def _which(self, name: str, members: list[str], doc: str, indent: str, hidden: Collection[str]) -> list[str]:
        literal = f"{self.bindings.imported('typing', 'Literal', hidden)}[{', '.join(quoted(each) for each in members)}] | None"
        local = f"{self.bindings.imported('typing', 'Literal')}[{', '.join(quoted(each) for each in members)}] | None"
        inner = indent + INDENT
        lines = [f"{indent}@{self.bindings.builtin('property', hidden)}"]
        lines += lay_out(Group(f"def {name}(", ("self",), f") -> {literal}:"), indent) if len(literal) < WIDTH else [
            f"{indent}def {name}(", f"{inner}self,", f"{indent}) -> {literal}:",
        ]
        lines += docstring(doc or "The member that is set.", inner)
        which = call(self._stub("which"), "self", *(quoted(each) for each in members))
        return [*lines, *lay_out(Group(f"found: {local} = {which.open}", which.items, ")"), inner), f"{inner}return found"]

    # Tables

    def define(self) -> list[list[str]]:
        """The calls that give the runtime the fields."""
        return [
            self._define(message)
            for top in self.file.messages
            for message in top.walk()
            if not message.is_map_entry
        ]

    def _define(self, message: MessageType) -> list[str]:
        table = field_names(message)
        fields = [self._field(message, each, table[each.name]) for each in message.descriptor.field]
        return lay_out(call(self._stub("define_proto"), self.reference(message), quoted(message.full_name), *fields))

    def _type(self, each: Any) -> str:
        return quoted(_KINDS[each.type]) if each.type in _KINDS else self.reference(self.types[each.type_name])

    def _field(self, message: MessageType, each: Any, name: str) -> Group:
        items: list[Node] = [str(each.number), quoted(name)]
        entry = is_map(each, self.types)
        features = features_of_field(message, each)
        value = each
        if entry is not None:
            key, value = entry.descriptor.field
            items.append(f"{self._stub('ProtoMap')}({self._type(key)}, {self._type(value)})")
            # A map's key and value take their features from the field.
            has_text = Field.TYPE_STRING in (key.type, value.type)
        else:
            items.append(self._type(each))
            has_text = each.type == Field.TYPE_STRING
            if each.label == Field.LABEL_REPEATED:
                items.append("repeated=True")
            elif not features.is_implicit:
                items.append('presence="required"' if features.is_required else 'presence="explicit"')
        if is_packed(message, each):
            items.append("packed=True")
        if each.HasField("oneof_index") and not each.proto3_optional:
            items.append(f"oneof={quoted(message.descriptor.oneof_decl[each.oneof_index].name)}")
        if is_group(message, each, self.types):
            items.append("group=True")
        if value.type == Field.TYPE_ENUM:
            enum = self.types[value.type_name]
            assert isinstance(enum, EnumType)
            if features_of_enum(enum).is_closed:
                items.append("closed=True")
        if has_text and not features.checks_utf8:
            items.append("utf8=False")
        default = self._default(each)
        if default is not None:
            items.append(f"default={default}")
        if name != each.name:
            items.append(f"wire_name={quoted(each.name)}")
        return call(self._stub("ProtoField"), *items)

    def _default(self, each: Any) -> str | None:
        """The default of the IDL, which only says what an absent field stands for."""
        if each.type == Field.TYPE_ENUM and each.label != Field.LABEL_REPEATED:
            enum = self.types[each.type_name]
            assert isinstance(enum, EnumType)
            chosen = each.default_value if each.HasField("default_value") else enum.descriptor.value[0].name
            return f"{self.reference(enum)}.{self._member_names(enum)[chosen]}"
        if not each.HasField("default_value"):
            return None
        text = str(each.default_value)
        if each.type == Field.TYPE_STRING:
            return quoted(text)
        if each.type == Field.TYPE_BYTES:
            return repr(_unescaped(text))
        if each.type == Field.TYPE_BOOL:
            return text.capitalize()
        if each.type in (Field.TYPE_DOUBLE, Field.TYPE_FLOAT):
            return f'float("{text}")' if text in ("inf", "-inf", "nan") else repr(float(text))
        return str(int(text))


def _unescaped(text: str) -> bytes:
    """protoc's C escapes, as bytes."""
    return text.encode("utf-8").decode("unicode_escape").encode("latin-1")


def field_names(message: MessageType) -> dict[str, str]:
    """IDL name → Python name of a message's fields."""
    names = [each.name for each in message.descriptor.field]
    table = {name: name for name in names if not _is_reserved(name)}
    for name in names:
        if name not in table:
            renamed = name + "_"
            while renamed in names or renamed in table.values() or _is_reserved(renamed):
                renamed += "_"
            table[name] = renamed
    return {name: table[name] for name in names}


def _is_reserved(name: str) -> bool:
    # Python mangles names that begin with two underscores and do not end so; with three at the end they are nobody's.
    return is_python_word(name) or name in _RESERVED or (name.startswith("__") and not name.endswith("___"))


def _free(name: str, taken: Collection[str]) -> str:
    while name in taken:
        name += "_"
    return name
