# cython: language_level=3
"""Who is ready: one epoll instance, and the turn that serves it."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from codec.buffer cimport WriteBuffer
from poller.timers cimport Alarm, Timers

cdef enum:
    # One read takes up to this much: larger than most messages, and small enough to stay in the second-level cache.
    SCRATCH = 65536


cdef class Pollable:
    """Something with a file descriptor in a Loop."""

    cdef readonly int fd                 # -1 when it is not in a loop
    cdef uint32_t generation             # tells events of this registration from those of an earlier owner of the number
    cdef Pollable unsent_before          # in Loop.unsent
    cdef bint is_unsent                  # it is there

    cdef int ready(self, uint32_t events) except -1
    cdef int resume(self) except -1      # after Loop.again()
    cdef int flush(self) except -1       # after Loop.dirty()
    cdef int sweep(self, double now) except -1
    cdef int abandon(self) except -1     # in a forked child: close our copy of the descriptor, tell nobody


cdef class Waiter:
    """Something that waits for the loop to wake it in the hub greenlet, outside of any turn."""

    cdef int wake(self) except -1


cdef class Runner:
    """Who runs the turns of a loop, so that what they call may block. Without one they run in the hub and nothing may."""

    cdef int lead(self) except -1
    cdef int close(self) except -1       # the loop was closed; let go of what waits to run it


cdef struct Slot:
    void* owner                          # a Pollable that the loop holds a reference to, or NULL
    uint32_t generation


cdef class Loop:
    cdef readonly int epoll
    cdef readonly object hub
    cdef readonly Py_ssize_t members
    cdef readonly int64_t turns
    cdef readonly int64_t term           # changes whenever another greenlet goes on with a turn
    cdef Runner runner
    cdef readonly double polled          # when the kernel was last asked
    cdef readonly Timers timers
    cdef int pid
    cdef Slot* slots
    cdef int capacity
    cdef uint32_t generations
    cdef Pollable unsent                 # the last of those with output of this turn; each knows the one before it
    cdef object unread                   # deque of Pollables that stopped before the end of their input
    cdef Pollable guarded                # joins them when another greenlet goes on with the turn; what stops early as long as this one does not
    cdef list awake                      # Waiters to wake after the turn
    cdef void* events                    # the batch at hand: on the heap, because a greenlet's stack is not there while it waits
    cdef int event_count
    cdef int event_next
    cdef Py_ssize_t resumes              # members of `unread` to resume in this turn
    cdef bint unfinished                 # the turn at hand has more to do
    cdef WriteBuffer spare               # the last of those that no connection uses; each knows the one before it
    cdef Py_ssize_t spare_bytes          # the room they have
    cdef uint8_t* scratch
    cdef bint kicked
    cdef readonly double sweep_interval  # seconds
    cdef double swept                    # when `run_once` last looked at the time limits
    cdef object interrupted              # what is to be raised when the turn is through: KeyboardInterrupt and the like
    cdef object callbacks                # the hub's, those that are to be called at its next turn; None when it does not say
    cdef bint may_linger                 # the hub called for this turn
    cdef int fetched                     # events that are there for the next turn
    cdef int fewest                      # watchers that the hub had in the last second
    cdef int fewest_now                  # … in this one
    cdef int brisk                       # so many turns have followed one another closely, BRISK at most
    cdef public double closely           # seconds
    cdef public double linger_time       # seconds; for tests, as the one before
    cdef double lingers_since
    cdef int recall                      # a timer's descriptor, or -1
    cdef double recalled_at
    cdef object watcher
    cdef object alarm
    cdef double alarm_at
    cdef object sweeper
    cdef object __weakref__

    cdef int add(self, Pollable p, int fd, uint32_t events) except -1
    cdef int remove(self, Pollable p) except -1
    cdef int dirty(self, Pollable p) except -1
    cdef int again(self, Pollable p) except -1
    cdef int wake_after_turn(self, Waiter w) except -1
    cdef int enter(self) except -1
    cdef int after_turn(self) except -1
    cdef int turn(self, int timeout=*) except -1
    cdef int linger(self) except -1
    cdef int make_recall(self) except -1
    cdef bint is_awaited(self) except -1
    cdef int set_recall(self) except -1
    cdef int send_unsent(self) except -1
    cdef int finish_turn(self) except -1
    cdef int failed(self, str what, object p, object error) except -1
    # As Timers.set: rings in the hub, where nothing may block. `unset` is the Timers'.
    cdef int set_alarm(self, Alarm* alarm, object owner, double deadline) except -1
    cdef int arm(self, double deadline) except -1
    cdef int kick(self) except -1
