# Compact bytes → structs: part of plan.pyx. Rules and errors are those of plan_decode.pxi, which has the comments.

cdef uint64_t read_varint(Cursor* c, Frame* frame) except? 0xFFFFFFFFFFFFFFFF:
    """An unsigned number of up to 64 bits; ten bytes hold it, an eleventh is an attack (THRIFT-6084)."""
    cdef uint64_t v = 0
    cdef int shift = 0
    cdef uint8_t byte
    if c.p < c.end and c.p[0] < 0x80:
        v = c.p[0]
        c.p += 1
        return v
    while True:
        if c.p >= c.end:
            ended(frame, 1, 0)
        byte = c.p[0]
        c.p += 1
        if shift == 63 and byte > 1:
            broken(frame, INVALID_DATA, "a number longer than 64 bits")
        v |= <uint64_t>(byte & 0x7F) << shift
        if byte < 0x80:
            return v
        shift += 7


cdef inline int64_t read_zigzag(Cursor* c, int64_t low, int64_t high, Frame* frame) except? -1:
    cdef uint64_t v = read_varint(c, frame)
    cdef int64_t number = <int64_t>(v >> 1) ^ -<int64_t>(v & 1)
    if number < low or number > high:
        broken(frame, INVALID_DATA, f"the number {number} does not fit its type")
    return number


cdef inline Py_ssize_t read_compact_size(Cursor* c, Frame* frame) except -1:
    """The length of a string, which must be there."""
    cdef uint64_t n = read_varint(c, frame)
    if n > INT32_MAX:
        broken(frame, NEGATIVE_SIZE, f"negative length {<int32_t>n}")
    if <Py_ssize_t>n > left(c):
        broken(frame, SIZE_LIMIT, f"a length of {n} bytes, {left(c)} are there")
    return <Py_ssize_t>n


cdef int read_compact_fields(FieldTable table, void* base, Cursor* c, Frame* frame) except -1:
    """Read a struct's fields, STOP included, into the empty slots of `base`. Slots of absent fields are filled."""
    cdef FieldNode* expected = table.nodes
    cdef FieldNode* end = table.nodes + table.count
    cdef FieldNode* field
    cdef PyObject** place
    cdef PyObject* value
    cdef PyObject* old
    cdef int filled = 0
    cdef uint8_t head, type
    cdef int16_t id = 0
    cdef int wide
    cdef const uint8_t* start
    cdef WriteBuffer kept = None
    while True:
        if c.p >= c.end:
            frame.field = NULL
            ended(frame, 1, 0)
        head = c.p[0]
        c.p += 1
        if head == STOP:
            break
        type = head & 0x0F
        if head >> 4:
            wide = id + (head >> 4)
            if wide > INT16_MAX:
                frame.field = NULL
                broken(frame, INVALID_DATA, f"field id {wide} does not fit in 16 bits")
            id = <int16_t>wide
        else:
            frame.field = NULL
            id = <int16_t>read_zigzag(c, INT16_MIN, INT16_MAX, frame)
        if expected < end and expected.id == id:
            field = expected
        else:
            field = find(table, id)
        if field == NULL or (field.type.compact != type and not (type == C_FALSE and field.type.compact == C_TRUE)):
            frame.kind = IN_SKIPPED
            frame.index = id
            start = c.p
            skip_compact(c, type, True, frame)
            if field == NULL and table.unknown >= 0:
                if kept is None:
                    kept = WriteBuffer.__new__(WriteBuffer)
                binary_from_compact_field(type, id, start, c.p, kept, frame)
            frame.kind = IN_STRUCT
            continue
        expected = field + 1
        frame.field = field
        if field.type.compact == C_TRUE:
            value = PyTrue if type == C_TRUE else PyFalse
            incref(value)
        else:
            value = read_compact_value(field.type, c, frame)
        if field.type.kind == STRUCT and field.requiredness != REQUIRED and is_empty_union(field.type, value):
            decref(value)
            incref(PyNone)
            value = PyNone
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
    if kept is not None:
        keep_unknown(table, base, kept, frame)
    return filled


