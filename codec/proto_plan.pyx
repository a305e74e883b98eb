# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False, auto_pickle=False
"""Compiled field tables of native Protobuf messages: struct with slots ⇄ Protobuf's wire format.

The counterpart of plan.py for Thrift: `define_proto` turns the field table of a class into a `ProtoPlan`, a C array with each field's tag, kind
and slot, and reading and writing walk it without dicts, attribute look-ups or Python calls per field. proto_decode.pxi, proto_encode.pxi and
proto_values.pxi are parts of this extension.

The rules, each with a test (where protobuf's own implementations differ, upb is followed):

1.  Nothing is believed. A length is compared with what is left of the message around it, before anything is made of it.
2.  Depth is bounded to MAX_DEPTH in both directions, messages, groups and skipped groups together.
3.  What this IDL does not know is kept, byte for byte, and written behind the known fields: fields with unknown numbers, known ones with
    another wire type, numbers that a closed enum does not name.
4.  A singular field that comes twice: the last scalar wins, messages are merged. A oneof keeps the member that came last.
5.  Repeated scalars are read packed and unpacked, however they are written here.
6.  Text is checked for UTF-8 where the IDL's edition says so (proto3); elsewhere other bytes pass through as lone surrogates.
7.  A required field that is missing is an error in both directions, wherever it is; reading looks when the whole message is there, for
    the other half of a message may come later.
8.  Errors name the whole path, `Request.items[3].name`. A failed encode leaves the buffer as it was.
9.  Each slot is filled when decoding ends, but that of unknown fields; containers are held while their elements are encoded.
10. Memory is bounded beside bytes: a message of two bytes may become an object of hundreds. Messages and entries of maps are charged before they
    are made, against what the caller of `decode` allows; numbers and text take no more than a small multiple of their bytes.
"""

cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_Check, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_Check, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_Check, PyDict_New, PyDict_Next, PyDict_SetItem, PyDict_Size
from cpython.exc cimport PyErr_Clear, PyErr_Occurred
from cpython.list cimport PyList_Append, PyList_Check, PyList_GET_SIZE, PyList_New
from cpython.object cimport PyObject, PyTypeObject
from cpython.tuple cimport PyTuple_Check, PyTuple_GET_SIZE
from libc.stdint cimport INT32_MAX, INT32_MIN, UINT32_MAX, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memmove, memset

from codec.buffer cimport WriteBuffer, reserve
from codec.bytes_buffer cimport LARGE, BytesBuffer

from types import MemberDescriptorType

from codec.errors import EncodeError, ProtocolError, ProtocolErrorKind
from codec.plan import DEFAULT_MAX_DECODED
from codec.proto_fields import ProtoMap, kind_of
from codec.spec import ABSENT

# Messages may nest this deep: what protobuf's own parsers allow unless told otherwise.
MAX_DEPTH = 100
cdef int64_t MOST = DEFAULT_MAX_DECODED

