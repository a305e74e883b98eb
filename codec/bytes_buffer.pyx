# cython: language_level=3, boundscheck=False, wraparound=False
"""A buffer whose block is the bytes object that it becomes: a large message needs no copy at its end."""

cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport uint8_t

from codec.buffer cimport WriteBuffer

cdef extern from "Python.h":
    PyObject* bytes_from "PyBytes_FromStringAndSize"(const char* s, Py_ssize_t n) except NULL
    int resize_bytes "_PyBytes_Resize"(PyObject** data, Py_ssize_t n) except -1
    char* bytes_data "PyBytes_AS_STRING"(PyObject* data) noexcept
    void decref "Py_DECREF"(PyObject* v) noexcept

# Room behind what is asked for: a message's other fields, for a large one is mostly one large field.
cdef Py_ssize_t SLACK = 256


@cython.final
cdef class BytesBuffer(WriteBuffer):
    """Only for one message, from its first byte to `finish`."""

    def __cinit__(self):
        self.block = NULL

    cdef int grow(self, Py_ssize_t more) except -1:
        cdef Py_ssize_t cap = self.n + more + SLACK
        if cap < 2 * self.cap:
            cap = 2 * self.cap
        self.p = NULL
        if self.block == NULL:
            self.block = bytes_from(NULL, cap)
        else:
            resize_bytes(&self.block, cap)
        self.p = <uint8_t*>bytes_data(self.block)
        self.cap = cap
        return 0

    cdef bytes finish(self):
        cdef bytes made
        self.p = NULL  # it is the bytes object's
        self.cap = 0
        if self.block == NULL:
            return b""
        resize_bytes(&self.block, self.n)
        self.n = 0
        made = <bytes>self.block
        decref(self.block)
        self.block = NULL
        return made

    def __dealloc__(self):
        self.p = NULL  # before the base frees it
        if self.block != NULL:
            decref(self.block)
