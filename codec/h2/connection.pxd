# cython: language_level=3
"""One HTTP/2 connection, without the connection."""

from codec.buffer cimport Cursor, WriteBuffer
from codec.h2.hpack cimport Decoder, Encoder, Field
from codec.protocol cimport Protocol
from libc.stdint cimport int64_t, uint8_t, uint32_t

cdef enum FrameType:
    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9

cdef enum Flag:
    ACK = 1
    END_STREAM = 1
    END_HEADERS = 4
    PADDED = 8
    PRIORITISED = 32

cdef enum Event:
    # Bits of Stream.events and H2Connection.events: what is new since the owner looked last.
    GOT_HEADERS = 1           # `headers` is there
    GOT_DATA = 2              # the stream has taken in data
    GOT_END = 4               # the peer will send no more; `trailers` may be there
    GOT_RESET = 8             # the peer, or a rule, ended the stream: `reset_code`
    GOT_SETTINGS = 16         # of the connection: the peer's settings have changed
    GOT_PONG = 32             # of the connection: `pong` came back
    GOT_GOAWAY = 64           # of the connection: the peer wants no more streams


cdef struct Bucket:
    double tokens
    double at
    double burst
    double rate


cdef class H2Connection


cdef class Sink:
    """Where the bytes go, and the clock: what a connection gives to its protocol."""

    cdef WriteBuffer writer(self)             # to append to; `wrote` must follow before anything else happens
    cdef int wrote(self) except -1
    cdef Py_ssize_t backlog(self) noexcept    # bytes written that have not left
    cdef int want_room(self) except -1        # call H2Connection.pump when few are left
    cdef double now(self) noexcept            # seconds of a clock that only goes forward


cdef class Stream:
    cdef readonly H2Connection connection
    cdef readonly uint32_t id
    cdef readonly list headers                # Fields of the first block of the peer, or None
    cdef readonly list trailers               # Fields after the data, or None
    cdef public int events                    # Event bits; the owner clears them
    cdef public object owner                  # belongs to whoever uses the stream
    cdef readonly int64_t reset_code          # -1: not reset
    cdef readonly bint reset_by_peer
    cdef readonly bint refused                # the peer did nothing with it: another connection may try
    cdef readonly bint local_done             # we have sent, or will send, END_STREAM
    cdef readonly bint remote_done            # the peer has
    cdef readonly bint is_open                # in the connection's table
    cdef int64_t send_delta                   # window for sending, without the connection's initial one
    cdef int64_t receive_window               # what the peer may still send
    cdef int64_t owed                         # received and not given back to the peer's window
    cdef int64_t held                         # received and not taken yet
    cdef int64_t announced                    # content-length, or -1
    cdef int64_t received                     # bytes of data
    cdef list queue                           # bytes that wait for a window, or None
    cdef Py_ssize_t offset                    # sent of queue[0]
    cdef readonly Py_ssize_t queued           # bytes in `queue`
    cdef object last_fields                   # trailers that wait behind the queue
    cdef double progress                      # when data last left, or began to wait (the sink's clock)
    cdef bint ending                          # END_STREAM goes with the end of the queue
    cdef bint ended_locally                   # END_STREAM is written
    cdef bint is_waiting                      # in the connection's `waiting`
    cdef list chunks                          # data received, unless a subclass takes it differently

    # What a subclass may do otherwise. They are called while bytes are parsed or windows open: no user code, no switch. Those that return an
    # int say whether the owner is to be told now (the connection's `receive` then returns the stream).
    cdef int on_headers(self) except -1
    cdef int on_data(self, const uint8_t* p, Py_ssize_t n) except -1
    cdef int on_end(self) except -1
    cdef int on_reset(self) except -1
    cdef int on_drained(self) except -1       # the queue is empty again

    cdef int64_t send_window(self) noexcept


cdef class Streams:
    cdef list slots                           # Streams and Nones, a power of two of them
    cdef Py_ssize_t mask
    cdef readonly Py_ssize_t count

    cdef Stream find(self, uint32_t id)       # or None
    cdef int add(self, Stream s) except -1
    cdef int remove(self, Stream s) except -1
    cdef int resize(self, Py_ssize_t size) except -1
    cpdef list values(self)


cdef enum:
    MOST_BLOCK = 48         # bytes of a block that is worth remembering: indices alone, and so as many fields
    BLOCKS = 8              # that a connection remembers; a power of two


