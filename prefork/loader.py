"""The loader: a process for each generation, which runs the user's code first and forks workers from the result.

It is forked from the base (``base``) or, where there is none, from the master, calls ``Application.load``, sends the settings back, and then waits for orders to fork. A
worker is forked twice: its parent, the middle process, exits at once, and the worker becomes a child of the master (a
subreaper). So the master waits for its workers as any parent does, and a loader may die without consequence.

Rules
 1. It runs no loop of gevent's and takes its system calls from ``prefork.primitives``, for ``load`` may patch.
 2. It has one thread. A thread of the user's would be missing in each worker, and its locks held for ever.
 3. SIGTERM does nothing to it: one to the whole process group would take it away with forks it has not reported, and the
    master would stop without those workers. It ends by its channel, or by SIGKILL.
 4. It keeps nothing that the master owns: descriptors for a worker come with the order and are closed after the fork.
"""

from __future__ import annotations

import atexit
import gc
import json
import logging
import os
import posix
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

from prefork.application import LoadError, NotWarm
from prefork.channel import Channel, Closed
from prefork.fingerprint import of_code
from prefork.listeners import resolve
from prefork.primitives import (
    EPOLL_CLOEXEC,
    EPOLLIN,
    EPOLLOUT,
    RawSocket,
    _exit,
    close_quietly,
    die_with_parent,
    epoll,
    fork_blocked,
    getpid,
    memfd_create,
    reset_signals,
    set_signal,
    set_title,
    thread_count,
    unblock_signals,
    waitpid,
)
from prefork.report import describe, exit_code
from prefork.worker import work

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from prefork.application import Application, Settings
    from prefork.channel import Message

log = logging.getLogger("weego.master")


def load_and_fork(app: Application, generation: int, channel_fd: int, master_pid: int, shared_fd: int = -1) -> None:
    """The life of a loader process, from the fork (signals blocked) to its exit. Does not return. ``shared_fd``: see ``Application``; -1: none."""
    code = 70
    try:
        reset_signals()
        set_signal(signal.SIGTERM, ignore_only)
        die_with_parent(master_pid)
        set_title(f"weego: loader gen {generation}")
        unblock_signals()
        atexit._clear()  # the master's; what the user's imports register from here on runs at the end of a worker
        code = _Loader(app, generation, Channel(RawSocket(fileno=channel_fd)), master_pid, shared_fd).run()
    finally:
        try:
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            _exit(code)  # the master's frames are below: they must not unwind


def ignore_only(_signum: int, _frame: FrameType | None) -> None:
    """For SIGTERM. Not SIG_IGN, which programs that the user's code starts would inherit."""


