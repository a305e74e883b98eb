"""A real etcd in a process of its own, on free ports and in a folder of its own, to be killed, frozen and started again.

    with EtcdServer(tmp_path) as etcd:
        EtcdRegistry(etcd.url)                    # etcd://127.0.0.1:…
        etcd.kill(); etcd.start()                 # the same address, the same data
        etcd.freeze(); etcd.thaw()
        etcd.ctl("put", "key", "value")           # etcd's own client
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Self

import psutil

from tests.support.certs import Certificates
from tests.support.need import program
from tests.support.ports import free_port
from tests.support.processes import Process, freeze

INSTALL = "apt-get install etcd-server etcd-client"
# Ports that were free a moment ago may be taken; so often others are tried.
TRIES = 5
PATIENCE = 30.0


class EtcdServer:
    """One etcd. Leaving the block ends it."""

    def __init__(self, folder: Path, *, certificates: Certificates | None = None, name: str = "one") -> None:
        self.folder = folder
        self.name = name
        self.cluster = ""
        """All members, where it is one of several."""
        self.certificates = certificates
        self.scheme = "http" if certificates is None else "https"
        self.process: Process | None = None
        self.port = self.peer_port = 0

    @property
    def url(self) -> str:
        """As clients write it."""
        return f"etcd://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, again perhaps, and wait until it answers."""
        for _ in range(TRIES if not self.port else 1):
            is_first = not self.port
            if is_first:
                self.port, self.peer_port = free_port(), free_port()
            if self._starts():
                return
            if is_first:
                self.port = 0
        raise AssertionError(f"etcd does not start:\n{self.process.output if self.process else ''}")

    def launch(self) -> None:
        """Start it, and wait for nothing."""
        client, peer = f"{self.scheme}://127.0.0.1:{self.port}", f"http://127.0.0.1:{self.peer_port}"
        command = [program("etcd", INSTALL), "--data-dir", str(self.folder / f"etcd-{self.name}"), "--name", self.name, "--logger", "zap"]
        command += ["--listen-client-urls", client, "--advertise-client-urls", client]
        command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
        command += ["--initial-cluster", self.cluster or f"{self.name}={peer}"]
        if self.certificates is not None:
            folder = self.certificates.folder
            command += ["--cert-file", str(folder / "server.crt"), "--key-file", str(folder / "server.key")]
        # Debian's package reads a file of defaults only by its service; these would still come from this process's environment.
        env = {name: "" for name in os.environ if name.startswith("ETCD_")}
        self.process = Process(command, env=env)

    def _starts(self) -> bool:
        self.launch()
        assert self.process is not None
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self.process.child.poll() is None:
            if self.is_up():
                return True
            time.sleep(0.05)
        self.kill()
        return False

    def is_up(self) -> bool:
        """Does it say that it is healthy?"""
        if not self._listens():
            return False
        done = self._ctl("endpoint", "health")
        return done.returncode == 0 or "user name is empty" in done.stderr  # it wants a login, and so is well

    def _listens(self) -> bool:
        """Is it ours that listens at its port, and nobody else's?"""
        try:
            found = psutil.Process(self.process.pid).net_connections("tcp") if self.process is not None else []
        except psutil.Error:
            return False
        return any(each.status == psutil.CONN_LISTEN and each.laddr.port == self.port for each in found)

    def ctl(self, *arguments: str, login: str = "") -> str:
        """Run etcdctl; its output."""
        done = self._ctl(*arguments, login=login)
        assert done.returncode == 0, f"etcdctl {arguments}: {done.stderr or done.stdout}"
        return done.stdout

    def _ctl(self, *arguments: str, login: str = "") -> subprocess.CompletedProcess[str]:
        command = [program("etcdctl", INSTALL), "--endpoints", f"{self.scheme}://127.0.0.1:{self.port}", "--command-timeout", "5s"]
        if self.certificates is not None:
            command += ["--cacert", self.certificates.path("ca")]
        if login:
            command += ["--user", login]
        env = {**os.environ, "ETCDCTL_API": "3"}
        return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=PATIENCE, check=False, env=env)

    def kill(self) -> None:
        """End it at once."""
        process, self.process = self.process, None
        if process is not None:
            process.__exit__()

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


class EtcdCluster:
    """Three members, of which one may be lost. Leaving the block ends them."""

    def __init__(self, folder: Path) -> None:
        self.members = [EtcdServer(folder, name=name) for name in ("one", "two", "three")]
        for member in self.members:
            member.port, member.peer_port = free_port(), free_port()
        cluster = ",".join(f"{member.name}=http://127.0.0.1:{member.peer_port}" for member in self.members)
        for member in self.members:
            member.cluster = cluster

    @property
    def url(self) -> str:
        """All of them."""
        return "etcd://" + ",".join(f"127.0.0.1:{member.port}" for member in self.members)

    def start(self) -> None:
        """Start all, and wait until each answers, which none does before two are there."""
        for member in self.members:
            member.launch()
        deadline = time.monotonic() + PATIENCE
        while not all(member.is_up() for member in self.members):
            if time.monotonic() > deadline:
                raise AssertionError("\n".join(member.process.output[-2000:] for member in self.members if member.process is not None))
            time.sleep(0.1)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        for member in self.members:
            member.kill()
