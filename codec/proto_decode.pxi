# Bytes → native Protobuf messages: part of proto_plan.pyx.

cdef struct Reading:
    # What is found out on the way and judged at the end.
    int is_incomplete       # some message lacks a required field
    int64_t budget          # bytes of memory that may still be made of the message


cdef inline int spend(int64_t size, ProtoFrame* frame, Reading* reading) except -1:
    """Charge what is about to be made; rule 10."""
    reading.budget -= size
    if reading.budget < 0:
        broken(frame, SIZE_LIMIT, "the message would take more memory than one message may")
    return 0


cdef object read_root(ProtoPlan plan, const uint8_t* p, const uint8_t* end, int64_t budget):
    cdef Reading reading
    cdef object value = plan.blank()
    reading.is_incomplete = False
    reading.budget = budget
    if end - p > INT32_MAX:
        raise ProtocolError(f"{plan.name}: {end - p} bytes are more than a Protobuf message can have", ProtocolErrorKind.SIZE_LIMIT)
    read_message(plan, value, p, end, 0, NULL, &reading)
    if reading.is_incomplete:
        check_required(plan, value, NULL)
    return value


cdef const uint8_t* read_message(
    ProtoPlan plan, object value, const uint8_t* p, const uint8_t* end, uint32_t group, ProtoFrame* up, Reading* reading
) except NULL:
    """Read fields into `value`, up to `end` or the end of the group; returns where they ended. Empty slots are filled."""
    cdef ProtoFrame frame
    frame.up = up
    frame.plan = <PyObject*>plan
    frame.field = NULL
    frame.key = NULL
    frame.index = 0
    frame.depth = 1 if up == NULL else up.depth + 1
    if not plan.linked:
        plan.link()
    if frame.depth > DEPTH:
        broken(&frame, DEPTH_LIMIT, f"messages nested deeper than {DEPTH} levels")
    spend(plan.weight, &frame, reading)
    p = read_fields(plan, <void*><PyObject*>value, p, end, group, &frame, reading)
    fill_absent(plan, <void*><PyObject*>value)
    if plan.has_required and not is_complete(plan, <void*><PyObject*>value):
        reading.is_incomplete = True
    return p


cdef inline ProtoNode* find(ProtoPlan plan, uint32_t number) noexcept:
    """The field of this number, or NULL."""
    cdef int low, high, middle
    if number < plan.by_number_size:
        middle = plan.by_number[number]
        return NULL if middle < 0 else &plan.nodes[middle]
    if number <= MAX_INDEXED_NUMBER:
        return NULL
    low, high = 0, plan.count
    while low < high:
        middle = (low + high) >> 1
        if plan.nodes[middle].number < number:
            low = middle + 1
        else:
            high = middle
    if low < plan.count and plan.nodes[low].number == number:
        return &plan.nodes[low]
    return NULL


cdef const uint8_t* read_tag(const uint8_t* p, const uint8_t* end, uint32_t* tag, ProtoFrame* frame) except NULL:
    """A tag of more than one byte: at most five, and 32 bits."""
    cdef uint64_t value
    cdef const uint8_t* after = get_varint(p, end, &value)
    if after == NULL or after - p > 5 or value > UINT32_MAX:
        broken(frame, INVALID_DATA, "a tag is cut off or too long")
    tag[0] = <uint32_t>value
    return after


