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
        Unavailable,
        UnknownMethod,
        UnknownService,
        UsageError,
        WeegoError,
    )
    from codec.metadata import Metadata
    from codec.structs import Enum, IdlException, Struct, Union
    from codec.validation import ValidationError, Violation
    from governance import metainfo
    from governance.call import Call, current
    from governance.chain import Handler, Middleware
    from poller.tls import TLS, PeerIdentity, ServerTLS
    from weego.client import Client
    from weego.generic import GenericClient, GenericException, Idl, RawClient, generic_service
    from weego.http_map import HttpRequest, HttpResponse
    from weego.routes import ServiceError, inline, thread
    from weego.server import Server
    from weego.validation import validate_arguments

__version__ = "0.1.0"

__all__ = [
    "TLS",
    "ApplicationError",
    "BusinessError",
    "Call",
    "Cancelled",
    "Client",
    "ClosedError",
    "Code",
    "DeadlineExceeded",
    "EncodeError",
    "Enum",
    "GenericClient",
    "GenericException",
    "Handler",
    "HttpRequest",
    "HttpResponse",
    "Idl",
    "IdlException",
    "Metadata",
    "Middleware",
    "Origin",
    "PeerIdentity",
    "ProtocolError",
    "RawClient",
    "ResourceExhausted",
    "RpcError",
    "Server",
    "ServerTLS",
    "ServiceError",
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
    "current",
    "generic_service",
    "inline",
    "metainfo",
    "thread",
    "validate_arguments",
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
        "Unavailable",
        "UnknownMethod",
        "UnknownService",
        "UsageError",
        "WeegoError",
    ),
    "codec.metadata": ("Metadata",),
    "codec.structs": ("Enum", "IdlException", "Struct", "Union"),
    "codec.validation": ("ValidationError", "Violation"),
    "governance": ("metainfo",),
    "governance.call": ("Call", "current"),
    "governance.chain": ("Handler", "Middleware"),
    "poller.tls": ("TLS", "PeerIdentity", "ServerTLS"),
    "weego.client": ("Client",),
    "weego.generic": ("GenericClient", "GenericException", "Idl", "RawClient", "generic_service"),
    "weego.http_map": ("HttpRequest", "HttpResponse"),
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
