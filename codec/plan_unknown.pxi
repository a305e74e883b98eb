# Fields that the IDL does not know, kept and written back: part of plan.pyx.
#
# They are kept as bytes of the binary protocol, one field after the other and without a STOP, whichever protocol they came in, so that a message
# may come in one and go on in the other. What is in the slot is checked before it is written: the user may have put anything there.

cdef int keep_unknown(FieldTable table, void* base, WriteBuffer kept, Frame* frame) except -1:
    cdef PyObject* value
    cdef PyObject* old
    spend(kept.n, frame)
    value = bytes_from(<char*>kept.p, kept.n)
    old = slot(base, table.unknown)[0]
    slot(base, table.unknown)[0] = value
    if old != NULL:
        decref(old)
    return 0


cdef int write_unknown(FieldTable table, void* base, WriteBuffer out, Frame* frame, bint compact) except -1:
    """Write what is kept. In compact, frame.index is the id of the field before."""
    cdef PyObject* value = slot(base, table.unknown)[0]
    cdef Cursor c
    cdef bytes content
    cdef int16_t last = <int16_t>frame.index
    if value == NULL or value == PyNone:
        return 0
    frame.field = NULL
    if not PyBytes_Check(<object>value):
        mistyped(frame, "bytes or None in __unknown__", value)
    content = <object>value
    c.p = <const uint8_t*>PyBytes_AS_STRING(content)
    c.end = c.p + PyBytes_GET_SIZE(content)
    try:
        while c.p < c.end:
            if left(&c) < 3 or c.p[0] == STOP:
                broken(frame, INVALID_DATA, "no field begins here")
            if compact:
                last = compact_from_binary_field(&c, last, out, frame)
            else:
                wire = c.p[0]
                c.p += 3
                skip(&c, wire, frame)
    except ProtocolError as error:
        raise EncodeError(f"__unknown__ does not hold fields of the binary protocol: {error.message}", path_of(frame)) from None
    if not compact:
        out.append(PyBytes_AS_STRING(content), PyBytes_GET_SIZE(content))
    return 0


# ---- from one protocol to the other; the values were skipped once before, so their depth and ends are known to be right


cdef int binary_from_compact_field(uint8_t type, int16_t id, const uint8_t* start, const uint8_t* end, WriteBuffer out, Frame* frame) except -1:
    """Append a field, whose value lies from `start` to `end`, in binary."""
    cdef Cursor c
    c.p, c.end = start, end
    reserve(out, HEADROOM)
    out.p[out.n] = FROM_COMPACT[type]
    put16(out.p + out.n + 1, id)
    out.n += 3
    if type == C_TRUE or type == C_FALSE:
        out.p[out.n] = type == C_TRUE
        out.n += 1
        return 0
    return binary_from_compact(&c, type, out, frame)


cdef int binary_from_compact(Cursor* c, uint8_t type, WriteBuffer out, Frame* frame) except -1:
    cdef uint64_t n, i
    cdef uint8_t head, first, second
    cdef int16_t id = 0
    reserve(out, HEADROOM)
    if type == C_TRUE or type == C_FALSE:
        out.p[out.n] = c.p[0] == C_TRUE
        out.n += 1
        c.p += 1
    elif type == C_BYTE:
        out.p[out.n] = c.p[0]
        out.n += 1
        c.p += 1
    elif type == C_I16:
        put16(out.p + out.n, <int16_t>read_zigzag(c, INT16_MIN, INT16_MAX, frame))
        out.n += 2
    elif type == C_I32:
        put32(out.p + out.n, <int32_t>read_zigzag(c, INT32_MIN, INT32_MAX, frame))
        out.n += 4
    elif type == C_I64:
        put64(out.p + out.n, <uint64_t>read_zigzag(c, <int64_t>0x8000000000000000, INT64_MAX, frame))
        out.n += 8
    elif type == C_DOUBLE:
        memcpy(out.p + out.n, c.p, 8)
        reverse8(out.p + out.n)
        out.n += 8
        c.p += 8
    elif type == C_UUID:
        memcpy(out.p + out.n, c.p, 16)
        out.n += 16
        c.p += 16
    elif type == C_BINARY:
        n = <uint64_t>read_compact_size(c, frame)
        write_bytes(<const char*>c.p, <Py_ssize_t>n, out, frame)
        c.p += n
    elif type == C_STRUCT:
        while True:
            head = c.p[0]
            c.p += 1
            if head == STOP:
                break
            id = <int16_t>(id + (head >> 4)) if head >> 4 else <int16_t>read_zigzag(c, INT16_MIN, INT16_MAX, frame)
            type = head & 0x0F
            reserve(out, HEADROOM)
            out.p[out.n] = FROM_COMPACT[type]
            put16(out.p + out.n + 1, id)
            out.n += 3
            if type == C_TRUE or type == C_FALSE:
                out.p[out.n] = type == C_TRUE
                out.n += 1
            else:
                binary_from_compact(c, type, out, frame)
        reserve(out, 1)
        out.p[out.n] = STOP
        out.n += 1
    elif type == C_MAP:
        n = read_varint(c, frame)
        first = second = 0
        if n:
            first, second = c.p[0] >> 4, c.p[0] & 0x0F
            c.p += 1
        out.p[out.n] = FROM_COMPACT[first]
        out.p[out.n + 1] = FROM_COMPACT[second]
        put32(out.p + out.n + 2, <uint32_t>n)
        out.n += 6
        for i in range(n):
            binary_from_compact(c, first, out, frame)
            binary_from_compact(c, second, out, frame)
    else:
        head = c.p[0]
        c.p += 1
        n = head >> 4
        if n == 15:
            n = read_varint(c, frame)
        first = FROM_COMPACT[head & 0x0F]
        out.p[out.n] = first if first else BYTE
        put32(out.p + out.n + 1, <uint32_t>n)
        out.n += 5
        for i in range(n):
            binary_from_compact(c, head & 0x0F, out, frame)
    return 0


