# cython: language_level=3
"""The greenlets that run the loop's turns."""

from cpython.object cimport PyObject

from poller.loop cimport Loop, Runner

cdef extern from "greenlet.h":
    ctypedef class greenlet.greenlet [object PyGreenlet]:
        pass


cdef class Leader(greenlet):
    """A greenlet that runs turn after turn, and in them call after call."""

    cdef Leaders owner
    cdef readonly object serving       # the call that is served at the moment, or None
    cdef list links                    # what gevent.local wants called when the greenlet, for us the call, ends

    # Around a call: what `begin` returned goes to `end`.
    cdef Py_ssize_t begin(self, object call) noexcept
    cdef int end(self, Py_ssize_t references, bint blocked) except -1


cdef class Leaders(Runner):
    cdef readonly Loop loop
    cdef readonly set members          # all Leaders that live: the one reference that we hold while they run
    cdef readonly list idle            # those that are parked
    cdef Py_ssize_t idle_references    # to one that is parked and that nobody refers to but we; 0: not measured yet
    cdef bint measuring
    cdef PyObject* current             # the Leader that runs now, or NULL; borrowed
    cdef PyObject* chosen              # the Leader that is to wake now, or NULL; borrowed

    cdef int measure(self) except -1
