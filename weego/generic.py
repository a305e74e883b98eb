"""Calls without generated code: an IDL is loaded at run time, and methods are called by name.

    idl = Idl("shop.thrift", ["idl/"])
    with GenericClient("tcp://127.0.0.1:8888", idl) as shop:
        shop.call("Shop.getItem", {"id": 7})                     # plain data in, plain data out
        shop.call_json("Shop.getItem", '{"id": 7}')              # the same as JSON text
        shop.call_http(HttpRequest("GET", "/items/7"))           # by the IDL's api.* annotations
    idl.update()                                                 # the file has changed: later calls follow it

    with RawClient("tcp://127.0.0.1:8888", "Shop") as shop:
        shop.call("getItem", payload)                            # bytes of the args struct in, of the result struct out

    weego.Server(generic_service(idl, "Shop", handle))           # handle("getItem", {"id": 7}) -> {...}

How values are written is said in `weego.dynamic`. An exception that the IDL declares is raised as an instance of its class, whose
name and fields are the IDL's.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from codec.errors import ClosedError, UsageError
from codec.spec import MethodSpec, RawMethodSpec, Service, ServiceSpec
from codec.types import StructType
from weego import dynamic
from weego.client import Client

if TYPE_CHECKING:
    from weego.http_map import HttpMap, HttpRequest, HttpResponse

__all__ = ["GenericClient", "GenericException", "Idl", "RawClient", "generic_service"]


class GenericException(Exception):
    """Raised by a generic handler: an exception that the IDL declares for the method, by its name and fields."""

    def __init__(self, name: str, fields: Mapping[str, Any] | None = None) -> None:
        super().__init__(name, dict(fields or {}))
        self.name = name
        self.fields = dict(fields or {})


class Idl:
    """An IDL file and all it includes, loaded at run time; it may be loaded again while clients use it."""

    def __init__(self, path: str | os.PathLike[str], include_dirs: Sequence[str | os.PathLike[str]] = ()) -> None:
        """Raises idlc.IdlError when the IDL has mistakes, OSError when it cannot be read."""
        self.path = os.fspath(path)
        self._include_dirs = list(include_dirs)
        self._loaded = dynamic.load_model(path, self._include_dirs)
        self._take()

    @classmethod
    def from_text(cls, text: str, includes: Mapping[str, str] | None = None, name: str = "main.thrift") -> Idl:
        """From text that is no file; `includes`: what `include "…"` names → text."""
        with tempfile.TemporaryDirectory(prefix="weego-") as folder:
            for path, content in {**(includes or {}), name: text}.items():
                target = Path(folder, path)
                if not target.resolve().is_relative_to(Path(folder).resolve()):
                    raise UsageError(f"{path}: an included file of a text lies beside it or below")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(content, encoding="utf-8")
            return cls(Path(folder, name))

    def _take(self) -> None:
        self.module = self._loaded.module
        self.programs = self._loaded.programs
        self.services: dict[str, ServiceSpec] = dynamic.services(self.module)
        self._http: HttpMap | None = None

    def update(self) -> None:
        """Load the file again. When it has mistakes, IdlError is raised and everything stays as it was."""
        fresh = dynamic.load_model(self.path, self._include_dirs)
        old, self._loaded = self._loaded, fresh
        self._take()
        dynamic.unload(old.module)

    def method(self, name: str) -> tuple[ServiceSpec, MethodSpec]:
        """`Service.method`, or the method alone where only one service has it. UsageError when there is none."""
        owner, dot, method = name.rpartition(".")
        if dot:
            if owner not in self.services:
                raise UsageError(f'no service "{owner}" in {self.path}; {dynamic.likely(owner, self.services)}')
            spec = self.services[owner]
            if method not in spec.methods:
                raise UsageError(f'service {owner} has no method "{method}"; {dynamic.likely(method, spec.methods)}')
            return spec, spec.methods[method]
        found = [spec for spec in self.services.values() if method in spec.methods]
        if len(found) == 1:
            return found[0], found[0].methods[method]
        if found:
            raise UsageError(f"{method} is a method of {' and of '.join(spec.name for spec in found)}: name the service too")
        every = [each for spec in self.services.values() for each in spec.methods]
        raise UsageError(f'no method "{method}" in {self.path}; {dynamic.likely(method, every)}')

    @property
    def http(self) -> HttpMap:
        """The HTTP routes of the services' `api.*` annotations."""
        from weego.http_map import HttpMap

        if self._http is None:
            self._http = HttpMap(self.programs, self.services)
        return self._http