class _Loader:
    def __init__(self, app: Application, generation: int, channel: Channel, master_pid: int, shared_fd: int) -> None:
        self._app = app
        self._shared_fd = shared_fd
        self._master_pid = master_pid
        self._generation = generation
        self._channel = channel
        self._poll = epoll(flags=EPOLL_CLOEXEC)
        self._poll.register(channel.fileno(), EPOLLIN)

    def run(self) -> int:
        try:
            settings = self._load()
        except NotWarm:
            self._channel.send({"is": "not_warm"})
            self._linger()
            return 0
        except BaseException as error:
            line, trace = describe(error)
            if isinstance(error, SystemExit):
                line = f"{line} (the application's code left the process)"
            code = exit_code(error) or 78
            # A broken import is the user's to mend, like a broken config.
            code = 78 if isinstance(error, (Exception, SystemExit)) else code
            self._channel.send({"is": "failed", "line": line, "code": code, "trace": trace})
            self._linger()
            return code
        set_signal(signal.SIGTERM, ignore_only)  # once more, whatever the user's imports did to it
        set_title(f"weego: loader gen {self._generation} [{settings.name}]")
        # Objects that exist now are in every worker, and mostly for good: collecting them would only copy their pages.
        gc.collect()
        gc.freeze()
        self._serve(settings)
        return 0

    def _load(self) -> Settings:
        since = time.time()
        share = getattr(self._app, "share", None)
        if share is not None and self._shared_fd >= 0:
            share(self._shared_fd)
        settings = self._app.load()
        close_quietly(self._shared_fd)
        settings = settings._replace(code=of_code(since, settings.files))
        die_with_parent(self._master_pid)  # once more: who becomes another user loses it
        places = [resolve(listen) for listen in (*settings.listen, *settings.doors.values())]
        encoded = settings.encode()
        threads = thread_count()
        if threads > 1:
            names = ", ".join(sorted(t.name for t in threading.enumerate() if t is not threading.main_thread()))
            raise LoadError(
                f"{threads - 1} thread(s) run after the application was loaded ({names or 'started by a native library'}): "
                "they would be missing in the workers; start them on the first call, not on import"
            )
        document = memfd_create("weego-settings", os.MFD_CLOEXEC)
        os.pwrite(document, json.dumps(places).encode() + b"\n" + encoded, 0)
        self._channel.send({"is": "settings"}, [document])
        close_quietly(document)
        return settings

    def _serve(self, settings: Settings) -> None:
        """Fork on order until the master closes the channel."""
        while True:
            self._wait()
            try:
                self._channel.flush()
                received = self._channel.receive()
            except Closed:
                return
            if received is None:
                continue
            self._channel.send(self._spawn(settings, *received))

    def _wait(self) -> None:
        events = EPOLLIN | EPOLLOUT if self._channel.is_congested else EPOLLIN
        self._poll.modify(self._channel.fileno(), events)
        self._poll.poll()

    def _linger(self) -> None:
        """Until what was said is on its way."""
        while self._channel.is_congested:
            self._wait()
            self._channel.flush()

    def _spawn(self, settings: Settings, order: Message, fds: list[int]) -> Message:
        """Fork one worker; what to tell the master."""
        index: int = order["index"]
        pid, error = fork_twice(lambda _: self._be_worker(settings, order, fds))
        for fd in fds:
            close_quietly(fd)
        return {"is": "not_spawned", "index": index, "error": error} if error else {"is": "spawned", "index": index, "pid": pid}

    def _be_worker(self, settings: Settings, order: Message, fds: list[int]) -> None:
        """Does not return."""
        self._poll.close()
        self._channel.close()
        channel_fd, board_fd, *listener_fds = fds
        work(
            self._app,
            settings,
            slot=order["slot"],
            generation=self._generation,
            index=order["index"],
            channel_fd=channel_fd,
            board_fd=board_fd,
            listener_fds=listener_fds,
            activated=order["activated"],
            is_kept=order["is_kept"],
        )


def fork_twice(be: Callable[[int], None]) -> tuple[int, str]:
    """Fork a process that becomes the master's child, for its parent, the middle process, exits at once. In it, with signals blocked,
    ``be(pid of the middle process)`` is called and must not return. Its pid, or 0 and why there is none.
    """
    try:
        reader, writer = posix.pipe()  # close-on-exec
    except OSError as error:
        return 0, f"fork: {error.strerror}"
    try:
        middle = fork_blocked()
        if middle == 0:
            _be_middle(be, reader, writer)
        close_quietly(writer)
        writer = -1
        said = posix.read(reader, 64)
        waitpid(middle, 0)
        # The middle process is gone, so by now the other one is the master's child.
        if said.startswith(b"pid "):
            return int(said[4:]), ""
        return 0, said.decode() or "the middle process died"
    except OSError as error:
        return 0, f"fork: {error.strerror}"
    finally:
        for fd in (reader, writer):
            if fd >= 0:
                close_quietly(fd)


def _be_middle(be: Callable[[int], None], reader: int, writer: int) -> None:
    """The short life of the middle process, and the beginning of its child's. Does not return."""
    try:
        close_quietly(reader)
        middle = getpid()
        try:
            pid = fork_blocked()
        except OSError as error:
            posix.write(writer, f"fork: {error.strerror}".encode())
            _exit(1)
        if pid:
            posix.write(writer, b"pid %d" % pid)
            _exit(0)
        close_quietly(writer)
        be(middle)
    finally:
        _exit(70)