cdef extern from "objects.h":
    PyObject** slot "weego_slot_at"(void* base, Py_ssize_t offset) noexcept
    Py_ssize_t offset_of "weego_offset_of"(object descriptor)
    int small_int "weego_usual_int"(PyObject* v, int64_t* number) noexcept
    PyObject* long_from "weego_int_from"(int64_t v) except NULL
    PyObject* str_from "weego_str"(const char* s, Py_ssize_t n, int lenient) noexcept
    int varint_size "weego_varint_size"(uint64_t v) noexcept
    uint8_t* put_varint "weego_put_varint"(uint8_t* p, uint64_t v) noexcept
    Py_ssize_t get_varint_ints "weego_get_varint_ints"(PyObject** items, Py_ssize_t n, const uint8_t** p, const uint8_t* end) noexcept
    PyObject** list_items "weego_list_items"(PyObject* items) noexcept
    const uint8_t* get_varint "weego_get_varint"(const uint8_t* p, const uint8_t* end, uint64_t* value) noexcept
    Py_ssize_t count_varints "weego_count_varints"(const uint8_t* p, const uint8_t* end) noexcept
    uint32_t le32 "weego_le32"(const uint8_t* p) noexcept
    uint64_t le64 "weego_le64"(const uint8_t* p) noexcept
    void put_le32 "weego_put_le32"(uint8_t* p, uint32_t v) noexcept
    void put_le64 "weego_put_le64"(uint8_t* p, uint64_t v) noexcept
    ctypedef PyObject* (*vectorcall "weego_vectorcall")(PyObject*, PyObject**, size_t, PyObject*) except NULL
    void set_vectorcall "weego_set_vectorcall"(object cls, vectorcall f) noexcept
    PyObject* call_plainly "weego_call_plainly"(PyObject* cls, PyObject** args, size_t nargsf, PyObject* names) except NULL
    int allocates_plainly "weego_allocates_plainly"(object cls, object base) noexcept
    int enter_recursion "weego_enter_recursion"(const char* where) except -1

    # The interpreter's own calls, with plain pointers: ownership is managed by hand where it pays.
    PyObject* generic_alloc "PyType_GenericAlloc"(PyTypeObject* cls, Py_ssize_t items) except NULL
    Py_ssize_t vectorcall_nargs "PyVectorcall_NARGS"(size_t nargsf) noexcept
    ctypedef struct PyVarObject:
        pass
    void set_list_item "PyList_SET_ITEM"(object items, Py_ssize_t i, PyObject* value) noexcept
    void set_size "Py_SET_SIZE"(PyVarObject* items, Py_ssize_t n) noexcept
    PyObject* list_item "PyList_GET_ITEM"(object items, Py_ssize_t i) noexcept
    PyObject* tuple_item "PyTuple_GET_ITEM"(object items, Py_ssize_t i) noexcept
    Py_ssize_t raw_tuple_size "PyTuple_GET_SIZE"(PyObject* items) noexcept
    PyObject* raw_tuple_item "PyTuple_GET_ITEM"(PyObject* items, Py_ssize_t i) noexcept
    PyObject* unsigned_from "PyLong_FromUnsignedLongLong"(unsigned long long v) except NULL
    PyObject* float_from "PyFloat_FromDouble"(double v) except NULL
    PyObject* bytes_from "PyBytes_FromStringAndSize"(const char* s, Py_ssize_t n) except NULL
    long long long_value "PyLong_AsLongLongAndOverflow"(PyObject* v, int* overflow) except? -1
    unsigned long long unsigned_value "PyLong_AsUnsignedLongLong"(PyObject* v) except? 0xFFFFFFFFFFFFFFFF
    double long_as_double "PyLong_AsDouble"(PyObject* v) except? -1.0
    const char* utf8_of "PyUnicode_AsUTF8AndSize"(PyObject* v, Py_ssize_t* n) except NULL
    int is_compact_ascii "PyUnicode_IS_COMPACT_ASCII"(PyObject* v) noexcept
    void* ascii_data "PyUnicode_DATA"(PyObject* v) noexcept
    Py_ssize_t text_length "PyUnicode_GET_LENGTH"(PyObject* v) noexcept
    int is_text "PyUnicode_Check"(PyObject* v) noexcept
    int is_long "PyLong_Check"(PyObject* v) noexcept
    int is_bool "PyBool_Check"(PyObject* v) noexcept
    int is_exact_long "PyLong_CheckExact"(PyObject* v) noexcept
    int is_float "PyFloat_Check"(PyObject* v) noexcept
    double float_value "PyFloat_AS_DOUBLE"(PyObject* v) noexcept
    int is_subtype "PyType_IsSubtype"(PyTypeObject* a, PyTypeObject* b) noexcept
    PyTypeObject* type_of "Py_TYPE"(PyObject* v) noexcept
    void incref "Py_INCREF"(PyObject* v) noexcept
    void decref "Py_DECREF"(PyObject* v) noexcept
    int same_value "PyObject_RichCompareBool"(object a, object b, int op) except -1
    PyObject* type_attribute "_PyType_Lookup"(PyTypeObject* cls, object name) noexcept
    void leave_recursion "Py_LeaveRecursiveCall"() noexcept
    void intern "PyUnicode_InternInPlace"(PyObject** text) noexcept
    int is_exact_text "PyUnicode_CheckExact"(PyObject* v) noexcept
    PyObject* PyTrue "Py_True"
    PyObject* PyFalse "Py_False"
    PyObject* PyNone "Py_None"
    int Py_EQ