cdef class Block:
    """A header block that may come again: while the decoder's table stays the same, it means the same."""

    cdef list fields
    cdef int64_t changes                      # Decoder.changes when it was decoded
    cdef Py_ssize_t size
    cdef uint8_t data[MOST_BLOCK]
    # What is known of it; nothing is kept of one with a content-length, which has to do with its stream.
    cdef bint is_request                      # it is one as the RFC wants it
    cdef int status                           # of an answer as the RFC wants it; 0: not known to be one
    cdef bint is_trailers                     # it may be
    cdef object parsed                        # belongs to the stream's class: what it has made of these fields, or None


cdef class H2Sender(Protocol):
    cdef readonly bint is_client
    cdef Sink sink
    cdef Decoder decoder
    cdef Encoder encoder
    cdef readonly Streams streams             # those that are open
    cdef Stream last                          # of the last frame: most frames come in runs
    cdef public int events
    cdef public object owner
    cdef readonly bytes pong                  # payload of the last acknowledged PING
    cdef list news                            # streams to be returned by `receive`, when there are several at once

    cdef bint started                         # our preface and SETTINGS are written
    cdef Py_ssize_t preface                   # bytes of the peer's preface that are still to come
    cdef bint settled                         # the peer's first SETTINGS came
    cdef bint settings_known                  # the peer has acknowledged ours
    cdef object failure                       # the H2Error, once `dead`
    cdef bint dead                            # a rule was broken: nothing is read or sent any more
    cdef public Py_ssize_t max_streams        # that the peer may have open
    cdef public int64_t stream_window         # our SETTINGS_INITIAL_WINDOW_SIZE
    cdef readonly int64_t receive_window      # of the connection
    cdef int64_t owed
    cdef readonly int64_t held                # bytes of all streams that were not taken yet
    cdef uint32_t last_remote                 # highest stream id of the peer
    cdef uint32_t next_local
    cdef readonly int64_t streams_well        # that have ended with END_STREAM of the server
    cdef readonly int64_t streams_badly       # … and those that ended without
    cdef readonly int64_t messages_sent       # of gRPC
    cdef readonly int64_t messages_received
    cdef public int64_t number                # of the connection for who lists connections (channelz); 0: none yet
    cdef Py_ssize_t local_streams             # open ones that we began
    cdef Py_ssize_t remote_streams            # open ones that the peer began

    # The peer's settings.
    cdef int64_t peer_window                  # its SETTINGS_INITIAL_WINDOW_SIZE
    cdef Py_ssize_t peer_max_frame
    cdef readonly int64_t peer_max_streams
    cdef readonly int64_t peer_max_list
    cdef readonly int64_t send_window         # of the connection
    cdef object waiting                       # deque of Streams with something to send and a window of their own
    cdef readonly int64_t queued              # bytes that wait in all streams

    cdef list blocks                          # those seen lately, by what they look like
    cdef Block seen                           # of them the one whose fields `on_headers` is told of, or None

    # A header block that has not come whole.
    cdef WriteBuffer block
    cdef uint32_t block_stream                # 0: none
    cdef int block_flags
    cdef int block_frames
    cdef bint depends_on_itself               # the last HEADERS frame said so, which is an error of its stream

    # The end.
    cdef readonly bint leaving                # we sent GOAWAY, the first of two or the only one
    cdef readonly bint left                   # we sent the last GOAWAY: new streams are ignored
    cdef readonly bint peer_leaving           # the peer sent GOAWAY
    cdef readonly int64_t peer_goaway         # its error code, or -1
    cdef readonly bytes peer_goaway_debug

    # Abuse.
    cdef Bucket resets, our_resets, pings, settings, priorities, window_updates
    cdef int empties
    cdef int64_t small
    cdef int64_t bytes_received, bytes_useful
    cdef uint32_t* ended                      # ring of ids; the top bit says that we reset it, so that frames may be on their way
    cdef int ended_next

    # A Stream of the owner's class; nothing of it need be set.
    cdef Stream new_stream(self)
    cdef int start(self, Sink sink) except -1

    cdef int fatal(self, str message, int code, str abuse=*) except -1
    cdef int spend(self, Bucket* b, str name) except -1
    cdef object stream_error(self, uint32_t id, int code)
    cdef int end_stream(self, Stream s, bint reset) except -1
    cdef int was_ended(self, uint32_t id) noexcept      # 0: not known, 1: in order, 2: by a reset

    # ---- for the owner; none of these runs user code
    cdef bint may_open(self) noexcept
    # `head`: what comes before `fields`, as often before: a tuple of Fields (Encoder.block), or None
    cdef Stream open_stream(self, object fields, bint end, tuple head=*)
    # `fields`: a list, or a tuple of Fields that is sent often (Encoder.block)
    cdef int send_fields(self, Stream s, object fields, bint end) except -1
    # `owner`: None, or the immutable bytes that `p[:n]` is the end of; then it is not copied
    cdef int send_data(self, Stream s, const uint8_t* p, Py_ssize_t n, bint end, bytes owner) except -1
    cdef int reset_stream(self, Stream s, int code) except -1
    cdef int take(self, Stream s, Py_ssize_t n) except -1
    cdef int productive(self) except -1
    cdef int pump(self) except -1

    cdef int write_fields(self, Stream s, object fields, bint end, tuple head=*) except -1
    cdef int append_fields(self, WriteBuffer out, uint32_t id, object fields, bint end, tuple head=*) except -1
    cdef int append_block(self, WriteBuffer out, uint32_t id, object fields, bint end, tuple head=*) except -1
    cdef Py_ssize_t write_data(self, Stream s, const uint8_t* p, Py_ssize_t n, bint end, bytes owner) except -1
    cdef void sent_data(self, Stream s, Py_ssize_t n) noexcept
    cdef Py_ssize_t longest_frame(self) noexcept
    cdef bint has_room_now(self) noexcept
    cdef int drop_queue(self, Stream s) except -1
    cdef int write_rst(self, uint32_t id, int code) except -1
    cdef int credit_stream(self, Stream s) except -1
    cdef int credit(self) except -1
    cdef int wait_to_send(self, Stream s) except -1
    cdef int write_simple(self, int type, int flags, uint32_t id, const void* p, Py_ssize_t n) except -1
    cdef int write_window(self, uint32_t id, int64_t more) except -1
    cdef int write_goaway(self, uint32_t last, int code, bytes debug) except -1
    cdef int local_end(self, Stream s) except -1


