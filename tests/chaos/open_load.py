"""Calls at a fixed rate, whatever becomes of the answers, by a client that costs next to nothing: what a server in overload does with them.

    python -m tests.chaos.open_load tcp://127.0.0.1:8888 --seconds 5 --rate 3000 [--closed 4]

Run from a folder with the probe's stubs (`gen.probe`); calls `tell`. Each call has a connection to itself, of so many as are needed. Prints one line: a JSON list of
[began, seconds, "ok" | "limit …" | "failed …"]. With --closed so many callers make one call after the other instead.
"""

from __future__ import annotations

import argparse
import json
import select
import socket
import sys
import time

from tests.support.net import target_of

# Connections at one time; a call that finds none is "failed: no connection".
MOST = 2000
# How long an answer may take (seconds).
PATIENCE = 5.0


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
    """The connections, and what became of the calls."""

    def __init__(self, address: str) -> None:
        self.family, self.target = target_of(address)
        self.epoll = select.epoll()
        self.message = request()
        self.idle: list[socket.socket] = []
        self.busy: dict[int, tuple[socket.socket, float]] = {}
        self.found: list[tuple[float, float, str]] = []
        self.began = 0.0

    def open(self, count: int) -> None:
        """Have so many connections."""
        for _ in range(count):
            sock = socket.create_connection(self.target) if self.family == socket.AF_INET else socket.socket(self.family)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.epoll.register(sock.fileno(), select.EPOLLIN)
            self.idle.append(sock)

    def call(self, now: float) -> None:
        if not self.idle:
            if len(self.busy) >= MOST:
                self.found.append((now - self.began, 0.0, "failed: no connection"))
                return
            self.open(1)
        sock = self.idle.pop()
        sock.send(self.message)
        self.busy[sock.fileno()] = (sock, now)

    def wait(self, seconds: float) -> int:
        """Take the answers that come; how many did."""
        ready = self.epoll.poll(seconds)
        now = time.monotonic()
        for fd, _ in ready:
            sock, since = self.busy.pop(fd)
            data = sock.recv(65536)
            outcome = "failed: no answer" if not data else "ok"
            if (at := data.find(b"limit ")) >= 0:
                outcome = data[at:].split(b"\0")[0].decode(errors="replace")
            elif b"UNAVAIL" in data or b"EXHAUSTED" in data or b"error" in data:
                outcome = f"failed: {data!r}"
            self.found.append((since - self.began, now - since, outcome))
            if data:
                self.idle.append(sock)
            else:
                self.epoll.unregister(fd)
                sock.close()
        return len(ready)

    def at_rate(self, rate: float, seconds: float) -> None:
        self.began = time.monotonic()
        made = 0
        while (now := time.monotonic()) - self.began < seconds:
            due = int((now - self.began) * rate)
            while made < due:
                self.call(time.monotonic())
                made += 1
            self.wait(max(0.0, self.began + (made + 1) / rate - time.monotonic()))

    def closed(self, callers: int, seconds: float) -> None:
        self.began = time.monotonic()
        for _ in range(callers):
            self.call(self.began)
        while time.monotonic() - self.began < seconds:
            for _ in range(self.wait(0.1)):
                self.call(time.monotonic())

    def finish(self) -> None:
        until = time.monotonic() + PATIENCE
        while self.busy and time.monotonic() < until:
            self.wait(0.1)
        self.found += [(since - self.began, PATIENCE, "failed: no answer in time") for _, since in self.busy.values()]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rate", type=float, default=100)
    parser.add_argument("--closed", type=int, default=0)
    options = parser.parse_args()
    load = Load(options.address)
    load.open(options.closed or 50)
    if options.closed:
        load.closed(options.closed, options.seconds)
    else:
        load.at_rate(options.rate, options.seconds)
    load.finish()
    print(json.dumps(load.found))


if __name__ == "__main__":
    main()
