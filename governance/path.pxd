# cython: language_level=3
"""The Handlers that every call of a client goes through."""

from governance.breaker cimport Breaker
from governance.budget cimport Budget
from governance.call cimport Call, Ending
from governance.meter cimport Meter


cdef class Step:
    cdef object run(self, Call call, tuple args)


cdef class Metering(Step):
    cdef object inner
    cdef Meter meter


cdef class Tagging(Step):
    cdef object inner
    cdef object hash_key


cdef class Breaking(Step):
    cdef object inner
    cdef Breaker breaker
    cdef object counts             # the user's word for what is a failure; None: ours

    cdef int judge(self, object error) except -1


cdef class Trying(Step):
    cdef object inner
    cdef Budget budget
    cdef Breaker errors            # counts how many fail, where the policy stops at a rate; else None
    cdef object again
    cdef object give_up
    cdef object wants_result
    cdef bint repeatable


cdef class Attempt(Step):
    cdef object directory
    cdef object balancer
    cdef object pick
    cdef object begin
    cdef object end
    cdef object abandon
    cdef object carry
    cdef object make_breaker
    cdef dict breakers
    cdef double timeout
    cdef double recv_timeout
    cdef double send_timeout

    cdef int over(self, object instance, Breaker breaker, object error, double seconds) except -1
    cdef int withdraw(self, object instance, double seconds) except -1
    cdef int judge(self, Breaker breaker, object error) except -1
