# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False, auto_pickle=False
"""Compiled field tables: struct ⇄ Thrift binary, the hottest code of weego.

How it works. `define` turns the field table of a struct into a `StructPlan`: a C array with, for each field, its id,
its wire type, the offset of its slot in the object, and the tree of its type. Decoding allocates the object and
stores values through the offsets; encoding reads them the same way. No dict, no attribute lookup, no Python call per
field. Arguments are the same thing with a tuple for the object, for a tuple's items have offsets too.

The rules, each with a test:

1.  Nothing is believed. A read compares with `c.end` first; a count times the smallest size of an element must fit in
    what is left before a container is made, and even then only PREALLOCATE places are made ahead of the elements.
2.  Depth is bounded twice. Structs nest at most MAX_DEPTH deep in both directions (containers between them are as
    deep as the IDL says, no deeper); what is skipped is passed over by a loop with a stack of its own, MAX_DEPTH
    levels of all kinds.
3.  An unknown field, and a known one that comes with another wire type, is skipped, as Kitex and Apache do. A
    container whose elements are announced with another type is an error, unless it is empty.
4.  Exceptions are made by `cls.__new__`: one that comes from the bare allocator has no `args` and crashes the
    interpreter.
5.  Each slot is filled when decoding ends. A slot that is not (an attribute was deleted) encodes like None.
6.  A container is held while its elements are encoded, and each element too; should one change size meanwhile,
    EncodeError.
7.  Errors name the whole path, `Request.items[3].name`. It costs nothing before it is needed: the frames of the
    readers and writers are a linked list on the C stack.
8.  A failed encode leaves the buffer as it was.
"""

cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_Check, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_Check, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_Check, PyDict_New, PyDict_Next, PyDict_SetItem, PyDict_Size
from cpython.exc cimport PyErr_Clear
from cpython.list cimport PyList_Append, PyList_AsTuple, PyList_Check, PyList_GET_SIZE, PyList_New
from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_INCREF
from cpython.set cimport PyAnySet_Check, PySet_Add, PySet_Size
from cpython.tuple cimport PyTuple_Check, PyTuple_GET_SIZE
from libc.stdint cimport INT8_MAX, INT8_MIN, INT16_MAX, INT16_MIN, INT32_MAX, INT32_MIN
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from codec.buffer cimport Cursor, WriteBuffer, get16, get32, get64, left, put16, put32, put64, reserve

import uuid
from types import MemberDescriptorType

from codec import types as _types
from codec.errors import ApplicationError, ApplicationErrorType, EncodeError, ProtocolError, ProtocolErrorKind

# Structs may nest this deep. Kitex skips, and Apache Thrift reads, no deeper (gopkg `defaultRecursionDepth`,
# Apache `DEFAULT_RECURSION_DEPTH`), so a deeper message would not be understood elsewhere either.
MAX_DEPTH = 64

cdef extern from *:
    """
    #include <structmember.h>

    /* Offset of the slot behind a member descriptor; -1 when it holds no Python object. */
    static Py_ssize_t weego_slot_offset(PyObject *descriptor) {
        PyMemberDef *member = ((PyMemberDescrObject *)descriptor)->d_member;
        return member->type == T_OBJECT_EX ? member->offset : -1;
    }
    #define weego_slot(base, offset) ((PyObject **)((char *)(base) + (offset)))
    /* The call says "not zero", and in some versions means 1, when an exception is set. */
    #define weego_enter_recursion(where) (Py_EnterRecursiveCall(where) ? -1 : 0)
    static inline uint64_t weego_fold(uint64_t a, uint64_t b) {
        unsigned __int128 product = (unsigned __int128)a * b;
        return (uint64_t)product ^ (uint64_t)(product >> 64);
    }
    #define weego_tuple_offset(i) ((Py_ssize_t)(offsetof(PyTupleObject, ob_item) + (i) * sizeof(PyObject *)))
    #define weego_allocates_plainly(cls, base) \\
        (((PyTypeObject *)(cls))->tp_new == ((PyTypeObject *)(base))->tp_new \\
         && ((PyTypeObject *)(cls))->tp_alloc == PyType_GenericAlloc)

    /* A str from UTF-8. Eight bytes at a time tell ASCII, which needs no decoder. NULL: UnicodeDecodeError is set. */
    static inline PyObject *weego_text(const char *s, Py_ssize_t n) {
        Py_ssize_t i = 0;
        PyObject *text;
        if (n <= 1)
            return PyUnicode_DecodeUTF8(s, n, NULL);
        for (; i + 8 <= n; i += 8) {
            uint64_t word;
            memcpy(&word, s + i, 8);
            if (word & 0x8080808080808080ULL)
                return PyUnicode_DecodeUTF8(s, n, NULL);
        }
        for (; i < n; i++)
            if (s[i] & 0x80)
                return PyUnicode_DecodeUTF8(s, n, NULL);
        text = PyUnicode_New(n, 127);
        if (text != NULL)
            memcpy(PyUnicode_1BYTE_DATA(text), s, n);
        return text;
    }
    """
    Py_ssize_t slot_offset "weego_slot_offset"(object descriptor)
    PyObject** slot "weego_slot"(void* base, Py_ssize_t offset) noexcept
    Py_ssize_t tuple_offset "weego_tuple_offset"(Py_ssize_t i) noexcept
    int allocates_plainly "weego_allocates_plainly"(object cls, object base) noexcept
    PyObject* text_from "weego_text"(const char* s, Py_ssize_t n) noexcept

    # The interpreter's own calls, with plain pointers: ownership is managed by hand where it pays.
    object allocate "PyType_GenericAlloc"(PyTypeObject* cls, Py_ssize_t items)
    object new_tuple "PyTuple_New"(Py_ssize_t n)
    object new_set "PySet_New"(PyObject* items)
    object new_frozenset "PyFrozenSet_New"(PyObject* items)
    ctypedef struct PyVarObject:
        pass
    object set_iterator "PySet_Type.tp_iter"(object items)
    void set_list_item "PyList_SET_ITEM"(object items, Py_ssize_t i, PyObject* value) noexcept
    void set_size "Py_SET_SIZE"(PyVarObject* items, Py_ssize_t n) noexcept
    PyObject* list_item "PyList_GET_ITEM"(object items, Py_ssize_t i) noexcept
    PyObject* tuple_item "PyTuple_GET_ITEM"(object items, Py_ssize_t i) noexcept
    PyObject* long_from "PyLong_FromLongLong"(long long v) except NULL
    PyObject* float_from "PyFloat_FromDouble"(double v) except NULL
    PyObject* bytes_from "PyBytes_FromStringAndSize"(const char* s, Py_ssize_t n) except NULL
    long long long_value "PyLong_AsLongLongAndOverflow"(PyObject* v, int* overflow) except? -1
    double long_as_double "PyLong_AsDouble"(PyObject* v) except? -1.0
    const char* utf8_of "PyUnicode_AsUTF8AndSize"(PyObject* v, Py_ssize_t* n) except NULL
    int is_compact_ascii "PyUnicode_IS_COMPACT_ASCII"(PyObject* v) noexcept
    void* ascii_data "PyUnicode_DATA"(PyObject* v) noexcept
    Py_ssize_t text_length "PyUnicode_GET_LENGTH"(PyObject* v) noexcept
    int is_text "PyUnicode_Check"(PyObject* v) noexcept
    int is_long "PyLong_Check"(PyObject* v) noexcept
    int is_exact_long "PyLong_CheckExact"(PyObject* v) noexcept
    int is_bool "PyBool_Check"(PyObject* v) noexcept
    int is_float "PyFloat_Check"(PyObject* v) noexcept
    double float_value "PyFloat_AS_DOUBLE"(PyObject* v) noexcept
    int is_subtype "PyType_IsSubtype"(PyTypeObject* a, PyTypeObject* b) noexcept
    PyTypeObject* type_of "Py_TYPE"(PyObject* v) noexcept
    void incref "Py_INCREF"(PyObject* v) noexcept
    void decref "Py_DECREF"(PyObject* v) noexcept
    int same_value "PyObject_RichCompareBool"(object a, object b, int op) except -1
    PyObject* type_attribute "_PyType_Lookup"(PyTypeObject* cls, object name) noexcept
    uint64_t fold "weego_fold"(uint64_t a, uint64_t b) noexcept
    int enter_recursion "weego_enter_recursion"(const char* where) except -1
    void leave_recursion "Py_LeaveRecursiveCall"() noexcept
    PyObject* PyTrue "Py_True"
    PyObject* PyFalse "Py_False"
    PyObject* PyNone "Py_None"
    int Py_EQ

