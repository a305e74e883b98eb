# cython: language_level=3
"""Compiled field tables of native Protobuf messages. The rules are at the top of `proto_plan.pyx`."""

cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint32_t

from codec.buffer cimport WriteBuffer


cdef struct ProtoNode:
    # One field, as the readers and writers want it. Pointers to Python objects are borrowed from `ProtoPlan.keep`.
    Py_ssize_t offset       # of the slot, from the start of the object
    uint32_t number
    uint32_t tag            # number and wire type, as this field is written
    uint8_t tag_bytes[5]
    uint8_t tag_size
    uint8_t kind            # FieldDescriptorProto.Type
    uint8_t wire            # wire type of one value
    uint8_t shape           # Shape
    uint8_t packed
    uint8_t presence        # Presence
    uint8_t utf8
    uint8_t closed
    uint8_t length_size     # bytes that the length took last time: the guess for the next
    int sibling             # the next member of the same oneof, round in a circle; itself when it is in none
    PyObject* ref           # a message's class, its plan once linked; an enum's table
    PyObject* filler        # what an absent field is, unless it is a container
    ProtoNode* pair         # key and value of a map


cdef struct ProtoFrame:
    # Where in the message the work is: a chain on the C stack, walked only to name a field in an error.
    ProtoFrame* up
    PyObject* plan
    ProtoNode* field
    PyObject* key
    Py_ssize_t index
    int depth


@cython.final
cdef class ProtoPlan:
    cdef ProtoNode* nodes   # by ascending number
    cdef int count
    cdef int linked
    cdef int is_large       # the last message was: the next is written where it stays
    cdef int is_direct
    cdef int has_required
    cdef short* by_number   # for numbers below by_number_size: position in `nodes`, or -1
    cdef uint32_t by_number_size
    cdef Py_ssize_t unknown_offset
    cdef int64_t weight     # bytes of memory that an instance is charged with
    cdef list keep
    cdef readonly object cls
    cdef readonly str name
    cdef readonly str full_name
    cdef readonly tuple fields      # in the order of the IDL
    cdef readonly tuple names
    cdef tuple slots                # names by position in `nodes`, interned

    cdef int compile(self) except -1
    cdef int compile_map(self, ProtoNode* node, object field) except -1
    cdef int link(self) except -1
    cdef int link_node(self, ProtoNode* node) except -1
    cdef object blank(self)
    cdef object decode(self, const uint8_t* p, const uint8_t* end, int64_t budget)
    cdef int encode(self, object value, WriteBuffer out) except -1
    cdef bytes dumps_large(self, object value)


cdef class ProtoBase:
    pass
