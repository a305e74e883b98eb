"""Servers that can be hurt: weego and its rivals, behind the same few verbs, so that each figure is measured in the same way on all.

    with Weego(folder) as target:
        pid = target.ask()             # a new connection, a question, the pid of the worker that answered
        target.reload()                # SIGHUP

All serve the same two things on loopback with two workers: who you are, and the same after some seconds. Weego speaks framed Thrift, the rivals
HTTP/1.1. gunicorn has gevent workers, uvicorn and granian are as they come.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Self

import psutil

from tests.e2e.wire import DOUBLE, STRING, answer, call, cut
from tests.support.ports import free_port
from tests.support.service import MASTER, PROBE_CODE, App

WORKERS: Final = 2
#: Seconds that calls in progress are given by all of them.
GRACE: Final = 10
#: And that idle connections are kept by those who would close them after 2 or 5.
KEEP_ALIVE: Final = 60

WSGI = """\
import os, time
VERSION = 1
{boot}
def app(environ, start):
    path = environ["PATH_INFO"]
    if path.startswith("/wait/"):
        time.sleep(float(path[6:]))
    if path == "/block":
        {block}
    body = b"%d %d" % (os.getpid(), VERSION)
    start("200 OK", [("Content-Length", str(len(body))), ("Content-Type", "text/plain")])
    return [body]
