# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False, auto_pickle=False
"""Compiled field tables: struct ⇄ Thrift binary and compact, the hottest code of weego.

How it works. `define` turns the field table of a struct into a `StructPlan`: a C array with, for each field, its id,
its wire type, the offset of its slot in the object, and the tree of its type. Decoding allocates the object and
stores values through the offsets; encoding reads them the same way. No dict, no attribute lookup, no Python call per
field. Arguments are the same thing with a tuple for the object, for a tuple's items have offsets too.

One plan serves both protocols: only the innermost readers and writers differ. One extension in several files, so that the compiler sees it
whole: the plans are here; the plan_*.pxi beside it say in their first line what they do.

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
9.  Memory is bounded beside bytes: a struct of one byte may become an object of hundreds. Each struct and container is charged with about
    what it takes before it is made, against what `grant` allowed for the message.
10. Fields that the IDL does not know are dropped, unless the class has the slot `__unknown__`: it keeps them, as binary, and they are written
    behind the others.
"""

cimport cython
from cpython.buffer cimport PyBuffer_IsContiguous
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_Check, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_Check, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_Check, PyDict_New, PyDict_Next, PyDict_SetItem, PyDict_Size
from cpython.exc cimport PyErr_Clear
from cpython.list cimport PyList_Append, PyList_AsTuple, PyList_Check, PyList_GET_SIZE, PyList_New
from cpython.memoryview cimport PyMemoryView_GET_BUFFER
from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_INCREF
from cpython.set cimport PyAnySet_Check, PySet_Add, PySet_Size
from cpython.tuple cimport PyTuple_Check, PyTuple_GET_SIZE
from libc.stdint cimport INT8_MAX, INT8_MIN, INT16_MAX, INT16_MIN, INT32_MAX, INT32_MIN
from libc.stdint cimport INT64_MAX, int16_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from codec.bytes_buffer cimport LARGE, BytesBuffer
from codec.buffer cimport APART, Cursor, Piece, ReadBuffer, WriteBuffer, get16, get32, get64, left, put16, put32, put64, reserve

import uuid
from types import MemberDescriptorType

from codec import types as _types
from codec.errors import ApplicationError, ApplicationErrorType, EncodeError, ProtocolError, ProtocolErrorKind

# Structs may nest this deep. Kitex skips, and Apache Thrift reads, no deeper (gopkg `defaultRecursionDepth`,
# Apache `DEFAULT_RECURSION_DEPTH`), so a deeper message would not be understood elsewhere either.
MAX_DEPTH = 64

cdef extern from "objects.h":
    int usual_int "weego_usual_int"(PyObject* v, int64_t* number) noexcept
    PyObject* long_from "weego_int_from"(int64_t v) except NULL
    Py_ssize_t put_i64s "weego_put_i64s"(PyObject** items, Py_ssize_t n, uint8_t* p) noexcept
    Py_ssize_t get_i64s "weego_get_i64s"(PyObject** items, Py_ssize_t n, const uint8_t* p) noexcept
    PyObject** list_items "weego_list_items"(PyObject* items) noexcept

# Was the last message that `dumps` wrote a large one? Then the next most likely is, and is written where it stays.
cdef bint last_was_large = False

cdef extern from *:
    """
    static inline uint64_t weego_fold(uint64_t a, uint64_t b) {
        unsigned __int128 product = (unsigned __int128)a * b;
        return (uint64_t)product ^ (uint64_t)(product >> 64);
    }
    #define weego_tuple_offset(i) ((Py_ssize_t)(offsetof(PyTupleObject, ob_item) + (i) * sizeof(PyObject *)))
    """
    Py_ssize_t slot_offset "weego_offset_of"(object descriptor)
    PyObject** slot "weego_slot_at"(void* base, Py_ssize_t offset) noexcept
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
    # Bytes that the collector of garbage keeps before each object of a class.
    GC_HEAD = 16
    # Room that a writer finds when it is called: a field's header and the largest value of fixed size, rounded up.
    HEADROOM = 24
    # A field whose id is up to this one is found through a table, larger and negative ones by search.
    MAX_INDEXED_ID = 1023
    # Enum numbers up to this one are found through a tuple, others through a dict.
    MAX_DENSE_ENUM = 255

cdef enum Compact:
    # Types as Thrift's compact protocol numbers them.
    C_TRUE = 1
    C_FALSE = 2
    C_BYTE = 3
    C_I16 = 4
    C_I32 = 5
    C_I64 = 6
    C_DOUBLE = 7
    C_BINARY = 8
    C_LIST = 9
    C_SET = 10
    C_MAP = 11
    C_STRUCT = 12
    C_UUID = 13

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
    VIEW = 19               # a binary that is decoded to a memoryview

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
cdef str NUMBERS_NAME = "__numbers__"
cdef str UNKNOWN_NAME = "__unknown__"

