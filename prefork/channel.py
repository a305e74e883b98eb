"""A control channel: whole messages, descriptors included, between two processes of the family; nobody ever blocks.

It is a SOCK_SEQPACKET pair: a message arrives whole or not at all, and the end of file means that the process at the
other end is gone, however it died. Rules
 1. One process holds each end. Whoever forks closes the ends that are not the child's, or the end of file never comes.
 2. What the socket does not take now is queued and sent when it does; descriptors in the queue are duplicates of ours.
 3. A message is a small dict of plain values, as JSON: kind under "is".
"""

from __future__ import annotations

import _socket
import array
import errno
import json
import os
from collections import deque
from typing import TYPE_CHECKING, Any

from prefork.primitives import SCM_RIGHTS, SOL_SOCKET, RawSocket, close_quietly

if TYPE_CHECKING:
    from collections.abc import Iterable

Message = dict[str, Any]

#: The largest message. The kernel refuses what exceeds the send buffer (208 KiB by default); settings, which may be
#: large, travel as a memfd.
MAX_MESSAGE_BYTES = 128 * 1024
#: Descriptors in one message (SCM_MAX_FD).
MAX_FDS = 253

# ETOOMANYREFS: the user's descriptors in flight exceed RLIMIT_NOFILE; ENOBUFS: no kernel memory. Both pass.
_BUSY = (errno.EAGAIN, errno.ENOBUFS, errno.ETOOMANYREFS)


class Closed(Exception):
    """The process at the other end is gone."""


def pair() -> tuple[RawSocket, RawSocket]:
    """Two connected non-blocking SEQPACKET ends, close-on-exec. Raises OSError when out of descriptors."""
    ends = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC)
    return ends[0], ends[1]


def send_packet(sock: RawSocket, data: bytes, fds: Iterable[int] = ()) -> bool:
    """Send one packet. False: not now. Raises Closed."""
    rights = array.array("i", fds)
    ancillary = [(SOL_SOCKET, SCM_RIGHTS, rights)] if rights else []
    try:
        sock.sendmsg([data], ancillary, _socket.MSG_NOSIGNAL)
    except OSError as error:
        if error.errno in _BUSY:
            return False
        if error.errno in (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN):
            raise Closed from None
        raise
    return True


def receive_packet(sock: RawSocket, size: int = MAX_MESSAGE_BYTES) -> tuple[bytes, list[int], bool] | None:
    """One packet, its descriptors (close-on-exec), and whether descriptors were lost for want of room in our table.

    None: nothing there. Raises Closed. Closes what it received if it cannot return it.
    """
    while True:
        try:
            data, ancillary, flags, _ = sock.recvmsg(size, _socket.CMSG_SPACE(MAX_FDS * 4), _socket.MSG_CMSG_CLOEXEC)
            break
        except OSError as error:
            if error.errno == errno.EAGAIN:
                return None
            # A peer that dies with our packets unread leaves this error in front of its own last packets. They count:
            # "adopted" may be among them. Reading the error clears it.
            if error.errno != errno.ECONNRESET:
                raise
    fds: list[int] = []
    for level, kind, payload in ancillary:
        if (level, kind) == (SOL_SOCKET, SCM_RIGHTS):
            rights = array.array("i")
            rights.frombytes(payload[: len(payload) - len(payload) % rights.itemsize])
            fds.extend(rights)
    if not data:  # nobody sends empty packets, so this is the end of file
        for fd in fds:
            close_quietly(fd)
        raise Closed
    return data, fds, bool(flags & _socket.MSG_CTRUNC)


class Channel:
    """One end, with a queue for what the socket does not take at once."""

    def __init__(self, sock: RawSocket, queue: Iterable[tuple[bytes, list[int]]] = ()) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._queue = deque(queue)
        self.is_closed = False

    @classmethod
    def closed(cls) -> Channel:
        """One whose other end is gone."""
        channel = cls(RawSocket(_socket.AF_UNIX))
        channel.close()
        return channel

    def leave(self) -> tuple[int, list[tuple[bytes, list[int]]]]:
        """The descriptor and the queue, for a successor in this process: it makes a Channel of them."""
        return self._sock.fileno(), list(self._queue)

    def fileno(self) -> int:
        """The descriptor to watch: for reading always, for writing while ``is_congested``."""
        return self._sock.fileno()

    @property
    def is_congested(self) -> bool:
        """Whether messages wait for room in the socket."""
        return bool(self._queue)

    def send(self, message: Message, fds: Iterable[int] = ()) -> None:
        """Send or queue. To a peer that is gone: nothing, the reading side learns of it."""
        if self.is_closed:
            return
        data = json.dumps(message, separators=(",", ":")).encode()
        if len(data) > MAX_MESSAGE_BYTES:
            raise ValueError(f"control message {message.get('is')!r} of {len(data)} bytes")
        try:
            if not self._queue and send_packet(self._sock, data, fds):
                return
        except Closed:
            return
        self._queue.append((data, [os.dup(fd) for fd in fds]))

    def flush(self) -> None:
        """Send what is queued, as far as the socket takes it."""
        while self._queue:
            data, fds = self._queue[0]
            try:
                if not send_packet(self._sock, data, fds):
                    return
            except Closed:
                self._drop_queue()
                return
            self._queue.popleft()
            for fd in fds:
                close_quietly(fd)

    def receive(self) -> tuple[Message, list[int]] | None:
        """The next message and its descriptors, or None for now. Raises Closed."""
        packet = receive_packet(self._sock)
        if packet is None:
            return None
        data, fds, truncated = packet
        if truncated:
            for fd in fds:
                close_quietly(fd)
            raise OSError(errno.EMFILE, "no room for the descriptors of a control message: raise LimitNOFILE")
        message: Message = json.loads(data)
        return message, fds

    def close(self) -> None:
        """Close this end; the other sees the end of file after what was sent."""
        if not self.is_closed:
            self.is_closed = True
            self._drop_queue()
            self._sock.close()

    def _drop_queue(self) -> None:
        while self._queue:
            for fd in self._queue.popleft()[1]:
                close_quietly(fd)