cdef enum:
    DEPTH = 64              # MAX_DEPTH for C
    # Places of a list that are made ahead. A count is only a claim, and a struct may be one byte: without this bound, a
    # message of 16 MiB could ask for 128 MiB at once.
    PREALLOCATE = 1024
    # Room that a writer finds when it is called: a field's header and the largest value of fixed size, rounded up.
    HEADROOM = 24
    # A field whose id is up to this one is found through a table, larger and negative ones by search.
    MAX_INDEXED_ID = 1023
    # Enum numbers up to this one are found through a tuple, others through a dict.
    MAX_DENSE_ENUM = 255

cdef enum Wire:
    STOP = 0
    BOOL = 2
    BYTE = 3
    DOUBLE = 4
    I16 = 6
    I32 = 8
    I64 = 10
    STRING = 11
    STRUCT = 12
    MAP = 13
    SET = 14
    LIST = 15
    UUID = 16
    # Kinds that share a wire type with another one.
    BINARY = 17
    ENUM = 18

cdef enum FrameKind:
    IN_STRUCT = 0
    IN_LIST = 1
    IN_SET = 2
    IN_KEY = 3
    IN_VALUE = 4
    IN_SKIPPED = 5          # a struct, at an unknown field

cdef enum ErrorKind:
    # ProtocolErrorKind for C.
    INVALID_DATA = 1
    NEGATIVE_SIZE = 2
    SIZE_LIMIT = 3
    DEPTH_LIMIT = 6

assert MAX_DEPTH == DEPTH

cdef dict KINDS = {
    "bool": BOOL, "byte": BYTE, "i16": I16, "i32": I32, "i64": I64, "double": DOUBLE,
    "string": STRING, "binary": BINARY, "uuid": UUID,
}
cdef dict ZEROS = {
    "bool": False, "byte": 0, "i16": 0, "i32": 0, "i64": 0, "double": 0.0, "string": "", "binary": b"", "uuid": None
}
cdef object UUID_CLASS = uuid.UUID
cdef str PLAN_NAME = "__plan__"


# -------------------------------------------------------------------------------------------------------------- errors


cdef str shown_key(PyObject* key):
    """A map key for an error's path; long ones are cut, and foreign `__repr__`s are not run."""
    cdef object value = <object>key
    cdef str text
    if type(value) is not str and type(value) is not int and type(value) is not bool and type(value) is not bytes:
        return f"<{type(value).__name__}>"
    text = repr(value) if type(value) is not int or -(1 << 64) < value < (1 << 64) else "<int>"
    return text if len(text) <= 40 else text[:37] + "..."


cdef str path_of(Frame* frame):
    """The place where the work is, from the outside in: `Request.items[3].name`."""
    cdef list parts = []
    cdef FieldTable table
    while frame != NULL:
        if frame.kind == IN_STRUCT or frame.kind == IN_SKIPPED:
            table = <FieldTable>frame.table
            if frame.kind == IN_SKIPPED:
                parts.append(f".<unknown field {frame.index}>")
            elif frame.field != NULL:
                parts.append("." + <str>table.names[frame.field - table.nodes])
            if frame.up == NULL:
                parts.append(table.name)
        elif frame.kind == IN_LIST:
            parts.append(f"[{frame.index}]")
        elif frame.kind == IN_SET:
            parts.append(f"{{{frame.index}}}")
        elif frame.kind == IN_KEY or frame.key == NULL:
            parts.append(f"[key {frame.index}]")
        else:
            parts.append(f"[{shown_key(frame.key)}]")
        frame = frame.up
    parts.reverse()
    return "".join(parts)


cdef int broken(Frame* frame, int kind, str reason) except -1:
    """Raise ProtocolError: the bytes at `frame` break the rules."""
    raise ProtocolError(f"{path_of(frame)}: {reason}", ProtocolErrorKind(kind))


cdef int ended(Frame* frame, Py_ssize_t wanted, Py_ssize_t there) except -1:
    return broken(frame, INVALID_DATA, f"the message ends too early: {wanted} more bytes are needed, {there} are there")


cdef int unfit(Frame* frame, str reason) except -1:
    """Raise EncodeError: the value at `frame` does not fit its IDL type."""
    raise EncodeError(reason, path_of(frame))


cdef int mistyped(Frame* frame, str expected, PyObject* value) except -1:
    return unfit(frame, f"expected {expected}, got {type(<object>value).__name__}")


# ------------------------------------------------------------------------------------------------------------ skipping


cdef struct Level:
    # One open value of the skip loop.
    int64_t more            # values still to come; -1: fields until STOP
    uint8_t first           # their type
    uint8_t second          # and, in a map, that of every second one


cdef inline int fixed_size(uint8_t wire) noexcept:
    """Bytes of a value of this wire type; 0 when it varies, -1 when there is no such type."""
    if wire == BOOL or wire == BYTE:
        return 1
    elif wire == I16:
        return 2
    elif wire == I32:
        return 4
    elif wire == I64 or wire == DOUBLE:
        return 8
    elif wire == UUID:
        return 16
    elif wire == STRING or wire == STRUCT or wire == MAP or wire == SET or wire == LIST:
        return 0
    return -1


cdef inline int smallest_size(uint8_t wire) noexcept:
    """The fewest bytes a value of this wire type takes."""
    if wire == STRUCT:
        return 1
    elif wire == STRING:
        return 4
    elif wire == LIST or wire == SET:
        return 5
    elif wire == MAP:
        return 6
    return fixed_size(wire)


cdef int skip(Cursor* c, uint8_t wire, Frame* frame) except -1:
    """Pass over one value of type `wire`, whatever is in it. A loop, for the depth is the peer's choice."""
    cdef Level levels[DEPTH]
    cdef Level* level
    cdef int depth = 0
    cdef int size, first_size, second_size
    cdef int64_t n
    cdef uint8_t first, second
    while True:
        size = fixed_size(wire)
        if size > 0:
            if left(c) < size:
                ended(frame, size, left(c))
            c.p += size
        elif size < 0:
            broken(frame, INVALID_DATA, f"unknown wire type {wire}")
        elif wire == STRING:
            if left(c) < 4:
                ended(frame, 4, left(c))
            n = <int32_t>get32(c.p)
            c.p += 4
            if n < 0:
                broken(frame, NEGATIVE_SIZE, f"negative length {n}")
            if n > left(c):
                broken(frame, SIZE_LIMIT, f"a length of {n} bytes, {left(c)} are there")
            c.p += n
        else:
            if depth == DEPTH:
                broken(frame, DEPTH_LIMIT, f"nested deeper than {DEPTH} levels")
            level = &levels[depth]
            if wire == STRUCT:
                level.more = -1
                depth += 1
            else:
                if wire == MAP:
                    if left(c) < 6:
                        ended(frame, 6, left(c))
                    first, second = c.p[0], c.p[1]
                    n = <int32_t>get32(c.p + 2)
                    c.p += 6
                else:
                    if left(c) < 5:
                        ended(frame, 5, left(c))
                    first = second = c.p[0]
                    n = <int32_t>get32(c.p + 1)
                    c.p += 5
                if n < 0:
                    broken(frame, NEGATIVE_SIZE, f"negative count {n}")
                if n > 0:
                    first_size = fixed_size(first)
                    second_size = fixed_size(second)
                    if first_size < 0 or second_size < 0:
                        broken(frame, INVALID_DATA, f"unknown wire type {first if first_size < 0 else second}")
                    if wire == MAP:
                        size = smallest_size(first) + smallest_size(second)
                    else:
                        size = smallest_size(first)
                    if n * size > left(c):
                        broken(frame, SIZE_LIMIT, f"{n} elements of at least {size} bytes, {left(c)} bytes are there")
                    if first_size > 0 and second_size > 0:
                        c.p += n * size
                    else:
                        level.first, level.second = first, second
                        level.more = 2 * n if wire == MAP else n
                        depth += 1
        # What comes next: a value of the innermost open level that has one.
        while True:
            if depth == 0:
                return 0
            level = &levels[depth - 1]
            if level.more < 0:
                if left(c) < 1:
                    ended(frame, 1, 0)
                wire = c.p[0]
                if wire == STOP:
                    c.p += 1
                    depth -= 1
                    continue
                if left(c) < 3:
                    ended(frame, 3, left(c))
                c.p += 3
                break
            if level.more == 0:
                depth -= 1
                continue
            # The number left is even before a key. In a list both types are the same.
            wire = level.second if level.more & 1 else level.first
            level.more -= 1
            break


