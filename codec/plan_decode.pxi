# Bytes → structs: part of plan.pyx.

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


cdef bint is_empty_union(TypeNode* t, PyObject* value) noexcept:
    """Is `value` a union without a member?"""
    cdef StructPlan plan = <StructPlan>t.ref
    cdef PyObject* kept
    cdef int i
    if not plan.is_union:
        return False
    if plan.unknown >= 0:
        kept = slot(<void*>value, plan.unknown)[0]
        if kept != NULL and kept != PyNone:
            return False
    for i in range(plan.count):
        if slot(<void*>value, plan.nodes[i].offset)[0] != PyNone:
            return False
    return True


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
    cdef const uint8_t* start
    cdef WriteBuffer kept = None
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
            start = c.p - 3
            skip(c, wire, frame)
            frame.kind = IN_STRUCT
            if field == NULL and table.unknown >= 0:
                if kept is None:
                    kept = WriteBuffer.__new__(WriteBuffer)
                kept.append(start, c.p - start)
            continue
        expected = field + 1
        frame.field = field
        value = read_value(field.type, c, frame)
        if field.type.kind == STRUCT and field.requiredness != REQUIRED and is_empty_union(field.type, value):
            # How Kitex writes a nil union, and what a union looks like whose member only a newer peer knows.
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
    spend(plan.weight, &frame)
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
    elif kind == BINARY or kind == VIEW:
        if room < 4:
            ended(frame, 4, room)
        n = <int32_t>get32(p)
        if n < 0:
            broken(frame, NEGATIVE_SIZE, f"negative length {n}")
        if n > room - 4:
            broken(frame, SIZE_LIMIT, f"a length of {n} bytes, {room - 4} are there")
        value = bytes_from(<const char*>p + 4, n) if kind == BINARY else read_view(p + 4, n)
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
    cdef int32_t i, made
    spend(LIST_WEIGHT + <int64_t>n * (8 + elem.weight), up)
    open_container(&frame, up, IN_LIST)
    # The places are there, but the list is only as long as it is filled: nobody must ever see an empty place.
    if elem.kind == I64:  # read_count has seen that all are there: as many bytes as the places take
        items = PyList_New(n)
        set_size(<PyVarObject*>items, 0)
        made = <int32_t>get_i64s(list_items(<PyObject*>items), n, c.p)
        set_size(<PyVarObject*>items, made)
        if made < n:
            raise MemoryError("no memory for a list of numbers")
        c.p += <int64_t>n * 8
        if t.frozen:
            items = PyList_AsTuple(items)
        Py_INCREF(items)
        return <PyObject*>items
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
    spend(SET_WEIGHT + <int64_t>n * (SET_SLOT + elem.weight), up)
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
    spend(DICT_WEIGHT + <int64_t>n * (DICT_SLOT + t.key.weight + t.elem.weight), up)
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
