"""The HTTP client of registries: it connects where it can, and keeps nothing open."""

from __future__ import annotations

import gc
import socket
from collections.abc import Iterator

import gevent
import gevent.socket
import pytest

from governance.discovery import DiscoveryError
from tests.support.http_fake import Answer, HttpFake, Request
from tests.support.leaks import descriptors
from tests.support.net import wait_until, with_hub
from tests.support.ports import free_port
from tests.weego.registries.kept import BOTH, Run
from weego.registries.http import Http
from weego.registries.url import read


def http(*addresses: str, tls: bool = False) -> Http:
    url = f"{'secured' if tls else 'made-up'}://{','.join(addresses)}/service"
    return Http("Made-up", read(url, port=1, options={}, secure="secured", example=url))


def sockets() -> set[str]:
    """Those of this process."""
    return {what for what in descriptors().values() if what.startswith("socket:")}


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server whose queue is full: who connects waits."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        queued = []
        for _ in range(3):
            waiting = socket.socket()
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
            queued.append(waiting)
        yield f"127.0.0.1:{full.getsockname()[1]}"
        for each in queued:
            each.close()


@BOTH
def test_nobody_takes_the_connection(run: Run, silent: str) -> None:
    @run
    def body() -> None:
        with pytest.raises(DiscoveryError, match=rf"^Made-up at {silent}: no answer in time$"):
            http(silent).ask("GET", ("x",), timeout=0.05)
        port = free_port()
        with pytest.raises(DiscoveryError, match=rf"^Made-up at 127.0.0.1:{port}: Connection refused$"):
            http(f"127.0.0.1:{port}").ask("GET", ("x",), timeout=5.0)

    body()


@BOTH
def test_the_next_host_and_the_next_address_of_a_name_are_tried(run: Run) -> None:
    def answer(request: Request) -> Answer:
        return 200, {}, {"path": request.path}

    @run
    def body() -> None:
        with HttpFake(answer) as fake:
            port = fake.port
            # A name has ::1 first on many machines, where this fake does not listen.
            for hosts in ((f"localhost:{port}",), (f"127.0.0.1:{free_port()}", f"127.0.0.1:{port}")):
                assert http(*hosts).ask("GET", ("a", "b"), timeout=5.0).plain() == {"path": "/a/b"}

    body()


@BOTH
def test_an_error_that_is_kept_keeps_no_socket(run: Run) -> None:
    """Python's own client leaves the socket to an answer after which the peer closes, and that to whoever has it: an error's frames, for one."""

    def answer(request: Request) -> Answer:
        return 200, {}, lines(request)

    def lines(request: Request) -> Iterator[bytes]:
        yield b"one\n"
        request.wait()

    @run
    def body() -> None:
        with HttpFake(answer) as fake:
            before = sockets()
            with pytest.raises(DiscoveryError, match="no answer in time") as kept:
                list(http(f"127.0.0.1:{fake.port}").lines(("x",), {}, timeout=5.0, silence=0.05))
            wait_until(lambda: sockets() <= before)
            del kept

    body()


@with_hub
def _killed_in_the_handshake() -> None:
    gc.collect()
    before = sockets()
    with gevent.socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        asking = gevent.spawn(http(f"127.0.0.1:{server.getsockname()[1]}", tls=True).ask, "GET", ("x",), timeout=30.0)
        accepted, _ = server.accept()
        with accepted:
            assert accepted.recv(5)[:2] == b"\x16\x03", "its hello"
            asking.kill()
    wait_until(lambda: sockets() <= before)
    gc.collect()  # what was left would be told as a warning, which is an error


def test_a_greenlet_that_is_killed_in_the_handshake_leaves_no_socket() -> None:
    _killed_in_the_handshake()
