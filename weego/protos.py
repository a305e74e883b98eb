"""Protobuf IDL at run time: `.proto` files, descriptors, or what a gRPC server says of itself, for calls without generated code.

    shop = ProtoIdl("shop.proto", ["idl/"])                                    # takes protoc: pip install 'weego[proto]'
    shop = ProtoIdl.from_server("tcp://127.0.0.1:8888")                        # gRPC's server reflection, v1 or v1alpha
    with GenericClient("tcp://127.0.0.1:8888", shop) as client:
        client.call("shop.v1.Shop.GetItem", {"id": 7})

Plain data and JSON are Protobuf's own JSON mapping: lowerCamelCase names are written and the `.proto`'s are read too, 64-bit integers are text,
bytes base64, enums names. Each loading makes its own classes; they have nothing to do with those of generated code.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Self

from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet, MethodOptions
from google.protobuf.message import DecodeError

from codec.errors import Code, RpcError, StatusError, UnknownService, UsageError
from codec.protobuf import ProtobufMethodSpec, message_type, protobuf_service
from codec.spec import ServiceSpec
from weego import dynamic
from weego.client import Client

__all__ = ["NoReflection", "ProtoIdl", "ask_server"]

# How long a server may take to describe itself where nobody says (seconds).
DEFAULT_TIMEOUT: Final = 5.0
# A server that answers with ever new files must end somewhere: the largest sets of descriptors that are known have some hundreds.
MOST_FILES: Final = 5000

_IDEMPOTENT: Final = (MethodOptions.NO_SIDE_EFFECTS, MethodOptions.IDEMPOTENT)


class NoReflection(UsageError):
    """The server does not describe itself by gRPC's reflection."""


class ProtoIdl:
    """Services and messages of `.proto` files, loaded at run time; they may be loaded again while clients and servers use them."""

    def __init__(self, path: str | os.PathLike[str], include_dirs: Sequence[str | os.PathLike[str]] = ()) -> None:
        """Raises idlc.IdlError when protoc refuses the file or is missing."""
        self.path = os.fspath(path)
        folders = [os.fspath(each) for each in include_dirs]
        self._begin(lambda: _read(self.path, folders))

    @classmethod
    def from_descriptors(cls, descriptors: bytes | FileDescriptorSet, name: str = "descriptors") -> Self:
        """From a FileDescriptorSet, imports included (`protoc --include_imports --descriptor_set_out`). UsageError when it is none."""
        if not isinstance(descriptors, FileDescriptorSet):
            try:
                descriptors = FileDescriptorSet.FromString(descriptors)
            except DecodeError:
                raise UsageError(f"{name}: these {len(descriptors)} bytes are no FileDescriptorSet") from None
        files = list(descriptors.file)
        return cls._made(name, lambda: (files, []))

    @classmethod
    def from_server(cls, address: str | Sequence[str], *, symbol: str = "", timeout: float = DEFAULT_TIMEOUT, **options: Any) -> Self:
        """From a server's reflection: all its services, or what `symbol` is and needs. Options are those of `weego.Client`.

        Raises NoReflection, and RpcError when the server cannot be asked.
        """
        return cls._made(str(address), lambda: (ask_server(address, symbol=symbol, timeout=timeout, **options), []))

    @classmethod
    def _made(cls, path: str, load: Callable[[], tuple[list[FileDescriptorProto], list[str]]]) -> Self:
        made = cls.__new__(cls)
        made.path = path
        made._begin(load)
        return made

    def _begin(self, load: Callable[[], tuple[list[FileDescriptorProto], list[str]]]) -> None:
        self._load = load
        self._followers: dynamic.Followers = dynamic.Followers()
        self._take(*load())

    def _take(self, files: list[FileDescriptorProto], sources: list[str]) -> None:
        pool = _pool(files, self.path)
        services = {spec.full_name: spec for file in files for spec in _services(pool, file)}
        # One assignment for what a call looks at: it sees all of the old or all of the new.
        self._state = pool, services, tuple(sources)

    @property
    def pool(self) -> Any:
        """protobuf's DescriptorPool of the files."""
        return self._state[0]

    @property
    def services(self) -> Mapping[str, ServiceSpec]:
        """The services by full name."""
        return self._state[1]

    @property
    def sources(self) -> tuple[str, ...]:
        """The files on disk that it was made of, includes too."""
        return self._state[2]

    def update(self) -> None:
        """Load the files, or ask the server, again. When that fails the error is raised and everything stays as it was."""
        self._take(*self._load())
        self._followers.tell()

    def follow(self, changed: Callable[[], None]) -> None:
        """Call `changed` after each update, as long as what it is a method of lives."""
        self._followers.add(changed)

    def method(self, name: str) -> tuple[ServiceSpec, ProtobufMethodSpec]:
        """`package.Service.Method` (also with `/` before the method), or as much of its end as tells it apart. UsageError when there is none."""
        return dynamic.find_method(self.services, name.removeprefix("/").replace("/", "."), self.path)

    def arguments(self, spec: ProtobufMethodSpec, given: object) -> tuple[Any, ...]:
        """The arguments of a call from plain data: one message."""
        return (self.request(spec, given),)

    def request(self, spec: ProtobufMethodSpec, given: object) -> Any:
        """One request message from plain data. JsonError when it does not fit."""
        return self.message(spec.request.cls, {} if given is None else given)

    def response(self, spec: ProtobufMethodSpec, given: object) -> Any:
        """One answer from plain data."""
        return self.message(spec.response.cls, {} if given is None else given)

    def given(self, spec: ProtobufMethodSpec, args: tuple[Any, ...]) -> Any:
        """The plain data of a request: the other way round."""
        return self.plain(spec, args[0])

    def plain_request(self, spec: ProtobufMethodSpec, message: Any) -> Any:
        """The plain data of one message of a stream of requests."""
        return self.plain(spec, message)

    def message(self, cls: Any, given: object) -> Any:
        """A message of a class from plain data."""
        try:
            return json_format.ParseDict(given, cls(), descriptor_pool=self.pool)
        except RecursionError:
            raise dynamic.JsonError("nested too deeply") from None
        except (json_format.ParseError, ValueError, TypeError, AttributeError) as error:  # the latter two for what is no object at all
            raise dynamic.JsonError(f"{cls.DESCRIPTOR.full_name}: {' '.join(str(error).split())}") from None

    def plain(self, spec: ProtobufMethodSpec, message: Any) -> Any:
        """The plain data of a message."""
        try:
            return json_format.MessageToDict(message, descriptor_pool=self.pool)
        except (json_format.Error, TypeError, ValueError) as error:  # an Any of a type that is not known, for one
            raise dynamic.JsonError(f"{spec.name}: the message has no JSON form: {error}") from None


