# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Header compression (RFC 7541): the Decoder of what a peer sends, the Encoder of what we send.

Decoding an indexed field costs a table look-up and no new object, so a connection that repeats itself costs next to nothing. The Encoder puts only such
Fields into its dynamic table that the caller made once and gives again and again: it knows them by identity. Everything else leaves as
a literal that no table remembers, so metadata that differs from call to call never evicts what repeats.

Bounds: strings are read out of a block whose length the connection bounds; the list is counted while it is decoded, so a bomb of
short references (attack case H2-05) stops at `max_list`, and at four times that the connection ends.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint16_t
from libc.string cimport memchr, memcpy

from codec.buffer cimport reserve

cimport cython

from codec.h2.errors import ErrorCode, H2Error
from codec.h2.tables import HUFFMAN, STATIC

cdef enum:
    STATIC_SIZE = 61
    FIELD_OVERHEAD = 32       # what the RFC adds to the bytes of each field (4.1)
    MOST_UPDATES = 2          # table size updates at the start of a block (4.2)
    EOS = 256
    FAILED = 511              # state of the Huffman automaton that nothing leads out of
    # Shorter strings are sent as they are: a few bytes saved are not worth the look-ups.
    HUFFMAN_FROM = 16
    # How many times `max_list` a block may hold before the connection ends and not only its stream.
    FATAL_FACTOR = 4

DEFAULT_TABLE_SIZE = 4096
"""SETTINGS_HEADER_TABLE_SIZE unless a peer says otherwise (RFC 9113, 6.5.2)."""

DEFAULT_MAX_LIST = 65536
"""Bytes of one header list, decoded. grpc-go allows 16 MiB, Envoy 60 KiB, nginx 32 KiB."""

cdef dict KINDS = {
    b":method": METHOD, b":scheme": SCHEME, b":path": PATH, b":authority": AUTHORITY, b":status": STATUS,
    b"content-type": CONTENT_TYPE, b"te": TE, b"content-length": CONTENT_LENGTH, b"host": HOST, b"user-agent": USER_AGENT,
    b"connection": HOP, b"proxy-connection": HOP, b"keep-alive": HOP, b"transfer-encoding": HOP, b"upgrade": HOP,
    b"grpc-timeout": GRPC_TIMEOUT, b"grpc-encoding": GRPC_ENCODING, b"grpc-accept-encoding": GRPC_ACCEPT_ENCODING,
    b"grpc-status": GRPC_STATUS, b"grpc-message": GRPC_MESSAGE, b"grpc-status-details-bin": GRPC_DETAILS,
}

# Characters of a field name: those of a token (RFC 9110, 5.6.2) without capitals; a pseudo-field begins with a colon.
cdef uint8_t NAME_OK[256]
cdef uint16_t HUFFMAN_NEXT[512][16]
cdef uint16_t HUFFMAN_SYMBOL[512][16]     # symbol + 1, or 0 where a nibble ends inside a code
cdef uint8_t HUFFMAN_MAY_END[512]
cdef uint32_t HUFFMAN_CODE[257]
cdef uint8_t HUFFMAN_BITS[257]
cdef list STATIC_FIELDS = [None]
cdef dict STATIC_NAMES = {}
cdef dict STATIC_BOTH = {}


cdef void build_automaton():
    """Four bits at a time through the code tree: for each inner node and nibble the next node and the symbol that was completed."""
    cdef int node, nibble, bit, place, symbol
    tree = [[None, None]]
    for symbol, (code, bits) in enumerate(HUFFMAN):
        HUFFMAN_CODE[symbol] = code
        HUFFMAN_BITS[symbol] = bits
        node = 0
        for place in range(bits - 1, -1, -1):
            bit = (code >> place) & 1
            if place == 0:
                tree[node][bit] = -(symbol + 1)
            else:
                if tree[node][bit] is None:
                    tree.append([None, None])
                    tree[node][bit] = len(tree) - 1
                node = tree[node][bit]
    for start in range(len(tree)):
        for nibble in range(16):
            node, found = start, 0
            for place in range(3, -1, -1):
                step = tree[node][(nibble >> place) & 1]
                if step is None or step == -(EOS + 1):
                    node, found = FAILED, 0
                    break
                if step < 0:
                    node, found = 0, -step
                else:
                    node = step
            HUFFMAN_NEXT[<int>start][nibble] = node
            HUFFMAN_SYMBOL[<int>start][nibble] = found
    for nibble in range(16):
        HUFFMAN_NEXT[FAILED][nibble] = FAILED
    # Padding is at most seven bits of the code for the end of string, which are all ones.
    node = 0
    HUFFMAN_MAY_END[0] = 1
    for place in range(7):
        node = tree[node][1]
        HUFFMAN_MAY_END[node] = 1