cdef const uint8_t* read_fields(
    ProtoPlan plan, void* base, const uint8_t* p, const uint8_t* end, uint32_t group, ProtoFrame* frame, Reading* reading
) except NULL:
    cdef ProtoNode* expected = plan.nodes
    cdef ProtoNode* last = plan.nodes + plan.count
    cdef ProtoNode* field
    cdef const uint8_t* start
    cdef PyObject** place
    cdef PyObject* value
    cdef PyObject* old
    cdef uint32_t tag
    cdef uint32_t wire
    cdef int has_unknown = False
    while p < end:
        start = p
        tag = p[0]
        if tag < 0x80:
            p += 1
        else:
            frame.field = NULL
            p = read_tag(p, end, &tag, frame)
        # Peers write fields in the order of their numbers, nearly always, and some are absent.
        if expected < last and expected.tag == tag:
            field = expected
        elif expected + 1 < last and (expected + 1).tag == tag:
            field = expected + 1
        else:
            field = find(plan, tag >> 3)
        frame.field = field
        if field != NULL:
            wire = tag & 7
            if field.shape == SINGLE:
                expected = field + 1
                if wire == field.wire and field.kind != K_MESSAGE and field.kind != K_GROUP:
                    if field.closed and field.kind == K_ENUM:
                        p = read_closed(field, p, end, &value, frame)
                        if value == NULL:
                            has_unknown = keep_unknown(plan, base, start, p)
                            continue
                    else:
                        p = read_scalar(field, p, end, &value, frame)
                    place = slot(base, field.offset)
                    old = place[0]
                    place[0] = value
                    if old != NULL:
                        decref(old)
                    if field.sibling != field - plan.nodes:
                        clear_siblings(plan, base, field)
                    continue
                if wire == field.wire:
                    p = read_single_message(plan, base, field, p, end, frame, reading)
                    continue
            elif field.shape == REPEATED:
                expected = field
                if wire == field.wire:
                    if field.kind == K_MESSAGE or field.kind == K_GROUP:
                        p = read_element_message(base, field, p, end, frame, reading)
                        continue
                    if field.closed and field.kind == K_ENUM:
                        p = read_closed(field, p, end, &value, frame)
                        if value == NULL:
                            has_unknown = keep_unknown(plan, base, start, p)
                            continue
                    else:
                        p = read_scalar(field, p, end, &value, frame)
                    append_stolen(list_at(base, field), value)
                    continue
                if wire == DELIMITED and field.kind != K_MESSAGE and field.kind != K_GROUP and field.wire != DELIMITED:
                    p = read_packed(plan, base, field, p, end, &has_unknown, frame)
                    continue
            elif wire == DELIMITED:
                expected = field
                p = read_entry(plan, base, field, start, p, end, &has_unknown, frame, reading)
                continue
        # Not known here, or not in this form.
        if tag & 7 == END_GROUP:
            if group == 0 or tag >> 3 != group:
                frame.field = NULL
                broken(frame, INVALID_DATA, f"the end of group {tag >> 3}, which is not open")
            if has_unknown:
                settle_unknown(plan, base)
            return p
        frame.field = NULL
        p = skip(tag, p, end, frame)
        has_unknown = keep_unknown(plan, base, start, p)
    frame.field = NULL
    if p > end:
        broken(frame, INVALID_DATA, "a field ends behind the message it is in")
    if group:
        broken(frame, INVALID_DATA, f"the message ends inside group {group}")
    if has_unknown:
        settle_unknown(plan, base)
    return p


cdef int keep_unknown(ProtoPlan plan, void* base, const uint8_t* start, const uint8_t* p) except -1:
    """Append a field to those that are kept as they came; returns 1. While a message is read, they are a bytearray."""
    cdef PyObject** place = slot(base, plan.unknown_offset)
    cdef object kept
    if place[0] == NULL or type(<object>place[0]) is not bytearray:
        kept = bytearray(b"" if place[0] == NULL else <object>place[0])
        incref(<PyObject*>kept)
        if place[0] != NULL:
            decref(place[0])
        place[0] = <PyObject*>kept
    else:
        kept = <object>place[0]
    kept += PyBytes_FromStringAndSize(<char*>start, p - start)
    return 1


cdef int settle_unknown(ProtoPlan plan, void* base) except -1:
    """The message has ended: what was kept is bytes."""
    cdef PyObject** place = slot(base, plan.unknown_offset)
    cdef bytes kept = bytes(<object>place[0])
    decref(place[0])
    incref(<PyObject*>kept)
    place[0] = <PyObject*>kept
    return 0


cdef int clear_siblings(ProtoPlan plan, void* base, ProtoNode* field) noexcept:
    """A member of a oneof has come: the others are gone."""
    cdef int own = <int>(field - plan.nodes)
    cdef int i = field.sibling
    cdef PyObject** place
    cdef PyObject* old
    while i != own:
        place = slot(base, plan.nodes[i].offset)
        old = place[0]
        if old != NULL and old != PyNone:
            incref(PyNone)
            place[0] = PyNone
            decref(old)
        i = plan.nodes[i].sibling
    return 0


