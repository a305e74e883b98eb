# Passing over a value that nobody asked for: part of plan.pyx.

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
