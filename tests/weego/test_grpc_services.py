"""Health and reflection, as their peers ask for them."""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2

from codec.errors import Code
from tests.support.grpc_echo import NAME, EchoService, Request
from tests.support.grpc_wire import GrpcWire
from tests.support.net import served, with_hub, without_hub
from weego.grpc_services import NOT_SERVING, SERVING, Health, _health, _reflection
from weego.serving import GrpcOptions


def ask(wire: GrpcWire, path: str, cls: Any, *requests: Any) -> tuple[int, list[Any]]:
    stream = wire.open(path)
    for request in requests:
        stream.write_message(request.SerializeToString())
    wire.send(stream, b"", end=True)
    status, _ = wire.finish(stream)
    found = []
    while (payload := stream.next_message()) is not None:
        found.append(cls.FromString(payload))
    return status, found


@without_hub
def test_health_is_told_for_each_service_and_follows_the_drain() -> None:
    _, classes = _health()
    question, answer = classes["HealthCheckRequest"], classes["HealthCheckResponse"]
    check, watch = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
    with served(EchoService()) as server:
        wire = GrpcWire(server.addresses[0])
        for name in ("", NAME):
            assert ask(wire, check, answer, question(service=name)) == (0, [answer(status=SERVING)])
        assert ask(wire, check, answer, question(service="no.Such"))[0] == Code.NOT_FOUND
        watching = wire.open(watch)
        watching.write_message(question().SerializeToString(), end=True)
        wire.flush()
        wire.until(lambda: watching.messages)
        assert answer.FromString(watching.next_message()).status == SERVING
        import threading

        stopping = threading.Thread(target=server.stop)
        stopping.start()
        wire.until(lambda: not watching.is_open)
        assert answer.FromString(watching.next_message()).status == NOT_SERVING
        assert wire.protocol.peer_leaving
        stopping.join()
        wire.close()


@without_hub
def test_reflection_tells_what_there_is_in_both_versions() -> None:
    with served(EchoService()) as server, GrpcWire(server.addresses[0]) as wire:
        for version in ("v1", "v1alpha"):
            _, classes = _reflection(version)
            question, answer = classes["ServerReflectionRequest"], classes["ServerReflectionResponse"]
            path = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
            status, found = ask(
                wire,
                path,
                answer,
                question(list_services=""),
                question(file_containing_symbol=NAME),
                question(file_containing_symbol=f"{NAME}.Say"),
                question(file_by_filename="weego/test/v1/echo.proto"),
                question(file_containing_symbol="grpc.health.v1.Health"),
                question(file_by_filename="no/such.proto"),
                question(all_extension_numbers_of_type="weego.test.v1.Request"),
                question(),
            )
            assert status == 0
            assert [each.name for each in found[0].list_services_response.service] == [
                "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection", NAME,
            ]  # fmt: skip
            for each in found[1:4]:
                (data,) = each.file_descriptor_response.file_descriptor_proto
                assert descriptor_pb2.FileDescriptorProto.FromString(data).service[0].name == "Echo"
            assert found[4].file_descriptor_response.file_descriptor_proto
            assert found[5].error_response.error_code == Code.NOT_FOUND
            assert found[6].all_extension_numbers_response.base_type_name == "weego.test.v1.Request"
            assert found[7].error_response.error_code == Code.INVALID_ARGUMENT


@without_hub
def test_they_can_be_left_out() -> None:
    options = GrpcOptions(health=False, reflection=False)
    with served(EchoService(), grpc=options) as server, GrpcWire(server.addresses[0]) as wire:
        for path in ("/grpc.health.v1.Health/Check", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"):
            assert wire.call(path, Request())[0] == Code.UNIMPLEMENTED


@with_hub
def test_health_of_a_lame_server_and_back() -> None:
    _, classes = _health()
    question = classes["HealthCheckRequest"](service=NAME)
    health = Health([NAME])
    watch = health._watch(question)
    assert next(watch).status == SERVING
    health.pretend(lame=True)
    assert health._check(question).status == next(watch).status == NOT_SERVING
    health.pretend(lame=False)
    assert health._check(question).status == next(watch).status == SERVING
    health.leave(handed_over=True)
    assert list(watch) == [], "others serve there: nothing has changed for who watches"