class GenericClient:
    """A client of all services of an IDL; options are those of `weego.Client`."""

    def __init__(self, address: str | Sequence[str], idl: Idl, **options: Any) -> None:
        self.idl = idl
        self._address = address
        self._options = options
        self._clients: dict[str, Client] = {}
        self._is_closed = False

    def call(self, name: str, arguments: Mapping[str, Any] | None = None, *, timeout: float | None = None) -> Any:
        """Call a method with plain data by argument names; returns plain data, None for void and oneway.

        Raises JsonError (a UsageError) when the data does not fit, the IDL's exceptions, and RpcError.
        """
        service, spec = self.idl.method(name)
        args = dynamic.arguments(spec, dict(arguments or {}))
        return dynamic.to_json(spec.result, self._invoke(service, spec, args, timeout))

    def call_json(self, name: str, text: str | bytes, *, timeout: float | None = None) -> str:
        """The same with JSON text on both sides; `null` for void."""
        try:
            given = json.loads(text)
        except RecursionError:
            raise dynamic.JsonError("the JSON is nested too deeply") from None
        except ValueError as error:
            raise dynamic.JsonError(f"not JSON: {error}") from None
        service, spec = self.idl.method(name)
        result = self._invoke(service, spec, dynamic.arguments(spec, given), timeout)
        return json.dumps(dynamic.to_json(spec.result, result), ensure_ascii=False)

    def call_http(self, request: HttpRequest, *, timeout: float | None = None) -> HttpResponse:
        """Call what an HTTP request asks for by the IDL's `api.*` annotations. UsageError when no route fits."""
        route = self.idl.http.find(request)
        result = self._invoke(route.service, route.spec, route.arguments(request), timeout)
        return route.response(result)

    def _invoke(self, service: ServiceSpec, spec: MethodSpec, args: tuple[Any, ...], timeout: float | None) -> Any:
        if spec.client_streaming or spec.server_streaming:
            raise UsageError(f"{service.name}.{spec.name} streams; a generic call is one request and one answer")
        return self._client(service)._invoke(spec, args, timeout)

    def _client(self, service: ServiceSpec) -> Client:
        if self._is_closed:
            raise ClosedError("this GenericClient is closed")
        client = self._clients.get(service.name)
        if client is None:
            client = self._clients[service.name] = _client_of(service, self._address, self._options)
        return client

    def close(self) -> None:
        """Close all connections; further calls raise ClosedError."""
        self._is_closed = True
        while self._clients:
            self._clients.popitem()[1].close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _client_of(service: ServiceSpec, address: str | Sequence[str], options: Mapping[str, Any]) -> Client:
    cls: type[Client] = type(f"{service.name}Client", (Client,), {"__spec__": service})
    return cls(address, **options)


class RawClient:
    """A client that sends and receives structs as bytes and needs no IDL; options are those of `weego.Client`.

    The bytes are in the protocol of the connection: binary, or compact with ``protocol="compact"``.
    """

    def __init__(self, address: str | Sequence[str], service: str, **options: Any) -> None:
        self._client = _client_of(ServiceSpec(service, ()), address, options)
        self._specs: dict[tuple[str, bool], RawMethodSpec] = {}

    def call(self, method: str, payload: bytes, *, oneway: bool = False, timeout: float | None = None) -> bytes:
        """Send the args struct, return the result struct: field 0 is the value, another one a declared exception; b"" for oneway."""
        key = (method, oneway)
        spec = self._specs.get(key)
        if spec is None:
            spec = self._specs[key] = RawMethodSpec(method, oneway=oneway)
        result: bytes | None = self._client._invoke(spec, (payload,), timeout)
        return b"" if result is None else result

    def close(self) -> None:
        """Close all connections; further calls raise ClosedError."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


# ---- the server's side -----------------------------------------------------------------------------------------------


def generic_service(idl: Idl, service: str, handler: Callable[[str, Any], Any], *, form: str = "data") -> Service:
    """An object to serve, all of whose methods are one function: ``handler(method, arguments) -> result``.

    Args:
        idl: where the service is defined.
        service: its name in the IDL.
        handler: is called with the IDL's name of the method. It raises GenericException for an exception that the IDL declares.
        form: "data": a dict by argument names, and plain data back. "json": the same as text. "bytes": the args struct and the result struct
            as they are on the wire, in the protocol of the caller.
    """
    if service not in idl.services:
        raise UsageError(f'no service "{service}" in {idl.path}; {dynamic.likely(service, idl.services)}')
    if form not in ("data", "json", "bytes"):
        raise UsageError(f'form is "data", "json" or "bytes", not {form!r}')
    spec = idl.services[service]
    streams = [method.name for method in spec.methods.values() if method.client_streaming or method.server_streaming]
    if streams:
        raise UsageError(f"{service}.{streams[0]} streams; a generic handler serves one request with one answer")
    if form == "bytes":
        raw = ServiceSpec(service, [RawMethodSpec(method.name, oneway=method.oneway) for method in spec.methods.values()])
        methods: dict[str, Any] = {method.py_name: _raw_method(method.name, handler) for method in raw.methods.values()}
        methods["__spec__"] = raw
    else:
        methods = {method.py_name: _method(method, handler, text=form == "json") for method in spec.methods.values()}
        methods["__spec__"] = spec
    cls: type[Service] = type(f"Generic{service}", (Service,), methods)
    return cls()


def _raw_method(name: str, handler: Callable[[str, Any], Any]) -> Callable[..., Any]:
    def method(_self: object, payload: bytes) -> Any:
        return handler(name, payload)

    return method


def _method(spec: MethodSpec, handler: Callable[[str, Any], Any], *, text: bool) -> Callable[..., Any]:
    def method(_self: object, *args: Any) -> Any:
        given: Any = {}
        for field, value in zip(spec.args, args, strict=True):
            if value is not None:
                given[field.wire_name or field.name] = dynamic.to_json(field.type, value)
        try:
            result = handler(spec.name, json.dumps(given, ensure_ascii=False) if text else given)
        except GenericException as error:
            raise _declared(spec, error) from error
        if spec.result is None:
            return None
        return dynamic.from_json(spec.result, json.loads(result) if text else result, "result")

    return method


def _declared(spec: MethodSpec, error: GenericException) -> Exception:
    for field in spec.throws:
        assert isinstance(field.type, StructType)
        if field.type.cls.__name__ == error.name:
            made: Exception = dynamic.from_json(field.type, error.fields, error.name)
            return made
    declared = [field.type.cls.__name__ for field in spec.throws if isinstance(field.type, StructType)]
    return UsageError(f"{spec.name} does not declare the exception {error.name}; {dynamic.likely(error.name, declared)}")
