# cython: language_level=3
"""Which protocol a new connection speaks."""

from codec.protocol cimport Protocol
from libc.stdint cimport uint8_t
from weego.dispatch cimport Front


cdef class Detector:
    cdef readonly str name
    cdef readonly Front front

    # 1: these first bytes are its protocol's, 0: they are not, -1: more bytes are needed to tell.
    cdef int match(self, const uint8_t* p, Py_ssize_t n) except -2


cdef class PrefixDetector(Detector):
    cdef tuple prefixes                # bytes

cdef class DetectProtocol(Protocol):
    cdef list detectors


cdef class DetectFront(Front):
    cdef list detectors
