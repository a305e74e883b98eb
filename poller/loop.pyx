# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Who is ready: one epoll instance, and the turn that serves it.

Theory of operation
1. The epoll descriptor is itself watched by gevent's hub. A turn is run by a *leader*, a greenlet of the Runner, so that a handler may be
   called straight from it and needs no greenlet of its own. A handler that blocks takes its leader out of the turn: the hub, which is then
   just behind the point where it entered the leader, has another one go on with the rest. `term` tells a leader that comes back from user
   code whether the turn is still its own; if not it returns at once, touching nothing. So all that a turn needs to go on is kept in the
   loop, and nothing of it on a stack. A leader whose turn is through goes back to the hub, or *lingers*: while turns follow one another closely and
   the hub has nothing to do, it waits for the next one itself. That spares two switches, the hub's own work and half the system calls of each turn. Who
   waits for something of the hub's has a watcher there, so the hub has nothing to do when it has no more watchers than ever: those that are always
   there are of the background (listeners, signals, heartbeats) and can wait until LINGER is over. A timer of the kernel recalls the leader when no
   further turn comes; not a timeout of each wait, for starting one costs as much as is spared.
2. Members are edge-triggered with EPOLLRDHUP: one event per change, and a short read is the end of the input unless the peer has finished.
   Whoever stops before the end of its input must call `again`, because no event will tell.
3. Event data holds the descriptor and a generation, because a number may be reused within one batch.
4. Output gathered during a turn leaves at its end, one send for each connection. Output written outside of a turn (a handler that resumed
   from another watcher) calls for a turn of its own through `kick`.
5. Greenlets that wait for an answer are woken in the hub after the turn, for a switch from a leader would strand the leader.
6. A batch is bounded; what is left over keeps the epoll descriptor readable, so the hub comes back after its other watchers had their turn.
7. Nothing here survives a fork: the loop belongs to the process that made it. The child closes its copies of the descriptors at once and
   leaves the epoll instance, which it shares with the parent, untouched.
