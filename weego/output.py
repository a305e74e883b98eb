r"""Where log lines go: standard error or a file, and nobody ever waits for either.

    output = Output(fd)                     # a descriptor of whoever started us
    output = Output.open("log/echo.log")    # a file of ours, which `reopen` opens again: rotation
    output.write(b"one line\n")

Two ways to write
 1. Directly, in a single system call that does not wait: a pipe or terminal is opened anew without waiting, a socket is written with
    MSG_DONTWAIT, a file takes what it is given. What does not fit is dropped and counted. This is all there is in the master and the loader,
    which may have no thread.
 2. `spool()` adds a bounded queue and a thread that empties it, for workers. Access lines go there and leave together every 20 ms.
    Other lines are still written at once by who logs them, so that they are there if the process dies the next moment; they take the
    queue while the output is stuck or the thread is writing. A stuck disk, pipe or journal then costs lines, and never a call.

Lines are whole: of a pipe the kernel keeps up to PIPE_BUF bytes together, and pieces end with a line. After a disk that was full in the middle of
a line the next one begins on a new row. How many were dropped is told in a line of its own, once lines pass again.
"""

from __future__ import annotations

import _socket
import contextlib
import os
import select
import stat
import sys
import time
import weakref
from _thread import allocate_lock, start_new_thread
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from weego.spool import Spool

__all__ = ["Output"]

# Bytes that may wait for the thread. At 20 000 access lines a second it is a second and a half; a reader that stalls for longer loses lines.
SPOOL_BYTES: Final = 4 << 20
# The thread lets lines gather for so long (seconds): a wake-up and a system call for some hundred lines and not for one.
LINGER: Final = 0.02
# Between two looks at an output that takes nothing (seconds).
RETRY: Final = 0.5
# One write to a file; and to anything that several processes share and that keeps only so much together.
FILE_PIECE: Final = 256 * 1024
SHARED_PIECE: Final = select.PIPE_BUF
# Tries to write the rest of a line of which a pipe has taken a part, where no thread can do it later.
REST_TRIES: Final = 20
FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
# Permissions of a new file, less the umask.
MODE: Final = 0o666