# ------------------------------------------------------------------------------------------------------------ decoding


cdef FieldNode* find(FieldTable table, int16_t id) noexcept:
    """The field of this id, or NULL."""
    cdef int i
    if 0 <= id < table.by_id_size:
        i = table.by_id[id]
        return NULL if i < 0 else &table.nodes[i]
    # A peer may send many fields that are unknown here: no search, unless there is something to find.
    if 0 <= id <= MAX_INDEXED_ID or not table.unindexed:
        return NULL
    for i in range(table.count):
        if table.nodes[i].id == id:
            return &table.nodes[i]
    return NULL


cdef int read_fields(FieldTable table, void* base, Cursor* c, Frame* frame) except -1:
    """Read a struct's fields, STOP included, into the empty slots of `base`. Slots of absent fields are filled."""
    cdef FieldNode* expected = table.nodes
    cdef FieldNode* end = table.nodes + table.count
    cdef FieldNode* field
    cdef PyObject** place
    cdef PyObject* value
    cdef PyObject* old
    cdef int filled = 0
    cdef uint8_t wire
    cdef int16_t id
    while True:
        if c.p >= c.end:
            frame.field = NULL
            ended(frame, 1, 0)
        wire = c.p[0]
        if wire == STOP:
            c.p += 1
            break
        if left(c) < 3:
            frame.field = NULL
            ended(frame, 3, left(c))
        id = <int16_t>get16(c.p + 1)
        c.p += 3
        # Peers write fields in the order of the IDL, nearly always.
        if expected < end and expected.id == id:
            field = expected
        else:
            field = find(table, id)
        if field == NULL or field.wire != wire:
            frame.kind = IN_SKIPPED
            frame.index = id
            skip(c, wire, frame)
            frame.kind = IN_STRUCT
            continue
        expected = field + 1
        frame.field = field
        value = read_value(field.type, c, frame)
        place = slot(base, field.offset)
        old = place[0]
        place[0] = value
        if old == NULL:
            filled += 1
        else:
            decref(old)
    frame.field = NULL
    if filled < table.count:
        fill_absent(table, base, frame)
    return filled


cdef int fill_absent(FieldTable table, void* base, Frame* frame) except -1:
    """Fill the slots that are still empty. `frame` NULL: required fields are None instead of an error."""
    cdef FieldNode* field
    cdef PyObject** place
    cdef object value
    cdef int i
    for i in range(table.count):
        field = &table.nodes[i]
        place = slot(base, field.offset)
        if place[0] != NULL:
            continue
        if field.requiredness == REQUIRED:
            if frame != NULL:
                frame.field = field
                broken(frame, INVALID_DATA, "the required field is missing")
            value = None
        elif field.absent == FILL_VALUE:
            value = <object>field.filler
        elif field.absent == FILL_LIST:
            value = []
        elif field.absent == FILL_SET:
            value = set()
        elif field.absent == FILL_DICT:
            value = {}
        else:
            value = (<object>field.filler)()
        # The factory is foreign code: it may have found the object and filled the slot itself.
        if place[0] == NULL:
            incref(<PyObject*>value)
            place[0] = <PyObject*>value
    return 0


cdef PyObject* read_struct(StructPlan plan, Cursor* c, Frame* up, int depth) except NULL:
    cdef Frame frame
    cdef object value
    cdef int filled
    frame.up = up
    frame.table = <PyObject*>plan
    frame.field = NULL
    frame.key = NULL
    frame.index = 0
    frame.depth = depth
    frame.kind = IN_STRUCT
    if not plan.linked:
        plan.link()
    if depth > DEPTH:
        broken(&frame, DEPTH_LIMIT, f"structs nested deeper than {DEPTH} levels")
    if plan.is_direct:
        value = allocate(<PyTypeObject*>plan.cls, 0)
    else:
        value = plan.cls.__new__(plan.cls)
    filled = read_fields(plan, <void*><PyObject*>value, c, &frame)
    if plan.is_union and filled > 1:
        broken(&frame, INVALID_DATA, f"a union has one member, this one came with {filled}")
    Py_INCREF(value)
    return <PyObject*>value


cdef PyObject* read_value(TypeNode* t, Cursor* c, Frame* frame) except NULL:
    """Read one value; a new reference."""
    cdef Py_ssize_t room = c.end - c.p
    cdef const uint8_t* p = c.p
    cdef PyObject* value
    cdef int32_t n
    cdef uint64_t bits
    cdef double number
    cdef uint8_t kind = t.kind
    if kind == STRING:
        if room < 4:
            ended(frame, 4, room)
        n = <int32_t>get32(p)
        if n < 0:
            broken(frame, NEGATIVE_SIZE, f"negative length {n}")
        if n > room - 4:
            broken(frame, SIZE_LIMIT, f"a length of {n} bytes, {room - 4} are there")
        value = text_from(<const char*>p + 4, n)
        if value == NULL:
            not_utf8(frame, p + 4, n)
        c.p = p + 4 + n
        return value
    elif kind == I64:
        if room < 8:
            ended(frame, 8, room)
        c.p = p + 8
        return long_from(<int64_t>get64(p))
    elif kind == I32:
        if room < 4:
            ended(frame, 4, room)
        c.p = p + 4
        return long_from(<int32_t>get32(p))
    elif kind == STRUCT:
        return read_struct(<StructPlan>t.ref, c, frame, frame.depth + 1)
    elif kind == LIST:
        return read_list(t, c, frame)
    elif kind == MAP:
        return read_map(t, c, frame)
    elif kind == SET:
        return read_set(t, c, frame)
    elif kind == BOOL:
        if room < 1:
            ended(frame, 1, room)
        c.p = p + 1
        # Only 1 is true: Kitex and gopkg read it so.
        value = PyTrue if p[0] == 1 else PyFalse
        incref(value)
        return value
    elif kind == DOUBLE:
        if room < 8:
            ended(frame, 8, room)
        bits = get64(p)
        memcpy(&number, &bits, 8)
        c.p = p + 8
        return float_from(number)
    elif kind == ENUM:
        if room < 4:
            ended(frame, 4, room)
        c.p = p + 4
        return (<EnumTable>t.ref).member(<int32_t>get32(p), frame)
    elif kind == BINARY:
        if room < 4:
            ended(frame, 4, room)
        n = <int32_t>get32(p)
        if n < 0:
            broken(frame, NEGATIVE_SIZE, f"negative length {n}")
        if n > room - 4:
            broken(frame, SIZE_LIMIT, f"a length of {n} bytes, {room - 4} are there")
        value = bytes_from(<const char*>p + 4, n)
        c.p = p + 4 + n
        return value
    elif kind == BYTE:
        if room < 1:
            ended(frame, 1, room)
        c.p = p + 1
        return long_from(<signed char>p[0])
    elif kind == I16:
        if room < 2:
            ended(frame, 2, room)
        c.p = p + 2
        return long_from(<int16_t>get16(p))
    else:
        if room < 16:
            ended(frame, 16, room)
        c.p = p + 16
        return read_uuid(p)