8. The loop keeps the hub going while it has members; its timers alone do not (`gevent.wait()` ends when only they are left).
"""

import logging
import os
import weakref
from collections import deque

from codec.buffer cimport WriteBuffer
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport errno
from libc.limits cimport INT_MAX
from libc.math cimport ceil
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memset
from poller.clock cimport monotonic

cdef extern from "<sys/epoll.h>":
    ctypedef union epoll_data_t:
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    enum:
        EPOLL_CLOEXEC
        EPOLL_CTL_ADD
        EPOLL_CTL_DEL
        EPOLLET
        EPOLLIN
    int epoll_create1(int flags)
    int epoll_ctl(int epoll, int op, int fd, epoll_event* event)
    int epoll_wait(int epoll, epoll_event* events, int most, int timeout) nogil

cdef extern from "<time.h>":
    enum:
        CLOCK_MONOTONIC
    struct timespec:
        long tv_sec
        long tv_nsec

cdef extern from "<sys/timerfd.h>":
    enum:
        TFD_CLOEXEC
        TFD_NONBLOCK
    struct itimerspec:
        timespec it_interval
        timespec it_value
    int timerfd_create(int clock, int flags)
    int timerfd_settime(int fd, int flags, const itimerspec* new, itimerspec* old)

cdef extern from "<unistd.h>":
    int close_fd "close"(int fd)
    int getpid()

cdef enum:
    # Events taken in one turn; bounds how long the hub's other watchers wait.
    BATCH = 256
    # Members that stopped early and are resumed in one turn, for the same reason.
    RESUMED = 256
    READ = 1                # gevent's bit for "readable"
    # Turns that must have followed one another closely for a leader to linger: one that waits in vain is woken for nothing.
    BRISK = 3
    # In LINGERs: when a leader is recalled, and what must be left of that for the timer not to be set again.
    RECALL = 4
    ENOUGH = 2

# How often members look at their own time limits (seconds); limits are exact to within this.
DEFAULT_SWEEP = 1.0

# A leader may linger for so long (seconds) until the hub is to look at what is always there. That is late by as much, or by RECALL times as much just when
# calls cease, as it is by a handler that computes for as long.
cdef double LINGER = 0.001
# Turns follow one another closely when less than this is between them (seconds): what going back to the hub costs would be lost in a longer pause.
cdef double CLOSELY = 0.0005
# Event data of the timer that recalls a leader: of no descriptor and generation.
cdef uint64_t RECALLED = <uint64_t>-1

log = logging.getLogger("weego.worker")

# All loops of this process, to be closed in a child.
_loops = weakref.WeakSet()


cdef class Pollable:
    def __cinit__(self):
        self.fd = -1

    cdef int ready(self, uint32_t events) except -1:
        return 0

    cdef int resume(self) except -1:
        return 0

    cdef int flush(self) except -1:
        return 0

    cdef int sweep(self, double now) except -1:
        return 0

    cdef int abandon(self) except -1:
        return 0


cdef class Waiter:
    cdef int wake(self) except -1:
        return 0


cdef class Runner:
    cdef int lead(self) except -1:
        return 0

    cdef int close(self) except -1:
        return 0


cdef class Loop:
    """The epoll loop of one process (or one thread with a hub of its own).

    `hub` is the gevent hub that drives it; without one the owner calls `run_once` itself. Must be made after fork.
    """

    def __cinit__(self):
        self.epoll = self.recall = -1
        self.timers = Timers()
        self.unread = deque()
        self.awake = []
        self.term = 1
        self.events = malloc(BATCH * sizeof(epoll_event))
        if self.events == NULL:
            raise MemoryError()
        self.alarm_at = -1
        self.sweep_interval = DEFAULT_SWEEP
        self.scratch = <uint8_t*>malloc(SCRATCH)
        if self.scratch == NULL:
            raise MemoryError()

    def __init__(self, hub=None):
        self.pid = getpid()
        self.epoll = epoll_create1(EPOLL_CLOEXEC)
        if self.epoll < 0:
            raise OSError(errno, os.strerror(errno))
        self.hub = hub
        self.polled = self.swept = monotonic()
        self.closely = CLOSELY
        self.linger_time = LINGER
        self.fewest = self.fewest_now = INT_MAX
        if hub is not None:
            self.watcher = hub.loop.io(self.epoll, READ, ref=False)
            self.callbacks = getattr(hub.loop, "_callbacks", None)
            if self.callbacks is not None:
                self.make_recall()
            self.watcher.start(self._turn)
            self.alarm = hub.loop.timer(0, ref=False)
            self.sweeper = hub.loop.timer(self.sweep_interval, self.sweep_interval, ref=False)
            self.sweeper.start(self._sweep)
        _loops.add(self)

    cdef int make_recall(self) except -1:
        cdef epoll_event e
        self.recall = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)
        e.events = EPOLLIN | EPOLLET
        e.data.u64 = RECALLED
        if self.recall < 0 or epoll_ctl(self.epoll, EPOLL_CTL_ADD, self.recall, &e) < 0:
            raise OSError(errno, os.strerror(errno))
        return 0

    def __dealloc__(self):
        cdef int i
        for i in range(self.capacity):
            if self.slots[i].owner != NULL:
                Py_DECREF(<object>self.slots[i].owner)
        free(self.slots)
        free(self.scratch)
        free(self.events)
        if self.recall >= 0:
            close_fd(self.recall)
        if self.epoll >= 0:
            close_fd(self.epoll)

    def close(self):
        """Stop watching. Members stay open; close them first.

        In a forked child the epoll instance and the sockets are the parent's: only our copies of the descriptors are closed.
        """
        cdef int i, epoll = self.epoll
        cdef Pollable p
        if epoll < 0:
            return
        self.epoll = -1
        for watcher in (self.watcher, self.alarm, self.sweeper):
            if watcher is not None:
                watcher.stop()
                watcher.close()
        self.watcher = self.alarm = self.sweeper = None
        if self.runner is not None:
            self.runner.close()
        if self.pid != getpid():
            self.unsent = None
            self.unread.clear()
            self.awake = []
            for i in range(self.capacity):
                if self.slots[i].owner != NULL:
                    p = <Pollable>self.slots[i].owner
                    self.slots[i].owner = NULL
                    self.members -= 1
                    p.abandon()
                    Py_DECREF(p)
        if self.recall >= 0:
            close_fd(self.recall)
            self.recall = -1
        close_fd(epoll)

    def set_sweep_interval(self, double seconds):
        """Look at the members' time limits every `seconds`."""
        if seconds <= 0:
            raise ValueError(f"sweep interval must be positive, got {seconds}")
        self.sweep_interval = seconds
        if self.sweeper is not None:
            self.sweeper.stop()
            self.sweeper.close()
            self.sweeper = self.hub.loop.timer(seconds, seconds, ref=False)
            self.sweeper.start(self._sweep)

    # ---- members ---------------------------------------------------------------------------------------------------

    cdef int add(self, Pollable p, int fd, uint32_t events) except -1:
        cdef epoll_event e
        cdef int capacity
        cdef Slot* slots
        if fd >= self.capacity:
            capacity = self.capacity if self.capacity else 64
            while capacity <= fd:
                capacity *= 2
            slots = <Slot*>realloc(self.slots, capacity * sizeof(Slot))
            if slots == NULL:
                raise MemoryError()
            memset(slots + self.capacity, 0, (capacity - self.capacity) * sizeof(Slot))
            self.slots = slots
            self.capacity = capacity
        self.generations += 1
        e.events = events
        e.data.u64 = (<uint64_t>self.generations << 32) | <uint64_t>fd
        if epoll_ctl(self.epoll, EPOLL_CTL_ADD, fd, &e) < 0:
            raise OSError(errno, os.strerror(errno))
        p.fd = fd
        p.generation = self.generations
        self.slots[fd].owner = <void*>p
        self.slots[fd].generation = self.generations
        Py_INCREF(p)
        self.members += 1
        if self.members == 1 and self.watcher is not None:
            self.watcher.ref = True
        return 0

    cdef int remove(self, Pollable p) except -1:
        """Forget `p`; its descriptor stays open. The event is taken out explicitly: closing is not enough when a copy lives elsewhere."""
        cdef epoll_event e
        cdef int fd = p.fd
        if fd < 0 or fd >= self.capacity or self.slots[fd].owner != <void*>p:
            return 0
        e.events = 0
        e.data.u64 = 0
        if self.epoll >= 0:
            epoll_ctl(self.epoll, EPOLL_CTL_DEL, fd, &e)
        self.slots[fd].owner = NULL
        self.slots[fd].generation = 0
        p.fd = -1
        self.members -= 1
        if self.members == 0 and self.watcher is not None:
            self.watcher.ref = False
        Py_DECREF(p)
        return 0

    def pollables(self):
        """All members, as a list."""
        cdef int i
        found = []
        for i in range(self.capacity):
            if self.slots[i].owner != NULL:
                found.append(<object>self.slots[i].owner)
        return found

    # ---- turns -----------------------------------------------------------------------------------------------------

    cdef int dirty(self, Pollable p) except -1:
        """`p` has output; flush it at the end of the turn."""
        if p.is_unsent:
            return 0
        p.is_unsent = True
        p.unsent_before = self.unsent
        self.unsent = p
        if not self.unfinished and not self.kicked:
            self.kick()
        return 0

    cdef int again(self, Pollable p) except -1:
        """`p` stopped before the end of its input; resume it in the next turn."""
        self.unread.append(p)
        if not self.unfinished and not self.kicked:
            self.kick()
        return 0

    cdef int kick(self) except -1:
        if self.hub is not None:
            self.kicked = True
            self.hub.loop.run_callback(self._kicked)
        return 0

    def _kicked(self):
        self.kicked = False
        if self.epoll >= 0:
            self.enter()

    def _turn(self):
        if self.epoll >= 0:
            self.may_linger = self.recall >= 0
            self.lingers_since = 0
            self.enter()
            self.may_linger = False

    cdef int wake_after_turn(self, Waiter w) except -1:
        """Wake `w` in the hub, as soon as no turn is under way."""
        self.awake.append(w)
        if not self.unfinished and not self.kicked:
            self.kick()
        return 0

    cdef int enter(self) except -1:
        """Run one turn, in the hub. When its leader blocks, another one goes on with the rest."""
        while True:
            if self.runner is None:
                self.turn()
            else:
                self.runner.lead()
            if not self.unfinished:
                break
        return self.after_turn()

    cdef int after_turn(self) except -1:
        cdef Waiter w
        cdef list awake
        while self.awake:
            awake = self.awake
            self.awake = []
            for w in awake:
                try:
                    w.wake()
                except BaseException as error:
                    # What a bare greenlet raises comes here, to its parent; the others must be woken all the same.
                    self.failed("waking", w, error)
        if self.interrupted is not None:
            error, self.interrupted = self.interrupted, None
            raise error
        return 0

    cdef int turn(self, int timeout=0) except -1:
        """A turn, or the rest of one. Returns early when another greenlet has gone on with it meanwhile (`term` has changed).

        Returns 1 when all of it was done here.
        """
        cdef epoll_event* events = <epoll_event*>self.events
        cdef epoll_event* event
        cdef int n, fd
        cdef int64_t term
        cdef double before
        cdef bint is_whole = not self.unfinished
        cdef Pollable p
        self.term += 1
        term = self.term
        if self.guarded is not None:
            self.unread.append(self.guarded)
            self.guarded = None
        if is_whole:
            self.unfinished = True
            self.turns += 1
            if self.fetched:
                n = self.fetched
                self.fetched = 0
            elif timeout:
                with nogil:
                    n = epoll_wait(self.epoll, events, BATCH, timeout)
            else:
                n = epoll_wait(self.epoll, events, BATCH, 0)
            before = self.polled
            self.polled = monotonic()
            self.brisk = min(self.brisk + 1, <int>BRISK) if self.polled - before < self.closely else 0
            self.event_count = n if n > 0 else 0
            self.event_next = 0
            self.resumes = min(len(self.unread), RESUMED)
        while self.event_next < self.event_count:
            event = &events[self.event_next]
            self.event_next += 1
            fd = <int><uint32_t>event.data.u64
            if event.data.u64 == RECALLED:
                self.brisk = 0
                continue
            if fd >= self.capacity or self.slots[fd].owner == NULL or self.slots[fd].generation != <uint32_t>(event.data.u64 >> 32):
                continue
            p = <Pollable>self.slots[fd].owner
            try:
                p.ready(event.events)
            except BaseException as error:
                self.failed("serving", p, error)
            if self.term != term:
                return 0
        while self.resumes > 0 and self.unread:
            self.resumes -= 1
            p = self.unread.popleft()
            if p.fd >= 0:
                try:
                    p.resume()
                except BaseException as error:
                    self.failed("resuming", p, error)
                if self.term != term:
                    return 0
        return self.finish_turn() and is_whole

    cdef int linger(self) except -1:
        """Wait for the next turn here, in the hub's place. Is there one? If not the hub may have something to do."""
        if not self.may_linger or self.brisk < BRISK or self.kicked or self.awake or self.interrupted is not None or self.epoll < 0:
            return 0
        if self.lingers_since == 0:
            self.lingers_since = self.polled
            if self.hub.loop.pendingcnt:
                return 0
        elif self.polled - self.lingers_since >= self.linger_time:
            return 0
        if self.callbacks or self.is_awaited():
            return 0
        self.set_recall()
        with nogil:
            self.fetched = epoll_wait(self.epoll, <epoll_event*>self.events, BATCH, -1)
        if self.fetched < 0:
            self.fetched = 0  # a signal, which is the hub's
        return self.fetched

    cdef bint is_awaited(self) except -1:
        """Does the hub have more watchers than are always there? Those are as many as there were at least in this sweep's time and the last one's."""
        cdef int watchers = <int>self.hub.loop.activecnt - (self.members > 0)  # less our own
        if watchers < self.fewest_now:
            self.fewest_now = watchers
        return watchers > self.fewest or watchers > self.fewest_now

    cdef int set_recall(self) except -1:
        cdef itimerspec when
        cdef double left = self.recalled_at - self.polled, whole = RECALL * self.linger_time
        if left < ENOUGH * self.linger_time or left > whole:
            memset(&when, 0, sizeof(when))
            when.it_value.tv_sec = <long>whole
            when.it_value.tv_nsec = <long>((whole - <long>whole) * 1e9)
            timerfd_settime(self.recall, 0, &when, NULL)
            self.recalled_at = self.polled + whole
        return 0

    cdef int failed(self, str what, object p, object error) except -1:
        """One of them failed; the others have their turn all the same, for edge triggering will not announce them again."""
        if isinstance(error, Exception):
            log.error("%s %r failed", what, p, exc_info=error)
        else:
            self.interrupted = error
        return 0

    cdef int send_unsent(self) except -1:
        """Let the output of this turn leave now. Stops when another greenlet has gone on with the turn."""
        cdef Pollable p
        cdef int64_t term = self.term
        while self.unsent is not None:
            p = self.unsent
            self.unsent = p.unsent_before
            p.unsent_before = None
            p.is_unsent = False
            if p.fd >= 0:
                try:
                    p.flush()
                except BaseException as error:
                    self.failed("flushing", p, error)
                if self.term != term:
                    return 0
        return 0

    cdef int finish_turn(self) except -1:
        """Returns 1 when the turn is through, 0 when another greenlet has gone on with it."""
        cdef int64_t term = self.term
        self.send_unsent()
        if self.term != term:
            return 0
        self.unfinished = False
        if self.unread and not self.kicked:
            self.kick()
        return 1

    def run_once(self, double timeout=0):
        """Wait up to `timeout` seconds and serve what is ready: for a loop that no hub drives. Runs timers and sweeps too."""
        cdef double now, until = self.timers.earliest()
        if until >= 0:
            timeout = max(0.0, min(timeout, until - monotonic()))
        self.turn(0 if self.unread or self.unsent is not None else <int>ceil(timeout * 1000))
        self.after_turn()
        now = monotonic()
        self.timers.run(now)
        if now - self.swept >= self.sweep_interval:
            self.swept = now
            self.sweep_members()

    # ---- time ------------------------------------------------------------------------------------------------------

    def call_at(self, double deadline, callback not None):
        """Call `callback` (in the hub; it must not block) at `deadline`, in seconds of the monotonic clock. Returns its Timer."""
        timer = self.timers.add(deadline, callback)
        self.arm(deadline)
        return timer

    def call_later(self, double seconds, callback not None):
        """Call `callback` after `seconds`. Returns its Timer."""
        return self.call_at(monotonic() + seconds, callback)

    cdef int set_alarm(self, Alarm* alarm, object owner, double deadline) except -1:
        self.timers.set(alarm, owner, deadline)
        return self.arm(deadline)

    cdef int arm(self, double deadline) except -1:
        cdef double delay
        if self.alarm is None or (self.alarm_at >= 0 and self.alarm_at <= deadline):
            return 0
        delay = deadline - monotonic()
        self.alarm_at = deadline
        self.alarm.stop()
        self.alarm.close()
        self.alarm = self.hub.loop.timer(delay if delay > 0 else 0.0, ref=False)
        self.alarm.start(self._alarm)
        return 0

    def _alarm(self):
        cdef double next_deadline
        self.alarm_at = -1
        try:
            self.timers.run(monotonic())
        finally:
            next_deadline = self.timers.earliest()
            if next_deadline >= 0:
                self.arm(next_deadline)

    def _sweep(self):
        if self.fewest_now < INT_MAX:
            self.fewest = self.fewest_now
            self.fewest_now = INT_MAX
        self.sweep_members()

    def sweep_members(self):
        """Let every member look at its time limits."""
        cdef double now = monotonic()
        cdef int i
        cdef Pollable p
        for i in range(self.capacity):
            if self.slots[i].owner != NULL:
                p = <Pollable>self.slots[i].owner
                try:
                    p.sweep(now)
                except Exception as error:
                    self.failed("checking the time limits of", p, error)

    def __repr__(self):
        return f"<Loop epoll {self.epoll}, {self.members} members, {len(self.timers)} timers, {self.turns} turns>"


def _leave_to_the_parent():
    for loop in list(_loops):
        loop.close()


os.register_at_fork(after_in_child=_leave_to_the_parent)


def loop_of(hub not None):
    """The Loop that all clients and servers of `hub` share; made when first asked for, and again after a fork."""
    loop = getattr(hub, "_weego_loop", None)
    if loop is None or (<Loop>loop).epoll < 0 or (<Loop>loop).pid != getpid():
        if loop is not None:
            loop.close()
        loop = Loop(hub)
        hub._weego_loop = loop
    return loop
