# cython: language_level=3
"""Taking in connections from a listening socket."""


cdef class Listener:
    cdef readonly int fd
    cdef readonly bint active
    cdef object hub
    cdef object accepted
    cdef object may_accept
    cdef object watcher
    cdef object timer
    cdef double pause
    cdef double complained
    cdef int is_tcp
    cdef int pid

    cdef bint accept(self) except -1
