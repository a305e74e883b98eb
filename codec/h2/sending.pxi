# State and accounts of a connection, and what is sent on it: part of connection.pyx.

cdef void fill(Bucket* b, object budget):
    b.burst, b.rate = budget
    b.tokens = b.burst
    b.at = 0


cdef inline void give_back(Bucket* b, double tokens) noexcept:
    b.tokens = min(b.burst, b.tokens + tokens)


cdef class H2Sender(Protocol):
    """What H2Connection knows and sends."""

    def __cinit__(self):
        self.ended = <uint32_t*>calloc(MAX_IDS_KEPT, sizeof(uint32_t))
        if self.ended == NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self.ended)

    def __init__(self, bint is_client=False, *, Py_ssize_t max_streams=limits.MAX_STREAMS, int64_t stream_window=limits.STREAM_WINDOW):
        self.is_client = is_client
        self.decoder = Decoder()
        self.encoder = Encoder()
        self.streams = Streams()
        self.blocks = [None] * BLOCKS
        self.news = []
        self.waiting = deque()
        self.max_streams = max_streams
        self.stream_window = stream_window
        self.receive_window = DEFAULT_WINDOW
        self.preface = 0 if is_client else PyBytes_GET_SIZE(PREFACE)
        self.next_local = 1 if is_client else 2
        self.peer_window = DEFAULT_WINDOW
        self.peer_max_frame = MAX_FRAME
        self.peer_max_streams = MAX_WINDOW
        self.peer_max_list = MAX_WINDOW
        self.peer_goaway = -1
        self.send_window = DEFAULT_WINDOW
        self.patience = HEADER_PATIENCE
        fill(&self.resets, limits.RESETS)
        fill(&self.our_resets, limits.OUR_RESETS)
        fill(&self.pings, limits.PINGS)
        fill(&self.settings, limits.SETTINGS)
        fill(&self.priorities, limits.PRIORITIES)
        fill(&self.window_updates, limits.WINDOW_UPDATES)

    cdef Stream new_stream(self):
        return Stream.__new__(Stream)

    cdef int start(self, Sink sink) except -1:
        """Send our half of the preface, and what we allow the peer."""
        cdef WriteBuffer out
        cdef list pairs
        self.sink = sink
        self.started = True
        if self.is_client:
            pairs = [(SETTING_ENABLE_PUSH, 0)]
        else:
            pairs = [(SETTING_MAX_STREAMS, self.max_streams)]
        pairs += [(SETTING_WINDOW, self.stream_window), (SETTING_MAX_LIST, self.decoder.max_list)]
        out = sink.writer()
        if self.is_client:
            out.append(PyBytes_AS_STRING(PREFACE), PyBytes_GET_SIZE(PREFACE))
        reserve(out, FRAME_HEAD + 6 * len(pairs))
        put_frame_head(out.p + out.n, 6 * len(pairs), SETTINGS, 0, 0)
        out.n += FRAME_HEAD
        for key, value in pairs:
            out.p[out.n] = 0
            out.p[out.n + 1] = <uint8_t>key
            put32(out.p + out.n + 2, <uint32_t>value)
            out.n += 6
        sink.wrote()
        self.write_window(0, CONNECTION_WINDOW - DEFAULT_WINDOW)
        self.receive_window = CONNECTION_WINDOW
        return 0

    cdef bint between(self) noexcept:
        return self.preface == 0 and self.settled and self.block_stream == 0

    cdef bint portable(self) noexcept:
        return False  # both sides remember what the other has sent

    @property
    def can_open(self):
        """May a client begin another stream? Not beyond the peer's limit, nor after a GOAWAY."""
        return self.may_open()

    cdef bint may_open(self) noexcept:
        return not self.peer_leaving and not self.left and self.local_streams < self.peer_max_streams and self.next_local < RESET_MARK

    # ---- accounts ----------------------------------------------------------------------------------------------------

    cdef int fatal(self, str message, int code, str abuse="") except -1:
        """The connection must end: say so to the peer, and raise."""
        if not self.dead:
            self.write_goaway(self.last_remote, code, (abuse or message).encode())
            self.dead = self.leaving = self.left = True
            self.failure = H2Error(f"HTTP/2: {message}", code, abuse)
        raise self.failure

    cdef int spend(self, Bucket* b, str name) except -1:
        cdef double now = self.sink.now()
        b.tokens = min(b.burst, b.tokens + (now - b.at) * b.rate) - 1
        b.at = now
        if b.tokens < 0:
            self.fatal(f"too many frames of one kind: {name}", ENHANCE_YOUR_CALM, name)
        return 0

    cdef int productive(self) except -1:
        """The owner has made sense of the data so far: small frames were not sent to waste our time."""
        self.small = 0
        return 0

    # ---- streams end -------------------------------------------------------------------------------------------------

    cdef int end_stream(self, Stream s, bint reset) except -1:
        """Both sides are done with `s`: forget it."""
        if not s.is_open:
            return 0
        s.is_open = False
        self.streams.remove(s)
        if self.last is s:
            self.last = None
        # A peer that reset a stream itself has nothing more to send on it.
        self.ended[self.ended_next] = s.id | (RESET_MARK if reset and not s.reset_by_peer else 0)
        self.ended_next = (self.ended_next + 1) % MAX_IDS_KEPT
        if <bint>(s.id & 1) == self.is_client:
            self.local_streams -= 1
        else:
            self.remote_streams -= 1
        self.held -= s.held
        s.held = 0
        self.queued -= s.queued
        s.queued = 0
        s.queue = None
        if s.remote_done if self.is_client else s.ended_locally:
            self.streams_well += 1
        else:
            self.streams_badly += 1
        if not reset:
            give_back(&self.resets, 1)
        return 0

    cdef int was_ended(self, uint32_t id) noexcept:
        cdef int i
        for i in range(MAX_IDS_KEPT):
            if self.ended[i] & 0x7FFFFFFF == id:
                return 2 if self.ended[i] & <uint32_t>0x80000000 else 1
        return 0

    cdef object stream_error(self, uint32_t id, int code):
        """The peer broke a rule of one stream. Returns the Stream if its owner is to be told."""
        cdef Stream s = self.streams.find(id)
        cdef int told = 0
        self.spend(&self.our_resets, "stream_errors")
        self.write_rst(id, code)
        if s is None:
            self.ended[self.ended_next] = id | <uint32_t>0x80000000
            self.ended_next = (self.ended_next + 1) % MAX_IDS_KEPT
            return None
        s.reset_code = code
        self.end_stream(s, True)
        s.events |= GOT_RESET
        told = s.on_reset()
        return s if told else None

    # ---- what is sent ------------------------------------------------------------------------------------------------

    cdef Stream open_stream(self, object fields, bint end, tuple head=None):
        cdef Stream s
        if not self.may_open():
            raise UsageError("no further stream can be begun on this connection; look at can_open first")
        s = self.new_stream()
        s.connection = <H2Connection>self
        s.id = self.next_local
        s.receive_window = self.stream_window
        self.write_fields(s, fields, end, head)
        self.next_local += 2
        s.is_open = True
        self.streams.add(s)
        self.local_streams += 1
        return s

    cdef int send_fields(self, Stream s, object fields, bint end) except -1:
        """Send fields of the stream; if data waits, they wait behind it, and must be the last (`end`)."""
        if not s.is_open or s.local_done or self.dead:
            return 0
        if s.queue is not None:
            if not end:
                raise UsageError("only trailers may follow data")
            s.last_fields = fields
            s.ending = s.local_done = True
            return 0
        return self.write_fields(s, fields, end)

    cdef int send_data(self, Stream s, const uint8_t* p, Py_ssize_t n, bint end, bytes owner) except -1:
        """Send what the windows allow now; the rest waits, as a copy if it has no `owner` that can wait with it."""
        cdef Py_ssize_t sent
        if not s.is_open or s.local_done or self.dead:
            return 0
        if s.queue is None:
            sent = self.write_data(s, p, n, end, owner)
            if sent == n:
                return 0
            p += sent
            n -= sent
            s.queue = []
            s.offset = 0
            s.progress = self.sink.now()
        if n:
            if owner is not None and not s.queue:
                s.queue.append(owner)
                s.offset = PyBytes_GET_SIZE(owner) - n
            elif owner is not None and PyBytes_GET_SIZE(owner) == n:
                s.queue.append(owner)
            else:
                s.queue.append(PyBytes_FromStringAndSize(<const char*>p, n))
            s.queued += n
            self.queued += n
        if end:
            s.ending = s.local_done = True
        return self.wait_to_send(s)

    cdef int wait_to_send(self, Stream s) except -1:
        """Have `pump` look at the stream, unless only its own window holds it up."""
        if not s.is_waiting and s.send_window() > 0:
            s.is_waiting = True
            self.waiting.append(s)
            if self.send_window > 0 and self.sink.backlog() >= DATA_BACKLOG:
                self.sink.want_room()
        return 0

    cdef int pump(self) except -1:
        """Send what waits, a frame of each stream in turn, as far as the windows and the room allow."""
        cdef Stream s
        cdef bytes chunk
        cdef Py_ssize_t sent, n
        while self.waiting and not self.dead:
            if self.send_window <= 0:
                return 0
            if self.sink.backlog() >= DATA_BACKLOG:
                return self.sink.want_room()
            s = <Stream>self.waiting.popleft()
            s.is_waiting = False
            if s.queue is None:
                continue
            if s.queue:
                chunk = <bytes>s.queue[0]
                n = min(PyBytes_GET_SIZE(chunk) - s.offset, self.longest_frame())
                sent = self.write_data(s, <const uint8_t*>PyBytes_AS_STRING(chunk) + s.offset, n,
                                       s.ending and s.last_fields is None and len(s.queue) == 1 and s.offset + n == PyBytes_GET_SIZE(chunk),
                                       chunk)
                s.offset += sent
                if s.queue is None:
                    continue
                if sent:
                    s.progress = self.sink.now()
                s.queued -= sent
                self.queued -= sent
                if s.offset == PyBytes_GET_SIZE(chunk):
                    del s.queue[0]
                    s.offset = 0
                if s.queue:
                    if s.send_window() > 0:
                        s.is_waiting = True
                        self.waiting.append(s)
                    continue
            s.queue = None
            if s.last_fields is not None:
                fields, s.last_fields = s.last_fields, None
                self.write_fields(s, fields, True)
            elif s.ending and s.is_open and not s.ended_locally:
                self.write_data(s, NULL, 0, True, None)
            s.on_drained()
        return 0

    cdef bint has_room_now(self) noexcept:
        return self.sink.backlog() < DATA_BACKLOG

    cdef int drop_queue(self, Stream s) except -1:
        """Forget the data that waits: what follows is all that the peer will get."""
        self.queued -= s.queued
        s.queued = 0
        s.queue = None
        return 0

    cdef Py_ssize_t longest_frame(self) noexcept:
        return min(self.peer_max_frame, <Py_ssize_t>LONGEST_SENT)

    cdef Py_ssize_t write_data(self, Stream s, const uint8_t* p, Py_ssize_t n, bint end, bytes owner) except -1:
        """Write DATA frames as far as windows and room allow. Returns how many bytes; END_STREAM goes with the last one."""
        cdef WriteBuffer out
        cdef Py_ssize_t sent = 0, size
        cdef int64_t window
        if n == 0:
            if end:
                s.local_done = True
                self.write_simple(DATA, END_STREAM, s.id, NULL, 0)
                self.local_end(s)
            return 0
        while sent < n and self.sink.backlog() < DATA_BACKLOG:
            window = min(self.send_window, s.send_window())
            if window <= 0:
                break
            size = min(n - sent, min(<Py_ssize_t>window, self.longest_frame()))
            out = self.sink.writer()
            reserve(out, FRAME_HEAD + size)
            put_frame_head(out.p + out.n, size, DATA, END_STREAM if end and sent + size == n else 0, s.id)
            if owner is not None and size >= APART and out.gathers:
                out.n += FRAME_HEAD
                out.splice(owner, p + sent, size)
            else:
                memcpy(out.p + out.n + FRAME_HEAD, p + sent, size)
                out.n += FRAME_HEAD + size
            self.sink.wrote()
            self.sent_data(s, size)
            sent += size
        if end and sent == n:
            s.local_done = True
            self.local_end(s)
        return sent

    cdef void sent_data(self, Stream s, Py_ssize_t n) noexcept:
        self.send_window -= n
        s.send_delta -= n
        self.bytes_useful += n
        give_back(&self.window_updates, UPDATES_PER_DATA)
        give_back(&self.pings, 1)

    cdef int write_fields(self, Stream s, object fields, bint end, tuple head=None) except -1:
        """Write a header block, in as many frames as it takes."""
        self.append_fields(self.sink.writer(), s.id, fields, end, head)
        self.sink.wrote()
        if end:
            s.local_done = True
            self.local_end(s)
        return 0

    cdef int append_fields(self, WriteBuffer out, uint32_t id, object fields, bint end, tuple head=None) except -1:
        """`write_fields` between the sink's `writer` and `wrote`."""
        cdef int size
        if head is None and type(fields) is tuple:
            reserve(out, FRAME_HEAD + MOST_KEPT)
            size = repeat(self.encoder, <tuple>fields, end, out.p + out.n + FRAME_HEAD)
            if size:
                put_frame_head(out.p + out.n, size, HEADERS, END_HEADERS | (END_STREAM if end else 0), id)
                out.n += FRAME_HEAD + size
                return 0
        return self.append_block(out, id, fields, end, head)

    cdef int append_block(self, WriteBuffer out, uint32_t id, object fields, bint end, tuple head=None) except -1:
        cdef WriteBuffer rest
        cdef Py_ssize_t start = out.n, size, at, n
        try:
            reserve(out, FRAME_HEAD)
            out.n += FRAME_HEAD
            if head is not None:
                self.encoder.block(out, head, False)
            self.encoder.block(out, fields, end)
            size = out.n - start - FRAME_HEAD
            if size <= self.peer_max_frame:
                put_frame_head(out.p + start, size, HEADERS, END_HEADERS | (END_STREAM if end else 0), id)
                return 0
            rest = WriteBuffer()
            at = start + FRAME_HEAD + self.peer_max_frame
            rest.append(out.p + at, out.n - at)
            put_frame_head(out.p + start, self.peer_max_frame, HEADERS, END_STREAM if end else 0, id)
            out.n = at
            at = 0
            while at < rest.n:
                n = min(rest.n - at, self.peer_max_frame)
                reserve(out, FRAME_HEAD + n)
                put_frame_head(out.p + out.n, n, CONTINUATION, END_HEADERS if at + n == rest.n else 0, id)
                memcpy(out.p + out.n + FRAME_HEAD, rest.p + at, n)
                out.n += FRAME_HEAD + n
                at += n
        except BaseException:
            # The encoder's table may have moved on without the peer's: forget what the peer does not know.
            out.truncate(start)
            self.encoder.forget()
            self.sink.wrote()
            raise
        return 0

    cdef int local_end(self, Stream s) except -1:
        """END_STREAM is written."""
        s.ended_locally = True
        if s.remote_done:
            self.end_stream(s, False)
        elif not self.is_client:
            # The answer is whole before the request is: the rest of it is not wanted (RFC 9113, 8.1).
            self.write_rst(s.id, NO_ERROR)
            self.end_stream(s, True)
        return 0

    cdef int reset_stream(self, Stream s, int code) except -1:
        """End the stream at once, on our side's own account: nobody is told here, and what waits is dropped."""
        if not s.is_open or self.dead:
            return 0
        s.reset_code = code
        self.write_rst(s.id, code)
        return self.end_stream(s, True)

    cdef int take(self, Stream s, Py_ssize_t n) except -1:
        """`n` bytes of the stream's data were consumed: open the windows again, in large steps."""
        n = min(n, s.held)
        s.held -= n
        self.held -= n
        self.credit_stream(s)
        return self.credit()

    cdef int credit_stream(self, Stream s) except -1:
        if s.is_open and not s.remote_done and s.owed * 2 >= self.stream_window and s.held * 2 < self.stream_window:
            self.write_window(s.id, s.owed)
            s.receive_window += s.owed
            s.owed = 0
        return 0

    cdef int credit(self) except -1:
        if self.owed * 2 >= CONNECTION_WINDOW and self.held < CONNECTION_BUFFERED:
            self.write_window(0, self.owed)
            self.receive_window += self.owed
            self.owed = 0
        return 0

    cdef int write_simple(self, int type, int flags, uint32_t id, const void* p, Py_ssize_t n) except -1:
        cdef WriteBuffer out
        if self.dead:
            return 0
        out = self.sink.writer()
        reserve(out, FRAME_HEAD + n)
        put_frame_head(out.p + out.n, n, type, flags, id)
        if n:
            memcpy(out.p + out.n + FRAME_HEAD, p, n)
        out.n += FRAME_HEAD + n
        return self.sink.wrote()

    cdef int write_window(self, uint32_t id, int64_t more) except -1:
        cdef uint8_t payload[4]
        put32(payload, <uint32_t>more)
        return self.write_simple(WINDOW_UPDATE, 0, id, payload, 4)

    cdef int write_rst(self, uint32_t id, int code) except -1:
        cdef uint8_t payload[4]
        put32(payload, <uint32_t>code)
        return self.write_simple(RST_STREAM, 0, id, payload, 4)

    cdef int write_goaway(self, uint32_t last, int code, bytes debug) except -1:
        cdef uint8_t payload[8]
        put32(payload, last)
        put32(payload + 4, <uint32_t>code)
        self.leaving = True
        found = PyBytes_FromStringAndSize(<const char*>payload, 8) + debug[:128]
        return self.write_simple(GOAWAY, 0, 0, PyBytes_AS_STRING(found), PyBytes_GET_SIZE(found))

    def ping(self, bytes payload not None):
        """Send a PING of these eight bytes; GOT_PONG when they come back."""
        if len(payload) != 8:
            raise UsageError("a PING carries eight bytes")
        self.write_simple(PING, 0, 0, PyBytes_AS_STRING(payload), 8)

    def shut_down(self):
        """Say goodbye in two steps: the second follows when the PING comes back, or by `shut_down_now`."""
        if not self.leaving and self.started:
            self.write_goaway(<uint32_t>MAX_WINDOW, NO_ERROR, b"")
            self.write_simple(PING, 0, 0, PyBytes_AS_STRING(PING_GOODBYE), 8)

    def shut_down_now(self, int code=ErrorCode.NO_ERROR, bytes debug=b""):
        """The last GOAWAY: streams that the peer begins after this are ignored."""
        if not self.left and self.started:
            self.write_goaway(self.last_remote, code, debug)
            self.left = True