# Compact's number for each of binary's wire types, and the other way round; 0 where there is none.
cdef uint8_t[17] TO_COMPACT = [0, 0, C_TRUE, C_BYTE, C_DOUBLE, 0, C_I16, 0, C_I32, 0, C_I64, C_BINARY, C_STRUCT, C_MAP, C_SET, C_LIST, C_UUID]
cdef uint8_t[16] FROM_COMPACT = [0, BOOL, BOOL, BYTE, I16, I32, I64, DOUBLE, STRING, LIST, SET, MAP, STRUCT, UUID, 0, 0]


# -------------------------------------------------------------------------------------------------------------- memory

# Bytes of memory that one message may become, unless its protocol grants another number: sixteen times the largest message. Numbers in lists
# take five times their bytes, short texts ten times; what takes more is a list of next to nothing.
DEFAULT_MAX_DECODED = 256 * 2**20

cdef int64_t MOST = DEFAULT_MAX_DECODED
cdef int64_t granted = MOST
cdef int64_t budget = MOST

cdef enum:
    # Bytes of an empty container with what the collector of garbage keeps beside it, measured on CPython 3.11.
    LIST_WEIGHT = 72
    SET_WEIGHT = 232
    DICT_WEIGHT = 80
    # And of one more element or entry, without what it holds.
    SET_SLOT = 48
    DICT_SLOT = 104


cdef void grant(int64_t size) noexcept:
    global granted
    granted = size


cdef inline void open_budget() noexcept:
    """A message begins."""
    global budget, granted
    budget = granted
    granted = MOST


cdef inline int spend(int64_t size, Frame* frame) except -1:
    """Charge for what is about to be made."""
    global budget
    budget -= size
    if budget < 0:
        broken(frame, SIZE_LIMIT, "the message would take more memory, once decoded, than its limit allows")
    return 0


cdef int32_t weight_of(uint8_t kind) noexcept:
    """What an element of this kind takes beside its place."""
    if kind == STRING or kind == BINARY:
        return 56
    if kind == VIEW:
        return 320
    if kind == I32 or kind == I64 or kind == I16 or kind == DOUBLE:
        return 32
    if kind == UUID:
        return 120
    return 0


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


include "plan_skip.pxi"
include "plan_binary.pxi"
include "plan_decode.pxi"
include "plan_encode.pxi"
include "plan_compact_skip.pxi"
include "plan_compact_decode.pxi"
include "plan_compact_encode.pxi"
include "plan_unknown.pxi"


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


cdef EnumTable enum_table(object cls):
    """The table of an enum, kept by the class itself: every field of that type needs it, and making one walks over all members."""
    table = cls.__dict__.get(NUMBERS_NAME)
    if not isinstance(table, EnumTable):
        table = EnumTable(cls)
        setattr(cls, NUMBERS_NAME, table)
    return <EnumTable>table


cdef TypeNode* new_node(object type, int frozen, list keep) except NULL:
    """The tree of one type. Whatever it points to is appended to `keep`."""
    cdef object target = None
    cdef TypeNode* node = <TypeNode*>calloc(1, sizeof(TypeNode))
    if node == NULL:
        raise MemoryError("no memory for a codec plan")
    try:
        wire = _types.wire_type(type)
        node.wire = wire
        node.min_size = _types.MIN_SIZE[wire]
        node.frozen = frozen
        node.kind = node.wire
        if isinstance(type, _types.Primitive):
            node.kind = VIEW if type.view else KINDS[type.name]
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
            target = enum_table(type.cls)
        node.compact = TO_COMPACT[node.wire]
        node.weight = weight_of(node.kind)
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
        self.unknown = -1
        self.weight = 0
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
            self.weight += {FILL_LIST: LIST_WEIGHT, FILL_SET: SET_WEIGHT, FILL_DICT: DICT_WEIGHT, FILL_CALL: DICT_WEIGHT}.get(node.absent, 0)
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
    cdef EnumTable table = enum_table(cls)
    if not table.by_number:
        return None
    member = table.by_number.get(0)
    return cls._missing_(0) if member is None else member


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
        self.weight += cls.__basicsize__ + GC_HEAD
        kept = getattr(cls, UNKNOWN_NAME, None)
        if type(kept) is MemberDescriptorType:
            self.unknown = slot_offset(kept)
        if is_union:
            self.forget_defaults()

    cdef void forget_defaults(self) noexcept:
        """Members of a union that did not come are None: a zero value would count as a second member."""
        cdef int i
        for i in range(self.count):
            self.nodes[i].requiredness = OPTIONAL
            self.nodes[i].absent = FILL_VALUE
            self.nodes[i].filler = PyNone

    cdef object decode(self, Cursor* c, bint compact):
        """Read one struct, from its first field to its STOP."""
        cdef PyObject* value
        cdef object held
        open_budget()
        value = read_compact_struct(self, c, NULL, 1) if compact else read_struct(self, c, NULL, 1)
        held = <object>value
        decref(value)
        return held

    cdef int encode(self, object value, WriteBuffer out, bint compact) except -1:
        """Append one struct, STOP included; on an error `out` is as it was."""
        cdef Py_ssize_t start = out.n
        # Not isinstance: a mock may say that it is one.
        if not is_subtype(type_of(<PyObject*>value), <PyTypeObject*>self.cls):
            raise EncodeError(f"expected {self.cls.__name__}, got {type(value).__name__}", self.name)
        try:
            if compact:
                write_compact_struct(self, value, out, NULL, 1)
            else:
                write_struct(self, value, out, NULL, 1)
        except BaseException:
            out.truncate(start)
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

    def loads(self, data, bint compact=False):
        """Decode one struct that is all of `data` (bytes-like). ProtocolError when it is not."""
        return loads_with(self, data, compact)

    def dumps(self, value, bint compact=False):
        """Encode one instance. EncodeError names the field that does not fit."""
        global last_was_large
        cdef WriteBuffer out
        cdef BytesBuffer own
        cdef bytes data
        if last_was_large:
            own = BytesBuffer.__new__(BytesBuffer)
            self.encode(value, own, compact)
            last_was_large = own.n > LARGE
            return own.finish()
        out = WriteBuffer.__new__(WriteBuffer)
        self.encode(value, out, compact)
        last_was_large = out.n > LARGE
        return PyBytes_FromStringAndSize(<char*>out.p, out.n)