cdef inline list list_at(void* base, ProtoNode* field):
    """The list of a repeated field, made when it is first needed."""
    cdef PyObject** place = slot(base, field.offset)
    cdef object items
    if place[0] == NULL or place[0] == PyNone:
        items = []
        incref(<PyObject*>items)
        if place[0] != NULL:
            decref(place[0])
        place[0] = <PyObject*>items
        return <list>items
    return <list>place[0]


cdef inline int append_stolen(list items, PyObject* value) except -1:
    """Append a value whose reference is ours to give away."""
    cdef object held = <object>value
    decref(value)
    return PyList_Append(items, held)


cdef inline const uint8_t* read_length(const uint8_t* p, const uint8_t* end, Py_ssize_t* n, ProtoFrame* frame) except NULL:
    """The length of what follows, which is there."""
    cdef uint64_t value
    p = get_varint(p, end, &value)
    if p == NULL:
        broken(frame, INVALID_DATA, "a length is cut off or too long")
    if value > <uint64_t>(end - p):
        broken(frame, SIZE_LIMIT, f"a length of {value} bytes, {end - p} are there")
    n[0] = <Py_ssize_t>value
    return p


cdef const uint8_t* read_single_message(
    ProtoPlan plan, void* base, ProtoNode* field, const uint8_t* p, const uint8_t* end, ProtoFrame* frame, Reading* reading
) except NULL:
    cdef PyObject** place = slot(base, field.offset)
    cdef object value
    cdef PyObject* old = place[0]
    if old == NULL or old == PyNone:
        value = (<ProtoPlan>field.ref).blank()
        incref(<PyObject*>value)
        place[0] = <PyObject*>value
        if old != NULL:
            decref(old)
        if field.sibling != field - plan.nodes:
            clear_siblings(plan, base, field)
    else:
        value = <object>old
    return read_inside(field, value, p, end, frame, reading)


cdef const uint8_t* read_inside(
    ProtoNode* field, object value, const uint8_t* p, const uint8_t* end, ProtoFrame* frame, Reading* reading
) except NULL:
    """Read a message with its length before it, or a group with its end behind it, into `value`."""
    cdef Py_ssize_t n
    if field.kind == K_GROUP:
        return read_message(<ProtoPlan>field.ref, value, p, end, field.number, frame, reading)
    p = read_length(p, end, &n, frame)
    return read_message(<ProtoPlan>field.ref, value, p, p + n, 0, frame, reading)


cdef const uint8_t* read_element_message(
    void* base, ProtoNode* field, const uint8_t* p, const uint8_t* end, ProtoFrame* frame, Reading* reading
) except NULL:
    cdef list items = list_at(base, field)
    cdef object value = (<ProtoPlan>field.ref).blank()
    frame.index = PyList_GET_SIZE(items)
    p = read_inside(field, value, p, end, frame, reading)
    PyList_Append(items, value)
    return p


cdef const uint8_t* read_closed(
    ProtoNode* field, const uint8_t* p, const uint8_t* end, PyObject** value, ProtoFrame* frame
) except NULL:
    """A number of a closed enum; NULL in `value` when the enum does not name it."""
    cdef uint64_t bits
    cdef object member
    p = get_varint(p, end, &bits)
    if p == NULL:
        broken(frame, INVALID_DATA, "a varint is cut off or too long")
    member = (<ProtoEnum>field.ref).known(<int32_t>bits)
    value[0] = NULL
    if member is not None:
        incref(<PyObject*>member)
        value[0] = <PyObject*>member
    return p


