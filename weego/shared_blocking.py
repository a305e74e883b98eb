"""Many calls at a time over one blocking connection, from the threads of a program that does not use gevent.

There is no thread of its own: of the threads that wait, one reads for all. When its own answer has come, or its deadline, it hands the reading
to another that still waits (the leader and the followers of Schmidt et al., 1996).
"""

from __future__ import annotations

import _socket
import contextlib
import copy
import errno
import os
import select
import threading
from typing import TYPE_CHECKING

from codec.buffer import ReadBuffer, WriteBuffer
from codec.errors import ClosedError, DeadlineExceeded, ProtocolError, ResourceExhausted, RpcError, Unavailable
from codec.payload import PayloadCodec
from codec.thrift import DEFAULT_MAX_MESSAGE, Reply, Route, client_protocol
from codec.ttheader import StringKey
from poller.clock import monotonic
from poller.connection import has_ended
from weego.shared import MOST_WAITING

if TYPE_CHECKING:
    from poller.tls import SecureSocket, Session

__all__ = ["SharedBlockingExchange"]

_READ_SIZE = 65536


class _Waiting:
    """One call that waits for its answer."""

    __slots__ = ("error", "nudge", "reply")

    def __init__(self) -> None:
        self.reply: Reply | None = None
        self.error: Exception | None = None
        self.nudge = threading.Semaphore(0)  # the answer has come, or it is this one's turn to read

    def over(self) -> bool:
        return self.reply is not None or self.error is not None