cdef object loads_with(FieldTable table, object data, bint compact):
    """Decode all of `data`."""
    cdef Cursor c
    cdef bytes content = data if type(data) is bytes else bytes(memoryview(data))
    cdef object value
    c.p = <const uint8_t*>PyBytes_AS_STRING(content)
    c.end = c.p + PyBytes_GET_SIZE(content)
    lend_from(content)
    if isinstance(table, StructPlan):
        value = (<StructPlan>table).decode(&c, compact)
    elif isinstance(table, ArgsPlan):
        value = (<ArgsPlan>table).decode(&c, compact)
    else:
        value = (<ResultPlan>table).decode(&c, compact)
    lend_from(None)
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


cdef object take_struct(Cursor* c, bint compact, Frame* frame):
    """The bytes of one struct as they are; it is walked over, so that nothing broken is handed on."""
    cdef const uint8_t* start = c.p
    if compact:
        skip_compact(c, C_STRUCT, False, frame)
    else:
        skip(c, STRUCT, frame)
    return PyBytes_FromStringAndSize(<char*>start, c.p - start)


cdef int put_struct(object data, WriteBuffer out, bint compact, str name) except -1:
    """Append the bytes of one struct, which must be exactly that: anything else would break the connection for others."""
    cdef Cursor c
    cdef Frame frame
    cdef bytes content
    cdef FieldTable table = FieldTable.__new__(FieldTable)
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise EncodeError(f"expected the bytes of a struct, got {type(data).__name__}", name)
    content = bytes(data)
    c.p = <const uint8_t*>PyBytes_AS_STRING(content)
    c.end = c.p + PyBytes_GET_SIZE(content)
    table.name = name
    open_root(&frame, table)
    try:
        take_struct(&c, compact, &frame)
    except ProtocolError as error:
        raise EncodeError(f"not the bytes of a struct: {error}", name) from None
    if c.p != c.end:
        raise EncodeError(f"{left(&c)} bytes behind the end of the struct", name)
    reserve(out, PyBytes_GET_SIZE(content))
    memcpy(out.p + out.n, PyBytes_AS_STRING(content), PyBytes_GET_SIZE(content))
    out.n += PyBytes_GET_SIZE(content)
    return 0


