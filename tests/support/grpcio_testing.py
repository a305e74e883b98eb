"""grpcio's side of gRPC's interoperability tests, as a program: never in the same process as weego.

    python grpcio_testing.py FOLDER serve [CERT KEY]           # prints its port; with REFLECTION in its environment it describes itself
    python grpcio_testing.py FOLDER call PORT CA [CASE …]      # all cases but these; says "passed NAME" for each; CA "-": no TLS

FOLDER has the testing_pb2.py that `weego gen` made of tests/interop/grpc/testing.proto.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc

ECHO_INITIAL = "x-grpc-test-echo-initial"
ECHO_TRAILING = "x-grpc-test-echo-trailing-bin"
SERVICE = "grpc.testing.TestService"


def messages(folder: str) -> Any:
    spec = importlib.util.spec_from_file_location("testing_pb2", next(Path(folder).rglob("testing_pb2.py")))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def serve(t: Any, cert: str | None, key: str | None) -> None:
    def echo_metadata(context: Any) -> None:
        found = dict(context.invocation_metadata())
        if ECHO_INITIAL in found:
            context.send_initial_metadata(((ECHO_INITIAL, found[ECHO_INITIAL]),))
        if ECHO_TRAILING in found:
            context.set_trailing_metadata(((ECHO_TRAILING, found[ECHO_TRAILING]),))

    def fail_as_told(request: Any, context: Any) -> None:
        if request.response_status.code:
            code = next(each for each in grpc.StatusCode if each.value[0] == request.response_status.code)
            context.abort(code, request.response_status.message)

    def unary(request: Any, context: Any) -> Any:
        echo_metadata(context)
        fail_as_told(request, context)
        if request.response_compressed.value:
            context.set_compression(grpc.Compression.Gzip)
        return t.SimpleResponse(payload=t.Payload(body=bytes(request.response_size)))

    def outputs(request: Any, context: Any) -> Iterator[Any]:
        for each in request.response_parameters:
            time.sleep(each.interval_us / 1e6)
            yield t.StreamingOutputCallResponse(payload=t.Payload(body=bytes(each.size)))
        fail_as_told(request, context)

    def total(requests: Any, context: Any) -> Any:
        return t.StreamingInputCallResponse(aggregated_payload_size=sum(len(each.payload.body) for each in requests))

    def duplex(requests: Any, context: Any) -> Iterator[Any]:
        echo_metadata(context)
        for request in requests:
            fail_as_told(request, context)
            yield from outputs(request, context)

    def of(make: Any, run: Any, request: Any, response: Any) -> Any:
        return make(run, request_deserializer=request.FromString, response_serializer=response.SerializeToString)

    one, many_out = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
    many_in, many = grpc.stream_unary_rpc_method_handler, grpc.stream_stream_rpc_method_handler
    handlers = {
        "EmptyCall": of(one, lambda request, context: t.Empty(), t.Empty, t.Empty),
        "UnaryCall": of(one, unary, t.SimpleRequest, t.SimpleResponse),
        "StreamingOutputCall": of(many_out, outputs, t.StreamingOutputCallRequest, t.StreamingOutputCallResponse),
        "StreamingInputCall": of(many_in, total, t.StreamingInputCallRequest, t.StreamingInputCallResponse),
        "FullDuplexCall": of(many, duplex, t.StreamingOutputCallRequest, t.StreamingOutputCallResponse),
    }
    server = grpc.server(futures.ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    if os.environ.get("REFLECTION"):
        from grpc_reflection.v1alpha import reflection

        reflection.enable_server_reflection((SERVICE, reflection.SERVICE_NAME), server)
    if cert and key:
        pair = (Path(key).read_bytes(), Path(cert).read_bytes())
        port = server.add_secure_port("localhost:0", grpc.ssl_server_credentials([pair]))
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"listening on {port}", flush=True)
    server.wait_for_termination()


class Client:
    def __init__(self, t: Any, channel: Any) -> None:
        def of(make: Any, name: str, request: Any, response: Any, service: str = SERVICE) -> Any:
            return make(f"/{service}/{name}", request_serializer=request.SerializeToString, response_deserializer=response.FromString)

        self.empty = of(channel.unary_unary, "EmptyCall", t.Empty, t.Empty)
        self.unary = of(channel.unary_unary, "UnaryCall", t.SimpleRequest, t.SimpleResponse)
        self.cacheable = of(channel.unary_unary, "CacheableUnaryCall", t.SimpleRequest, t.SimpleResponse)
        self.output = of(channel.unary_stream, "StreamingOutputCall", t.StreamingOutputCallRequest, t.StreamingOutputCallResponse)
        self.input = of(channel.stream_unary, "StreamingInputCall", t.StreamingInputCallRequest, t.StreamingInputCallResponse)
        self.duplex = of(channel.stream_stream, "FullDuplexCall", t.StreamingOutputCallRequest, t.StreamingOutputCallResponse)
        self.unimplemented = of(channel.unary_unary, "UnimplementedCall", t.Empty, t.Empty)
        self.no_service = of(channel.unary_unary, "UnimplementedCall", t.Empty, t.Empty, "grpc.testing.UnimplementedService")


def fails(code: Any, action: Callable[[], Any]) -> Any:
    try:
        found = action()
    except grpc.RpcError as error:
        assert error.code() == code, error
        return error
    raise AssertionError(f"no {code}, but {found!r}")


def call(t: Any, channel: Any, without: Sequence[str]) -> None:
    c = Client(t, channel)
    code = grpc.StatusCode
    sizes = ((27182, 31415), (8, 9), (1828, 2653), (45904, 58979))

    def large(**more: Any) -> Any:
        return t.SimpleRequest(response_size=314159, payload=t.Payload(body=bytes(271828)), **more)

    def ping(sent: int, wanted: int, **more: Any) -> Any:
        return t.StreamingOutputCallRequest(
            response_parameters=[t.ResponseParameters(size=wanted, **more)], payload=t.Payload(body=bytes(sent))
        )

    def empty_unary() -> None:
        assert c.empty(t.Empty()) == t.Empty()

    def large_unary() -> None:
        assert c.unary(large()).payload.body == bytes(314159)

    def client_compressed_unary() -> None:
        probe = large(expect_compressed=t.BoolValue(value=True))
        fails(code.INVALID_ARGUMENT, lambda: c.unary(probe))
        assert len(c.unary(probe, compression=grpc.Compression.Gzip).payload.body) == 314159
        assert len(c.unary(large(expect_compressed=t.BoolValue(value=False))).payload.body) == 314159

    def client_compressed_streaming() -> None:
        probe = t.StreamingInputCallRequest(payload=t.Payload(body=bytes(27182)), expect_compressed=t.BoolValue(value=True))
        fails(code.INVALID_ARGUMENT, lambda: c.input(iter([probe])))
        assert c.input(iter([probe, probe]), compression=grpc.Compression.Gzip).aggregated_payload_size == 54364

    def cacheable_unary() -> None:
        for _ in range(2):
            reply = c.cacheable(t.SimpleRequest(response_size=10), metadata=(("x-user-ip", "1.2.3.4"),))
            assert reply.payload.body == bytes(10)

    def server_compressed_unary() -> None:
        for wanted in (True, False):
            assert len(c.unary(large(response_compressed=t.BoolValue(value=wanted))).payload.body) == 314159

    def client_streaming() -> None:
        for compression in (None, grpc.Compression.Gzip):
            requests = (t.StreamingInputCallRequest(payload=t.Payload(body=bytes(sent))) for sent, _ in sizes)
            assert c.input(requests, compression=compression).aggregated_payload_size == 74922

    def server_streaming() -> None:
        for compressed in (None, t.BoolValue(value=True), t.BoolValue(value=False)):
            request = t.StreamingOutputCallRequest(
                response_parameters=[t.ResponseParameters(size=wanted, compressed=compressed) for _, wanted in sizes]
            )
            assert [len(each.payload.body) for each in c.output(request)] == [wanted for _, wanted in sizes]

    def ping_pong() -> None:
        assert [len(each.payload.body) for each in c.duplex(ping(*pair) for pair in sizes)] == [wanted for _, wanted in sizes]

    def empty_stream() -> None:
        assert list(c.duplex(iter(()))) == []

    def custom_metadata() -> None:
        sent = ((ECHO_INITIAL, "test_initial_metadata_value"), (ECHO_TRAILING, b"\xab\xab\xab"))
        _, done = c.unary.with_call(large(), metadata=sent)
        assert dict(done.initial_metadata())[ECHO_INITIAL] == sent[0][1]
        assert dict(done.trailing_metadata())[ECHO_TRAILING] == sent[1][1]
        stream = c.duplex(iter([ping(27182, 31415)]), metadata=sent)
        assert len(list(stream)) == 1
        assert dict(stream.initial_metadata())[ECHO_INITIAL] == sent[0][1]
        assert dict(stream.trailing_metadata())[ECHO_TRAILING] == sent[1][1]

    def status_code_and_message() -> None:
        status = t.EchoStatus(code=2, message="test status message")
        assert fails(code.UNKNOWN, lambda: c.unary(t.SimpleRequest(response_status=status))).details() == status.message
        stream = c.duplex(iter([t.StreamingOutputCallRequest(response_status=status)]))
        assert fails(code.UNKNOWN, lambda: next(stream)).details() == status.message

    def special_status_message() -> None:
        text = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"
        status = t.EchoStatus(code=2, message=text)
        assert fails(code.UNKNOWN, lambda: c.unary(t.SimpleRequest(response_status=status))).details() == text

    def unimplemented_method() -> None:
        fails(code.UNIMPLEMENTED, lambda: c.unimplemented(t.Empty()))

    def unimplemented_service() -> None:
        fails(code.UNIMPLEMENTED, lambda: c.no_service(t.Empty()))

    def cancel_after_begin() -> None:
        def requests() -> Iterator[Any]:
            time.sleep(0.5)
            yield from ()

        pending = c.input.future(requests())
        pending.cancel()
        assert pending.code() is code.CANCELLED

    def cancel_after_first_response() -> None:
        def requests() -> Iterator[Any]:
            yield ping(27182, 31415)
            time.sleep(0.5)

        stream = c.duplex(requests())
        next(stream)
        stream.cancel()
        fails(code.CANCELLED, lambda: next(stream))

    def timeout_on_sleeping_server() -> None:
        fails(code.DEADLINE_EXCEEDED, lambda: next(c.duplex(iter([ping(27182, 9, interval_us=500_000)]), timeout=0.01)))

    def concurrent_large_unary() -> None:
        with futures.ThreadPoolExecutor(16) as pool:
            assert [len(each.payload.body) for each in pool.map(c.unary, [large()] * 64)] == [314159] * 64

    for case in (
        empty_unary, large_unary, cacheable_unary, client_compressed_unary, server_compressed_unary, client_compressed_streaming, client_streaming, server_streaming, ping_pong,
        empty_stream, custom_metadata, status_code_and_message, special_status_message, unimplemented_method, unimplemented_service,
        cancel_after_begin, cancel_after_first_response, timeout_on_sleeping_server, concurrent_large_unary,
    ):  # fmt: skip
        if case.__name__ in without:
            continue
        case()
        print(f"passed {case.__name__}", flush=True)
    print("all passed", flush=True)


def main(folder: str, what: str, *rest: str) -> None:
    t = messages(folder)
    if what == "serve":
        serve(t, *(rest or (None, None)))
        return
    if rest[1] != "-":
        credentials = grpc.ssl_channel_credentials(Path(rest[1]).read_bytes())
        channel = grpc.secure_channel(f"localhost:{rest[0]}", credentials)
    else:
        channel = grpc.insecure_channel(f"127.0.0.1:{rest[0]}")
    with channel:
        call(t, channel, rest[2:])


if __name__ == "__main__":
    main(*sys.argv[1:])
