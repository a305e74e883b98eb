"""A grpcio client that holds a conversation with a server of the echo service: ``python -m tests.support.grpcio_client ADDRESS``.

A program of its own, because grpcio does not bear being forked. Prints one line for each check; exits with 1 at the first that fails.
"""

from __future__ import annotations

import sys
import threading
import time

import grpc

from tests.support.grpc_echo import NAME, Reply, Request


def check(what: str, found: object, expected: object) -> None:
    if found != expected:
        sys.exit(f"{what}: {found!r} instead of {expected!r}")
    print(f"ok {what}", flush=True)


def failure(call: object, *args: object, **options: object) -> tuple[str, str]:
    try:
        call(*args, **options)  # type: ignore[operator]
    except grpc.RpcError as error:
        return error.code().name, error.details() or ""
    return "OK", ""


def main(address: str) -> None:
    options = [("grpc.max_receive_message_length", -1), ("grpc.enable_retries", 0)]
    with grpc.insecure_channel(address, options=options) as channel:
        codecs = {"request_serializer": Request.SerializeToString, "response_deserializer": Reply.FromString}
        say = channel.unary_unary(f"/{NAME}/Say", **codecs)
        watch = channel.unary_stream(f"/{NAME}/Watch", **codecs)
        collect = channel.stream_unary(f"/{NAME}/Collect", **codecs)
        chat = channel.stream_stream(f"/{NAME}/Chat", **codecs)

        check("unary", say(Request(message="é")).message, "é")
        reply, call = say.with_call(Request(action="meta"), metadata=(("x-key", "v"), ("x-bin", b"\0\1")), timeout=10)
        check("initial metadata", dict(call.initial_metadata()), {"x-seen": "v", "x-bin": b"\0\1"})
        check("trailing metadata", dict(call.trailing_metadata()), {"x-tail-bin": b"\xff"})
        check("large both ways", len(say(Request(body=bytes(4_000_000))).body), 4_000_000)
        check("server streaming", [each.count for each in watch(Request(count=500, body=bytes(9000)))], list(range(500)))
        check("client streaming", collect(Request(body=bytes(n)) for n in range(500)).count, 500)
        check("bidirectional", [each.count for each in chat(Request(count=n) for n in range(500))], list(range(500)))
        for kind in (grpc.Compression.Gzip, grpc.Compression.Deflate):
            check(f"compressed {kind.name}", len(say(Request(body=bytes(90_000)), compression=kind).body), 90_000)
            found = chat((Request(count=n, body=bytes(9000)) for n in range(20)), compression=kind)
            check(f"compressed stream {kind.name}", [each.count for each in found], list(range(20)))
        check("compressed answer", len(say(Request(action="gzip", body=bytes(90_000))).body), 90_000)
        check("unknown method", failure(channel.unary_unary(f"/{NAME}/Nope", **codecs), Request())[0], "UNIMPLEMENTED")
        check("unknown service", failure(channel.unary_unary("/no.Such/M", **codecs), Request())[0], "UNIMPLEMENTED")
        check("status", failure(say, Request(action="status")), ("NOT_FOUND", "\t☕ %\r\n"))
        check("bug", failure(say, Request(action="bug")), ("UNKNOWN", "ValueError: bug"))
        check("too large", failure(say, Request(body=bytes(4_200_000)))[0], "RESOURCE_EXHAUSTED")
        check("deadline", failure(say, Request(action="sleep"), timeout=0.2)[0], "DEADLINE_EXCEEDED")
        check("deadline of a stream", failure(lambda: list(watch(Request(action="sleep", count=1), timeout=0.2)))[0], "DEADLINE_EXCEEDED")

        future = say.future(Request(action="sleep"))
        time.sleep(0.1)
        future.cancel()
        check("cancelled before the answer", future.code().name, "CANCELLED")
        stream = chat(iter([Request(count=1)] * 5))
        next(stream)
        stream.cancel()
        check("cancelled after the first answer", failure(lambda: list(stream))[0], "CANCELLED")

        pause = threading.Event()
        turns: list[int] = []

        def one_by_one():  # type: ignore[no-untyped-def]
            for number in range(10):
                pause.wait()
                pause.clear()
                yield Request(count=number)

        pause.set()
        for reply in chat(one_by_one()):
            turns.append(reply.count)
            pause.set()
        check("ping-pong", turns, list(range(10)))

        futures = [say.future(Request(message=str(n), body=bytes(100_000))) for n in range(150)]
        check("150 at a time, above the limit of streams", [each.result().message for each in futures], [str(n) for n in range(150)])


if __name__ == "__main__":
    main(sys.argv[1])
