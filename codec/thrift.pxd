# cython: language_level=3
"""Thrift messages in every framing that Kitex puts on a plain connection."""

from codec.buffer cimport Cursor, WriteBuffer
from codec.plan cimport ArgsPlan, ResultPlan
from codec.proto_plan cimport ProtoPlan
from codec.protocol cimport Protocol
from codec.scan cimport Scan
from codec.ttheader cimport Header
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t


cdef enum:
    # Bits of a framing; the values of Kitex's `transport.Protocol`.
    BUFFERED = 0
    TTHEADER = 2
    FRAMED = 4
    # Beside them: the message is in Thrift's compact protocol, which Kitex does not have, and not in binary.
    COMPACT = 256
    # It is Kitex Protobuf: a Protobuf message behind Thrift's head with another magic.
    PROTOBUF = 512

cdef enum:
    # Message types of Thrift.
    CALL = 1
    REPLY = 2
    EXCEPTION = 3
    ONEWAY = 4
    # Kitex's (`pkg/remote/message.go`): is anybody there? Answered in kind, without a handler. Kitex's own codec takes none.
    HEARTBEAT = 6

cdef enum:
    # TTHeader's flag "SupportOutOfOrder": the peer tells answers apart by sequence id (Kitex, `netpollmux`).
    OUT_OF_ORDER = 1


cdef class Route:
    """One method, as the codec needs it; `target` belongs to whoever serves it."""

    cdef readonly object spec
    cdef readonly bytes name
    cdef readonly bint oneway
    cdef public object target
    # Of a Thrift method.
    cdef ArgsPlan args
    cdef ResultPlan result
    # Of a Protobuf method; the plans are None where the messages are protobuf's own.
    cdef readonly bint is_protobuf
    cdef object request
    cdef object response
    cdef ProtoPlan request_plan
    cdef ProtoPlan response_plan


cdef class Request:
    """A call that arrived."""

    cdef readonly Route route        # None when there is no such method
    cdef readonly bytes name
    cdef readonly int type
    cdef readonly int32_t seqid
    cdef readonly int framing
    cdef readonly bint strict
    cdef readonly Header header      # None without TTHeader
    cdef readonly tuple args
    cdef readonly object error       # the ApplicationError to answer with instead of calling the method
    cdef readonly bint fatal         # answer, then close: where the next message begins is not known
    cdef readonly Py_ssize_t size    # bytes on the wire


cdef class Reply:
    """An answer that arrived."""

    cdef readonly int32_t seqid
    cdef readonly object value
    cdef readonly object error       # an exception to raise, or None
    cdef readonly Header header
    cdef readonly Py_ssize_t size


cdef struct Envelope:
    # Where one message lies, found without decoding it.
    int framing
    const uint8_t* body              # first byte of the Thrift message
    const uint8_t* end               # first byte after it


cdef struct Marks:
    # Where lengths are to be filled in once the body is written; -1 where there is none.
    Py_ssize_t packet
    Py_ssize_t frame
    Py_ssize_t sum                   # room for the payload's checksum
    bint packed                      # the payload is to be compressed
    Py_ssize_t apart                 # what the buffer had in pieces before the message


cdef struct Head:
    int type
    int32_t seqid
    const uint8_t* name
    Py_ssize_t name_size
    bint strict
    bint compact
    bint protobuf


cdef class ThriftProtocol(Protocol):
    cdef Py_ssize_t max_message
    cdef public int64_t max_decoded  # bytes of memory that one message may become
    cdef Scan* progress              # of a buffered message that has not arrived whole; NULL between messages
    cdef Py_ssize_t scanned          # its bytes that `progress` has seen

    cdef bytes inflated              # the payload of that message, if it came compressed: the Envelope points into it
    cdef Header header               # of the message that `find` found last; None without TTHeader

    # 1: found, 0: more bytes are needed.
    cdef int find(self, Cursor* c, Envelope* e) except -1
    cdef int find_end(self, Cursor* c, Envelope* e) except -1
    cdef void forget_progress(self) noexcept
    cdef int inflate(self, Cursor* packet) except -1
    cdef Py_ssize_t checked(self, uint32_t size, str what) except -1


cdef class ThriftServerProtocol(ThriftProtocol):
    cdef dict routes                 # bytes → Route, over all services
    cdef dict services               # str → dict of the same

    cdef Route last                  # of the last message without a TTHeader, where it had one

    cdef int check_answer(self, Request request, Py_ssize_t size) except -1
    cdef Route route_for(self, bytes name, Header header)
    cdef Route only_one(self, bytes name)
    cdef int find_route(self, Request r, Head* head) except -1
    cdef int reply(self, Request request, object value, WriteBuffer out, dict strings) except -1
    # 1: an exception of the IDL was written as the method's reply. 0: it is not declared, nothing was written.
    cdef int declared(self, Request request, object error, WriteBuffer out, dict strings) except -1
    cdef int begin(self, Request r, Marks* m, int type, WriteBuffer out, dict strings) except -1
    cdef object nobody(self, Request r)
    cdef object broken(self, Cursor* c, object error)
    cdef int read_protobuf(self, Request r, Cursor* body, bint is_protobuf) except -1
    cdef int empty(self, Request request, WriteBuffer out, dict strings) except -1
    cdef int beat(self, Request request, WriteBuffer out) except -1
    cdef int goodbye(self, WriteBuffer out) except -1
    cdef int fail(self, Request request, int type, str message, WriteBuffer out, dict strings) except -1


cdef class ThriftClientProtocol(ThriftProtocol):
    cdef readonly int framing
    cdef public bint checksum        # TTHeader: send a checksum of each payload
    cdef public bytes transforms     # TTHeader: ids of the compressors that calls go through
    cdef public bint shared          # answers come in any order, also to calls that nobody waits for any more
    cdef dict pending                # seqid → Route of the calls that wait for an answer

    cdef int call(self, Route route, tuple args, int32_t seqid, WriteBuffer out, dict ints, dict strings) except -1
    cdef int write_protobuf(self, Route route, tuple args, WriteBuffer out) except -1
    cpdef int write_heartbeat(self, int32_t seqid, WriteBuffer out) except -1


cdef class PayloadClientProtocol(ThriftClientProtocol):
    cdef object codec                # the PayloadCodec
    cdef bytes magic

    cdef bytes written(self, Route route, tuple args)
    cdef int take(self, Reply r, Route route, bytes payload) except -1


# For protocols that carry Thrift's exceptions in frames of their own.
cdef int read_head(const uint8_t** p, const uint8_t* end, Head* h) except -1
cdef int write_application_error(WriteBuffer out, int type, str message, int framing) except -1
cdef tuple read_application_error(Cursor* c, Head* head)
cdef object read_business_status(dict strings)
