# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The access log's lines, made natively: one for each call is part of the hot path.

Both forms of weego.log, field by field and byte by byte (its tests compare). A line is made in a buffer of its own and then added to the
spool in one step, so that the thread that empties the spool never sees half a line.
"""

import json
import logging

from libc.math cimport floor
from libc.string cimport strlen
from cpython.unicode cimport PyUnicode_AsUTF8AndSize

cdef extern from *:
    """
    #include <time.h>
    static double weego_realtime(void) {
        struct timespec t;
        clock_gettime(CLOCK_REALTIME, &t);
        return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
    }
    """
    double realtime "weego_realtime"() noexcept nogil

# Characters of a method's name that are told: a peer may send any.
cdef Py_ssize_t MOST_TOLD = 200

log = logging.getLogger("weego.worker")

cdef object quoted = json.encoder.encode_basestring


cdef class AccessLog:
    """Called after each call; writes one line. `clock(second)` gives date and zone as bytes, `told(error)` an error in one line.

    `write` takes the line where `spool` is None. `codes` are the names by number. In `colour` it is for people.
    """

    def __init__(self, Spool spool, write, *, bint as_json, str role not None, bint colour, clock, told, dict codes not None,
                 str logger not None, int pid):
        self.spool = spool
        self.write = write
        self.clock = clock
        self.told = told
        self.as_json = as_json
        self.line = WriteBuffer()
        self.codes = {number: name.encode() for number, name in codes.items()}
        self.second = -1
        self.head = self.good = self.bad = self.plain = b""
        if as_json:
            self.before_service = f'","level":"info","role":{quoted(role)},"pid":{pid},"logger":{quoted(logger)},"service":'.encode()
        else:
            if colour:
                self.head, self.good, self.bad, self.plain = b"\x1b[2m", b"\x1b[32m", b"\x1b[31m", b"\x1b[0m"
            self.before_service = f" {role}".encode() + self.plain + b" "

    def __call__(self, call, request, int code, bytes_out, error):
        cdef bytes line
        if self.spool is not None and self.spool.refuses():
            return
        self.line.truncate(0)
        try:
            self.make(call, request.size, code, bytes_out, error)
        except Exception:  # a field that is not what it should be: the line is lost, the call is not
            log.exception("access log line cannot be formatted")
            return
        if self.spool is not None:
            self.spool.add(self.line.p, self.line.n)
        else:
            line = (<char*>self.line.p)[:self.line.n]
            self.write(line)

    cdef int make(self, object call, int64_t bytes_in, int code, int64_t bytes_out, object error) except -1:
        cdef double elapsed = call.elapsed
        cdef int64_t microseconds = <int64_t>(elapsed * 1e6 + 0.5)
        cdef str service = call.service or "?"
        cdef str method = call.method
        cdef str caller = call.caller
        cdef object name = self.codes.get(code)
        if name is None:
            name = str(code).encode()
        if len(method) > MOST_TOLD:
            method = method[:MOST_TOLD]
        self.stamp(realtime() - elapsed)
        self.raw(self.before_service)
        if self.as_json:
            self.text(service)
            self.literal(b',"method":')
            self.text(method)
            self.literal(b',"code":"')
            self.raw(name)
            self.literal(b'","elapsed":')
            self.number(microseconds // 1000000)
            self.literal(b".")
            self.digits(microseconds % 1000000, 6)
            self.literal(b',"bytes_in":')
            self.number(bytes_in)
            self.literal(b',"bytes_out":')
            self.number(bytes_out)
            self.literal(b',"protocol":')
            self.text(call.protocol)
            self.literal(b',"peer":')
            self.text(call.peer)
            if caller:
                self.literal(b',"caller":')
                self.text(caller)
            if error is not None:
                self.literal(b',"error":')
                self.text(self.told(error))
            self.literal(b"}\n")
        else:
            self.text(service)
            self.literal(b".")
            self.text(method)
            self.literal(b" ")
            self.raw(self.good if code == 0 else self.bad)
            self.raw(name)
            self.raw(self.plain)
            self.literal(b" ")
            self.number(microseconds // 1000)
            self.literal(b".")
            self.digits(microseconds % 1000, 3)
            self.literal(b"ms ")
            self.number(bytes_in)
            self.literal(b">")
            self.number(bytes_out)
            self.literal(b" ")
            self.text(call.protocol)
            self.literal(b" ")
            self.text(call.peer)
            if caller:
                self.literal(b" from=")
                self.text(caller)
            if error is not None:
                self.literal(b" error=")
                self.text(self.told(error))
            self.literal(b"\n")
        return 0

    cdef int stamp(self, double at) except -1:
        """How a line begins: local time to the millisecond. What changes once a second is made once a second."""
        cdef int64_t second = <int64_t>floor(at)
        if second != self.second:
            self.date, self.zone = self.clock(second)
            self.second = second
        if self.as_json:
            self.literal(b'{"time":"')
        else:
            self.raw(self.head)
        self.raw(self.date)
        self.literal(b".")
        self.digits(<int64_t>((at - <double>second) * 1000), 3)
        return self.raw(self.zone)

    cdef int text(self, str value) except -1:
        """A string, quoted for JSON, or with what is not printable made visible."""
        cdef Py_ssize_t size = 0, i
        cdef const char* p
        cdef unsigned char c
        cdef bint plain = True
        if value is None:
            raise TypeError("a string is wanted, not None")
        if value.isascii():
            p = PyUnicode_AsUTF8AndSize(value, &size)
            for i in range(size):
                c = <unsigned char>p[i]
                if c < 0x20 or c == 0x7F or c == c'"' or c == c'\\':
                    plain = False
                    break
            if plain:
                if self.as_json:
                    self.literal(b'"')
                self.line.append(p, size)
                if self.as_json:
                    self.literal(b'"')
                return 0
        if self.as_json:
            return self.raw(quoted(value).encode("utf-8", "backslashreplace"))
        return self.raw(visible(value).encode("utf-8", "backslashreplace"))

    cdef int raw(self, bytes value) except -1:
        return self.line.append(<const char*>value, len(value))

    cdef int literal(self, const char* value) except -1:
        return self.line.append(value, strlen(value))

    cdef int number(self, int64_t value) except -1:
        cdef char digits[24]
        cdef int at = 24
        if value < 0:
            self.literal(b"-")
            value = -value
        while True:
            at -= 1
            digits[at] = <char>(c'0' + value % 10)
            value //= 10
            if value == 0:
                break
        return self.line.append(digits + at, 24 - at)

    cdef int digits(self, int64_t value, int width) except -1:
        cdef char digits[8]
        cdef int at = width
        while at > 0:
            at -= 1
            digits[at] = <char>(c'0' + value % 10)
            value //= 10
        return self.line.append(digits, width)


def visible(str value not None):
    """A text that stays one line: control characters, a peer's perhaps, are escaped."""
    if value.isprintable():
        return value
    return "".join([char if char.isprintable() else char.encode("unicode_escape").decode() for char in value])
