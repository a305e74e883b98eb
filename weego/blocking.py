"""One call at a time over one blocking connection, for programs that do not use gevent."""

from __future__ import annotations

import _socket
import errno
import os
from typing import TYPE_CHECKING

from codec.buffer import ReadBuffer, WriteBuffer
from codec.errors import DeadlineExceeded, ProtocolError, Unavailable
from codec.payload import PayloadCodec
from codec.thrift import DEFAULT_MAX_MESSAGE, Reply, Route, client_protocol
from poller.clock import monotonic
from poller.connection import has_ended

if TYPE_CHECKING:
    from poller.tls import SecureSocket

__all__ = ["BlockingExchange"]

_READ_SIZE = 65536
# Of one system call; a call with one large argument has three.
_MOST_PARTS = 16


class BlockingExchange:
    """A client's connection `fd` to `address`, or the `secured` one made of it. The same calls as `Exchange`, waiting in the thread itself."""

    def __init__(
        self,
        fd: int,
        address: str,
        framing: str = "framed",
        max_message: int = DEFAULT_MAX_MESSAGE,
        checksum: bool = False,
        secured: SecureSocket | None = None,
        compression: str = "",
        payload: PayloadCodec | None = None,
    ) -> None:
        self.address = address
        # Never the patched class: this waits in the thread.
        self._sock: _socket.socket | SecureSocket | None = secured or _socket.socket(fileno=fd)
        self._protocol = client_protocol(framing, max_message, checksum, compression, payload)
        self._input = ReadBuffer()
        self._output = WriteBuffer()
        if secured is None:
            self._output.gather()

    def call(
        self,
        route: Route,
        args: tuple[object, ...],
        seqid: int,
        deadline: float,
        ints: dict[int, str] | None = None,
        strings: dict[str, str] | None = None,
    ) -> Reply | None:
        """Send a call and wait for its Reply; None when the method is oneway. Errors as `Exchange.call`."""
        self._protocol.write_call(route, args, seqid, self._output, ints, strings)
        try:
            self._send(self._output.parts(), deadline)
            return None if route.oneway else self._receive(deadline)
        except BaseException:
            self.close()
            raise

    def _send(self, parts: list[bytes | memoryview], deadline: float) -> None:
        sent = False
        while parts:
            sock = self._wait(deadline)
            try:
                if isinstance(sock, _socket.socket) and len(parts) > 1:
                    left = sock.sendmsg(parts[:_MOST_PARTS], (), _socket.MSG_NOSIGNAL)
                else:
                    left = sock.send(memoryview(parts[0]), _socket.MSG_NOSIGNAL)
            except OSError as error:
                raise self._failure(error, sent=sent) from None
            sent = True
            while parts and left >= len(parts[0]):
                left -= len(parts.pop(0))
            if left:
                parts[0] = memoryview(parts[0])[left:]

    def _receive(self, deadline: float) -> Reply:
        while True:
            try:
                data = self._wait(deadline).recv(_READ_SIZE)
            except OSError as error:
                raise self._failure(error, sent=True) from None
            if not data:
                raise Unavailable(
                    f"no answer from {self.address}: the connection was closed by the peer", instance=self.address
                )
            self._input.write(data)
            try:
                messages = self._protocol.feed(self._input)
            except ProtocolError as error:
                error.instance = self.address
                raise
            if messages:
                reply: Reply = messages[0]
                return reply

    def _wait(self, deadline: float) -> _socket.socket | SecureSocket:
        if self._sock is None:
            raise Unavailable(f"the connection to {self.address} was closed", sent=False, instance=self.address)
        left = deadline - monotonic() if deadline else None
        if left is not None and left <= 0:
            raise self._late()
        self._sock.settimeout(left)
        return self._sock

    def _failure(self, error: OSError, *, sent: bool) -> Exception:
        if isinstance(error, TimeoutError):
            return self._late()
        reason = os.strerror(error.errno or errno.EIO).lower()
        return Unavailable(f"the connection to {self.address} broke: {reason}", sent=sent, instance=self.address)

    def _late(self) -> DeadlineExceeded:
        return DeadlineExceeded(f"no answer from {self.address} in time", instance=self.address)

    def is_alive(self) -> bool:
        """Could a call go out now? Asks the kernel: nothing watches the socket between two calls."""
        if self._sock is None:
            return False
        return not (has_ended(self._sock.fileno()) if isinstance(self._sock, _socket.socket) else self._sock.has_ended())

    @property
    def is_reusable(self) -> bool:
        """True when the last call left the connection between two messages."""
        return self._sock is not None and len(self._input) == 0

    def close(self) -> None:
        """Close the connection."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def __repr__(self) -> str:
        return f"<BlockingExchange {self.address} {'closed' if self._sock is None else 'open'}>"
