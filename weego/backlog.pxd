# cython: language_level=3
"""Calls that wait for their turn in a server that sheds load."""

from governance.shedder cimport Shedder
from weego.dispatch cimport Dispatcher, Job, Queue


cdef class Backlog(Queue):
    cdef readonly Dispatcher dispatcher
    cdef public Shedder shedder
    cdef object waiting               # deque of Jobs, the oldest first
    cdef bint is_again                # the loop will resume this

    cdef int serve(self, Job job) except -1
    cdef int wait(self) except -1
