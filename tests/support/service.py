"""A server as a user has it: a folder with code and stubs, a configuration, and weego-master serving it in processes of its own.

    app = App(tmp_path)                        # writes probe.thrift, its stubs and app.py
    with app.serve() as server:                # writes server.toml, starts the master, waits until it serves
        with Wire(server.address) as wire: …
    assert server.log …                        # leaving the block stopped it and looked at its log

The probe service below has a method for each thing that the end-to-end tests look at.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import psutil

from tests.support.leaks import descriptors
from tests.support.need import ROOT
from tests.support.processes import PATIENCE, Process, assert_clean

T = TypeVar("T")

MASTER = str(ROOT / "bin" / "weego-master")
WEEGO = str(ROOT / "bin" / "weego")

PROBE_IDL = """\
namespace py probe

exception Refused {
    1: string reason
}

/** The shape of what nests: a list of itself. */
struct Tree {
    1: string name
    2: list<Tree> children
    3: list<i64> numbers
}

service Probe {
    /** "<version of the code> <pid>: <text>" */
    string tell(1: string text)
    string echo(1: string text)
    binary blob(1: binary data)
    /** So many bytes. */
    binary make(1: i32 size)
    /** Waits, and lets others work meanwhile. */
    string wait(1: double seconds, 2: string text)
    i32 pid()
    Tree tree(1: Tree tree)
    void refuse(1: string reason) throws (1: Refused refused)
    void fail()
    oneway void note(1: string text)
    list<string> notes()
}
"""

PROBE_CODE = """\
import os
import time

from gen.probe import Probe, Refused, Tree

VERSION = {version}


