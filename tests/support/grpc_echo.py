"""A gRPC service of all four kinds of call, made without `weego gen`, for servers of ours and for peers' clients and servers alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from codec.protobuf import ProtobufMethodSpec, message_type, protobuf_service
from codec.spec import Service, ServiceSpec, unimplemented

NAME = "weego.test.v1.Echo"


def _classes() -> tuple[Any, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="weego/test/v1/echo.proto", package="weego.test.v1", syntax="proto3")
    kinds = descriptor_pb2.FieldDescriptorProto
    for name in ("Request", "Reply"):
        message = file.message_type.add(name=name)
        for number, (field, kind) in enumerate(
            [("message", kinds.TYPE_STRING), ("body", kinds.TYPE_BYTES), ("count", kinds.TYPE_INT32), ("action", kinds.TYPE_STRING)], 1
        ):
            message.field.add(name=field, number=number, type=kind, label=kinds.LABEL_OPTIONAL)
    service = file.service.add(name="Echo")
    for name, client, server in (("Say", False, False), ("Watch", False, True), ("Collect", True, False), ("Chat", True, True)):
        service.method.add(
            name=name,
            input_type=".weego.test.v1.Request",
            output_type=".weego.test.v1.Reply",
            client_streaming=client,
            server_streaming=server,
        )
    found = descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
    made = [message_factory.GetMessageClass(found.message_types_by_name[name]) for name in ("Request", "Reply")]
    return made[0], made[1]


Request, Reply = _classes()


def _method(name: str, py_name: str, *, client: bool = False, server: bool = False) -> ProtobufMethodSpec:
    return ProtobufMethodSpec(
        name,
        py_name=py_name,
        request=message_type(Request),
        response=message_type(Reply),
        client_streaming=client,
        server_streaming=server,
    )


METHODS = (
    _method("Say", "say"),
    _method("Watch", "watch", server=True),
    _method("Collect", "collect", client=True),
    _method("Chat", "chat", client=True, server=True),
)


class Echo(Service):
    """The service base, as `weego gen` would write it."""

    __spec__: ClassVar[ServiceSpec] = protobuf_service(NAME, METHODS)

    def say(self, request: Any) -> Any:
        raise unimplemented("Echo", "Say")

    def watch(self, request: Any) -> Iterator[Any]:
        raise unimplemented("Echo", "Watch")

    def collect(self, requests: Iterator[Any]) -> Any:
        raise unimplemented("Echo", "Collect")

    def chat(self, requests: Iterator[Any]) -> Iterator[Any]:
        raise unimplemented("Echo", "Chat")


class EchoService(Echo):
    """Answers what it is asked. `actions` are done first: by the request's `action`, with the request."""

    def __init__(self, **actions: Callable[[Any], Any]) -> None:
        self.actions = actions

    def _act(self, request: Any) -> Any:
        return self.actions[request.action](request) if request.action in self.actions else None

    def say(self, request: Any) -> Any:
        done = self._act(request)
        return done if isinstance(done, Reply) else Reply(message=request.message, body=request.body)

    def watch(self, request: Any) -> Iterator[Any]:
        for number in range(request.count):
            self._act(request)
            yield Reply(message=request.message, body=request.body, count=number)

    def collect(self, requests: Iterator[Any]) -> Any:
        count, size, last = 0, 0, ""
        for request in requests:
            self._act(request)
            count += 1
            size += len(request.body)
            last = request.message
        return Reply(message=f"{size} {last}", count=count)

    def chat(self, requests: Iterator[Any]) -> Iterator[Any]:
        for request in requests:
            self._act(request)
            yield Reply(message=request.message, body=request.body, count=request.count)
