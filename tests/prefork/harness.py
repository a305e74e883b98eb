"""A master of the test's own: started in a folder, spoken to over sockets, gone when the block ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
#: Nothing here takes a second on an idle machine; a busy one may need longer, and only a hang takes this long.
PATIENCE = 30.0


def until(condition, what="the condition", patience=PATIENCE):
    """Wait for a condition to hold; what it returned."""
    deadline = time.monotonic() + patience
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {patience:g} s")
        time.sleep(0.01)


class Client:
    """One connection that speaks frames."""

    def __init__(self, address):
        if address.startswith("unix://"):
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(PATIENCE)
            self.sock.connect(address.removeprefix("unix://"))
        else:
            host, port = address.removeprefix("tcp://").rsplit(":", 1)
            self.sock = socket.create_connection((host, int(port)), timeout=PATIENCE)

    def send(self, body: bytes):
        self.sock.sendall(struct.pack("!I", len(body)) + body)

    def receive(self) -> bytes:
        (size,) = struct.unpack("!I", self._exactly(4))
        return self._exactly(size)

    def call(self, body: bytes) -> bytes:
        self.send(body)
        return self.receive()

    def who(self) -> tuple[int, int]:
        """Pid and generation of the worker at the other end."""
        pid, generation = self.call(b"pid").split()
        return int(pid), int(generation)

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _exactly(self, size):
        data = b""
        while len(data) < size:
            chunk = self.sock.recv(size - len(data))
            if not chunk:
                raise ConnectionResetError(f"end of file after {len(data)} of {size} bytes")
            data += chunk
        return data


class Server:
    """The echo server of echo_app.py under a master."""

    root = ROOT
    """Where its code is."""

    def __init__(self, folder: Path, **conf):
        self.folder = folder
        self.conf = {"listen": ["tcp://127.0.0.1:0"], "workers": 2, "graceful_timeout": 10.0, **conf}
        self.configure()
        self.process: subprocess.Popen
        self.family: set[psutil.Process] = set()

    def configure(self, **conf):
        """Write the config, changed."""
        self.conf |= conf
        (self.folder / "conf.tmp").write_text(json.dumps(self.conf))
        (self.folder / "conf.tmp").replace(self.folder / "conf.json")

    def start(self, *arguments):
        (self.folder / "ready.json").unlink(missing_ok=True)
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(self.root / "tests/prefork/echo_app.py"), str(self.folder), *arguments],
                stderr=log,
                stdout=log,
                env={**os.environ, "PYTHONPATH": str(self.root)},
                start_new_session=True,
            )
        return self

    def wait_ready(self):
        until(lambda: (self.folder / "ready.json").exists() or self.process.poll() is not None, "on_ready")
        assert self.process.poll() is None, self.log
        self.wait_family()
        return self

    def wait_family(self):
        """A worker may be ready before it is the master's child: until the middle process is gone, it is that one's."""
        until(lambda: len(self.children()) > self.ready["workers"] or self.process.poll() is not None, "all children to be seen")

    @property
    def ready(self) -> dict:
        return json.loads((self.folder / "ready.json").read_text())

    @property
    def address(self) -> str:
        return self.ready["listen"][0][1]

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    @property
    def errors(self) -> list[str]:
        return [line for line in self.log.splitlines() if " ERROR " in line]

    def signal(self, signum):
        self.process.send_signal(signum)

    def connect(self) -> Client:
        return Client(self.address)

    def children(self, title="") -> dict[int, str]:
        """Pid → title of the master's children whose title contains ``title``."""
        found = {}
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(self.process.pid).children():
                with contextlib.suppress(psutil.Error):
                    self.family.add(child)
                    name = " ".join(child.cmdline()).strip()
                    if title in name:
                        found[child.pid] = name
        return found

    def workers(self, generation=None) -> set[int]:
        """Pids of live workers (of one generation)."""
        return set(self.children("worker" if generation is None else f" gen {generation} ")) - set(
            self.children("loader")
        )

    def wait_log(self, text, times=1):
        until(lambda: self.log.count(text) >= times, f"{text!r} in the log")

    def reload(self):
        """HUP, and wait for the end of it, good or bad."""
        before = self.log.count("reload done") + self.log.count("reload failed")
        self.signal(signal.SIGHUP)
        until(lambda: self.log.count("reload done") + self.log.count("reload failed") > before, "the end of the reload")

    def wait_exit(self) -> int:
        return self.process.wait(PATIENCE)

    def __enter__(self):
        self.start()
        try:
            return self.wait_ready()
        except BaseException:
            self.__exit__("did not start")
            raise

    def __exit__(self, failed=None, *_):
        found = self.children()
        if failed is not None:
            print(self.log, found, sep="\n")  # pytest shows it
        if self.process.poll() is None:
            self.signal(signal.SIGQUIT)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        _, alive = psutil.wait_procs([child for child in self.family if child.is_running()], 10)
        for child in alive:
            child.kill()
        assert not alive, f"left running: {alive}\n{self.log}"
        assert "a mistake in the master" not in self.log, self.log
