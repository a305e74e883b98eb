# cython: language_level=3
"""Calls of gRPC on their way to a connection."""

from governance.call cimport Call
from weego.grpc_client cimport Link
from weego.invoker cimport Carrier


cdef class GrpcCarrier(Carrier):
    cdef object channel                  # weego.grpc_channel.GrpcChannel
    cdef object waits_with               # the hub, or None
    cdef double idle_timeout             # seconds
    cdef dict methods                    # GrpcMethods by their specs
    cdef public bint _closed
    cdef public dict _links              # lists of Links by their addresses
    cdef public long long _reused        # calls on a connection that was there

    cdef Link at_hand(self, str text)
