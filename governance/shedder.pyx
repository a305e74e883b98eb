# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Refuse early when the queue does not empty: adaptive shedding by queue delay, after CoDel.

A burst makes some calls wait; in overload all of them do. Overload is when, for a whole `interval`, the worker never ran out of work – it went straight from
one turn of its loop to the next – or even the luckiest call waited longer than `target`. Then whoever would wait longer than that, or than the call before it
takes, is refused when it comes, so that those who are served are served in time. So it goes on for `RECOVERY` intervals after that, or after an interval
in which more came than could be done: load that is far too much stumbles, and each time a burst as long as an interval would come in.
(K. Nichols, V. Jacobson, "Controlling Queue Delay", ACM Queue 2012. What a call waited before the worker saw it, in the kernel, nobody tells; that
the worker is never idle stands for it.)
"""

from poller.clock cimport monotonic

__all__ = ["Shedder"]

cdef double DEFAULT_TARGET = 0.005    # CoDel's 5 ms
cdef double DEFAULT_INTERVAL = 0.1    # and its 100 ms
# In overload one call may wait behind another, so that the worker is never without one; where calls are short, for so long (seconds).
cdef double LEAST_WAIT = 0.001
# Of the moving average: what one more call counts.
cdef double SHARE = 0.1
# Intervals for which waiting stays bounded after an overload.
cdef double RECOVERY = 10.0
cdef double NEVER = float("inf")


cdef class Shedder:
    """Says which calls to refuse, by how long each has to wait. Seconds. For one process: the queue is its own.

    Whoever runs the loop calls `idle` when it found nothing to do; until the first time, only the calls' own waiting counts. `took` tells what calls
    kept the worker busy for. `clock` None: the monotonic clock.
    """

    def __init__(self, double target=DEFAULT_TARGET, double interval=DEFAULT_INTERVAL, clock=None):
        if not 0 < target <= interval:
            raise ValueError(f"shedding needs 0 < target <= interval, got {target:g} and {interval:g}")
        self.target = target
        self.interval = interval
        self.clock = clock
        self.shortest = NEVER
        self.idle_at = NEVER

    cdef double now(self) except? -1:
        return monotonic() if self.clock is None else <double>self.clock()

    def idle(self):
        """There was nothing to do for a moment."""
        self.idle_at = self.now()

    cpdef int took(self, double seconds, int64_t calls=1) except -1:
        """A call kept the worker busy for so long; or each of so many calls, on average."""
        self.service = seconds if self.service == 0 else self.service + (seconds - self.service) * (1 - (1 - SHARE) ** calls)
        return 0

    cdef bint is_overloaded(self, double now) noexcept:
        return self.all_waited or now - self.idle_at > self.interval

    cdef bint is_careful(self) except -1:
        """Is there overload, or was there a moment ago?"""
        cdef double now = self.now()
        return now < self.careful_until or self.is_overloaded(now)

    @property
    def overloaded(self):
        """Is there more to do than can be done?"""
        return self.is_overloaded(self.now())

    cdef double most(self) noexcept:
        """How long a call may wait in overload."""
        cdef double least = self.service if self.service > LEAST_WAIT else LEAST_WAIT
        return least if 0 < self.service and least < self.target else self.target

    @property
    def bound(self):
        """How long a call may wait in overload."""
        return self.most()

    cpdef bint admit(self, double waits) except -1:
        """May a call be served that has to wait so long, what it has waited already included?"""
        cdef double now = self.now()
        if now >= self.ends:
            # More came than could be done, though idle moments and refusals hide it.
            if self.arrivals * self.service > now - self.ends + self.interval:
                self.careful_until = now + RECOVERY * self.interval
            self.arrivals = 0
            # An interval without calls says nothing of overload.
            self.all_waited = self.target < self.shortest < NEVER and now < self.ends + self.interval
            self.shortest = waits
            self.ends = now + self.interval
        elif waits < self.shortest:
            self.shortest = waits
        self.arrivals += 1
        if self.is_overloaded(now):
            self.careful_until = now + RECOVERY * self.interval
        if waits <= (self.most() if now < self.careful_until else self.interval):
            return True
        self.refused += 1
        return False

    def __repr__(self):
        return f"<Shedder {self.target * 1000:g} ms{', overloaded' if self.overloaded else ''}>"
