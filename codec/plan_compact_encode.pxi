# Structs → compact bytes: part of plan.pyx. Checks, order and errors are those of plan_encode.pxi, which has the comments.

cdef inline uint8_t* put_varint(uint8_t* p, uint64_t v) noexcept:
    """Seven bits a byte, the lowest first; the position behind it. At most ten bytes."""
    while v >= 0x80:
        p[0] = <uint8_t>(v | 0x80)
        v >>= 7
        p += 1
    p[0] = <uint8_t>v
    return p + 1


cdef inline uint64_t zigzag(int64_t v) noexcept:
    """Small numbers of either sign as small ones without."""
    return (<uint64_t>v << 1) ^ <uint64_t>(v >> 63)


cdef inline int write_zigzag(int64_t number, WriteBuffer out) except -1:
    out.n = put_varint(out.p + out.n, zigzag(number)) - out.p
    return 0


cdef int write_compact_fields(FieldTable table, void* base, WriteBuffer out, Frame* frame) except -1:
    """Write a struct's fields and STOP from the slots of `base`, in the order of the IDL."""
    cdef FieldNode* field = table.nodes
    cdef FieldNode* end = table.nodes + table.count
    cdef PyObject* value
    cdef object held
    cdef int16_t last = 0
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
            write_compact_field(field, value, out, frame, last)
            last = field.id
        field += 1
    if table.unknown >= 0:
        frame.index = last
        write_unknown(table, base, out, frame, True)
    reserve(out, 1)
    out.p[out.n] = STOP
    out.n += 1
    return 0


cdef inline void put_compact_head(WriteBuffer out, uint8_t type, int16_t id, int16_t last) noexcept:
    """A field's head: one byte where its id follows closely on the last one's, else the id in full. HEADROOM is there."""
    cdef int delta = id - last
    if 0 < delta <= 15:
        out.p[out.n] = <uint8_t>(delta << 4) | type
        out.n += 1
    else:
        out.p[out.n] = type
        out.n = put_varint(out.p + out.n + 1, zigzag(id)) - out.p


cdef int write_compact_field(FieldNode* field, PyObject* value, WriteBuffer out, Frame* frame, int16_t last) except -1:
    """One field, which the caller holds. HEADROOM is there."""
    cdef uint8_t type = field.type.compact
    if type == C_TRUE:
        # A bool is its own type.
        if value != PyTrue and value != PyFalse:
            mistyped(frame, "bool", value)
        put_compact_head(out, C_TRUE if value == PyTrue else C_FALSE, field.id, last)
        return 0
    put_compact_head(out, type, field.id, last)
    return write_compact_value(field.type, value, out, frame)


cdef int write_compact_struct(StructPlan plan, object value, WriteBuffer out, Frame* up, int depth) except -1:
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
    return write_compact_fields(plan, <void*><PyObject*>value, out, &frame)


cdef int write_compact_value(TypeNode* t, PyObject* value, WriteBuffer out, Frame* frame) except -1:
    """Write one value, which the caller holds. HEADROOM less a field header is there already."""
    cdef Py_ssize_t n
    cdef const char* data
    cdef uint64_t bits
    cdef double real
    cdef int overflow = 0
    cdef int64_t number
    cdef uint8_t kind = t.kind
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
        if n >= APART and out.splices:
            out.n = put_varint(out.p + out.n, <uint64_t>n) - out.p
            return out.splice(<object>value, data, n)
        return write_compact_bytes(data, n, out)
    elif kind == I64:
        if is_exact_long(value):
            number = long_value(value, &overflow)
            if overflow:
                unfit(frame, "i64 out of range")
        else:
            number = whole_number(value, <int64_t>0x8000000000000000, 0x7FFFFFFFFFFFFFFF, "i64", frame)
        return write_zigzag(number, out)
    elif kind == I32:
        return write_zigzag(whole_number(value, INT32_MIN, INT32_MAX, "i32", frame), out)
    elif kind == STRUCT:
        if type_of(value) != <PyTypeObject*>(<StructPlan>t.ref).cls and not is_subtype(
            type_of(value), <PyTypeObject*>(<StructPlan>t.ref).cls
        ):
            mistyped(frame, (<StructPlan>t.ref).cls.__name__, value)
        return write_compact_struct(<StructPlan>t.ref, <object>value, out, frame, frame.depth + 1)
    elif kind == LIST:
        return write_compact_list(t, <object>value, out, frame)
    elif kind == MAP:
        return write_compact_map(t, <object>value, out, frame)
    elif kind == SET:
        return write_compact_set(t, <object>value, out, frame)
    elif kind == BOOL:
        # In a container; a field's bool is in its head.
        if value != PyTrue and value != PyFalse:
            mistyped(frame, "bool", value)
        out.p[out.n] = C_TRUE if value == PyTrue else C_FALSE
        out.n += 1
        return 0
    elif kind == DOUBLE:
        if is_float(value):
            real = float_value(value)
        else:
            real = whole_as_double(value, frame)
        # Little-endian, alone among the numbers of Thrift.
        memcpy(&bits, &real, 8)
        put64(out.p + out.n, bits)
        reverse8(out.p + out.n)
        out.n += 8
        return 0
    elif kind == ENUM:
        if not is_exact_long(value) and not is_subtype(type_of(value), <PyTypeObject*>(<EnumTable>t.ref).cls):
            mistyped(frame, (<EnumTable>t.ref).cls.__name__, value)
        return write_zigzag(whole_number(value, INT32_MIN, INT32_MAX, "enum (i32)", frame), out)
    elif kind == BINARY or kind == VIEW:
        return write_compact_binary(<object>value, out, frame)
    elif kind == BYTE:
        out.p[out.n] = <uint8_t>whole_number(value, INT8_MIN, INT8_MAX, "byte", frame)
        out.n += 1
        return 0
    elif kind == I16:
        return write_zigzag(whole_number(value, INT16_MIN, INT16_MAX, "i16", frame), out)
    else:
        return write_uuid(<object>value, out, frame)


