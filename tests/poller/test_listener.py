"""Taking in connections: the gate, the queue, a shortage of descriptors."""

from __future__ import annotations

import os
import socket

import gevent

from poller.listener import Listener
from tests.support.net import records, wait_until, with_hub


def listening() -> tuple[socket.socket, tuple[str, int]]:
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    return sock, sock.getsockname()


@with_hub
def test_it_accepts_while_it_is_active() -> None:
    sock, name = listening()
    taken: list[int] = []
    listener = Listener(gevent.get_hub(), sock.fileno(), taken.append)
    assert not listener.active
    listener.start()
    listener.start()
    peers = [socket.create_connection(name) for _ in range(40)]
    wait_until(lambda: len(taken) == 40)
    for fd in taken:
        assert not os.get_blocking(fd)
        assert not os.get_inheritable(fd)
        with socket.socket(fileno=fd) as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    listener.stop()
    assert "stopped" in repr(listener)
    late = socket.create_connection(name)
    for _ in range(20):
        gevent.sleep(0)
    assert len(taken) == 40
    assert listener.drain() == 1
    assert listener.drain() == 0
    os.close(taken[-1])
    for each in (*peers, late, sock):
        each.close()


@with_hub
def test_the_gate_leaves_the_queue_to_others() -> None:
    sock, name = listening()
    taken: list[int] = []
    is_open = False
    asked: list[int] = []
    listener = Listener(gevent.get_hub(), sock.fileno(), taken.append, lambda: asked.append(1) or is_open)  # type: ignore[func-returns-value]
    listener.start()
    peer = socket.create_connection(name)
    wait_until(lambda: len(asked) > 3)
    assert taken == []
    is_open = True
    wait_until(lambda: len(taken) == 1)
    listener.stop()
    os.close(taken[0])
    peer.close()
    sock.close()


@with_hub
def test_stop_while_it_rests() -> None:
    sock, name = listening()
    listener = Listener(gevent.get_hub(), sock.fileno(), os.close, lambda: asked.append(1) and False)  # type: ignore[func-returns-value]
    asked: list[int] = []
    listener.start()
    peer = socket.create_connection(name)
    wait_until(lambda: len(asked) > 1)
    listener.stop()
    count = len(asked)
    gevent.sleep(0.02)
    assert len(asked) == count
    peer.close()
    sock.close()


@with_hub
def test_one_that_cannot_be_taken_in_costs_the_others_nothing() -> None:
    sock, name = listening()
    taken: list[int] = []

    def take(fd: int) -> None:
        taken.append(fd)
        if len(taken) == 1:
            raise ValueError("not this one")

    listener = Listener(gevent.get_hub(), sock.fileno(), take)
    listener.start()
    with records() as log:
        peers = [socket.create_connection(name) for _ in range(3)]
        wait_until(lambda: len(taken) == 3)
    assert [record.getMessage() for record in log] == ["taking in a connection failed"]
    listener.stop()
    for fd in taken:
        os.close(fd)
    for each in (*peers, sock):
        each.close()


@with_hub
def test_a_socket_that_does_not_listen_is_complained_about_and_not_hammered() -> None:
    sock, _ = listening()
    listener = Listener(gevent.get_hub(), sock.fileno(), os.close)
    with records() as log:
        listener.start()
        sock.shutdown(socket.SHUT_RDWR)
        wait_until(lambda: bool(log))
        gevent.sleep(0.05)
    assert len(log) == 1
    assert "cannot accept" in log[0].getMessage()
    assert "EINVAL" in log[0].getMessage()
    listener.stop()
    sock.close()


@with_hub
def test_a_child_does_not_accept() -> None:
    sock, name = listening()
    taken: list[int] = []
    listener = Listener(gevent.get_hub(), sock.fileno(), taken.append)
    listener.start()
    child = os.fork()
    if child == 0:
        try:
            gevent.reinit()
            gevent.sleep(0.3)
        finally:
            os._exit(len(taken))
    peers = [socket.create_connection(name) for _ in range(5)]
    wait_until(lambda: len(taken) == 5)
    assert os.waitpid(child, 0)[1] == 0
    listener.stop()
    for fd in taken:
        os.close(fd)
    for each in (*peers, sock):
        each.close()


@with_hub
def test_a_closed_gate_costs_nothing_while_nobody_waits() -> None:
    sock, name = listening()
    asked: list[int] = []
    listener = Listener(gevent.get_hub(), sock.fileno(), os.close, lambda: asked.append(1) and False)  # type: ignore[func-returns-value]
    listener.start()
    peer = socket.create_connection(name)
    wait_until(lambda: len(asked) > 1)
    sock.accept()[0].close()  # another process takes it: the queue is empty again
    gevent.sleep(0.02)  # a rest that was under way ends
    count = len(asked)
    gevent.sleep(0.05)
    assert len(asked) == count
    listener.stop()
    peer.close()
    sock.close()
