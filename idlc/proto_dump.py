"""`.proto` files as plain data, for `weego idl dump`: the same shape as `idlc.dump` where both families have a word for it.

Types are the words of Protobuf (`"int32"`), `{"name": "package.Message"}`, `{"list": T}` for repeated fields, or `{"map": [K, V]}`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.descriptor_pb2 import FieldDescriptorProto

from idlc import model
from idlc.dump import FORMAT
from idlc.proto_features import features_of_field, has_presence
from idlc.proto_files import (
    EnumType,
    MessageType,
    ProtoFile,
    TypeTable,
    field_doc,
    is_idempotent,
    value_doc,
    value_position,
)

__all__ = ["dump_protos"]

_F: Final = FieldDescriptorProto
_FIELD: Final = 2


def dump_protos(files: Sequence[ProtoFile], types: TypeTable) -> dict[str, Any]:
    """All files: what `json.dumps` takes."""
    return {"format": FORMAT, "files": [_file(file, types) for file in files]}


def _file(file: ProtoFile, types: TypeTable) -> dict[str, Any]:
    return {
        "name": file.name,
        "path": file.program.path,
        "sha256": file.program.digest,
        "doc": file.file_doc,
        "package": file.package,
        "syntax": file.descriptor.syntax or "proto2",
        "includes": list(file.descriptor.dependency),
        "enums": [_enum(each) for each in file.enums],
        "messages": [_message(each, types) for each in file.messages],
        "services": [_service(file, each) for each in file.services()],
        **_options(file.descriptor),
    }


def _common(name: str, line: int, doc: str, descriptor: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"name": name, "line": line}
    if doc:
        found["doc"] = doc
    return {**found, **_options(descriptor)}


def _options(descriptor: Any) -> dict[str, Any]:
    """The options that are set; those of extensions that are not known here are left out."""
    if not descriptor.HasField("options"):
        return {}
    options = json_format.MessageToDict(descriptor.options, preserving_proto_field_name=True)
    return {"options": options} if options else {}


def _message(message: MessageType, types: TypeTable) -> dict[str, Any]:
    position = message.file.position(message.path)
    found = _common(message.full_name, position.line, message.file.doc(message.path), message.descriptor)
    found["fields"] = [_field(message, index, each, types) for index, each in enumerate(message.descriptor.field)]
    inner = [_message(each, types) for each in message.messages if not each.is_map_entry]
    if inner:
        found["messages"] = inner
    if message.enums:
        found["enums"] = [_enum(each) for each in message.enums]
    return found


def _field(message: MessageType, index: int, field: Any, types: TypeTable) -> dict[str, Any]:
    line = message.file.position((*message.path, _FIELD, index)).line
    found = {"id": field.number, **_common(field.name, line, field_doc(message, index), field)}
    found["type"] = _type(field, types)
    is_required = features_of_field(message, field).is_required and field.label != _F.LABEL_REPEATED
    found["requiredness"] = "required" if is_required else "optional" if has_presence(message, field) else "default"
    found["json_name"] = field.json_name
    if field.HasField("oneof_index") and not field.proto3_optional:
        found["oneof"] = message.descriptor.oneof_decl[field.oneof_index].name
    if field.HasField("default_value"):
        found["default"] = field.default_value
    return found


def _type(field: Any, types: TypeTable) -> Any:
    if field.type_name:
        entry = types[field.type_name]
        if isinstance(entry, MessageType) and entry.is_map_entry:
            return {"map": [_type(each, types) for each in entry.descriptor.field]}
        plain: Any = {"name": field.type_name.removeprefix(".")}
    else:
        plain = _F.Type.Name(field.type).removeprefix("TYPE_").lower()
    return {"list": plain} if field.label == _F.LABEL_REPEATED else plain


def _enum(enum: EnumType) -> dict[str, Any]:
    members = [
        {**_common(each.name, value_position(enum, index).line, value_doc(enum, index), each), "value": each.number}
        for index, each in enumerate(enum.descriptor.value)
    ]
    return {**_common(enum.descriptor.name, enum.file.position(enum.path).line, enum.file.doc(enum.path), enum.descriptor), "members": members}


def _service(file: ProtoFile, service: model.Service) -> dict[str, Any]:
    methods = []
    for function in service.functions:
        method = file.method(service, function)
        methods.append(
            {
                **_common(function.name, function.pos.line, function.doc, method),
                "request": method.input_type.removeprefix("."),
                "result": method.output_type.removeprefix("."),
                "streaming": function.streaming or "unary",
                "idempotent": is_idempotent(method),
            }
        )
    descriptor = next(each for each in file.descriptor.service if each.name == service.name)
    return {**_common(service.name, service.pos.line, service.doc, descriptor), "methods": methods}
