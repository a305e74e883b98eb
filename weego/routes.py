"""The user's services as routes: which method of which object answers which name on the wire, wrapped in what."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from codec.errors import UsageError
from codec.plan import DEFAULT_MAX_DECODED
from codec.spec import Method, Service
from codec.thrift import Route
from codec.ttstream import StreamMethod
from governance.chain import Handler, Middleware, compose
from governance.meter import Tally
from weego.dispatch import Target
from weego.grpc_server import GrpcRoute

__all__ = ["ServiceError", "build", "build_grpc", "build_streams", "inline", "thread"]

_Method = TypeVar("_Method", bound=Callable[..., Any])
_MODE = "__weego_mode__"

Govern = Callable[[str, str], Sequence[Middleware]]
TallyOf = Callable[[str, str], Tally | None]


class ServiceError(UsageError):
    """An object that cannot be served; the text says why and what to do."""


def inline(method: _Method) -> _Method:
    """Mark a handler that never blocks: nothing could interrupt it at its deadline, so none of that is prepared."""
    setattr(method, _MODE, "inline")
    return method


def thread(method: _Method) -> _Method:
    """Mark a handler that blocks without gevent's knowing, or computes for long: it runs in a thread of the worker's pool."""
    setattr(method, _MODE, "thread")
    return method


def build(
    services: Iterable[object],
    middleware: Sequence[Middleware] = (),
    *,
    govern: Govern | None = None,
    tally_of: TallyOf | None = None,
    timeout: float = 0.0,
    fallback: object = None,
    named_only: bool = False,
) -> tuple[dict[bytes, Route], dict[str, dict[bytes, Route]]]:
    """Routes over all services by method name, and by service name.

    Where two services have a method of one name, `fallback`, which is one of `services`, answers a caller that names none, or else the first
    service does. `govern(service, method)` gives the policies of a method, above all other middleware, and `tally_of(service, method)` what counts its calls. With `named_only` such a caller is refused. `timeout` bounds every call, in seconds; 0 is none. Raises ServiceError.
    """
    services = list(services)
    if fallback is not None:
        if fallback not in services:
            raise ServiceError("the fallback service must be one of the services that are served")
        services.sort(key=lambda service: service is not fallback)
    every: dict[bytes, Route] = {}
    named: dict[str, dict[bytes, Route]] = {}
    full_names: set[str] = set()
    for service in services:
        spec = _spec_of(service)
        if spec.full_name in full_names:
            raise ServiceError(f"two services are called {spec.full_name}; a server can have each name once")
        full_names.add(spec.full_name)
        routes = {
            method.wire_name: Route(method, _target(service, spec.name, method, [*(govern(spec.name, method.name) if govern else ()), *middleware], timeout, tally_of))
            for method in spec.methods.values()
            if not (method.client_streaming or method.server_streaming)  # those are gRPC's, or TTHeaderStreaming's
        }
        # Kitex knows a service by its short name; where two packages have one, the first answers to it.
        named.setdefault(spec.name, routes)
        for name, route in routes.items():
            every.setdefault(name, route)
    if not full_names:
        raise ServiceError("there is no service to serve; give at least one object of a generated service base")
    return {} if named_only else every, named


def build_streams(
    services: Iterable[object],
    middleware: Sequence[Middleware] = (),
    *,
    govern: Govern | None = None,
    tally_of: TallyOf | None = None,
    timeout: float = 0.0,
    fallback: object = None,
    named_only: bool = False,
    max_decoded: int = DEFAULT_MAX_DECODED,
) -> tuple[dict[bytes, StreamMethod], dict[str, dict[bytes, StreamMethod]]]:
    """The Thrift services' methods as TTHeaderStreaming carries them; parameters and errors as for `build`, over all services and by name."""
    services = sorted(services, key=lambda service: service is not fallback)
    every: dict[bytes, StreamMethod] = {}
    named: dict[str, dict[bytes, StreamMethod]] = {}
    for service in services:
        spec = _spec_of(service)
        if spec.kind != "thrift":
            continue
        methods = {}
        for method in spec.methods.values():
            chain = [*(govern(spec.name, method.name) if govern else ()), *middleware]
            target = _target(service, spec.name, method, chain, timeout, tally_of)
            methods[method.wire_name] = StreamMethod(method, target, max_decoded=max_decoded)
        named.setdefault(spec.name, methods)
        for name, found in methods.items():
            every.setdefault(name, found)
    return {} if named_only else every, named


def build_grpc(
    services: Iterable[object],
    middleware: Sequence[Middleware] = (),
    *,
    govern: Govern | None = None,
    tally_of: TallyOf | None = None,
    timeout: float = 0.0,
) -> list[GrpcRoute]:
    """The Protobuf services' methods as gRPC calls them; parameters and errors as for `build`."""
    found = []
    for service in services:
        spec = _spec_of(service)
        if spec.kind == "protobuf":
            for method in spec.methods.values():
                chain = [*(govern(spec.name, method.name) if govern else ()), *middleware]
                target = _target(service, spec.name, method, chain, timeout, tally_of)
                found.append(GrpcRoute(method, target, spec.full_name, method.request.decode, method.response.encode))
    return found


def _spec_of(service: object) -> Any:
    if isinstance(service, type):
        raise ServiceError(f"{service.__qualname__} is a class; give an object of it: {service.__qualname__}()")
    spec = getattr(service, "__spec__", None)
    if not isinstance(service, Service) or spec is None:
        raise ServiceError(
            f"{type(service).__module__}.{type(service).__qualname__} does not implement a generated service base; "
            "derive it from the base class that `weego gen` wrote for the service"
        )
    return spec


def _target(service: object, name: str, method: Method, middleware: Sequence[Middleware], timeout: float, tally_of: TallyOf | None) -> Target:
    bound: Callable[..., Any] = getattr(service, method.py_name)
    where = f"{type(service).__module__}.{type(service).__qualname__}.{method.py_name}"
    if inspect.iscoroutinefunction(bound) or inspect.isasyncgenfunction(bound):
        raise ServiceError(
            f"{where} is a coroutine function; write a plain `def`: it may block cooperatively, for it runs in a greenlet"
        )
    if inspect.isgeneratorfunction(bound) and not method.server_streaming:
        raise ServiceError(f"{where} is a generator function, but its method answers once; write a `def` that returns the result")
    mode = getattr(bound, _MODE, "greenlet")
    if mode != "greenlet" and (method.client_streaming or method.server_streaming):
        raise ServiceError(f"{where} streams, so it must be able to wait: it cannot be {mode}")

    def call_method(_call: Any, args: tuple[Any, ...]) -> Any:
        return bound(*args)

    handler: Handler = compose(call_method, middleware)
    tally = tally_of(name, method.name) if tally_of is not None else None
    return Target(name, handler, bound if not middleware else None, mode, timeout, method.server_streaming, tally)
