# cython: language_level=3
"""What a client does for each call."""

from governance.call cimport Call


cdef class Carrier:
    """A transport that native code calls without a detour; see `weego.transport.Transport`."""

    # `text`: of the address
    cdef object carry(self, Call call, object address, str text, tuple args)


cdef class Invoker:
    cdef public bint _is_closed
    cdef public str _service_name
    cdef public object _timeout          # seconds, or None
    cdef public object _governed         # weego.governed.Governed, or None: addresses are fixed, and nothing is between them and the call
    cdef public object _handler          # what the middleware has made of `_attempts`, or of what governs; None: `_attempts` itself
    cdef public object _balancer         # where nothing governs
    cdef public object _only             # the one Address there is to pick from, or None
    cdef public dict _addresses          # by their texts
    cdef public dict _transports         # by the hub they wait with
    cdef public bint _streams_apart      # streams have transports of their own

    cdef object attempts(self, Call call, tuple args, double now)
    cdef object attempt(self, Call call, tuple args, double now)
    cdef object transport(self, object spec)
    cdef object send(self, Call call, object address, str text, tuple args)
