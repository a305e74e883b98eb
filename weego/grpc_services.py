"""The services that every gRPC server has: health (`grpc.health.v1`) and reflection (`grpc.reflection.v1` and `v1alpha`).

Their messages live in a descriptor pool of their own, so that a program may also import those that grpcio's packages bring.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any, Final

from gevent.event import Event
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from codec.errors import Code, StatusError
from codec.protobuf import ProtobufMethodSpec, message_type, protobuf_service
from codec.spec import Service, ServiceSpec

__all__ = ["Health", "reflection_services", "reflection_spec"]

_KINDS: Final = {"string": 9, "bytes": 12, "int32": 5, "int64": 3, "uint32": 13, "bool": 8, "enum": 14, "message": 11}

SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3


@cache
def _pool() -> Any:
    return descriptor_pool.DescriptorPool()


def _file(name: str, package: str) -> descriptor_pb2.FileDescriptorProto:
    return descriptor_pb2.FileDescriptorProto(name=name, package=package, syntax="proto3")


def _message(file: Any, name: str, *fields: tuple[int, str, str, bool], oneof: str = "", plain: Iterable[str] = ()) -> None:
    """Add a message; a field is number, name, type (a name begins with a dot or is one of _KINDS), repeated."""
    _fields(file.message_type.add(name=name), file.package, *fields, oneof=oneof, plain=plain)


def _fields(message: Any, package: str, *fields: tuple[int, str, str, bool], oneof: str = "", plain: Iterable[str] = ()) -> None:
    if oneof:
        message.oneof_decl.add(name=oneof)
    for number, field_name, kind, repeated in fields:
        field = message.field.add(name=field_name, number=number, label=3 if repeated else 1)
        if kind.startswith("."):
            field.type = _KINDS["enum"] if kind.endswith(("Status", ".State")) else _KINDS["message"]
            field.type_name = kind if kind.startswith(".google.") else f".{package}{kind}"
        else:
            field.type = _KINDS[kind]
        if oneof and field_name not in plain:
            field.oneof_index = 0


def _service(file: Any, name: str, *methods: tuple[str, str, str, bool, bool]) -> None:
    service = file.service.add(name=name)
    for method, request, response, client, server in methods:
        service.method.add(
            name=method,
            input_type=f".{file.package}.{request}",
            output_type=f".{file.package}.{response}",
            client_streaming=client,
            server_streaming=server,
        )


def _build(file: Any) -> tuple[Any, dict[str, Any]]:
    """The FileDescriptor, and the message classes by name."""
    found = _pool().AddSerializedFile(file.SerializeToString()) or _pool().FindFileByName(file.name)
    return found, {name: message_factory.GetMessageClass(each) for name, each in found.message_types_by_name.items()}


def _base(file: Any, classes: dict[str, Any], **py_names: str) -> type[Service]:
    """A service base like those that `weego gen` writes, of the file's one service."""
    (descriptor,) = file.services_by_name.values()
    methods = tuple(
        ProtobufMethodSpec(
            method.name,
            py_name=py_names[method.name],
            request=message_type(classes[method.input_type.name]),
            response=message_type(classes[method.output_type.name]),
            client_streaming=method.client_streaming,
            server_streaming=method.server_streaming,
        )
        for method in descriptor.methods
    )
    return type(descriptor.name, (Service,), {"__spec__": protobuf_service(descriptor.full_name, methods)})


# ---- health ------------------------------------------------------------------------------------------------------------


@cache
def _health() -> tuple[type[Service], dict[str, Any]]:
    file = _file("grpc/health/v1/health.proto", "grpc.health.v1")
    _message(file, "HealthCheckRequest", (1, "service", "string", False))
    _message(file, "HealthCheckResponse", (1, "status", ".HealthCheckResponse.ServingStatus", False))
    status = file.message_type[1].enum_type.add(name="ServingStatus")
    for number, name in enumerate(("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")):
        status.value.add(name=name, number=number)
    _service(
        file,
        "Health",
        ("Check", "HealthCheckRequest", "HealthCheckResponse", False, False),
        ("Watch", "HealthCheckRequest", "HealthCheckResponse", False, True),
    )
    found, classes = _build(file)
    return _base(found, classes, Check="check", Watch="watch"), classes


