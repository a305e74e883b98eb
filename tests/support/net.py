"""Where network tests run, and peers that behave as badly as a test wants.

gevent makes a hub for each thread that asks for one, and what the runtime does depends on whether there is one. So each test says which it
means and gets a thread of its own: `@with_hub` or `@without_hub`. Both check that descriptors, threads and children are afterwards what they
were before.
"""

from __future__ import annotations

import functools
import logging
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

from codec.buffer import ReadBuffer, WriteBuffer
from codec.thrift import Reply, Route, ThriftClientProtocol
from tests.support.echo_stub import ECHO, Request
from tests.support.leaks import no_leaks

# Generous: the machine may be busy, and no test asserts how long a thing took.
PATIENCE = 20.0

_Test = TypeVar("_Test", bound=Callable[..., None])
_Result = TypeVar("_Result")


def with_hub(test: _Test) -> _Test:
    """Run a test in a thread with a gevent hub of its own."""
    return _in_a_thread(test, hub=True)


def without_hub(test: _Test) -> _Test:
    """Run a test in a thread that knows nothing of gevent."""
    return _in_a_thread(test, hub=False)


def _in_a_thread(test: _Test, *, hub: bool) -> _Test:
    @functools.wraps(test)
    def run(*args: Any, **options: Any) -> None:
        failure: list[BaseException] = []

        def body() -> None:
            from gevent._hub_local import get_hub_if_exists

            try:
                if hub:
                    import gevent

                    gevent.get_hub()
                test(*args, **options)
            except BaseException as error:
                failure.append(error)
            finally:
                made = get_hub_if_exists()
                if made is not None:
                    from poller.loop import loop_of

                    loop_of(made).close()
                    made.destroy(destroy_loop=True)

        with no_leaks():
            thread = threading.Thread(target=body, name=test.__name__, daemon=True)
            thread.start()
            thread.join()
            if failure:
                raise failure[0]

    return run  # type: ignore[return-value]


def apart(action: Callable[[], _Result]) -> _Result:
    """What an action gives in a thread of its own, which has no hub even if the test's has: where programs are called that own their process."""
    results: list[_Result] = []
    failures: list[BaseException] = []

    def body() -> None:
        try:
            results.append(action())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=body, name="apart", daemon=True)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]


def wait_until(condition: Callable[[], bool], what: str = "it", *, patience: float = PATIENCE) -> None:
    """Poll for what has no event: states of the kernel and of the other side. Cooperates in a thread that has a hub."""
    from gevent._hub_local import get_hub_if_exists

    pause: Callable[[float], object] = time.sleep
    if get_hub_if_exists() is not None:
        import gevent

        pause = gevent.sleep
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come about in {patience} s"
        pause(0.002)


@contextmanager
def records(name: str = "weego.worker") -> Iterator[list[logging.LogRecord]]:
    """What a logger is told, whatever other tests did to its level."""
    found: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = found.append  # type: ignore[method-assign]
    logger = logging.getLogger(name)
    before = logger.level, logger.disabled
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.disabled = False
    try:
        yield found
    finally:
        logger.removeHandler(handler)
        logger.level, logger.disabled = before


def target_of(address: str) -> tuple[socket.AddressFamily, Any]:
    """Family and target of the socket module for one of our addresses."""
    if address.startswith("unix://"):
        return socket.AF_UNIX, address.removeprefix("unix://")
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    if host.startswith("["):
        return socket.AF_INET6, (host[1:-1], int(port))
    return socket.AF_INET, (host, int(port))


def encode(request: Request, seqid: int = 1, *, method: str = "echo", framing: str = "framed", **infos: Any) -> bytes:
    """A call as bytes. `ints` and `strings` are TTHeader infos."""
    out = WriteBuffer()
    ThriftClientProtocol(framing).write_call(Route(ECHO.methods[method]), (request,), seqid, out, **infos)
    return out.take()


