"""bench/loadgen.c: what it counts, what it refuses, that it always ends."""

from __future__ import annotations

import json
import math
import os
import random
import socket
import subprocess
import threading
from collections.abc import Callable
from typing import Any

import pytest

from bench.messages import CALL, REPLY, framed

Serve = Callable[..., Any]
Generate = Callable[..., dict[str, Any]]

REQUEST = framed("echo", CALL, b"\0" * 20)
RIGHT = framed("echo", REPLY, b"\0" * 30)
EXCEPTION = framed("echo", 3, b"\0" * 30)


def each(answer: bytes) -> Callable[[bytes], bytes]:
    """One ``answer`` for each whole request; requests come whole, as they are small."""
    return lambda data: answer * (len(data) // len(REQUEST))


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "framing only"])
@pytest.mark.parametrize(("connections", "depth"), [(1, 1), (7, 1), (3, 4)])
def test_counts_every_reply(serve: Serve, generate: Generate, exact: bool, connections: int, depth: int) -> None:
    server = serve(each(RIGHT))
    said = generate(
        server.port, REQUEST, RIGHT if exact else None, connections=connections, depth=depth, requests=200, seconds=30
    )
    assert said["code"] == 0
    assert said["requests"] >= 200
    assert (said["connections"], said["depth"]) == (connections, depth)
    assert server.accepted == connections
    latency = said["latency_ns"]
    order = [latency[name] for name in ("min", "p50", "p90", "p99", "p999", "max")]
    assert order == sorted(order)
    assert order[0] > 0
    assert "server" not in said


def test_ends_after_its_seconds(serve: Serve, generate: Generate) -> None:
    said = generate(serve(each(RIGHT)).port, REQUEST, RIGHT, seconds=0.05, warmup=0.02)
    assert said["code"] == 0
    assert said["requests"] > 0


def test_reads_the_server_cpu_and_memory(serve: Serve, generate: Generate) -> None:
    said = generate(serve(each(RIGHT)).port, REQUEST, RIGHT, requests=500, server_pid=os.getpid())
    assert said["server"]["cpu_ns"] > 0
    assert said["server"]["rss_bytes"] > 1 << 20


def test_takes_replies_in_pieces(serve: Serve, generate: Generate) -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def work() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while connection.recv(1 << 16):
                for index in range(len(RIGHT)):
                    connection.sendall(RIGHT[index : index + 1])

    thread = threading.Thread(target=work)
    thread.start()
    try:
        said = generate(listener.getsockname()[1], REQUEST, RIGHT, requests=5, seconds=30)
    finally:
        thread.join(10)
        listener.close()
    assert said["code"] == 0


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "framing only"])
@pytest.mark.parametrize(
    ("answer", "exact_words", "framing_words"),
    [
        pytest.param(EXCEPTION, "byte 7 of a reply is 0x03", "begins with 80010003", id="exception"),
        pytest.param(REQUEST, "a reply of 40 bytes, expected 50", "begins with 80010001", id="a call"),
        pytest.param(b"\x7f" + RIGHT[1:], "declares 2130706478 bytes", "declares 2130706478 bytes", id="huge length"),
        pytest.param(
            b"\xff" + RIGHT[1:], "declares 4278190126 bytes", "declares 4278190126 bytes", id="negative length"
        ),
        pytest.param(b"\0\0\0\0" + RIGHT[4:], "declares 0 bytes", "declares 0 bytes", id="empty"),
        pytest.param(RIGHT + RIGHT, "nobody asked for", "nobody asked for", id="two for one"),
        pytest.param(RIGHT + b"\0", "nobody asked for", "nobody asked for", id="a byte too many"),
        pytest.param(RIGHT[:-1], "no reply", "no reply", id="a byte too few"),
        pytest.param(b"", "no reply", "no reply", id="silence"),
        pytest.param(None, "closed by the server, 1 unanswered", "closed by the server, 1 unanswered", id="close"),
    ],
)
def test_refuses_broken_replies(
    serve: Serve, generate: Generate, exact: bool, answer: bytes | None, exact_words: str, framing_words: str
) -> None:
    server = serve((lambda _: None) if answer is None else each(answer))
    patience = 0.3 if exact_words == "no reply" else 20
    said = generate(server.port, REQUEST, RIGHT if exact else None, requests=50, seconds=30, timeout=patience)
    assert said["code"] == 1
    assert (exact_words if exact else framing_words) in said["error"]


def test_finds_one_wrong_byte_late(serve: Serve, generate: Generate) -> None:
    answered = 0

    def answer(data: bytes) -> bytes:
        nonlocal answered
        answered += 1
        return RIGHT if answered < 40 else RIGHT[:-1] + b"x"

    said = generate(serve(answer).port, REQUEST, RIGHT, requests=100, seconds=30)
    assert said == {"error": f"connection 0: byte {len(RIGHT) - 1} of a reply is 0x78, expected 0x00", "code": 1}


def test_notices_a_server_that_stops_answering(serve: Serve, generate: Generate) -> None:
    answered = 0

    def answer(data: bytes) -> bytes:
        nonlocal answered
        answered += 1
        return RIGHT if answered < 20 else b""

    said = generate(serve(answer).port, REQUEST, RIGHT, seconds=30, timeout=1)
    assert said["code"] == 1
    assert "1 unanswered" in said["error"]


def test_explains_mistakes_of_its_caller(serve: Serve, generate: Generate, loadgen: str) -> None:
    server = serve(each(RIGHT))
    assert "cannot connect" in generate(1, REQUEST, RIGHT)["error"]
    assert "--depth 0" in generate(server.port, REQUEST, RIGHT, depth=0)["error"]
    assert "no framed message" in generate(server.port, b"abc", RIGHT)["error"]
    done = subprocess.run([loadgen, "--nonsense", "1"], capture_output=True, text=True, check=False)
    assert json.loads(done.stdout)["error"] == "--nonsense: unknown option"


@pytest.mark.parametrize(
    "values",
    [
        [5],
        list(range(1, 1001)),
        [127, 128, 255, 256, (1 << 63) + 1],
        [int(value) for value in map(random.Random(11).lognormvariate, [11] * 5000, [2] * 5000)],
    ],
    ids=["one", "ramp", "edges", "long tail"],
)
def test_percentiles_are_within_a_bucket_and_never_too_good(loadgen: str, values: list[int]) -> None:
    text = "\n".join(map(str, values))
    done = subprocess.run([loadgen, "--percentiles"], input=text, capture_output=True, text=True, check=True)
    said = json.loads(done.stdout)
    assert said["count"] == len(values)
    latency, found = said["latency_ns"], sorted(values)
    assert (latency["min"], latency["max"]) == (found[0], found[-1])
    for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999)):
        exact = found[max(0, math.ceil(share * len(found)) - 1)]
        assert exact <= latency[name] <= exact * (1 + 1 / 64)