class Health:
    """The health of one server: `service` is what to serve. It serves from the beginning until it leaves."""

    def __init__(self, names: Iterable[str]) -> None:
        base, classes = _health()
        self.names = {"", *names}
        self._changed = Event()
        self._left = self._lame = False
        self._handed_over = False
        self._reply = classes["HealthCheckResponse"]
        self.service: Any = type("HealthService", (base,), {"check": self._check, "watch": self._watch})()

    def leave(self, *, handed_over: bool) -> None:
        """The server drains. `handed_over`: others serve on its address, so nothing is wrong for those who watch it."""
        self._left = True
        self._handed_over = handed_over
        self._changed.set()

    def pretend(self, *, lame: bool) -> None:
        """The server is about to leave: say that it does not serve, although it does; or no longer say so."""
        self._lame = lame
        changed, self._changed = self._changed, Event()
        changed.set()

    def _status(self, name: str) -> int:
        if name not in self.names:
            return SERVICE_UNKNOWN
        return NOT_SERVING if self._lame or (self._left and not self._handed_over) else SERVING

    def _check(self, request: Any) -> Any:
        if request.service not in self.names:
            raise StatusError(Code.NOT_FOUND, f"there is no service {request.service}")
        return self._reply(status=self._status(request.service))

    def _watch(self, request: Any) -> Iterator[Any]:
        """Now, and when it changes. Ends when the server leaves, for the next look belongs to another one."""
        told = None
        while True:
            status, changed = self._status(request.service), self._changed
            if status != told:
                yield self._reply(status=status)
                told = status
            if self._left:
                return
            changed.wait()


# ---- reflection --------------------------------------------------------------------------------------------------------


@cache
def _reflection(version: str) -> tuple[type[Service], dict[str, Any]]:
    file = _file(f"grpc/reflection/{version}/reflection.proto", f"grpc.reflection.{version}")
    _message(
        file,
        "ServerReflectionRequest",
        (1, "host", "string", False),
        (3, "file_by_filename", "string", False),
        (4, "file_containing_symbol", "string", False),
        (5, "file_containing_extension", ".ExtensionRequest", False),
        (6, "all_extension_numbers_of_type", "string", False),
        (7, "list_services", "string", False),
        oneof="message_request",
        plain=("host",),
    )
    _message(file, "ExtensionRequest", (1, "containing_type", "string", False), (2, "extension_number", "int32", False))
    _message(
        file,
        "ServerReflectionResponse",
        (1, "valid_host", "string", False),
        (2, "original_request", ".ServerReflectionRequest", False),
        (4, "file_descriptor_response", ".FileDescriptorResponse", False),
        (5, "all_extension_numbers_response", ".ExtensionNumberResponse", False),
        (6, "list_services_response", ".ListServiceResponse", False),
        (7, "error_response", ".ErrorResponse", False),
        oneof="message_response",
        plain=("valid_host", "original_request"),
    )
    _message(file, "FileDescriptorResponse", (1, "file_descriptor_proto", "bytes", True))
    _message(file, "ExtensionNumberResponse", (1, "base_type_name", "string", False), (2, "extension_number", "int32", True))
    _message(file, "ListServiceResponse", (1, "service", ".ServiceResponse", True))
    _message(file, "ServiceResponse", (1, "name", "string", False))
    _message(file, "ErrorResponse", (1, "error_code", "int32", False), (2, "error_message", "string", False))
    _service(file, "ServerReflection", ("ServerReflectionInfo", "ServerReflectionRequest", "ServerReflectionResponse", True, True))
    found, classes = _build(file)
    return _base(found, classes, ServerReflectionInfo="server_reflection_info"), classes