cdef enum:
    DEPTH = 100             # MAX_DEPTH for C
    # Room that a writer finds when it is called: a tag, a length and the largest scalar, rounded up.
    HEADROOM = 32
    # A field whose number is up to this one is found through a table, larger ones by search.
    MAX_INDEXED_NUMBER = 1023
    # Enum numbers up to this one are found through a tuple, others through a dict.
    MAX_DENSE_ENUM = 255
    # Places of a list that are made ahead; a packed field of a megabyte may hold a million elements, and does not need them at once.
    PREALLOCATE = 4096
    # Bytes of memory, of CPython 3.11 on 64 bits: what a message is charged with beside its own size.
    GC_HEAD = 16
    LIST_WEIGHT = 56
    DICT_WEIGHT = 64
    # A map's entry: its slot in a dict that grows, and a short key.
    ENTRY_WEIGHT = 160

cdef enum Wire:
    VARINT = 0
    FIXED64 = 1
    DELIMITED = 2
    START_GROUP = 3
    END_GROUP = 4
    FIXED32 = 5

cdef enum Kind:
    K_DOUBLE = 1
    K_FLOAT = 2
    K_INT64 = 3
    K_UINT64 = 4
    K_INT32 = 5
    K_FIXED64 = 6
    K_FIXED32 = 7
    K_BOOL = 8
    K_STRING = 9
    K_GROUP = 10
    K_MESSAGE = 11
    K_BYTES = 12
    K_UINT32 = 13
    K_ENUM = 14
    K_SFIXED32 = 15
    K_SFIXED64 = 16
    K_SINT32 = 17
    K_SINT64 = 18

cdef enum Shape:
    SINGLE = 0
    REPEATED = 1
    MAP = 2

cdef enum PresenceKind:
    IMPLICIT = 0
    EXPLICIT = 1
    REQUIRED = 2

cdef enum ErrorKind:
    # ProtocolErrorKind for C.
    INVALID_DATA = 1
    SIZE_LIMIT = 3
    DEPTH_LIMIT = 6

assert MAX_DEPTH == DEPTH

# Wire type of each kind, by its number.
cdef uint8_t[19] WIRES
for _kind, _wire in enumerate((0, 1, 5, 0, 0, 0, 1, 5, 0, 2, 3, 2, 2, 0, 0, 5, 1, 0, 0)):
    WIRES[_kind] = _wire
cdef dict ZEROS = {K_DOUBLE: 0.0, K_FLOAT: 0.0, K_BOOL: False, K_STRING: "", K_BYTES: b""}
cdef str PLAN_NAME = "__plan__"
cdef str UNKNOWN_NAME = "_unknown"


# -------------------------------------------------------------------------------------------------------------- errors


cdef str shown_key(PyObject* key):
    cdef object value = <object>key
    cdef str text
    if type(value) is not str and type(value) is not int and type(value) is not bool:
        return f"<{type(value).__name__}>"
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


cdef str path_of(ProtoFrame* frame):
    """The place where the work is, from the outside in: `Request.items[3].name`."""
    cdef list parts = []
    cdef ProtoPlan plan
    while frame != NULL:
        plan = <ProtoPlan>frame.plan
        if frame.field != NULL:
            if frame.field.shape == MAP:
                parts.append("[key]" if frame.key == NULL else f"[{shown_key(frame.key)}]")
            elif frame.field.shape == REPEATED:
                parts.append(f"[{frame.index}]")
            parts.append("." + <str>plan.slots[frame.field - plan.nodes])
        if frame.up == NULL:
            parts.append(plan.name)
        frame = frame.up
    parts.reverse()
    return "".join(parts)


cdef int broken(ProtoFrame* frame, int kind, str reason) except -1:
    """Raise ProtocolError: the bytes at `frame` break the rules."""
    raise ProtocolError(f"{path_of(frame)}: {reason}", ProtocolErrorKind(kind))


cdef int unfit(ProtoFrame* frame, str reason) except -1:
    """Raise EncodeError: the value at `frame` does not fit its IDL type."""
    raise EncodeError(reason, path_of(frame))