cdef int not_utf8(Frame* frame, const uint8_t* p, Py_ssize_t n) except -1:
    """Say where a string stops being UTF-8. The decoder's own error, which holds a copy of all the bytes, is
    dropped."""
    PyErr_Clear()
    try:
        PyBytes_FromStringAndSize(<char*>p, n).decode()
    except UnicodeDecodeError as error:
        start = error.start
    else:  # it was memory that failed, not the text
        raise MemoryError(f"no memory for a string of {n} bytes")
    return broken(frame, INVALID_DATA, f"invalid UTF-8 at byte {start} of a string of {n}")


cdef PyObject* read_uuid(const uint8_t* p) except NULL:
    cdef object value = UUID_CLASS(bytes=PyBytes_FromStringAndSize(<char*>p, 16))
    Py_INCREF(value)
    return <PyObject*>value


cdef inline int32_t read_count(TypeNode* t, Cursor* c, Frame* frame) except -1:
    """Read the header of a list or set and check that its elements can be there."""
    cdef int32_t n
    cdef uint8_t wire
    if left(c) < 5:
        ended(frame, 5, left(c))
    wire = c.p[0]
    n = <int32_t>get32(c.p + 1)
    c.p += 5
    if n <= 0:
        if n < 0:
            broken(frame, NEGATIVE_SIZE, f"negative count {n}")
        return 0
    if wire != t.elem.wire:
        broken(frame, INVALID_DATA, f"elements come with wire type {wire}, the IDL's have {t.elem.wire}")
    if <int64_t>n * t.elem.min_size > left(c):
        broken(frame, SIZE_LIMIT, f"{n} elements of at least {t.elem.min_size} bytes, {left(c)} bytes are there")
    return n


cdef inline void open_container(Frame* frame, Frame* up, uint8_t kind) noexcept:
    frame.up = up
    frame.table = NULL
    frame.field = NULL
    frame.key = NULL
    frame.index = 0
    frame.depth = up.depth
    frame.kind = kind


cdef PyObject* read_list(TypeNode* t, Cursor* c, Frame* up) except NULL:
    cdef Frame frame
    cdef object items
    cdef PyObject* value
    cdef TypeNode* elem = t.elem
    cdef int32_t n = read_count(t, c, up)
    cdef int32_t ahead = n if n < PREALLOCATE else PREALLOCATE
    cdef int32_t i
    open_container(&frame, up, IN_LIST)
    # The places are there, but the list is only as long as it is filled: nobody must ever see an empty place.
    items = PyList_New(ahead)
    set_size(<PyVarObject*>items, 0)
    for i in range(n):
        frame.index = i
        value = read_value(elem, c, &frame)
        if i < ahead:
            set_list_item(items, i, value)
            set_size(<PyVarObject*>items, i + 1)
        else:
            append_stolen(items, value)
    if t.frozen:
        items = PyList_AsTuple(items)
    Py_INCREF(items)
    return <PyObject*>items


cdef inline int append_stolen(object items, PyObject* value) except -1:
    """Append a value whose reference is ours to give away."""
    cdef object held = <object>value
    decref(value)
    return PyList_Append(items, held)


cdef PyObject* read_set(TypeNode* t, Cursor* c, Frame* up) except NULL:
    cdef Frame frame
    cdef object items, item
    cdef PyObject* value
    cdef TypeNode* elem = t.elem
    cdef int32_t n = read_count(t, c, up)
    cdef int32_t i
    open_container(&frame, up, IN_SET)
    # A frozenset may be filled as long as nobody else has seen it.
    items = new_frozenset(NULL) if t.frozen else new_set(NULL)
    for i in range(n):
        frame.index = i
        value = read_value(elem, c, &frame)
        item = <object>value
        decref(value)
        PySet_Add(items, item)
    Py_INCREF(items)
    return <PyObject*>items


cdef PyObject* read_map(TypeNode* t, Cursor* c, Frame* up) except NULL:
    cdef Frame frame
    cdef object items, key, value
    cdef PyObject* new
    cdef uint8_t key_wire, value_wire
    cdef int32_t n, i
    cdef int size
    if left(c) < 6:
        ended(up, 6, left(c))
    key_wire, value_wire = c.p[0], c.p[1]
    n = <int32_t>get32(c.p + 2)
    c.p += 6
    if n < 0:
        broken(up, NEGATIVE_SIZE, f"negative count {n}")
    if n > 0:
        if key_wire != t.key.wire or value_wire != t.elem.wire:
            broken(up, INVALID_DATA, f"entries come with wire types {key_wire} and {value_wire}, "
                                     f"the IDL's have {t.key.wire} and {t.elem.wire}")
        size = t.key.min_size + t.elem.min_size
        if <int64_t>n * size > left(c):
            broken(up, SIZE_LIMIT, f"{n} entries of at least {size} bytes, {left(c)} bytes are there")
    open_container(&frame, up, IN_KEY)
    items = PyDict_New()
    for i in range(n):
        frame.index = i
        frame.kind = IN_KEY
        new = read_value(t.key, c, &frame)
        key = <object>new
        decref(new)
        frame.kind = IN_VALUE
        frame.key = new
        new = read_value(t.elem, c, &frame)
        value = <object>new
        decref(new)
        PyDict_SetItem(items, key, value)
    if t.frozen:
        items = (<object>t.ref)(items)
    Py_INCREF(items)
    return <PyObject*>items


# ------------------------------------------------------------------------------------------------------------ encoding


cdef int write_fields(FieldTable table, void* base, WriteBuffer out, Frame* frame) except -1:
    """Write a struct's fields and STOP from the slots of `base`, in the order of the IDL."""
    cdef FieldNode* field = table.nodes
    cdef FieldNode* end = table.nodes + table.count
    cdef PyObject* value
    cdef object held
    cdef uint8_t* p
    while field < end:
        value = slot(base, field.offset)[0]
        if value == NULL or value == PyNone:
            if field.requiredness == REQUIRED:
                frame.field = field
                unfit(frame, "the field is required, but it is None")
        else:
            held = <object>value
            frame.field = field
            reserve(out, HEADROOM)
            p = out.p + out.n
            p[0] = field.wire
            put16(p + 1, field.id)
            out.n += 3
            write_value(field.type, value, out, frame)
        field += 1
    reserve(out, 1)
    out.p[out.n] = STOP
    out.n += 1
    return 0


cdef int write_struct(StructPlan plan, object value, WriteBuffer out, Frame* up, int depth) except -1:
    """Write an instance of `plan.cls`, which the caller has made sure it is, and holds."""
    cdef Frame frame
    frame.up = up
    frame.table = <PyObject*>plan
    frame.field = NULL
    frame.key = NULL
    frame.index = 0
    frame.depth = depth
    frame.kind = IN_STRUCT
    if not plan.linked:
        plan.link()
    if depth > DEPTH:
        unfit(&frame, f"structs nested deeper than {DEPTH} levels; does it contain itself?")
    if plan.is_union:
        check_union(plan, value, &frame)
    return write_fields(plan, <void*><PyObject*>value, out, &frame)


cdef int check_union(StructPlan plan, object value, Frame* frame) except -1:
    cdef int i
    cdef list there = []
    cdef PyObject* member
    for i in range(plan.count):
        member = slot(<void*><PyObject*>value, plan.nodes[i].offset)[0]
        if member != NULL and member != PyNone:
            there.append(plan.names[i])
    if len(there) != 1:
        unfit(frame, f"the union {plan.cls.__name__} must have one member set, it has "
                     f"{', '.join(there) if there else 'none'}")
    return 0


cdef inline int64_t whole_number(PyObject* value, int64_t low, int64_t high, str kind, Frame* frame) except? -1:
    """The value of an int, checked."""
    cdef int overflow = 0
    cdef int64_t number
    if not is_long(value) or is_bool(value):
        mistyped(frame, "int", value)
    number = long_value(value, &overflow)
    if overflow or number < low or number > high:
        unfit(frame, kind + " out of range")
    return number


