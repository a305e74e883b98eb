# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The Handlers that every call of a client goes through; `governance.stack` has their order and puts them together.

Each is a Step: callable like any Handler, and entered by the Step above it without packing arguments. What a policy decides when a call has failed is
plain Python elsewhere; here is the way of a call that goes well.
"""

from poller.clock cimport monotonic

from codec.errors import DeadlineExceeded, Origin, RpcError, UsageError
from governance.errors import BreakerOpen, NoInstance, code_of, is_given_up, is_own_limit, is_refusal, is_trouble, is_unreachable
from governance.instance import NOBODY, Observing
from governance.traffic import PREFIX, _tags

__all__ = ["Attempt", "Breaking", "Metering", "Step", "Tagging", "Trying"]

cdef extern from *:
    """
    /* The value of a ContextVar (a new reference), or None. */
    static PyObject *weego_value_of(PyObject *var) {
        PyObject *value = NULL;
        if (PyContextVar_Get(var, Py_None, &value) < 0) return NULL;
        return value;
    }
    """
    object weego_value_of(object var)

cdef object tags_var = _tags
cdef str TAG_PREFIX = PREFIX


cdef class Step:
    """A Handler of ours. `run` is what calling it does."""

    cdef object run(self, Call call, tuple args):
        raise NotImplementedError

    def __call__(self, Call call not None, tuple args not None):
        return self.run(call, args)


cdef inline object onward(object handler, Call call, tuple args):
    if isinstance(handler, Step):
        return (<Step>handler).run(call, args)
    return handler(call, args)


cdef class Metering(Step):
    """Counts how calls end, and how long they take."""

    def __init__(self, inner, Meter meter not None):
        self.inner = inner
        self.meter = meter

    cdef object run(self, Call call, tuple args):
        try:
            result = onward(self.inner, call, args)
        except BaseException as error:
            self.meter.record(monotonic() - call.started, code_of(error))
            raise
        if call.ending is not None:
            self.record_later(call.ending, call.started)
            return result
        self.meter.record(monotonic() - call.started, 0)
        return result

    def record_later(self, Ending ending not None, double started):
        """A stream counts when it is over, with all the time it took."""
        meter = self.meter
        ending.watch(lambda error, heard: meter.record(monotonic() - started, 0 if error is None else code_of(error)))


cdef class Tagging(Step):
    """The tags of the block go along, and the key of consistent hashing is worked out, once for a call."""

    def __init__(self, inner, hash_key=None):
        self.inner = inner
        self.hash_key = hash_key

    cdef object run(self, Call call, tuple args):
        own = weego_value_of(tags_var)
        if own is not None:
            for key, value in own.items():
                call.send_metadata[TAG_PREFIX + key] = value
        if self.hash_key is not None:
            call.key = self.hash_key(call, args)
        return onward(self.inner, call, args)


cdef class Breaking(Step):
    """The breaker of a service's method."""

    def __init__(self, inner, Breaker breaker not None, counts=None):
        self.inner = inner
        self.breaker = breaker
        self.counts = counts

    cdef object run(self, Call call, tuple args):
        if not self.breaker.allow():
            raise BreakerOpen(
                f"{call.service}.{call.spec.name}: the breaker is open, too many calls failed of late", breaker=self.breaker.name)
        try:
            result = onward(self.inner, call, args)
        except Exception as error:
            self.judge(error)
            raise
        if call.ending is not None:
            self.judge_later(call.ending)
            return result
        self.breaker.succeed()
        return result

    cdef int judge(self, object error) except -1:
        if self.counts is not None:
            counted = self.counts(error)
            return 0 if counted is None else self.breaker.fail() if counted else self.breaker.succeed()
        if is_refusal(error):
            return 0
        if is_trouble(error):
            return self.breaker.fail()
        return 0 if isinstance(error, UsageError) else self.breaker.succeed()

    def judge_later(self, Ending ending not None):
        """A stream counts when it is over. One that was given up before there was an answer tells nothing."""

        def watch(error, heard):
            if error is None or (heard and is_given_up(error)):
                self.breaker.succeed()
            elif not is_given_up(error):
                self.judge(error)

        ending.watch(watch)


cdef class Trying(Step):
    """Attempts, for as long as ``again(call, error or None)`` prepares another one. ``give_up(call, error)`` may raise another error instead.

    `repeatable`: a call that was sent may be tried again too. `wants_result(result)`, where it is not None, says that an answer is to be tried again as well.
    """

    def __init__(self, inner, Budget budget not None, again, give_up, *, bint repeatable=False, Breaker errors=None, wants_result=None):
        self.inner = inner
        self.budget = budget
        self.again = again
        self.give_up = give_up
        self.repeatable = repeatable
        self.errors = errors
        self.wants_result = wants_result

    cdef object run(self, Call call, tuple args):
        self.budget.call()
        call.repeatable = self.repeatable
        while True:
            try:
                result = onward(self.inner, call, args)
            except Exception as error:
                if self.errors is not None and isinstance(error, RpcError):
                    self.errors.fail()
                if not self.again(call, error):
                    self.give_up(call, error)
                    raise
                continue
            if self.errors is not None:
                self.errors.succeed()
            if self.wants_result is None or not self.wants_result(result) or not self.again(call, None):
                return result