cdef int set_up() except -1:
    cdef Field f
    for c in b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz":
        NAME_OK[<int>c] = 1
    build_automaton()
    for index, (name, value) in enumerate(STATIC, 1):
        STATIC_NAMES.setdefault(name, index)
        STATIC_BOTH[name, value] = index
    for name, value in STATIC:
        f = new_field(name, value)
        STATIC_FIELDS.append(f)
    return 0


@cython.freelist(64)
cdef class Field:
    def __cinit__(self):
        pass

    def __init__(self, bytes name not None, bytes value not None):
        cdef Field f = new_field(name, value)
        self.name, self.value, self.kind, self.is_valid, self.size = f.name, f.value, f.kind, f.is_valid, f.size
        self.static_index, self.static_name = STATIC_BOTH.get((name, value), 0), STATIC_NAMES.get(name, 0)

    def __repr__(self):
        return f"<Field {self.name!r}: {self.value!r}>"


cdef bint valid(bytes name, bytes value) noexcept:
    cdef const uint8_t* p = <const uint8_t*>PyBytes_AS_STRING(name)
    cdef Py_ssize_t n = PyBytes_GET_SIZE(name), i = 0
    if n == 0:
        return False
    if p[0] == c':':
        i = 1
    while i < n:
        if not NAME_OK[p[i]]:
            return False
        i += 1
    p = <const uint8_t*>PyBytes_AS_STRING(value)
    n = PyBytes_GET_SIZE(value)
    return n == 0 or (memchr(p, 0, n) == NULL and memchr(p, 10, n) == NULL and memchr(p, 13, n) == NULL)


cdef Field new_field(bytes name, bytes value):
    cdef Field f = Field.__new__(Field)
    f.name = name
    f.value = value
    f.size = PyBytes_GET_SIZE(name) + PyBytes_GET_SIZE(value) + FIELD_OVERHEAD
    found = KINDS.get(name)
    if found is not None:
        f.kind = found
    elif name.startswith(b":"):
        f.kind = PSEUDO
    elif name.startswith(b"grpc-"):
        f.kind = GRPC_RESERVED
    elif name.endswith(b"-bin"):
        f.kind = BINARY
    f.is_valid = valid(name, value)
    return f


# ---- the primitives (section 5) ----------------------------------------------------------------------------------------


cdef object broken(str what):
    return H2Error(f"HPACK: {what}", ErrorCode.COMPRESSION_ERROR)


cdef int64_t read_integer(const uint8_t** p, const uint8_t* end, int prefix) except -1:
    """An integer whose first byte p stands on, with `prefix` bits there. At most 2**28 or so: nothing here is longer."""
    cdef const uint8_t* q = p[0]
    cdef int64_t mask = (1 << prefix) - 1, value = q[0] & mask
    cdef int shift = 0
    q += 1
    if value == mask:
        while True:
            if q >= end:
                raise broken("a block ends inside an integer")
            if shift > 21:
                raise broken("an integer is too long")
            value += <int64_t>(q[0] & 0x7F) << shift
            shift += 7
            q += 1
            if not (q - 1)[0] & 0x80:
                break
    p[0] = q
    return value


