# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Calls that wait for their turn in a server that sheds load: who is refused is refused at once, and not behind those who are served.

Theory of operation
1. While there is little to do, a call is served when it comes, in the turn of the loop that read it, and nothing of this is in its way.
2. Once a turn has lasted `SLICE`, or the worker is overloaded, calls wait here, and the turn only reads: whoever would wait too long – for those
   before it, by what calls took of late – is answered with a refusal. Then the loop lets all output leave, has one slice of the waiting calls
   served, and looks at the sockets again. So a refusal waits for one call at most, however many there are. A call that waits for something else leaves
   what is left of the slice to the next one.
3. A call that is given up, or whose deadline passes, while it waits is not served.
"""

from libc.stdint cimport int64_t
from poller.clock cimport monotonic
from posix.time cimport CLOCK_THREAD_CPUTIME_ID, clock_gettime, timespec

from collections import deque

from codec.errors import Cancelled, ResourceExhausted

__all__ = ["Backlog"]

# How long waiting calls are served before the sockets have their turn again (seconds). One call may take longer.
cdef double SLICE = 0.001


cdef double thread_time() noexcept:
    """CPU time of this thread (seconds)."""
    cdef timespec t
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t)
    return t.tv_sec + t.tv_nsec / 1e9


cdef class Backlog(Queue):
    """The calls of `dispatcher` that wait; `shedder` says which may."""

    def __init__(self, Dispatcher dispatcher not None, Shedder shedder not None):
        self.dispatcher = dispatcher
        self.shedder = shedder
        self.waiting = deque()

    cdef int take(self, Job job) except -1:
        cdef double now = monotonic(), waits = now - job.call.started
        cdef Py_ssize_t before = len(self.waiting)
        if now - self.measured >= self.shedder.interval:
            self.measure(now)
        if not self.shedder.admit(waits + before * self.shedder.service):
            return self.dispatcher.drop(job, ResourceExhausted(
                f"{job.target.service}.{job.call.spec.name}: limit shedding, {before} calls wait and the worker is overloaded; "
                "try another instance or later"))
        if before == 0 and waits < SLICE and not self.shedder.is_careful():
            return self.serve(job)
        self.waiting.append(job)
        return self.wait()

    cdef int measure(self, double now) except -1:
        """Learn how long a call keeps the worker busy: by the CPU time of all that it did of late, which has what a call does after it waited for
        something, or by how long calls held it, for one may wait without letting others work."""
        cdef double cpu = thread_time()
        if self.served and now - self.measured < 2 * self.shedder.interval:  # in a longer time it may have been busy with anything
            self.shedder.took(max(cpu - self.cpu, self.held) / self.served, self.served)
        self.measured = now
        self.cpu = cpu
        self.served = 0
        self.held = 0
        return 0

    cdef int wait(self, bint at_once=False) except -1:
        """Be resumed in the next turn, or `at_once`: should this turn be another greenlet's soon, then in what is left of it."""
        if not self.is_again:
            self.is_again = True
            self.fd = 0  # no descriptor: the loop resumes only what seems to have one
            self.dispatcher.loop.again(self)
            if at_once:
                self.dispatcher.loop.resumes += 1
        return 0

    cdef int serve(self, Job job) except -1:
        """Serve a call. Afterwards the turn may be another greenlet's."""
        cdef int64_t term = self.dispatcher.loop.term
        cdef double began = monotonic()
        self.served += 1
        self.dispatcher.execute(job)
        if self.dispatcher.loop.term == term:
            began = monotonic() - began
            self.held += began
            if self.shedder.service == 0:
                self.shedder.took(began)
        return 0

    cdef int resume(self) except -1:
        cdef int64_t term = self.dispatcher.loop.term
        cdef double now
        cdef Job job
        self.is_again = False
        self.dispatcher.loop.send_unsent()  # those who were refused are not to wait for those who are served
        if self.dispatcher.loop.term != term:
            return self.wait() if self.waiting else 0
        now = monotonic()
        if self.slice_of != self.dispatcher.loop.turns:
            self.slice_of = self.dispatcher.loop.turns
            self.until = now + SLICE
        while self.waiting:
            if now >= self.until:
                return self.wait()
            job = <Job>self.waiting.popleft()
            if self.waiting:
                self.wait(True)  # should this one block, whoever goes on with the turn goes on with the others
            if job.answered or job.call.cancelled:
                self.dispatcher.drop(job, Cancelled("the caller has given the call up", elapsed=job.call.elapsed))
            elif job.alarm.place and now >= job.call.deadline_at:
                job.interrupt()
                self.dispatcher.over(job)
            else:
                self.serve(job)
            if self.dispatcher.loop.term != term:
                return 0
            now = monotonic()
        return 0

    def idle(self):
        """The hub found nothing to do: that is true when nobody waits here."""
        if not self.waiting:
            self.shedder.idle()

    def __len__(self):
        return len(self.waiting)

    def __repr__(self):
        return f"<Backlog {len(self.waiting)} calls, {self.shedder!r}>"