class Wire:
    """A raw, blocking client: bytes out, replies in."""

    def __init__(self, address: str, *, framing: str = "framed", receive_buffer: int = 0) -> None:
        family, target = target_of(address)
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(target)
        self.protocol = ThriftClientProtocol(framing)
        self.framing = framing
        self.input = ReadBuffer()
        self.ready: list[Reply] = []

    def write(self, request: Request, seqid: int = 1, *, method: str = "echo", **infos: Any) -> bytes:
        """A call as bytes, whose reply will be understood."""
        out = WriteBuffer()
        self.protocol.write_call(Route(ECHO.methods[method]), (request,), seqid, out, **infos)
        return out.take()

    def send(self, request: Request, seqid: int = 1, *, method: str = "echo", **infos: Any) -> None:
        self.sock.sendall(self.write(request, seqid, method=method, **infos))

    def reply(self) -> Reply:
        """The next one; fails at the end of the connection."""
        while not self.ready:
            data = self.sock.recv(65536)
            assert data, "the server closed the connection"
            self.input.write(data)
            self.ready += self.protocol.feed(self.input)
        return self.ready.pop(0)

    def at_end(self) -> bool:
        """Wait for the end of the connection: True for FIN with nothing before it, False for a reset."""
        try:
            data = self.sock.recv(65536)
        except ConnectionResetError:
            return False
        assert not data, f"the server sent {data[:80]!r}"
        return True

    def finish(self) -> None:
        """Send no more: FIN."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class Peer:
    """A server that does what `behave(connection, number)` says to each connection, in a thread; `number` counts from 0."""

    def __init__(self, behave: Callable[[socket.socket, int], None], *, host: str = "127.0.0.1", port: int = 0) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.sock.bind((host, port))
        self.sock.listen(64)
        self.port: int = self.sock.getsockname()[1]
        self.address = f"tcp://[{host}]:{self.port}" if family == socket.AF_INET6 else f"tcp://{host}:{self.port}"
        self.accepted = 0
        self.failures: list[BaseException] = []
        self._behave = behave
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept, name="peer", daemon=True)
        self._acceptor.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.sock.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection, self.accepted), name="peer connection", daemon=True)
            self.accepted += 1
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        with connection:
            connection.settimeout(PATIENCE)
            try:
                self._behave(connection, number)
            except (ConnectionError, TimeoutError):
                pass
            except BaseException as error:
                self.failures.append(error)

    def close(self) -> None:
        """Close the listening socket and wait for the connections' behaviour to end."""
        self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
        self._acceptor.join(PATIENCE)
        for thread in self._threads:
            thread.join(PATIENCE)
        assert not self.failures, self.failures

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_frame(connection: socket.socket) -> bytes:
    """One framed message, or b"" at the end."""
    head = _exactly(connection, 4)
    return head + _exactly(connection, struct.unpack("!I", head)[0]) if head else b""


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            return b""
        data += more
    return bytes(data)


def answer_to(frame: bytes, message: str) -> bytes:
    """The framed reply to a framed echo call: Response(message=message)."""
    name = struct.unpack("!I", frame[8:12])[0]
    head = frame[12 : 12 + name]
    seqid = frame[12 + name : 16 + name]
    text = message.encode()
    body = b"\x0c\x00\x00" + b"\x0b\x00\x01" + struct.pack("!I", len(text)) + text + b"\x00" + b"\x00"
    reply = struct.pack("!II", 0x80010002, len(head)) + head + seqid + body
    return struct.pack("!I", len(reply)) + reply


def echo_forever(connection: socket.socket, number: int) -> None:
    """A well-behaved peer: answers each framed call with its number."""
    while frame := read_frame(connection):
        connection.sendall(answer_to(frame, str(number)))


@contextmanager
def served(*services: object, **options: Any) -> Iterator[Any]:
    """A Server for the block, on any port."""
    from weego.server import Server

    options.setdefault("listen", ["tcp://127.0.0.1:0"])
    with Server(services, **options) as server:
        yield server
