# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Finding the end of a Thrift struct, binary or compact, without decoding it.

A buffered message carries no length, so its end is known only when its last field is. `scan` is a state machine with a stack of
its own: it takes what has arrived, remembers where it stood, and goes on with the next bytes. Each byte is seen once; depth is
bounded; nothing is allocated. What a value claims to hold is compared with the limit before any of it has come.
"""

from codec.buffer cimport get32, left
from libc.stdint cimport int64_t

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


cdef inline int smallest_size(uint8_t kind) noexcept:
    """The fewest bytes a value takes: a length, a count, a lone STOP."""
    if kind == STRUCT:
        return 1
    if kind == STRING:
        return 4
    if kind == LIST or kind == SET:
        return 5
    if kind == MAP:
        return 6
    return fixed_size(kind)


cdef void scan_start(Scan* s, Py_ssize_t limit) noexcept:
    s.depth = 0
    s.levels[0].kind = STRUCT
    s.skip = 0
    s.limit = limit


cdef void scan_start_value(Scan* s, uint8_t kind, Py_ssize_t limit) noexcept:
    s.depth = 0
    s.levels[0].kind = LIST
    s.levels[0].key = kind
    s.levels[0].count = 1
    s.skip = 0
    s.limit = limit


cdef int open_value(Scan* s, Cursor* c, uint8_t kind) except -1:
    """Begin a value of type `kind`. 1: taken up (perhaps with bytes to skip, perhaps a level deeper). 0: more bytes are needed."""
    cdef int size = fixed_size(kind)
    cdef bint fixed
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
        if count > s.limit:
            raise ProtocolError(f"a string of {count} bytes is larger than the limit of {s.limit}", ProtocolErrorKind.SIZE_LIMIT)
        c.p += 4
        s.skip = count
        return 1
    if s.depth == MAX_LEVELS:
        raise ProtocolError(f"nested deeper than {MAX_LEVELS} levels", ProtocolErrorKind.DEPTH_LIMIT)
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
    if count:
        size = smallest_size(key)
        fixed = fixed_size(key) > 0
        if kind == MAP:
            size += smallest_size(value)
            fixed = fixed and fixed_size(value) > 0
        if <int64_t>count * size > s.limit:
            raise ProtocolError(f"{count} elements of at least {size} bytes are larger than the limit of {s.limit}",
                                ProtocolErrorKind.SIZE_LIMIT)
        if fixed:
            s.skip = <Py_ssize_t>count * size
            return 1
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


# ---- compact -------------------------------------------------------------------------------------------------------


cdef enum:
    # Compact types (Apache `TCompactProtocol`).
    C_TRUE = 1
    C_FALSE = 2
    C_BYTE = 3
    C_I16 = 4
    C_I64 = 6
    C_DOUBLE = 7
    C_BINARY = 8
    C_LIST = 9
    C_SET = 10
    C_MAP = 11
    C_STRUCT = 12
    C_UUID = 13


cdef int compact_varint(const uint8_t** p, const uint8_t* end, uint64_t* value) except -1:
    cdef uint64_t v = 0
    cdef int shift = 0
    cdef const uint8_t* at = p[0]
    cdef uint8_t byte
    while at < end:
        byte = at[0]
        at += 1
        if shift == 63 and byte > 1:
            raise ProtocolError("a number longer than 64 bits", ProtocolErrorKind.INVALID_DATA)
        v |= <uint64_t>(byte & 0x7F) << shift
        if byte < 0x80:
            value[0] = v
            p[0] = at
            return 1
        shift += 7
    return 0


cdef int open_compact(Scan* s, Cursor* c, uint8_t kind, bint is_field) except -1:
    """Begin a value of compact type `kind`; see open_value."""
    cdef uint64_t n = 0
    cdef uint8_t key = 0, value = 0
    cdef Level* level
    if kind == C_TRUE or kind == C_FALSE:
        s.skip = 0 if is_field else 1
        return 1
    if kind == C_BYTE:
        s.skip = 1
        return 1
    if C_I16 <= kind <= C_I64:
        return compact_varint(&c.p, c.end, &n)
    if kind == C_DOUBLE or kind == C_UUID:
        s.skip = 8 if kind == C_DOUBLE else 16
        return 1
    if kind == C_BINARY:
        if compact_varint(&c.p, c.end, &n) == 0:
            return 0
        if n > <uint64_t>s.limit:
            raise ProtocolError(f"a string of {n} bytes is larger than the limit of {s.limit}", ProtocolErrorKind.SIZE_LIMIT)
        s.skip = <Py_ssize_t>n
        return 1
    if not C_LIST <= kind <= C_STRUCT:
        raise ProtocolError(f"unknown compact type {kind}", ProtocolErrorKind.INVALID_DATA)
    if s.depth == MAX_LEVELS:
        raise ProtocolError(f"nested deeper than {MAX_LEVELS} levels", ProtocolErrorKind.DEPTH_LIMIT)
    if kind == C_STRUCT:
        s.depth += 1
        s.levels[s.depth].kind = STRUCT
        return 1
    if kind == C_MAP:
        if compact_varint(&c.p, c.end, &n) == 0:
            return 0
        if n:
            if left(c) < 1:
                return 0
            key, value = c.p[0] >> 4, c.p[0] & 0x0F
            c.p += 1
    else:
        if left(c) < 1:
            return 0
        key = value = c.p[0] & 0x0F
        n = c.p[0] >> 4
        c.p += 1
        if n == 15 and compact_varint(&c.p, c.end, &n) == 0:
            return 0
    if n > <uint64_t>s.limit:  # each element takes a byte at least
        raise ProtocolError(f"{n} elements of at least one byte are larger than the limit of {s.limit}", ProtocolErrorKind.SIZE_LIMIT)
    if n and not (1 <= key <= C_UUID and 1 <= value <= C_UUID):
        raise ProtocolError(f"unknown compact type {value if 1 <= key <= C_UUID else key}", ProtocolErrorKind.INVALID_DATA)
    s.depth += 1
    level = &s.levels[s.depth]
    level.kind = MAP if kind == C_MAP else LIST
    level.key, level.value, level.count, level.on_value = key, value, <int32_t>n, 0
    return 1


cdef int scan_compact(Scan* s, Cursor* c) except -1:
    cdef Py_ssize_t n
    cdef Level* level
    cdef uint8_t kind
    cdef uint64_t id = 0
    cdef bint is_field
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
        is_field = level.kind == STRUCT
        if is_field:
            if left(c) < 1:
                return 0
            kind = c.p[0]
            c.p += 1
            if kind == STOP:
                if s.depth == 0:
                    return 1
                s.depth -= 1
                continue
            if kind >> 4 == 0 and compact_varint(&c.p, c.end, &id) == 0:
                c.p = mark
                return 0
            kind &= 0x0F
        elif level.count == 0:
            if s.depth == 0:
                return 1
            s.depth -= 1
            continue
        elif level.kind == MAP and level.on_value:
            kind = level.value
        else:
            kind = level.key
        if open_compact(s, c, kind, is_field) == 0:
            c.p = mark
            return 0
        if level.kind == MAP:
            level.on_value = not level.on_value
            if not level.on_value:
                level.count -= 1
        elif level.kind == LIST:
            level.count -= 1