"""
ASGI = """\
import asyncio, os, time
VERSION = 1
{boot}
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({{"type": message["type"] + ".complete"}})
            if message["type"] == "lifespan.shutdown":
                return
    path = scope["path"]
    if path.startswith("/wait/"):
        await asyncio.sleep(float(path[6:]))
    if path == "/block":
        {block}
    body = b"%d %d" % (os.getpid(), VERSION)
    await send({{"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]}})
    await send({{"type": "http.response.body", "body": body}})
"""
# A C function that keeps the interpreter's lock: nothing of the process turns.
BLOCK = 'import ctypes; ctypes.PyDLL(None).sleep(60)'
# A worker that ends soon after it began, and leaves a mark each time.
CRASHES = "open('boots', 'a').write('x'); import threading; threading.Timer(0.1, os._exit, (1,)).start()"


class Target:
    """A server in a folder of its own; gone, with all its children, when the block ends."""

    name = ""
    title = ""

    def __init__(self, folder: Path, *, hang_timeout: float = 0, output: int | None = None, boot: str = "", workers: int = WORKERS) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.hang_timeout = hang_timeout
        self.workers_wanted = workers
        self.log = folder / "log"
        self._output = output
        self.seen: set[psutil.Process] = set()
        self.write_app(boot)
        self.write_conf()
        self.process: subprocess.Popen[bytes]

    # ---- what each of them is ----------------------------------------------------------------------------------------

    def command(self) -> list[str]:
        raise NotImplementedError

    def write_conf(self, *, more: str = "") -> None:
        """The configuration file, where there is one."""

    def write_app(self, boot: str = "") -> None:
        """The application; every worker runs `boot` when it begins."""
        raise NotImplementedError

    def break_import(self) -> None:
        """Make the application one that cannot be imported."""
        raise NotImplementedError

    def question(self, path: str) -> bytes:
        raise NotImplementedError

    def read(self, sock: socket.socket) -> int:
        """The pid in an answer. ConnectionError if there is none."""
        raise NotImplementedError

    @property
    def can_break_conf(self) -> bool:
        """Whether a reload reads a file that may be wrong."""
        return False

    # ---- its life ----------------------------------------------------------------------------------------------------

    def start(self, *, patiently: bool = True) -> None:
        """Start and, `patiently`, wait until all workers answer."""
        output: Any = self._output if self._output is not None else open(self.log, "ab")  # noqa: SIM115 -- closed below
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(self.folder)}
        self.process = subprocess.Popen(
            self.command(), cwd=self.folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, start_new_session=True
        )
        if self._output is None:
            output.close()
        if not patiently:
            return
        wait(lambda: self.process.poll() is not None or self.answers(), f"{self.name} to answer", 30)
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.name} did not start: {self.log.read_text()[-2000:]}")
        wait(lambda: len(self.workers()) >= self.workers_wanted, "all workers", 30)
        time.sleep(0.5)  # the second worker of a rival says nowhere that it is ready

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.workers()
        for process in (*self.seen,):
            try:
                process.resume()
            except psutil.Error:
                continue
        try:
            os.killpg(self.process.pid, signal.SIGKILL)  # the session has its leader's number
        except (ProcessLookupError, AttributeError):
            pass
        if hasattr(self, "process"):
            self.process.wait()
        for process in self.seen:
            try:
                process.kill()
            except psutil.Error:
                continue
        psutil.wait_procs(self.seen, 10)

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def workers(self) -> set[int]:
        """Pids of those that serve, drain or boot: children that are no helpers."""
        found = set()
        try:
            for child in psutil.Process(self.process.pid).children(recursive=True):
                self.seen.add(child)
                if self.is_worker(child):
                    found.add(child.pid)
        except psutil.Error:
            pass
        return found

    def is_worker(self, child: psutil.Process) -> bool:
        try:
            return child.status() != psutil.STATUS_ZOMBIE and "resource_tracker" not in " ".join(child.cmdline())
        except psutil.Error:
            return False

    def cpu(self) -> float:
        """Seconds of CPU that its master has had."""
        try:
            times = psutil.Process(self.process.pid).cpu_times()
        except psutil.Error:
            return 0.0
        return times.user + times.system

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def reload(self) -> None:
        self.signal(signal.SIGHUP)

    # ---- its clients -------------------------------------------------------------------------------------------------

    def connect(self, timeout: float = 10) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def ask(self, path: str = "/", timeout: float = 10) -> int:
        """The pid of who answers on a new connection."""
        with self.connect(timeout) as sock:
            sock.sendall(self.question(path))
            return self.read(sock)

    def answers(self, timeout: float = 2) -> bool:
        try:
            return bool(self.ask(timeout=timeout))
        except (OSError, ValueError):
            return False

    def hold(self, seconds: float) -> socket.socket:
        """A connection on which a call of so many seconds is under way."""
        sock = self.connect(seconds + GRACE + 10)
        sock.sendall(self.question(f"/wait/{seconds}"))
        return sock


def wait(condition: Callable[[], object], what: str, patience: float = 30, step: float = 0.002) -> float:
    """Seconds until it holds. AssertionError if it never does."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() > begun + patience:
            raise AssertionError(f"{what}: not within {patience:g} s")
        time.sleep(step)
    return time.monotonic() - begun


class Weego(Target):
    """weego-master."""

    name = "weego"
    title = "weego"

    def command(self) -> list[str]:
        return [MASTER, str(self.app.conf)]

    def write_app(self, boot: str = "") -> None:
        if not hasattr(self, "app"):
            self.app = App(self.folder)
        code = PROBE_CODE.format(version=1).replace('raise RuntimeError("on purpose")', BLOCK)
        # What a rival runs on import runs here when the worker makes its service: on import it would run in the loader.
        self.app.write_code(code.replace("self.heard: list[str] = []", f"self.heard: list[str] = []; {boot}"))

    def break_import(self) -> None:
        self.app.write_code("import no_such_module\n")

    def write_conf(self, *, more: str = "") -> None:
        server = f'graceful_timeout = "{GRACE}s"\ncontrol = "weego.sock"'
        if self.hang_timeout:
            server += f'\nhang_timeout = "{self.hang_timeout}s"'
        log = f'format = "text"\naccess = {"true" if self._output is not None else "false"}'
        self.app.write_conf(
            workers=self.workers_wanted, listen=[f"tcp://127.0.0.1:{self.port}"], server=server, log=log, more=more
        )

    def is_worker(self, child: psutil.Process) -> bool:
        try:
            return child.status() != psutil.STATUS_ZOMBIE and " ".join(child.cmdline()).startswith("weego: worker")
        except psutil.Error:
            return False

    def question(self, path: str) -> bytes:
        if path.startswith("/wait/"):
            return call("wait", (1, DOUBLE, float(path[6:])), (2, STRING, "?"))
        if path == "/block":
            return call("fail")
        return call("tell", (1, STRING, "?"))

    def read(self, sock: socket.socket) -> int:
        got = bytearray()
        while (body := cut("framed", got)) is None:
            chunk = sock.recv(65536)
            if not chunk:
                raise ConnectionResetError("closed without an answer")
            got += chunk
        return int(answer(body).text.split(":")[0].split()[1])

    @property
    def can_break_conf(self) -> bool:
        return True

    def when(self, pattern: str) -> list[float]:
        """When lines of the log that match were written: seconds since the epoch."""
        lines = [line for line in self.log.read_text().splitlines() if re.search(pattern, line)]
        return [datetime.fromisoformat(line.split(" ", 1)[0]).timestamp() for line in lines]

    def wait_for(self, pattern: str, times: int = 1, patience: float = 30) -> float:
        """Seconds until so many lines of the log match."""
        return wait(lambda: len(re.findall(pattern, self.log.read_text())) >= times, pattern, patience)


class Rival(Target):
    """Speaks HTTP/1.1; `bin` is the folder of its program."""

    template = ASGI
    bin = Path()

    def write_app(self, boot: str = "") -> None:
        (self.folder / "app.py").write_text(self.template.format(boot=boot, block=BLOCK))

    def break_import(self) -> None:
        (self.folder / "app.py").write_text("import no_such_module\n")

    def question(self, path: str) -> bytes:
        return f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()

    def read(self, sock: socket.socket) -> int:
        got = b""
        while b"\r\n\r\n" not in got:
            chunk = sock.recv(65536)
            if not chunk:
                raise ConnectionResetError("closed without an answer")
            got += chunk
        head, _, body = got.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise ConnectionResetError(head[:50].decode())
        match = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        while match and len(body) < int(match[1]):
            body += sock.recv(65536)
        return int(body.split()[0])


class Gunicorn(Rival):
    """gunicorn with gevent workers."""

    name = "gunicorn"
    title = "gunicorn (gevent)"
    template = WSGI

    def command(self) -> list[str]:
        return [str(self.bin / "gunicorn"), "-c", "conf.py", "app:app"]

    def write_conf(self, *, more: str = "") -> None:
        access = 'accesslog = "-"' if self._output is not None else ""
        (self.folder / "conf.py").write_text(
            f'bind = ["127.0.0.1:{self.port}"]\nworkers = {self.workers_wanted}\nworker_class = "gevent"\n'
            f"keepalive = {KEEP_ALIVE}\ngraceful_timeout = {GRACE}\ntimeout = {self.hang_timeout or 30:g}\n{access}\n{more}\n"
        )

    @property
    def can_break_conf(self) -> bool:
        return True


class Uvicorn(Rival):
    """uvicorn --workers."""

    name = "uvicorn"
    title = "uvicorn"

    def command(self) -> list[str]:
        command = [str(self.bin / "uvicorn"), "app:app", "--workers", str(self.workers_wanted), "--port", str(self.port)]
        command += ["--timeout-graceful-shutdown", str(GRACE), "--timeout-keep-alive", str(KEEP_ALIVE)]
        return command if self._output is not None else [*command, "--no-access-log"]


class Granian(Rival):
    """granian with its defaults."""

    name = "granian"
    title = "granian"

    def command(self) -> list[str]:
        command = [str(self.bin / "granian"), "--interface", "asgi", "--workers", str(self.workers_wanted), "--port", str(self.port)]
        return [*command, *(["--access-log"] if self._output is not None else []), "app:app"]


RIVALS: Final = (Gunicorn, Uvicorn, Granian)
