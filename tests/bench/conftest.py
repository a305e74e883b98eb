"""Fixtures of the benchmark's tests: a server that answers what a test wants."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from bench.native import program

if TYPE_CHECKING:
    from pathlib import Path

Answer = Callable[[bytes], bytes | None]
"""What to send for what one recv gave; None closes the connection."""


@pytest.fixture(scope="session")
def loadgen() -> str:
    """Path of the compiled load generator."""
    if not any(shutil.which(name) for name in ("cc", "gcc", "clang")):
        pytest.skip("no C compiler: apt install gcc libc6-dev")
    return str(program("loadgen"))


class Server:
    """Answers each connection in a thread of its own until the test is over."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = int(self._listener.getsockname()[1])
        self.accepted = 0
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(1 << 16):
                    answer = self._answer(data)
                    if answer is None:
                        return
                    connection.sendall(answer)
            except OSError:
                return  # the generator has gone, as it should after a broken reply

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], Server]]:
    """Starts servers that end with the test."""
    servers: list[Server] = []

    def start(answer: Answer) -> Server:
        servers.append(Server(answer))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def generate(loadgen: str, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Runs the generator against a port; returns the JSON it printed, with its exit code as ``code``."""

    def run(port: int, request: bytes, reply: bytes | None = None, **options: object) -> dict[str, Any]:
        (tmp_path / "request").write_bytes(request)
        command = [loadgen, "--port", str(port), "--request", str(tmp_path / "request")]
        if reply is not None:
            (tmp_path / "reply").write_bytes(reply)
            command += ["--reply", str(tmp_path / "reply")]
        for name, value in options.items():
            command += [f"--{name.replace('_', '-')}", str(value)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
        assert done.stderr == ""
        said: dict[str, Any] = json.loads(done.stdout)
        return {**said, "code": done.returncode}

    return run
