# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Taking in connections from a listening socket.

The listening socket is watched by the hub itself and not by our epoll instance: it is shared with other processes, and the kernel's rules for
whom to wake look at the instance that a process really waits in.
"""

import errno as errors
import logging
import os
import _socket

from libc.errno cimport EAGAIN, ECONNABORTED, EINTR, EMFILE, ENFILE, EPROTO, errno

cdef extern from "<sys/socket.h>":
    enum:
        SOCK_NONBLOCK
        SOCK_CLOEXEC
    int accept4(int fd, void* address, void* size, int flags) nogil
    int setsockopt(int fd, int level, int option, const void* value, unsigned int size)

cdef extern from "<unistd.h>":
    int getpid()

cdef extern from "<netinet/in.h>":
    enum:
        IPPROTO_TCP

cdef extern from "<netinet/tcp.h>":
    enum:
        TCP_NODELAY

cdef enum:
    # Connections taken in at one readiness, so that established ones are not starved by a rush of new ones.
    ACCEPTS_PER_WAKE = 16
    READ = 1

# Waits (seconds) after the process ran out of descriptors: doubled from the first to the last (nginx: 500 ms; gevent: 10 ms to 1 s).
FIRST_PAUSE = 0.01
LAST_PAUSE = 0.5
# A shortage is logged once in this many seconds.
COMPLAIN_EVERY = 10.0
# How soon a listener that must not accept (its process has its share) looks again (seconds).
RECHECK = 0.005

log = logging.getLogger("weego.worker")


cdef class Listener:
    """Accepts connections of the listening, non-blocking socket `fd`, which it does not own.

    `accepted(fd)` gets each new descriptor, non-blocking and without Nagle's delay. `may_accept()` is asked before each; while it says no
    the listener leaves the queue to the other processes. In a forked child it stops by itself: the parent serves.
    """

    def __init__(self, hub not None, int fd, accepted not None, may_accept=None):
        self.hub = hub
        self.fd = fd
        self.accepted = accepted
        self.may_accept = may_accept
        self.pid = getpid()
        self.pause = FIRST_PAUSE
        self.complained = -COMPLAIN_EVERY
        sock = _socket.socket(fileno=fd)
        try:
            self.is_tcp = sock.family in (_socket.AF_INET, _socket.AF_INET6)
        finally:
            sock.detach()

    def start(self):
        """Begin to accept."""
        if self.active:
            return
        self.active = True
        self.watch()

    def stop(self):
        """Stop accepting. The socket and its queue are untouched."""
        self.active = False
        self.unwatch()
        if self.timer is not None:
            self.timer.stop()
            self.timer.close()
            self.timer = None

    def watch(self):
        if self.watcher is None and self.active:
            self.watcher = self.hub.loop.io(self.fd, READ)
            self.watcher.start(self.on_ready)

    def unwatch(self):
        if self.watcher is not None:
            self.watcher.stop()
            self.watcher.close()
            self.watcher = None

    def rest(self, double seconds):
        """Leave the queue alone for a while."""
        self.unwatch()
        if self.timer is not None:
            self.timer.stop()
            self.timer.close()
        self.timer = self.hub.loop.timer(seconds)
        self.timer.start(self.on_rested)

    def on_rested(self):
        self.timer.stop()
        self.timer.close()
        self.timer = None
        # The gate is asked again when a connection really waits; until then nothing wakes this process.
        self.watch()

    def on_ready(self):
        cdef int taken
        if self.pid != getpid():
            self.stop()
            return
        for taken in range(ACCEPTS_PER_WAKE):
            if not self.active:
                return
            if self.may_accept is not None and not self.may_accept():
                self.rest(RECHECK)
                return
            if not self.accept():
                return

    def drain(self, int most=65536):
        """Accept until the queue is empty (at most `most`), whatever `may_accept` says. Returns how many."""
        cdef int taken = 0
        while taken < most and self.accept():
            taken += 1
        return taken

    cdef bint accept(self) except -1:
        cdef int one = 1
        cdef int fd = accept4(self.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)
        if fd < 0:
            if errno == EAGAIN:
                return False
            if errno in (EINTR, ECONNABORTED, EPROTO):
                return True
            self.complain(errno)
            return False
        self.pause = FIRST_PAUSE
        if self.is_tcp:
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one))
        try:
            self.accepted(fd)
        except Exception:
            log.exception("taking in a connection failed")
        return True

    def complain(self, int number):
        now = self.hub.loop.now()
        if now - self.complained >= COMPLAIN_EVERY:
            self.complained = now
            advice = ""
            if number in (EMFILE, ENFILE):
                advice = "; raise the limit of open files (ulimit -n) or lower [limits] max_connections"
            log.error("cannot accept: %s (%s)%s", os.strerror(number), errors.errorcode.get(number, number), advice)
        if self.active:
            self.rest(self.pause)
        self.pause = min(self.pause * 2, LAST_PAUSE)

    def __repr__(self):
        return f"<Listener fd {self.fd} {'active' if self.active else 'stopped'}>"