cdef int mistyped(ProtoFrame* frame, str expected, PyObject* value) except -1:
    return unfit(frame, f"expected {expected}, got {type(<object>value).__name__}")


include "proto_decode.pxi"
include "proto_encode.pxi"


# ----------------------------------------------------------------------------------------------------------- compiling


@cython.final
cdef class ProtoEnum:
    """Numbers ⇄ members of one enum."""

    cdef object cls
    cdef dict by_number
    cdef tuple dense        # members by number, None where there is none

    def __init__(self, cls):
        cdef Py_ssize_t top = -1
        self.cls = cls
        self.by_number = {}
        for member in cls.__members__.values():
            self.by_number.setdefault(int(member), member)
        for number in self.by_number:
            if top < number <= MAX_DENSE_ENUM:
                top = number
        self.dense = tuple([self.by_number.get(number) for number in range(top + 1)])

    cdef object known(self, int32_t number):
        """The member of that number, or None."""
        if 0 <= number < PyTuple_GET_SIZE(self.dense):
            return <object>tuple_item(self.dense, number)
        return self.by_number.get(number)

    cdef object member(self, int32_t number):
        """The member of that number, or one made for it and forgotten: a peer must not make this process grow."""
        cdef object found = self.known(number)
        return self.cls._missing_(number) if found is None else found


cdef object undefined(object cls):
    name = f"{cls.__module__}.{cls.__qualname__}"
    return TypeError(f"{name} has no field table: stub.define_proto({cls.__name__}, ...) is missing")


cdef ProtoPlan own_plan(object cls):
    """The plan of exactly this class."""
    plan = cls.__dict__.get(PLAN_NAME)
    if type(plan) is not ProtoPlan or (<ProtoPlan>plan).cls is not cls:
        raise undefined(cls)
    return <ProtoPlan>plan


cdef inline ProtoPlan plan_of(object cls):
    """The plan that serves instances of `cls`: its own or an inherited one."""
    cdef PyObject* plan = type_attribute(<PyTypeObject*>cls, PLAN_NAME)
    if plan == NULL or type(<object>plan) is not ProtoPlan:
        raise undefined(cls)
    return <ProtoPlan>plan


cdef int set_tag(ProtoNode* node, uint32_t number, uint32_t wire) except -1:
    cdef uint8_t* end
    node.number = number
    node.tag = number << 3 | wire
    end = put_varint(node.tag_bytes, node.tag)
    node.tag_size = <uint8_t>(end - node.tag_bytes)
    return 0


cdef int set_type(ProtoNode* node, object type_, int group, list keep) except -1:
    """Kind, wire type and what they refer to; the tag is not touched."""
    cdef object target = None
    node.kind = kind_of(type_, group)
    node.wire = WIRES[node.kind]
    node.length_size = 1
    if node.kind == K_ENUM:
        target = ProtoEnum(type_)
    elif node.kind == K_MESSAGE or node.kind == K_GROUP:
        target = type_
    keep.append(target)
    node.ref = <PyObject*>target
    return 0


cdef object zero_of(ProtoNode* node, object type_):
    """What an implicit field is that did not come."""
    if node.kind == K_ENUM:
        return (<ProtoEnum>node.ref).member(0)
    if node.kind == K_MESSAGE or node.kind == K_GROUP:
        return None
    return ZEROS.get(node.kind, 0)


