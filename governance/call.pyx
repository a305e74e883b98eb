# cython: language_level=3, boundscheck=False, wraparound=False
"""The facts of one RPC, on either side of it. Made for each call and never used again for another."""

cimport cython
from cpython.contextvars cimport get_value
from poller.clock cimport monotonic

from contextvars import ContextVar

from codec.errors import DeadlineExceeded
from codec.metadata import Metadata

cdef extern from *:
    """
    #include "greenlet.h"
    static inline PyObject *weego_this_greenlet(void) { return (PyObject *)PyGreenlet_GetCurrent(); }
    """
    object this_greenlet "weego_this_greenlet"()

cdef extern from "greenlet.h":
    void PyGreenlet_Import()

# TTHeader int keys (gopkg `metakey.go`).
cdef int FROM_SERVICE = 3
cdef int LOG_ID = 2

cdef str PERSISTENT = "RPC_PERSIST_"

_current = ContextVar("weego.call")
cdef object CURRENT = _current
PyGreenlet_Import()


cdef class Ending:
    """The end of a client's stream, which is open when the call that opened it returns. Its policies wait here to hear how it went."""

    def __cinit__(self):
        self.watchers = []

    def watch(self, watcher not None):
        """``watcher(error, heard)`` is called once, when the stream is over: with what it failed with or None, and whether the peer had answered by then.

        It must neither wait nor raise: the collector may be the one that calls it.
        """
        self.watchers.append(watcher)

    cpdef int tell(self, object error, bint heard) except -1:
        """The stream is over; only the first to say so counts."""
        if self.is_over:
            return 0
        self.is_over = True
        watchers, self.watchers = self.watchers, []
        for watcher in watchers:
            watcher(error, heard)
        return 0