cdef int write_value(TypeNode* t, PyObject* value, WriteBuffer out, Frame* frame) except -1:
    """Write one value, which the caller holds. HEADROOM less a field header is there already."""
    cdef Py_ssize_t n
    cdef const char* data
    cdef int64_t number
    cdef uint64_t bits
    cdef double real
    cdef uint8_t kind = t.kind
    cdef uint8_t* p = out.p + out.n
    if kind == STRING:
        if not is_text(value):
            mistyped(frame, "str", value)
        if is_compact_ascii(value):
            data = <const char*>ascii_data(value)
            n = text_length(value)
        else:
            data = utf8_or_error(value, &n, frame)
        if n > INT32_MAX:
            unfit(frame, f"a string of {n} bytes is longer than a Thrift string can be")
        reserve(out, n + 4)
        p = out.p + out.n
        put32(p, <int32_t>n)
        memcpy(p + 4, data, n)
        out.n += n + 4
        return 0
    elif kind == I64:
        if is_exact_long(value):
            long_to_wire(value, p, frame)
        else:
            put64(p, <uint64_t>whole_number(value, <int64_t>0x8000000000000000, 0x7FFFFFFFFFFFFFFF, "i64", frame))
        out.n += 8
        return 0
    elif kind == I32:
        put32(p, <int32_t>whole_number(value, INT32_MIN, INT32_MAX, "i32", frame))
        out.n += 4
        return 0
    elif kind == STRUCT:
        if type_of(value) != <PyTypeObject*>(<StructPlan>t.ref).cls and not is_subtype(
            type_of(value), <PyTypeObject*>(<StructPlan>t.ref).cls
        ):
            mistyped(frame, (<StructPlan>t.ref).cls.__name__, value)
        return write_struct(<StructPlan>t.ref, <object>value, out, frame, frame.depth + 1)
    elif kind == LIST:
        return write_list(t, <object>value, out, frame)
    elif kind == MAP:
        return write_map(t, <object>value, out, frame)
    elif kind == SET:
        return write_set(t, <object>value, out, frame)
    elif kind == BOOL:
        if value != PyTrue and value != PyFalse:
            mistyped(frame, "bool", value)
        p[0] = value == PyTrue
        out.n += 1
        return 0
    elif kind == DOUBLE:
        if is_float(value):
            real = float_value(value)
        else:
            real = whole_as_double(value, frame)
        memcpy(&bits, &real, 8)
        put64(p, bits)
        out.n += 8
        return 0
    elif kind == ENUM:
        if not is_exact_long(value) and not is_subtype(type_of(value), <PyTypeObject*>(<EnumTable>t.ref).cls):
            mistyped(frame, (<EnumTable>t.ref).cls.__name__, value)
        put32(p, <int32_t>whole_number(value, INT32_MIN, INT32_MAX, "enum (i32)", frame))
        out.n += 4
        return 0
    elif kind == BINARY:
        return write_binary(<object>value, out, frame)
    elif kind == BYTE:
        number = whole_number(value, INT8_MIN, INT8_MAX, "byte", frame)
        p[0] = <uint8_t>number
        out.n += 1
        return 0
    elif kind == I16:
        number = whole_number(value, INT16_MIN, INT16_MAX, "i16", frame)
        put16(p, <int16_t>number)
        out.n += 2
        return 0
    else:
        return write_uuid(<object>value, out, frame)


cdef inline int long_to_wire(PyObject* value, uint8_t* p, Frame* frame) except -1:
    cdef int overflow = 0
    cdef int64_t number = long_value(value, &overflow)
    if overflow:
        unfit(frame, "i64 out of range")
    put64(p, <uint64_t>number)
    return 0


cdef const char* utf8_or_error(PyObject* value, Py_ssize_t* n, Frame* frame) except NULL:
    try:
        return utf8_of(value, n)
    except UnicodeEncodeError as error:
        position = error.start
    unfit(frame, f"the text has no UTF-8 form: a lone surrogate at position {position}")


cdef double whole_as_double(PyObject* value, Frame* frame) except? -1.0:
    if not is_long(value) or is_bool(value):
        mistyped(frame, "float", value)
    try:
        return long_as_double(value)
    except OverflowError:
        pass
    unfit(frame, "double out of range")


cdef int write_bytes(const char* data, Py_ssize_t n, WriteBuffer out, Frame* frame) except -1:
    if n > INT32_MAX:
        unfit(frame, f"{n} bytes are longer than a Thrift binary can be")
    reserve(out, n + 4)
    put32(out.p + out.n, <int32_t>n)
    memcpy(out.p + out.n + 4, data, n)
    out.n += n + 4
    return 0


cdef int write_binary(object value, WriteBuffer out, Frame* frame) except -1:
    cdef bytes content
    if PyBytes_Check(value):
        return write_bytes(PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value), out, frame)
    if PyByteArray_Check(value):
        return write_bytes(PyByteArray_AS_STRING(value), PyByteArray_GET_SIZE(value), out, frame)
    if type(value) is not memoryview:
        mistyped(frame, "bytes", <PyObject*>value)
    # A view may have strides and a foreign owner: a copy is the simple way to get it right.
    content = bytes(value)
    return write_bytes(PyBytes_AS_STRING(content), PyBytes_GET_SIZE(content), out, frame)


cdef int write_uuid(object value, WriteBuffer out, Frame* frame) except -1:
    cdef object content
    if not isinstance(value, UUID_CLASS):
        mistyped(frame, "UUID", <PyObject*>value)
    content = value.bytes
    if not PyBytes_Check(content) or PyBytes_GET_SIZE(content) != 16:
        unfit(frame, "a UUID whose `bytes` are not 16 bytes")
    reserve(out, 16)
    memcpy(out.p + out.n, PyBytes_AS_STRING(content), 16)
    out.n += 16
    return 0


cdef inline int write_count(TypeNode* t, Py_ssize_t n, WriteBuffer out, Frame* frame) except -1:
    """The header of a list or set."""
    if n > INT32_MAX:
        unfit(frame, f"{n} elements are more than a Thrift container can hold")
    reserve(out, 5)
    out.p[out.n] = t.elem.wire
    put32(out.p + out.n + 1, <int32_t>n)
    out.n += 5
    return 0


cdef int write_list(TypeNode* t, object items, WriteBuffer out, Frame* up) except -1:
    cdef Frame frame
    cdef TypeNode* elem = t.elem
    cdef object item
    cdef Py_ssize_t i, n
    cdef int is_list = PyList_Check(items)
    if is_list:
        n = PyList_GET_SIZE(items)
    else:
        if not PyTuple_Check(items):
            mistyped(up, "list", <PyObject*>items)
        n = PyTuple_GET_SIZE(items)
    write_count(t, n, out, up)
    open_container(&frame, up, IN_LIST)
    for i in range(n):
        frame.index = i
        if is_list:
            if PyList_GET_SIZE(items) != n:
                unfit(up, "the list changed its size while it was being encoded")
            item = <object>list_item(items, i)
        else:
            item = <object>tuple_item(items, i)
        reserve(out, HEADROOM)
        write_value(elem, <PyObject*>item, out, &frame)
    return 0


cdef int write_set(TypeNode* t, object items, WriteBuffer out, Frame* up) except -1:
    cdef Frame frame
    cdef TypeNode* elem = t.elem
    cdef object item
    cdef Py_ssize_t n
    if not PyAnySet_Check(items):
        mistyped(up, "set", <PyObject*>items)
    n = PySet_Size(items)
    write_count(t, n, out, up)
    open_container(&frame, up, IN_SET)
    # The base type's iterator: that of a subclass would be foreign code.
    for item in set_iterator(items):
        reserve(out, HEADROOM)
        write_value(elem, <PyObject*>item, out, &frame)
        frame.index += 1
        if PySet_Size(items) != n:
            unfit(up, "the set changed its size while it was being encoded")
    return 0


