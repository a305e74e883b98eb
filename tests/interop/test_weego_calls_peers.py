"""weego's client calls servers of thriftpy2 and Apache Thrift, from plain threads and under gevent."""

from __future__ import annotations

import contextlib
import importlib
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from codec.errors import ApplicationError, DeadlineExceeded, Unavailable
from tests.interop.conversation import CHECKS, Talk, names
from tests.support import need, peers

SERVERS = [
    ("thriftpy2", "framed"),
    ("thriftpy2", "buffered"),
    ("apache threaded", "framed"),
    ("apache threaded", "buffered"),
    ("apache accelerated", "framed"),
    ("apache accelerated", "buffered"),
    ("apache simple", "framed"),
    ("apache simple", "buffered"),
    ("thriftpy2", "framed-compact"),
    ("thriftpy2", "buffered-compact"),
    ("apache threaded", "framed-compact"),
    ("apache threaded", "buffered-compact"),
]


class UnderGevent:
    """Calls a client in a thread that has a gevent hub: there it uses the loop in place of blocking sockets."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._client = self._thread.submit(self._begin, make).result()

    @staticmethod
    def _begin(make: Callable[[], Any]) -> Any:
        import gevent

        gevent.get_hub()
        return make()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)
        return lambda *args, **options: self._thread.submit(method, *args, **options).result()

    def close(self) -> None:
        self._thread.submit(self._end).result()
        self._thread.shutdown()

    def _end(self) -> None:
        import gevent

        self._client.close()
        hub = gevent.get_hub()
        loops: Any = importlib.import_module("poller.loop")
        loops.loop_of(hub).close()
        hub.destroy(destroy_loop=True)


@contextlib.contextmanager
def serving(server: str, transport: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of the peer."""
    transport, _, compact = transport.partition("-")
    if server == "thriftpy2":
        need.module("thriftpy2")
        with peers.thriftpy2_server(transport, protocol=compact or "binary") as address:
            yield address
        return
    need.module("thrift")
    code: Path = request.getfixturevalue("apache_code")
    kind = server.removeprefix("apache ")
    if kind == "accelerated":
        with peers.apache_server("threaded", transport, code, protocol="accel") as address:
            yield address
    else:
        with peers.apache_server(kind, transport, code, protocol=compact or "binary") as address:
            yield address


@pytest.fixture(
    scope="module", params=SERVERS, ids=[f"{name}-{transport}".replace(" ", "-") for name, transport in SERVERS]
)
def peer(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """Address and framing."""
    server, transport = request.param
    with serving(server, transport, request) as address:
        yield address, transport


@pytest.fixture(scope="module", params=["blocking", "gevent"])
def talk(request: pytest.FixtureRequest, peer: tuple[str, str], stubs: ModuleType) -> Iterator[Talk]:
    address, transport = peer
    framing, _, compact = transport.partition("-")

    def make() -> Any:
        return stubs.BeyondClient(address, framing=framing, protocol=compact or "binary", timeout=30.0)

    client = make() if request.param == "blocking" else UnderGevent(make)
    # thriftpy2's server just closes the connection when a handler fails.
    yield Talk(client, names(stubs), ApplicationError, (ApplicationError, Unavailable))
    client.close()


@pytest.mark.parametrize("check", CHECKS, ids=[check.__name__ for check in CHECKS])
def test_weego_calls(talk: Talk, check: Callable[[Talk], None]) -> None:
    check(talk)


def test_one_connection_serves_call_after_call(talk: Talk) -> None:
    talk.client.ping()
    (before,) = talk.client.statistics()
    for _ in range(50):
        talk.client.ping()
    (after,) = talk.client.statistics()
    assert (after.idle, after.reused - before.reused, after.dead - before.dead) == (1, 50, 0)


@pytest.mark.parametrize("kind", ["blocking", "gevent"])
def test_a_server_that_went_and_came_back(kind: str, stubs: ModuleType) -> None:
    """Idle connections to the old one are not used for the next call, which succeeds without the caller's doing anything."""
    need.module("thriftpy2")
    with peers.thriftpy2_server("framed") as address:

        def make() -> Any:
            return stubs.InteropClient(address, timeout=30.0)

        client = make() if kind == "blocking" else UnderGevent(make)
        assert client.ping() == "pong"
    with pytest.raises(Unavailable):
        client.ping()
    with peers.thriftpy2_server("framed", port=int(address.rpartition(":")[2])):
        assert client.ping() == "pong"
    with peers.thriftpy2_server("framed", port=int(address.rpartition(":")[2])):
        assert client.ping() == "pong"
    client.close()


def test_a_timeout_is_kept(stubs: ModuleType) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with (
            stubs.InteropClient(f"tcp://127.0.0.1:{silent.getsockname()[1]}") as client,
            pytest.raises(DeadlineExceeded),
        ):
            client.ping(timeout=0.1)
