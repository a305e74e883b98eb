# cython: language_level=3, boundscheck=False, wraparound=False
"""A user's protocol on a server: its rules are plain Python (`weego.extend.ServerProtocol`), its calls are run like everybody else's."""

import logging

from codec.buffer cimport Cursor, WriteBuffer, left
from cpython.bytes cimport PyBytes_FromStringAndSize
from poller.connection cimport Connection
from weego.dispatch cimport Dispatcher, Job, Target

from codec.errors import BusinessError, Code, ProtocolError, RpcError, UnknownMethod, UnknownService
from weego.dispatch import Unknown

log = logging.getLogger("weego.worker")

cdef int OK = 0
cdef int UNKNOWN = Code.UNKNOWN
cdef int INTERNAL = Code.INTERNAL


cdef class UserProtocol(Protocol):
    def __init__(self, rules, Py_ssize_t max_message):
        self.rules = rules
        self.max_message = max_message

    cdef object receive(self, Cursor* c):
        cdef Py_ssize_t n = left(c)
        if n == 0 or n < self.wanted:
            return None
        try:
            found = self.rules.receive(PyBytes_FromStringAndSize(<const char*>c.p, n))
        except ProtocolError:
            raise
        except Exception as error:
            log.exception("%s.receive failed", type(self.rules).__name__)
            raise ProtocolError(f"{type(self.rules).__name__} could not read what came: {error}") from None
        if found is None or type(found) is int:
            if n > self.max_message or found is not None and found > self.max_message:
                raise ProtocolError(f"a message is larger than the limit of {self.max_message} bytes")
            if found is not None:
                if found <= n:
                    raise ProtocolError(f"{type(self.rules).__name__} has {n} bytes and waits for {found}")
                self.wanted = found
            return None
        self.wanted = 0
        if not 0 < found.size <= n:
            raise ProtocolError(f"{type(self.rules).__name__} took {found.size} of {n} bytes")
        c.p += <Py_ssize_t>found.size
        return found


cdef class UserFront(Front):
    """`make()` gives the rules of a new connection; `services` maps service names to Routes by method name, as for ThriftFront."""

    def __init__(self, Dispatcher dispatcher not None, make, dict services not None, *, Py_ssize_t max_message):
        super().__init__(dispatcher)
        self.make = make
        self.services = services
        self.max_message = max_message

    cdef Protocol new_protocol(self):
        return UserProtocol(self.make(), self.max_message)

    def find(self, incoming):
        """The Route of a call, or the error to refuse it with."""
        name = incoming.method.encode()
        if incoming.service:
            methods = self.services.get(incoming.service)
            if methods is None:
                return UnknownService(f"unknown service {incoming.service}, method {incoming.method}")
            found = methods.get(name)
        else:
            found = next((methods[name] for methods in self.services.values() if name in methods), None)
        if found is None:
            return UnknownMethod(f"unknown method {incoming.method} (service {incoming.service or ', '.join(self.services)})")
        return found

    cdef int message(self, Connection c, object incoming) except -1:
        cdef Dispatcher d = self.dispatcher
        cdef Target t
        cdef Job job
        d.count_request()
        route = self.find(incoming)
        if isinstance(route, RpcError):
            size = self.write(c, incoming, None, route)
            return d.refused(c, incoming, Unknown(incoming.method), incoming.service, size, route)
        t = <Target>route.target
        try:
            args = tuple(incoming.args(route.spec)) if callable(incoming.args) else tuple(incoming.args)
        except ProtocolError as error:
            size = self.write(c, incoming, route.spec, error)
            return d.refused(c, incoming, route.spec, t.service, size, error)
        error = d.full(c, t, incoming.method)
        if error is not None:
            size = self.write(c, incoming, route.spec, error)
            if c.is_surplus:
                self.turn_away(c)
            return d.refused(c, incoming, route.spec, t.service, size, error)
        job = Job.__new__(Job)
        c.context = job
        job.front = self
        job.call = d.new_call(c, route.spec, t.service, incoming)
        job.call.incoming = incoming.metadata
        job.request = incoming
        job.args = args
        job.connection = c
        job.target = t
        timeout = t.timeout
        if incoming.timeout and (not timeout or incoming.timeout < timeout):
            timeout = incoming.timeout
        return d.run(job, timeout)

    cdef int answer(self, Job job, object value, object error) except -1:
        cdef Connection c = job.connection
        cdef int code = OK
        if job.answered:
            return 0
        job.answered = True
        c.context = None
        job.disarm()
        if error is not None:
            if isinstance(error, BusinessError) or type(error) in [field.type.cls for field in job.call.spec.throws]:
                job.expected = True
            elif not isinstance(error, RpcError):
                log.error("%s.%s: the handler failed", job.target.service, job.call.spec.name, exc_info=error)
            code = error.code if isinstance(error, RpcError) else UNKNOWN
        if c.fd >= 0 and not job.request.oneway:
            try:
                job.answer_size = self.write(c, job.request, job.call.spec, error, value, job.call.outgoing)
            except Exception:
                log.exception("%s.%s: the answer could not be written", job.target.service, job.call.spec.name)
                code = INTERNAL
                c.close_soon()
        self.dispatcher.finish(job, code, error)
        c.done()
        return 0

    def write(self, Connection c not None, incoming, spec, error, value=None, metadata=None):
        """Have the rules make an answer and send it; its size."""
        cdef WriteBuffer out
        cdef bytes data
        if incoming.oneway:
            return 0
        rules = (<UserProtocol>c.protocol).rules
        if error is None:
            data = rules.answer(incoming, spec, value, metadata or {})
        else:
            data = rules.refuse(incoming, spec, error, metadata or {})
        out = c.writer()
        out.append(<const char*>data, len(data))
        c.wrote()
        return len(data)

    cdef int closed(self, Connection c, object error) except -1:
        if c.context is not None:
            (<Job>c.context).call.cancelled = True
            c.context = None
        return self.dispatcher.gone(c)
