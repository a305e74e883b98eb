# Structs → bytes: part of plan.pyx.

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
    if table.unknown >= 0:
        write_unknown(table, base, out, frame, False)
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
    if plan.unknown >= 0:
        member = slot(<void*><PyObject*>value, plan.unknown)[0]
        if member != NULL and member != PyNone:
            there.append("a member that this IDL does not know")
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
        if n >= APART and out.splices:
            put32(p, <int32_t>n)
            out.n += 4
            return out.splice(<object>value, data, n)
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
    elif kind == BINARY or kind == VIEW:
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
    cdef int64_t number
    if usual_int(value, &number):
        put64(p, <uint64_t>number)
        return 0
    number = long_value(value, &overflow)
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
    cdef Py_ssize_t first = 0
    cdef int is_list = PyList_Check(items)
    if is_list:
        n = PyList_GET_SIZE(items)
    else:
        if not PyTuple_Check(items):
            mistyped(up, "list", <PyObject*>items)
        n = PyTuple_GET_SIZE(items)
    write_count(t, n, out, up)
    open_container(&frame, up, IN_LIST)
    if elem.kind == I64:
        reserve(out, n * 8 + HEADROOM)  # the long lists of numbers: no growing in between
        if is_list:
            first = put_i64s(list_items(<PyObject*>items), n, out.p + out.n)
            out.n += first * 8
    for i in range(first, n):
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
