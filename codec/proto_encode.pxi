# Native Protobuf messages → bytes: part of proto_plan.pyx.

cdef int write_root(ProtoPlan plan, object value, WriteBuffer out) except -1:
    cdef Py_ssize_t start = out.n
    write_message(plan, value, out, NULL)
    if out.n - start > INT32_MAX:
        raise EncodeError(f"{out.n - start} bytes are more than a Protobuf message can have", plan.name)
    return 0


cdef int write_message(ProtoPlan plan, object value, WriteBuffer out, ProtoFrame* up) except -1:
    """Write the fields of an instance of `plan.cls`, which the caller has made sure it is, and holds."""
    cdef ProtoFrame frame
    cdef ProtoNode* field = plan.nodes
    cdef ProtoNode* last
    cdef PyObject* content
    cdef object held
    cdef void* base = <void*><PyObject*>value
    frame.up = up
    frame.plan = <PyObject*>plan
    frame.field = NULL
    frame.key = NULL
    frame.index = 0
    frame.depth = 1 if up == NULL else up.depth + 1
    if not plan.linked:
        plan.link()
    if frame.depth > DEPTH:
        unfit(&frame, f"messages nested deeper than {DEPTH} levels; does it contain itself?")
    last = field + plan.count
    while field < last:
        content = slot(base, field.offset)[0]
        frame.field = field
        if content == NULL or content == PyNone:
            if field.presence == REQUIRED:
                unfit(&frame, "the field is required, but it is None")
        else:
            held = <object>content
            if field.shape == SINGLE:
                write_value(field, content, out, field.presence == IMPLICIT, &frame)
            elif field.shape == REPEATED:
                write_list(field, held, out, &frame)
            else:
                write_map(field, held, out, &frame)
        field += 1
    content = slot(base, plan.unknown_offset)[0]
    if content != NULL and PyBytes_Check(<object>content):
        out.append(PyBytes_AS_STRING(<object>content), PyBytes_GET_SIZE(<object>content))
    return 0


cdef inline int put_tag(ProtoNode* field, WriteBuffer out) noexcept:
    """HEADROOM is there."""
    if field.tag_size == 1:
        out.p[out.n] = field.tag_bytes[0]
        out.n += 1
        return 0
    memcpy(out.p + out.n, field.tag_bytes, 5)
    out.n += field.tag_size
    return 0


cdef int write_value(ProtoNode* field, PyObject* value, WriteBuffer out, int skips_zero, ProtoFrame* frame) except -1:
    """Write one value with its tag; nothing for a zero where the IDL does not tell zero from absent."""
    cdef uint64_t bits
    cdef Py_ssize_t n, mark
    cdef int left
    cdef const char* data
    cdef uint8_t kind = field.kind
    cdef object held
    if kind == K_STRING:
        if not is_text(value):
            mistyped(frame, "str", value)
        if is_compact_ascii(value):
            data = <const char*>ascii_data(value)
            n = text_length(value)
        elif field.utf8:
            data = utf8_or_error(value, &n, frame)
        else:
            held = lenient_utf8(<object>value, frame)
            return write_bytes(field, PyBytes_AS_STRING(held), PyBytes_GET_SIZE(held), out, skips_zero, frame)
        return write_bytes(field, data, n, out, skips_zero, frame)
    if kind == K_MESSAGE:
        if type_of(value) != <PyTypeObject*>(<ProtoPlan>field.ref).cls and not is_subtype(
            type_of(value), <PyTypeObject*>(<ProtoPlan>field.ref).cls
        ):
            mistyped(frame, (<ProtoPlan>field.ref).name, value)
        reserve(out, HEADROOM)
        put_tag(field, out)
        mark = out.n
        left = field.length_size
        out.n += left
        write_message(<ProtoPlan>field.ref, <object>value, out, frame)
        return put_length(field, mark, left, out)
    if kind == K_BYTES:
        return write_binary(field, <object>value, out, skips_zero, frame)
    if kind == K_GROUP:
        if not is_subtype(type_of(value), <PyTypeObject*>(<ProtoPlan>field.ref).cls):
            mistyped(frame, (<ProtoPlan>field.ref).name, value)
        reserve(out, HEADROOM)
        put_tag(field, out)
        write_message(<ProtoPlan>field.ref, <object>value, out, frame)
        reserve(out, HEADROOM)
        out.n = put_varint(out.p + out.n, field.number << 3 | END_GROUP) - out.p
        return 0
    bits = scalar_bits(field, value, frame)
    if bits == 0 and skips_zero:
        return 0
    reserve(out, HEADROOM)
    put_tag(field, out)
    put_bits(field, bits, out)
    return 0


