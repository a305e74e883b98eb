# cython: language_level=3
"""The facts of one RPC."""


cdef class Ending:
    """The end of a stream, and who waits to hear of it."""

    cdef list watchers
    cdef readonly bint is_over

    cpdef int tell(self, object error, bint heard) except -1


cdef class Call:
    cdef readonly object spec            # MethodSpec
    cdef readonly str service
    cdef readonly bint is_server
    cdef readonly double started         # monotonic seconds
    cdef public double deadline_at       # monotonic seconds; 0: none
    cdef public int attempt
    cdef readonly bint cancelled
    cdef public str instance
    cdef public bint repeatable          # another attempt may follow, should this one fail
    cdef public object key               # what consistent hashing goes by; None elsewhere
    cdef readonly set tried              # addresses of attempts that failed; None until one did
    cdef object source                   # what the transport knows: header, framing, size
    cdef object connection
    cdef dict outgoing                   # TTHeader strings to send; None until asked for
    cdef dict trailing                   # gRPC trailers to send; None until asked for
    cdef public str compression          # of the messages sent from now on: a name of gRPC's (gzip …), or None
    cdef object incoming                 # Metadata; None until asked for
    cdef dict persistent                 # what `carried` gives; None until asked for
    cdef Call within                     # what was served where it began, if `is_within` says that this is known; None: nothing
    cdef bint is_within
    cdef readonly Ending ending          # of a client's stream, once it is open; None of any other call
    cdef public double recv_timeout      # of a client's stream, seconds to wait for one message; 0: until the deadline
    cdef public double send_timeout      # … and for room for one

    cpdef Ending opened(self)


cdef Call begun(object spec, str service, double started, double deadline, Call within)
cdef object served()
