"""weego: a pre-fork RPC server and client that speak the Kitex wire protocols.

This is the only name to import. Everything below is loaded when it is first used (PEP 562), so that `import weego` costs
nothing: the master process, which imports neither gevent nor your code, lives in this package too.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from codec.errors import (
        ApplicationError,
        BusinessError,
        Cancelled,
        ClosedError,
        Code,
        DeadlineExceeded,
        EncodeError,
        Origin,
        ProtocolError,
        ResourceExhausted,
        RpcError,
        StatusError,
        Unavailable,
        UnknownMethod,
        UnknownService,
        UsageError,
        WeegoError,
    )
    from codec.fieldmask import FieldMask, FieldMaskError
    from codec.metadata import Metadata
    from codec.structs import Enum, IdlException, Struct, Union
    from codec.validation import ValidationError, Violation, rule_function
    from governance import metainfo
    from governance.acl import Rule
    from governance.call import Call, current
    from governance.chain import Handler, Middleware
    from governance.errors import BreakerOpen, NoInstance, PermissionDenied
    from governance.inherit import inherit
    from governance.instance import Instance
    from governance.policy import BreakerPolicy, BudgetPolicy, ClientPolicy, EjectionPolicy, Policy
    from governance.retry import RetryPolicy
    from governance.traffic import tags
    from poller.tls import TLS, PeerIdentity, ServerTLS
    from weego.client import Client, governance, stats, warm_up
    from weego.generic import GenericClient, GenericStream, Idl, RawClient
    from weego.generic_server import GenericException, IdlWatch, generic_service, watch_idl
    from weego.governed_config import configure
    from weego.http_map import HttpRequest, HttpResponse
    from weego.idl_reflection import reflection
    from weego.protos import NoReflection, ProtoIdl
    from weego.routes import ServiceError, inline, thread
    from weego.server import Server
    from weego.validation import validate_arguments

__version__ = "0.1.0"

__all__ = [
    "TLS",
    "ApplicationError",
    "BreakerOpen",
    "BreakerPolicy",
    "BudgetPolicy",
    "BusinessError",
    "Call",
    "Cancelled",
    "Client",
    "ClientPolicy",
    "ClosedError",
    "Code",
    "DeadlineExceeded",
    "EjectionPolicy",
    "EncodeError",
    "Enum",
    "FieldMask",
    "FieldMaskError",
    "GenericClient",
    "GenericException",
    "GenericStream",
    "Handler",
    "HttpRequest",
    "HttpResponse",
    "Idl",
    "IdlException",
    "IdlWatch",
    "Instance",
    "Metadata",
    "Middleware",
    "NoInstance",
    "NoReflection",
    "Origin",
    "PeerIdentity",
    "PermissionDenied",
    "Policy",
    "ProtoIdl",
    "ProtocolError",
    "RawClient",
    "ResourceExhausted",
    "RetryPolicy",
    "RpcError",
    "Rule",
    "Server",
    "ServerTLS",
    "ServiceError",
    "StatusError",
    "Struct",
    "Unavailable",
    "Union",
    "UnknownMethod",
    "UnknownService",
    "UsageError",
    "ValidationError",
    "Violation",
    "WeegoError",
    "__version__",
    "configure",
    "current",
    "generic_service",
    "governance",
    "inherit",
    "inline",
    "metainfo",
    "reflection",
    "rule_function",
    "stats",
    "tags",
    "thread",
    "validate_arguments",
    "warm_up",
    "watch_idl",
]

_HOME = {
    "codec.errors": (
        "ApplicationError",
        "BusinessError",
        "Cancelled",
        "ClosedError",
        "Code",
        "DeadlineExceeded",
        "EncodeError",
        "Origin",
        "ProtocolError",
        "ResourceExhausted",
        "RpcError",
        "StatusError",
        "Unavailable",
        "UnknownMethod",
        "UnknownService",
        "UsageError",
        "WeegoError",
    ),
    "codec.fieldmask": ("FieldMask", "FieldMaskError"),
    "codec.metadata": ("Metadata",),
    "codec.structs": ("Enum", "IdlException", "Struct", "Union"),
    "codec.validation": ("ValidationError", "Violation", "rule_function"),
    "governance": ("metainfo",),
    "governance.acl": ("Rule",),
    "governance.call": ("Call", "current"),
    "governance.chain": ("Handler", "Middleware"),
    "governance.errors": ("BreakerOpen", "NoInstance", "PermissionDenied"),
    "governance.inherit": ("inherit",),
    "governance.instance": ("Instance",),
    "governance.policy": ("BreakerPolicy", "BudgetPolicy", "ClientPolicy", "EjectionPolicy", "Policy"),
    "governance.retry": ("RetryPolicy",),
    "governance.traffic": ("tags",),
    "poller.tls": ("TLS", "PeerIdentity", "ServerTLS"),
    "weego.client": ("Client", "governance", "stats", "warm_up"),
    "weego.generic": ("GenericClient", "GenericStream", "Idl", "RawClient"),
    "weego.generic_server": ("GenericException", "IdlWatch", "generic_service", "watch_idl"),
    "weego.governed_config": ("configure",),
    "weego.http_map": ("HttpRequest", "HttpResponse"),
    "weego.idl_reflection": ("reflection",),
    "weego.protos": ("NoReflection", "ProtoIdl"),
    "weego.routes": ("ServiceError", "inline", "thread"),
    "weego.server": ("Server",),
    "weego.validation": ("validate_arguments",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _MODULE_OF[name]
    module = import_module(home)
    # A module may be what is offered: it is no attribute of its package before it is imported.
    value = globals()[name] = getattr(module, name) if hasattr(module, name) else import_module(f"{home}.{name}")
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
