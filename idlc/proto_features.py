"""Editions: what a field or an enum means, whether the file says proto2, proto3 or an edition.

Each rule is a feature with a default by edition, which the file, the messages around and the field itself may override
(protobuf's `descriptor.proto`, `FeatureSet`; the defaults are those protoc prints with --edition_defaults_out).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field

from idlc.proto_files import EnumType, MessageType, ProtoFile, TypeTable

__all__ = ["Features", "features_of_enum", "features_of_field", "has_presence", "is_group", "is_map", "is_packed"]

# Numbers of FeatureSet's enums.
_EXPLICIT, _IMPLICIT, _LEGACY_REQUIRED = 1, 2, 3
_OPEN, _CLOSED = 1, 2
_PACKED, _EXPANDED = 1, 2
_VERIFY, _NONE = 2, 3
_LENGTH_PREFIXED, _DELIMITED = 1, 2

# Scalars that can be packed: all that are no bytes.
_UNPACKABLE: Final = (Field.TYPE_STRING, Field.TYPE_BYTES, Field.TYPE_MESSAGE, Field.TYPE_GROUP)


@dataclass(frozen=True, slots=True)
class Features:
    """The features that change the wire or what Python sees."""

    field_presence: int
    enum_type: int
    repeated_field_encoding: int
    utf8_validation: int
    message_encoding: int

    @property
    def is_required(self) -> bool:
        """Must the field be there?"""
        return self.field_presence == _LEGACY_REQUIRED

    @property
    def is_implicit(self) -> bool:
        """Is zero the same as absent?"""
        return self.field_presence == _IMPLICIT

    @property
    def is_closed(self) -> bool:
        """Are numbers that the enum does not name unknown fields?"""
        return self.enum_type == _CLOSED

    @property
    def checks_utf8(self) -> bool:
        """Must text be UTF-8?"""
        return self.utf8_validation == _VERIFY

    def overridden(self, options: Any) -> Features:
        """With what some descriptor's options say."""
        chosen = options.features
        changes = {name: getattr(chosen, name) for name in self.__slots__ if chosen.HasField(name)}
        return replace(self, **changes) if changes else self


_PROTO2: Final = Features(_EXPLICIT, _CLOSED, _EXPANDED, _NONE, _LENGTH_PREFIXED)
_PROTO3: Final = Features(_IMPLICIT, _OPEN, _PACKED, _VERIFY, _LENGTH_PREFIXED)
_EDITIONS: Final = Features(_EXPLICIT, _OPEN, _PACKED, _VERIFY, _LENGTH_PREFIXED)


def _of_file(file: ProtoFile) -> Features:
    syntax = file.descriptor.syntax
    start = _EDITIONS if syntax == "editions" else _PROTO3 if syntax == "proto3" else _PROTO2
    return start.overridden(file.descriptor.options)


def _around(type_: MessageType | EnumType) -> Features:
    """Of the file, then of each message around, from the outside in."""
    features = _of_file(type_.file)
    siblings = type_.file.messages
    for name in type_.scope:
        message = next(each for each in siblings if each.python[-1] == name)
        features = features.overridden(message.descriptor.options)
        siblings = message.messages
    return features


def features_of_enum(enum: EnumType) -> Features:
    """The features of an enum."""
    return _around(enum).overridden(enum.descriptor.options)


def features_of_field(message: MessageType, each: Any) -> Features:
    """The features of a field of a message, as far as its label and its oneof leave a choice."""
    features = _around(message).overridden(message.descriptor.options)
    if each.HasField("oneof_index"):
        features = features.overridden(message.descriptor.oneof_decl[each.oneof_index].options)
    features = features.overridden(each.options)
    if each.label == Field.LABEL_REQUIRED:
        return replace(features, field_presence=_LEGACY_REQUIRED)
    is_message = each.type in (Field.TYPE_MESSAGE, Field.TYPE_GROUP)
    if features.is_implicit and (is_message or each.HasField("oneof_index")):
        return replace(features, field_presence=_EXPLICIT)
    return features


def has_presence(message: MessageType, each: Any) -> bool:
    """Can the field tell "not set" from its default?"""
    return each.label != Field.LABEL_REPEATED and not features_of_field(message, each).is_implicit


def is_packed(message: MessageType, each: Any) -> bool:
    """Is a repeated field written as one block?"""
    if each.label != Field.LABEL_REPEATED or each.type in _UNPACKABLE:
        return False
    if each.options.HasField("packed"):
        return bool(each.options.packed)
    return features_of_field(message, each).repeated_field_encoding == _PACKED


def is_map(each: Any, types: TypeTable) -> MessageType | None:
    """The entry message of a map field."""
    entry = types.get(each.type_name)
    return entry if isinstance(entry, MessageType) and entry.is_map_entry else None


def is_group(message: MessageType, each: Any, types: TypeTable) -> bool:
    """Is the field delimited by tags instead of a length?"""
    if each.type == Field.TYPE_GROUP:
        return True
    if each.type != Field.TYPE_MESSAGE or is_map(each, types) is not None:
        return False
    return features_of_field(message, each).message_encoding == _DELIMITED
