# cython: language_level=3
"""Compiled field tables: struct ⇄ Thrift binary and compact. The rules are at the top of `plan.pyx`."""

cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t

from codec.buffer cimport Cursor, WriteBuffer


cdef enum Requiredness:
    DEFAULT = 0
    REQUIRED = 1
    OPTIONAL = 2

cdef enum Absent:
    # How a slot is filled whose field did not come.
    FILL_VALUE = 0
    FILL_LIST = 1
    FILL_SET = 2
    FILL_DICT = 3
    FILL_CALL = 4

cdef struct TypeNode:
    # One type of the IDL, as the readers and writers want it. Pointers to Python objects are borrowed from
    # `FieldTable.keep`.
    uint8_t kind            # what to read and write: an enum and an i32, a string and a binary differ here
    uint8_t wire            # how the binary protocol announces it
    uint8_t compact         # how the compact protocol does; a bool, which has two numbers, as "true"
    uint8_t frozen          # its Python value must be hashable: it is in a set or the key of a map
    int32_t min_size        # the fewest bytes it takes in the binary protocol
    int32_t weight          # bytes of memory that an element of this type is charged for, itself where it is small
    PyObject* ref           # a struct's class, its StructPlan once linked; an enum's EnumTable
    TypeNode* elem          # element type of a list or set, value type of a map
    TypeNode* key           # key type of a map


cdef struct FieldNode:
    TypeNode* type
    Py_ssize_t offset       # of the slot, from the start of the object
    int16_t id
    uint8_t wire            # type.wire, a cache line nearer
    uint8_t requiredness
    uint8_t absent          # how to fill the slot when the field did not come
    PyObject* filler        # the value, or the factory, that `absent` speaks of; borrowed from `FieldTable.keep`


cdef struct Frame:
    # Where in the message the work is: a chain on the C stack, walked only to name a field in an error.
    Frame* up
    PyObject* table         # FieldTable of a struct; borrowed
    FieldNode* field        # the field at work, or NULL
    PyObject* key           # the map key at work, or NULL; borrowed
    Py_ssize_t index        # the element at work; the id of an unknown field
    int depth               # structs that are open, this one included
    uint8_t kind


cdef class FieldTable:
    cdef FieldNode* nodes
    cdef int count
    cdef int linked
    cdef int16_t* by_id     # for ids from 0 to by_id_size - 1: position in `nodes`, or -1
    cdef int by_id_size
    cdef int unindexed      # some ids are beyond the table
    cdef Py_ssize_t unknown # offset of the slot that keeps unknown fields, -1 where they are dropped
    cdef int64_t weight     # bytes of memory that an instance is charged for
    cdef list keep          # owns what the nodes point to
    cdef readonly str name
    cdef readonly tuple fields
    cdef readonly tuple names

    cdef int compile(self, tuple fields, tuple offsets) except -1
    cdef int link(self) except -1


# Fill the slots that are still empty. `frame` NULL: required fields are None instead of an error.
cdef int fill_absent(FieldTable table, void* base, Frame* frame) except -1
# Bound the memory that the next decode may take, in bytes; without it DEFAULT_MAX_DECODED holds.
cdef void grant(int64_t size) noexcept
# What the next message stands in, for its views; see plan_binary.pxi.
cdef void lend_from(object source) noexcept


@cython.final
cdef class StructPlan(FieldTable):
    cdef readonly object cls
    cdef int is_union
    cdef int is_direct      # instances may come straight from the allocator

    cdef object decode(self, Cursor* c, bint compact)
    cdef int encode(self, object value, WriteBuffer out, bint compact) except -1
    cdef object blank(self)
    cdef void forget_defaults(self) noexcept


@cython.final
cdef class ArgsPlan(FieldTable):
    cdef bint raw

    cdef tuple decode(self, Cursor* c, bint compact)
    cdef int encode(self, tuple args, WriteBuffer out, bint compact) except -1


@cython.final
cdef class ResultPlan(FieldTable):
    cdef int has_value
    cdef bint raw

    cdef object decode(self, Cursor* c, bint compact)
    cdef int encode_value(self, object value, WriteBuffer out, bint compact) except -1
    cdef int encode_exception(self, object exc, WriteBuffer out, bint compact) except -1
    cdef int encode_member(self, int i, object value, WriteBuffer out, bint compact) except -1


cdef class StructBase:
    pass