@cython.final
cdef class ArgsPlan(FieldTable):
    """The arguments of one method ⇄ bytes: a tuple in the order of the IDL.

    `raw`: nothing is known of them. The tuple holds one bytes object, the args struct as it is on the wire.
    """

    def __init__(self, str name not None, fields, *, raw=False):
        if self.nodes != NULL:
            raise TypeError("a plan is compiled once")
        self.name = name
        self.raw = raw
        fields = tuple(fields)
        self.compile(fields, tuple([tuple_offset(i) for i in range(len(fields))]))

    cdef tuple decode(self, Cursor* c, bint compact):
        """Read an args struct. Absent arguments get their default or None."""
        cdef Frame frame
        cdef tuple args
        if not self.linked:
            self.link()
        open_root(&frame, self)
        if self.raw:
            return (take_struct(c, compact, &frame),)
        args = new_tuple(self.count)
        open_budget()
        if compact:
            read_compact_fields(self, <void*><PyObject*>args, c, &frame)
        else:
            read_fields(self, <void*><PyObject*>args, c, &frame)
        return args

    cdef int encode(self, tuple args, WriteBuffer out, bint compact) except -1:
        """Append an args struct; on an error `out` is as it was."""
        cdef Frame frame
        cdef Py_ssize_t start = out.n
        if not self.linked:
            self.link()
        if self.raw:
            return put_struct(args[0], out, compact, self.name)
        if args is None or PyTuple_GET_SIZE(args) != self.count:
            raise EncodeError(f"takes {self.count} arguments, got {'None' if args is None else len(args)}", self.name)
        open_root(&frame, self)
        try:
            if compact:
                write_compact_fields(self, <void*><PyObject*>args, out, &frame)
            else:
                write_fields(self, <void*><PyObject*>args, out, &frame)
        except BaseException:
            out.truncate(start)
            raise
        return 0

    def loads(self, data, bint compact=False):
        """Decode an args struct that is all of `data` into a tuple."""
        return loads_with(self, data, compact)

    def dumps(self, tuple args not None, bint compact=False):
        """Encode a tuple of arguments."""
        cdef WriteBuffer out = WriteBuffer.__new__(WriteBuffer)
        self.encode(args, out, compact)
        return PyBytes_FromStringAndSize(<char*>out.p, out.n)


@cython.final
cdef class ResultPlan(FieldTable):
    """What one method gives back ⇄ bytes: field 0 is the value, other fields are the exceptions it declares."""

    def __init__(self, str name not None, result, throws=(), *, raw=False):
        from codec.spec import OPTIONAL, Field

        if self.nodes != NULL:
            raise TypeError("a plan is compiled once")
        self.name = name
        self.raw = raw
        self.has_value = result is not None
        fields = [Field(0, "result", result, OPTIONAL)] if self.has_value else []
        # Whatever the IDL says about its requiredness, at most one of these is there.
        fields += [Field(field.id, field.name, field.type, OPTIONAL) for field in throws]
        self.compile(tuple(fields), tuple([tuple_offset(i) for i in range(len(fields))]))

    cdef object decode(self, Cursor* c, bint compact):
        """Read a result struct: return the value (None for void), or raise the exception that it holds."""
        cdef Frame frame
        cdef tuple members
        cdef int i
        cdef PyObject* member
        if not self.linked:
            self.link()
        open_root(&frame, self)
        if self.raw:
            return take_struct(c, compact, &frame)
        members = new_tuple(self.count)
        open_budget()
        if compact:
            read_compact_fields(self, <void*><PyObject*>members, c, &frame)
        else:
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

    cdef int encode_value(self, object value, WriteBuffer out, bint compact) except -1:
        """Append a result struct with `value`, which is not looked at when the method is void."""
        if self.raw:
            return put_struct(value, out, compact, self.name)
        if self.has_value:
            return self.encode_member(0, value, out, compact)
        reserve(out, 1)
        out.p[out.n] = STOP
        out.n += 1
        return 0

    cdef int encode_exception(self, object exc, WriteBuffer out, bint compact) except -1:
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
        self.encode_member(best, exc, out, compact)
        return 1

    cdef int encode_member(self, int i, object value, WriteBuffer out, bint compact) except -1:
        cdef Frame frame
        cdef FieldNode* field = &self.nodes[i]
        cdef Py_ssize_t start = out.n
        if not self.linked:
            self.link()
        open_root(&frame, self)
        frame.field = field
        try:
            reserve(out, HEADROOM)
            if compact:
                write_compact_field(field, <PyObject*>value, out, &frame, 0)
            else:
                out.p[out.n] = field.wire
                put16(out.p + out.n + 1, field.id)
                out.n += 3
                write_value(field.type, <PyObject*>value, out, &frame)
            reserve(out, 1)
            out.p[out.n] = STOP
            out.n += 1
        except BaseException:
            out.truncate(start)
            raise
        return 0

    def loads(self, data, bint compact=False):
        """Decode a result struct that is all of `data`; raises the exception that it holds."""
        return loads_with(self, data, compact)

    def dumps(self, value, bint compact=False):
        """Encode a result struct that holds `value`."""
        cdef WriteBuffer out = WriteBuffer.__new__(WriteBuffer)
        self.encode_value(value, out, compact)
        return PyBytes_FromStringAndSize(<char*>out.p, out.n)

    def dumps_exception(self, exc, bint compact=False):
        """Encode a result struct that holds `exc`; None when the method does not declare it."""
        cdef WriteBuffer out = WriteBuffer.__new__(WriteBuffer)
        if not self.encode_exception(exc, out, compact):
            return None
        return PyBytes_FromStringAndSize(<char*>out.p, out.n)


include "plan_values.pxi"
