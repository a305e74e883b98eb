"""grpcio's client against a weego server."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import gevent

import weego
from codec.errors import Code, StatusError
from tests.support import need
from tests.support.grpc_echo import EchoService
from tests.support.net import records, served, wait_until, without_hub


def meta(_: Any) -> None:
    call = weego.current()
    assert call is not None
    call.send_metadata["x-seen"] = call.metadata["x-key"]
    call.send_metadata["x-bin"] = call.metadata["x-bin"]
    call.trailers["x-tail-bin"] = b"\xff"


def squeeze(_: Any) -> None:
    call = weego.current()
    assert call is not None
    call.compression = "gzip"


def status(_: Any) -> None:
    raise StatusError(Code.NOT_FOUND, "\t☕ %\r\n")


def bug(_: Any) -> None:
    raise ValueError("bug")


@without_hub
def test_a_conversation() -> None:
    need.module("grpc")
    service = EchoService(meta=meta, gzip=squeeze, status=status, bug=bug, sleep=lambda _: gevent.sleep(30))
    with records(), served(service, max_message=16 * 2**20) as server:
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.grpcio_client", server.addresses[0].removeprefix("tcp://")],
            cwd=need.ROOT, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{done.stdout[-300:]}\n{done.stderr[-2000:]}"
        assert done.stdout.count("ok ") == 23
        wait_until(lambda: server.serving.dispatcher.inflight == 0)
