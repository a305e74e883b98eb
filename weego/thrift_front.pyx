# cython: language_level=3, boundscheck=False, wraparound=False
"""Thrift's side of a server: Requests of codec.thrift become Jobs, and what handlers return or raise becomes Thrift messages."""

import logging

from codec.thrift cimport HEARTBEAT, ONEWAY, OUT_OF_ORDER, TTHEADER
from codec.protocol cimport Protocol
from governance.call cimport Call

from codec.errors import ApplicationError, ApplicationErrorType, BusinessError, Code, EncodeError, RpcError
from codec.plan import DEFAULT_MAX_DECODED
from codec.thrift import DEFAULT_MAX_MESSAGE
from codec.ttheader import StringKey
from weego.dispatch import Unknown

cdef str RESET = StringKey.RESET

cdef enum:
    # TTHeader int keys.
    KEY_RPC_TIMEOUT = 12
    # Calls under way at a time on one connection whose client tells answers apart by sequence id. The rest waits in the kernel.
    MOST_MULTIPLEXED = 1024

# The longest timeout a peer may ask for (seconds); anything longer is taken for none.
cdef double LONGEST_TIMEOUT = 86400.0

cdef int OK = 0
cdef int UNKNOWN = Code.UNKNOWN
cdef int INTERNAL = Code.INTERNAL

cdef int TYPE_INTERNAL = ApplicationErrorType.INTERNAL_ERROR

log = logging.getLogger("weego.worker")


cdef class ThriftFront(Front):
    """`routes` and `services` are what ThriftServerProtocol wants, with a Target in each Route."""

    def __init__(self, Dispatcher dispatcher not None, dict routes not None, dict services not None, *, max_message=DEFAULT_MAX_MESSAGE,
                 max_decoded=DEFAULT_MAX_DECODED):
        super().__init__(dispatcher)
        self.routes = routes
        self.services = services
        self.max_message = max_message
        self.max_decoded = max_decoded

    cdef Protocol new_protocol(self):
        return ThriftServerProtocol(self.routes, self.services, self.max_message, self.max_decoded)

    # ---- a request comes in -----------------------------------------------------------------------------------------

    cdef int message(self, Connection c, object message) except -1:
        cdef Dispatcher d = self.dispatcher
        cdef Request r = <Request>message
        cdef Target t
        cdef Job job
        cdef object error
        cdef double timeout
        if r.header is not None and r.header.flags & OUT_OF_ORDER and c.most_busy == 1 and not d.draining:
            c.most_busy = MOST_MULTIPLEXED
        if r.type == HEARTBEAT and r.error is None:
            (<ThriftServerProtocol>c.protocol).beat(r, c.writer())
            c.wrote()
            if c.is_surplus and not d.takes_in(c):
                self.turn_away(c)
            return 0
        d.count_request()
        if r.error is not None:
            return self.refuse(c, r, r.error)
        t = <Target>r.route.target
        if c.is_surplus or d.max_concurrency and d.inflight >= d.max_concurrency:
            error = d.full(c, t, r.method)
            if error is not None:
                return self.refuse(c, r, error)
        job = Job.__new__(Job)
        if c.most_busy == 1 and c.context is None:
            c.context = job
        else:
            add_job(c, job)
            if (c.input is not None or c.more) and not c.is_again:
                # The handler may block, and with it this reading; whoever leads the next turn goes on with what came behind.
                c.is_again = True
                c.loop.again(c)
        job.front = self
        job.call = d.new_call(c, r.route.spec, t.service, r)
        job.request = r
        job.args = r.args
        job.connection = c
        job.target = t
        timeout = t.timeout
        if r.header is not None and r.header.ints:
            timeout = shorter(timeout, r.header.ints.get(KEY_RPC_TIMEOUT))
        return d.run(job, timeout)

    # ---- the answer goes out ----------------------------------------------------------------------------------------

    cdef int answer(self, Job job, object value, object error) except -1:
        """Write the answer, unless one was written at the deadline. Never raises what the handler raised."""
        cdef Connection c = job.connection
        cdef Request r = <Request>job.request
        cdef WriteBuffer out
        cdef ThriftServerProtocol protocol
        cdef Py_ssize_t before, apart
        cdef int code = OK
        cdef dict strings
        if job.answered:
            return 0
        job.answered = True
        if c.context is job:
            c.context = None
        elif c.context is not None:
            (<set>c.context).discard(job)
        job.disarm()
        if c.fd >= 0 and not r.route.oneway:
            protocol = <ThriftServerProtocol>c.protocol
            out = c.writer()
            before = out.n
            apart = out.apart
            try:
                strings = job.call.outgoing
                if self.dispatcher.leaves(c) and r.framing & TTHEADER:
                    strings = {**(strings or {}), RESET: "1"}
                if error is None:
                    try:
                        protocol.reply(r, value, out, strings)
                    except EncodeError as wrong:
                        error = wrong
                        code = self.write_error(job, wrong, out, strings)
                else:
                    code = self.write_error(job, error, out, strings)
            except Exception:
                code = self.write_last_resort(job, out, before)
            job.answer_size = out.n - before + out.apart - apart
            c.wrote()
        elif error is not None:
            try:
                code = self.write_error(job, error, None, None)
            except Exception:
                log.exception("%s.%s: what the handler raised cannot be told", job.target.service, r.method)
                code = INTERNAL
        self.dispatcher.finish(job, code, error)
        c.done()
        return 0

    cdef int write_last_resort(self, Job job, WriteBuffer out, Py_ssize_t before) except -1:
        """The answer cannot be written, for example for what the handler put in `send_metadata`: say so, and return the Code."""
        cdef Connection c = job.connection
        log.exception("%s.%s: the answer could not be written", job.target.service, (<Request>job.request).method)
        out.truncate(before)
        try:
            (<ThriftServerProtocol>c.protocol).fail(
                <Request>job.request, TYPE_INTERNAL, "the answer could not be written; the server's log says why", out, None)
        except Exception:
            out.truncate(before)
            c.close_soon()
        return INTERNAL

    cdef int write_error(self, Job job, object error, WriteBuffer out, dict strings) except -1:
        """Write `error` as the protocol can (not at all without `out`), log what is our side's fault, and return its Code."""
        cdef Request r = <Request>job.request
        cdef ThriftServerProtocol protocol = <ThriftServerProtocol>job.connection.protocol
        where = f"{job.target.service}.{r.method}"
        if isinstance(error, BusinessError):
            job.expected = True
            if out is not None:
                if r.framing & TTHEADER:
                    protocol.empty(r, out, business_strings(error, strings))
                else:
                    protocol.fail(r, TYPE_INTERNAL, f"business status {error.status}: {error.message}", out, strings)
            return error.code
        if out is not None and not isinstance(error, RpcError):
            try:
                if protocol.declared(r, error, out, strings):
                    job.expected = True
                    return UNKNOWN
            except EncodeError as wrong:
                error = wrong
        if isinstance(error, ApplicationError) and error.instance is None:
            type, text, code = error.type, error.message, error.code
        elif isinstance(error, RpcError):
            type, text, code = TYPE_INTERNAL, f"{error.code.name}: {error.message}", error.code
        elif isinstance(error, EncodeError):
            log.error("%s: the answer does not fit the IDL: %s", where, error)
            type, text, code = TYPE_INTERNAL, f"the answer does not fit the IDL: {error}", INTERNAL
        else:
            log.error("%s: the handler failed", where, exc_info=error)
            type, text, code = TYPE_INTERNAL, f"biz error: {type_name(error)}: {text_of(error)}", UNKNOWN
        if out is not None:
            protocol.fail(r, type, text, out, strings)
        return code

    cdef int refuse(self, Connection c, Request r, object error) except -1:
        """Answer with `error` without calling anyone."""
        cdef ThriftServerProtocol protocol = <ThriftServerProtocol>c.protocol
        cdef WriteBuffer out
        cdef Py_ssize_t before, size = 0
        cdef dict strings = {RESET: "1"} if r.fatal or c.is_surplus or self.dispatcher.leaves(c) else None
        if not (r.type == ONEWAY or (r.route is not None and r.route.oneway)):
            out = c.writer()
            before = out.n
            if isinstance(error, ApplicationError):
                protocol.fail(r, error.type, error.message, out, strings)
            else:
                protocol.fail(r, TYPE_INTERNAL, f"{error.code.name}: {error.message}", out, strings)
            size = out.n - before
            c.wrote()
        if r.fatal:
            c.close_soon()
        elif c.is_surplus:
            self.turn_away(c)
        if r.route is not None:
            return self.dispatcher.refused(c, r, r.route.spec, (<Target>r.route.target).service, size, error)
        return self.dispatcher.refused(c, r, Unknown(r.method), "", size, error)

    cdef int closed(self, Connection c, object error) except -1:
        if isinstance(c.context, set):
            for job in <set>c.context:
                (<Job>job).call.cancelled = True
        elif c.context is not None:
            (<Job>c.context).call.cancelled = True
        c.context = None
        return self.dispatcher.gone(c)

    cdef int leave(self, Connection c) except -1:
        """A client that shares the connection among calls is asked to go, or held back until the connection can be handed on."""
        if c.most_busy == 1:
            return 0
        if self.dispatcher.leaving:
            (<ThriftServerProtocol>c.protocol).goodbye(c.writer())
            return c.wrote()
        # What it has sent waits in the socket for the worker that takes it over.
        c.most_busy = 1
        return 0