cdef inline int put_bits(ProtoNode* field, uint64_t bits, WriteBuffer out) noexcept:
    """HEADROOM is there."""
    if field.wire == VARINT:
        out.n = put_varint(out.p + out.n, bits) - out.p
    elif field.wire == FIXED64:
        put_le64(out.p + out.n, bits)
        out.n += 8
    else:
        put_le32(out.p + out.n, <uint32_t>bits)
        out.n += 4
    return 0


cdef int put_length(ProtoNode* field, Py_ssize_t mark, int left, WriteBuffer out) except -1:
    """Put the length of what stands behind `mark` there. `left` bytes were left for it: what the last one of this field took, for the
    next is most likely like it."""
    cdef Py_ssize_t n = out.n - mark - left
    cdef int size = varint_size(n)
    if n > INT32_MAX:
        raise EncodeError(f"{n} bytes are more than a Protobuf message can have")
    if size != left:
        reserve(out, HEADROOM)
        memmove(out.p + mark + size, out.p + mark + left, n)
        out.n = mark + size + n
        field.length_size = size
    put_varint(out.p + mark, n)
    return 0


cdef inline int64_t whole_number(PyObject* value, int64_t low, int64_t high, str kind, ProtoFrame* frame) except? -1:
    """The value of an int, checked."""
    cdef int overflow = 0
    cdef int64_t number
    if not is_long(value) or is_bool(value):
        mistyped(frame, "int", value)
    if not small_int(value, &number):
        number = long_value(value, &overflow)
    if overflow or number < low or number > high:
        unfit(frame, kind + " out of range")
    return number


cdef uint64_t scalar_bits(ProtoNode* field, PyObject* value, ProtoFrame* frame) except? 0xBADBADBADBADBADB:
    """A number as its wire type carries it."""
    cdef int64_t number
    cdef uint64_t bits
    cdef uint32_t half
    cdef double real
    cdef float single
    cdef uint8_t kind = field.kind
    if kind == K_INT64 or kind == K_SFIXED64:
        return <uint64_t>whole_number(value, <int64_t>0x8000000000000000, 0x7FFFFFFFFFFFFFFF, "int64", frame)
    if kind == K_INT32 or kind == K_SFIXED32:
        return <uint64_t>whole_number(value, INT32_MIN, INT32_MAX, "int32", frame)
    if kind == K_BOOL:
        if value != PyTrue and value != PyFalse:
            mistyped(frame, "bool", value)
        return value == PyTrue
    if kind == K_ENUM:
        if not is_exact_long(value) and not is_subtype(type_of(value), <PyTypeObject*>(<ProtoEnum>field.ref).cls):
            mistyped(frame, (<ProtoEnum>field.ref).cls.__name__, value)
        return <uint64_t>whole_number(value, INT32_MIN, INT32_MAX, "enum (int32)", frame)
    if kind == K_DOUBLE or kind == K_FLOAT:
        real = float_value(value) if is_float(value) else whole_as_double(value, frame)
        if kind == K_DOUBLE:
            memcpy(&bits, &real, 8)
            return bits
        single = <float>real
        memcpy(&half, &single, 4)
        return half
    if kind == K_UINT32 or kind == K_FIXED32:
        return <uint64_t>whole_number(value, 0, UINT32_MAX, "uint32", frame)
    if kind == K_UINT64 or kind == K_FIXED64:
        return whole_unsigned(value, frame)
    if kind == K_SINT64:
        number = whole_number(value, <int64_t>0x8000000000000000, 0x7FFFFFFFFFFFFFFF, "int64", frame)
        return (<uint64_t>number << 1) ^ <uint64_t>(number >> 63)
    number = whole_number(value, INT32_MIN, INT32_MAX, "int32", frame)
    return <uint32_t>((<uint32_t>number << 1) ^ <uint32_t>(<int32_t>number >> 31))


cdef uint64_t whole_unsigned(PyObject* value, ProtoFrame* frame) except? 0xBADBADBADBADBADB:
    cdef int64_t number
    if not is_long(value) or is_bool(value):
        mistyped(frame, "int", value)
    if small_int(value, &number):
        if number < 0:
            unfit(frame, "uint64 out of range")
        return <uint64_t>number
    try:
        return unsigned_value(value)
    except OverflowError:
        pass
    unfit(frame, "uint64 out of range")


cdef double whole_as_double(PyObject* value, ProtoFrame* frame) except? -1.0:
    if not is_long(value) or is_bool(value):
        mistyped(frame, "float", value)
    try:
        return long_as_double(value)
    except OverflowError:
        pass
    unfit(frame, "double out of range")