cdef class H2Connection(H2Sender):
    cdef object receive(self, Cursor* c)
    cdef bint take_preface(self, Cursor* c) except -1
    cdef int count_empty(self) except -1
    cdef object on_late_frame(self, uint32_t id, bint is_data)
    cdef bint is_local(self, uint32_t id) noexcept
    cdef bint is_idle(self, uint32_t id) noexcept
    cdef object refuse(self, uint32_t id, int code)
    cdef bint check_request(self, Stream s, list fields) except -1
    cdef int check_response(self, Stream s, list fields) except -1
    cdef object frame(self, int type, int flags, uint32_t id, const uint8_t* p, Py_ssize_t n)
    cdef object on_data_frame(self, int flags, uint32_t id, const uint8_t* p, Py_ssize_t n)
    cdef object on_headers_frame(self, int flags, uint32_t id, const uint8_t* p, Py_ssize_t n)
    cdef object on_continuation(self, int flags, uint32_t id, const uint8_t* p, Py_ssize_t n)
    cdef object header_block(self, const uint8_t* p, Py_ssize_t n, int flags, uint32_t id)
    cdef Block block_of(self, const uint8_t* p, Py_ssize_t n)
    cdef object new_request(self, uint32_t id, list fields, bint end)
    cdef object more_fields(self, Stream s, list fields, bint end)
    cdef object on_rst_frame(self, uint32_t id, const uint8_t* p, Py_ssize_t n)
    cdef object on_settings_frame(self, int flags, uint32_t id, const uint8_t* p, Py_ssize_t n)
    cdef object on_ping_frame(self, int flags, uint32_t id, const uint8_t* p, Py_ssize_t n)
    cdef object on_goaway_frame(self, uint32_t id, const uint8_t* p, Py_ssize_t n)
    cdef object on_window_frame(self, uint32_t id, const uint8_t* p, Py_ssize_t n)
    cdef object finish_remote(self, Stream s)
    cdef int set_peer_window(self, int64_t size) except -1


cdef inline void put_frame_head(uint8_t* p, Py_ssize_t length, int type, int flags, uint32_t id) noexcept:
    p[0] = <uint8_t>(length >> 16)
    p[1] = <uint8_t>(length >> 8)
    p[2] = <uint8_t>length
    p[3] = <uint8_t>type
    p[4] = <uint8_t>flags
    p[5] = <uint8_t>(id >> 24)
    p[6] = <uint8_t>(id >> 16)
    p[7] = <uint8_t>(id >> 8)
    p[8] = <uint8_t>id
