# cython: language_level=3, boundscheck=False, wraparound=False
"""From a request to its answer: the hot path between the codec and the user's handler.

Theory of operation
1. A request arrives in the loop's turn, in the hub greenlet. Its Target was prepared when the server started: which handler, wrapped in what,
   run how.
2. Greenlet handlers run in a *parked* greenlet, which serves call after call: making a fresh one costs ten times more. When the handler blocks,
   the hub goes on behind the switch; when the handler is done later, its answer asks the loop for a flush.
3. Nothing of one call is visible to the next: each starts in a copy of the start-up context; what gevent hung on the greenlet (its `rawlink`
   call-backs, which clear gevent.local) runs at the end of the call; and a greenlet that someone else still holds a reference to, for example
   a gevent.Timeout that was never closed, is not used again.
4. A parked greenlet that is woken without a job was woken by mistake and goes back to sleep.
5. At the deadline the caller is answered, and a greenlet handler is interrupted with DeadlineExceeded at the point where it waits.
6. Whatever a handler raises becomes an answer; the worker lives on.
"""

import logging
import sys

from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_GET_SIZE
from codec.thrift cimport CALL, ONEWAY, TTHEADER, ThriftServerProtocol
from poller.clock cimport monotonic
from poller.connection cimport Limits

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
from codec.ttheader import StringKey
from governance.call import _current

cdef extern from "Python.h":
    object PyObject_Call(object f, object args, PyObject* kwargs)
    object PyContext_CopyCurrent()
    object PyContext_Copy(object context)
    int PyContext_Enter(object context) except -1
    int PyContext_Exit(object context) except -1
    object PyContextVar_Set(object var, object value)
    Py_ssize_t Py_REFCNT(PyObject* o)

cdef extern from "greenlet.h":
    void PyGreenlet_Import()
    object PyGreenlet_Switch(greenlet g, PyObject* args, PyObject* kwargs)
    bint PyGreenlet_ACTIVE(greenlet g)

PyGreenlet_Import()

cdef object GreenletExit = __import__("greenlet").GreenletExit
cdef object current_var = _current

cdef enum:
    # Greenlets kept for re-use; each pins a 16 KiB data stack of CPython, so this bounds them to about 16 MiB.
    MOST_PARKED = 1024
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


cdef class Parked(greenlet):
    def __init__(self, hub):
        super().__init__(None, hub)

    def rawlink(self, callback):
        """gevent.local registers here what clears its data when the greenlet ends; for us that is the end of the call."""
        if self.links is None:
            self.links = []
        self.links.append(callback)

    def unlink(self, callback):
        """Take back a `rawlink`."""
        if self.links is not None and callback in self.links:
            self.links.remove(callback)

    def run(self):
        cdef Dispatcher owner = self.owner
        cdef Py_ssize_t references
        cdef list links
        while True:
            if self.job is not None:
                references = Py_REFCNT(<PyObject*>self)
                # Set from within: greenlet takes a suspended one without a Python frame for a running one.
                self.gr_context = PyContext_Copy(owner.context)
                PyContextVar_Set(current_var, self.job.call)
                owner.execute(self.job)
                self.job = None
                if self.links is not None:
                    links, self.links = self.links, None
                    for callback in links:
                        try:
                            callback(self)
                        except Exception:
                            log.exception("clearing the local data of a call failed")
                if Py_REFCNT(<PyObject*>self) > references or len(owner.parked) >= MOST_PARKED:
                    return
                owner.parked.append(self)
            try:
                PyGreenlet_Switch(<greenlet>self.parent, NULL, NULL)
            except GreenletExit:
                return
            except BaseException as error:
                # Thrown by something that outlived its call; the call it was meant for is over.
                log.debug("a parked greenlet was woken with %r", error)


