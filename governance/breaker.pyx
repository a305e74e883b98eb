# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Stop calling what fails: a circuit breaker over a sliding window, shared by all processes that are given the same cells.

    CLOSED      calls go through; when the window says so, OPEN
    OPEN        calls are refused; after `cooling`, HALF_OPEN
    HALF_OPEN   one call each `probe_every` goes through; a failure: OPEN; `successes_to_close` in a row: CLOSED, with an empty window

Window, states and defaults are those of Kitex (bytedance/gopkg `cloud/circuitbreaker`: 100 buckets of 100 ms, cooling 5 s, a probe each 200 ms,
two successes close; Kitex `cbsuite.go`: error rate 0.5, at least 200 samples). What Kitex lacks: the cells may be shared memory, so that all
workers of a host see one breaker.

A bucket is one 64-bit word – the number of its 100 ms interval, successes, failures – that is changed by compare-and-swap: no update is lost
and none is counted in the wrong interval, whoever else counts at the same time.
"""

from poller.clock cimport monotonic

__all__ = ["BREAKER_CELLS", "CLOSED", "HALF_OPEN", "OPEN", "STATES", "Breaker"]

from governance.cells cimport add, load, store, swap

cdef enum:
    _CLOSED = 0
    _OPEN = 1
    _HALF_OPEN = 2

    # Head cells.
    STATE = 0
    OPENED_AT = 1
    PROBED_AT = 2
    HALF_SUCCESSES = 3
    IN_A_ROW = 4
    TRIPS = 5
    HEAD = 8

    BUCKETS = 100

    # Of a bucket's word: 24 bits of interval number (19 days), 20 of successes, 20 of failures (10 million a second).
    COUNT_BITS = 20
    COUNT_MASK = (1 << 20) - 1
    TICK_MASK = (1 << 24) - 1

cdef int64_t BUCKET_NS = 100_000_000
cdef int64_t ONE_FAILURE = 1
cdef int64_t ONE_SUCCESS = 1 << 20

CLOSED = _CLOSED
OPEN = _OPEN
HALF_OPEN = _HALF_OPEN
STATES = ("closed", "open", "half-open")
# Cells that one breaker needs.
BREAKER_CELLS = HEAD + BUCKETS


cdef class Breaker:
    """One breaker, called `name`. Times in seconds.

    It opens when, in the last 10 s, there were `min_sample` calls and the share of failures reached `error_rate` (0: never for that reason), or when
    `consecutive` calls failed in a row (0: never for that reason). `on_change(breaker, before, after)` is called in the process that
    made the change, and in each other one when it first sees it; its errors are its own affair.
    """

    def __init__(self, str name="", *, Cells cells=None, double error_rate=0.5, int64_t min_sample=200, int64_t consecutive=0,
                 double cooling=5.0, double probe_every=0.2, int64_t successes_to_close=2, clock=None, on_change=None):
        if not 0 <= error_rate <= 1:
            raise ValueError(f"error_rate is a share, 0 to 1, got {error_rate}")
        self.name = name
        self.cells = Cells(None, 0, HEAD + BUCKETS) if cells is None else cells
        self.head = self.cells.at(0, HEAD + BUCKETS)
        self.buckets = self.head + HEAD
        self.clock = clock
        self.error_rate = error_rate
        self.min_sample = max(min_sample, 1)
        self.consecutive = consecutive
        self.cooling = <int64_t>(cooling * 1e9)
        self.probe_every = <int64_t>(probe_every * 1e9)
        self.successes_to_close = max(successes_to_close, 1)
        self.on_change = on_change
        self.seen = <int>load(self.head + STATE)

    cdef int64_t now(self) except -1:
        return <int64_t>((monotonic() if self.clock is None else <double>self.clock()) * 1e9)

    cpdef bint allow(self) except -1:
        """May a call go out now? Each call that may must be followed by `succeed` or `fail`, or by neither when it tells nothing."""
        cdef int64_t now, probed
        cdef int state = <int>load(self.head + STATE)
        if state != self.seen:
            self.change(self.seen, state)
        if state == _CLOSED:
            return True
        now = self.now()
        if state == _OPEN:
            if now - load(self.head + OPENED_AT) < self.cooling:
                return False
            probed = load(self.head + PROBED_AT)
            if not swap(self.head + STATE, _OPEN, _HALF_OPEN):
                return False
            store(self.head + HALF_SUCCESSES, 0)
            store(self.head + PROBED_AT, now)
            self.change(_OPEN, _HALF_OPEN)
            return True
        probed = load(self.head + PROBED_AT)
        return now - probed >= self.probe_every and swap(self.head + PROBED_AT, probed, now)

    cpdef int succeed(self) except -1:
        """A call went well."""
        cdef int64_t now = self.now()
        cdef int state = <int>load(self.head + STATE)
        if load(self.head + IN_A_ROW):
            store(self.head + IN_A_ROW, 0)
        if state == _HALF_OPEN:
            if add(self.head + HALF_SUCCESSES, 1) >= self.successes_to_close and swap(self.head + STATE, _HALF_OPEN, _CLOSED):
                self.clear()
                self.change(_HALF_OPEN, _CLOSED)
            return 0
        return self.count(now, ONE_SUCCESS)

    cpdef int fail(self) except -1:
        """A call failed in a way that counts."""
        cdef int64_t now = self.now()
        cdef int state = <int>load(self.head + STATE)
        add(self.head + IN_A_ROW, 1)
        self.count(now, ONE_FAILURE)
        if state == _OPEN or (state == _CLOSED and not self.should_trip(now)):
            return 0
        # The time first: who sees the new state must not read the old time.
        store(self.head + OPENED_AT, now)
        if swap(self.head + STATE, state, _OPEN):
            add(self.head + TRIPS, 1)
            self.change(state, _OPEN)
        return 0

    cdef bint should_trip(self, int64_t now) except -1:
        cdef int64_t good, bad
        if self.consecutive and load(self.head + IN_A_ROW) >= self.consecutive:
            return True
        if not self.error_rate:
            return False
        good, bad = self.counts_at(now)
        return good + bad >= self.min_sample and bad >= self.error_rate * (good + bad)

    cdef int count(self, int64_t now, int64_t amount) except -1:
        cdef int64_t number = now // BUCKET_NS
        cdef int64_t* bucket = self.buckets + number % BUCKETS
        cdef int64_t tick = number & TICK_MASK
        cdef int64_t word, fresh
        while True:
            word = load(bucket)
            fresh = word if (word >> 40) & TICK_MASK == tick and word else tick << 40
            if amount == ONE_FAILURE and fresh & COUNT_MASK == COUNT_MASK:
                return 0
            if amount == ONE_SUCCESS and (fresh >> COUNT_BITS) & COUNT_MASK == COUNT_MASK:
                return 0
            if swap(bucket, word, fresh + amount):
                return 0

    def counts_at(self, int64_t now):
        """Successes and failures in the window that ends at `now` (nanoseconds)."""
        cdef int64_t newest = now // BUCKET_NS
        cdef int64_t word, good = 0, bad = 0
        cdef int i
        for i in range(BUCKETS):
            word = load(self.buckets + i)
            if word and ((newest - (word >> 40)) & TICK_MASK) < BUCKETS:
                good += (word >> COUNT_BITS) & COUNT_MASK
                bad += word & COUNT_MASK
        return good, bad

    cdef int change(self, int before, int after) except -1:
        self.seen = after
        if self.on_change is not None:
            self.on_change(self, STATES[before], STATES[after])
        return 0

    def clear(self):
        """Forget what was counted."""
        cdef int i
        for i in range(BUCKETS):
            store(self.buckets + i, 0)
        store(self.head + IN_A_ROW, 0)

    @property
    def state(self):
        """closed, open or half-open."""
        return STATES[load(self.head + STATE)]

    def snapshot(self):
        """What there is to show: name, state, successes and failures in the window, how often it opened."""
        good, bad = self.counts_at(self.now())
        return {"name": self.name, "state": self.state, "successes": good, "failures": bad, "trips": load(self.head + TRIPS)}

    def __repr__(self):
        return f"<Breaker {self.name} {self.state}>"
