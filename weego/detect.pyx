# cython: language_level=3, boundscheck=False, wraparound=False
"""Which protocol a new connection speaks, by its first bytes, so that one port serves all.

A small ordered table of Detectors is asked. The first that says yes has the connection: its Front, and a Protocol of that Front's, take over, and
read the same bytes again. Thrift stands last and takes whatever nobody else wants, for its own errors are the best answer to noise. A peer
that sends too little to tell has OPENING seconds (attack case H2-16).
"""

from codec.buffer cimport Cursor
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memcmp
from poller.connection cimport Connection

# Seconds from the first byte of a connection to as many as tell the protocols apart: nginx, grpc-go and Envoy give a handshake 5 to 120.
cdef double OPENING = 5.0
# Bytes that a Detector written in Python gets to see at most: what tells may stand behind a TTHeader with metadata (Kitex's may be this long).
MOST_SEEN = 65536
cdef Py_ssize_t most_seen = MOST_SEEN


cdef class Detector:
    """Says yes to all connections. Subclass it and write `matches` for a protocol of your own, and give its Front."""

    def __init__(self, str name not None, Front front not None):
        self.name = name
        self.front = front

    cdef int match(self, const uint8_t* p, Py_ssize_t n) except -2:
        found = self.matches(PyBytes_FromStringAndSize(<const char*>p, min(n, most_seen)))
        return -1 if found is None else 1 if found else 0

    def matches(self, bytes head):
        """Are `head` (at least one byte, at most MOST_SEEN) the first bytes of this protocol? None: more are needed to tell."""
        return True

    def __repr__(self):
        return f"<Detector {self.name}>"


cdef class PrefixDetector(Detector):
    """Knows its protocol by the bytes it begins with: one of `prefixes`."""

    def __init__(self, str name not None, Front front not None, *prefixes):
        super().__init__(name, front)
        if not prefixes or not all(isinstance(each, bytes) and each for each in prefixes):
            raise ValueError(f"detector {name}: give one or more non-empty bytes")
        self.prefixes = prefixes

    cdef int match(self, const uint8_t* p, Py_ssize_t n) except -2:
        cdef bytes prefix
        cdef Py_ssize_t size
        cdef int found = 0
        for prefix in self.prefixes:
            size = PyBytes_GET_SIZE(prefix)
            if memcmp(p, PyBytes_AS_STRING(prefix), min(size, n)) == 0:
                if n >= size:
                    return 1
                found = -1
        return found


cdef class DetectProtocol(Protocol):
    """Takes nothing; its one message is the Detector that knows the bytes."""

    def __init__(self, list detectors not None):
        self.detectors = detectors
        self.patience = OPENING

    cdef object receive(self, Cursor* c):
        cdef Detector each
        cdef int found
        if c.p == c.end:
            return None
        for each in self.detectors:
            found = each.match(c.p, c.end - c.p)
            if found > 0:
                return each
            if found < 0:
                return None
        return self.detectors[len(self.detectors) - 1]


cdef class DetectFront(Front):
    """Where connections begin whose protocol is not known yet. `detectors` is the table, in the order of asking."""

    def __init__(self, dispatcher not None, list detectors not None):
        super().__init__(dispatcher)
        if not detectors:
            raise ValueError("a table of detectors needs at least one")
        self.detectors = detectors

    cdef Protocol new_protocol(self):
        return DetectProtocol(self.detectors)

    cdef int message(self, Connection c, object message) except -1:
        cdef Front front = (<Detector>message).front
        c.become(front.new_protocol(), front, 1)
        front.opened(c)
        return 0