cdef const uint8_t* read_scalar(
    ProtoNode* field, const uint8_t* p, const uint8_t* end, PyObject** value, ProtoFrame* frame
) except NULL:
    """One value that is no message: a new reference in `value`."""
    cdef uint64_t bits
    cdef uint32_t half
    cdef Py_ssize_t n
    cdef double real
    cdef float single
    cdef object member
    cdef uint8_t kind = field.kind
    if kind == K_STRING:
        p = read_length(p, end, &n, frame)
        value[0] = str_from(<const char*>p, n, not field.utf8)
        if value[0] == NULL:
            not_utf8(frame, p, n)
        return p + n
    if kind == K_BYTES:
        p = read_length(p, end, &n, frame)
        value[0] = bytes_from(<const char*>p, n)
        return p + n
    if field.wire == VARINT:
        p = get_varint(p, end, &bits)
        if p == NULL:
            broken(frame, INVALID_DATA, "a varint is cut off or too long")
        if kind == K_INT64:
            value[0] = long_from(<int64_t>bits)
        elif kind == K_INT32:
            value[0] = long_from(<int32_t>bits)
        elif kind == K_BOOL:
            value[0] = PyTrue if bits else PyFalse
            incref(value[0])
        elif kind == K_ENUM:
            member = (<ProtoEnum>field.ref).member(<int32_t>bits)
            incref(<PyObject*>member)
            value[0] = <PyObject*>member
        elif kind == K_UINT64:
            value[0] = unsigned_from(bits)
        elif kind == K_UINT32:
            value[0] = long_from(<uint32_t>bits)
        elif kind == K_SINT64:
            value[0] = long_from(<int64_t>((bits >> 1) ^ (~(bits & 1) + 1)))
        else:
            half = <uint32_t>bits
            value[0] = long_from(<int32_t>((half >> 1) ^ (~(half & 1) + 1)))
        return p
    if field.wire == FIXED64:
        if end - p < 8:
            broken(frame, INVALID_DATA, f"8 bytes are needed, {end - p} are there")
        bits = le64(p)
        if kind == K_DOUBLE:
            memcpy(&real, &bits, 8)
            value[0] = float_from(real)
        elif kind == K_FIXED64:
            value[0] = unsigned_from(bits)
        else:
            value[0] = long_from(<int64_t>bits)
        return p + 8
    if end - p < 4:
        broken(frame, INVALID_DATA, f"4 bytes are needed, {end - p} are there")
    half = le32(p)
    if kind == K_FLOAT:
        memcpy(&single, &half, 4)
        value[0] = float_from(single)
    elif kind == K_FIXED32:
        value[0] = long_from(half)
    else:
        value[0] = long_from(<int32_t>half)
    return p + 4


cdef int not_utf8(ProtoFrame* frame, const uint8_t* p, Py_ssize_t n) except -1:
    """Say where a string stops being UTF-8. The decoder's own error, which holds a copy of all the bytes, is dropped."""
    PyErr_Clear()
    try:
        PyBytes_FromStringAndSize(<char*>p, n).decode()
    except UnicodeDecodeError as error:
        start = error.start
    else:  # it was memory that failed, not the text
        raise MemoryError(f"no memory for a string of {n} bytes")
    return broken(frame, INVALID_DATA, f"invalid UTF-8 at byte {start} of a string of {n}")


cdef const uint8_t* read_packed(
    ProtoPlan plan, void* base, ProtoNode* field, const uint8_t* p, const uint8_t* end, int* has_unknown, ProtoFrame* frame
) except NULL:
    """The elements of a packed field."""
    cdef list items
    cdef Py_ssize_t n, ahead, count = 0
    cdef PyObject* value
    cdef const uint8_t* start
    cdef uint64_t bits
    cdef uint8_t kind = field.kind
    cdef int is_fresh
    p = read_length(p, end, &n, frame)
    end = p + n
    if field.wire == VARINT:
        ahead = count_varints(p, end)
    else:
        ahead = n // (8 if field.wire == FIXED64 else 4)
    if field.closed and field.kind == K_ENUM:
        items = list_at(base, field)
        while p < end:
            start = p
            p = read_closed(field, p, end, &value, frame)
            if value == NULL:
                has_unknown[0] = keep_number(plan, base, field, start, p)
            else:
                append_stolen(items, value)
        return p
    if ahead > PREALLOCATE:
        ahead = PREALLOCATE
    is_fresh = slot(base, field.offset)[0] == NULL
    if is_fresh and ahead:
        # The places are there, but the list is only as long as it is filled: nobody must ever see an empty place.
        items = PyList_New(ahead)
        set_size(<PyVarObject*>items, 0)
        incref(<PyObject*>items)
        slot(base, field.offset)[0] = <PyObject*>items
        if kind == K_INT64:
            count = get_varint_ints(list_items(<PyObject*>items), ahead, &p, end)
            set_size(<PyVarObject*>items, count)
            if PyErr_Occurred():
                raise MemoryError("no memory for a list of numbers")
            if count < ahead and p < end:
                frame.index = count
                broken(frame, INVALID_DATA, "a varint is cut off or too long")
        while p < end and count < ahead:
            frame.index = count
            if kind == K_INT32:
                p = get_varint(p, end, &bits)
                if p == NULL:
                    broken(frame, INVALID_DATA, "a varint is cut off or too long")
                value = long_from(<int64_t><int32_t>bits)
            else:
                p = read_scalar(field, p, end, &value, frame)
            set_list_item(items, count, value)
            count += 1
            set_size(<PyVarObject*>items, count)
    else:
        items = list_at(base, field)
    while p < end:
        frame.index = PyList_GET_SIZE(items)
        p = read_scalar(field, p, end, &value, frame)
        append_stolen(items, value)
    return p


