# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Finding the end of a Thrift binary struct without decoding it.

A buffered message carries no length, so its end is known only when its last field is. `scan` is a state machine with a stack of
its own: it takes what has arrived, remembers where it stood, and goes on with the next bytes. Each byte is seen once; depth is
bounded; nothing is allocated.
"""

from codec.buffer cimport get32, left

from codec.errors import ProtocolError, ProtocolErrorKind

cdef enum:
    STOP = 0
    STRUCT = 12
    MAP = 13
    SET = 14
    LIST = 15
    STRING = 11


cdef inline int fixed_size(uint8_t kind) noexcept:
    """Bytes of a value of fixed size; 0 for others, -1 for a type that does not exist."""
    if kind == 2 or kind == 3:
        return 1
    if kind == 6:
        return 2
    if kind == 8:
        return 4
    if kind == 4 or kind == 10:
        return 8
    if kind == 16:
        return 16
    if kind == STRING or STRUCT <= kind <= LIST:
        return 0
    return -1


cdef void scan_start(Scan* s) noexcept:
    s.depth = 0
    s.levels[0].kind = STRUCT
    s.skip = 0


cdef void scan_start_value(Scan* s, uint8_t kind) noexcept:
    s.depth = 0
    s.levels[0].kind = LIST
    s.levels[0].key = kind
    s.levels[0].count = 1
    s.skip = 0


cdef int open_value(Scan* s, Cursor* c, uint8_t kind) except -1:
    """Begin a value of type `kind`. 1: taken up (perhaps with bytes to skip, perhaps a level deeper). 0: more bytes are needed."""
    cdef int size = fixed_size(kind)
    cdef uint8_t key, value
    cdef int32_t count
    cdef Level* level
    if size > 0:
        s.skip = size
        return 1
    if size < 0:
        raise ProtocolError(f"unknown wire type {kind}", ProtocolErrorKind.INVALID_DATA)
    if kind == STRING:
        if left(c) < 4:
            return 0
        count = <int32_t>get32(c.p)
        if count < 0:
            raise ProtocolError(f"negative string length {count}", ProtocolErrorKind.NEGATIVE_SIZE)
        c.p += 4
        s.skip = count
        return 1
    if s.depth == MAX_DEPTH:
        raise ProtocolError(f"nested deeper than {MAX_DEPTH} levels", ProtocolErrorKind.DEPTH_LIMIT)
    if kind == STRUCT:
        s.depth += 1
        s.levels[s.depth].kind = STRUCT
        return 1
    if kind == MAP:
        if left(c) < 6:
            return 0
        key, value = c.p[0], c.p[1]
        count = <int32_t>get32(c.p + 2)
        c.p += 6
    else:
        if left(c) < 5:
            return 0
        key = value = c.p[0]
        count = <int32_t>get32(c.p + 1)
        c.p += 5
    if count < 0:
        raise ProtocolError(f"negative container size {count}", ProtocolErrorKind.NEGATIVE_SIZE)
    if count and (fixed_size(key) < 0 or fixed_size(value) < 0):
        raise ProtocolError(f"unknown wire type {key if fixed_size(key) < 0 else value}", ProtocolErrorKind.INVALID_DATA)
    s.depth += 1
    level = &s.levels[s.depth]
    level.kind = MAP if kind == MAP else LIST
    level.key, level.value, level.count, level.on_value = key, value, count, 0
    return 1


cdef int scan(Scan* s, Cursor* c) except -1:
    cdef Py_ssize_t n
    cdef Level* level
    cdef uint8_t kind
    cdef const uint8_t* mark
    while True:
        if s.skip:
            n = left(c)
            if n < s.skip:
                c.p = c.end
                s.skip -= n
                return 0
            c.p += s.skip
            s.skip = 0
        level = &s.levels[s.depth]
        mark = c.p
        if level.kind == STRUCT:
            if left(c) < 1:
                return 0
            kind = c.p[0]
            if kind == STOP:
                c.p += 1
                if s.depth == 0:
                    return 1
                s.depth -= 1
                continue
            if left(c) < 3:
                return 0
            c.p += 3
        elif level.count == 0:
            if s.depth == 0:
                return 1
            s.depth -= 1
            continue
        elif level.kind == MAP and level.on_value:
            kind = level.value
        else:
            kind = level.key
        if open_value(s, c, kind) == 0:
            c.p = mark
            return 0
        if level.kind == MAP:
            level.on_value = not level.on_value
            if not level.on_value:
                level.count -= 1
        elif level.kind == LIST:
            level.count -= 1