class Output:
    """One destination of lines. `path` is what `reopen` opens; None for a descriptor that is somebody else's.

    `notice(count, why)` makes the line that tells how many were dropped.
    """

    def __init__(self, fd: int, path: str | None = None, *, notice: Callable[[int, str], bytes] | None = None) -> None:
        self.path = path
        self.notice = notice
        self.lines: Spool | None = None
        self._own = path is not None
        self._lost = 0
        self._told = 0
        self._why = ""
        self._torn = False
        self._rest = b""
        self._stuck = False
        self._busy = False
        self._closed = False
        self._thread = False
        self._wake = -1
        self._lock = _original("_thread", "allocate_lock", allocate_lock)()
        self._sleep: Callable[[float], None] = _original("time", "sleep", time.sleep)
        self._socket: Any = None
        self._take(fd)
        _outputs.add(self)

    @classmethod
    def open(cls, path: str, *, owner: tuple[int, int] | None = None, notice: Callable[[int, str], bytes] | None = None) -> Self:
        """Append to the file at `path`, which is made and given to `owner` (user, group) if need be. OSError if it cannot be."""
        return cls(_open(path, owner), path, notice=notice)

    def _take(self, fd: int) -> None:
        """Find out how to write to `fd` without waiting."""
        self.fd = fd
        try:
            kind = os.fstat(fd).st_mode
        except OSError:
            kind = 0
        self._is_file = stat.S_ISREG(kind)
        self._piece = FILE_PIECE if self._is_file else SHARED_PIECE
        self._socket = None
        if stat.S_ISSOCK(kind):
            # systemd's journal, for example. It cannot be opened anew, but each send may be told not to wait.
            self._socket = _socket.socket(fileno=os.dup(fd))
        elif not self._own and (stat.S_ISFIFO(kind) or _is_terminal(fd)):
            # O_NONBLOCK belongs to the open file, which others share: a file of our own is needed.
            with contextlib.suppress(OSError):
                self.fd = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
                self._own = True

    # ---- writing -----------------------------------------------------------------------------------------------------

    @property
    def dropped(self) -> int:
        """Lines lost so far."""
        return self._lost + (self.lines.dropped if self.lines is not None else 0)

    def write(self, line: bytes) -> None:
        """One line, its end included. Never waits and never raises."""
        if self._closed:
            return
        spool = self.lines
        if spool is None:
            self._write_directly(line)
            return
        if self._stuck or not self._lock.acquire(False):
            spool.put(line)
            return
        try:
            rest = self._send(line)
            if rest:
                self._stuck = True
                self._rest = rest if len(rest) < len(line) else b""
        finally:
            self._lock.release()
        if self._stuck:
            if self._rest:
                self.wake()
            else:
                spool.put(line)

    def _write_directly(self, line: bytes) -> None:
        before = self._lost
        rest = self._send(line)
        for _ in range(REST_TRIES):
            if not rest or len(rest) == len(line):
                break
            self._sleep(0)
            rest = self._send(rest)
        if rest:
            self._lost += 1
            self._torn = self._torn or len(rest) < len(line)
        elif self._lost == before:
            self._tell()

    def _send(self, data: bytes) -> bytes:
        """What is left of `data`: nothing if it was written or is lost for good (counted), else what nobody takes now."""
        if self._torn:
            data = b"\n" + data
        try:
            written = os.write(self.fd, data) if self._socket is None else self._socket.send(data, _DONTWAIT)
        except BlockingIOError:
            return data[1:] if self._torn else data
        except OSError as error:
            self._lost += data.count(b"\n") - self._torn
            self._why = error.strerror or str(error)
            return b""
        self._torn = False
        if written == len(data):
            return b""
        if not self._is_file:
            return data[written:]
        # A disk that took a part is full, as the next try will say: it would be half a line.
        try:
            written += os.write(self.fd, data[written:])
        except OSError as error:
            self._why = error.strerror or str(error)
        if written < len(data):
            self._lost += data.count(b"\n", written)
            self._torn = data[written - 1 : written] != b"\n"
        return b""

    def _tell(self) -> bool:
        """Lines pass again: say how many have not. True: there is no room for that now."""
        count, before = self.dropped - self._told, self._lost
        if not count or self.notice is None:
            return False
        line = self.notice(count, self._why or "nobody reads them fast enough")
        rest = self._send(line)
        if len(rest) == len(line):
            return True
        if self._lost != before:  # the disk is still full
            self._lost = before
            return False
        self._rest = rest
        self._told += count
        self._why = ""
        return False

    # ---- the thread ----------------------------------------------------------------------------------------------------

    def spool(self) -> Spool:
        """From now on lines wait for a thread, which starts with the first. Not before a fork."""
        from weego.spool import Spool

        if self.lines is None:
            self.lines = Spool(SPOOL_BYTES, self.wake)
        return self.lines

    def wake(self) -> None:
        """There are lines for the thread."""
        if self._closed:
            return
        if self._thread:
            os.eventfd_write(self._wake, 1)
            return
        try:
            if self._wake < 0:
                self._wake = os.eventfd(1)
            _original("_thread", "start_new_thread", start_new_thread)(self._run, ())
        except (RuntimeError, OSError):  # no thread, no descriptor to be had now: the next line tries again
            if self.lines is not None:
                self.lines.asleep = True
            return
        self._thread = True

    def _run(self) -> None:
        spool = self.lines
        assert spool is not None
        while not self._closed:
            os.eventfd_read(self._wake)
            while not self._closed:
                self._sleep(LINGER)
                self._busy = True
                self._drain(spool)
                self._busy = False
                if not spool and not self._rest:
                    break
            spool.asleep = True
            if spool:  # it came between the last look and going to sleep
                spool.asleep = False
                os.eventfd_write(self._wake, 1)
        os.close(self._wake)

    def _drain(self, spool: Spool) -> None:
        """Write all there is, however long it takes."""
        self._send_all(b"")
        while spool and not self._closed:
            taken = memoryview(spool.take())
            while taken and not self._closed:
                size = _whole_lines(taken, self._piece)
                self._send_all(bytes(taken[:size]))
                taken = taken[size:]
        untold = True
        while untold and not self._closed:
            with self._lock:
                untold = not self._rest and self._tell()
                self._stuck = untold or bool(self._rest)
            if untold:
                self._wait_for_room()

    def _send_all(self, data: bytes) -> None:
        """The rest of somebody's line, if there is one, then `data`."""
        while (data or self._rest) and not self._closed:
            with self._lock:
                before = len(data) + len(self._rest)
                self._rest = self._send(self._rest) if self._rest else b""
                if data and not self._rest:
                    data = self._send(data)
                left = len(data) + len(self._rest)
            if left == before:
                self._stuck = True
                self._wait_for_room()

    def _wait_for_room(self) -> None:
        """Until somebody has read, or a look is due whether the output is still the same."""
        room = _original("select", "poll", select.poll)()
        room.register(self.fd, select.POLLOUT)
        for _, events in room.poll(RETRY * 1000):
            if events & ~select.POLLOUT:  # broken: the next write says how
                self._sleep(RETRY)

    # ---- rotation and the end ------------------------------------------------------------------------------------------

    def reopen(self, owner: tuple[int, int] | None = None) -> None:
        """Open `path` again, for it was moved away. Nothing is lost: what is being written goes to the old file. OSError keeps the old one."""
        if self.path is None:
            return
        fresh = _open(self.path, owner)
        os.dup2(fresh, self.fd, inheritable=False)
        os.close(fresh)
        self._take(self.fd)

    def flush(self, patience: float) -> bool:
        """Wait until all is written, at most so many seconds; whether it is."""
        deadline = time.monotonic() + patience
        while self.lines is not None and (self.lines or self._rest or self._busy):
            if time.monotonic() > deadline:
                return False
            self._sleep(0.001)
        return True

    def close(self, patience: float = 1.0) -> None:
        """Write what waits, if somebody takes it, and let go."""
        if self._closed:
            return
        self.flush(patience)
        self._closed = True
        if self._thread:
            os.eventfd_write(self._wake, 1)
        elif self._wake >= 0:
            os.close(self._wake)
        if self._socket is not None:
            self._socket.close()
        if self._own:
            with contextlib.suppress(OSError):
                os.close(self.fd)

    def __del__(self) -> None:
        if not self._closed and not self._thread:
            self.close(0)

    def after_fork(self) -> None:
        """In a child: the thread and whoever held the lock are in the parent, and so are the lines that wait."""
        self._lock = _original("_thread", "allocate_lock", allocate_lock)()
        self._thread, self._busy, self._stuck, self._rest, self._wake = False, False, False, b"", -1
        if self.lines is not None:
            self.lines = None
            self.spool()