cdef int write_integer(WriteBuffer out, uint8_t first, int prefix, int64_t value) except -1:
    cdef int64_t mask = (1 << prefix) - 1
    reserve(out, 10)
    if value < mask:
        out.p[out.n] = first | <uint8_t>value
        out.n += 1
        return 0
    out.p[out.n] = first | <uint8_t>mask
    out.n += 1
    value -= mask
    while value >= 0x80:
        out.p[out.n] = <uint8_t>(value & 0x7F) | 0x80
        out.n += 1
        value >>= 7
    out.p[out.n] = <uint8_t>value
    out.n += 1
    return 0


cdef bytes huffman_decode(const uint8_t* p, Py_ssize_t n):
    # The shortest code has five bits.
    cdef bytes out = PyBytes_FromStringAndSize(NULL, n * 8 // 5 + 1)
    cdef uint8_t* o = <uint8_t*>PyBytes_AS_STRING(out)
    cdef Py_ssize_t i, k = 0
    cdef int state = 0, nibble
    for i in range(n):
        nibble = p[i] >> 4
        if HUFFMAN_SYMBOL[state][nibble]:
            o[k] = <uint8_t>(HUFFMAN_SYMBOL[state][nibble] - 1)
            k += 1
        state = HUFFMAN_NEXT[state][nibble]
        nibble = p[i] & 15
        if HUFFMAN_SYMBOL[state][nibble]:
            o[k] = <uint8_t>(HUFFMAN_SYMBOL[state][nibble] - 1)
            k += 1
        state = HUFFMAN_NEXT[state][nibble]
    if not HUFFMAN_MAY_END[state]:
        raise broken("a Huffman code is not whole")
    return PyBytes_FromStringAndSize(<const char*>o, k)


cdef Py_ssize_t huffman_size(const uint8_t* p, Py_ssize_t n) noexcept:
    cdef Py_ssize_t i, bits = 0
    for i in range(n):
        bits += HUFFMAN_BITS[p[i]]
    return (bits + 7) // 8


cdef int huffman_encode(WriteBuffer out, const uint8_t* p, Py_ssize_t n, Py_ssize_t size) except -1:
    cdef unsigned long long held = 0
    cdef int bits = 0
    cdef Py_ssize_t i
    reserve(out, size)
    for i in range(n):
        held = (held << HUFFMAN_BITS[p[i]]) | HUFFMAN_CODE[p[i]]
        bits += HUFFMAN_BITS[p[i]]
        while bits >= 8:
            bits -= 8
            out.p[out.n] = <uint8_t>(held >> bits)
            out.n += 1
    if bits:
        out.p[out.n] = <uint8_t>(held << (8 - bits)) | <uint8_t>(0xFF >> bits)
        out.n += 1
    return 0


cdef bytes read_string(const uint8_t** p, const uint8_t* end):
    cdef bint huffman
    cdef int64_t size
    cdef bytes found
    if p[0] >= end:
        raise broken("a block ends before a string")
    huffman = p[0][0] & 0x80 != 0
    size = read_integer(p, end, 7)
    if size > end - p[0]:
        raise broken("a block ends inside a string")
    found = huffman_decode(p[0], size) if huffman else PyBytes_FromStringAndSize(<const char*>p[0], size)
    p[0] += size
    return found


cdef int write_string(WriteBuffer out, bytes text) except -1:
    cdef Py_ssize_t n = PyBytes_GET_SIZE(text), size
    cdef const uint8_t* p = <const uint8_t*>PyBytes_AS_STRING(text)
    if n >= HUFFMAN_FROM:
        size = huffman_size(p, n)
        if size < n:
            write_integer(out, 0x80, 7, size)
            return huffman_encode(out, p, n, size)
    write_integer(out, 0, 7, n)
    return out.append(p, n)


# ---- what a peer sends -------------------------------------------------------------------------------------------------


cdef class Decoder:
    """Decodes the header blocks of one connection, in the order of their arrival."""

    def __init__(self, Py_ssize_t limit=DEFAULT_TABLE_SIZE, Py_ssize_t max_list=DEFAULT_MAX_LIST):
        self.table = []
        self.limit = self.max_size = limit
        self.max_list = max_list

    cdef Field at(self, int64_t index):
        cdef Py_ssize_t place
        if index == 0:
            raise broken("index 0 stands for nothing")
        if index <= STATIC_SIZE:
            return <Field>STATIC_FIELDS[index]
        place = len(self.table) - (index - STATIC_SIZE)
        if place < 0:
            raise broken(f"index {index} is not in the table")
        return <Field>self.table[place]

    cdef int evict(self, Py_ssize_t room) except -1:
        cdef Py_ssize_t count = 0, size = self.size
        while size > room and count < len(self.table):
            size -= (<Field>self.table[count]).size
            count += 1
        if count:
            self.changes += 1
            del self.table[:count]
            self.size = size
        return 0

    cdef int insert(self, Field f) except -1:
        cdef Py_ssize_t size = f.size
        self.evict(max(0, self.max_size - size))
        if size <= self.max_size:
            self.changes += 1
            self.table.append(f)
            self.size += size
        return 0

    cdef int resize(self, int64_t size) except -1:
        if size > self.limit:
            raise broken(f"a table of {size} bytes is more than the {self.limit} that we allow")
        self.max_size = size
        self.changes += 1
        return self.evict(size)

    cdef int decode(self, const uint8_t* p, const uint8_t* end, list out) except -1:
        """Append the Fields of a whole block to `out`. H2Error when the block is broken, or far longer than `max_list`."""
        cdef int updates = 0, first
        cdef Py_ssize_t total = 0, most = self.max_list
        cdef Field f
        cdef bytes name
        cdef int64_t index
        cdef bint may_update = True
        self.overflowed = False
        while p < end:
            first = p[0]
            if 0x80 < first <= 0x80 + STATIC_SIZE:
                # A block that repeats what was sent before is made of these: an index of one byte.
                f = <Field>STATIC_FIELDS[first - 0x80]
                p += 1
            elif 0x80 + STATIC_SIZE < first < 0xFF and first - 0x80 - STATIC_SIZE <= len(self.table):
                f = <Field>self.table[len(self.table) - (first - 0x80 - STATIC_SIZE)]
                p += 1
            elif first & 0x80:
                f = self.at(read_integer(&p, end, 7))
            elif first & 0x40:
                index = read_integer(&p, end, 6)
                name = self.at(index).name if index else read_string(&p, end)
                f = new_field(name, read_string(&p, end))
                self.insert(f)
            elif first & 0x20:
                updates += 1
                if not may_update or updates > MOST_UPDATES:
                    raise broken("a table size update where none may be")
                self.resize(read_integer(&p, end, 5))
                continue
            else:
                index = read_integer(&p, end, 4)
                name = self.at(index).name if index else read_string(&p, end)
                f = new_field(name, read_string(&p, end))
            may_update = False
            total += f.size
            if total > most:
                self.overflowed = True
                if total > most * FATAL_FACTOR:
                    raise H2Error(f"a header list of more than {most * FATAL_FACTOR} bytes", ErrorCode.ENHANCE_YOUR_CALM, "header_list")
            else:
                out.append(f)
        return 0

    def decode_block(self, const uint8_t[::1] data not None):
        """The Fields of a whole block, as a list."""
        found = []
        if data.shape[0]:
            self.decode(&data[0], &data[0] + data.shape[0], found)
        return found

    @property
    def table_size(self):
        """Bytes in the dynamic table, as the RFC counts them."""
        return self.size

    def __repr__(self):
        return f"<Decoder {len(self.table)} fields, {self.size} of {self.max_size} bytes>"


# ---- what we send ------------------------------------------------------------------------------------------------------


cdef class Encoder:
    """Encodes the header blocks of one connection, in the order in which they leave."""

    def __init__(self):
        self.known = {}
        self.table = []
        self.max_size = DEFAULT_TABLE_SIZE
        self.lowest = -1

    cdef int set_max(self, int64_t size) except -1:
        """The peer allows a table of `size` bytes; we never use more than the default."""
        size = min(size, <int64_t>DEFAULT_TABLE_SIZE)
        if size == self.max_size:
            return 0
        self.lowest = size if self.lowest < 0 else min(self.lowest, size)
        self.max_size = size
        self.change()
        return self.evict(size)

    cdef void change(self) noexcept:
        """The table is not what it was: nor is what any tuple was encoded to."""
        self.first_fields = self.last_fields = None
        self.first.size = self.last.size = 0

    cdef int evict(self, Py_ssize_t room) except -1:
        cdef Field f
        while self.table and self.size > room:
            self.change()
            f = <Field>self.table.pop(0)
            self.size -= f.size
            del self.known[f]
        return 0

    cdef int forget(self) except -1:
        """Empty the table, on both sides: a block was not finished, and the peer never saw it."""
        self.change()
        self.evict(0)
        self.lowest = 0
        return 0

    cdef int block(self, WriteBuffer out, object fields, bint last) except -1:
        cdef Py_ssize_t start = out.n
        cdef int64_t inserted = self.inserted
        cdef bint changes = self.lowest >= 0
        cdef int size
        if type(fields) is tuple:
            reserve(out, MOST_KEPT)
            size = repeat(self, <tuple>fields, last, out.p + start)
            if size:
                out.n += size
                return 0
        self.begin(out)
        if type(fields) is tuple:
            for each in <tuple>fields:
                self.field(out, <Field?>each)
            if self.inserted == inserted and not changes:
                self.keep(<tuple>fields, last, out.p + start, out.n - start)
            return 0
        for each in <list?>fields:
            if type(each) is Field:
                self.field(out, <Field>each)
            else:
                self.literal(out, <bytes?>(<tuple?>each)[0], <bytes?>(<tuple>each)[1])
        return 0

    cdef int keep(self, tuple fields, bint last, const uint8_t* p, Py_ssize_t n) except -1:
        cdef Kept* kept = &self.last if last else &self.first
        if not 0 < n <= MOST_KEPT:
            return 0
        if last:
            self.last_fields = fields
        else:
            self.first_fields = fields
        kept.size = n
        memcpy(kept.data, p, n)
        return 0

    cdef int begin(self, WriteBuffer out) except -1:
        """Must be called before the fields of each block: announces changes of the table's size."""
        if self.lowest >= 0:
            if self.lowest < self.max_size:
                write_integer(out, 0x20, 5, self.lowest)
            write_integer(out, 0x20, 5, self.max_size)
            self.lowest = -1
        return 0

    cdef int field(self, WriteBuffer out, Field f) except -1:
        """One field, which the table remembers. Give the same object again whenever the field is the same."""
        cdef int64_t number
        cdef Py_ssize_t size
        if f.static_index:
            return write_integer(out, 0x80, 7, f.static_index)
        found = self.known.get(f)
        if found is not None:
            number = found
            return write_integer(out, 0x80, 7, STATIC_SIZE + self.inserted - number)
        size = f.size
        if size > self.max_size:
            return self.literal(out, f.name, f.value)
        self.change()
        self.evict(self.max_size - size)
        if f.static_name:
            write_integer(out, 0x40, 6, f.static_name)
        else:
            write_integer(out, 0x40, 6, 0)
            write_string(out, f.name)
        write_string(out, f.value)
        self.table.append(f)
        self.known[f] = self.inserted
        self.inserted += 1
        self.size += size
        return 0

    cdef int literal(self, WriteBuffer out, bytes name, bytes value) except -1:
        """One field that no table remembers."""
        found = STATIC_NAMES.get(name)
        if found is not None:
            write_integer(out, 0, 4, found)
        else:
            write_integer(out, 0, 4, 0)
            write_string(out, name)
        return write_string(out, value)

    def encode_block(self, fields not None, bint last=False):
        """A block of Fields, which the table remembers, and ``(name, value)`` pairs, which it does not, as bytes. A tuple of Fields alone
        is one that is sent often; `last`: at the end of streams."""
        cdef WriteBuffer out = WriteBuffer()
        self.block(out, fields, last)
        return out.take()

    def set_max_table(self, int64_t size):
        """The peer's SETTINGS_HEADER_TABLE_SIZE."""
        self.set_max(size)

    def __repr__(self):
        return f"<Encoder {len(self.table)} fields, {self.size} of {self.max_size} bytes>"


set_up()