# The memory is kept for the next; the object is a new one each time.
@cython.freelist(64)
cdef class Call:
    """One RPC: which method, for whom, until when.

    A handler gets the one it serves from `weego.current()`; middleware gets it as its first argument. Times are seconds of the
    monotonic clock; `deadline` is None where there is none.
    """

    def __init__(self, spec, *, service="", is_server=False, started=None, deadline=None, source=None, connection=None):
        self.spec = spec
        self.service = service
        self.is_server = is_server
        self.started = monotonic() if started is None else started
        self.deadline_at = deadline or 0.0
        self.attempt = 1
        self.source = source
        self.connection = connection

    @property
    def method(self):
        """The method's name as the IDL spells it."""
        return self.spec.name

    @property
    def deadline(self):
        """The instant at which the answer is no longer wanted, or None."""
        return self.deadline_at or None

    @deadline.setter
    def deadline(self, value):
        self.deadline_at = value or 0.0

    @property
    def remaining(self):
        """Seconds until the deadline (negative when it has passed), or None."""
        return self.deadline_at - monotonic() if self.deadline_at else None

    @property
    def expired(self):
        """True once the deadline has passed."""
        return self.deadline_at != 0 and monotonic() >= self.deadline_at

    @property
    def elapsed(self):
        """Seconds since the call began."""
        return monotonic() - self.started

    @property
    def peer(self):
        """Address of the other side: ``tcp://host:port`` or ``unix://``."""
        if self.connection is not None:
            return self.connection.peer
        return self.instance or "unknown"

    @property
    def peer_identity(self):
        """Who the other side proved to be by its TLS certificate, as a PeerIdentity (``.name``, ``.dns``, ``.uris``); None without."""
        return getattr(self.connection, "identity", None)

    @property
    def protocol(self):
        """How the message came: buffered, framed, ttheader, ttheader-framed, grpc or grpc-web."""
        return getattr(self.source, "framing_name", "unknown")

    @property
    def request_compression(self):
        """How the request came, or of a stream the one that was read last: "gzip" or another name; None: as it is. On gRPC."""
        return getattr(self.source, "request_compression", None)

    @property
    def metadata(self):
        """What came along with the call (server) or with its answer (client), as Metadata."""
        if self.incoming is None:
            header = getattr(self.source, "header", None)
            if header is not None:
                self.incoming = Metadata(header.strings)
            else:
                self.incoming = Metadata(getattr(self.source, "metadata_pairs", ()))
        return self.incoming

    @property
    def send_metadata(self):
        """Strings to send along: with the answer (server) or with the call (client). TTHeader and gRPC carry them.

        On gRPC a value may be a list of strings, and names that end with "-bin" take bytes. A server's leave with its first message.
        """
        if self.outgoing is None:
            self.outgoing = {}
        return self.outgoing

    @property
    def trailers(self):
        """What goes behind the last message of an answer, like `send_metadata`: gRPC alone has such a place."""
        if self.trailing is None:
            self.trailing = {}
        return self.trailing

    @property
    def caller(self):
        """The name of the calling service, where the peer told it; else an empty string."""
        header = getattr(self.source, "header", None)
        return header.ints.get(FROM_SERVICE, "") if header is not None else getattr(self.source, "caller_name", "")

    @property
    def log_id(self):
        """The log id the peer sent along, or an empty string."""
        header = getattr(self.source, "header", None)
        return header.ints.get(LOG_ID, "") if header is not None else getattr(self.source, "log_id", "")

    @property
    def carried(self):
        """What goes on with every call made while this one is served: persistent metainfo, by its name in TTHeader."""
        if self.persistent is None:
            header = getattr(self.source, "header", None)
            pairs = header.strings if header is not None else dict(self.metadata)
            self.persistent = {}
            for name, value in pairs.items():
                # Empty names and values are not passed on (metainfo `CarrierToMetainfo`).
                if name.startswith(PERSISTENT) and len(name) > len(PERSISTENT) and value:
                    self.persistent[name] = value
        return self.persistent

    def avoid(self, address):
        """An attempt at `address` failed: the next one goes elsewhere, if there is an elsewhere."""
        if self.tried is None:
            self.tried = set()
        self.tried.add(address)

    def branch(self):
        """A Call for an attempt beside this one: the same call, its own instance, answer and metadata to send."""
        cdef Call other = Call.__new__(Call)
        other.spec = self.spec
        other.service = self.service
        other.started = self.started
        other.deadline_at = self.deadline_at
        other.attempt = self.attempt
        other.key = self.key
        other.repeatable = self.repeatable
        other.within = self.within
        other.is_within = self.is_within
        other.outgoing = None if self.outgoing is None else dict(self.outgoing)
        other.tried = None if self.tried is None else set(self.tried)
        return other

    def adopt(self, Call other not None):
        """The attempt `other` is over: this call knows now what that one learnt."""
        self.instance = other.instance
        self.source = other.source
        self.incoming = other.incoming
        self.ending = other.ending

    cpdef Ending opened(self):
        """The call is a stream that is open now: what its end will be told to."""
        self.ending = Ending()
        return self.ending

    def answer(self, source):
        """The transport's answer has come: `metadata` is now what came with it."""
        self.source = source
        self.incoming = None

    def check(self):
        """Raise DeadlineExceeded if the deadline has passed: for inline and thread handlers, which nothing interrupts."""
        if self.expired:
            raise DeadlineExceeded(f"{self.service}.{self.method}: the deadline has passed", elapsed=self.elapsed)

    def __repr__(self):
        side = "serving" if self.is_server else "calling"
        left = "" if not self.deadline_at else f", {self.remaining * 1000:.0f} ms left"
        return f"<Call {side} {self.service}.{self.spec.name}{left}>"


cdef Call begun(object spec, str service, double started, double deadline, Call within):
    """A Call of a client that began at `started` and has until `deadline` (0: for ever), while `within` is served."""
    cdef Call call = Call.__new__(Call)
    call.spec = spec
    call.service = service
    call.started = started
    call.deadline_at = deadline
    call.attempt = 1
    call.within = within
    call.is_within = True
    return call


cdef object served():
    """What `current` says, for native code."""
    found = getattr(this_greenlet(), "serving", None)
    return found if found is not None else get_value(CURRENT)


def current():
    """The call that this code serves, or None outside of a handler.

    A handler finds it on its own greenlet, which costs the call nothing; one that runs in a thread in its context.
    """
    return served()
