"""Calls without generated code: an IDL is loaded at run time, and methods are called by name.

    idl = Idl("shop.thrift", ["idl/"])
    with GenericClient("tcp://127.0.0.1:8888", idl) as shop:
        shop.call("Shop.getItem", {"id": 7})                     # plain data in, plain data out
        shop.call_json("Shop.getItem", '{"id": 7}')              # the same as JSON text
        shop.call_http(HttpRequest("GET", "/items/7"))           # by the IDL's api.* annotations
    idl.update()                                                 # the file has changed: later calls follow it

    with RawClient("tcp://127.0.0.1:8888", "Shop") as shop:
        shop.call("getItem", payload)                            # bytes of the args struct in, of the result struct out

Services without generated code are in `weego.generic_server`. Protobuf IDL is a `weego.ProtoIdl` in the place of the Idl.

How values are written is said in `weego.dynamic`. An exception that the IDL declares is raised as an instance of its class, whose
name and fields are the IDL's.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Self

from codec.errors import ClosedError, UsageError
from codec.spec import MethodSpec, RawMethodSpec, ServiceSpec
from weego import dynamic
from weego.client import Client

if TYPE_CHECKING:
    from idlc.model import Program
    from weego.http_map import HttpMap, HttpRequest, HttpResponse
    from weego.protos import ProtoIdl

__all__ = ["GenericClient", "GenericStream", "Idl", "RawClient"]


class Idl:
    """A Thrift file and all it includes, loaded at run time; it may be loaded again while clients and servers use it."""

    def __init__(self, path: str | os.PathLike[str], include_dirs: Sequence[str | os.PathLike[str]] = ()) -> None:
        """Raises idlc.IdlError when the IDL has mistakes, OSError when it cannot be read."""
        self.path = os.fspath(path)
        self._include_dirs = list(include_dirs)
        self._followers = dynamic.Followers()
        self._take(dynamic.load_model(path, self._include_dirs))

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

    def _take(self, loaded: dynamic.Loaded) -> None:
        # One assignment for what a call looks at: it sees all of the old or all of the new.
        self._state = loaded, dynamic.services(loaded.module)
        self._http: tuple[dynamic.Loaded, HttpMap] | None = None

    @property
    def module(self) -> ModuleType:
        """The module that `weego gen` would make of the file."""
        return self._state[0].module

    @property
    def programs(self) -> tuple[Program, ...]:
        """The compiler's model of the file and all it includes, the file itself last."""
        return self._state[0].programs

    @property
    def services(self) -> Mapping[str, ServiceSpec]:
        """The services that the file itself defines, by name."""
        return self._state[1]

    @property
    def sources(self) -> tuple[str, ...]:
        """The files it was made of."""
        return tuple(program.path for program in self.programs)

    def update(self) -> None:
        """Load the file again. When it has mistakes, IdlError is raised and everything stays as it was."""
        fresh = dynamic.load_model(self.path, self._include_dirs)
        old = self.module
        self._take(fresh)
        self._followers.tell()
        dynamic.unload(old)

    def follow(self, changed: Callable[[], None]) -> None:
        """Call `changed` after each update, as long as what it is a method of lives."""
        self._followers.add(changed)

    def method(self, name: str) -> tuple[ServiceSpec, MethodSpec]:
        """`Service.method`, or the method alone where only one service has it. UsageError when there is none."""
        return dynamic.find_method(self.services, name, self.path)

    def arguments(self, spec: MethodSpec, given: object) -> tuple[Any, ...]:
        """The arguments of a call from plain data by their names. JsonError when they do not fit."""
        return dynamic.arguments(spec, {} if given is None else given)

    def given(self, spec: MethodSpec, args: tuple[Any, ...]) -> dict[str, Any]:
        """The plain data of arguments: the other way round."""
        return {
            field.wire_name or field.name: dynamic.to_json(field.type, value)
            for field, value in zip(spec.args, args, strict=True)
            if value is not None
        }

    def plain_request(self, spec: MethodSpec, message: Any) -> Any:
        """The plain data of one message of a method whose client streams."""
        return dynamic.to_json(spec.args[0].type, message)

    def request(self, spec: MethodSpec, given: object) -> Any:
        """One message of a method whose client streams, from plain data."""
        return dynamic.from_json(spec.args[0].type, {} if given is None else given)

    def response(self, spec: MethodSpec, given: object) -> Any:
        """A result, or one message of a stream of them, from plain data."""
        return None if spec.result is None else dynamic.from_json(spec.result, given, "result")

    def plain(self, spec: MethodSpec, value: Any) -> Any:
        """The plain data of a result."""
        return dynamic.to_json(spec.result, value)

    @property
    def http(self) -> HttpMap:
        """The HTTP routes of the services' `api.*` annotations."""
        from weego.http_map import HttpMap

        loaded, services = self._state
        known = self._http
        if known is None or known[0] is not loaded:
            known = self._http = loaded, HttpMap(loaded.programs, services)
        return known[1]


