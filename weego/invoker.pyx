# cython: language_level=3, boundscheck=False, wraparound=False
"""What a client does for each call: its deadline, an address, the transport of this thread. `weego.client.Client` does the rest.

Native, because a process that makes one call at a time sleeps in between, and comes back to cold caches: there every instruction counts twice.
"""

import sys

from cpython.tuple cimport PyTuple_GET_ITEM
from governance.call cimport Call, begun, served
from poller.clock cimport monotonic

from codec.errors import ClosedError, DeadlineExceeded, Origin, RpcError, Unavailable, UsageError
from governance.errors import NoInstance
from poller.address import parse

# A longer timeout is as good as none, and too much for the system calls that wait (seconds; ten years).
LONGEST_TIMEOUT = 10 * 365 * 86400.0
cdef double LONGEST = LONGEST_TIMEOUT

cdef enum:
    # Addresses tried for one call when nothing had left yet: each once, but no more than this.
    MOST_INSTANCES = 3

cdef object get_hub = None  # gevent's, as soon as the program has that


cdef object hub_here():
    """gevent's hub of this thread, or None where gevent is not at work."""
    global get_hub
    if get_hub is None:
        local = sys.modules.get("gevent._hub_local")
        if local is None:
            return None
        get_hub = local.get_hub_if_exists
    return get_hub()


cdef inline str text_of(object address):
    # Not `address.text`: that, and even its index, is a call of Python's.
    return <str?><object>PyTuple_GET_ITEM(address, 0)


def checked_timeout(seconds):
    """`seconds`, or None for so many that they never pass. UsageError when it is no number of seconds."""
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds >= 0:
        raise UsageError(f"timeout must be a number of seconds, 0 or more, got {seconds!r}")
    return float(seconds) if seconds <= LONGEST else None


cdef class Carrier:
    cdef object carry(self, Call call, object address, str text, tuple args):
        """One attempt at `address`."""
        raise NotImplementedError


cdef class Invoker:
    """The part of a Client that each call goes through."""

    def _invoke(self, spec, tuple args not None, timeout):
        """Call `spec` with `args`: what generated methods do."""
        cdef Call call, serving
        cdef double now, until = 0
        if self._is_closed:
            raise ClosedError(f"this {type(self).__name__} is closed")
        if timeout is None:
            own = self._timeout
            if own is None and self._governed is not None:
                timeout = self._governed.timeout_of(spec)
                own = None if timeout is None else checked_timeout(timeout)
        else:
            own = checked_timeout(timeout)
        now = monotonic()
        if own is not None:
            until = now + <double>own
        serving = served()
        if serving is not None and serving.deadline_at and (until == 0 or serving.deadline_at < until):
            until = serving.deadline_at
        call = begun(spec, self._service_name, now, until, serving)
        try:
            if self._handler is None:
                return self.attempts(call, args, now)
            return self._handler(call, args)
        except RpcError as error:
            if error.elapsed is None:
                error.elapsed = call.elapsed
            if isinstance(error, DeadlineExceeded) and error.origin is Origin.LOCAL and call.expired:
                error.message += f"; {self._whose_deadline(call, timeout)}"
            error.attempt = error.attempt or call.attempt
            raise

    def _whose_deadline(self, Call call not None, timeout):
        """Whose time was over: that of the call being served, which this one inherited, or its own."""
        serving = served()
        if serving is not None and serving.deadline == call.deadline:
            return f"the deadline of {serving.service}.{serving.spec.name}, which is being served, has passed"
        return f"the call's timeout of {self._timeout if timeout is None else timeout:g} s"

    def _attempts(self, Call call not None, tuple args not None):
        """Try instances until one could be reached; a call of which a byte has left is not repeated."""
        return self.attempts(call, args, monotonic())

    cdef object attempts(self, Call call, tuple args, double now):
        cdef Py_ssize_t most
        while True:
            try:
                return self.attempt(call, args, now)
            except Unavailable as error:
                if error.sent:
                    raise
                if call.expired:
                    raise DeadlineExceeded(f"{error.message}; the deadline has passed", instance=error.instance) from error
                most = min(len(self._addresses), <Py_ssize_t>MOST_INSTANCES)
                if call.attempt >= most:
                    raise
                call.attempt += 1
                now = monotonic()

    cdef object attempt(self, Call call, tuple args, double now):
        if call.deadline_at and now >= call.deadline_at:
            raise DeadlineExceeded(f"{call.service}.{call.method}: the deadline passed before the call was sent")
        address = self._only
        if address is None:
            picked = self._balancer.pick(call)
            if picked is None:
                raise NoInstance(f"the balancer of {self!r} found no instance")
            address = self._addresses.get(picked.address) or parse(picked.address)
        call.instance = text = text_of(address)
        return self.send(call, address, text, args)

    def _carry(self, Call call not None, str address not None, tuple args not None):
        """One attempt at `address`, for the policies above it."""
        found = self._addresses.get(address) or self._address(address)
        return self.send(call, found, text_of(found), args)

    cdef object send(self, Call call, object address, str text, tuple args):
        cdef object transport = self.transport(call.spec)
        if isinstance(transport, Carrier):
            return (<Carrier>transport).carry(call, address, text, args)
        return transport.call(call, address, args)

    cdef object transport(self, object spec):
        """The one for this thread, for calls of `spec`: see `_transport`, which makes it."""
        if not self._is_closed and not (self._streams_apart and (spec.server_streaming or spec.client_streaming)):
            found = self._transports.get(hub_here())
            if found is not None:
                return found
        return self._transport(spec)

    def _address(self, text):
        found = self._addresses.get(text)
        if found is None:
            found = self._addresses[text] = parse(text)
        return found
