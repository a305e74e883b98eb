# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""By load: the better of two at random, by latency and calls under way; and the least busy of all."""

from libc.math cimport exp
from poller.clock cimport monotonic

import random

from governance.instance import DEFAULT_WEIGHT, NOBODY

__all__ = ["LeastLoaded", "PowerOfTwo"]

# Of the moving average (seconds): what was seen so long ago counts 1/e. Finagle's default for its peak EWMA.
cdef double DECAY = 10.0
# What a failure counts as (seconds): an instance that fails fast must not look like a fast one.
cdef double PENALTY = 1.0
# An instance that nobody has called yet is taken for this quick (seconds), so that it is tried soon. Nobody is taken for quicker: below a
# millisecond a difference is noise, and who happened to be the quicker once would get all calls.
cdef double UNKNOWN = 0.001

cdef double USUAL_WEIGHT = DEFAULT_WEIGHT


cdef class _Load:
    """What is known of one instance."""

    def __init__(self, instance):
        self.instance = instance
        self.address = instance.address
        self.share = max(instance.weight, 0) / USUAL_WEIGHT or 1e-9
        self.average = UNKNOWN


cdef class _ByLoad:
    """Keeps count of what is under way and how long it takes. `clock` None: the monotonic clock."""

    def __init__(self, instances=(), rand=random.random, clock=None):
        self.rand = rand
        self.clock = clock
        self.loads = {}
        self.every = []
        self.update(instances)

    cdef double now(self) except? -1:
        return monotonic() if self.clock is None else <double>self.clock()

    def update(self, instances):
        """These are the instances from now on; what is known of those that stay is kept."""
        cdef _Load load, known
        cdef dict fresh = {}
        for instance in instances:
            load = fresh[instance.address] = _Load(instance)
            known = self.loads.get(instance.address)
            if known is not None:
                load.busy, load.average, load.at = known.busy, known.average, known.at
        self.loads = fresh
        self.every = list(fresh.values())

    def begin(self, instance):
        """An attempt begins."""
        cdef _Load load = self.loads.get(instance.address)
        if load is not None:
            load.busy += 1

    def end(self, instance, double seconds, bint failed):
        """It is over."""
        cdef _Load load = self.loads.get(instance.address)
        cdef double now, share
        if load is None:
            return
        if load.busy > 0:
            load.busy -= 1
        if failed and seconds < PENALTY:
            seconds = PENALTY
        now = self.now()
        if seconds > load.average:
            # A peak counts at once: who just took long must not get the next call too.
            load.average = seconds
        else:
            share = exp((load.at - now) / DECAY)
            load.average = load.average * share + seconds * (1.0 - share)
        load.at = now

    def abandon(self, instance, double seconds):
        """It was given up after so long: that it takes longer than that is all there is to learn."""
        cdef _Load load = self.loads.get(instance.address)
        if load is None:
            return
        if load.busy > 0:
            load.busy -= 1
        if seconds > load.average:
            load.average = seconds
            load.at = self.now()

    cdef double cost(self, _Load load, double now) noexcept:
        """What one more call is likely to take."""
        cdef double average = load.average
        if average > UNKNOWN:
            # Nobody calls an instance that looks slow, so nobody learns when it is well again: what is known fades.
            average *= exp((load.at - now) / DECAY)
        return max(UNKNOWN, average) * (load.busy + 1) / load.share

    def snapshot(self):
        """Calls under way and average time by instance."""
        cdef _Load load
        return [{"address": load.address, "busy": load.busy, "average": load.average} for load in self.every]


cdef class PowerOfTwo(_ByLoad):
    """Two at random, of which the one likely to be sooner through: by moving average of latency, calls under way and weight.

    (M. Mitzenmacher, "The Power of Two Choices"; the average as in Finagle's peak EWMA.) A failed attempt counts as one of a second.
    """

    def pick(self, call, avoid=NOBODY):
        """The better of two."""
        cdef list every = self.every
        cdef _Load load, one, other
        cdef Py_ssize_t size, first, second
        cdef double now
        if avoid:
            every = [load for load in every if load.address not in avoid]
        size = len(every)
        if size < 2:
            return (<_Load>every[0]).instance if every else None
        first = <Py_ssize_t>(<double>self.rand() * size)
        second = <Py_ssize_t>(<double>self.rand() * (size - 1))
        if second >= first:
            second += 1
        one, other = every[first], every[second]
        now = self.now()
        return one.instance if self.cost(one, now) <= self.cost(other, now) else other.instance


cdef class LeastLoaded(_ByLoad):
    """The one with the fewest calls under way, by weight; at random among equals."""

    def pick(self, call, avoid=NOBODY):
        """The least busy."""
        cdef _Load load, best = None
        cdef double busy, least = 0
        cdef int equals = 1
        for load in self.every:
            if avoid and load.address in avoid:
                continue
            busy = (load.busy + 1) / load.share
            if best is None or busy < least:
                best, least, equals = load, busy, 1
            elif busy == least:
                equals += 1
                if <double>self.rand() * equals < 1:
                    best = load
        return best.instance if best is not None else None
