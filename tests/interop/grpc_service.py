"""gRPC's TestService (doc/interop-test-descriptions.md) on weego, and the client's cases of it on weego's generated client.

The cases take `t`, the module that `weego gen` made of testing.proto, and a client; each raises AssertionError with what is wrong.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import weego
from weego import RpcError

PROTO = Path(__file__).parent / "grpc" / "testing.proto"
ORCA_PROTOS = [PROTO.with_name("orca_load_report.proto"), PROTO.with_name("orca.proto")]
LOAD_REPORT = "endpoint-load-metrics-bin"
ECHO_INITIAL = "x-grpc-test-echo-initial"
ECHO_TRAILING = "x-grpc-test-echo-trailing-bin"


def module(folder: Path) -> ModuleType:
    """testing.proto, generated into `folder`, imported."""
    import importlib
    import sys

    name = "weego_grpc_testing"
    if name not in sys.modules:
        from idlc.proto_compile import compile_protos

        compile_protos([PROTO, *ORCA_PROTOS], folder / name, [PROTO.parent])
        sys.path.insert(0, str(folder))
        try:
            importlib.import_module(f"{name}.grpc.testing")
            importlib.import_module(f"{name}.xds.service.orca.v3")
        finally:
            sys.path.remove(str(folder))
    return sys.modules[f"{name}.grpc.testing"]


def orca_module(t: Any, which: str) -> ModuleType:
    """xds.data.orca.v3 or xds.service.orca.v3, generated beside `t`."""
    import importlib

    return importlib.import_module(f"{t.__name__.partition('.')[0]}.xds.{which}.orca.v3")


def load_report(t: Any, found: Any) -> Any:
    """A TestOrcaReport as the report that ORCA sends."""
    report = orca_module(t, "data").OrcaLoadReport(cpu_utilization=found.cpu_utilization, mem_utilization=found.memory_utilization)
    report.request_cost.update(found.request_cost)
    report.utilization.update(found.utilization)
    return report


def services(t: Any) -> list[Any]:
    """The TestService, and beside it ORCA's reports out of band: what the TestService was last told to report, again and again."""
    tested = service(t)
    orca = orca_module(t, "service")

    class OpenRcaService(orca.OpenRcaService):  # type: ignore[misc,name-defined]
        def stream_core_metrics(self, request: Any) -> Iterator[Any]:
            import gevent

            while True:
                yield load_report(t, tested.reported)
                gevent.sleep(max(0.05, min(1.0, request.report_interval.ToNanoseconds() / 1e9)))

    return [tested, OpenRcaService()]


def service(t: Any) -> Any:
    """An object that serves the TestService."""

    def echo_metadata() -> None:
        call = weego.current()
        assert call is not None
        if initial := call.metadata.get(ECHO_INITIAL):
            call.send_metadata[ECHO_INITIAL] = initial
        if trailing := call.metadata.get(ECHO_TRAILING):
            call.trailers[ECHO_TRAILING] = trailing

    def fail_as_told(request: Any) -> None:
        if request.HasField("response_status") and request.response_status.code:
            raise weego.StatusError(request.response_status.code, request.response_status.message)

    def compress_as_told(wanted: Any) -> None:
        call = weego.current()
        assert call is not None
        call.compression = "gzip" if wanted.value else "identity"

    def expect(wanted: Any) -> None:
        """The probe of client_compressed_unary: did the request come as its caller says?"""
        call = weego.current()
        assert call is not None
        if wanted.value and call.request_compression is None:
            raise weego.StatusError(weego.Code.INVALID_ARGUMENT, "this request should be compressed")

    class TestService(t.TestService):  # type: ignore[misc]
        reported = t.TestOrcaReport()

        def empty_call(self, request: Any) -> Any:
            return t.Empty()

        def unary_call(self, request: Any) -> Any:
            echo_metadata()
            fail_as_told(request)
            expect(request.expect_compressed)
            if request.HasField("orca_per_query_report"):
                call = weego.current()
                assert call is not None
                call.trailers[LOAD_REPORT] = load_report(t, request.orca_per_query_report).SerializeToString()
            if request.HasField("response_compressed"):
                compress_as_told(request.response_compressed)
            return t.SimpleResponse(payload=t.Payload(body=bytes(request.response_size)))

        def cacheable_unary_call(self, request: Any) -> Any:
            return self.unary_call(request)

        def streaming_output_call(self, request: Any) -> Iterator[Any]:
            yield from outputs(request)
            fail_as_told(request)

        def streaming_input_call(self, requests: Iterator[Any]) -> Any:
            # Refused when all of it has come: of an answer that ends before the request, HAProxy makes a CANCEL if the client is still sending.
            received = list(requests)
            for each in received:
                expect(each.expect_compressed)
            return t.StreamingInputCallResponse(aggregated_payload_size=sum(len(each.payload.body) for each in received))

        def full_duplex_call(self, requests: Iterator[Any]) -> Iterator[Any]:
            echo_metadata()
            for request in requests:
                fail_as_told(request)
                if request.HasField("orca_oob_report"):
                    self.reported = request.orca_oob_report
                yield from outputs(request)

        def half_duplex_call(self, requests: Iterator[Any]) -> Iterator[Any]:
            for request in list(requests):
                yield from outputs(request)

    def outputs(request: Any) -> Iterator[Any]:
        import gevent  # here alone: a client in plain threads must not find a hub

        for each in request.response_parameters:
            if each.interval_us:
                gevent.sleep(each.interval_us / 1e6)
            if each.HasField("compressed"):
                compress_as_told(each.compressed)
            yield t.StreamingOutputCallResponse(payload=t.Payload(body=bytes(each.size)))

    return TestService()


