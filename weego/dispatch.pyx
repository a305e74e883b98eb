# cython: language_level=3, boundscheck=False, wraparound=False
"""From a request to its answer: the hot path between the codec and the user's handler, whatever the protocol.

Theory of operation
1. A request arrives in the loop's turn, in the leader of that turn (poller.leader), at the Front of its protocol. Its Target was prepared when the
   server started: which handler, wrapped in what, run how. The Front makes a Job of it and has the Dispatcher run it.
2. The handler is called right there. It may block: then another leader goes on with the turn, and `run` returns into a turn that is no
   longer its own. An answer that is written outside of a turn asks the loop for one.
3. Nothing of one call is visible to the next: each runs in a copy of the start-up context, and the leader clears what hung on the greenlet.
4. At the deadline the caller is answered, and a greenlet handler is interrupted with DeadlineExceeded at the point where it waits.
5. Whatever a handler raises becomes an answer; the worker lives on. KeyboardInterrupt is passed on to the main greenlet as well.
6. A call whose connection breaks goes on, for it may be half done, and sees `Call.cancelled`.

The Dispatcher knows no protocol, the Fronts (weego.thrift_front, …) know nothing of counters, contexts and greenlets.
"""

import logging
import signal

cimport cython
from cpython.object cimport PyObject
from poller.clock cimport monotonic
from governance.meter cimport Tally
from poller.leader cimport Leader

from contextvars import copy_context

from codec.errors import Code, DeadlineExceeded, ResourceExhausted
from governance.call import _current

cdef extern from "Python.h":
    object PyObject_Call(object f, object args, PyObject* kwargs)
    object PyContext_Copy(object context)
    int PyContext_Enter(object context) except -1
    int PyContext_Exit(object context) except -1
    object PyContextVar_Set(object var, object value)

cdef object current_var = _current
cdef int OK = Code.OK

MODES = {"greenlet": GREENLET, "inline": INLINE, "thread": THREAD}

log = logging.getLogger("weego.worker")


cdef class Target:
    """Who serves one method, and how. `mode` is a name of MODES; `method` is the bound method when no middleware wraps it.

    `streams` says that the handler returns an iterator of answers, which the Front sends one by one. `tally` counts how the calls end.
    """

    def __init__(self, str service, handler, method=None, str mode="greenlet", double timeout=0, bint streams=False,
                 Tally tally=None):
        self.service = service
        self.handler = handler
        self.method = method
        self.mode = MODES[mode]
        self.timeout = timeout
        self.streams = streams
        self.tally = tally


@cython.freelist(64)
cdef class Job:
    cdef int disarm(self) except -1:
        return self.connection.loop.timers.unset(&self.alarm) if self.alarm.place else 0

    cdef int interrupt(self) except -1:
        cdef object error, runner
        self.disarm()
        if self.answered:
            return 0
        error = DeadlineExceeded(
            f"{self.target.service}.{self.call.spec.name}: the deadline passed while the call was served", elapsed=self.call.elapsed)
        runner = self.runner
        self.front.answer(self, None, error)
        if runner is not None and not runner.dead:
            runner.throw(error)
        return 0


cdef int ring(object job) except -1:
    return (<Job>job).interrupt()


cdef class Front(Receiver):
    """One protocol's side of a server: receives its requests and writes its answers. One for all connections of that protocol."""

    def __init__(self, Dispatcher dispatcher not None):
        self.dispatcher = dispatcher

    cdef Protocol new_protocol(self):
        raise NotImplementedError(f"{type(self).__name__} does not say which protocol it speaks")

    cdef int opened(self, Connection c) except -1:
        return 0

    cdef int answer(self, Job job, object value, object error) except -1:
        raise NotImplementedError(f"{type(self).__name__} does not say how to answer")

    cdef int send_all(self, Job job, object values) except -1:
        raise NotImplementedError(f"{type(self).__name__} cannot stream")

    cdef int over(self, Job job) except -1:
        return 0

    cdef int leave(self, Connection c) except -1:
        return 0

    cdef int turn_away(self, Connection c) except -1:
        c.close_soon()
        return 0

    cdef int broken(self, Connection c, object error) except -1:
        self.dispatcher.count_error()
        log.info("%s: %s; closing the connection", c.peer, error.message)
        return 0

    cdef int closed(self, Connection c, object error) except -1:
        self.dispatcher.gone(c)
        return 0

    cdef int idle(self, Connection c) except -1:
        if self.dispatcher.on_between is not None:
            self.dispatcher.on_between(c)
        return 0


