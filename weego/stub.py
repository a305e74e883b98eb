"""What emitted code stands on. Modules that `weego gen` writes import this one and nothing else of ours.

`Client` comes from `weego.client` when it is first asked for, so that a module of plain types does not load the
network side; what stands on protobuf's runtime comes when a module of its messages asks.
"""

from __future__ import annotations

from time import time_ns as now_unix_nano
from typing import TYPE_CHECKING, Any

from codec.plan import StructPlan
from codec.proto_fields import ProtoField, ProtoMap
from codec.proto_plan import define_proto, which
from codec.proto_structs import ProtoStruct
from codec.protobuf import MessageType, ProtobufMethodSpec, message_type, protobuf_service
from codec.spec import (
    ABSENT,
    DEFAULT,
    OPTIONAL,
    REQUIRED,
    STUB_FORMAT,
    Field,
    MethodSpec,
    Service,
    ServiceSpec,
    require,
    unimplemented,
)
from codec.streams import BidiStream, ClientStream, ServerStream
from codec.structs import Enum, FrozenMap, IdlException, Struct, Union, define
from codec.types import (
    BINARY,
    BOOL,
    BYTE,
    DOUBLE,
    I16,
    I32,
    I64,
    STRING,
    UUID,
    VIEW,
    EnumType,
    List,
    Map,
    Set,
    StructType,
)
from codec.validation import Violations, add, check, matches, modulo, rule_call, rules, sprintf

if TYPE_CHECKING:
    from codec.upb import (
        EnumMeta,
        Extension,
        Message,
        MessageMap,
        RepeatedMessage,
        RepeatedScalar,
        ScalarMap,
        proto_enum,
        proto_extension,
        proto_file,
        proto_message,
    )
    from weego.client import Client

_UPB = ("EnumMeta", "Message", "proto_enum", "proto_extension", "proto_file", "proto_message")

__all__ = [
    "ABSENT",
    "BINARY",
    "BOOL",
    "BYTE",
    "DEFAULT",
    "DOUBLE",
    "I16",
    "I32",
    "I64",
    "OPTIONAL",
    "REQUIRED",
    "STRING",
    "STUB_FORMAT",
    "UUID",
    "VIEW",
    "BidiStream",
    "Client",
    "ClientStream",
    "Enum",
    "EnumMeta",
    "EnumType",
    "Extension",
    "Field",
    "FrozenMap",
    "IdlException",
    "List",
    "Map",
    "Message",
    "MessageMap",
    "MessageType",
    "MethodSpec",
    "ProtoField",
    "ProtoMap",
    "ProtoStruct",
    "ProtobufMethodSpec",
    "RepeatedMessage",
    "RepeatedScalar",
    "ScalarMap",
    "ServerStream",
    "Service",
    "ServiceSpec",
    "Set",
    "Struct",
    "StructPlan",
    "StructType",
    "Union",
    "Violations",
    "add",
    "check",
    "define",
    "define_proto",
    "matches",
    "message_type",
    "modulo",
    "now_unix_nano",
    "proto_enum",
    "proto_extension",
    "proto_file",
    "proto_message",
    "protobuf_service",
    "require",
    "rule_call",
    "rules",
    "sprintf",
    "unimplemented",
    "which",
]


def __getattr__(name: str) -> Any:
    if name == "Client":
        from weego.client import Client

        globals()["Client"] = Client
        return Client
    if name in _UPB:
        from codec import upb

        value = globals()[name] = getattr(upb, name)
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
