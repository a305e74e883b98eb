# Binaries, and other large values, without needless copies: part of plan.pyx.
#
# Into a message: from APART bytes on, one that cannot change any more is left where it is, if the buffer can send it from there (WriteBuffer.splice).
# Out of one: a field that the IDL marks (types.VIEW) is a read-only memoryview. From APART bytes on it looks into what arrived, and holds that memory.

# What the message that is decoded next stands in: a ReadBuffer, or a bytes object, or None where it stands in memory that is used again.
cdef object lender = None


cdef void lend_from(object source) noexcept:
    """What the bytes of the next message are in. None: views get copies of their own. Set it back when the message is decoded."""
    global lender
    lender = source


cdef PyObject* read_view(const uint8_t* p, Py_ssize_t n) except NULL:
    """A memoryview of `n` received bytes."""
    cdef Piece piece
    cdef object source = lender, view = None
    cdef const uint8_t* start
    if n >= APART:
        if type(source) is ReadBuffer:
            # Compared, for user code that a collection of garbage calls may have decoded something else meanwhile.
            start = (<ReadBuffer>source).p
            if start <= p and p + n <= start + (<ReadBuffer>source).tail:
                source = (<ReadBuffer>source).lend()
            else:
                source = None
        elif type(source) is bytes:
            start = <const uint8_t*>PyBytes_AS_STRING(source)
            if not (start <= p and p + n <= start + PyBytes_GET_SIZE(source)):
                source = None
        if source is not None:
            piece = Piece.__new__(Piece)
            piece.owner = source
            piece.p = p
            piece.n = n
            view = memoryview(piece)
    if view is None:
        view = memoryview(PyBytes_FromStringAndSize(<const char*>p, n))
    Py_INCREF(view)
    return <PyObject*>view


cdef struct Span:
    const char* data
    Py_ssize_t n


cdef object span_of(object value, Span* span, Frame* frame):
    """Where the bytes of a binary are, and the object that keeps them there, unchanged; None when they may change."""
    cdef Py_buffer* buffer
    cdef object base
    if PyBytes_Check(value):
        base = value
    elif PyByteArray_Check(value):
        span.data = PyByteArray_AS_STRING(value)
        span.n = PyByteArray_GET_SIZE(value)
        return None
    elif type(value) is not memoryview:
        mistyped(frame, "bytes", <PyObject*>value)
    else:
        try:
            base = value.obj
        except ValueError:
            unfit(frame, "the memoryview has been released")
        buffer = PyMemoryView_GET_BUFFER(value)
        if (type(base) is Piece or type(base) is bytes) and PyBuffer_IsContiguous(buffer, b"C"):
            # The base, for the view itself may be released before the bytes have left.
            span.data = <const char*>buffer.buf
            span.n = buffer.len
            return base
        # It may have strides, and a foreign owner: a copy is the simple way to get it right.
        base = bytes(value)
    span.data = PyBytes_AS_STRING(base)
    span.n = PyBytes_GET_SIZE(base)
    return base


cdef inline int put_span(object owner, const char* data, Py_ssize_t n, WriteBuffer out) except -1:
    """Append bytes, behind their length; `owner` as from span_of."""
    if n >= APART and out.splices and owner is not None:
        return out.splice(owner, data, n)
    reserve(out, n)
    memcpy(out.p + out.n, data, n)
    out.n += n
    return 0


cdef object checked_span(object value, Span* span, Frame* frame):
    cdef object owner = span_of(value, span, frame)
    if span.n > INT32_MAX:
        unfit(frame, f"{span.n} bytes are longer than a Thrift binary can be")
    return owner


cdef int write_binary(object value, WriteBuffer out, Frame* frame) except -1:
    cdef Span span
    cdef object owner = checked_span(value, &span, frame)
    reserve(out, span.n + 4 if span.n < APART else 4)
    put32(out.p + out.n, <int32_t>span.n)
    out.n += 4
    return put_span(owner, span.data, span.n, out)


cdef int write_compact_binary(object value, WriteBuffer out, Frame* frame) except -1:
    cdef Span span
    cdef object owner = checked_span(value, &span, frame)
    reserve(out, 5)
    out.n = put_varint(out.p + out.n, <uint64_t>span.n) - out.p
    return put_span(owner, span.data, span.n, out)
