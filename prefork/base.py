"""The base: a process that has imported what every generation imports before it comes to the user's code, and forks their loaders.

Importing gevent and the framework, and patching, is most of what a reload costs. It is done here once, and a reload pays for its own imports only.
The price is that what is imported may have been replaced on disk since. So the base looks before each fork (``fingerprint``) whether every
file it was made from, and every folder that is searched for modules, is still what it was; if not, it says so and ends. The loader is then
forked from the master and imports all of it, and another base is made later. A reload finds fresh code either way.

Rules
 1. Nobody needs it. While there is none, or it does not answer, the master forks loaders itself.
 2. It holds nothing of the user's: no config, no code, no log file, no socket.
 3. A loader is forked twice, as a worker is (``loader``), and is a child of the master.
 4. As in a loader: one thread, no loop of gevent's, system calls from ``primitives``.
"""

from __future__ import annotations

import atexit
import gc
import logging
import os
import signal
import sys
from time import sleep, time  # bound before the patch, after which they would start a loop
from typing import TYPE_CHECKING

from prefork.channel import Channel, Closed
from prefork.fingerprint import of_code, of_folders
from prefork.loader import fork_twice, ignore_only, load_and_fork
from prefork.primitives import (
    EPOLL_CLOEXEC,
    EPOLLIN,
    RawSocket,
    _exit,
    close_quietly,
    die_with_parent,
    epoll,
    getppid,
    reset_signals,
    set_signal,
    set_title,
    thread_count,
    unblock_signals,
)
from prefork.report import describe

if TYPE_CHECKING:
    from prefork.application import Settings, Warm
    from prefork.channel import Message

#: Between two looks whether the middle process is gone, which is about to exit (seconds).
_TICK = 0.0002


def be_base(app: Warm, settings: Settings, channel_fd: int, master_pid: int, folder: str) -> None:
    """The life of the base, from the fork (signals blocked) to its exit. Does not return. ``folder``: where the server was started."""
    try:
        reset_signals()
        set_signal(signal.SIGTERM, ignore_only)
        die_with_parent(master_pid)
        set_title("weego: base")
        unblock_signals()
        atexit._clear()  # the master's
        _Base(app, Channel(RawSocket(fileno=channel_fd)), master_pid, folder).run(settings)
    finally:
        try:
            logging.shutdown()
            sys.stderr.flush()
        finally:
            _exit(0)


class _Base:
    def __init__(self, app: Warm, channel: Channel, master_pid: int, folder: str) -> None:
        self._app = app
        self._channel = channel
        self._master_pid = master_pid
        self._folder = folder
        self._poll = epoll(flags=EPOLL_CLOEXEC)
        self._poll.register(channel.fileno(), EPOLLIN)

    def run(self, settings: Settings) -> None:
        since = time()
        self._go_home()
        folders = of_folders(sys.path)  # before the imports: what changes meanwhile is seen
        try:
            self._app.warm_up(settings)
        except BaseException as error:
            self._channel.send({"is": "useless", "why": describe(error)[0]})
            return
        set_signal(signal.SIGTERM, ignore_only)  # once more, whatever was imported
        files = of_code(since)
        if thread_count() > 1:
            self._channel.send({"is": "useless", "why": "a thread runs after the imports"})
            return
        gc.collect()
        gc.freeze()
        self._channel.send({"is": "warm"})
        while True:
            self._poll.poll()
            try:
                received = self._channel.receive()
            except Closed:
                return
            if received is None:
                continue
            self._go_home()
            if not files or of_code(since) != files or of_folders(sys.path) != folders:
                self._channel.send({"is": "stale"})
                return
            self._channel.send(self._spawn(*received))

    def _go_home(self) -> None:
        """A link to a release may lead to another by now."""
        try:
            os.chdir(self._folder)
        except OSError:
            pass

    def _spawn(self, order: Message, fds: list[int]) -> Message:
        pid, error = fork_twice(lambda middle: self._be_loader(order["generation"], fds, middle))
        for fd in fds:
            close_quietly(fd)
        if error:
            return {"is": "not_forked", "order": order["order"], "error": error}
        return {"is": "forked", "order": order["order"], "pid": pid}

    def _be_loader(self, generation: int, fds: list[int], middle: int) -> None:
        """Does not return."""
        self._poll.close()
        self._channel.close()
        while getppid() == middle:  # it dies with its parent, which is to be the master
            sleep(_TICK)
        load_and_fork(self._app, generation, fds[0], self._master_pid, fds[1])
