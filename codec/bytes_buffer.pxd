# cython: language_level=3
"""A buffer whose block is the bytes object that it becomes: a large message needs no copy at its end."""

cimport cython
from cpython.object cimport PyObject

from codec.buffer cimport WriteBuffer


cdef enum:
    LARGE = 16384   # bytes from which on a copy costs more than an allocation


@cython.final
cdef class BytesBuffer(WriteBuffer):
    cdef PyObject* block

    # The content; the buffer is empty afterwards.
    cdef bytes finish(self)
