# What arrives on a connection: part of connection.pyx. A frame's method returns who is to be told: a Stream, the connection,
# or None.

cdef class H2Connection(H2Sender):
    """One HTTP/2 connection: a server's, or a client's (`is_client`). The module says how it is used.

    `max_streams` bounds the peer's streams at a time, `stream_window` is how many bytes of one may be on their way.
    """


    cdef object receive(self, Cursor* c):
        cdef uint32_t id
        cdef Py_ssize_t n
        cdef const uint8_t* p
        cdef object told
        if self.news:
            return self.news.pop(0)
        if self.dead:
            raise self.failure
        if self.preface and not self.take_preface(c):
            return None
        while left(c) >= FRAME_HEAD:
            p = c.p
            n = (<Py_ssize_t>p[0] << 16) | (<Py_ssize_t>p[1] << 8) | p[2]
            if n > MAX_FRAME:
                self.fatal(f"a frame of {n} bytes", FRAME_SIZE_ERROR)
            if left(c) < FRAME_HEAD + n:
                return None
            c.p += FRAME_HEAD + n
            id = get32(p + 5) & 0x7FFFFFFF
            self.bytes_received += FRAME_HEAD + n
            if self.bytes_received > OVERHEAD_FACTOR * (self.bytes_useful + OVERHEAD_FREE):
                self.fatal("nearly all of what arrives is overhead", ENHANCE_YOUR_CALM, "overhead")
            told = self.frame(p[3], p[4], id, p + FRAME_HEAD, n)
            if told is not None:
                return told
            if self.news:
                return self.news.pop(0)
        return None

    cdef bint take_preface(self, Cursor* c) except -1:
        cdef Py_ssize_t size = PyBytes_GET_SIZE(PREFACE), n = min(self.preface, left(c))
        if memcmp(c.p, PyBytes_AS_STRING(PREFACE) + size - self.preface, n) != 0:
            self.fatal("the connection does not begin with the preface of HTTP/2", PROTOCOL_ERROR)
        c.p += n
        self.preface -= n
        return self.preface == 0

    cdef object frame(self, int type, int flags, uint32_t id, const uint8_t* p, Py_ssize_t n):
        if self.block_stream and (type != CONTINUATION or id != self.block_stream):
            self.fatal("another frame inside a header block", PROTOCOL_ERROR)
        if not self.settled:
            if type != SETTINGS or flags & ACK:
                self.fatal("the first frame is not SETTINGS", PROTOCOL_ERROR)
            self.settled = True
            self.patience = 0
        if type == DATA:
            return self.on_data_frame(flags, id, p, n)
        if type == HEADERS:
            return self.on_headers_frame(flags, id, p, n)
        if type == WINDOW_UPDATE:
            return self.on_window_frame(id, p, n)
        if type == PING:
            return self.on_ping_frame(flags, id, p, n)
        if type == SETTINGS:
            return self.on_settings_frame(flags, id, p, n)
        if type == RST_STREAM:
            return self.on_rst_frame(id, p, n)
        if type == CONTINUATION:
            return self.on_continuation(flags, id, p, n)
        if type == GOAWAY:
            return self.on_goaway_frame(id, p, n)
        if type == PUSH_PROMISE:
            self.fatal("a push, which was never allowed", PROTOCOL_ERROR)
        # PRIORITY is ignored but for its form; frames of unknown types are ignored.
        self.spend(&self.priorities, "priorities")
        if type == PRIORITY:
            if id == 0:
                self.fatal("PRIORITY without a stream", PROTOCOL_ERROR)
            if n != 5:
                return self.stream_error(id, FRAME_SIZE_ERROR)
            if get32(p) & 0x7FFFFFFF == id:
                return self.stream_error(id, PROTOCOL_ERROR)
        return None

    # ---- DATA ----------------------------------------------------------------------------------------------------------------

    cdef object on_data_frame(self, int flags, uint32_t id, const uint8_t* p, Py_ssize_t n):
        cdef Stream s
        cdef Py_ssize_t whole = n, padding
        cdef int told = 0
        if id == 0:
            self.fatal("DATA without a stream", PROTOCOL_ERROR)
        if flags & PADDED:
            if n < 1 or p[0] >= n:
                self.fatal("padding longer than its frame", PROTOCOL_ERROR)
            padding = p[0]
            p += 1
            n -= 1 + padding
        if whole > self.receive_window:
            self.fatal("more data than the connection's window", FLOW_CONTROL_ERROR)
        self.receive_window -= whole
        self.owed += whole
        self.bytes_useful += n
        give_back(&self.pings, 1)
        self.credit()
        s = self.last
        if s is None or s.id != id:
            s = self.streams.find(id)
            if s is None:
                return self.on_late_frame(id, True)
            self.last = s
        if s.remote_done:
            return self.stream_error(id, STREAM_CLOSED)
        if whole > s.receive_window:
            return self.stream_error(id, FLOW_CONTROL_ERROR)
        if s.headers is None:
            return self.stream_error(id, PROTOCOL_ERROR)
        s.receive_window -= whole
        s.owed += whole
        s.received += n
        if s.announced >= 0 and s.received > s.announced:
            return self.stream_error(id, PROTOCOL_ERROR)
        if not flags & END_STREAM and n < SMALL_FRAME:
            self.small += SMALL_FRAME - n
            if self.small > SMALL_FRAMES:
                self.fatal("very many very small DATA frames", ENHANCE_YOUR_CALM, "small_frames")
        if n:
            self.empties = 0
            told = s.on_data(p, n)
            if told:
                s.events |= GOT_DATA
            if not s.is_open:
                return s if told else None
        elif not flags & END_STREAM:
            self.count_empty()
        if flags & END_STREAM:
            return self.finish_remote(s)
        self.credit_stream(s)
        return s if told else None

    cdef int count_empty(self) except -1:
        self.empties += 1
        if self.empties > EMPTY_FRAMES:
            self.fatal("very many empty frames", ENHANCE_YOUR_CALM, "empty_frames")
        return 0

    cdef object finish_remote(self, Stream s):
        """The peer has said END_STREAM."""
        if s.announced >= 0 and s.received != s.announced:
            return self.stream_error(s.id, PROTOCOL_ERROR)
        s.remote_done = True
        self.small = 0
        s.events |= GOT_END
        told = s.on_end()
        if s.ended_locally:
            self.end_stream(s, False)
        return s if told or s.events & (GOT_HEADERS | GOT_DATA) else None

    cdef object on_late_frame(self, uint32_t id, bint is_data):
        """A frame of a stream that is not open: harmless while the peer may not know, else an error."""
        cdef int how = self.was_ended(id)
        if self.is_idle(id):
            self.fatal(f"a frame of stream {id}, which nobody has begun", PROTOCOL_ERROR)
        if how == 2 or (self.left and not self.is_local(id)):
            return None
        if how == 1 and is_data:
            self.fatal(f"data of stream {id}, which has ended", STREAM_CLOSED)
        if is_data:
            return self.stream_error(id, STREAM_CLOSED)
        return None

    cdef bint is_local(self, uint32_t id) noexcept:
        return <bint>(id & 1) == self.is_client

    cdef bint is_idle(self, uint32_t id) noexcept:
        return id >= self.next_local if self.is_local(id) else id > self.last_remote

    # ---- header blocks -------------------------------------------------------------------------------------------------------

    cdef object on_headers_frame(self, int flags, uint32_t id, const uint8_t* p, Py_ssize_t n):
        cdef Py_ssize_t padding
        if id == 0:
            self.fatal("HEADERS without a stream", PROTOCOL_ERROR)
        if flags & PADDED:
            if n < 1 or p[0] >= n:
                self.fatal("padding longer than its frame", PROTOCOL_ERROR)
            padding = p[0]
            p += 1
            n -= 1 + padding
        self.depends_on_itself = False
        if flags & PRIORITISED:
            if n < 5:
                self.fatal("HEADERS too short for their priority", FRAME_SIZE_ERROR)
            self.depends_on_itself = get32(p) & 0x7FFFFFFF == id
            p += 5
            n -= 5
        self.bytes_useful += n
        if flags & END_HEADERS:
            return self.header_block(p, n, flags, id)
        self.block = WriteBuffer()
        self.block.append(p, n)
        self.block_stream = id
        self.block_flags = flags
        self.block_frames = 0
        self.patience = HEADER_PATIENCE
        return None

    cdef object on_continuation(self, int flags, uint32_t id, const uint8_t* p, Py_ssize_t n):
        cdef WriteBuffer block = self.block
        if self.block_stream == 0:
            self.fatal("CONTINUATION of nothing", PROTOCOL_ERROR)
        self.block_frames += 1
        if self.block_frames > MAX_CONTINUATIONS or block.n + n > MAX_HEADER_BLOCK:
            self.fatal(f"a header block of {self.block_frames + 1} frames and {block.n + n} bytes", ENHANCE_YOUR_CALM, "continuations")
        if n == 0 and not flags & END_HEADERS:
            self.count_empty()
        self.bytes_useful += n
        block.append(p, n)
        if not flags & END_HEADERS:
            return None
        self.block = None
        self.block_stream = 0
        self.patience = 0
        return self.header_block(block.p, block.n, self.block_flags, id)

    cdef object header_block(self, const uint8_t* p, Py_ssize_t n, int flags, uint32_t id):
        """A whole header block. It is decoded whatever becomes of its stream: the tables must stay the same on both sides."""
        cdef list fields
        cdef Stream s
        try:
            self.seen = self.block_of(p, n)
            if self.seen is not None:
                fields = self.seen.fields
            else:
                fields = []
                self.decoder.decode(p, p + n, fields)
        except H2Error as error:
            self.fatal(error.message, error.h2_code, error.abuse)
        # A server's peer begins a stream with an id that was never used.
        s = self.streams.find(id) if self.is_client or id <= self.last_remote else None
        if s is not None:
            if self.depends_on_itself:
                return self.stream_error(id, PROTOCOL_ERROR)
            if s.remote_done:
                return self.stream_error(id, STREAM_CLOSED)
            if self.decoder.overflowed:
                return self.stream_error(id, ENHANCE_YOUR_CALM)
            return self.more_fields(s, fields, flags & END_STREAM)
        if self.is_local(id):
            if self.is_client:
                return self.on_late_frame(id, False)
            self.fatal(f"stream {id} is not the peer's to begin", PROTOCOL_ERROR)
        if self.is_client:
            self.fatal(f"the server begins stream {id}", PROTOCOL_ERROR)
        if id <= self.last_remote:
            how = self.was_ended(id)
            if how == 2:
                return None
            self.fatal(f"stream {id} was used before or skipped", STREAM_CLOSED if how else PROTOCOL_ERROR)
        if self.left:
            return None  # our last GOAWAY crossed it: the peer knows that nothing is done here
        self.last_remote = id
        give_back(&self.priorities, 2)
        if self.remote_streams >= self.max_streams:
            if self.settings_known:
                self.spend(&self.our_resets, "refused_streams")
            return self.refuse(id, REFUSED_STREAM)
        if self.depends_on_itself:
            return self.stream_error(id, PROTOCOL_ERROR)
        return self.new_request(id, fields, flags & END_STREAM)

    cdef Block block_of(self, const uint8_t* p, Py_ssize_t n):
        """What a block means that has come before, or may come again; None of any other, which is not decoded then."""
        cdef Block b
        cdef int64_t changes = self.decoder.changes
        cdef uint32_t mark = 0
        cdef Py_ssize_t i
        if not 0 < n <= MOST_BLOCK:
            return None
        for i in range(n):
            if not p[i] & 0x80:
                return None  # not of indices alone
            mark = mark * 31 + p[i]
        mark = (mark ^ mark >> 8) & (BLOCKS - 1)
        b = <Block>self.blocks[mark]
        if b is not None and b.changes == changes and b.size == n and memcmp(b.data, p, n) == 0:
            self.decoder.overflowed = False
            return b
        b = Block.__new__(Block)
        b.fields = []
        self.decoder.decode(p, p + n, b.fields)
        if not self.decoder.overflowed:
            b.changes = changes
            b.size = n
            memcpy(b.data, p, n)
            self.blocks[mark] = b
        return b

    cdef object refuse(self, uint32_t id, int code):
        self.write_rst(id, code)
        self.ended[self.ended_next] = id | <uint32_t>0x80000000
        self.ended_next = (self.ended_next + 1) % MAX_IDS_KEPT
        return None

    cdef object new_request(self, uint32_t id, list fields, bint end):
        cdef Stream s = self.new_stream()
        cdef int told
        s.connection = self
        s.id = id
        s.receive_window = self.stream_window
        s.is_open = True
        self.streams.add(s)
        self.remote_streams += 1
        self.last = s
        if self.decoder.overflowed:
            self.spend(&self.our_resets, "header_list")
            s.remote_done = end
            self.write_fields(s, TOO_MANY_FIELDS, True)
            return None
        if self.seen is None or not self.seen.is_request:
            if not self.check_request(s, fields):
                self.stream_error(id, PROTOCOL_ERROR)
                return None  # the owner never heard of it
            if self.seen is not None:
                self.seen.is_request = s.announced < 0
        s.headers = fields
        s.events |= GOT_HEADERS
        told = s.on_headers()
        if end:
            return self.finish_remote(s)
        return s if told else None

    cdef object more_fields(self, Stream s, list fields, bint end):
        """A further block of a stream that is open: the answer of a server, or trailers."""
        cdef Block seen = self.seen
        cdef int told, status
        if s.headers is None:
            if seen is not None and seen.status:
                status = seen.status
            else:
                status = self.check_response(s, fields)
                if seen is not None and s.announced < 0:
                    seen.status = status
            if status == 0:
                return self.stream_error(s.id, PROTOCOL_ERROR)
            if status < 200:  # informational: the answer is still to come
                return self.stream_error(s.id, PROTOCOL_ERROR) if end else None
            s.headers = fields
            s.events |= GOT_HEADERS
            told = s.on_headers()
            if end:
                return self.finish_remote(s)
            return s if told else None
        if not end or not (seen is not None and seen.is_trailers or check_trailers(fields)):
            return self.stream_error(s.id, PROTOCOL_ERROR)
        if seen is not None:
            seen.is_trailers = True
        s.trailers = fields
        return self.finish_remote(s)

    cdef bint check_request(self, Stream s, list fields) except -1:
        """Is this a request as RFC 9113, 8.2 and 8.3 want it?"""
        cdef Field f
        cdef int kind, seen = 0, pseudo = 1 << METHOD | 1 << SCHEME | 1 << PATH
        cdef bint plain = False
        for each in fields:
            f = <Field>each
            if not f.is_valid:
                return False
            kind = f.kind
            if METHOD <= kind <= PSEUDO:
                if plain or kind == PSEUDO or kind == STATUS or seen & (1 << kind):
                    return False
                if kind == PATH and PyBytes_GET_SIZE(f.value) == 0:
                    return False
                seen |= 1 << kind
                continue
            plain = True
            if kind == HOP or (kind == TE and f.value != b"trailers"):
                return False
            if kind == HOST or kind == CONTENT_LENGTH:
                if seen & (1 << kind):
                    return False
                seen |= 1 << kind
                if kind == CONTENT_LENGTH and not announce(s, f.value):
                    return False
        return seen & pseudo == pseudo

    cdef int check_response(self, Stream s, list fields) except -1:
        """The status of an answer, or 0 if it is none as RFC 9113 wants it."""
        cdef Field f
        cdef int status = 0
        cdef bint plain = False
        for each in fields:
            f = <Field>each
            if not f.is_valid:
                return 0
            if METHOD <= f.kind <= PSEUDO:
                if plain or f.kind != STATUS or status or len(f.value) != 3 or not f.value.isdigit():
                    return 0
                status = int(f.value)
                continue
            plain = True
            if f.kind == HOP:
                return 0
            if f.kind == CONTENT_LENGTH and not announce(s, f.value):
                return 0
        return status if status >= 100 else 0

    # ---- the others ----------------------------------------------------------------------------------------------------------

    cdef object on_rst_frame(self, uint32_t id, const uint8_t* p, Py_ssize_t n):
        cdef Stream s
        cdef int told
        if id == 0:
            self.fatal("RST_STREAM without a stream", PROTOCOL_ERROR)
        if n != 4:
            self.fatal(f"RST_STREAM of {n} bytes", FRAME_SIZE_ERROR)
        s = self.streams.find(id)
        if s is None:
            if self.is_idle(id):
                self.fatal(f"a reset of stream {id}, which nobody has begun", PROTOCOL_ERROR)
            self.spend(&self.resets, "resets")
            return None
        if not self.is_client:
            self.spend(&self.resets, "resets")
        s.reset_code = get32(p)
        s.reset_by_peer = True
        s.refused = s.reset_code == REFUSED_STREAM
        self.end_stream(s, True)
        s.events |= GOT_RESET
        told = s.on_reset()
        return s if told else None

    cdef object on_settings_frame(self, int flags, uint32_t id, const uint8_t* p, Py_ssize_t n):
        cdef Py_ssize_t at = 0
        cdef int key
        cdef int64_t value, window = -1
        if id != 0:
            self.fatal("SETTINGS of a stream", PROTOCOL_ERROR)
        if flags & ACK:
            if n:
                self.fatal("an acknowledgement with settings", FRAME_SIZE_ERROR)
            self.settings_known = True
            return None
        if n % 6:
            self.fatal(f"SETTINGS of {n} bytes", FRAME_SIZE_ERROR)
        self.spend(&self.settings, "settings")
        while at < n:
            key = (<int>p[at] << 8) | p[at + 1]
            value = get32(p + at + 2)
            at += 6
            if key == SETTING_TABLE_SIZE:
                self.encoder.set_max(value)
            elif key == SETTING_ENABLE_PUSH:
                if value > (0 if self.is_client else 1):
                    self.fatal(f"ENABLE_PUSH {value}", PROTOCOL_ERROR)
            elif key == SETTING_MAX_STREAMS:
                self.peer_max_streams = value
            elif key == SETTING_WINDOW:
                if value > MAX_WINDOW:
                    self.fatal(f"an initial window of {value}", FLOW_CONTROL_ERROR)
                window = value
            elif key == SETTING_MAX_FRAME:
                if not 16384 <= value <= 16777215:
                    self.fatal(f"a largest frame of {value}", PROTOCOL_ERROR)
                self.peer_max_frame = value
            elif key == SETTING_MAX_LIST:
                self.peer_max_list = value
        self.write_simple(SETTINGS, ACK, 0, NULL, 0)
        if window >= 0 and window != self.peer_window:
            self.set_peer_window(window)
        self.events |= GOT_SETTINGS
        return self if self.is_client else None

    cdef int set_peer_window(self, int64_t size) except -1:
        """All windows move with the initial one (RFC 9113, 6.9.2); streams that wait may go on."""
        cdef Stream s
        cdef bint more = size > self.peer_window
        self.peer_window = size
        for each in self.streams.values():
            s = <Stream>each
            if s.send_window() > MAX_WINDOW:
                self.fatal(f"stream {s.id}: a window of {s.send_window()}", FLOW_CONTROL_ERROR)
            if more and s.queue is not None:
                self.wait_to_send(s)
        return self.pump() if more else 0

    cdef object on_ping_frame(self, int flags, uint32_t id, const uint8_t* p, Py_ssize_t n):
        if id != 0:
            self.fatal("PING of a stream", PROTOCOL_ERROR)
        if n != 8:
            self.fatal(f"PING of {n} bytes", FRAME_SIZE_ERROR)
        if flags & ACK:
            self.pong = PyBytes_FromStringAndSize(<const char*>p, 8)
            if self.pong == PING_GOODBYE and self.leaving and not self.left:
                self.shut_down_now()
            self.events |= GOT_PONG
            return self
        self.spend(&self.pings, "too_many_pings")
        self.write_simple(PING, ACK, 0, p, 8)
        return None

    cdef object on_goaway_frame(self, uint32_t id, const uint8_t* p, Py_ssize_t n):
        cdef Stream s
        cdef uint32_t last
        if id != 0:
            self.fatal("GOAWAY of a stream", PROTOCOL_ERROR)
        if n < 8:
            self.fatal(f"GOAWAY of {n} bytes", FRAME_SIZE_ERROR)
        self.spend(&self.settings, "goaways")
        last = get32(p) & 0x7FFFFFFF
        self.peer_leaving = True
        self.peer_goaway = get32(p + 4)
        self.peer_goaway_debug = PyBytes_FromStringAndSize(<const char*>p + 8, n - 8)
        self.events |= GOT_GOAWAY
        if self.is_client:
            for s in [each for each in self.streams.values() if each.id > last]:
                s.refused = True
                s.reset_code = REFUSED_STREAM
                self.end_stream(s, True)
                s.events |= GOT_RESET
                if s.on_reset():
                    self.news.append(s)
        return self

    cdef object on_window_frame(self, uint32_t id, const uint8_t* p, Py_ssize_t n):
        cdef Stream s
        cdef int64_t more
        if n != 4:
            self.fatal(f"WINDOW_UPDATE of {n} bytes", FRAME_SIZE_ERROR)
        self.spend(&self.window_updates, "window_updates")
        more = get32(p) & 0x7FFFFFFF
        if id == 0:
            if more == 0:
                self.fatal("WINDOW_UPDATE of nothing", PROTOCOL_ERROR)
            self.send_window += more
            if self.send_window > MAX_WINDOW:
                self.fatal(f"a window of {self.send_window}", FLOW_CONTROL_ERROR)
            if self.waiting:
                self.pump()
            return None
        s = self.streams.find(id)
        if s is None:
            return self.on_late_frame(id, False)
        if more == 0:
            return self.stream_error(id, PROTOCOL_ERROR)
        s.send_delta += more
        if s.send_window() > MAX_WINDOW:
            return self.stream_error(id, FLOW_CONTROL_ERROR)
        if s.queue is not None:
            self.wait_to_send(s)
            self.pump()
        return None

    # ---- about -------------------------------------------------------------------------------------------------------

    def __repr__(self):
        role = "client" if self.is_client else "server"
        return (f"<H2Connection {role}, {len(self.streams)} streams, {self.queued} bytes wait to leave, {self.held} to be taken"
                f"{', leaving' if self.leaving else ''}{', peer leaving' if self.peer_leaving else ''}>")

    # ---- the same for Python: tests and tools ------------------------------------------------------------------------

    def begin(self, Sink sink not None):
        """`start` for Python."""
        self.start(sink)

    def open(self, list fields not None, bint end=False):
        """Begin a stream with these fields. Returns it. UsageError when none may be begun."""
        return self.open_stream(fields, end)

    def send(self, Stream stream not None, bytes data=b"", bint end=False):
        """Send data, as far as the windows allow; the rest waits."""
        self.send_data(stream, <const uint8_t*>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), end, data)

    def respond(self, Stream stream not None, list fields not None, bint end=False):
        """Send fields: the first of a server, or trailers (`end`)."""
        self.send_fields(stream, fields, end)

    def reset(self, Stream stream not None, int code=ErrorCode.CANCEL):
        """End one stream."""
        self.reset_stream(stream, code)

    def taken(self, Stream stream not None, Py_ssize_t n):
        """`n` bytes of data were consumed."""
        self.take(stream, n)

    def has_room(self):
        """The sink's backlog has gone: send what waits."""
        self.pump()
