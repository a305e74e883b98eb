"""A real ZooKeeper (Debian's package) in a process of its own, on a free port, to be killed, frozen and started again.

    with ZooServer(tmp_path) as zoo:
        ZookeeperRegistry(zoo.url)
"""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path
from typing import Self

from tests.support.need import missing, program
from tests.support.ports import free_port
from tests.support.processes import Process, freeze

JAR = Path("/usr/share/java/zookeeper.jar")
INSTALL = "apt-get install zookeeper default-jre-headless"
PATIENCE = 60.0
TRIES = 5


class ZooServer:
    """One ZooKeeper. Leaving the block ends it. Its tick is short, so that sessions of a second are allowed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: Process | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """As clients write it."""
        return f"zookeeper://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, again perhaps, and wait until it answers."""
        for _ in range(TRIES if not self.port else 1):
            is_first = not self.port
            if is_first:
                self.port = free_port()
            if self._starts():
                return
            if is_first:
                self.port = 0
        raise AssertionError(f"ZooKeeper does not start:\n{self.output}")

    @property
    def output(self) -> str:
        """What it said last."""
        return self.process.output if self.process is not None else self._last

    _last = ""

    def _starts(self) -> bool:
        java = program("java", INSTALL)
        if not JAR.exists():
            missing("ZooKeeper", INSTALL)
        conf = self.folder / "zoo.cfg"
        data = self.folder / "zookeeper"
        data.mkdir(parents=True, exist_ok=True)
        conf.write_text(
            f"dataDir={data}\nclientPort={self.port}\nclientPortAddress=127.0.0.1\ntickTime=250\nadmin.enableServer=false\n"
            "4lw.commands.whitelist=ruok,srvr\nforceSync=no\n"
        )
        command = [java, "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", str(JAR)]
        self.process = Process([*command, "org.apache.zookeeper.server.quorum.QuorumPeerMain", str(conf)])
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self.process.child.poll() is None:
            if self.is_up():
                return True
            time.sleep(0.05)
        self.kill()
        return False

    def is_up(self) -> bool:
        """Does it serve?"""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as sock:
                sock.sendall(b"srvr")
                said = b""
                while more := sock.recv(4096):
                    said += more
                return b"Mode:" in said
        except OSError:
            return False

    def kill(self) -> None:
        """End it at once."""
        process, self.process = self.process, None
        if process is not None:
            process.__exit__()
            self._last = process.output

    def close(self) -> None:
        """For `contextlib.closing`."""
        self.kill()

    def freeze(self) -> None:
        """It is there and does nothing."""
        assert self.process is not None
        freeze(self.process.pid)

    def thaw(self) -> None:
        """It goes on."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