cdef int write_map(TypeNode* t, object items, WriteBuffer out, Frame* up) except -1:
    cdef Frame frame
    cdef object key, value, frozen_map
    cdef PyObject* borrowed_key = NULL
    cdef PyObject* borrowed_value = NULL
    cdef Py_ssize_t position = 0
    cdef Py_ssize_t n
    cdef uint8_t* p
    if not PyDict_Check(items):
        frozen_map = frozen_map_class()
        if not is_subtype(type_of(<PyObject*>items), <PyTypeObject*>frozen_map):
            mistyped(up, "dict", <PyObject*>items)
        items = <dict?>items._items
    n = PyDict_Size(items)
    if n > INT32_MAX:
        unfit(up, f"{n} entries are more than a Thrift map can hold")
    reserve(out, 6)
    p = out.p + out.n
    p[0] = t.key.wire
    p[1] = t.elem.wire
    put32(p + 2, <int32_t>n)
    out.n += 6
    open_container(&frame, up, IN_KEY)
    while PyDict_Next(items, &position, &borrowed_key, &borrowed_value):
        key = <object>borrowed_key
        value = <object>borrowed_value
        frame.kind = IN_KEY
        reserve(out, HEADROOM)
        write_value(t.key, borrowed_key, out, &frame)
        frame.kind = IN_VALUE
        frame.key = borrowed_key
        reserve(out, HEADROOM)
        write_value(t.elem, borrowed_value, out, &frame)
        frame.index += 1
        if PyDict_Size(items) != n:
            break
    if frame.index != n:
        unfit(up, "the dict changed its size while it was being encoded")
    return 0


# ----------------------------------------------------------------------------------------------------------- compiling


cdef object _FrozenMap = None


cdef object frozen_map_class():
    """`FrozenMap`, which lives with the classes that are built on this module."""
    global _FrozenMap
    if _FrozenMap is None:
        from codec.structs import FrozenMap

        _FrozenMap = FrozenMap
    return _FrozenMap


@cython.final
cdef class EnumTable:
    """Numbers ⇄ members of one enum."""

    cdef object cls
    cdef dict by_number
    cdef tuple dense        # members by number, None where there is none

    def __init__(self, cls):
        cdef Py_ssize_t top = -1
        self.cls = cls
        self.by_number = {int(member): member for member in cls.__members__.values()}
        for number in self.by_number:
            if top < number <= MAX_DENSE_ENUM:
                top = number
        self.dense = tuple([self.by_number.get(number) for number in range(top + 1)])

    cdef PyObject* member(self, int32_t number, Frame* frame) except NULL:
        cdef object found = None
        if 0 <= number < PyTuple_GET_SIZE(self.dense):
            found = <object>tuple_item(self.dense, number)
        else:
            found = self.by_number.get(number)
        if found is None:
            # stub.Enum makes a member of an unknown number and forgets it: a peer must not make this process grow.
            # Not by a call of the class, which from Python 3.12 on means something else when an enum has no members.
            found = self.cls._missing_(number)
        if found is None:
            broken(frame, INVALID_DATA, f"{number} is not a {self.cls.__name__}")
        Py_INCREF(found)
        return <PyObject*>found


cdef TypeNode* new_node(object type, int frozen, list keep) except NULL:
    """The tree of one type. Whatever it points to is appended to `keep`."""
    cdef object target = None
    cdef TypeNode* node = <TypeNode*>calloc(1, sizeof(TypeNode))
    if node == NULL:
        raise MemoryError("no memory for a codec plan")
    try:
        node.wire = _types.wire_type(type)
        node.min_size = _types.min_wire_size(type)
        node.frozen = frozen
        node.kind = node.wire
        if isinstance(type, _types.Primitive):
            node.kind = KINDS[type.name]
        elif isinstance(type, _types.List):
            node.elem = new_node(type.elem, frozen, keep)
        elif isinstance(type, _types.Set):
            node.elem = new_node(type.elem, True, keep)
        elif isinstance(type, _types.Map):
            node.key = new_node(type.key, True, keep)
            node.elem = new_node(type.value, frozen, keep)
            if frozen:
                target = frozen_map_class()
        elif isinstance(type, _types.StructType):
            target = type.cls
        else:
            node.kind = ENUM
            target = EnumTable(type.cls)
        keep.append(target)
        node.ref = <PyObject*>target
    except BaseException:
        free_node(node)
        raise
    return node


cdef void free_node(TypeNode* node) noexcept:
    if node != NULL:
        free_node(node.elem)
        free_node(node.key)
        free(node)


cdef int link_node(TypeNode* node, list keep) except -1:
    """Replace the classes of structs by their plans."""
    cdef object target
    if node.key != NULL:
        link_node(node.key, keep)
    if node.elem != NULL:
        link_node(node.elem, keep)
    if node.kind == STRUCT and not isinstance(<object>node.ref, StructPlan):
        target = own_plan(<object>node.ref)
        keep.append(target)
        node.ref = <PyObject*>target
    return 0


cdef StructPlan own_plan(object cls):
    """The plan of exactly this class."""
    plan = cls.__dict__.get(PLAN_NAME)
    if not isinstance(plan, StructPlan) or (<StructPlan>plan).cls is not cls:
        raise undefined(cls)
    return <StructPlan>plan


cdef inline StructPlan plan_of(object cls):
    """The plan that serves instances of `cls`: its own or an inherited one."""
    cdef PyObject* plan = type_attribute(<PyTypeObject*>cls, PLAN_NAME)
    if (
        plan == NULL
        or not isinstance(<object>plan, StructPlan)
        or not is_subtype(<PyTypeObject*>cls, <PyTypeObject*>(<StructPlan>plan).cls)
    ):
        raise undefined(cls)
    return <StructPlan>plan


cdef object undefined(object cls):
    name = f"{cls.__module__}.{cls.__qualname__}"
    return TypeError(f"{name} has no field table: stub.define({cls.__name__}, ...) is missing")


cdef class FieldTable:
    """Fields that are read and written together."""

    def __cinit__(self):
        self.nodes = NULL
        self.by_id = NULL
        self.count = 0
        self.by_id_size = 0
        self.linked = False
        self.unindexed = False
        self.keep = []
        self.name = ""
        self.fields = ()
        self.names = ()

    def __dealloc__(self):
        cdef int i
        for i in range(self.count):
            free_node(self.nodes[i].type)
        free(self.nodes)
        free(self.by_id)

    cdef int compile(self, tuple fields, tuple offsets) except -1:
        """Build the C tables from `Field`s and the offsets of their slots."""
        from codec.spec import ABSENT

        cdef FieldNode* node
        cdef int i, top = -1
        cdef dict seen = {}
        self.fields = fields
        self.names = tuple([field.name for field in fields])
        for field in fields:
            if field.id in seen:
                other = seen[field.id]
                raise ValueError(f"{self.name}: fields {other!r} and {field.name!r} have the same id {field.id}")
            seen[field.id] = field.name
            if top < field.id <= MAX_INDEXED_ID:
                top = field.id
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"{self.name}: two fields have the same name, of {', '.join(self.names)}")
        self.nodes = <FieldNode*>calloc(len(fields) + 1, sizeof(FieldNode))
        self.by_id = <int16_t*>malloc((top + 1) * sizeof(int16_t) + 1)
        if self.nodes == NULL or self.by_id == NULL:
            raise MemoryError("no memory for a codec plan")
        memset(self.by_id, 0xFF, (top + 1) * sizeof(int16_t))
        self.by_id_size = top + 1
        for i, field in enumerate(fields):
            node = &self.nodes[i]
            node.type = new_node(field.type, False, self.keep)
            self.count = i + 1
            node.id = field.id
            node.wire = node.type.wire
            node.offset = offsets[i]
            node.requiredness = int(field.requiredness)
            if 0 <= field.id <= top:
                self.by_id[<int>field.id] = <int16_t>i
            else:
                self.unindexed = True
            node.absent = FILL_VALUE
            filler = None
            if field.factory is not None:
                node.absent = {list: FILL_LIST, set: FILL_SET, dict: FILL_DICT}.get(field.factory, FILL_CALL)
                filler = field.factory
            elif field.default is not ABSENT:
                filler = field.default
            elif node.requiredness == DEFAULT:
                if node.type.kind == LIST:
                    node.absent = FILL_LIST
                elif node.type.kind == SET:
                    node.absent = FILL_SET
                elif node.type.kind == MAP:
                    node.absent = FILL_DICT
                elif node.type.kind == ENUM:
                    filler = zero_of_enum(field.type.cls)
                elif node.type.kind != STRUCT:
                    filler = ZEROS[field.type.name]
            self.keep.append(filler)
            node.filler = <PyObject*>filler
        return 0

    cdef int link(self) except -1:
        """Resolve the structs that the fields refer to. Late, for emitted tables refer to each other in any order."""
        cdef int i
        for i in range(self.count):
            link_node(self.nodes[i].type, self.keep)
        self.linked = True
        return 0

    def __repr__(self):
        return f"<{type(self).__name__} {self.name}({', '.join(self.names)})>"