@cython.final
cdef class ProtoPlan:
    """Instances of one message class ⇄ bytes. `define_proto` makes it and sets it as `cls.__plan__`."""

    def __cinit__(self):
        self.nodes = NULL
        self.by_number = NULL
        self.by_number_size = 0
        self.count = 0
        self.linked = False
        self.has_required = False
        self.keep = []

    def __dealloc__(self):
        cdef int i
        for i in range(self.count):
            free(self.nodes[i].pair)
        free(self.nodes)
        free(self.by_number)

    def __init__(self, cls, str full_name not None, fields):
        if not (isinstance(cls, type) and issubclass(cls, ProtoBase)):
            raise TypeError(f"{cls!r} is not a stub.ProtoStruct")
        if self.nodes != NULL:
            raise TypeError("a plan is compiled once")
        self.cls = cls
        self.name = cls.__qualname__
        self.full_name = full_name
        self.is_direct = allocates_plainly(cls, ProtoBase)
        self.fields = tuple(fields)
        self.names = tuple([field.name for field in self.fields])
        self.compile()

    cdef int compile(self) except -1:
        """Build the C tables."""
        cdef ProtoNode* node
        cdef int i, top = -1
        cdef dict oneofs = {}, seen = {}
        cdef list ordered = sorted(self.fields, key=lambda field: field.number)
        for field in ordered:
            if field.number in seen:
                raise ValueError(f"{self.name}: fields {seen[field.number]!r} and {field.name!r} have the same number {field.number}")
            seen[field.number] = field.name
            if top < field.number <= MAX_INDEXED_NUMBER:
                top = field.number
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"{self.name}: two fields have the same name, of {', '.join(self.names)}")
        self.slots = tuple([field.name for field in ordered])
        self.unknown_offset = slot_offset(self.cls, UNKNOWN_NAME)
        # The object, the garbage collector's head, and the containers that are made with it.
        self.weight = self.cls.__basicsize__ + GC_HEAD
        for field in ordered:
            self.weight += DICT_WEIGHT if isinstance(field.type, ProtoMap) else LIST_WEIGHT if field.repeated else 0
        self.nodes = <ProtoNode*>calloc(len(ordered) + 1, sizeof(ProtoNode))
        self.by_number = <short*>malloc((top + 1) * sizeof(short) + 1)
        if self.nodes == NULL or self.by_number == NULL:
            raise MemoryError("no memory for a codec plan")
        memset(self.by_number, 0xFF, (top + 1) * sizeof(short))
        self.by_number_size = top + 1
        for i, field in enumerate(ordered):
            node = &self.nodes[i]
            self.count = i + 1
            node.offset = slot_offset(self.cls, field.name)
            node.sibling = i
            node.utf8 = field.utf8
            node.closed = field.closed
            node.packed = field.packed
            node.presence = {"implicit": IMPLICIT, "explicit": EXPLICIT, "required": REQUIRED}[field.presence]
            if isinstance(field.type, ProtoMap):
                node.shape = MAP
                node.kind = K_MESSAGE
                node.wire = DELIMITED
                node.length_size = 1
                self.compile_map(node, field)
            else:
                node.shape = REPEATED if field.repeated else SINGLE
                set_type(node, field.type, field.group, self.keep)
            if node.presence == REQUIRED:
                self.has_required = True
            set_tag(node, field.number, DELIMITED if node.packed else node.wire)
            filler = zero_of(node, field.type) if node.presence == IMPLICIT and node.shape == SINGLE else None
            self.keep.append(filler)
            node.filler = <PyObject*>filler
            if field.number <= top:
                self.by_number[<int>field.number] = <short>i
            if field.oneof is not None:
                oneofs.setdefault(field.oneof, []).append(i)
        for members in oneofs.values():
            for i, index in enumerate(members):
                self.nodes[<int>index].sibling = members[(i + 1) % len(members)]
        return 0

    cdef int compile_map(self, ProtoNode* node, object field) except -1:
        cdef ProtoNode* pair = <ProtoNode*>calloc(2, sizeof(ProtoNode))
        if pair == NULL:
            raise MemoryError("no memory for a codec plan")
        node.pair = pair
        for i, type_ in enumerate((field.type.key, field.type.value)):
            set_type(&pair[i], type_, False, self.keep)
            set_tag(&pair[i], i + 1, pair[i].wire)
            pair[i].utf8 = field.utf8
            pair[i].closed = field.closed
            filler = zero_of(&pair[i], type_)
            self.keep.append(filler)
            pair[i].filler = <PyObject*>filler
        return 0

    cdef int link(self) except -1:
        """Resolve the messages that the fields refer to. Late, for emitted tables refer to each other in any order."""
        cdef int i
        self.linked = True
        try:
            for i in range(self.count):
                self.link_node(&self.nodes[i])
                if self.nodes[i].pair != NULL:
                    self.link_node(&self.nodes[i].pair[1])
        except BaseException:
            self.linked = False
            raise
        return 0

    cdef int link_node(self, ProtoNode* node) except -1:
        cdef object target
        if (node.kind == K_MESSAGE or node.kind == K_GROUP) and node.shape != MAP and type(<object>node.ref) is not ProtoPlan:
            target = own_plan(<object>node.ref)
            self.keep.append(target)
            node.ref = <PyObject*>target
        return 0

    cdef object blank(self):
        """A new instance whose slots are empty."""
        cdef PyObject* made
        cdef object held
        if self.is_direct:
            made = generic_alloc(<PyTypeObject*>self.cls, 0)
            held = <object>made
            decref(made)
            return held
        return self.cls.__new__(self.cls)

    cdef object decode(self, const uint8_t* p, const uint8_t* end, int64_t budget):
        """Read one message that is all of the bytes from `p` to `end`, and may take `budget` bytes of memory."""
        return read_root(self, p, end, budget)

    cdef int encode(self, object value, WriteBuffer out) except -1:
        """Append one message; on an error `out` is as it was."""
        cdef Py_ssize_t start = out.n
        if not is_subtype(type_of(<PyObject*>value), <PyTypeObject*>self.cls):
            raise EncodeError(f"expected {self.name}, got {type(value).__name__}", self.name)
        try:
            write_root(self, value, out)
        except BaseException:
            out.n = start
            raise
        return 0

    def fill(self, value):
        """Fill the empty slots of an instance as decoding does; required fields become None."""
        if not is_subtype(type_of(<PyObject*>value), <PyTypeObject*>self.cls):
            raise TypeError(f"expected {self.name}, got {type(value).__name__}")
        fill_absent(self, <void*><PyObject*>value)

    def loads(self, data):
        """Decode one message that is all of `data` (bytes-like). ProtocolError when it is not one."""
        cdef bytes content = data if type(data) is bytes else bytes(memoryview(data))
        cdef const uint8_t* p = <const uint8_t*>PyBytes_AS_STRING(content)
        return read_root(self, p, p + PyBytes_GET_SIZE(content), MOST)

    def dumps(self, value):
        """Encode one instance. EncodeError names the field that does not fit."""
        cdef WriteBuffer out
        cdef bytes data
        if self.is_large:
            return self.dumps_large(value)
        out = take_scratch()
        try:
            self.encode(value, out)
            data = PyBytes_FromStringAndSize(<char*>out.p, out.n)
            self.is_large = out.n > LARGE
        finally:
            give_scratch(out)
        return data

    cdef bytes dumps_large(self, object value):
        """The same for a type whose last message was large: written into the bytes object itself, which saves copying it."""
        cdef BytesBuffer out = BytesBuffer.__new__(BytesBuffer)
        self.encode(value, out)
        self.is_large = out.n > LARGE
        return out.finish()

    def __repr__(self):
        return f"<ProtoPlan {self.full_name}({', '.join(self.names)})>"


