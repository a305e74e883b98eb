# cython: language_level=3, boundscheck=False, wraparound=False
"""From a request to its answer: the hot path between the codec and the user's handler.

Theory of operation
1. A request arrives in the loop's turn, in the leader of that turn (poller.leader). Its Target was prepared when the server started: which
   handler, wrapped in what, run how.
2. The handler is called right there. It may block: then another leader goes on with the turn, and this function returns into a turn that is no
   longer its own. An answer that is written outside of a turn asks the loop for one.
3. Nothing of one call is visible to the next: each runs in a copy of the start-up context, and the leader clears what hung on the greenlet.
4. At the deadline the caller is answered, and a greenlet handler is interrupted with DeadlineExceeded at the point where it waits.
5. Whatever a handler raises becomes an answer; the worker lives on. KeyboardInterrupt is passed on to the main greenlet as well.
6. A call whose connection breaks goes on, for it may be half done, and sees `Call.cancelled`.
"""

import logging
import signal

cimport cython
from cpython.object cimport PyObject
from codec.thrift cimport ONEWAY, TTHEADER, ThriftServerProtocol
from poller.clock cimport monotonic
from poller.connection cimport Limits
from poller.leader cimport Leader

from contextvars import copy_context

from codec.errors import (
    ApplicationError,
    ApplicationErrorType,
    BusinessError,
    Code,
    DeadlineExceeded,
    EncodeError,
    ResourceExhausted,
    RpcError,
)
from codec.thrift import DEFAULT_MAX_MESSAGE
from codec.ttheader import StringKey
from governance.call import _current

cdef extern from "Python.h":
    object PyObject_Call(object f, object args, PyObject* kwargs)
    object PyContext_Copy(object context)
    int PyContext_Enter(object context) except -1
    int PyContext_Exit(object context) except -1
    object PyContextVar_Set(object var, object value)

cdef object current_var = _current
cdef str RESET = StringKey.RESET

cdef enum:
    # TTHeader int keys.
    KEY_RPC_TIMEOUT = 12

# The longest timeout a peer may ask for (seconds); anything longer is taken for none.
cdef double LONGEST_TIMEOUT = 86400.0

cdef int OK = 0
cdef int UNKNOWN = Code.UNKNOWN
cdef int INTERNAL = Code.INTERNAL
cdef int UNIMPLEMENTED = Code.UNIMPLEMENTED
cdef int DEADLINE_EXCEEDED = Code.DEADLINE_EXCEEDED
cdef int RESOURCE_EXHAUSTED = Code.RESOURCE_EXHAUSTED

cdef int TYPE_INTERNAL = ApplicationErrorType.INTERNAL_ERROR

MODES = {"greenlet": GREENLET, "inline": INLINE, "thread": THREAD}

log = logging.getLogger("weego.worker")


cdef class Target:
    """Who serves one method, and how. `mode` is a name of MODES; `method` is the bound method when no middleware wraps it."""

    def __init__(self, str service, handler, method=None, str mode="greenlet", double timeout=0):
        self.service = service
        self.handler = handler
        self.method = method
        self.mode = MODES[mode]
        self.timeout = timeout


@cython.freelist(64)
cdef class Job:
    def interrupt(self):
        """The deadline has passed: answer the caller, and interrupt the handler where it waits."""
        cdef Dispatcher d
        cdef object error, runner
        self.timer = None
        if self.answered:
            return
        error = DeadlineExceeded(
            f"{self.target.service}.{self.call.spec.name}: the deadline passed while the call was served", elapsed=self.call.elapsed)
        runner = self.runner
        d = <Dispatcher>self.connection.receiver
        d.answer(self, None, error)
        if runner is not None and not runner.dead:
            runner.throw(error)