cdef const char* utf8_or_error(PyObject* value, Py_ssize_t* n, ProtoFrame* frame) except NULL:
    try:
        return utf8_of(value, n)
    except UnicodeEncodeError as error:
        position = error.start
    unfit(frame, f"the text has no UTF-8 form: a lone surrogate at position {position}")


cdef bytes lenient_utf8(str value, ProtoFrame* frame):
    """Text whose field is not checked: lone surrogates stand for the bytes they were read from."""
    try:
        return value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        position = error.start
    unfit(frame, f"the text has no UTF-8 form: a lone surrogate at position {position}")


cdef int write_bytes(
    ProtoNode* field, const char* data, Py_ssize_t n, WriteBuffer out, int skips_zero, ProtoFrame* frame
) except -1:
    if n == 0 and skips_zero:
        return 0
    if n > INT32_MAX:
        unfit(frame, f"{n} bytes are more than a Protobuf field can have")
    reserve(out, n + HEADROOM)
    put_tag(field, out)
    out.n = put_varint(out.p + out.n, n) - out.p
    memcpy(out.p + out.n, data, n)
    out.n += n
    return 0


cdef int write_binary(ProtoNode* field, object value, WriteBuffer out, int skips_zero, ProtoFrame* frame) except -1:
    cdef bytes content
    if PyBytes_Check(value):
        return write_bytes(field, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value), out, skips_zero, frame)
    if PyByteArray_Check(value):
        return write_bytes(field, PyByteArray_AS_STRING(value), PyByteArray_GET_SIZE(value), out, skips_zero, frame)
    if type(value) is not memoryview:
        mistyped(frame, "bytes", <PyObject*>value)
    # A view may have strides and a foreign owner: a copy is the simple way to get it right.
    content = bytes(value)
    return write_bytes(field, PyBytes_AS_STRING(content), PyBytes_GET_SIZE(content), out, skips_zero, frame)


cdef int write_list(ProtoNode* field, object items, WriteBuffer out, ProtoFrame* frame) except -1:
    cdef object item
    cdef Py_ssize_t i, n, mark = 0
    cdef int is_list = PyList_Check(items)
    cdef int left = 0
    cdef int64_t number
    cdef uint8_t kind = field.kind
    cdef uint64_t bits
    if is_list:
        n = PyList_GET_SIZE(items)
    else:
        if not PyTuple_Check(items):
            mistyped(frame, "list", <PyObject*>items)
        n = PyTuple_GET_SIZE(items)
    if n == 0:
        return 0
    if field.packed:
        reserve(out, HEADROOM)
        put_tag(field, out)
        mark = out.n
        left = field.length_size
        out.n += left
    for i in range(n):
        frame.index = i
        if is_list:
            if PyList_GET_SIZE(items) != n:
                unfit(frame, "the list changed its size while it was being encoded")
            item = <object>list_item(items, i)
        else:
            item = <object>tuple_item(items, i)
        if field.packed:
            if kind == K_INT64 and is_exact_long(<PyObject*>item) and small_int(<PyObject*>item, &number):
                bits = <uint64_t>number
            else:
                bits = scalar_bits(field, <PyObject*>item, frame)
            reserve(out, HEADROOM)
            put_bits(field, bits, out)
        else:
            write_value(field, <PyObject*>item, out, False, frame)
    frame.index = 0
    if field.packed:
        put_length(field, mark, left, out)
    return 0


cdef int write_map(ProtoNode* field, object items, WriteBuffer out, ProtoFrame* frame) except -1:
    cdef PyObject* borrowed_key = NULL
    cdef PyObject* borrowed_value = NULL
    cdef object key, value
    cdef Py_ssize_t position = 0, n, mark
    cdef Py_ssize_t done = 0
    cdef int left
    if not PyDict_Check(items):
        mistyped(frame, "dict", <PyObject*>items)
    n = PyDict_Size(items)
    while PyDict_Next(items, &position, &borrowed_key, &borrowed_value):
        key = <object>borrowed_key
        value = <object>borrowed_value
        frame.key = NULL
        reserve(out, HEADROOM)
        put_tag(field, out)
        mark = out.n
        left = field.length_size
        out.n += left
        # Both are written, whatever they are: so protobuf does, and a zero may be the last of two that came for one key.
        write_value(&field.pair[0], borrowed_key, out, False, frame)
        frame.key = borrowed_key
        write_value(&field.pair[1], borrowed_value, out, False, frame)
        put_length(field, mark, left, out)
        done += 1
        if PyDict_Size(items) != n:
            break
    frame.key = NULL
    if done != n:
        unfit(frame, "the dict changed its size while it was being encoded")
    return 0
