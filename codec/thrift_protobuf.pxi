# Kitex Protobuf: part of thrift.pyx.
#
# The head of a strict Thrift message with another magic (9001), always in a frame, and a Protobuf message where Thrift has a struct (Kitex
# `pkg/remote/codec/protobuf`). Arguments and results have no struct around them; an exception is the message
# `{ int32 TypeID = 1; string Message = 2; }`.

cdef str other_payload(Route route, bint is_protobuf):
    """What is wrong when a message is of the other family than its method's IDL; None when it is not."""
    if route.is_protobuf == bool(is_protobuf):
        return None
    return f"the method comes from a {'.proto' if route.is_protobuf else 'Thrift'} file, the message is {'Protobuf' if is_protobuf else 'Thrift'}"


cdef object read_message(object type, ProtoPlan plan, Cursor* c, int64_t budget):
    """The Protobuf message that is all that is left."""
    cdef const uint8_t* p = c.p
    c.p = c.end
    if plan is not None:
        return plan.decode(p, c.end, budget)
    return type.decode(PyBytes_FromStringAndSize(<const char*>p, c.end - p))


cdef int write_message(object type, ProtoPlan plan, object value, WriteBuffer out) except -1:
    cdef bytes data
    if plan is not None:
        return plan.encode(value, out)
    data = type.encode(value)
    return out.append(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))


cdef int write_protobuf_error(WriteBuffer out, int type, bytes text) except -1:
    cdef Py_ssize_t size = PyBytes_GET_SIZE(text)
    cdef uint8_t* p
    reserve(out, 32 + size)
    p = out.p + out.n
    if type:
        p[0] = 0x08  # field 1, varint; a negative one is as long as an int64
        p = proto_varint(p + 1, <uint64_t><int64_t>type)
    if size:
        p[0] = 0x12  # field 2, bytes
        p = proto_varint(p + 1, <uint64_t>size)
        memcpy(p, PyBytes_AS_STRING(text), size)
        p += size
    out.n = p - out.p
    return 0


cdef tuple read_protobuf_error(Cursor* c):
    """``(type number, message)``; unknown fields are passed over."""
    cdef uint64_t tag, value
    cdef int type = 0
    cdef str message = ""
    cdef const uint8_t* p = c.p
    while p != NULL and p < c.end:
        p = get_proto_varint(p, c.end, &tag)
        if p == NULL:
            break
        if tag & 7 == 0:
            p = get_proto_varint(p, c.end, &value)
            if tag == 0x08:
                type = <int32_t>value
        elif tag & 7 == 2:
            p = get_proto_varint(p, c.end, &value)
            if p == NULL or value > <uint64_t>(c.end - p):
                p = NULL
                break
            if tag == 0x12:
                message = PyUnicode_DecodeUTF8(<const char*>p, <Py_ssize_t>value, "replace")
            p += value
        elif tag & 7 == 1 and c.end - p >= 8:
            p += 8
        elif tag & 7 == 5 and c.end - p >= 4:
            p += 4
        else:
            p = NULL
    if p == NULL:
        raise ProtocolError("the exception cannot be read: its Protobuf message is broken")
    c.p = c.end
    return type, message