cdef int keep_number(ProtoPlan plan, void* base, ProtoNode* field, const uint8_t* start, const uint8_t* p) except -1:
    """A number that a closed enum does not name, kept as the unpacked field it could have been."""
    cdef uint8_t[16] copy
    cdef uint8_t* at = put_varint(copy, field.number << 3 | VARINT)
    memcpy(at, start, p - start)
    return keep_unknown(plan, base, copy, at + (p - start))


cdef const uint8_t* read_entry(
    ProtoPlan plan, void* base, ProtoNode* field, const uint8_t* start, const uint8_t* p, const uint8_t* end,
    int* has_unknown, ProtoFrame* frame, Reading* reading
) except NULL:
    """One entry of a map: a message with the key as field 1 and the value as field 2."""
    cdef PyObject** place = slot(base, field.offset)
    cdef ProtoNode* key_node = &field.pair[0]
    cdef ProtoNode* value_node = &field.pair[1]
    cdef object items, key = None, value = None
    cdef PyObject* new
    cdef Py_ssize_t n
    cdef uint32_t tag
    cdef int is_unknown = False
    if place[0] == NULL or place[0] == PyNone:
        items = PyDict_New()
        incref(<PyObject*>items)
        if place[0] != NULL:
            decref(place[0])
        place[0] = <PyObject*>items
    else:
        items = <object>place[0]
    frame.key = NULL
    spend(ENTRY_WEIGHT, frame, reading)
    p = read_length(p, end, &n, frame)
    end = p + n
    while p < end:
        p = read_tag(p, end, &tag, frame)
        if tag == key_node.tag:
            p = read_scalar(key_node, p, end, &new, frame)
            key = <object>new
            decref(new)
            frame.key = new
        elif tag == value_node.tag:
            if value_node.kind == K_MESSAGE:
                if value is None:
                    value = (<ProtoPlan>value_node.ref).blank()
                p = read_inside(value_node, value, p, end, frame, reading)
            elif value_node.closed and value_node.kind == K_ENUM:
                p = read_closed(value_node, p, end, &new, frame)
                if new == NULL:
                    is_unknown = True
                else:
                    value = <object>new
                    decref(new)
            else:
                p = read_scalar(value_node, p, end, &new, frame)
                value = <object>new
                decref(new)
        else:
            # An entry that holds more than a key and a value is none this IDL knows: upb keeps it whole, and so do we.
            p = skip(tag, p, end, frame)
            is_unknown = True
    frame.key = NULL
    if is_unknown:
        has_unknown[0] = keep_unknown(plan, base, start, p)
        return p
    if key is None:
        key = <object>key_node.filler
    if value is None:
        if value_node.kind == K_MESSAGE:
            value = (<ProtoPlan>value_node.ref).blank()
            read_message(<ProtoPlan>value_node.ref, value, p, p, 0, frame, reading)
        else:
            value = <object>value_node.filler
    PyDict_SetItem(items, key, value)
    return p