cdef PyObject* read_compact_struct(StructPlan plan, Cursor* c, Frame* up, int depth) except NULL:
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
    spend(plan.weight, &frame)
    if plan.is_direct:
        value = allocate(<PyTypeObject*>plan.cls, 0)
    else:
        value = plan.cls.__new__(plan.cls)
    filled = read_compact_fields(plan, <void*><PyObject*>value, c, &frame)
    if plan.is_union and filled > 1:
        broken(&frame, INVALID_DATA, f"a union has one member, this one came with {filled}")
    Py_INCREF(value)
    return <PyObject*>value


cdef PyObject* read_compact_value(TypeNode* t, Cursor* c, Frame* frame) except NULL:
    """Read one value; a new reference."""
    cdef Py_ssize_t n
    cdef PyObject* value
    cdef uint8_t[8] turned
    cdef uint64_t bits
    cdef double number
    cdef uint8_t kind = t.kind
    if kind == STRING:
        n = read_compact_size(c, frame)
        value = text_from(<const char*>c.p, n)
        if value == NULL:
            not_utf8(frame, c.p, n)
        c.p += n
        return value
    elif kind == I64:
        return long_from(read_zigzag(c, <int64_t>0x8000000000000000, INT64_MAX, frame))
    elif kind == I32:
        return long_from(read_zigzag(c, INT32_MIN, INT32_MAX, frame))
    elif kind == STRUCT:
        return read_compact_struct(<StructPlan>t.ref, c, frame, frame.depth + 1)
    elif kind == LIST:
        return read_compact_list(t, c, frame)
    elif kind == MAP:
        return read_compact_map(t, c, frame)
    elif kind == SET:
        return read_compact_set(t, c, frame)
    elif kind == BOOL:
        if left(c) < 1:
            ended(frame, 1, 0)
        value = PyTrue if c.p[0] == C_TRUE else PyFalse
        c.p += 1
        incref(value)
        return value
    elif kind == DOUBLE:
        if left(c) < 8:
            ended(frame, 8, left(c))
        memcpy(turned, c.p, 8)
        reverse8(turned)
        bits = get64(turned)
        memcpy(&number, &bits, 8)
        c.p += 8
        return float_from(number)
    elif kind == ENUM:
        return (<EnumTable>t.ref).member(<int32_t>read_zigzag(c, INT32_MIN, INT32_MAX, frame), frame)
    elif kind == BINARY or kind == VIEW:
        n = read_compact_size(c, frame)
        value = bytes_from(<const char*>c.p, n) if kind == BINARY else read_view(c.p, n)
        c.p += n
        return value
    elif kind == BYTE:
        if left(c) < 1:
            ended(frame, 1, 0)
        value = long_from(<signed char>c.p[0])
        c.p += 1
        return value
    elif kind == I16:
        return long_from(read_zigzag(c, INT16_MIN, INT16_MAX, frame))
    else:
        if left(c) < 16:
            ended(frame, 16, left(c))
        value = read_uuid(c.p)
        c.p += 16
        return value


cdef inline bint same_compact(uint8_t came, uint8_t wanted) noexcept:
    """Peers disagree on which of the two numbers of a bool names it in a container."""
    return came == wanted or (came == C_FALSE and wanted == C_TRUE)


cdef int32_t smallest_compact(TypeNode* t) noexcept:
    """The fewest bytes of a value: no type takes none."""
    if t.kind == DOUBLE:
        return 8
    return 16 if t.kind == UUID else 1


cdef inline int32_t read_compact_count(TypeNode* t, Cursor* c, Frame* frame) except -1:
    """Read the header of a list or set and check that its elements can be there."""
    cdef uint64_t n
    cdef uint8_t head
    cdef int size = smallest_compact(t.elem)
    if left(c) < 1:
        ended(frame, 1, 0)
    head = c.p[0]
    c.p += 1
    n = head >> 4
    if n == 15:
        n = read_varint(c, frame)
        if n > INT32_MAX:
            broken(frame, NEGATIVE_SIZE, f"negative count {<int32_t>n}")
    if n == 0:
        return 0
    if not same_compact(head & 0x0F, t.elem.compact):
        broken(frame, INVALID_DATA, f"elements come with compact type {head & 0x0F}, the IDL's have {t.elem.compact}")
    if <int64_t>n * size > left(c):
        broken(frame, SIZE_LIMIT, f"{n} elements of at least {size} bytes, {left(c)} bytes are there")
    return <int32_t>n