class SharedBlockingExchange:
    """A client's connection `fd` to `address`, or the `secured` one made of it; `framing` is one with a TTHeader. Any thread may call."""

    def __init__(
        self, fd: int, address: str, framing: str = "ttheader", max_message: int = DEFAULT_MAX_MESSAGE, checksum: bool = False,
        compression: str = "", secured: SecureSocket | None = None, payload: PayloadCodec | None = None,
    ) -> None:
        self.address = address
        self.leaving = False
        self._tls: Session | None = None
        if secured is None:
            self._sock: _socket.socket | None = _socket.socket(fileno=fd)  # never the patched class: this waits in the thread
        else:
            self._sock, self._tls = secured.take_apart()
        self._sock.setblocking(False)
        self._protocol = client_protocol(framing, max_message, checksum, compression, payload)
        self._protocol.shared = True
        self._input = ReadBuffer()
        self._output = WriteBuffer()
        self._lock = threading.Lock()  # the protocol, the table of calls, the closing
        self._sending = threading.Lock()
        self._waiting: dict[int, _Waiting] = {}
        self._is_read = False  # somebody reads
        self._heard = monotonic()  # when the peer last said something

    def call(
        self,
        route: Route,
        args: tuple[object, ...],
        seqid: int,
        deadline: float,
        ints: dict[int, str] | None = None,
        strings: dict[str, str] | None = None,
    ) -> Reply | None:
        """Send a call and wait for its Reply; None when the method is oneway. Errors as `SharedExchange.call`."""
        waiting = _Waiting()
        with self._sending:  # whole messages, one after the other
            with self._lock:
                if self._sock is None or self.leaving:
                    raise Unavailable(f"the connection to {self.address} takes no more calls", sent=False, instance=self.address)
                if len(self._waiting) >= MOST_WAITING:
                    raise ResourceExhausted(
                        f"{len(self._waiting)} calls wait for answers of {self.address} on one connection, as many as may"
                    )
                self._protocol.write_call(route, args, seqid, self._output, ints, strings)
                data = self._encrypted(self._output.take())
                if not route.oneway:
                    self._waiting[seqid] = waiting
            try:
                self._send(data, deadline)
            except RpcError as error:
                # Half a message is out: nothing can follow it.
                self._fail(error)
                raise
        if route.oneway:
            return None
        try:
            self._wait(waiting, deadline)
        finally:
            with self._lock:
                self._waiting.pop(seqid, None)
                self._protocol.forget(seqid)
                last = self._is_over()
            self._hand_on()
            if last:
                self.close()
        if waiting.error is not None:
            raise waiting.error
        return waiting.reply

    def _wait(self, waiting: _Waiting, deadline: float) -> None:
        while not waiting.over():
            with self._lock:
                mine = not self._is_read
                self._is_read = True
            if not mine:
                left = None if not deadline else deadline - monotonic()
                if (left is not None and left <= 0) or not waiting.nudge.acquire(timeout=left):
                    raise self._late()
                continue
            try:
                while not waiting.over():
                    self._read(deadline)
            finally:
                with self._lock:
                    self._is_read = False

    def _is_over(self) -> bool:
        return self.leaving and not self._waiting

    def _hand_on(self) -> None:
        """Somebody else shall read, if nobody does."""
        with self._lock:
            if not self._is_read:
                for other in self._waiting.values():
                    if not other.over():
                        other.nudge.release()
                        return

    def _read(self, deadline: float) -> None:
        sock = self._sock
        if sock is None:
            self._fail(Unavailable(f"no answer from {self.address}: the connection was closed", instance=self.address))
            return
        if not self._ready(sock, select.POLLIN, deadline):
            raise self._late()
        try:
            data = sock.recv(_READ_SIZE)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(self._broken(error, sent=True))
            return
        self._heard = monotonic()
        try:
            with self._lock:
                if data and self._tls is not None:
                    plain, ended = self._decrypted(self._tls, data)
                else:
                    plain, ended = data, not data
                self._input.write(plain)
                replies = self._protocol.feed(self._input)
                for reply in replies:
                    if reply.header is not None and StringKey.RESET in reply.header.strings:
                        self.leaving = True
                    waiting = self._waiting.pop(reply.seqid, None)
                    if waiting is not None:
                        waiting.reply = reply
                        waiting.nudge.release()
        except (ProtocolError, Unavailable) as error:
            error.instance = self.address
            self._fail(error)
            return
        if ended:
            self._fail(Unavailable(f"no answer from {self.address}: the connection was closed by the peer", instance=self.address))

    # OpenSSL is called with the lock held: it cannot encrypt and decrypt at a time. What it has to say by itself, such as the answer to a key update,
    # goes out with the next call, in the order it was made.

    def _encrypted(self, data: bytes) -> bytes:
        if self._tls is None:
            return data
        rest = memoryview(data)
        while rest:
            rest = rest[self._tls.ssl.write(rest) :]
        return self._tls.outgoing.read()

    def _decrypted(self, tls: Session, data: bytes) -> tuple[bytes, bool]:
        """What the peer said, and whether that was all."""
        import ssl

        tls.incoming.write(data)
        parts: list[bytes] = []
        while True:
            try:
                part = tls.ssl.read(_READ_SIZE)
            except ssl.SSLWantReadError:
                return b"".join(parts), False
            except ssl.SSLError as error:
                from poller.tls import describe

                raise Unavailable(f"the connection to {self.address} broke: TLS: {describe(error)}", instance=self.address) from None
            if not part:
                return b"".join(parts), True
            parts.append(part)

    def _send(self, data: bytes, deadline: float) -> None:
        rest = memoryview(data)
        while rest:
            sock = self._sock
            if sock is None:
                raise Unavailable(f"the connection to {self.address} was closed", sent=len(rest) < len(data), instance=self.address)
            try:
                rest = rest[sock.send(rest, _socket.MSG_NOSIGNAL) :]
            except BlockingIOError:
                if not self._ready(sock, select.POLLOUT, deadline):
                    raise self._late() from None
            except OSError as error:
                raise self._broken(error, sent=len(rest) < len(data)) from None

    def _ready(self, sock: _socket.socket, event: int, deadline: float) -> bool:
        """Wait for the socket; False when the deadline has passed."""
        left = None if not deadline else max(0.0, deadline - monotonic())
        poll = select.poll()
        try:
            poll.register(sock.fileno(), event)
        except (OSError, ValueError):  # closed by another thread
            return True
        return bool(poll.poll(None if left is None else left * 1000 + 1))

    def _fail(self, error: Exception) -> None:
        """End the connection and all calls that wait on it."""
        with self._lock:
            self.leaving = True
            sock, self._sock = self._sock, None
            waiting, self._waiting = self._waiting, {}
        if sock is not None:
            with contextlib.suppress(OSError):  # who reads just now waits for the descriptor, and would not notice that it is closed
                sock.shutdown(_socket.SHUT_RDWR)
            sock.close()
        for each in waiting.values():
            each.error = copy.copy(error)
            each.nudge.release()

    def _broken(self, error: OSError, *, sent: bool) -> Unavailable:
        reason = os.strerror(error.errno or errno.EIO).lower()
        return Unavailable(f"the connection to {self.address} broke: {reason}", sent=sent, instance=self.address)

    def _late(self) -> DeadlineExceeded:
        return DeadlineExceeded(f"no answer from {self.address} in time", instance=self.address)

    def is_alive(self) -> bool:
        """Could a call go out now? Asks the kernel where no call is under way, for then nobody reads."""
        with self._lock:
            sock = self._sock
            if sock is None or self.leaving:
                return False
            if self._waiting or self._is_read or self._tls is None:
                return bool(self._waiting) or not has_ended(sock.fileno())
            return self._is_quiet(sock, self._tls)

    def _is_quiet(self, sock: _socket.socket, tls: Session) -> bool:
        """Has the peer said nothing, but for what TLS says by itself, such as tickets?"""
        try:
            while data := sock.recv(_READ_SIZE):
                plain, ended = self._decrypted(tls, data)
                if plain or ended:
                    return False
        except BlockingIOError:
            return True
        except (OSError, Unavailable):
            pass
        return False

    def silence(self) -> float:
        """Seconds since the peer was last heard of."""
        return monotonic() - self._heard

    def give_up(self, error: Exception) -> None:
        """Close the connection; calls under way fail with `error`."""
        self._fail(error)

    def close(self) -> None:
        """Close the connection; calls under way fail with ClosedError."""
        self._fail(ClosedError("the client was closed during the call"))

    def close_soon(self) -> None:
        """Close the connection when the calls under way are over."""
        with self._lock:
            self.leaving = True
            idle = not self._waiting
        if idle:
            self.close()

    def abandon(self) -> None:
        """In a forked child: close our copy of the descriptor, and touch no lock, whose holders are not in this process."""
        sock, self._sock = self._sock, None
        if sock is not None:
            sock.close()

    def __len__(self) -> int:
        return len(self._waiting)

    def __repr__(self) -> str:
        return f"<SharedBlockingExchange {self.address} {len(self)} calls {'closed' if self._sock is None else 'open'}>"