def _open(path: str, owner: tuple[int, int] | None) -> int:
    """For appending; a FIFO that nobody reads is an error and not a place to wait."""
    try:
        fd = os.open(path, FLAGS, MODE)
    except FileNotFoundError:
        with contextlib.suppress(OSError):
            os.mkdir(os.path.dirname(path))  # if only that one is missing
        fd = os.open(path, FLAGS, MODE)
    if owner is not None and os.geteuid() == 0:
        with contextlib.suppress(OSError):
            found = os.fstat(fd)
            if stat.S_ISREG(found.st_mode) and (found.st_uid, found.st_gid) != owner:
                os.fchown(fd, *owner)
    return fd


def _whole_lines(data: memoryview, most: int) -> int:
    """How many bytes to write at once: as many whole lines as fit, at least one."""
    if len(data) <= most:
        return len(data)
    end = bytes(data[:most]).rfind(b"\n") + 1
    if end:
        return end
    size = most
    while size < len(data):
        found = bytes(data[size : size + most]).find(b"\n")
        if found >= 0:
            return size + found + 1
        size += most
    return len(data)


def _is_terminal(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False


def _original(module: str, name: str, found: Any) -> Any:
    """A thing of the standard library as it was before gevent patched it: a cooperative sleep or lock would run a hub in the thread."""
    monkey = sys.modules.get("gevent.monkey")
    return found if monkey is None else monkey.get_original(module, name)


_DONTWAIT: Final = _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL
_outputs: weakref.WeakSet[Output] = weakref.WeakSet()


def _after_fork() -> None:
    for output in list(_outputs):
        output.after_fork()


os.register_at_fork(after_in_child=_after_fork)