cdef object zero_of_enum(object cls):
    """What an absent enum field reads as, in Kitex and here: number 0, whether the IDL names it or not. None for an
    enum without members, as emitted constructors have it."""
    for member in cls.__members__.values():
        if member == 0:
            return member
    return cls._missing_(0) if cls.__members__ else None


cdef tuple slot_offsets(object cls, tuple fields):
    """Where the slots of `fields` are in an instance of `cls`."""
    cdef list offsets = []
    cdef Py_ssize_t offset
    for field in fields:
        # Python mangles a slot whose name begins with two underscores.
        mangled = f"_{cls.__name__.lstrip('_')}{field.name}"
        descriptor = getattr(cls, field.name, None)
        if descriptor is None:
            descriptor = getattr(cls, mangled, None)
        if type(descriptor) is not MemberDescriptorType:
            raise TypeError(f"{cls.__name__}.{field.name} is not a slot: name the field in __slots__")
        offset = slot_offset(descriptor)
        if offset < 0 or not issubclass(cls, descriptor.__objclass__):
            raise TypeError(f"{cls.__name__}.{field.name} is not a slot for Python objects")
        offsets.append(offset)
    return tuple(offsets)


@cython.final
cdef class StructPlan(FieldTable):
    """Instances of one struct class ⇄ bytes. `define` makes it and sets it as `cls.__plan__`."""

    def __init__(self, cls, fields, *, is_union=False):
        if not (isinstance(cls, type) and issubclass(cls, StructBase)):
            raise TypeError(f"{cls!r} is not a stub.Struct")
        if self.nodes != NULL:
            raise TypeError("a plan is compiled once")
        self.cls = cls
        self.name = cls.__name__
        self.is_union = is_union
        self.is_direct = allocates_plainly(cls, StructBase)
        fields = tuple(fields)
        self.compile(fields, slot_offsets(cls, fields))
        if is_union:
            self.forget_defaults()

    cdef void forget_defaults(self) noexcept:
        """Members of a union that did not come are None: a zero value would count as a second member."""
        cdef int i
        for i in range(self.count):
            self.nodes[i].requiredness = OPTIONAL
            self.nodes[i].absent = FILL_VALUE
            self.nodes[i].filler = PyNone

    cdef object decode(self, Cursor* c, int depth):
        """Read one struct, from its first field to its STOP. `depth`: structs that are open around it."""
        cdef PyObject* value = read_struct(self, c, NULL, depth + 1)
        cdef object held = <object>value
        decref(value)
        return held

    cdef int encode(self, object value, WriteBuffer out) except -1:
        """Append one struct, STOP included; on an error `out` is as it was."""
        cdef Py_ssize_t start = out.n
        # Not isinstance: a mock may say that it is one.
        if not is_subtype(type_of(<PyObject*>value), <PyTypeObject*>self.cls):
            raise EncodeError(f"expected {self.cls.__name__}, got {type(value).__name__}", self.name)
        try:
            write_struct(self, value, out, NULL, 1)
        except BaseException:
            out.n = start
            raise
        return 0

    cdef object blank(self):
        """A new instance whose slots are empty."""
        if self.is_direct:
            return allocate(<PyTypeObject*>self.cls, 0)
        return self.cls.__new__(self.cls)

    def fill(self, value):
        """Fill the empty slots of an instance as decoding does; required fields become None."""
        if not is_subtype(type_of(<PyObject*>value), <PyTypeObject*>self.cls):
            raise TypeError(f"expected {self.cls.__name__}, got {type(value).__name__}")
        fill_absent(self, <void*><PyObject*>value, NULL)

    def loads(self, data):
        """Decode one struct that is all of `data` (bytes-like). ProtocolError when it is not."""
        return loads_with(self, data)

    def dumps(self, value):
        """Encode one instance. EncodeError names the field that does not fit."""
        cdef WriteBuffer out = WriteBuffer.__new__(WriteBuffer)
        self.encode(value, out)
        return PyBytes_FromStringAndSize(<char*>out.p, out.n)


cdef object loads_with(FieldTable table, object data):
    """Decode all of `data`."""
    cdef Cursor c
    cdef bytes content = data if type(data) is bytes else bytes(memoryview(data))
    cdef object value
    c.p = <const uint8_t*>PyBytes_AS_STRING(content)
    c.end = c.p + PyBytes_GET_SIZE(content)
    if isinstance(table, StructPlan):
        value = (<StructPlan>table).decode(&c, 0)
    elif isinstance(table, ArgsPlan):
        value = (<ArgsPlan>table).decode(&c)
    else:
        value = (<ResultPlan>table).decode(&c)
    if c.p != c.end:
        reason = f"{table.name}: {left(&c)} bytes behind the end of the struct"
        raise ProtocolError(reason, ProtocolErrorKind.INVALID_DATA)
    return value


cdef inline void open_root(Frame* frame, FieldTable table) noexcept:
    frame.up = NULL
    frame.table = <PyObject*>table
    frame.field = NULL
    frame.key = NULL
    frame.index = 0
    frame.depth = 0
    frame.kind = IN_STRUCT


@cython.final
cdef class ArgsPlan(FieldTable):
    """The arguments of one method ⇄ bytes: a tuple in the order of the IDL."""

    def __init__(self, str name not None, fields):
        if self.nodes != NULL:
            raise TypeError("a plan is compiled once")
        self.name = name
        fields = tuple(fields)
        self.compile(fields, tuple([tuple_offset(i) for i in range(len(fields))]))

    cdef tuple decode(self, Cursor* c):
        """Read an args struct. Absent arguments get their default or None."""
        cdef Frame frame
        cdef tuple args
        if not self.linked:
            self.link()
        open_root(&frame, self)
        args = new_tuple(self.count)
        read_fields(self, <void*><PyObject*>args, c, &frame)
        return args

    cdef int encode(self, tuple args, WriteBuffer out) except -1:
        """Append an args struct; on an error `out` is as it was."""
        cdef Frame frame
        cdef Py_ssize_t start = out.n
        if not self.linked:
            self.link()
        if args is None or PyTuple_GET_SIZE(args) != self.count:
            raise EncodeError(f"takes {self.count} arguments, got {'None' if args is None else len(args)}", self.name)
        open_root(&frame, self)
        try:
            write_fields(self, <void*><PyObject*>args, out, &frame)
        except BaseException:
            out.n = start
            raise
        return 0

    def loads(self, data):
        """Decode an args struct that is all of `data` into a tuple."""
        return loads_with(self, data)

    def dumps(self, tuple args not None):
        """Encode a tuple of arguments."""
        cdef WriteBuffer out = WriteBuffer.__new__(WriteBuffer)
        self.encode(args, out)
        return PyBytes_FromStringAndSize(<char*>out.p, out.n)