def _read(path: str, include_dirs: list[str]) -> tuple[list[FileDescriptorProto], list[str]]:
    from idlc.errors import Report
    from idlc.proto_protoc import proto_path, read_protos

    report = Report({})
    descriptors, _ = read_protos([path], include_dirs, report)
    report.raise_errors()
    roots = proto_path([path], include_dirs)
    places = (os.path.join(root, file.name) for file in descriptors.file for root in roots)
    return list(descriptors.file), [place for place in places if os.path.isfile(place)]


def _pool(files: Iterable[FileDescriptorProto], where: str) -> Any:
    """A pool of the files, in whatever order they come."""
    pool: Any = descriptor_pool.DescriptorPool()
    by_name = {file.name: file for file in files}
    done: set[str] = set()

    def add(name: str, chain: tuple[str, ...]) -> None:
        if name in done:
            return
        if name in chain:
            raise UsageError(f"{where}: {' imports '.join([*chain, name])}")
        file = by_name.get(name)
        if file is None:
            raise UsageError(f"{where}: {chain[-1]} imports {name}, which is not there")
        for each in file.dependency:
            add(each, (*chain, name))
        try:
            pool.AddSerializedFile(file.SerializeToString())
        except TypeError as error:
            raise UsageError(f"{where}: {name} is no whole descriptor: {error}") from None
        done.add(name)

    for name in by_name:
        add(name, ())
    return pool


def _services(pool: Any, file: FileDescriptorProto) -> Iterable[ServiceSpec]:
    for each in pool.FindFileByName(file.name).services_by_name.values():
        methods = [
            ProtobufMethodSpec(
                method.name,
                request=message_type(message_factory.GetMessageClass(method.input_type)),
                response=message_type(message_factory.GetMessageClass(method.output_type)),
                client_streaming=method.client_streaming,
                server_streaming=method.server_streaming,
                idempotent=method.GetOptions().idempotency_level in _IDEMPOTENT,
            )
            for method in each.methods
        ]
        yield protobuf_service(each.full_name, tuple(methods))


# ---- asking a server -------------------------------------------------------------------------------------------------


def ask_server(address: str | Sequence[str], *, symbol: str = "", timeout: float = DEFAULT_TIMEOUT, **options: Any) -> list[FileDescriptorProto]:
    """The files of all services of a server, or of `symbol`, and what they import. NoReflection when it does not tell."""
    from weego.grpc_services import reflection_spec

    refused: RpcError | None = None
    for version in ("v1", "v1alpha"):
        spec, classes = reflection_spec(version)
        cls: type[Client] = type("ReflectionClient", (Client,), {"__spec__": spec})
        with cls(address, framing="grpc", **options) as client:
            try:
                return _Asking(client, classes["ServerReflectionRequest"], timeout).files(symbol)
            except RpcError as error:
                if not isinstance(error, UnknownService) and error.code != Code.UNIMPLEMENTED:
                    raise
                refused = error
    raise NoReflection(f"{address}: the server does not describe its services by gRPC reflection ({refused})")


class _Asking:
    """One conversation with a reflection service."""

    def __init__(self, client: Client, request: Any, timeout: float) -> None:
        (spec,) = client.__spec__.methods.values()
        self._stream = client._stream(spec, (), timeout)
        self._request = request

    def _ask(self, **asked: str) -> Any:
        self._stream.send(self._request(**asked))
        answer = next(self._stream, None)
        if answer is None:
            raise StatusError(Code.INTERNAL, "the reflection service ended before it answered")
        if answer.WhichOneof("message_response") == "error_response":
            raise UsageError(f"the server's reflection knows no {next(iter(asked.values()))}: {answer.error_response.error_message}")
        return answer

    def files(self, symbol: str) -> list[FileDescriptorProto]:
        with self._stream:
            symbols = [symbol] if symbol else [each.name for each in self._ask(list_services="*").list_services_response.service]
            found: dict[str, FileDescriptorProto] = {}
            for each in symbols:
                self._add(found, self._ask(file_containing_symbol=each))
            while missing := next((name for file in found.values() for name in file.dependency if name not in found), None):
                self._add(found, self._ask(file_by_filename=missing))
                if missing not in found:
                    raise UsageError(f"the server's reflection was asked for the file {missing} and gave others")
            self._stream.close_send()
        return list(found.values())

    def _add(self, found: dict[str, FileDescriptorProto], answer: Any) -> None:
        for data in answer.file_descriptor_response.file_descriptor_proto:
            try:
                file = FileDescriptorProto.FromString(data)
            except DecodeError:
                raise UsageError("the server's reflection gave something that is no descriptor") from None
            found.setdefault(file.name, file)
        if len(found) > MOST_FILES:
            raise UsageError(f"the server's reflection gave more than {MOST_FILES} files")