cdef class Queue(Pollable):
    cdef int take(self, Job job) except -1:
        raise NotImplementedError(f"{type(self).__name__} does not say what becomes of a call")


cdef class Dispatcher:
    """Runs the calls of all connections of one server, and counts them.

    `entrance` is the Front that new connections come to. `access` is called after each call with
    ``(call, request, code, answer_bytes, error)``.
    """

    def __init__(self, Loop loop not None, *, access=None, max_concurrency=0):
        self.loop = loop
        if loop.hub is not None:
            if loop.runner is None:
                loop.runner = Leaders(loop)
            self.leaders = <Leaders>loop.runner
        self.access = access
        self.connections = set()
        self.context = copy_context()
        self.max_concurrency = max_concurrency

    def count_in(self, int64_t[::1] row, *, int inflight, int requests, int errors, int connections):
        """Keep the counters in `row` as well: shared memory that the master reads, and the other workers."""
        self.row = row
        self.has_row = True
        self.column_inflight, self.column_requests, self.column_errors, self.column_connections = inflight, requests, errors, connections
        self.count_connections()

    cdef int count_connections(self) except -1:
        if self.has_row:
            self.row[self.column_connections] = len(self.connections) - self.surplus + self.lent
        return 0

    def gate(self, Connection c not None, Limits patience not None):
        """`c` is new: does it fit? If not, its first call is refused, unless it fits then, and it may wait no longer than `patience` says."""
        if self.has_room is None or self.has_room():
            return True
        c.is_surplus = True
        c.limits = patience
        self.surplus += 1
        self.count_connections()
        return False

    cdef bint takes_in(self, Connection c) except -1:
        """A call came on a surplus connection: does that fit now?"""
        self.surplus -= 1
        self.count_connections()
        if self.has_room is None or self.has_room():
            c.is_surplus = False
            c.limits = self.limits
            return True
        self.surplus += 1
        self.count_connections()
        return False

    def connect(self, int fd, Limits limits, bytes data=b"", tls=None):
        """Serve the connected socket `fd`, of which `data` was read already, with TLS (a ServerTLS) or without. Returns its Connection."""
        cdef Front front = self.entrance
        cdef Connection c
        if tls is None:
            c = Connection(self.loop, fd, front.new_protocol(), front, limits)
        else:
            from poller.secure import SecureConnection  # most servers never need OpenSSL

            c = SecureConnection(
                self.loop, fd, front.new_protocol(), front, limits, tls.session(),
                handshake_timeout=tls.handshake_timeout, failures=tls.failures)
        self.connections.add(c)
        self.limits = limits
        self.count_connections()
        front.opened(c)
        if data:
            c.adopt(data)
        return c

    cdef bint leaves(self, Connection c) noexcept:
        return self.leaving or (self.draining and c.is_rooted)

    cdef int count_request(self) except -1:
        self.requests += 1
        if self.has_row:
            self.row[self.column_requests] += 1
        return 0

    cdef int count_error(self) except -1:
        self.errors += 1
        if self.has_row:
            self.row[self.column_errors] += 1
        return 0

    # ---- a request comes in -----------------------------------------------------------------------------------------

    cdef object full(self, Connection c, Target t, str method):
        """The error to refuse a call with because too many are under way, or its connection is one too many; or None."""
        if c.is_surplus and not self.takes_in(c):
            self.turned_away += 1
            return ResourceExhausted(f"{t.service}.{method}: limit {self.total}; try another instance or later")
        if self.max_concurrency and self.inflight >= self.max_concurrency:
            return ResourceExhausted(
                f"{t.service}.{method}: the worker already serves {self.inflight} calls, its limit; try another instance")
        return None

    cdef Call new_call(self, Connection c, object spec, str service, object request):
        cdef Call call = Call.__new__(Call)
        call.spec = spec
        call.service = service
        call.is_server = True
        call.started = self.loop.polled
        call.attempt = 1
        call.source = request
        call.connection = c
        return call

    cdef int run(self, Job job, double timeout) except -1:
        """Serve `job`, which may take `timeout` seconds (0: any time). May return in another turn of the loop."""
        if timeout > 0:
            job.call.deadline_at = monotonic() + timeout
            if job.target.mode != INLINE:  # in the loop's turn nothing could interrupt it
                job.alarm.ring = ring
                self.loop.set_alarm(&job.alarm, job, job.call.deadline_at)
        job.connection.begin()
        self.inflight += 1
        if self.has_row:
            self.row[self.column_inflight] = self.inflight
        return self.execute(job) if self.queue is None else self.queue.take(job)

    # ---- the handler runs -------------------------------------------------------------------------------------------

    cdef int execute(self, Job job) except -1:
        cdef PyObject* leader = NULL
        cdef Py_ssize_t references = 0
        cdef int64_t term = self.loop.term
        cdef Connection c = job.connection
        if self.leaders is not None and self.leaders.current != NULL:
            leader = self.leaders.current
            if job.target.mode == GREENLET and (job.cancellable or job.alarm.place):
                job.runner = <object>leader
            references = (<Leader>leader).begin(job.call)
        self.run_handler(job)
        if leader != NULL:
            if (<Leader>leader).end(references, self.loop.term != term):
                # This greenlet stops reading in the middle; another one goes on with the connection too.
                c.more = True
                c.settle()
        return self.over(job)

    cdef int drop(self, Job job, object error) except -1:
        """The job, which `run` was given, will not be served: answer with `error`."""
        job.front.answer(job, None, error)
        return self.over(job)

    cdef int over(self, Job job) except -1:
        job.runner = None
        job.front.over(job)
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
                value = PyObject_Call(t.method, job.args, NULL)
            else:
                value = t.handler(job.call, job.args)
            if t.streams:
                job.front.send_all(job, value)
                value = None
        except BaseException as error:
            PyContext_Exit(context)
            job.front.answer(job, None, error)
            if isinstance(error, KeyboardInterrupt) and is_control_c(self.loop.hub):
                self.loop.hub.loop.run_callback(self.loop.hub.handle_system_error, KeyboardInterrupt, error)
            return 0
        PyContext_Exit(context)
        return job.front.answer(job, value, None)

    def in_thread(self, Job job):
        """Run the handler in a thread, in a context of its own; this greenlet waits meanwhile."""
        if self.pool is None:
            from gevent.threadpool import ThreadPool

            self.pool = ThreadPool(THREADS)
        context = self.context.copy()
        context.run(current_var.set, job.call)
        value, error = self.pool.apply(context.run, (outcome, job.target.handler, job.call, job.args))
        if error is not None:
            raise error
        return value

    # ---- the call is over --------------------------------------------------------------------------------------------

    cdef int finish(self, Job job, int code, object error) except -1:
        """The answer is written, or cannot be: count, and tell the access log."""
        if code != OK and not job.expected:
            self.count_error()
        if job.target.tally is not None:
            job.target.tally.record(monotonic() - job.call.started, code)
        if self.access is not None:
            self.tell(job.call, job.request, code, job.answer_size, error)
        return 0

    cdef int refused(self, Connection c, object request, object spec, str service, Py_ssize_t size, object error) except -1:
        """A request was answered with `error` (an RpcError) in `size` bytes, without calling anyone."""
        cdef Tally tally
        self.count_error()
        if self.tally_of is not None:
            # What a peer calls a method that there is not is no label.
            tally = self.tally_of("", "") if isinstance(spec, Unknown) else self.tally_of(service, spec.name)
            if tally is not None:
                tally.record(monotonic() - self.loop.polled, error.code)
        if self.access is not None:
            self.tell(self.new_call(c, spec, service, request), request, error.code, size, error)
        return 0

    cdef int tell(self, Call call, object request, int code, Py_ssize_t size, object error) except -1:
        try:
            self.access(call, request, code, size, error)
        except Exception:
            log.exception("the access log failed")
        return 0

    # ---- connections end --------------------------------------------------------------------------------------------

    cdef int gone(self, Connection c) except -1:
        if c in self.connections:
            self.connections.discard(c)
            self.surplus -= c.is_surplus
            self.count_connections()
        if self.draining and self.on_idle is not None and not self.connections:
            self.on_idle()
        return 0

    def forget(self, Connection c not None):
        """`c` was given away; it counts here until `given` says that somebody else counts it."""
        self.connections.discard(c)
        self.surplus -= c.is_surplus
        self.lent += 1
        self.count_connections()

    def given(self):
        """One that was given away counts elsewhere now, or here again."""
        self.lent -= 1
        self.count_connections()

    def leave(self):
        """No more calls on these connections: tell the peers whose protocol has a word for it."""
        cdef Connection c
        for c in list(self.connections):
            (<Front>c.receiver).leave(c)

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


cdef bint is_control_c(object hub) except -1:
    """Can a KeyboardInterrupt come from the terminal? Only in the main thread, and not where SIGINT is the master's business."""
    return hub is not None and hub.loop.default and signal.getsignal(signal.SIGINT) is signal.default_int_handler