class Service(Probe):
    def __init__(self) -> None:
        self.heard: list[str] = []

    def tell(self, text: str) -> str:
        return f"{{VERSION}} {{os.getpid()}}: {{text}}"

    def echo(self, text: str) -> str:
        return text

    def blob(self, data: bytes) -> bytes:
        return data

    def make(self, size: int) -> bytes:
        return bytes(range(256)) * (size // 256) + bytes(size % 256)

    def wait(self, seconds: float, text: str) -> str:
        time.sleep(seconds)
        return f"{{VERSION}} {{os.getpid()}}: {{text}}"

    def pid(self) -> int:
        return os.getpid()

    def tree(self, tree: Tree) -> Tree:
        return tree

    def refuse(self, reason: str) -> None:
        raise Refused(reason=reason)

    def fail(self) -> None:
        raise RuntimeError("on purpose")

    def note(self, text: str) -> None:
        self.heard.append(text)

    def notes(self) -> list[str]:
        return self.heard
"""

# Its `echo` is the other service's: of a client that the configuration calls "other".
CALLING_CODE = (
    PROBE_CODE.format(version=1)
    .replace("from gen.probe import Probe,", "from gen.probe import Probe, ProbeClient,")
    .replace("self.heard: list[str] = []", 'self.heard: list[str] = []\n        self.other = ProbeClient("service://other")')
    .replace("        return text\n\n    def blob", "        return self.other.echo(text)\n\n    def blob")
)


class App:
    """A user's folder. `idl` is compiled to ``gen/``; `code` becomes app.py, whose class ``Service`` is served."""

    def __init__(
        self, folder: Path, *, idl: str = PROBE_IDL, idl_name: str = "probe.thrift", code: str | None = None
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / idl_name).write_text(idl)
        generate(folder / idl_name, folder / "gen")
        self.conf = folder / "server.toml"
        self.write_code(PROBE_CODE.format(version=1) if code is None else code)

    def write_code(self, code: str) -> None:
        """Replace app.py. Whoever imports it next sees it: a stale .pyc of the same second and size would hide it."""
        path = self.folder / "app.py"
        fresh = self.folder / "app.py.new"
        fresh.write_text(code)
        fresh.replace(path)
        shutil.rmtree(self.folder / "__pycache__", ignore_errors=True)

    def write_version(self, version: int) -> None:
        """Replace app.py by the probe service that says it is `version`."""
        self.write_code(PROBE_CODE.format(version=version))

    def write_conf(
        self,
        *,
        listen: Sequence[str] = ("tcp://127.0.0.1:0",),
        workers: int = 1,
        service: str = "app:Service",
        server: str = "",
        limits: str = "",
        log: str = "access = false",
        more: str = "",
    ) -> Path:
        """Write server.toml; `server`, `limits`, `log` are lines for those tables, `more` goes to the end."""
        text = f'[server]\nname = "probe"\nworkers = {workers}\napp_dir = {json.dumps(str(self.folder))}\n{server}\n\n'
        text += "".join(f"[[listen]]\naddress = {json.dumps(address)}\n\n" for address in listen)
        text += f"[[service]]\nclass = {json.dumps(service)}\n\n[limits]\n{limits}\n\n[log]\n{log}\n\n{more}\n"
        fresh = self.conf.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(self.conf)
        return self.conf

    def serve(self, *, allow: Sequence[str] = (), **conf: Any) -> Server:
        """Write the configuration, start the master; see `Server`."""
        self.write_conf(**conf)
        return Server(self.conf, allow=allow)


def generate(idl: Path, out: Path) -> None:
    """What `weego gen IDL -o OUT` does, without a process for it."""
    import weego
    from idlc import compile_files

    compile_files([str(idl)], str(out), [], names="pep8", version=weego.__version__)


class Server:
    """weego-master serving `conf`: started and ready inside the block; afterwards stopped, gone, and its log clean but for `allow`."""

    def __init__(
        self, conf: Path, *, allow: Sequence[str] = (), cwd: str | None = None, command: Sequence[str] = (MASTER,)
    ) -> None:
        self.allow = list(allow)
        self.process = Process([*command, str(conf)], cwd=cwd)
        self._mark = 0
        self._gone: list[psutil.Process] = []

    # ---- its life ----------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.process.__enter__()
        try:
            self.wait_ready()
        except BaseException:
            self.process.__exit__()
            raise
        return self

    def wait_ready(self) -> None:
        """Wait until all workers of the first generation serve, and can be seen."""
        count = int(self.process.wait_for(r"^weego .*, (\d+) workers?, master ")[1])
        self.process.wait_for(r"^  stop: ")
        until(lambda: len(self.workers()) == count, f"{count} workers to be seen")

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            self.remember()
            if kind is None:
                if self.process.child.poll() is None:
                    assert self.process.stop() == 0, self.log
                self.assert_gone()
        finally:
            self.process.__exit__()
        if kind is None:
            self.assert_clean()
        else:
            print(f"--- the server's log:\n{self.log}")

    def assert_gone(self) -> None:
        """All processes that were seen as its children have ended."""
        _, alive = psutil.wait_procs(self._gone, PATIENCE)
        alive = [each for each in alive if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
        for each in alive:
            each.kill()
        assert not alive, f"left running: {alive}\n{self.log}"

    def assert_clean(self) -> None:
        """No traceback and no warning in the log, but for what `allow` names."""
        assert_clean(self.log, allow=self.allow)

    def signal(self, number: signal.Signals) -> None:
        """To the master."""
        self.process.signal(number)

    # ---- what it says ------------------------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        """Of the master."""
        return self.process.pid

    @property
    def log(self) -> str:
        """Everything it has written so far."""
        return self.process.output

    @property
    def addresses(self) -> list[str]:
        """Where it serves, by its banner, with the ports that were chosen."""
        return self.process.wait_for(r"^  serving on (.*)")[1].split(", ")

    @property
    def address(self) -> str:
        """The first of the addresses."""
        return self.addresses[0]

    @property
    def port(self) -> int:
        """Of the first address."""
        return int(self.address.rpartition(":")[2])

    def mark(self) -> None:
        """From here on `wait_for` looks at lines."""
        self._mark = len(self.process.lines)

    def wait_for(self, pattern: str, patience: float = PATIENCE) -> re.Match[str]:
        """The first line since the mark that matches; the mark moves behind it."""
        found = self.process.wait_for(pattern, after=self._mark, patience=patience)
        while not re.search(pattern, self.process.lines[self._mark]):
            self._mark += 1
        self._mark += 1
        return found

    # ---- its processes -----------------------------------------------------------------------------------------------

    def remember(self) -> dict[int, str]:
        """Pid and title of each child of the master."""
        found = {}
        try:
            for child in psutil.Process(self.pid).children(recursive=True):
                try:
                    found[child.pid] = " ".join(child.cmdline()).strip()
                except psutil.Error:
                    continue
                if child not in self._gone:
                    self._gone.append(child)
        except psutil.Error:
            pass
        return found

    def family(self) -> dict[int, str]:
        """Loaders and workers: all children but the base, of which there may be one at any time."""
        return {pid: title for pid, title in self.remember().items() if title != "weego: base"}

    def workers(self) -> list[int]:
        """Pids of the workers that are not draining, by slot."""
        titles = self.remember()
        found = [
            (int(match[1]), pid)
            for pid, title in titles.items()
            if (match := re.match(r"weego: worker (\d+) ", title)) and "(draining)" not in title
        ]
        return [pid for _, pid in sorted(found)]

    def worker(self) -> int:
        """The pid of the only worker; waits while a draining one has not yet said so in its title."""
        return until(lambda: found[0] if len(found := self.workers()) == 1 else 0, "a single worker")

    # ---- reload ------------------------------------------------------------------------------------------------------

    def reload(self) -> str:
        """HUP, and wait for its end: the line that says how it went."""
        self.mark()
        self.signal(signal.SIGHUP)
        return self.wait_for(r"reload done|reload failed").string

    def reload_ok(self) -> None:
        """HUP, which must succeed; returns when the new generation serves."""
        line = self.reload()
        assert "reload done" in line, self.log

    def reload_quietly(self, log: Path) -> None:
        """HUP a server whose lines go to the file `log`; returns when the new generation serves."""
        before = log.read_text().count("reload done")
        self.signal(signal.SIGHUP)
        until(lambda: log.read_text().count("reload done") > before, "the end of the reload")

    def reload_fails(self) -> str:
        """HUP, which must fail; returns the reason."""
        line = self.reload()
        assert "reload failed" in line, self.log
        return line


def until(condition: Callable[[], T], what: str, patience: float = PATIENCE) -> T:
    """Wait for `condition` to be true; what it returned."""
    deadline = time.monotonic() + patience
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what}: not within {patience:g} s"
        time.sleep(0.01)


def run(command: Sequence[str], *, cwd: str | None = None, env: dict[str, str] | None = None) -> tuple[int, str]:
    """Run a command that ends by itself: exit code and output, both streams; nothing it started may live on."""
    with Process(command, cwd=cwd, env=env) as process:
        code = process.wait()
        assert not session(process.pid), f"left running: {session(process.pid)}\n{process.output}"
    return code, process.output


def session(leader: int) -> list[int]:
    """Pids of the processes of a session."""
    found = []
    for pid in psutil.pids():
        try:
            if os.getsid(pid) == leader and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.append(pid)
        except (OSError, psutil.Error):
            continue
    return found


def titles(pids: Sequence[int]) -> list[str]:
    """Their command lines, which is where a process title shows."""
    found = []
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            found.append(" ".join(psutil.Process(pid).cmdline()).strip())
    return found


def memory(pid: int) -> dict[str, int]:
    """Bytes: "rss", "private" (pages nobody shares) and "peak" of the address space of a process."""
    found = {}
    with open(f"/proc/{pid}/smaps_rollup") as file:
        for line in file:
            name, _, rest = line.partition(":")
            if name in ("Rss", "Private_Clean", "Private_Dirty"):
                found[name] = int(rest.split()[0]) * 1024
    with open(f"/proc/{pid}/status") as file:
        peak = next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmPeak:"))
    return {"rss": found["Rss"], "private": found["Private_Clean"] + found["Private_Dirty"], "peak": peak}


def sockets(pid: int) -> int:
    """How many sockets a process holds."""
    return sum(what.startswith("socket:") for what in descriptors(pid).values())
