"""Calls at a fixed rate, whatever becomes of the answers, by a client that costs next to nothing: what a server in overload does with them.

    python -m tests.chaos.open_load tcp://127.0.0.1:8888 --seconds 5 --rate 3000 [--closed 4] [--worker PID]

Run from a folder with the probe's stubs (`gen.probe`); calls `tell`. Each call has a connection to itself, of so many as are needed. Prints one line, JSON: "calls" are
[began, seconds, waited, "ok" | "limit …" | "failed …"] each. With --closed so many callers make one call after the other instead.

A call begins just before its bytes are sent and ends when the kernel has the answer, by the kernel's own clock (SO_TIMESTAMPNS): how late this client sends, and how
late it looks at what came, is no part of it. `waited` is for how much of it the --worker was ready to run and had no CPU, for others had them: what a busy
machine adds. "starved" is how long that was in all.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import socket
import struct
import sys
import time
from typing import Final

from tests.support.net import target_of

# Connections at one time; a call that finds none is "failed: no connection".
MOST = 2000
# How long an answer may take (seconds).
PATIENCE = 5.0
# Has `recvmsg` tell when the kernel got the bytes, as a timespec of the time of day; the socket module has no name for it.
SO_TIMESTAMPNS: Final = 35
TIMESPEC: Final = struct.Struct("@ll")


def request() -> bytes:
    """One framed call of `tell`."""
    sys.path.insert(0, ".")
    from gen.probe import Probe  # type: ignore[import-not-found]

    from codec.buffer import WriteBuffer
    from codec.thrift import Route, ThriftClientProtocol

    out = WriteBuffer()
    ThriftClientProtocol("framed").write_call(Route(Probe.__spec__.methods["tell"]), ("x",), 1, out)
    return out.take()


class Load:
    """The connections, and what became of the calls. Instants are those of time.time()."""

    def __init__(self, address: str, worker: int = 0) -> None:
        _, self.target = target_of(address)
        self.epoll = select.epoll()
        self.message = request()
        self.idle: list[socket.socket] = []
        self.busy: dict[int, tuple[socket.socket, float, float]] = {}
        self.found: list[tuple[float, float, float, str]] = []
        self.began = 0.0
        self.schedstat = os.open(f"/proc/{worker}/task/{worker}/schedstat", os.O_RDONLY) if worker else -1

    def starved(self) -> float:
        """For how long the worker has waited for a CPU so far (seconds). What it waits just now counts when it got one."""
        return int(os.pread(self.schedstat, 100, 0).split()[1]) / 1e9 if self.schedstat >= 0 else 0.0

    def open(self, count: int) -> None:
        """Have so many connections."""
        for _ in range(count):
            sock = socket.create_connection(self.target)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            self.epoll.register(sock.fileno(), select.EPOLLIN)
            self.idle.append(sock)

    def call(self) -> None:
        if not self.idle:
            if len(self.busy) >= MOST:
                self.found.append((time.time() - self.began, 0.0, 0.0, "failed: no connection"))
                return
            self.open(1)
        sock = self.idle.pop()
        starved = self.starved()
        since = time.time()
        sock.send(self.message)
        self.busy[sock.fileno()] = (sock, since, starved)

    def wait(self, seconds: float) -> int:
        """Take the answers that come; how many did."""
        if seconds > 0:  # epoll counts in whole milliseconds, which would have calls come in bunches
            select.select([self.epoll], [], [], seconds)
        ready = self.epoll.poll(0)
        starved = self.starved() if ready else 0.0
        for fd, _ in ready:
            sock, since, before = self.busy.pop(fd)
            data, notes, _, _ = sock.recvmsg(65536, 64)
            at = time.time()
            for level, kind, note in notes:
                if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
                    whole, part = TIMESPEC.unpack(note)
                    at = whole + part / 1e9
            outcome = "failed: no answer" if not data else "ok"
            if (found := data.find(b"limit ")) >= 0:
                outcome = data[found:].split(b"\0")[0].decode(errors="replace")
            elif b"UNAVAIL" in data or b"EXHAUSTED" in data or b"error" in data:
                outcome = f"failed: {data!r}"
            self.found.append((since - self.began, at - since, min(starved - before, at - since), outcome))
            if data:
                self.idle.append(sock)
            else:
                self.epoll.unregister(fd)
                sock.close()
        return len(ready)

    def at_rate(self, rate: float, seconds: float) -> None:
        self.began = time.time()
        made = 0
        while (now := time.time()) - self.began < seconds:
            due = int((now - self.began) * rate)
            while made < due:
                self.call()
                made += 1
            self.wait(self.began + (made + 1) / rate - time.time())

    def closed(self, callers: int, seconds: float) -> None:
        self.began = time.time()
        for _ in range(callers):
            self.call()
        while time.time() - self.began < seconds:
            for _ in range(self.wait(0.1)):
                self.call()

    def finish(self) -> None:
        until = time.time() + PATIENCE
        while self.busy and time.time() < until:
            self.wait(0.1)
        self.found += [(since - self.began, PATIENCE, 0.0, "failed: no answer in time") for _, since, _ in self.busy.values()]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rate", type=float, default=100)
    parser.add_argument("--closed", type=int, default=0)
    parser.add_argument("--worker", type=int, default=0)
    options = parser.parse_args()
    load = Load(options.address, options.worker)
    load.open(options.closed or 50)
    starved = load.starved()
    if options.closed:
        load.closed(options.closed, options.seconds)
    else:
        load.at_rate(options.rate, options.seconds)
    starved = load.starved() - starved
    load.finish()
    print(json.dumps({"calls": load.found, "starved": starved}))


if __name__ == "__main__":
    main()