# Most messages are small: one buffer serves them all, one after the other. It is taken while it is in use, and a large one is given back.
cdef WriteBuffer _scratch = WriteBuffer.__new__(WriteBuffer)
cdef Py_ssize_t KEPT_SCRATCH = 262144


cdef inline WriteBuffer take_scratch():
    global _scratch
    cdef WriteBuffer out = _scratch
    if out is None:
        return WriteBuffer.__new__(WriteBuffer)
    _scratch = None
    return out


cdef inline int give_scratch(WriteBuffer out) except -1:
    global _scratch
    out.n = 0
    if out.cap <= KEPT_SCRATCH:
        _scratch = out
    return 0


cdef Py_ssize_t slot_offset(object cls, str name) except -1:
    """Where the slot `name` is in an instance of `cls`."""
    cdef Py_ssize_t offset
    mangled = f"_{cls.__name__.lstrip('_')}{name}"  # what Python makes of two leading underscores
    descriptor = getattr(cls, name, None)
    if descriptor is None:
        descriptor = getattr(cls, mangled, None)
    if type(descriptor) is not MemberDescriptorType:
        raise TypeError(f"{cls.__name__}.{name} is not a slot: name the field in __slots__")
    offset = offset_of(descriptor)
    if offset < 0 or not issubclass(cls, descriptor.__objclass__):
        raise TypeError(f"{cls.__name__}.{name} is not a slot for Python objects")
    return offset


include "proto_values.pxi"