cdef PyObject* read_compact_list(TypeNode* t, Cursor* c, Frame* up) except NULL:
    cdef Frame frame
    cdef object items
    cdef PyObject* value
    cdef TypeNode* elem = t.elem
    cdef int32_t n = read_compact_count(t, c, up)
    cdef int32_t ahead = n if n < PREALLOCATE else PREALLOCATE
    cdef int32_t i
    spend(LIST_WEIGHT + <int64_t>n * (8 + elem.weight), up)
    open_container(&frame, up, IN_LIST)
    items = PyList_New(ahead)
    set_size(<PyVarObject*>items, 0)
    for i in range(n):
        frame.index = i
        value = read_compact_value(elem, c, &frame)
        if i < ahead:
            set_list_item(items, i, value)
            set_size(<PyVarObject*>items, i + 1)
        else:
            append_stolen(items, value)
    if t.frozen:
        items = PyList_AsTuple(items)
    Py_INCREF(items)
    return <PyObject*>items


cdef PyObject* read_compact_set(TypeNode* t, Cursor* c, Frame* up) except NULL:
    cdef Frame frame
    cdef object items, item
    cdef PyObject* value
    cdef TypeNode* elem = t.elem
    cdef int32_t n = read_compact_count(t, c, up)
    cdef int32_t i
    spend(SET_WEIGHT + <int64_t>n * (SET_SLOT + elem.weight), up)
    open_container(&frame, up, IN_SET)
    items = new_frozenset(NULL) if t.frozen else new_set(NULL)
    for i in range(n):
        frame.index = i
        value = read_compact_value(elem, c, &frame)
        item = <object>value
        decref(value)
        PySet_Add(items, item)
    Py_INCREF(items)
    return <PyObject*>items


cdef PyObject* read_compact_map(TypeNode* t, Cursor* c, Frame* up) except NULL:
    cdef Frame frame
    cdef object items, key, value
    cdef PyObject* new
    cdef uint8_t types
    cdef uint64_t n = read_varint(c, up)
    cdef int32_t i
    cdef int size
    if n > INT32_MAX:
        broken(up, NEGATIVE_SIZE, f"negative count {<int32_t>n}")
    if n > 0:
        if left(c) < 1:
            ended(up, 1, 0)
        types = c.p[0]
        c.p += 1
        if not same_compact(types >> 4, t.key.compact) or not same_compact(types & 0x0F, t.elem.compact):
            broken(up, INVALID_DATA, f"entries come with compact types {types >> 4} and {types & 0x0F}, "
                                     f"the IDL's have {t.key.compact} and {t.elem.compact}")
        size = smallest_compact(t.key) + smallest_compact(t.elem)
        if <int64_t>n * size > left(c):
            broken(up, SIZE_LIMIT, f"{n} entries of at least {size} bytes, {left(c)} bytes are there")
    spend(DICT_WEIGHT + <int64_t>n * (DICT_SLOT + t.key.weight + t.elem.weight), up)
    open_container(&frame, up, IN_KEY)
    items = PyDict_New()
    for i in range(<int32_t>n):
        frame.index = i
        frame.kind = IN_KEY
        new = read_compact_value(t.key, c, &frame)
        key = <object>new
        decref(new)
        frame.kind = IN_VALUE
        frame.key = new
        new = read_compact_value(t.elem, c, &frame)
        value = <object>new
        decref(new)
        PyDict_SetItem(items, key, value)
    if t.frozen:
        items = (<object>t.ref)(items)
    Py_INCREF(items)
    return <PyObject*>items
