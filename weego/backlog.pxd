# cython: language_level=3
"""Calls that wait for their turn in a server that sheds load."""

from libc.stdint cimport int64_t

from governance.shedder cimport Shedder
from weego.dispatch cimport Dispatcher, Job, Queue


cdef class Backlog(Queue):
    cdef readonly Dispatcher dispatcher
    cdef public Shedder shedder
    cdef object waiting               # deque of Jobs, the oldest first
    cdef bint is_again                # the loop will resume this
    cdef int64_t slice_of             # the turn that the slice at hand belongs to
    cdef double until                 # when that slice ends
    cdef double measured              # when `measure` looked last
    cdef double cpu                   # the thread's CPU time by then
    cdef int64_t served               # calls since then
    cdef double held                  # for how long those of them kept the worker that did not wait for anything else

    cdef int serve(self, Job job) except -1
    cdef int wait(self, bint at_once=*) except -1
    cdef int measure(self, double now) except -1