cdef int16_t compact_from_binary_field(Cursor* c, int16_t last, WriteBuffer out, Frame* frame) except? -1:
    """Append the binary field at `c` in compact; its id."""
    cdef uint8_t wire = c.p[0]
    cdef int16_t id = <int16_t>get16(c.p + 1)
    cdef const uint8_t* start
    c.p += 3
    start = c.p
    skip(c, wire, frame)
    reserve(out, HEADROOM)
    if wire == BOOL:
        put_compact_head(out, C_TRUE if start[0] == 1 else C_FALSE, id, last)
        return id
    put_compact_head(out, TO_COMPACT[wire], id, last)
    c.p = start
    compact_from_binary(c, wire, out, frame)
    return id


cdef int compact_from_binary(Cursor* c, uint8_t wire, WriteBuffer out, Frame* frame) except -1:
    cdef int32_t n, i
    cdef uint8_t first, second
    cdef int16_t last = 0
    reserve(out, HEADROOM)
    if wire == BOOL:
        out.p[out.n] = C_TRUE if c.p[0] == 1 else C_FALSE
        out.n += 1
        c.p += 1
    elif wire == BYTE:
        out.p[out.n] = c.p[0]
        out.n += 1
        c.p += 1
    elif wire == I16:
        write_zigzag(<int16_t>get16(c.p), out)
        c.p += 2
    elif wire == I32:
        write_zigzag(<int32_t>get32(c.p), out)
        c.p += 4
    elif wire == I64:
        write_zigzag(<int64_t>get64(c.p), out)
        c.p += 8
    elif wire == DOUBLE:
        memcpy(out.p + out.n, c.p, 8)
        reverse8(out.p + out.n)
        out.n += 8
        c.p += 8
    elif wire == UUID:
        memcpy(out.p + out.n, c.p, 16)
        out.n += 16
        c.p += 16
    elif wire == STRING:
        n = <int32_t>get32(c.p)
        c.p += 4
        write_compact_bytes(<const char*>c.p, n, out)
        c.p += n
    elif wire == STRUCT:
        while c.p[0] != STOP:
            last = compact_from_binary_field(c, last, out, frame)
        c.p += 1
        reserve(out, 1)
        out.p[out.n] = STOP
        out.n += 1
    elif wire == MAP:
        first, second = c.p[0], c.p[1]
        n = <int32_t>get32(c.p + 2)
        c.p += 6
        out.n = put_varint(out.p + out.n, <uint64_t>n) - out.p
        if n:
            out.p[out.n] = <uint8_t>(TO_COMPACT[first] << 4) | TO_COMPACT[second]
            out.n += 1
        for i in range(n):
            compact_from_binary(c, first, out, frame)
            compact_from_binary(c, second, out, frame)
    else:
        first = c.p[0]
        n = <int32_t>get32(c.p + 1)
        c.p += 5
        # The type of no elements may be any number.
        write_compact_count(TO_COMPACT[first] if first <= UUID and TO_COMPACT[first] else C_BYTE, n, out, frame)
        for i in range(n):
            compact_from_binary(c, first, out, frame)
    return 0