# ---- a client's cases ------------------------------------------------------------------------------------------------


def large(t: Any, **more: Any) -> Any:
    return t.SimpleRequest(response_size=314159, payload=t.Payload(body=bytes(271828)), **more)


def empty_unary(t: Any, client: Any) -> None:
    assert client.empty_call(t.Empty()) == t.Empty()


def large_unary(t: Any, client: Any) -> None:
    assert client.unary_call(large(t)).payload.body == bytes(314159)


def client_streaming(t: Any, client: Any) -> None:
    with client.streaming_input_call() as stream:
        for size in (27182, 8, 1828, 45904):
            stream.send(t.StreamingInputCallRequest(payload=t.Payload(body=bytes(size))))
        assert stream.result().aggregated_payload_size == 74922


def server_streaming(t: Any, client: Any) -> None:
    sizes = [31415, 9, 2653, 58979]
    stream = client.streaming_output_call(
        t.StreamingOutputCallRequest(response_parameters=[t.ResponseParameters(size=size) for size in sizes])
    )
    assert [len(each.payload.body) for each in stream] == sizes


def ping(t: Any, sent: int, wanted: int) -> Any:
    return t.StreamingOutputCallRequest(response_parameters=[t.ResponseParameters(size=wanted)], payload=t.Payload(body=bytes(sent)))


def ping_pong(t: Any, client: Any) -> None:
    with client.full_duplex_call() as stream:
        for sent, wanted in ((27182, 31415), (8, 9), (1828, 2653), (45904, 58979)):
            stream.send(ping(t, sent, wanted))
            assert len(next(stream).payload.body) == wanted
        stream.close_send()
        assert list(stream) == []


def empty_stream(t: Any, client: Any) -> None:
    with client.full_duplex_call() as stream:
        stream.close_send()
        assert list(stream) == []


def fails(code: str, action: Callable[[], Any]) -> RpcError:
    try:
        found = action()
    except RpcError as error:
        assert error.code.name == code, error
        return error
    raise AssertionError(f"no {code}, but {found!r}")


class Seen:
    """The Call of the last call that went through `metadata`."""

    last: Any = None


def metadata(handler: Any) -> Any:
    """Middleware: send what `custom_metadata` wants to see again, and keep the Call."""

    def run(call: weego.Call, args: tuple[Any, ...]) -> Any:
        call.send_metadata[ECHO_INITIAL] = "test_initial_metadata_value"
        call.send_metadata[ECHO_TRAILING] = b"\xab\xab\xab"
        result = handler(call, args)
        Seen.last = call
        return result

    return run


