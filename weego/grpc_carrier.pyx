# cython: language_level=3, boundscheck=False, wraparound=False
"""Calls of gRPC on their way to a connection: which one they take, and what is done when that does not take them."""

from governance.call cimport Call
from poller.clock cimport monotonic
from poller.switching cimport PyGreenlet_Import, this_greenlet
from weego.grpc_client cimport GrpcMethod, Link

from codec.errors import ClosedError, Unavailable, UsageError
from codec.grpc_compression import IDENTITY, is_known, names
from weego.exchange import IN_THE_LOOP
from weego.grpc_client import Crowded

cdef enum:
    # Times one attempt is repeated because a peer did not look at the call (grpc: once; a rolling restart may meet several that leave).
    MOST_REFUSALS = 5

# With wait_for_ready: pauses between attempts to connect (seconds): doubled from the first to the last (grpc: 1 s to 2 min, for whole channels).
cdef double FIRST_PAUSE = 0.02
cdef double LAST_PAUSE = 1.0

PyGreenlet_Import()


def checked_compression(name):
    """`name` as messages are compressed with it, None for not at all. UsageError when it is not known."""
    if not name or name == IDENTITY:
        return None
    if not is_known(name):
        raise UsageError(f"unknown compression {name!r}; there are {', '.join(names())} (the package zstandard brings zstd, weego.extend.register_compressor your own)")
    return name


cdef class GrpcCarrier(Carrier):
    """Repeats what was not looked at, and waits for a peer to be there if so wished. Subclasses have connections: `_link` makes one, `_sleep` waits."""

    def __init__(self, channel not None, hub=None):
        self.channel = channel
        self.waits_with = hub
        self.idle_timeout = channel.limits.idle_timeout
        self.methods = {}
        self._links = {}

    def call(self, Call call not None, address not None, tuple args not None):
        """One attempt; see Transport."""
        return self.carry(call, address, address.text, args)

    cdef object carry(self, Call call, object address, str text, tuple args):
        cdef Link link
        cdef str compression
        cdef int refusals = 0
        cdef double pause = FIRST_PAUSE
        cdef GrpcMethod method = self.methods.get(call.spec)
        if method is None:
            method = self.methods[call.spec] = self.channel.method(call.spec)
        compression = self.channel.compression if call.compression is None else checked_compression(call.compression)
        if self.waits_with is not None and this_greenlet() is self.waits_with:
            raise UsageError(IN_THE_LOOP)
        while True:
            if self._closed:
                raise ClosedError("the client is closed")
            link = self.at_hand(text)
            if link is None:
                try:
                    link = self._link(address, call.deadline_at)
                except Unavailable:
                    if not self.channel.wait_for_ready:
                        raise
                    if call.deadline_at and call.deadline_at - monotonic() <= pause:
                        raise
                    self._sleep(pause)
                    pause = min(pause * 2, LAST_PAUSE)
                    continue
            try:
                if method.is_streaming:
                    return link.open(call, method, args, compression)
                return link.simple(call, method, args[0], compression)
            except Crowded:
                continue
            except Unavailable as error:
                refusals += 1
                if error.sent or refusals > MOST_REFUSALS:
                    raise

    cdef Link at_hand(self, str text):
        """The connection with the fewest calls on which another may begin; None when there is none, or it was idle for too long."""
        cdef Link link, best = None
        cdef list links = self._links.get(text)
        if links is None:
            return None
        for each in links:
            link = <Link>each
            if link.may_open() and (best is None or link.protocol.streams.count < best.protocol.streams.count):
                best = link
        if best is None or best.is_stale(self.idle_timeout):
            return None
        self._reused += 1
        return best
