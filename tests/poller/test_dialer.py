"""Making connections, both ways."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Callable

import gevent
import pytest

from codec.errors import Unavailable, UsageError
from poller import dialer
from poller.address import parse
from poller.clock import monotonic
from poller.dialer import connect_blocking, connect_with_hub
from tests.support.net import Peer, with_hub, without_hub

Connect = Callable[[str, float], int]


def blocking(address: str, seconds: float = 20) -> int:
    return connect_blocking(parse(address), monotonic() + seconds)


def with_the_hub(address: str, seconds: float = 20) -> int:
    return connect_with_hub(parse(address), monotonic() + seconds, gevent.get_hub())


def both(test: Callable[[Connect], None]) -> Callable[[bool], None]:
    @pytest.mark.parametrize("hub", [False, True], ids=["blocking", "hub"])
    def run(hub: bool) -> None:
        (with_hub if hub else without_hub)(lambda: test(with_the_hub if hub else blocking))()

    run.__name__ = test.__name__
    return run


def hang_up(connection: socket.socket, number: int) -> None:
    connection.recv(1)


@both
def test_a_connection_has_no_delay_and_no_heirs(connect: Connect) -> None:
    with Peer(hang_up) as peer:
        fd = connect(peer.address, 20)
        assert not os.get_inheritable(fd)
        assert os.get_blocking(fd) == (connect is blocking)
        with socket.socket(fileno=fd) as sock:
            assert sock.getpeername() == ("127.0.0.1", peer.port)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@both
def test_ipv6_and_unix(connect: Connect) -> None:
    with Peer(hang_up, host="::1") as peer:
        os.close(connect(peer.address, 20))
    path = f"/tmp/weego-dialer-{os.getpid()}.sock"
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen(1)
    try:
        os.close(connect(f"unix://{path}", 20))
    finally:
        listening.close()
        os.unlink(path)
    with pytest.raises(Unavailable, match=r"connection refused|no such file"):
        connect(f"unix://{path}", 20)


@both
def test_the_addresses_of_a_name_are_tried_in_order(connect: Connect) -> None:
    real = dialer._targets
    with Peer(hang_up) as peer:
        closed = socket.create_server(("127.0.0.1", 0))
        dead = closed.getsockname()
        closed.close()
        patch = pytest.MonkeyPatch()
        targets = [(socket.AF_INET, dead), (socket.AF_INET6, ("::1", dead[1])), (socket.AF_INET, ("127.0.0.1", peer.port))]
        patch.setattr(dialer, "_targets", lambda *_: targets)
        try:
            os.close(connect("tcp://name:1", 20))
        finally:
            patch.undo()
    assert dialer._targets is real


@both
def test_a_limit_that_has_passed(connect: Connect) -> None:
    with pytest.raises(Unavailable, match="no answer in time") as caught:
        connect("tcp://127.0.0.1:1", -1)
    assert caught.value.sent is False


@both
def test_names_that_are_none(connect: Connect) -> None:
    for name in ("no.such.host.invalid", "x" * 64 + ".invalid", "two..dots"):
        with pytest.raises(Unavailable, match="cannot resolve"):
            connect(f"tcp://{name}:1", 20)


@both
def test_a_process_out_of_descriptors_says_so(connect: Connect) -> None:
    with Peer(hang_up) as peer:
        os.close(connect(peer.address, 20))
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            with pytest.raises(Unavailable, match="too many open files"):
                connect(peer.address, 20)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@with_hub
def test_a_resolver_that_does_not_answer_is_given_up() -> None:
    hub = gevent.get_hub()

    class Slow:
        def getaddrinfo(self, *_: object) -> None:
            gevent.sleep(20)

    real = hub.resolver
    hub.resolver = Slow()
    try:
        with pytest.raises(Unavailable, match="cannot resolve 'name': no answer in time"):
            with_the_hub("tcp://name:1", 0.05)
    finally:
        hub.resolver = real


@with_hub
def test_a_timeout_of_the_caller_passes_through() -> None:
    full = socket.socket()
    full.bind(("127.0.0.1", 0))
    full.listen(0)
    queued = []
    for _ in range(3):
        waiting = socket.socket()
        waiting.setblocking(False)
        waiting.connect_ex(full.getsockname())
        queued.append(waiting)
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.05):
        with_the_hub(f"tcp://127.0.0.1:{full.getsockname()[1]}")
    for each in (full, *queued):
        each.close()


@pytest.mark.parametrize("text", ["", "host", "host:", ":80", "host:port", "host:0", "host:65536", "host:٣", "tcp://", "ftp://x:1"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError, match="use tcp://host:port or unix:///path"):
        parse(text)
