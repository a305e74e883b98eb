# cython: language_level=3, boundscheck=False, wraparound=False
"""Leave out who fails while the others do not: outlier ejection."""

from governance.call cimport Call
from poller.clock cimport monotonic

from governance.instance import NOBODY, Observing, give_up

__all__ = ["DEFAULT_FAILURES", "DEFAULT_MOST_SECONDS", "DEFAULT_MOST_SHARE", "DEFAULT_SECONDS", "Ejection"]

# Envoy's defaults for its outlier detection: five failures in a row, 30 s for the first time, at most 300 s. Ours is shorter to begin with, because one
# call is enough to find out, and that one is tried elsewhere where it may be.
DEFAULT_FAILURES = 5
DEFAULT_SECONDS = 5.0
DEFAULT_MOST_SECONDS = 120.0
DEFAULT_MOST_SHARE = 0.5


cdef class _Record:
    """What is known of one instance."""


cdef class Ejection:
    """`inner` without the instances of which `failures` attempts in a row failed.

    An instance is left out for `seconds`, twice as long each further time, `most_seconds` at most. Then one call goes to it; when that goes well
    it is back. That call is one that may be tried elsewhere, should it fail (`Call.repeatable`); when there was none for as long again, it is any. Never more
    than `most_share` of all instances are left out, and never the last one: if most of them fail, the trouble is elsewhere.
    `on_change(instance, "ejected" or "restored")` hears of it. `clock` None: the monotonic clock.
    """

    def __init__(self, inner, *, long failures=DEFAULT_FAILURES, double seconds=DEFAULT_SECONDS, double most_seconds=DEFAULT_MOST_SECONDS,
                 double most_share=DEFAULT_MOST_SHARE, clock=None, on_change=None):
        if failures < 1 or seconds <= 0 or most_seconds < seconds or not 0 <= most_share <= 1:
            raise ValueError("ejection needs failures ≥ 1, 0 < seconds ≤ most_seconds and a most_share from 0 to 1")
        self.inner = inner
        self.failures = failures
        self.seconds = seconds
        self.most_seconds = most_seconds
        self.most_share = most_share
        self.clock = clock
        self.on_change = on_change
        self.instances = {}
        self.records = {}
        self.out = {}
        self.observing = inner if isinstance(inner, Observing) else None

    cdef double now(self) except? -1:
        return monotonic() if self.clock is None else <double>self.clock()

    def update(self, instances):
        """These are the instances from now on; the record of those that stay is kept."""
        self.instances = {each.address: each for each in instances}
        self.records = {address: self.records.get(address) or _Record() for address in self.instances}
        self.out = {address: record for address, record in self.records.items() if (<_Record>record).is_out}
        self.inner.update(instances)

    def pick(self, Call call, avoid=NOBODY):
        """One that is not left out; one that is, when it is due for a try or when there is no other."""
        cdef _Record record
        cdef double now
        if not self.out:
            return self.inner.pick(call, avoid)
        now = self.now()
        for address, record in list(self.out.items()):
            if now < record.until or record.probe_out or address in avoid or address not in self.instances:
                continue
            if call.repeatable or now >= 2 * record.until - record.since:
                record.probe_out = True
                return self.instances[address]
        return self.inner.pick(call, self.out.keys() | avoid) or self.inner.pick(call, avoid)

    def begin(self, instance):
        """An attempt begins."""
        if self.observing is not None:
            self.observing.begin(instance)

    def end(self, instance, double seconds, bint failed):
        """It is over."""
        cdef _Record record
        if self.observing is not None:
            self.observing.end(instance, seconds, failed)
        record = self.records.get(instance.address)
        if record is None:
            return
        if not failed:
            record.in_a_row = 0
            if record.is_out and record.probe_out:
                self.restore(instance, record)
            return
        record.in_a_row += 1
        if record.is_out:
            if record.probe_out:
                self.eject(instance, record)
        elif record.in_a_row >= self.failures and len(self.out) < self.most_out:
            self.eject(instance, record)

    def abandon(self, instance, double seconds):
        """It was given up: if it was the one that was to find out, another one has to."""
        cdef _Record record = self.records.get(instance.address)
        give_up(self.inner, instance, seconds)
        if record is not None:
            record.probe_out = False

    @property
    def most_out(self):
        """How many may be left out at one time."""
        count = len(self.instances)
        return min(count - 1, max(1, int(count * self.most_share))) if self.most_share and count else 0

    @property
    def ejected(self):
        """Addresses of those left out now."""
        return list(self.out)

    cdef int eject(self, instance, _Record record) except -1:
        record.since = self.now()
        record.until = record.since + min(self.most_seconds, self.seconds * 2.0 ** min(record.times, 60))
        record.times += 1
        record.probe_out = False
        self.out[instance.address] = record
        if not record.is_out:
            record.is_out = True
            self.tell(instance, "ejected")
        return 0

    cdef int restore(self, instance, _Record record) except -1:
        record.is_out = record.probe_out = False
        record.times = 0
        self.out.pop(instance.address, None)
        return self.tell(instance, "restored")

    cdef int tell(self, instance, str what) except -1:
        if self.on_change is not None:
            self.on_change(instance, what)
        return 0