cdef class Dispatcher(Receiver):
    """Receives the requests of all connections of one server.

    `routes` and `services` are what ThriftServerProtocol wants, with a Target in each Route. `access` is called after each call with
    ``(call, request, code, answer_bytes, error)``.
    """

    def __init__(self, Loop loop not None, dict routes not None, dict services not None, *, access=None,
                 max_concurrency=0, max_message=DEFAULT_MAX_MESSAGE):
        self.loop = loop
        if loop.hub is not None:
            if loop.runner is None:
                loop.runner = Leaders(loop)
            self.leaders = <Leaders>loop.runner
        self.routes = routes
        self.services = services
        self.access = access
        self.connections = set()
        self.context = copy_context()
        self.max_concurrency = max_concurrency
        self.max_message = max_message

    def count_in(self, int64_t[::1] row, *, int inflight, int requests, int errors):
        """Keep the counters in `row` as well: shared memory that the master reads."""
        self.row = row
        self.has_row = True
        self.column_inflight, self.column_requests, self.column_errors = inflight, requests, errors

    def connect(self, int fd, Limits limits, bytes data=b""):
        """Serve the connected socket `fd`, of which `data` was read already. Returns its Connection."""
        cdef ThriftServerProtocol protocol = ThriftServerProtocol(self.routes, self.services, self.max_message)
        cdef Connection c = Connection(self.loop, fd, protocol, self, limits)
        self.connections.add(c)
        if data:
            c.adopt(data)
        return c

    # ---- a request comes in -----------------------------------------------------------------------------------------

    cdef int message(self, Connection c, object message) except -1:
        cdef Request r = <Request>message
        cdef Target t
        cdef Call call
        cdef Job job
        cdef double timeout
        self.requests += 1
        if self.has_row:
            self.row[self.column_requests] += 1
        if r.error is not None:
            return self.refuse(c, r, r.error)
        t = <Target>r.route.target
        if self.max_concurrency and self.inflight >= self.max_concurrency:
            return self.refuse(c, r, ResourceExhausted(
                f"{t.service}.{r.method}: the worker already serves {self.inflight} calls, its limit; try another instance"))
        call = Call.__new__(Call)
        call.spec = r.route.spec
        call.service = t.service
        call.is_server = True
        call.started = self.loop.polled
        call.attempt = 1
        call.source = r
        call.connection = c
        job = Job.__new__(Job)
        c.context = job
        job.call = call
        job.request = r
        job.connection = c
        job.target = t
        timeout = t.timeout
        if r.header is not None and r.header.ints:
            timeout = shorter(timeout, r.header.ints.get(KEY_RPC_TIMEOUT))
        if timeout > 0:
            call.deadline_at = monotonic() + timeout
            if t.mode != INLINE:  # in the loop's turn nothing could interrupt it
                job.timer = self.loop.call_at(call.deadline_at, job.interrupt)
        c.begin()
        self.inflight += 1
        if self.has_row:
            self.row[self.column_inflight] = self.inflight
        return self.execute(job)

    # ---- the handler runs -------------------------------------------------------------------------------------------

    cdef int execute(self, Job job) except -1:
        cdef PyObject* leader = NULL
        cdef Py_ssize_t references = 0
        cdef int64_t term = self.loop.term
        cdef Connection c = job.connection
        if self.leaders is not None and self.leaders.current != NULL:
            leader = self.leaders.current
            if job.timer is not None and job.target.mode == GREENLET:
                job.runner = <object>leader
            references = (<Leader>leader).begin(job.call)
        self.run_handler(job)
        if leader != NULL:
            if (<Leader>leader).end(references, self.loop.term != term):
                # This greenlet stops reading in the middle; another one goes on with the connection too.
                c.more = True
                c.settle()
        job.runner = None
        self.inflight -= 1
        if self.has_row:
            self.row[self.column_inflight] = self.inflight
        if self.draining and self.inflight == 0 and self.on_idle is not None:
            self.on_idle()
        return 0

    cdef int run_handler(self, Job job) except -1:
        cdef Target t = job.target
        cdef object value, context = PyContext_Copy(self.context)
        PyContext_Enter(context)
        try:
            if self.leaders is None:
                PyContextVar_Set(current_var, job.call)
            if t.mode == THREAD:
                value = self.in_thread(job)
            elif t.method is not None:
                value = PyObject_Call(t.method, job.request.args, NULL)
            else:
                value = t.handler(job.call, job.request.args)
        except BaseException as error:
            PyContext_Exit(context)
            self.answer(job, None, error)
            if isinstance(error, KeyboardInterrupt) and is_control_c(self.loop.hub):
                self.loop.hub.loop.run_callback(self.loop.hub.handle_system_error, KeyboardInterrupt, error)
            return 0
        PyContext_Exit(context)
        return self.answer(job, value, None)

    def in_thread(self, Job job):
        """Run the handler in a thread, in a context of its own; this greenlet waits meanwhile."""
        if self.pool is None:
            from gevent.threadpool import ThreadPool

            self.pool = ThreadPool(THREADS)
        context = self.context.copy()
        context.run(current_var.set, job.call)
        value, error = self.pool.apply(context.run, (outcome, job.target.handler, job.call, job.request.args))
        if error is not None:
            raise error
        return value

    # ---- the answer goes out ----------------------------------------------------------------------------------------

    cdef int answer(self, Job job, object value, object error) except -1:
        """Write the answer, unless one was written at the deadline. Never raises what the handler raised."""
        cdef Connection c = job.connection
        cdef Request r = job.request
        cdef WriteBuffer out
        cdef ThriftServerProtocol protocol
        cdef Py_ssize_t before
        cdef int code = OK
        cdef dict strings
        if job.answered:
            return 0
        job.answered = True
        c.context = None
        if job.timer is not None:
            job.timer.cancel()
            job.timer = None
        if c.fd >= 0 and not r.route.oneway:
            protocol = <ThriftServerProtocol>c.protocol
            out = c.writer()
            before = out.n
            try:
                strings = job.call.outgoing
                if self.leaving and r.framing & TTHEADER:
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
            job.answer_size = out.n - before
            c.wrote()
        elif error is not None:
            try:
                code = self.write_error(job, error, None, None)
            except Exception:
                log.exception("%s.%s: what the handler raised cannot be told", job.target.service, r.method)
                code = INTERNAL
        self.finish(job, code, error)
        c.done()
        return 0

    cdef int write_last_resort(self, Job job, WriteBuffer out, Py_ssize_t before) except -1:
        """The answer cannot be written, for example for what the handler put in `send_metadata`: say so, and return the Code."""
        cdef Connection c = job.connection
        log.exception("%s.%s: the answer could not be written", job.target.service, job.request.method)
        out.truncate(before)
        try:
            (<ThriftServerProtocol>c.protocol).fail(
                job.request, TYPE_INTERNAL, "the answer could not be written; the server's log says why", out, None)
        except Exception:
            out.truncate(before)
            c.close_soon()
        return INTERNAL

    cdef int write_error(self, Job job, object error, WriteBuffer out, dict strings) except -1:
        """Write `error` as the protocol can (not at all without `out`), log what is our side's fault, and return its Code."""
        cdef Request r = job.request
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

    cdef int finish(self, Job job, int code, object error) except -1:
        if code != OK and not job.expected:
            self.errors += 1
            if self.has_row:
                self.row[self.column_errors] += 1
        if self.access is not None:
            try:
                self.access(job.call, job.request, code, job.answer_size, error)
            except Exception:
                log.exception("the access log failed")
        return 0

    cdef int refuse(self, Connection c, Request r, object error) except -1:
        """Answer with `error` without calling anyone."""
        cdef ThriftServerProtocol protocol = <ThriftServerProtocol>c.protocol
        cdef Call call
        cdef WriteBuffer out
        cdef Py_ssize_t before, size = 0
        cdef dict strings = {RESET: "1"} if r.fatal or self.leaving else None
        self.errors += 1
        if self.has_row:
            self.row[self.column_errors] += 1
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
        if self.access is not None:
            call = Call.__new__(Call)
            call.spec = r.route.spec if r.route is not None else Unknown(r.method)
            call.service = (<Target>r.route.target).service if r.route is not None else ""
            call.is_server = True
            call.started = self.loop.polled
            call.source = r
            call.connection = c
            try:
                self.access(call, r, error.code, size, error)
            except Exception:
                log.exception("the access log failed")
        return 0

    # ---- connections end --------------------------------------------------------------------------------------------

    cdef int broken(self, Connection c, object error) except -1:
        self.errors += 1
        if self.has_row:
            self.row[self.column_errors] += 1
        log.info("%s: %s; closing the connection", c.peer, error.message)
        return 0

    cdef int closed(self, Connection c, object error) except -1:
        self.connections.discard(c)
        if c.context is not None:
            (<Job>c.context).call.cancelled = True
            c.context = None
        if self.draining and self.on_idle is not None and not self.connections:
            self.on_idle()
        return 0

    cdef int idle(self, Connection c) except -1:
        if self.on_between is not None:
            self.on_between(c)
        return 0

    def forget(self, Connection c not None):
        """`c` was given away."""
        self.connections.discard(c)

    def close(self):
        """Close all connections."""
        for c in list(self.connections):
            (<Connection>c).close()
        if self.pool is not None:
            self.pool.kill()
            self.pool = None

    def __repr__(self):
        return (f"<Dispatcher {len(self.connections)} connections, {self.inflight} calls, {self.requests} requests, "
                f"{self.errors} errors>")


# Threads for handlers of mode "thread"; they share the GIL, so more would not help CPU-bound ones.
THREADS = 10


def outcome(handler, call, args):
    """``(result, None)`` or ``(None, what was raised)``. gevent's threadpool would print the one and end the process at SystemExit."""
    try:
        return handler(call, args), None
    except BaseException as error:
        return None, error


class Unknown:
    """Stands for the MethodSpec of a method that does not exist."""

    def __init__(self, name):
        self.name = name


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


cdef bint is_control_c(object hub) except -1:
    """Can a KeyboardInterrupt come from the terminal? Only in the main thread, and not where SIGINT is the master's business."""
    return hub is not None and hub.loop.default and signal.getsignal(signal.SIGINT) is signal.default_int_handler
