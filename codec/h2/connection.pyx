# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""One HTTP/2 connection (RFC 9113), server or client: bytes in, Streams out, no sockets, no clock of its own, no user code.

How it is used
1. Make one (``H2Connection(is_client)``, or a subclass whose `new_stream` makes Streams of your own class) and `start` it with a Sink, which takes
   what is to be sent. Both prefaces, SETTINGS and their acknowledgements, PING, windows and GOAWAY look after themselves.
2. `receive` parses what arrived and returns, as soon as the owner has something to do, the Stream that has news (`Stream.events` says which;
   the owner clears the bits), or the connection itself for news of its own (`H2Connection.events`). None: more bytes are needed.
3. A client opens streams with `open_stream` while `can_open`; a server gets them by GOT_HEADERS. Either answers with `send_fields` and `send_data`.
   What no window allows waits in the stream, trailers behind data, and leaves by itself when the peer opens one. `Stream.queued` tells how
   much waits, so that the owner may make its writer wait; `on_drained` says when to go on.
4. Whoever consumes received data says so with `take`, which opens the windows again. A subclass of Stream gets the bytes where they lie, in `on_data`.
5. `reset_stream` ends one stream. `shut_down` says goodbye in two steps: a GOAWAY that still allows new streams and a PING; when that comes back,
   all streams on their way have arrived, and the last GOAWAY names the last of them.

When the peer breaks a rule of one stream, that stream is reset (GOT_RESET). When it breaks one of the connection, or overdraws a budget of
codec.h2.limits, GOAWAY is written and `receive` raises H2Error; nothing is sent after that. Priorities are ignored (RFC 9113, 5.3), pushes
refused. Everything a peer may make us do costs O(1) for a frame, but for a changed initial window, which the SETTINGS budget bounds.

Fields to send are a list of `codec.h2.hpack.Field` (those made once and sent often: the table remembers them) and ``(name, value)`` pairs of bytes,
or a tuple of Fields, made once and sent often as a whole: its bytes are remembered too. What arrives is remembered likewise: a block that
repeats one of the last, with a table that has not changed, is neither decoded nor checked again. Nobody changes the lists of `Stream.headers`.
"""

from collections import deque

from codec.buffer cimport APART, get32, left, put32, reserve
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_ITEM
from cpython.object cimport PyObject
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy

from codec.h2.hpack cimport (
    AUTHORITY, CONTENT_LENGTH, HOP, HOST, METHOD, MOST_KEPT, PATH, PSEUDO, repeat, SCHEME, STATUS, TE,
)

from codec.errors import UsageError
from codec.h2 import limits
from codec.h2.errors import ErrorCode, H2Error

cdef enum:
    FRAME_HEAD = 9
    # A DATA frame that we send is at most this long, even where the peer allows more: a larger one would only delay the others.
    LONGEST_SENT = 65536
    SETTING_TABLE_SIZE = 1
    SETTING_ENABLE_PUSH = 2
    SETTING_MAX_STREAMS = 3
    SETTING_WINDOW = 4
    SETTING_MAX_FRAME = 5
    SETTING_MAX_LIST = 6
    DEFAULT_WINDOW = 65535
    # What a DATA frame that leaves gives back to the budget of WINDOW_UPDATEs.
    UPDATES_PER_DATA = 10

cdef int NO_ERROR = ErrorCode.NO_ERROR
cdef int PROTOCOL_ERROR = ErrorCode.PROTOCOL_ERROR
cdef int FLOW_CONTROL_ERROR = ErrorCode.FLOW_CONTROL_ERROR
cdef int STREAM_CLOSED = ErrorCode.STREAM_CLOSED
cdef int FRAME_SIZE_ERROR = ErrorCode.FRAME_SIZE_ERROR
cdef int REFUSED_STREAM = ErrorCode.REFUSED_STREAM
cdef int ENHANCE_YOUR_CALM = ErrorCode.ENHANCE_YOUR_CALM

cdef bytes PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
cdef Py_ssize_t MAX_FRAME = limits.MAX_FRAME
cdef int64_t MAX_WINDOW = limits.MAX_WINDOW
cdef int64_t CONNECTION_WINDOW = limits.CONNECTION_WINDOW
cdef int64_t CONNECTION_BUFFERED = limits.CONNECTION_BUFFERED
cdef Py_ssize_t MAX_HEADER_BLOCK = limits.MAX_HEADER_BLOCK
cdef int MAX_CONTINUATIONS = limits.MAX_CONTINUATIONS
cdef double HEADER_PATIENCE = limits.HEADER_PATIENCE
cdef Py_ssize_t DATA_BACKLOG = limits.DATA_BACKLOG
cdef int MAX_IDS_KEPT = limits.MAX_IDS_KEPT
cdef int EMPTY_FRAMES = limits.EMPTY_FRAMES
cdef Py_ssize_t SMALL_FRAME = limits.SMALL_FRAME
cdef int64_t SMALL_FRAMES = limits.SMALL_FRAMES
cdef int64_t OVERHEAD_FACTOR = limits.OVERHEAD_FACTOR
cdef int64_t OVERHEAD_FREE = limits.OVERHEAD_FREE
cdef bytes PING_GOODBYE = limits.PING_GOODBYE
cdef list TOO_MANY_FIELDS = [(b":status", b"431")]

cdef uint32_t RESET_MARK = 1 << 31


cdef class Sink:
    """Where the bytes go, and the clock. This one does nothing; subclass it."""

    cdef WriteBuffer writer(self):
        raise NotImplementedError(f"{type(self).__name__} has no writer")

    cdef int wrote(self) except -1:
        return 0

    cdef Py_ssize_t backlog(self) noexcept:
        return 0

    cdef int want_room(self) except -1:
        return 0

    cdef double now(self) noexcept:
        return 0


cdef class BufferSink(Sink):
    """Gathers what is sent in memory: for tests and tools. `time` is its clock, `unsent` what it claims to have as backlog; where it
    `gathers`, large data is left where it is until it is taken."""

    cdef WriteBuffer buffer
    cdef public double time
    cdef public Py_ssize_t unsent
    cdef readonly bint wants_room

    def __init__(self, *, bint gathers=False):
        self.buffer = WriteBuffer()
        self.buffer.gathers = gathers

    cdef WriteBuffer writer(self):
        return self.buffer

    cdef Py_ssize_t backlog(self) noexcept:
        return self.unsent

    cdef int want_room(self) except -1:
        self.wants_room = True
        return 0

    cdef double now(self) noexcept:
        return self.time

    def take(self):
        """What was written since the last time."""
        return self.buffer.take()


include "stream.pxi"
include "table.pxi"


cdef bint announce(Stream s, bytes value) except -1:
    """Note the content-length. 0: it is no number, or another one than before."""
    if not value.isdigit() or len(value) > 18:
        return False
    n = int(value)
    if s.announced >= 0 and s.announced != n:
        return False
    s.announced = n
    return True


cdef bint check_trailers(list fields) except -1:
    cdef Field f
    for each in fields:
        f = <Field>each
        if not f.is_valid or METHOD <= f.kind <= PSEUDO or f.kind == HOP:
            return False
    return True


include "sending.pxi"
include "receiving.pxi"