cdef inline void reverse8(uint8_t* p) noexcept:
    cdef int i
    for i in range(4):
        p[i], p[7 - i] = p[7 - i], p[i]


cdef int write_compact_bytes(const char* data, Py_ssize_t n, WriteBuffer out) except -1:
    reserve(out, n + 5)
    out.n = put_varint(out.p + out.n, <uint64_t>n) - out.p
    memcpy(out.p + out.n, data, n)
    out.n += n
    return 0


cdef inline int write_compact_count(uint8_t type, Py_ssize_t n, WriteBuffer out, Frame* frame) except -1:
    """The header of a list or set."""
    if n > INT32_MAX:
        unfit(frame, f"{n} elements are more than a Thrift container can hold")
    reserve(out, 6)
    if n < 15:
        out.p[out.n] = <uint8_t>(n << 4) | type
        out.n += 1
    else:
        out.p[out.n] = 0xF0 | type
        out.n = put_varint(out.p + out.n + 1, <uint64_t>n) - out.p
    return 0


cdef int write_compact_list(TypeNode* t, object items, WriteBuffer out, Frame* up) except -1:
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
    write_compact_count(elem.compact, n, out, up)
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
        write_compact_value(elem, <PyObject*>item, out, &frame)
    return 0


cdef int write_compact_set(TypeNode* t, object items, WriteBuffer out, Frame* up) except -1:
    cdef Frame frame
    cdef TypeNode* elem = t.elem
    cdef object item
    cdef Py_ssize_t n
    if not PyAnySet_Check(items):
        mistyped(up, "set", <PyObject*>items)
    n = PySet_Size(items)
    write_compact_count(elem.compact, n, out, up)
    open_container(&frame, up, IN_SET)
    for item in set_iterator(items):
        reserve(out, HEADROOM)
        write_compact_value(elem, <PyObject*>item, out, &frame)
        frame.index += 1
        if PySet_Size(items) != n:
            unfit(up, "the set changed its size while it was being encoded")
    return 0


cdef int write_compact_map(TypeNode* t, object items, WriteBuffer out, Frame* up) except -1:
    cdef Frame frame
    cdef object key, value, frozen_map
    cdef PyObject* borrowed_key = NULL
    cdef PyObject* borrowed_value = NULL
    cdef Py_ssize_t position = 0
    cdef Py_ssize_t n
    if not PyDict_Check(items):
        frozen_map = frozen_map_class()
        if not is_subtype(type_of(<PyObject*>items), <PyTypeObject*>frozen_map):
            mistyped(up, "dict", <PyObject*>items)
        items = <dict?>items._items
    n = PyDict_Size(items)
    if n > INT32_MAX:
        unfit(up, f"{n} entries are more than a Thrift map can hold")
    reserve(out, 6)
    out.n = put_varint(out.p + out.n, <uint64_t>n) - out.p
    if n:  # the types of no entries are not written
        out.p[out.n] = <uint8_t>(t.key.compact << 4) | t.elem.compact
        out.n += 1
    open_container(&frame, up, IN_KEY)
    while PyDict_Next(items, &position, &borrowed_key, &borrowed_value):
        key = <object>borrowed_key
        value = <object>borrowed_value
        frame.kind = IN_KEY
        reserve(out, HEADROOM)
        write_compact_value(t.key, borrowed_key, out, &frame)
        frame.kind = IN_VALUE
        frame.key = borrowed_key
        reserve(out, HEADROOM)
        write_compact_value(t.elem, borrowed_value, out, &frame)
        frame.index += 1
        if PyDict_Size(items) != n:
            break
    if frame.index != n:
        unfit(up, "the dict changed its size while it was being encoded")
    return 0