cdef class Dispatcher(Receiver):
    """Receives the requests of all connections of one server.

    `routes` and `services` are what ThriftServerProtocol wants, with a Target in each Route. `access` is called after each call with
    ``(call, request, code, answer_bytes)``.
    """

    def __init__(self, Loop loop not None, dict routes not None, dict services not None, *, access=None,
                 max_concurrency=0, max_message=16384000):
        self.loop = loop
        self.hub = loop.hub
        self.routes = routes
        self.services = services
        self.access = access
        self.parked = []
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
        job.call = call
        job.request = r
        job.connection = c
        job.target = t
        timeout = t.timeout
        if r.header is not None and r.header.ints:
            timeout = shorter(timeout, r.header.ints.get(KEY_RPC_TIMEOUT))
        if timeout > 0:
            call.deadline_at = monotonic() + timeout
            job.timer = self.loop.call_at(call.deadline_at, job.interrupt)
        c.begin()
        self.inflight += 1
        if self.has_row:
            self.row[self.column_inflight] = self.inflight
        if t.mode == INLINE:
            return self.run_inline(job)
        return self.run_parked(job)

    cdef int run_inline(self, Job job) except -1:
        cdef object context = PyContext_Copy(self.context)
        PyContext_Enter(context)
        try:
            PyContextVar_Set(current_var, job.call)
            self.execute(job)
        finally:
            PyContext_Exit(context)
        return 0

    cdef int run_parked(self, Job job) except -1:
        cdef Parked g
        while True:
            if self.parked:
                g = <Parked>self.parked.pop()
                if g.dead:
                    continue
            else:
                g = Parked(self.hub)
                g.owner = self
            break
        g.job = job
        if job.target.mode == GREENLET and job.timer is not None:
            job.runner = g
        PyGreenlet_Switch(g, NULL, NULL)
        return 0

    # ---- the handler runs -------------------------------------------------------------------------------------------

    cdef int execute(self, Job job) except -1:
        cdef Target t = job.target
        cdef object value
        try:
            if t.mode == THREAD:
                value = self.in_thread(job)
            elif t.method is not None:
                value = PyObject_Call(t.method, job.request.args, NULL)
            else:
                value = t.handler(job.call, job.request.args)
        except BaseException as error:
            job.runner = None
            self.answer(job, None, error)
        else:
            job.runner = None
            self.answer(job, value, None)
        self.inflight -= 1
        if self.has_row:
            self.row[self.column_inflight] = self.inflight
        if self.draining and self.inflight == 0 and self.on_idle is not None:
            self.on_idle()
        return 0

    def in_thread(self, Job job):
        """Run the handler in a thread, in a context of its own; this greenlet waits meanwhile."""
        if self.pool is None:
            from gevent.threadpool import ThreadPool

            self.pool = ThreadPool(THREADS)
        context = self.context.copy()
        context.run(current_var.set, job.call)
        return self.pool.apply(context.run, (job.target.handler, job.call, job.request.args))

    # ---- the answer goes out ----------------------------------------------------------------------------------------

    cdef int answer(self, Job job, object value, object error) except -1:
        """Write the answer, unless one was written at the deadline. Never raises what the handler raised."""
        cdef Connection c = job.connection
        cdef Request r = job.request
        cdef WriteBuffer out
        cdef ThriftServerProtocol protocol
        cdef Py_ssize_t before
        cdef int code = OK
        if job.answered:
            return 0
        job.answered = True
        if job.timer is not None:
            job.timer.cancel()
            job.timer = None
        if c.fd >= 0 and not r.route.oneway:
            protocol = <ThriftServerProtocol>c.protocol
            out = c.writer()
            before = out.n
            try:
                if error is None:
                    try:
                        protocol.reply(r, value, out, job.call.outgoing)
                    except EncodeError as wrong:
                        code = self.write_error(job, wrong, out)
                else:
                    code = self.write_error(job, error, out)
            except Exception:
                log.exception("%s.%s: the answer could not be written; closing the connection", job.target.service, r.method)
                out.truncate(before)
                code = INTERNAL
                c.close_soon()
            job.answer_size = out.n - before
            c.wrote()
        elif error is not None:
            code = self.write_error(job, error, None)
        self.finish(job, code)
        c.done()
        return 0

    cdef int write_error(self, Job job, object error, WriteBuffer out) except -1:
        """Write `error` as the protocol can (not at all without `out`), log what is our side's fault, and return its Code."""
        cdef Request r = job.request
        cdef ThriftServerProtocol protocol = <ThriftServerProtocol>job.connection.protocol
        cdef dict strings = job.call.outgoing
        where = f"{job.target.service}.{r.method}"
        if isinstance(error, BusinessError):
            if out is not None:
                if r.framing & TTHEADER:
                    protocol.empty(r, out, business_strings(error, strings))
                else:
                    protocol.fail(r, TYPE_INTERNAL, f"business status {error.status}: {error.message}", out, strings)
            return error.code
        if out is not None and not isinstance(error, RpcError):
            try:
                if protocol.declared(r, error, out, strings):
                    return UNKNOWN
            except EncodeError as wrong:
                error = wrong
        if isinstance(error, ApplicationError):
            type, text, code = error.type, error.message, error.code
        elif isinstance(error, RpcError):
            type, text, code = TYPE_INTERNAL, f"{error.code.name}: {error.message}", error.code
        elif isinstance(error, EncodeError):
            log.error("%s: the answer does not fit the IDL: %s", where, error)
            type, text, code = TYPE_INTERNAL, f"the answer does not fit the IDL: {error}", INTERNAL
        else:
            log.error("%s: the handler failed", where, exc_info=error)
            type, text, code = TYPE_INTERNAL, f"biz error: {type_name(error)}: {error}", UNKNOWN
        if out is not None:
            protocol.fail(r, type, text, out, strings)
        return code

    cdef int finish(self, Job job, int code) except -1:
        if code != OK:
            self.errors += 1
            if self.has_row:
                self.row[self.column_errors] += 1
        if self.access is not None:
            try:
                self.access(job.call, job.request, code, job.answer_size)
            except Exception:
                log.exception("the access log failed")
        return 0

    cdef int refuse(self, Connection c, Request r, object error) except -1:
        """Answer with `error` without calling anyone."""
        cdef ThriftServerProtocol protocol = <ThriftServerProtocol>c.protocol
        cdef Call call
        cdef WriteBuffer out
        cdef Py_ssize_t before, size = 0
        cdef dict strings = {"crrst": "1"} if r.fatal else None
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
                self.access(call, r, error.code, size)
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
        """Close all connections and let the parked greenlets end."""
        for c in list(self.connections):
            (<Connection>c).close()
        # Greenlets end when nobody refers to them. Throwing would end them too, but never come back: their parent is the hub.
        self.parked = []
        if self.pool is not None:
            self.pool.kill()
            self.pool = None

    def __repr__(self):
        return (f"<Dispatcher {len(self.connections)} connections, {self.inflight} calls, {self.requests} requests, "
                f"{self.errors} errors, {len(self.parked)} parked>")


# Threads for handlers of mode "thread"; they share the GIL, so more would not help CPU-bound ones.
THREADS = 10


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


cdef str type_name(object error):
    cls = type(error)
    return cls.__name__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
