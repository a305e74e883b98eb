"""Load for the reload and crash tests: connections that are opened once and never again, every answer checked byte by byte.

    with Load(address, connections=64, idle=8) as load:
        …
    assert not load.failures

A connection that the server closes or resets, an answer that is wrong, out of order or older code than the connection has already seen: each is
a failure, with its reason. Nothing is repeated and no connection is replaced, so zero failures also means zero reconnects.
"""

from __future__ import annotations

import random
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from tests.e2e.wire import STRING, Wire, answer, cut, pack, told

# An answer that has not come after so long is a failure (seconds).
PATIENCE: Final = 30.0
READ: Final = 1 << 16
# Requests that busy connections keep unanswered, and the size of their text: from what fits a segment to what does not fit one read.
DEPTHS: Final = (1, 1, 3, 1, 1, 2, 1, 8)
SIZES: Final = (16, 200, 16, 1000, 16, 5000, 16, 70_000)
FRAMED: Final = ("framed",)
ALL_FRAMINGS: Final = ("framed", "buffered", "ttheader")


@dataclass(frozen=True)
class Failure:
    """What went wrong on which connection (a newcomer has none); the worker that answered there last; when the request or newcomer began."""

    number: int | None
    pid: int
    began: float
    why: str
    heard: float = 0.0
    """When the connection was last answered, and when this was found."""
    at: float = 0.0

    def __str__(self) -> str:
        who = "newcomer" if self.number is None else f"connection {self.number} to worker {self.pid}"
        return f"{who}: {self.why}"[:300]