@cython.final
cdef class ResultPlan(FieldTable):
    """What one method gives back ⇄ bytes: field 0 is the value, other fields are the exceptions it declares."""

    def __init__(self, str name not None, result, throws=()):
        from codec.spec import OPTIONAL, Field

        if self.nodes != NULL:
            raise TypeError("a plan is compiled once")
        self.name = name
        self.has_value = result is not None
        fields = [Field(0, "result", result, OPTIONAL)] if self.has_value else []
        # Whatever the IDL says about its requiredness, at most one of these is there.
        fields += [Field(field.id, field.name, field.type, OPTIONAL) for field in throws]
        self.compile(tuple(fields), tuple([tuple_offset(i) for i in range(len(fields))]))

    cdef object decode(self, Cursor* c):
        """Read a result struct: return the value (None for void), or raise the exception that it holds."""
        cdef Frame frame
        cdef tuple members
        cdef int i
        cdef PyObject* member
        if not self.linked:
            self.link()
        open_root(&frame, self)
        members = new_tuple(self.count)
        read_fields(self, <void*><PyObject*>members, c, &frame)
        # Exceptions first, as Kitex does: an error must not be lost behind a value.
        for i in range(self.has_value, self.count):
            member = tuple_item(members, i)
            if member != PyNone:
                raise <object>member
        if not self.has_value:
            return None
        member = tuple_item(members, 0)
        if member == PyNone:
            raise ApplicationError(f"{self.name}: the reply has neither a result nor a declared exception",
                                   ApplicationErrorType.MISSING_RESULT)
        return <object>member

    cdef int encode_value(self, object value, WriteBuffer out) except -1:
        """Append a result struct with `value`, which is not looked at when the method is void."""
        if self.has_value:
            return self.encode_member(0, value, out)
        reserve(out, 1)
        out.p[out.n] = STOP
        out.n += 1
        return 0

    cdef int encode_exception(self, object exc, WriteBuffer out) except -1:
        """Append a result struct with `exc` and return 1; return 0, nothing written, when the IDL does not declare
        it."""
        cdef int i
        cdef PyTypeObject* actual = type_of(<PyObject*>exc)
        cdef PyTypeObject* declared
        cdef int best = -1
        if not self.linked:
            self.link()
        for i in range(self.has_value, self.count):
            declared = <PyTypeObject*>(<StructPlan>self.nodes[i].type.ref).cls
            if actual == declared:
                best = i
                break
            if best < 0 and is_subtype(actual, declared):
                best = i
        if best < 0:
            return 0
        self.encode_member(best, exc, out)
        return 1

    cdef int encode_member(self, int i, object value, WriteBuffer out) except -1:
        cdef Frame frame
        cdef FieldNode* field = &self.nodes[i]
        cdef Py_ssize_t start = out.n
        if not self.linked:
            self.link()
        open_root(&frame, self)
        frame.field = field
        try:
            reserve(out, HEADROOM)
            out.p[out.n] = field.wire
            put16(out.p + out.n + 1, field.id)
            out.n += 3
            write_value(field.type, <PyObject*>value, out, &frame)
            reserve(out, 1)
            out.p[out.n] = STOP
            out.n += 1
        except BaseException:
            out.n = start
            raise
        return 0

    def loads(self, data):
        """Decode a result struct that is all of `data`; raises the exception that it holds."""
        return loads_with(self, data)

    def dumps(self, value):
        """Encode a result struct that holds `value`."""
        cdef WriteBuffer out = WriteBuffer.__new__(WriteBuffer)
        self.encode_value(value, out)
        return PyBytes_FromStringAndSize(<char*>out.p, out.n)

    def dumps_exception(self, exc):
        """Encode a result struct that holds `exc`; None when the method does not declare it."""
        cdef WriteBuffer out = WriteBuffer.__new__(WriteBuffer)
        if not self.encode_exception(exc, out):
            return None
        return PyBytes_FromStringAndSize(<char*>out.p, out.n)


# -------------------------------------------------------------------------------------------------------------- values


# Values that a peer chose are put into sets, so their hashes must not be foreseeable: with known ones, a megabyte of
# structs that all collide keeps a worker busy for a minute. The secrets follow PYTHONHASHSEED, as the hash of str
# does. Nor are ints taken by Python's hash: it is the number modulo 2**61 - 1, so that each i64 has up to eight
# others like it.
cdef uint64_t SECRET_1 = <uint64_t><Py_hash_t>hash("weego: first secret of the hash of structs")
cdef uint64_t SECRET_2 = <uint64_t><Py_hash_t>hash("weego: second secret of the hash of structs")


cdef inline uint64_t mix(uint64_t sum, uint64_t lane) noexcept:
    return fold(lane ^ SECRET_1, sum ^ SECRET_2)


cdef int add_lane(uint64_t* sum, object value) except -1:
    """Mix the hash of one value into `sum`: equal values do the same, also those that Python does not hash, like a
    list."""
    cdef int overflow = 0
    cdef int64_t number
    cdef double real
    if is_text(<PyObject*>value):
        sum[0] = mix(sum[0], <uint64_t>hash(value))
        return 0
    if is_long(<PyObject*>value):
        number = long_value(<PyObject*>value, &overflow)
        sum[0] = mix(sum[0], <uint64_t><Py_hash_t>hash(value) if overflow else <uint64_t>number)
        return 0
    if is_float(<PyObject*>value):
        # 1.0 equals 1. The bounds are exact: powers of two are doubles.
        real = float_value(<PyObject*>value)
        if -9223372036854775808.0 <= real < 9223372036854775808.0 and real == <double><int64_t>real:
            sum[0] = mix(sum[0], <uint64_t><int64_t>real)
            return 0
    elif PyList_Check(value) or PyDict_Check(value):
        sum[0] = mix(sum[0], <uint64_t>container_hash(value))
        return 0
    elif isinstance(value, set):
        value = frozenset(value)
    elif PyByteArray_Check(value):
        value = bytes(value)
    sum[0] = mix(sum[0], <uint64_t><Py_hash_t>hash(value))
    return 0


cdef Py_hash_t container_hash(object value) except -1:
    """The hash of a list or a dict."""
    cdef uint64_t one, all = 0
    cdef object key, item
    enter_recursion(" while hashing a value")
    try:
        if PyList_Check(value):
            for item in <list>value:
                add_lane(&all, item)
        else:
            for key, item in (<dict>value).items():
                one = 0
                add_lane(&one, key)
                add_lane(&one, item)
                # Addition, for the order of a dict is not part of its value.
                all += one
    finally:
        leave_recursion()
    return settled(all)


cdef inline Py_hash_t settled(uint64_t sum) noexcept:
    cdef Py_hash_t value = <Py_hash_t>sum
    return -2 if value == -1 else value


def value_hash(value):
    """Hash of `value` as a struct's field contributes it: equal values have equal hashes, lists and dicts included."""
    cdef uint64_t sum = 0
    if PyList_Check(value) or PyDict_Check(value):
        return container_hash(value)
    add_lane(&sum, value)
    return settled(sum)


cdef class StructBase:
    """What all structs have that must be fast: equality, hash and copy by value. It has no fields, so that exceptions
    can be structs too."""

    def __eq__(self, other):
        cdef StructPlan plan
        cdef PyObject* mine
        cdef PyObject* theirs
        cdef object held, other_held
        cdef int i
        if self is other:
            return True
        if type(self) is not type(other):
            return NotImplemented
        plan = plan_of(type(self))
        enter_recursion(" while comparing structs")
        try:
            for i in range(plan.count):
                mine = slot(<void*><PyObject*>self, plan.nodes[i].offset)[0]
                theirs = slot(<void*><PyObject*>other, plan.nodes[i].offset)[0]
                if mine == theirs:
                    continue
                if mine == NULL or theirs == NULL:
                    return False
                # Comparing may run foreign code, which may empty the slots.
                held = <object>mine
                other_held = <object>theirs
                if not same_value(held, other_held, Py_EQ):
                    return False
        finally:
            leave_recursion()
        return True

    def __hash__(self):
        cdef StructPlan plan = plan_of(type(self))
        cdef PyObject* value
        cdef object held
        cdef uint64_t sum = 0
        cdef int i
        enter_recursion(" while hashing a struct")
        try:
            for i in range(plan.count):
                value = slot(<void*><PyObject*>self, plan.nodes[i].offset)[0]
                if value != NULL:
                    held = <object>value
                    add_lane(&sum, held)
        finally:
            leave_recursion()
        return settled(sum)

    def __copy__(self):
        """A shallow copy."""
        cdef StructPlan plan = plan_of(type(self))
        cdef object new
        cdef PyObject* value
        cdef int i
        if type(self) is not plan.cls or not plan.is_direct:
            # A subclass may have more slots or a __dict__.
            new = type(self).__new__(type(self))
            new.__setstate__(object.__getstate__(self))
            return new
        new = plan.blank()
        for i in range(plan.count):
            value = slot(<void*><PyObject*>self, plan.nodes[i].offset)[0]
            if value != NULL:
                incref(value)
                slot(<void*><PyObject*>new, plan.nodes[i].offset)[0] = value
        return new