def custom_metadata(t: Any, client: Any) -> None:
    initial, trailing = "test_initial_metadata_value", b"\xab\xab\xab"
    client.unary_call(large(t))
    assert Seen.last.metadata[ECHO_INITIAL] == initial
    assert base64.b64decode(Seen.last.metadata[ECHO_TRAILING]) == trailing
    with client.full_duplex_call() as stream:
        stream.send(ping(t, 271828, 314159))
        assert dict(stream.metadata)[ECHO_INITIAL] == initial
        next(stream)
        stream.close_send()
        assert list(stream) == []
        assert base64.b64decode(dict(stream.trailers)[ECHO_TRAILING]) == trailing


def status_code_and_message(t: Any, client: Any) -> None:
    status = t.EchoStatus(code=2, message="test status message")
    assert fails("UNKNOWN", lambda: client.unary_call(t.SimpleRequest(response_status=status))).message == status.message
    with client.full_duplex_call() as stream:
        stream.send(t.StreamingOutputCallRequest(response_status=status))
        stream.close_send()
        assert fails("UNKNOWN", lambda: next(stream)).message == status.message


def special_status_message(t: Any, client: Any) -> None:
    text = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"
    status = t.EchoStatus(code=2, message=text)
    assert fails("UNKNOWN", lambda: client.unary_call(t.SimpleRequest(response_status=status))).message == text


def unimplemented_method(t: Any, client: Any) -> None:
    fails("UNIMPLEMENTED", lambda: client.unimplemented_call(t.Empty()))


def cancel_after_begin(t: Any, client: Any) -> None:
    stream = client.streaming_input_call()
    stream.cancel()
    fails("CANCELLED", stream.result)


def cancel_after_first_response(t: Any, client: Any) -> None:
    with client.full_duplex_call() as stream:
        stream.send(ping(t, 27182, 31415))
        next(stream)
        stream.cancel()
        fails("CANCELLED", lambda: next(stream))


def timeout_on_sleeping_server(t: Any, client: Any) -> None:
    def talk() -> None:
        with client.full_duplex_call(timeout=0.001) as stream:  # which may not even be opened in time
            stream.send(t.StreamingOutputCallRequest(payload=t.Payload(body=bytes(27182))))
            next(stream)

    fails("DEADLINE_EXCEEDED", talk)


def cacheable_unary(t: Any, client: Any) -> None:
    """gRPC's caches are no more, and the case's GET with them; what is left is that the method answers."""
    for _ in range(2):
        assert client.cacheable_unary_call(t.SimpleRequest(response_size=10)).payload.body == bytes(10)


def client_compressed_unary(t: Any, client: Any) -> None:
    """With a client that compresses by gzip; the probe is its other half, `compression_probe`."""
    wanted = t.BoolValue(value=True)
    assert client.unary_call(large(t, expect_compressed=wanted)).payload.body == bytes(314159)
    with client.streaming_input_call() as stream:
        for size in (27182, 45904):
            stream.send(t.StreamingInputCallRequest(payload=t.Payload(body=bytes(size)), expect_compressed=wanted))
        assert stream.result().aggregated_payload_size == 73086


def compression_probe(t: Any, client: Any) -> None:
    """With a client that does not compress: a server that knows the case refuses what says it is compressed."""
    wanted = t.BoolValue(value=True)
    fails("INVALID_ARGUMENT", lambda: client.unary_call(large(t, expect_compressed=wanted)))
    with client.streaming_input_call() as stream:
        stream.send(t.StreamingInputCallRequest(payload=t.Payload(body=bytes(27182)), expect_compressed=wanted))
        fails("INVALID_ARGUMENT", stream.result)
    assert client.unary_call(large(t, expect_compressed=t.BoolValue(value=False))).payload.body == bytes(314159)


CASES: dict[str, Callable[[Any, Any], None]] = {
    each.__name__: each
    for each in (
        empty_unary,
        large_unary,
        client_streaming,
        server_streaming,
        ping_pong,
        empty_stream,
        custom_metadata,
        status_code_and_message,
        special_status_message,
        unimplemented_method,
        cancel_after_begin,
        cancel_after_first_response,
        timeout_on_sleeping_server,
    )
}