class Connection:
    """One of them."""

    def __init__(self, number: int, address: str, *, every: float, framing: str) -> None:
        host, _, port = address.removeprefix("tcp://").rpartition(":")
        self.number = number
        self.framing = framing
        self.socket = socket.create_connection((host, int(port)), timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.every = every
        self.depth = 1 if every >= 0.1 else DEPTHS[number % len(DEPTHS)]
        self.size = SIZES[number % len(SIZES)]
        self.due = 0.0
        self.sent = 0
        self.waiting: deque[tuple[int, str, float]] = deque()
        self.unsent = bytearray()
        self.got = bytearray()
        self.version = 0
        self.pid = 0
        self.failed = False
        self.heard = time.monotonic()


class Load:
    """`connections` of which `idle` send a request only every `idle_every` seconds; the others wait `pace` seconds between two. They
    take the `framings` in turn.

    Beside them `newcomers` short connections per second are opened, used once and closed, each of which must succeed.
    """

    def __init__(
        self,
        address: str,
        *,
        connections: int = 64,
        idle: int = 8,
        idle_every: float = 0.4,
        pace: float = 0.0,
        newcomers: float = 20,
        framings: Sequence[str] = FRAMED,
    ) -> None:
        self.address = address
        self.newest = 1
        self.answered = 0
        self.arrived = 0
        self.failures: list[Failure] = []
        self.pids: set[int] = set()
        self.slowest = 0.0
        self.latencies: list[float] = []
        """Seconds, of every answer since somebody emptied it."""
        self._newcomers = newcomers
        self._ending = threading.Event()
        self._epoll = select.epoll()
        self._all = [
            Connection(i, address, every=idle_every if i < idle else pace, framing=framings[i // 8 % len(framings)])
            for i in range(connections)
        ]
        self._by_fd = {each.socket.fileno(): each for each in self._all}
        self._threads = [
            threading.Thread(target=self._run, name="load"),
            threading.Thread(target=self._arrive, name="newcomers"),
        ]

    def __enter__(self) -> Self:
        for fd in self._by_fd:
            self._epoll.register(fd, select.EPOLLIN)
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """No more requests; those under way must still be answered."""
        self._ending.set()
        for thread in self._threads:
            thread.join()
        for each in self._all:
            each.socket.close()
        self._epoll.close()

    def served_by(self, pid: int) -> list[int]:
        """Numbers of the connections that this worker answered last."""
        return [each.number for each in self._all if each.pid == pid]

    def behind(self, version: int) -> list[int]:
        """Numbers of the connections that have not yet been answered by code of `version`."""
        return [each.number for each in self._all if each.version < version and not each.failed]

    # ---- connections that stay ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        ends = 0.0
        while True:
            now = time.monotonic()
            if self._ending.is_set():
                ends = ends or now + PATIENCE
                if now > ends or not any(each.waiting for each in self._all if not each.failed):
                    break
            else:
                for each in self._all:
                    if each.due <= now:
                        self._fill(each, now)
            for fd, event in self._epoll.poll(0.005):
                each = self._by_fd[fd]
                if event & select.EPOLLOUT:
                    self._push(each)
                if event & ~select.EPOLLOUT:
                    self._read(each)
        for each in self._all:
            if each.waiting and not each.failed:
                self._fail(each, f"no answer to {len(each.waiting)} requests")

    def _fill(self, each: Connection, now: float) -> None:
        """Send as many requests as the connection may have unanswered."""
        while len(each.waiting) < each.depth and not each.failed:
            each.sent += 1
            text = f"{each.number}.{each.sent}." + "x" * each.size
            each.waiting.append((each.sent, text, now))
            each.unsent += pack(each.framing, "tell", (1, STRING, text), seqid=each.sent)
            if each.every:
                each.due = now + each.every * random.uniform(0.5, 1.5)
                break
        self._push(each)

    def _push(self, each: Connection) -> None:
        if each.failed or not each.unsent:
            return
        try:
            count = each.socket.send(each.unsent)
        except BlockingIOError:
            count = 0
        except OSError as error:
            self._fail(each, f"sending: {error}")
            return
        del each.unsent[:count]
        self._epoll.modify(each.socket, select.EPOLLIN | (select.EPOLLOUT if each.unsent else 0))

    def _read(self, each: Connection) -> None:
        if each.failed:
            return
        try:
            data = each.socket.recv(READ)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(each, f"receiving: {error}")
            return
        if not data:
            self._fail(each, f"closed by the server with {len(each.waiting)} requests unanswered")
            return
        each.got += data
        now = time.monotonic()
        while each.got:
            try:
                body = cut(each.framing, each.got)
                if body is None:
                    break
                self._check(each, body, now)
            except (AssertionError, ValueError, IndexError, struct.error) as error:
                self._fail(each, f"wrong answer: {error}")
                return
        if not each.every and not self._ending.is_set():
            self._fill(each, now)

    def _check(self, each: Connection, body: bytes, now: float) -> None:
        found = answer(body)
        seqid, text, sent = each.waiting.popleft()
        assert (found.name, found.seqid) == ("tell", seqid), f"{found.name} {found.seqid} in place of {seqid}"
        version, pid = told(found.text, text)
        assert each.version <= version <= self.newest, f"code {version} after {each.version}, newest is {self.newest}"
        each.version, each.pid, each.heard = version, pid, now
        self.pids.add(pid)
        self.slowest = max(self.slowest, now - sent)
        self.latencies.append(now - sent)
        self.answered += 1

    def _fail(self, each: Connection, why: str) -> None:
        each.failed = True
        self.failures.append(
            Failure(
                each.number,
                each.pid,
                each.waiting[0][2] if each.waiting else time.monotonic(),
                why,
                each.heard,
                time.monotonic(),
            )
        )
        self._epoll.unregister(each.socket)

    # ---- connections that come and go --------------------------------------------------------------------------------

    def _arrive(self) -> None:
        while self._newcomers and not self._ending.wait(random.uniform(0.5, 1.5) / self._newcomers):
            began = time.monotonic()
            try:
                with Wire(self.address) as wire:
                    version, _ = wire.tell(f"newcomer {self.arrived}")
                    assert version <= self.newest
            except (OSError, AssertionError, ValueError, struct.error) as error:
                self.failures.append(Failure(None, 0, began, repr(error), began, time.monotonic()))
            self.arrived += 1