cdef bint is_stream(object spec) except -1:
    return spec.server_streaming or spec.client_streaming


cdef class Attempt(Step):
    """One attempt of any method: pick, instance breaker, attempt timeout, observation, connection.

    `recv_timeout` and `send_timeout` are those of a stream's messages. `carry(call, address, args)` is the connection's part; `make_breaker(address)` makes the breaker of an instance, and `breakers` keeps them (None:
    there are none); `timeout` is in seconds, 0: as long as the call may take. It is not for streams, which may go on for days.
    """

    def __init__(
        self, directory, balancer, carry, dict breakers not None, make_breaker, double timeout, double recv_timeout=0, double send_timeout=0
    ):
        self.directory = directory
        self.balancer = balancer
        self.pick = balancer.pick
        if isinstance(balancer, Observing):
            self.begin, self.end = balancer.begin, balancer.end
            self.abandon = getattr(balancer, "abandon", None)
        self.carry = carry
        self.breakers = breakers
        self.make_breaker = make_breaker
        self.timeout = timeout
        self.recv_timeout = recv_timeout
        self.send_timeout = send_timeout

    cdef object run(self, Call call, tuple args):
        cdef Breaker breaker = None
        cdef double started, limit
        cdef bint failed = True
        cdef str address
        if not self.directory.instances:
            self.directory.require()
        if call.tried:
            instance = self.pick(call, call.tried)
            if instance is None:
                instance = self.pick(call)  # all have been tried: any of them, once more
        else:
            instance = self.pick(call)
        if self.make_breaker is not None and instance is not None:
            address = instance.address
            breaker = <Breaker>self.breakers.get(address)
            if breaker is None:
                breaker = self.breaker_of(address)
            if not breaker.allow():
                instance, breaker = self.another(call, address)
        if instance is None:
            raise NoInstance(f"no instance of {call.service} can be called")
        address = call.instance = instance.address
        started = monotonic()
        limit = call.deadline_at
        if limit and started >= limit:
            raise DeadlineExceeded(f"{call.service}.{call.spec.name}: the deadline passed before the call was sent")
        if self.timeout and (not limit or started + self.timeout < limit) and not is_stream(call.spec):
            call.deadline_at = started + self.timeout
        call.recv_timeout = self.recv_timeout
        call.send_timeout = self.send_timeout
        if self.begin is not None:
            self.begin(instance)
        try:
            result = self.carry(call, address, args)
        except Exception as error:
            if call.deadline_at != limit and isinstance(error, DeadlineExceeded) and error.origin is Origin.LOCAL:
                error.message += f"; the attempt_timeout of {self.timeout:g} s"
            call.deadline_at = limit
            self.over(instance, breaker, error, monotonic() - started)
            raise
        except BaseException:  # somebody gave the call up: that says nothing of the instance
            call.deadline_at = limit
            self.withdraw(instance, monotonic() - started)
            raise
        call.deadline_at = limit
        if call.ending is not None:
            self.observe_later(call.ending, instance, breaker, monotonic() - started)
            return result
        if breaker is not None:
            breaker.succeed()
        if self.end is not None:
            self.end(instance, monotonic() - started, False)
        return result

    def observe_later(self, Ending ending not None, instance, Breaker breaker, double seconds):
        """A stream is under way until it is over. How long that takes says nothing of the instance, so what it took to open stands for it."""

        def watch(error, heard):
            if error is None or (heard and is_given_up(error)):
                if breaker is not None:
                    breaker.succeed()
                if self.end is not None:
                    self.end(instance, seconds, False)
            elif is_given_up(error):
                self.withdraw(instance, 0)
            else:
                self.over(instance, breaker, error, seconds)

        ending.watch(watch)

    cdef int over(self, object instance, Breaker breaker, object error, double seconds) except -1:
        """The attempt has failed."""
        if is_own_limit(error):  # the instance never heard of the call; how long it waited for us says nothing either
            return self.withdraw(instance, 0)
        self.judge(breaker, error)
        if self.end is not None:
            self.end(instance, seconds, is_trouble(error))
        return 0

    cdef int withdraw(self, object instance, double seconds) except -1:
        """The attempt was neither well nor badly served."""
        if self.abandon is not None:
            self.abandon(instance, seconds)
        elif self.end is not None:
            self.end(instance, seconds, False)
        return 0

    cdef int judge(self, Breaker breaker, object error) except -1:
        if breaker is not None:
            if is_unreachable(error):
                breaker.fail()
            elif not isinstance(error, UsageError):
                breaker.succeed()
        return 0

    def breaker_of(self, str address):
        """The breaker of one instance."""
        return self.breakers.setdefault(address, self.make_breaker(address))

    def another(self, Call call, str address):
        """Another instance, whose breaker lets the call through; raises BreakerOpen when there is none."""
        cdef Breaker breaker
        closed = {address}
        while True:
            instance = self.balancer.pick(call, closed | (call.tried or NOBODY))
            if instance is None:
                break
            breaker = self.breakers.get(instance.address) or self.breaker_of(instance.address)
            if breaker.allow():
                return instance, breaker
            closed.add(instance.address)
        raise BreakerOpen(
            f"no instance of {call.service} can be called: the breakers of {', '.join(sorted(closed))} are open", breaker=address)