def reflection_spec(version: str) -> tuple[ServiceSpec, dict[str, Any]]:
    """The reflection service ("v1" or "v1alpha") as a client calls it, and its message classes by name."""
    base, classes = _reflection(version)
    return base.__spec__, classes


def reflection_services(names: Callable[[], Iterable[str]], pools: Callable[[], Iterable[Any]] = tuple) -> list[Any]:
    """The services to serve; `names` gives the full names of all services there are, `pools` the descriptors of those that are not generated."""
    made = []
    for version in ("v1", "v1alpha"):
        base, classes = _reflection(version)
        answer = _answers(classes["ServerReflectionResponse"], names, pools)
        made.append(type("ReflectionService", (base,), {"server_reflection_info": answer})())
    return made


def _answers(response: Any, names: Callable[[], Iterable[str]], pools: Callable[[], Iterable[Any]]) -> Any:
    def server_reflection_info(_: Any, requests: Iterator[Any]) -> Iterator[Any]:
        for request in requests:
            reply = response(valid_host=request.host, original_request=request)
            try:
                _answer(request, reply, names, [*pools(), descriptor_pool.Default(), _pool()])
            except KeyError as error:
                reply.error_response.error_code = int(Code.NOT_FOUND)
                reply.error_response.error_message = f"not found: {error.args[0] if error.args else ''}"
            yield reply

    return server_reflection_info


def _answer(request: Any, reply: Any, names: Callable[[], Iterable[str]], pools: list[Any]) -> None:
    kind = request.WhichOneof("message_request")
    if kind == "list_services":
        for name in sorted(names()):
            reply.list_services_response.service.add(name=name)
    elif kind == "file_by_filename":
        _add_files(reply, _find(pools, lambda pool: pool.FindFileByName(request.file_by_filename)))
    elif kind == "file_containing_symbol":
        symbol = request.file_containing_symbol
        _add_files(reply, _find(pools, lambda pool: _file_of_symbol(pool, symbol)))
    elif kind == "file_containing_extension":
        wanted = request.file_containing_extension

        def extension(pool: Any) -> Any:
            return pool.FindExtensionByNumber(pool.FindMessageTypeByName(wanted.containing_type), wanted.extension_number).file

        _add_files(reply, _find(pools, extension))
    elif kind == "all_extension_numbers_of_type":
        name = request.all_extension_numbers_of_type
        reply.all_extension_numbers_response.base_type_name = name
        numbers = _find(pools, lambda pool: [each.number for each in pool.FindAllExtensions(pool.FindMessageTypeByName(name))])
        reply.all_extension_numbers_response.extension_number.extend(sorted(numbers))
    else:
        reply.error_response.error_code = int(Code.INVALID_ARGUMENT)
        reply.error_response.error_message = "the request asks for nothing that is known here"


def _find(pools: list[Any], look: Callable[[Any], Any]) -> Any:
    """What the first of the pools says that knows. KeyError."""
    for pool in pools[:-1]:
        try:
            return look(pool)
        except KeyError:
            continue
    return look(pools[-1])


def _file_of_symbol(pool: Any, symbol: str) -> Any:
    """The file that defines a symbol; a method is part of its service, a field of its message."""
    try:
        return pool.FindFileContainingSymbol(symbol)
    except KeyError:
        parent = symbol.rpartition(".")[0]
        if not parent:
            raise
        return pool.FindFileContainingSymbol(parent)


def _add_files(reply: Any, file: Any) -> None:
    """A file and all that it imports, each once, itself first."""
    seen: set[str] = set()
    waiting = [file]
    while waiting:
        each = waiting.pop(0)
        if each.name not in seen:
            seen.add(each.name)
            reply.file_descriptor_response.file_descriptor_proto.append(each.serialized_pb)
            waiting += each.dependencies
