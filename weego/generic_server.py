"""Services without generated code: one function answers all methods of a service of an IDL that was loaded at run time.

    weego.Server(generic_service(idl, "Shop", handle))           # handle("getItem", {"id": 7}) -> {...}
    weego.Server(generic_service(idl, "Shop", handle, live=True))
    watch_idl(idl)                                               # and the service follows the file

Where the client streams, the function is given an iterator of messages in the place of the arguments; where the server does, it returns something to
iterate, such as a generator. `idl` is an Idl or a ProtoIdl.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from codec.errors import ApplicationError, ApplicationErrorType, ProtocolError, UsageError
from codec.protobuf import MessageType, ProtobufMethodSpec, protobuf_service
from codec.spec import RawMethodSpec, Service, ServiceSpec, unimplemented
from codec.structs import IdlException
from codec.types import StructType
from governance.call import current
from weego import dynamic

if TYPE_CHECKING:
    from weego.generic import Idl
    from weego.protos import ProtoIdl

__all__ = ["GenericException", "IdlWatch", "generic_service", "watch_idl"]

log: Final = logging.getLogger("weego.idl")

Handler: TypeAlias = Callable[[str, Any], Any]

_FORMS: Final = ("data", "json", "bytes")


class GenericException(Exception):
    """Raised by a generic handler: an exception that the IDL declares for the method, by its name and fields."""

    def __init__(self, name: str, fields: Mapping[str, Any] | None = None) -> None:
        super().__init__(name, dict(fields or {}))
        self.name = name
        self.fields = dict(fields or {})


def generic_service(idl: Idl | ProtoIdl, service: str, handler: Handler, *, form: str = "data", live: bool = False) -> Service:
    """An object to serve, all of whose methods are one function: ``handler(method, arguments) -> result``.

    Args:
        idl: where the service is defined.
        service: its name in the IDL; for Protobuf with its package, or without where that is enough.
        handler: is called with the IDL's name of the method. It raises GenericException for an exception that the IDL declares.
        form: "data": a dict by argument names (Protobuf: of the request's fields), and plain data back. "json": the same as text. "bytes":
            what is on the wire, for Thrift the args struct and the result struct in the protocol of the caller, for Protobuf messages.
        live: follow the IDL: after `idl.update()` calls are read and written by the new one, methods come and go. Calls in progress end as they
            began. Rules (`vt.*`) are not checked by the server then, for it passes bytes on. Thrift methods that stream cannot be live.

    Raises UsageError when the IDL has no such service.
    """
    if form not in _FORMS:
        raise UsageError(f'form is "data", "json" or "bytes", not {form!r}')
    spec = _service(idl, service)
    if live:
        return _Live(idl, spec, handler, form)
    if form == "bytes":
        raw = _raw_service(spec)
        methods: dict[str, Any] = {method.py_name: _passing(method.name, handler) for method in raw.methods.values()}
        methods["__spec__"] = raw
    else:
        methods = {method.py_name: _answering(idl, method, handler, text=form == "json") for method in spec.methods.values()}
        methods["__spec__"] = spec
    if spec.kind == "protobuf":
        methods["__weego_pool__"] = lambda _self: idl.pool  # type: ignore[union-attr]
    cls: type[Service] = type(f"Generic{spec.name}", (Service,), methods)
    return cls()


def _service(idl: Any, name: str) -> ServiceSpec:
    found = [spec for full, spec in idl.services.items() if full == name] or [
        spec for full, spec in idl.services.items() if full.endswith(f".{name}")
    ]
    if len(found) != 1:
        several = f"it is {' and '.join(spec.full_name for spec in found)}: name the package too" if found else ""
        raise UsageError(f'no service "{name}" in {idl.path}; {several or dynamic.likely(name, idl.services)}')
    spec: ServiceSpec = found[0]
    return spec


def _answering(idl: Any, spec: Any, handler: Handler, *, text: bool) -> Callable[..., Any]:
    """The method of a service that is given and gives values."""

    def method(_self: object, *args: Any) -> Any:
        try:
            if spec.client_streaming:
                result = handler(spec.name, _asked(idl, spec, args[0], text=text))
            else:
                given = idl.given(spec, args)
                result = handler(spec.name, json.dumps(given, ensure_ascii=False) if text else given)
        except GenericException as error:
            raise _declared(spec, error) from error
        if spec.server_streaming:
            return _answers(idl, spec, result, text=text)
        return idl.response(spec, json.loads(result) if text and result is not None else result)

    return method


def _asked(idl: Any, spec: Any, messages: Iterator[Any], *, text: bool) -> Iterator[Any]:
    for message in messages:
        given = idl.plain_request(spec, message)
        yield json.dumps(given, ensure_ascii=False) if text else given


def _answers(idl: Any, spec: Any, results: Any, *, text: bool) -> Iterator[Any]:
    try:
        for each in results:
            yield idl.response(spec, json.loads(each) if text else each)
    except GenericException as error:
        raise _declared(spec, error) from error


def _declared(spec: Any, error: GenericException) -> Exception:
    """The exception of the IDL that a handler speaks of."""
    throws = [field.type for field in getattr(spec, "throws", ()) if isinstance(field.type, StructType)]
    for each in throws:
        if each.cls.__name__ == error.name:
            made: Exception = dynamic.from_json(each, error.fields, error.name)
            return made
    declared = [each.cls.__name__ for each in throws]
    return UsageError(f"{spec.name} does not declare the exception {error.name}; {dynamic.likely(error.name, declared)}")


# ---- bytes -----------------------------------------------------------------------------------------------------------


def _raw_service(spec: ServiceSpec) -> ServiceSpec:
    """The same service with bytes for messages."""
    if spec.kind == "protobuf":
        return protobuf_service(spec.full_name, tuple(_raw_proto(method) for method in spec.methods.values()))
    for method in spec.methods.values():
        if method.client_streaming or method.server_streaming:
            raise UsageError(f"{spec.name}.{method.name} streams; methods of Thrift that stream have no form as bytes")
    return ServiceSpec(spec.name, [RawMethodSpec(method.name, oneway=method.oneway) for method in spec.methods.values()])


def _raw_proto(method: ProtobufMethodSpec) -> ProtobufMethodSpec:
    return ProtobufMethodSpec(
        method.name,
        request=MessageType(bytes, method.request.full_name, _bytes_of(method.request.full_name), bytes),
        response=MessageType(bytes, method.response.full_name, _bytes_of(method.response.full_name), bytes),
        client_streaming=method.client_streaming,
        server_streaming=method.server_streaming,
        idempotent=method.idempotent,
    )


def _bytes_of(full_name: str) -> Callable[[Any], bytes]:
    def encode(value: Any) -> bytes:
        if not isinstance(value, bytes | bytearray | memoryview):
            raise UsageError(f"expected the bytes of a {full_name}, got {type(value).__name__}")
        return bytes(value)

    return encode


def _passing(name: str, handler: Handler) -> Callable[..., Any]:
    def method(_self: object, payload: Any) -> Any:
        return handler(name, payload)

    return method


# ---- following an IDL ------------------------------------------------------------------------------------------------


class _Live(Service):
    """Takes bytes and gives bytes; what they mean is looked up at each call. A server asks it to say when its methods change."""

    def __init__(self, idl: Any, spec: ServiceSpec, handler: Handler, form: str) -> None:
        self._idl, self._name, self._kind, self._handler, self._form = idl, spec.full_name, spec.kind, handler, form
        self._followers = dynamic.Followers()
        self._specs: dict[str, Any] = {}
        self._take()
        idl.follow(self._changed)

    def __weego_pool__(self) -> Any:
        """The descriptors, for gRPC's reflection."""
        return self._idl.pool

    def __weego_follow__(self, changed: Callable[[], None]) -> None:
        """Call `changed` when `__spec__` has become another one."""
        self._followers.add(changed)

    def _changed(self) -> None:
        self._take()
        self._followers.tell()

    def _take(self) -> None:
        spec = self._idl.services.get(self._name)
        if spec is None:  # gone from the IDL: a service without methods
            spec = protobuf_service(self._name, ()) if self._kind == "protobuf" else ServiceSpec(self._name, ())
        raw = _raw_service(spec)
        for method in raw.methods.values():
            setattr(self, method.py_name, self._entrance(method.name, server_streaming=method.server_streaming))
        self._specs = dict(spec.methods)
        vars(self)["__spec__"] = raw  # the one of this object, which changes

    def _entrance(self, name: str, *, server_streaming: bool) -> Callable[[Any], Any]:
        def method(payload: Any) -> Any:
            spec = self._specs.get(name)  # the one of now: the server may have kept this function from before
            if spec is None:
                raise unimplemented(self._name, name)
            if self._form == "bytes":
                return self._handler(name, payload)
            return self._protobuf(spec, payload) if spec.kind == "protobuf" else self._thrift(spec, payload)

        return method

    def _thrift(self, spec: Any, payload: bytes) -> bytes:
        call = current()
        compact = call is not None and call.protocol.endswith("-compact")
        try:
            args = spec.args_plan.loads(payload, compact)
        except ProtocolError as error:
            raise ApplicationError(error.message, ApplicationErrorType.PROTOCOL_ERROR) from error
        try:
            result = _answering(self._idl, spec, self._handler, text=self._form == "json")(self, *args)
        except IdlException as error:
            data = spec.result_plan.dumps_exception(error, compact)
            if data is None:
                raise
            return bytes(data)
        return b"" if spec.oneway else bytes(spec.result_plan.dumps(result, compact))

    def _protobuf(self, spec: Any, payload: Any) -> Any:
        decode, encode = spec.request.decode, spec.response.encode
        asked = map(decode, payload) if spec.client_streaming else decode(payload)
        result = _answering(self._idl, spec, self._handler, text=self._form == "json")(self, asked)
        return map(encode, result) if spec.server_streaming else encode(result)


class IdlWatch:
    """Loads an IDL again when one of its files changes; made by `watch_idl`."""

    def __init__(self, idl: Any, interval: float) -> None:
        self._idl = idl
        self._interval = interval
        self._seen = self._look()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="weego-idl-watch", daemon=True)
        self._thread.start()

    def _look(self) -> dict[str, tuple[int, int, int]]:
        """What tells one version of the files from another."""
        found = {}
        for path in self._idl.sources:
            try:
                stat = os.stat(path)
            except OSError:
                continue  # being replaced, or gone: loading it will say so
            found[path] = stat.st_mtime_ns, stat.st_size, stat.st_ino
        return found

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            self.look()

    def look(self) -> bool:
        """Load the IDL again if a file has changed since the last look; True when that was done. Mistakes are logged, and the old IDL stays."""
        now = self._look()
        if now == self._seen:
            return False
        self._seen = now
        try:
            self._idl.update()
        except Exception as error:  # mistakes in the IDL, protoc that is gone, files that vanish: whatever it is, the old one serves
            log.warning("%s has changed and cannot be loaded, so the old one stays: %s", self._idl.path, error)
            return False
        # Another file may be included now; what changed while the others were read is for the next look.
        self._seen = {path: now.get(path, stamp) for path, stamp in self._look().items()}
        log.info("%s has changed and was loaded again", self._idl.path)
        return True

    def stop(self) -> None:
        """Look no more; returns when the last look is over."""
        self._stop.set()
        if self._thread is not threading.current_thread():
            self._thread.join()


def watch_idl(idl: Idl | ProtoIdl, interval: float = 1.0) -> IdlWatch:
    """Look every `interval` seconds, in a thread (in a gevent program a greenlet), whether the IDL's files have changed, and load them again then.

    UsageError for one that has no files: from text, or from a server.
    """
    if not any(os.path.exists(path) for path in idl.sources):
        raise UsageError(f"{idl.path} has no files to watch; call update() when you know that it has changed")
    if not interval > 0:
        raise UsageError(f"interval must be a number of seconds above 0, got {interval!r}")
    return IdlWatch(idl, interval)