cdef const uint8_t* skip(uint32_t tag, const uint8_t* p, const uint8_t* end, ProtoFrame* frame) except NULL:
    """Pass over the field behind `tag`. Groups nest as deep as messages may, the open ones counted."""
    cdef uint32_t[DEPTH] open_groups
    cdef int depth = 0
    cdef uint64_t value
    cdef Py_ssize_t n
    while True:
        if tag >> 3 == 0:
            broken(frame, INVALID_DATA, "field number 0")
        if tag & 7 == VARINT:
            p = get_varint(p, end, &value)
            if p == NULL:
                broken(frame, INVALID_DATA, "a varint is cut off or too long")
        elif tag & 7 == FIXED64:
            if end - p < 8:
                broken(frame, INVALID_DATA, f"8 bytes are needed, {end - p} are there")
            p += 8
        elif tag & 7 == DELIMITED:
            p = read_length(p, end, &n, frame)
            p += n
        elif tag & 7 == FIXED32:
            if end - p < 4:
                broken(frame, INVALID_DATA, f"4 bytes are needed, {end - p} are there")
            p += 4
        elif tag & 7 == START_GROUP:
            if frame.depth + depth >= DEPTH:
                broken(frame, DEPTH_LIMIT, f"groups nested deeper than {DEPTH} levels")
            open_groups[depth] = tag >> 3
            depth += 1
        elif tag & 7 == END_GROUP:
            if depth == 0 or open_groups[depth - 1] != tag >> 3:
                broken(frame, INVALID_DATA, f"the end of group {tag >> 3}, which is not open")
            depth -= 1
        else:
            broken(frame, INVALID_DATA, f"wire type {tag & 7}, which does not exist")
        if depth == 0:
            return p
        if p >= end:
            broken(frame, INVALID_DATA, f"the message ends inside group {open_groups[depth - 1]}")
        p = read_tag(p, end, &tag, frame)


cdef int fill_absent(ProtoPlan plan, void* base) except -1:
    """Fill the slots that are still empty."""
    cdef ProtoNode* field = plan.nodes
    cdef ProtoNode* last = plan.nodes + plan.count
    cdef PyObject** place
    cdef object made
    while field < last:
        place = slot(base, field.offset)
        if place[0] == NULL:
            if field.shape == SINGLE:
                incref(field.filler)
                place[0] = field.filler
            else:
                made = [] if field.shape == REPEATED else {}
                incref(<PyObject*>made)
                place[0] = <PyObject*>made
        field += 1
    return 0


cdef int is_complete(ProtoPlan plan, void* base) noexcept:
    """Has it the required fields of its own?"""
    cdef int i
    cdef PyObject* value
    for i in range(plan.count):
        if plan.nodes[i].presence == REQUIRED:
            value = slot(base, plan.nodes[i].offset)[0]
            if value == NULL or value == PyNone:
                return False
    return True


cdef int check_required(ProtoPlan plan, object message, ProtoFrame* up) except -1:
    """ProtocolError for the first required field that is missing, here or further in; messages are as deep as they were read."""
    cdef ProtoFrame frame
    cdef ProtoNode* field
    cdef PyObject* value
    cdef object held, key, item
    cdef int i
    frame.up = up
    frame.plan = <PyObject*>plan
    frame.key = NULL
    frame.index = 0
    frame.depth = 0
    for i in range(plan.count):
        field = &plan.nodes[i]
        frame.field = field
        value = slot(<void*><PyObject*>message, field.offset)[0]
        if value == NULL or value == PyNone:
            if field.presence == REQUIRED:
                broken(&frame, INVALID_DATA, "the required field is missing")
            continue
        held = <object>value
        if field.shape == MAP:
            if field.pair[1].kind == K_MESSAGE:
                for key, item in (<dict>held).items():
                    frame.key = <PyObject*>key
                    check_required(<ProtoPlan>field.pair[1].ref, item, &frame)
                frame.key = NULL
        elif field.kind == K_MESSAGE or field.kind == K_GROUP:
            if field.shape == SINGLE:
                check_required(<ProtoPlan>field.ref, held, &frame)
                continue
            frame.index = 0
            for item in <list>held:
                check_required(<ProtoPlan>field.ref, item, &frame)
                frame.index += 1
    return 0