class GenericClient:
    """A client of all services of an IDL, Thrift's or Protobuf's; options are those of `weego.Client`."""

    def __init__(self, address: str | Sequence[str], idl: Idl | ProtoIdl, **options: Any) -> None:
        self.idl: Any = idl
        self._address = address
        self._options = options
        self._clients: dict[str, tuple[ServiceSpec, Client]] = {}
        self._is_closed = False

    def call(self, name: str, arguments: Mapping[str, Any] | None = None, *, timeout: float | None = None) -> Any:
        """Call a method with plain data: arguments by name, for Protobuf the fields of the request. Returns plain data, None for void and oneway.

        Raises JsonError (a UsageError) when the data does not fit, the IDL's exceptions, and RpcError.
        """
        service, spec = self.idl.method(name)
        args = self.idl.arguments(spec, dict(arguments or {}))
        return self.idl.plain(spec, self._invoke(service, spec, args, timeout))

    def call_json(self, name: str, text: str | bytes, *, timeout: float | None = None) -> str:
        """The same with JSON text on both sides; `null` for void."""
        given = _parsed(text)
        service, spec = self.idl.method(name)
        result = self._invoke(service, spec, self.idl.arguments(spec, given), timeout)
        return json.dumps(self.idl.plain(spec, result), ensure_ascii=False)

    def stream(self, name: str, arguments: Mapping[str, Any] | None = None, *, timeout: float | None = None) -> GenericStream:
        """Open a call whose client or server streams; `arguments` only where the client does not."""
        service, spec = self.idl.method(name)
        if not (spec.client_streaming or spec.server_streaming):
            raise UsageError(f"{service.name}.{spec.name} does not stream: use `call`")
        if spec.client_streaming and arguments is not None:
            raise UsageError(f"the client of {service.name}.{spec.name} streams: open it without arguments, and `send` each message")
        args = () if spec.client_streaming else self.idl.arguments(spec, dict(arguments or {}))
        return GenericStream(self.idl, spec, self._client(service)._stream(spec, args, timeout))

    def call_http(self, request: HttpRequest, *, timeout: float | None = None) -> HttpResponse:
        """Call what an HTTP request asks for by the IDL's `api.*` annotations. UsageError when no route fits."""
        route = self.idl.http.find(request)
        result = self._invoke(route.service, route.spec, route.arguments(request), timeout)
        response: HttpResponse = route.response(result)
        return response

    def _invoke(self, service: ServiceSpec, spec: Any, args: tuple[Any, ...], timeout: float | None) -> Any:
        if spec.client_streaming or spec.server_streaming:
            raise UsageError(f"{service.name}.{spec.name} streams: use `stream`")
        return self._client(service)._invoke(spec, args, timeout)

    def _client(self, service: ServiceSpec) -> Client:
        if self._is_closed:
            raise ClosedError("this GenericClient is closed")
        known = self._clients.get(service.full_name)
        if known is None:
            known = self._clients[service.full_name] = service, _client_of(service, self._address, self._options)
        return known[1]

    def close(self) -> None:
        """Close all connections; further calls raise ClosedError."""
        self._is_closed = True
        while self._clients:
            self._clients.popitem()[1][1].close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class GenericStream:
    """A stream of plain data: `send`, `close_send` and `result` where the client streams, iteration where the server does.

    Leaving a `with` block before the end cancels the call. One thread or greenlet may send while another receives.
    """

    def __init__(self, idl: Any, spec: Any, stream: Any) -> None:
        self._idl, self._spec, self._stream = idl, spec, stream

    def send(self, message: Mapping[str, Any] | None = None) -> None:
        """Send one message. JsonError when it does not fit."""
        self._stream.send(self._idl.request(self._spec, message))

    def close_send(self) -> None:
        """Say that no more messages follow."""
        self._stream.close_send()

    def result(self) -> Any:
        """The one answer of a server that does not stream."""
        return self._idl.plain(self._spec, self._stream.result())

    def cancel(self) -> None:
        """Give the call up; the peer is told. Does nothing after the end."""
        self._stream.cancel()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return self._idl.plain(self._spec, next(self._stream))

    def __enter__(self) -> Self:
        self._stream.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stream.__exit__(*exception)


def _parsed(text: str | bytes) -> Any:
    """JSON text as data. JsonError."""
    try:
        return json.loads(text)
    except RecursionError:
        raise dynamic.JsonError("the JSON is nested too deeply") from None
    except ValueError as error:
        raise dynamic.JsonError(f"not JSON: {error}") from None


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
