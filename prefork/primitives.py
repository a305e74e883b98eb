"""System calls as they were before anybody patched them.

A loader imports user code, and that code's first act may be gevent's monkey patch. What supervises it must not
become cooperative under its feet: a patched ``fork`` starts libev child watchers, a patched ``waitpid`` runs the hub.
So every room file takes these calls from here, bound once, when the master was started and nothing was patched:
``posix`` and ``_socket`` are the modules that patches leave alone.

Also here: the few Linux calls that the standard library does not offer (``prctl``), and a fork that no signal can
fall into.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import stat
import time
from _socket import SCM_RIGHTS, SOL_SOCKET, getaddrinfo
from _socket import socket as RawSocket  # noqa: N812 - it is a class
from os import close, eventfd, eventfd_read, eventfd_write, memfd_create, pidfd_open, waitid
from posix import _exit, fork, getpid, getppid, kill, waitpid
from signal import pthread_sigmask
from signal import signal as set_signal
from typing import cast

# A program that patched first has none; only a master and its workers' control channels need it.
epoll = cast("type[select.epoll]", getattr(select, "epoll", None))
EPOLLIN, EPOLLOUT, EPOLLHUP, EPOLLERR = select.EPOLLIN, select.EPOLLOUT, select.EPOLLHUP, select.EPOLLERR
EPOLL_CLOEXEC = select.EPOLL_CLOEXEC
monotonic = time.monotonic
monotonic_ns = time.monotonic_ns

__all__ = (
    "EPOLLERR", "EPOLLHUP", "EPOLLIN", "EPOLLOUT", "EPOLL_CLOEXEC", "IGNORED_IN_CHILDREN", "SCM_RIGHTS", "SOL_SOCKET", "STACKS_SIGNAL", "TELL_SIGNAL",
    "RawSocket", "_exit", "become_subreaper", "close", "close_quietly", "die_with_parent", "epoll", "eventfd", "eventfd_read",
    "eventfd_write", "fork", "fork_blocked", "getaddrinfo", "getpid", "getppid", "give_memory_back", "kill", "make_parent", "memfd_create", "monotonic",
    "monotonic_ns", "own_output", "pidfd_open", "pthread_sigmask", "raise_file_limit", "reset_signals", "set_signal", "set_title", "thread_count", "unblock_signals", "waitid",
    "waitpid",
)  # fmt: skip

# <linux/prctl.h>
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

ALL_SIGNALS = signal.valid_signals()

#: Signals that only the master acts upon, but that a terminal or an operator's ``pkill -HUP weego`` sends to the whole
#: family. Ignored in loader and workers, whom the default action would kill or stop.
IGNORED_IN_CHILDREN = (
    signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH, signal.SIGTTIN, signal.SIGTTOU,
)  # fmt: skip


#: Makes a worker write its threads' stacks into memory that the master reads: a real-time signal, which nobody else sends.
STACKS_SIGNAL = signal.SIGRTMIN
#: … and on standard error, for a person without ``weego ctl``.
TELL_SIGNAL = signal.SIGPWR


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}, {value}): {os.strerror(number)}")


def become_subreaper() -> None:
    """Make orphaned descendants children of this process (Linux 3.4).

    A worker is forked twice, by its loader and by a middle process that exits at once: it becomes a child of the master,
    which can then wait for it as for any child. Raises OSError where the kernel refuses.
    """
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def give_memory_back() -> None:
    """Return to the system what importing has left free in the heap: 1 to 2 MB. Where libc is not glibc: nothing."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def raise_file_limit() -> None:
    """Let this process and its children have as many open files as the system lets them: the soft limit becomes the hard one."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # "unlimited" is more than some kernels take
        pass


def die_with_parent(parent: int) -> None:
    """Ask the kernel to SIGKILL this process when its parent, of pid ``parent``, dies. For processes nobody would miss."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if getppid() != parent:  # it died before the request was made
        _exit(0)


def fork_blocked() -> int:
    """Fork with every signal blocked, in both processes: the parent's mask is restored, the child's is not.

    The child inherits the parent's handlers. A signal that arrived before the child had installed its own would be
    swallowed by a handler that works for the parent; blocked, it waits until the child calls ``unblock_signals``.
    Raises OSError (EAGAIN, ENOMEM) when the system has no room for a process.
    """
    before = pthread_sigmask(signal.SIG_BLOCK, ALL_SIGNALS)
    pid = -1
    try:
        pid = fork()
    finally:
        if pid != 0:
            pthread_sigmask(signal.SIG_SETMASK, before)
    return pid


def unblock_signals() -> None:
    """Let signals in again; to be called in a child once its handlers are in place."""
    pthread_sigmask(signal.SIG_SETMASK, ())


def reset_signals() -> None:
    """In a fresh child: drop the master's handlers before anything can arrive for them."""
    signal.set_wakeup_fd(-1)
    for signum in (signal.SIGTERM, signal.SIGCHLD):
        set_signal(signum, signal.SIG_DFL)
    for signum in IGNORED_IN_CHILDREN:
        set_signal(signum, signal.SIG_IGN)


def thread_count() -> int:
    """Threads of this process as the kernel counts them: a patched ``threading`` module does not see native ones."""
    return len(os.listdir("/proc/self/task"))


def close_quietly(fd: int) -> None:
    """Close, whatever state the descriptor is in."""
    try:
        close(fd)
    except OSError:
        pass


def make_parent(path: str) -> None:
    """Make the folder that ``path`` is to be in, if only that one is missing; what uses the path says what else is wrong."""
    try:
        os.mkdir(os.path.dirname(path), 0o755)
    except OSError:
        pass


def own_output(fd: int) -> int:
    """A non-blocking descriptor for the pipe or terminal behind ``fd``, which others may go on writing to as they like.

    O_NONBLOCK belongs to the open file and not to the descriptor, so ``fd`` itself must not get it: every process that shares
    it would. Opened anew it is a file of our own. Where that is not possible or not needed (a file never makes a writer
    wait, a socket cannot be opened) the answer is ``fd``.
    """
    try:
        kind = os.fstat(fd).st_mode
        if stat.S_ISFIFO(kind) or os.isatty(fd):
            return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:  # it belongs to another user, or /proc is not there
        pass
    return fd


def set_title(title: str) -> None:
    """What ``ps`` shows for this process."""
    try:
        from setproctitle import setproctitle
    except ImportError:  # a nicety; a server without it still serves
        return
    setproctitle(title)
