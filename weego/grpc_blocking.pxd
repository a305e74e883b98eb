# cython: language_level=3
"""gRPC connections for programs that do not use gevent: any thread calls, and waits in itself."""

from codec.buffer cimport ReadBuffer, WriteBuffer
from codec.h2.connection cimport Sink
from cpython.pythread cimport PyThread_type_lock
from weego.grpc_client cimport GrpcClientStream, Link


cdef class Seat:
    """Where a thread sits while another one reads for it."""

    cdef PyThread_type_lock lock         # held until it is called
    cdef GrpcClientStream stream
    cdef bint for_room                   # it waits to send
    cdef bint called
    cdef bint is_heir                    # called to see to the others next
    cdef bint is_due                     # its turn comes

    cdef int call(self) except -1
    cdef int sit(self, double deadline, Seat next) except -1
    cdef bint has_news(self) noexcept
    cdef int rise(self) except -1


cdef class BlockingLink(Link):
    cdef object sock
    cdef readonly object session         # of poller.tls, or None
    cdef PyThread_type_lock lock         # over everything here
    cdef unsigned long owner                   # the thread that holds it, or 0
    cdef int depth                       # how often it does: a finalizer may come in between
    cdef int fd                          # of `sock`; -1 when it is closed
    cdef int bell                        # an eventfd that wakes who reads, or -1
    cdef bint is_reading                 # a thread waits for bytes, for all
    cdef bint is_receiving               # … in the system call that reads them: nobody else may touch `input`
    cdef bint is_parting                 # what came before the socket would take no more is being read
    cdef GrpcClientStream reading_for    # … on its way to this stream's news
    cdef int polling                     # threads that wait at the socket
    cdef bint has_heir                   # a thread was called to see to the others next
    cdef list seats                      # Seats taken
    cdef object due                      # deque of those whose news are there, and who are called one by the other
    cdef Seat watch                      # of the thread that sees to it that they are
    cdef double hold_until               # what is written in turns need not leave before
    cdef readonly long took_turns        # Seats taken from `due`, ever
    cdef int eager                       # reads that are to call all at once
    cdef int caution                     # … how many there will be the next time
    cdef list spare                      # Seats to take
    cdef list orphans                    # streams that nobody can read any more, and whose peers do not know
    cdef bint is_retiring                # to be closed when its calls are over
    cdef ReadBuffer input
    cdef WriteBuffer output              # what is to leave; with TLS, encrypted
    cdef Py_ssize_t sent                 # of `output`
    cdef BlockingSink sink
    cdef public bint wants_change        # somebody waits for a stream to end
    cdef object on_change                # told then
    cdef readonly double last_used
    cdef object __weakref__

    cdef int release(self) except -1
    cdef int regain(self, int depth) except -1
    cdef int wait(self, GrpcClientStream s, bint for_room, double deadline) except -1
    cdef int fetch(self, double deadline) except -1
    cdef int take_seat(self, GrpcClientStream s, bint for_room, double deadline) except -1
    cdef int watch_turn(self, Seat seat, double deadline) except -1
    cdef Seat next_due(self)
    cdef int hand_over(self) except -1
    cdef int call_seats(self) except -1
    cdef int begin_turn(self) except -1
    cdef int call_due(self) except -1
    cdef bint may_hold(self) noexcept
    cdef bint may_wait_reading(self, double deadline) noexcept
    cdef bint recv_alone(self) except -1
    cdef int read(self) except -1
    cdef bint take_in(self, Py_ssize_t r) except -1
    cdef int try_send(self) except -1
    cdef bint has_output(self) noexcept
    cdef int finish_leaving(self) except -1
    cdef int fail(self, object error) except -1
    cdef int wait_outside(self, short events, double deadline, double most) except -1
    cdef int wait_for(self, short events, double deadline, double most) except -1


cdef class BlockingSink(Sink):
    cdef WriteBuffer buffer              # of plain bytes
    cdef BlockingLink link
    cdef bint wants_room
