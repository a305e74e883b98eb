# Passing over a compact value that nobody asked for: part of plan.pyx.

cdef inline int skip_varint(Cursor* c, Frame* frame) except -1:
    read_varint(c, frame)
    return 0


cdef int skip_compact(Cursor* c, uint8_t type, bint is_field, Frame* frame) except -1:
    """Pass over one value of compact type `type`. A field's bool takes no bytes, a container's one. A loop, for the depth is the peer's choice."""
    cdef Level levels[DEPTH]
    cdef Level* level
    cdef int depth = 0
    cdef uint64_t n
    cdef uint8_t head, first, second
    while True:
        if type == C_TRUE or type == C_FALSE:
            if not is_field:
                if left(c) < 1:
                    ended(frame, 1, 0)
                c.p += 1
        elif type == C_BYTE:
            if left(c) < 1:
                ended(frame, 1, 0)
            c.p += 1
        elif type == C_I16 or type == C_I32 or type == C_I64:
            skip_varint(c, frame)
        elif type == C_DOUBLE or type == C_UUID:
            n = 8 if type == C_DOUBLE else 16
            if left(c) < <Py_ssize_t>n:
                ended(frame, <Py_ssize_t>n, left(c))
            c.p += n
        elif type == C_BINARY:
            n = <uint64_t>read_compact_size(c, frame)
            c.p += n
        elif type < C_LIST or type > C_STRUCT:
            broken(frame, INVALID_DATA, f"unknown compact type {type}")
        else:
            if depth == DEPTH:
                broken(frame, DEPTH_LIMIT, f"nested deeper than {DEPTH} levels")
            level = &levels[depth]
            if type == C_STRUCT:
                level.more = -1
                depth += 1
            else:
                first = second = 0
                if type == C_MAP:
                    n = read_varint(c, frame)
                    if n:
                        if left(c) < 1:
                            ended(frame, 1, 0)
                        first, second = c.p[0] >> 4, c.p[0] & 0x0F
                        c.p += 1
                else:
                    if left(c) < 1:
                        ended(frame, 1, 0)
                    head = c.p[0]
                    c.p += 1
                    first = second = head & 0x0F
                    n = head >> 4
                    if n == 15:
                        n = read_varint(c, frame)
                if n > INT32_MAX:
                    broken(frame, NEGATIVE_SIZE, f"negative count {<int32_t>n}")
                if n:
                    if not 1 <= first <= C_UUID or not 1 <= second <= C_UUID:
                        broken(frame, INVALID_DATA, f"unknown compact type {first if not 1 <= first <= C_UUID else second}")
                    # No value takes less than a byte.
                    if n * (2 if type == C_MAP else 1) > <uint64_t>left(c):
                        broken(frame, SIZE_LIMIT, f"{n} elements of at least one byte, {left(c)} bytes are there")
                    level.first, level.second = first, second
                    level.more = <int64_t>(2 * n if type == C_MAP else n)
                    depth += 1
        while True:
            if depth == 0:
                return 0
            level = &levels[depth - 1]
            if level.more < 0:
                if left(c) < 1:
                    ended(frame, 1, 0)
                head = c.p[0]
                c.p += 1
                if head == STOP:
                    depth -= 1
                    continue
                type = head & 0x0F
                is_field = True
                if head >> 4 == 0:
                    skip_varint(c, frame)
                break
            if level.more == 0:
                depth -= 1
                continue
            type = level.second if level.more & 1 else level.first
            is_field = False
            level.more -= 1
            break