def thrift_dispatcher(Loop loop not None, dict routes not None, dict services not None, *, access=None, max_concurrency=0,
                      max_message=DEFAULT_MAX_MESSAGE):
    """A Dispatcher whose connections speak Thrift and nothing else: `routes` and `services` as for ThriftFront."""
    cdef Dispatcher d = Dispatcher(loop, access=access, max_concurrency=max_concurrency)
    d.entrance = ThriftFront(d, routes, services, max_message=max_message)
    return d


cdef int add_job(Connection c, Job job) except -1:
    """One more call under way on a connection that carries many."""
    if not isinstance(c.context, set):
        c.context = set() if c.context is None else {c.context}
    (<set>c.context).add(job)
    return 0


cdef double shorter(double timeout, object text) except -1:
    """The shorter of two timeouts in seconds, 0 being none; `text` is milliseconds in decimal, as TTHeader has it, or None."""
    cdef double asked
    if text is None:
        return timeout
    try:
        asked = int(text) / 1000.0
    except ValueError:
        return timeout
    if asked <= 0 or asked > LONGEST_TIMEOUT:
        return timeout
    return asked if timeout <= 0 or asked < timeout else timeout


cdef dict business_strings(object error, dict strings):
    found = dict(strings or {})
    found[StringKey.BUSINESS_STATUS] = str(error.status)
    found[StringKey.BUSINESS_MESSAGE] = error.message
    if error.extra:
        import json

        found[StringKey.BUSINESS_EXTRA] = json.dumps(error.extra, ensure_ascii=False)
    return found


cdef str text_of(object error):
    try:
        return str(error)
    except Exception:
        return "(its text cannot be made)"


cdef str type_name(object error):
    cls = type(error)
    return cls.__name__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
