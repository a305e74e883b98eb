"""What emitted code stands on. Modules that `weego gen` writes import this one and nothing else of ours.

`Client` comes from `weego.client` when it is first asked for, so that a module of plain types does not load the
network side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from codec.plan import StructPlan
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
    EnumType,
    List,
    Map,
    Set,
    StructType,
)

if TYPE_CHECKING:
    from weego.client import Client

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
    "Client",
    "Enum",
    "EnumType",
    "Field",
    "FrozenMap",
    "IdlException",
    "List",
    "Map",
    "MethodSpec",
    "Service",
    "ServiceSpec",
    "Set",
    "Struct",
    "StructPlan",
    "StructType",
    "Union",
    "define",
    "require",
    "unimplemented",
]


def __getattr__(name: str) -> Any:
    if name == "Client":
        from weego.client import Client

        globals()["Client"] = Client
        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
