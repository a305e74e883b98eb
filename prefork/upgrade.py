"""The upgrade in place: the master becomes its own successor. Same pid, same sockets, same children, new code.

What happens on SIGUSR2 or ``weego ctl upgrade``
 1. The program is started once more, as it was, in a child, which is handed what the master knows (``prefork.legacy``). It says whether it
    could go on from there, and ends. Whatever it lacks, a module or a field, the master stays what it is and says why.
 2. When no fork is under way the master executes that program itself. Descriptors stay open, children stay its children, and signals
    that arrive meanwhile wait.
 3. The new code takes over what it finds and watches on. Workers notice nothing. Loaders that it starts from now on are the new code's, so
    the next reload brings it to the workers.

Rules
 1. Nothing is closed, killed or told before 2; a failure costs nothing.
 2. There is no way back after 2, so all that can be tried is tried in 1.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from prefork import legacy
from prefork.application import EX_SOFTWARE
from prefork.primitives import (
    ALL_SIGNALS,
    _exit,
    close_quietly,
    die_with_parent,
    fork_blocked,
    getpid,
    kill,
    memfd_create,
    monotonic,
    pidfd_open,
    pthread_sigmask,
    unblock_signals,
    waitpid,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prefork.master import Master

log = logging.getLogger("weego.master")

#: The variable by which a master finds what its predecessor left: "take:FD" or "examine:FD", a memfd.
VARIABLE = "WEEGO_LEGACY"

#: For the child of step 1: an interpreter's start and the imports of a master take a tenth of it on a slow machine.
EXAMINE_SECONDS = 30.0

#: For what must not be under way in step 2: forks, answers to visitors.
QUIET_SECONDS = 10.0
QUIET_TICK = 0.02

#: Of what the child says, the end is kept: the last line of a traceback is the one that tells.
MAX_SAID = 16 * 1024


class Program(NamedTuple):
    """How this process was started."""

    path: str
    arguments: list[str]
    folder: str


def program() -> Program:
    """To be asked before anything changes folders. The folder is the one the shell named, through whatever symbolic link, so that a link that
    has moved to another release leads there.
    """
    folder = os.getcwd()
    named = os.environ.get("PWD", "")
    try:
        if os.path.isabs(named) and os.path.samefile(named, folder):
            folder = named
    except OSError:
        pass
    return Program(sys.executable, [sys.executable, *sys.orig_argv[1:]], folder)


def inherited() -> tuple[str, int] | None:
    """What to do with what a predecessor left, ``take`` or ``examine``, and the descriptor it is in. None: there was none."""
    word, _, number = os.environ.pop(VARIABLE, "").partition(":")
    return (word, int(number)) if word in ("take", "examine") and number.isdigit() else None


def examine(fd: int) -> int:
    """In the child of step 1: could this code go on from there? The exit code; what is wrong is said on standard error."""
    import prefork.admin
    import prefork.base
    import prefork.control
    import prefork.loader  # noqa: F401 - all that a master imports late

    try:
        legacy.examine(legacy.read(fd))
    except legacy.Unfit as error:
        os.write(2, f"{error}\n".encode())
        return EX_SOFTWARE
    return 0


class Upgrade:
    """The upgrade of a master: at most one at a time."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self.program = program()
        self._waiting: list[Callable[[str | None], None]] = []
        self._pid = 0
        self._pidfd = -1
        self._pipe = -1
        self._said = b""
        self.is_under_way = False
        self.then_reload = False

    def refusal(self) -> str | None:
        """Why there can be no upgrade now."""
        if self._master.is_stopping:
            return "the server is stopping"
        if not self._master.is_announced:
            return "the server is starting"
        if self._master.incoming is not None or self._master.reloads.is_wanted:
            return "a reload is under way"
        return None if self.program.path else "the interpreter does not know its own path"

    def ask(self, who: str, done: Callable[[str | None], None] | None = None, *, then_reload: bool = False) -> None:
        """Upgrade. ``done`` is told why it failed; when it succeeds, this process is another one by then."""
        why = self.refusal()
        if why is not None:
            log.warning("%s: no upgrade: %s", who, why)
            if done is not None:
                done(f"no upgrade: {why}")
            return
        self.then_reload |= then_reload
        if done is not None:
            self._waiting.append(done)
        if self.is_under_way:
            log.info("%s: an upgrade is under way", who)
            return
        log.info("%s: upgrading, %s is examined", who, " ".join(self.program.arguments))
        self.is_under_way = True
        try:
            self._start_examination()
        except OSError as error:
            self._fail(f"the new code cannot be tried: {(error.strerror or str(error)).lower()}")

    def abandon(self, why: str) -> None:
        """Something else came in between."""
        if self.is_under_way:
            self._fail(why)

    def fds(self) -> Iterable[int]:
        """Descriptors that no child may inherit."""
        return (self._pipe, self._pidfd) if self._pid else ()

    def finish(self) -> None:
        """In the new code: all is taken over. Who waits for the upgrade is told, or the reload that was asked for begins."""
        done = [door.release("upgrade") for door in self._master.doors.values()]

        def told(error: str | None) -> None:
            for tell in done:
                tell(error)

        if self.then_reload:
            self.then_reload = False
            self._master.reloads.ask("upgrade", told)
        else:
            told(None)

    # -- step 1 -------------------------------------------------------------------------------------------------------------

    def _start_examination(self) -> None:
        document = self._write(legacy.pack(self._master)[0])
        self._said = b""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        master_pid = getpid()
        try:
            pid = fork_blocked()
        except OSError:
            for fd in reader, writer, document:
                close_quietly(fd)
            raise
        if pid == 0:
            try:
                die_with_parent(master_pid)
                signal.set_wakeup_fd(-1)
                os.dup2(writer, 1)
                os.dup2(writer, 2)
                for fd in document, self._master.board.fd:
                    os.set_inheritable(fd, True)
                self._execute("examine", document)
            except OSError as error:
                os.write(2, f"{self.program.path}: {error.strerror}\n".encode())
            finally:
                _exit(EX_SOFTWARE)
        os.close(writer)
        os.close(document)
        os.set_blocking(reader, False)
        self._pid, self._pipe, self._pidfd = pid, reader, pidfd_open(pid)
        self._master.family.strangers.add(pid)
        self._master.loop.watch(self._pipe, self._listen)
        self._master.loop.watch(self._pidfd, self._on_end)
        self._master.loop.after(EXAMINE_SECONDS, lambda: self._too_slow(pid))

    def _listen(self) -> None:
        try:
            data = os.read(self._pipe, MAX_SAID)
        except BlockingIOError:
            return
        self._said = (self._said + data)[-MAX_SAID:]
        if not data:
            self._master.loop.unwatch(self._pipe)

    def _too_slow(self, pid: int) -> None:
        if self._pid == pid:
            self._said += f"not done within {EXAMINE_SECONDS:g} s\n".encode()
            kill(pid, signal.SIGKILL)  # not waited for yet, so it is still its number

    def _on_end(self) -> None:
        self._listen()
        _, status = waitpid(self._pid, 0)
        self._clean()
        if not self.is_under_way:
            return  # abandoned
        if os.waitstatus_to_exitcode(status) == 0:
            self._execute_when_quiet(monotonic() + QUIET_SECONDS)
            return
        said = self._said.decode(errors="replace").strip()
        if "\n" in said:
            log.error("what the new code said:\n%s", said)
        how = os.waitstatus_to_exitcode(status)
        self._fail(f"the new code is not fit: {said.rpartition(chr(10))[2] or f'it exited with status {how}'}")

    def _clean(self) -> None:
        self._master.family.strangers.discard(self._pid)
        for fd in self._pipe, self._pidfd:
            self._master.loop.unwatch(fd)
            os.close(fd)
        self._pid, self._pipe, self._pidfd = 0, -1, -1
        self._master.family.reap()

    def _fail(self, line: str) -> None:
        if self._pid:
            kill(self._pid, signal.SIGKILL)
        self.is_under_way = self.then_reload = False
        log.error("upgrade failed, all goes on as it was: %s", line)
        told, self._waiting = self._waiting, []
        for done in told:
            done(line)

    # -- step 2 -------------------------------------------------------------------------------------------------------------

    def _execute_when_quiet(self, deadline: float) -> None:
        if not self.is_under_way:
            return
        why = self.refusal() or self._noise()
        if why is None:
            self._become_new()
        elif monotonic() > deadline:
            self._fail(why)
        else:
            self._master.loop.after(QUIET_TICK, lambda: self._execute_when_quiet(deadline))

    def _noise(self) -> str | None:
        """What must end before the master can be another program."""
        family = self._master.family
        if family.is_forking or any(not loader.is_loaded for loader in family.loaders):
            return "a loader or a fork is under way"
        if any(door.is_holding(besides="upgrade") for door in self._master.doors.values()):
            return "somebody waits for an answer of a worker's"
        return None

    def _become_new(self) -> None:
        log.info("upgrade: the new code is fit; executing it")
        pthread_sigmask(signal.SIG_BLOCK, ALL_SIGNALS)
        plain, fds = legacy.pack(self._master)
        document = self._write(plain)
        for signum in self._master.loop.take_signals():
            kill(getpid(), signum)  # blocked: it waits for the new code
        try:
            for fd in (document, *fds):
                os.set_inheritable(fd, True)
            self._execute("take", document)
        except OSError as error:
            for fd in (document, *fds):
                os.set_inheritable(fd, False)
            os.close(document)
            unblock_signals()
            self._fail(f"{self.program.path}: {(error.strerror or str(error)).lower()}")

    # -- both ---------------------------------------------------------------------------------------------------------------

    def _execute(self, word: str, document: int) -> None:
        """Does not return. Raises OSError."""
        os.chdir(self.program.folder)
        if word == "examine":
            unblock_signals()
        os.execve(self.program.path, self.program.arguments, {**os.environ, VARIABLE: f"{word}:{document}"})

    def _write(self, plain: dict[str, Any]) -> int:
        document = memfd_create("weego-legacy", os.MFD_CLOEXEC)
        os.pwrite(document, legacy.encode(plain), 0)
        return document
