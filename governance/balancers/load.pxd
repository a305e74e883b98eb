# cython: language_level=3
"""By load."""


cdef class _Load:
    cdef object instance
    cdef str address
    cdef double share                # of the calls, as its weight has it
    cdef long busy
    cdef double average              # seconds
    cdef double at                   # when that was last learnt


cdef class _ByLoad:
    cdef object rand
    cdef object clock
    cdef dict loads
    cdef list every

    cdef double now(self) except? -1
    cdef double cost(self, _Load load, double now) noexcept


cdef class PowerOfTwo(_ByLoad):
    pass


cdef class LeastLoaded(_ByLoad):
    pass
