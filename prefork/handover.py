"""Handing live connections from a worker that leaves to one that stays.

The master gives each leaving worker a socket pair to some of the workers that stay, one pair for each two of them. Over
a pair go offers (a descriptor and the bytes read so far) one way and answers the other.

Rules
 1. At most once. The taker answers "adopted" before it looks at the descriptor; the giver does not touch the connection
    between offer and answer. So whoever reads from the connection is sure that the other never will.
 2. If a taker dies, its pairs end. Every offer it has not answered is still the giver's: nobody has read from it.
 3. If a giver dies, the offers in the socket still arrive, and are adopted: nobody else has them.
 4. An offer goes to the ready taker of the newest generation with the fewest connections and, among equals, the fewest
    offers on their way; a stale beat disqualifies while another has a fresh one.
 5. Nothing blocks. What no socket takes waits in the giver's queue, bound to no taker yet.
 6. Who shares its connections with one certain worker asks only that one, and the way to it is closed afterwards.
 7. A taker that is leaving itself, or has no room for the descriptor, refuses. The giver tries another taker once for
    each there is, then its body is told and serves on.
 8. A taker that does not turn (stopped, hung) and answers nothing loses its offers to another: each offer has a ticket
    (prefork.tickets), which the taker needs to answer and the giver can take back. What was answered stays answered.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import TYPE_CHECKING

from prefork import scoreboard
from prefork.channel import Closed, receive_packet, send_packet
from prefork.orders import Adopt, Adopted, Refused
from prefork.primitives import EPOLLIN, EPOLLOUT, RawSocket, close_quietly, monotonic_ns
from prefork.tickets import Tickets

if TYPE_CHECKING:
    from collections.abc import Sequence
    from select import epoll

    from prefork.scoreboard import Scoreboard

#: Bytes that may travel with a connection. A worker gives a connection away between two messages, with little input
#: unread; a packet must stay well below the 208 KiB that the kernel takes by default.
MAX_HANDOVER_BYTES = 64 * 1024

#: Offers read from one giver in one turn: the taker has clients of its own to answer in between.
OFFERS_PER_TURN = 64

#: A taker that beats answers within its turn. After so long without a beat and an answer it is not waited for.
UNANSWERED_NS = 1_000_000_000

_HEADER = struct.Struct("!BQ")  # kind, token
_OFFER, _ADOPTED, _REFUSED, _TICKETS = 1, 2, 3, 4
_PACKET_BYTES = _HEADER.size + MAX_HANDOVER_BYTES


class _Offer:
    """A connection on its way out."""

    __slots__ = ("data", "fd", "refused_by", "row", "sent_ns", "token")

    def __init__(self, token: int, fd: int, data: bytes, row: int | None) -> None:
        self.row = row  # of the only taker it is for, or None
        self.token = token
        self.fd = fd
        self.data = data
        self.refused_by: list[int] = []  # rows of takers
        self.sent_ns = 0


class _Target:
    """A taker, seen by the giver."""

    __slots__ = ("generation", "is_dead", "is_retiring", "offers", "row", "sock", "tickets")

    def __init__(self, sock: RawSocket, row: int, generation: int) -> None:
        self.sock = sock
        self.tickets: Tickets | None = None
        self.is_dead = False  # a send failed; its last answers may still have to be read
        self.is_retiring = False  # no offers follow those that are under way
        self.row = row
        self.generation = generation
        self.offers: dict[int, _Offer] = {}  # unanswered, by token


class _Source:
    """A giver, seen by the taker: answers wait here, with the connection each one adopts, while its socket is full."""

    __slots__ = ("answers", "sock", "tickets")

    def __init__(self, sock: RawSocket) -> None:
        self.sock = sock
        self.tickets: Tickets | None = None
        self.answers: deque[tuple[bytes, Adopt | None]] = deque()


class Handovers:
    """Both roles of one worker. It keeps its sockets in ``poll`` (level triggered) and drops them when they end."""

    def __init__(self, poll: epoll, board: Scoreboard, row: memoryview) -> None:
        self._poll = poll
        self._board = board
        self._row = row
        self._targets: dict[int, _Target] = {}  # by descriptor
        self._sources: dict[int, _Source] = {}
        self._queue: deque[_Offer] = deque()
        self._verdicts: list[Adopted | Refused] = []  # found while no receive() was running
        self._next_token = 1
        self._waits_for_room = False
        self.is_leaving = False

    @property
    def pending(self) -> int:
        """Offers without an answer."""
        return len(self._queue) + len(self._verdicts) + sum(len(target.offers) for target in self._targets.values())

    @property
    def has_verdicts(self) -> bool:
        """Whether ``receive`` has something to say although no socket is ready."""
        return bool(self._verdicts)

    def add_target(self, sock: RawSocket, row: int, generation: int) -> None:
        """A way to a worker that can take connections."""
        target = self._targets[sock.fileno()] = _Target(sock, row, generation)
        _share_tickets(target)
        self._poll.register(sock.fileno(), EPOLLIN)
        self._flush()

    def add_source(self, sock: RawSocket) -> None:
        """A way from a worker that gives connections."""
        self._sources[sock.fileno()] = _Source(sock)
        self._poll.register(sock.fileno(), EPOLLIN)

    def close(self) -> None:
        """Close every way; to the others this worker is dead."""
        ends: list[_Target | _Source] = [*self._targets.values(), *self._sources.values()]
        for end in ends:
            end.sock.close()
            if end.tickets is not None:
                end.tickets.close()
        self._targets.clear()
        self._sources.clear()

    def owns(self, fd: int) -> bool:
        """Whether ``fd`` is one of the sockets here."""
        return fd in self._targets or fd in self._sources

    # -- giving -----------------------------------------------------------------------------------------------------

    def offer(self, fd: int, data: bytes, row: int | None = None) -> int | None:
        """Send a connection away, or queue it; to the taker of ``row`` if one is named. Its token, or None when there is nobody to take it.

        Raises ValueError if ``data`` is too long.
        """
        if len(data) > MAX_HANDOVER_BYTES:
            raise ValueError(f"{len(data)} bytes to hand over, {MAX_HANDOVER_BYTES} is the most")
        if not self._candidates((), row):
            return None
        offer = _Offer(self._next_token, fd, data, row)
        self._next_token += 1
        self._queue.append(offer)
        if not self._waits_for_room:
            self._flush()
        return offer.token

    def retire(self, row: int) -> None:
        """Close the way to the taker of ``row`` when what is under way has been answered."""
        for target in self._targets.values():
            if target.row == row:
                target.is_retiring = True
        self._close_retired()

    def _close_retired(self) -> None:
        waiting = {offer.row for offer in self._queue}
        for fd, target in list(self._targets.items()):
            if target.is_retiring and not target.offers and target.row not in waiting:
                self._drop(fd, target)

    def _drop(self, fd: int, target: _Target) -> None:
        del self._targets[fd]
        self._poll.unregister(fd)
        target.sock.close()
        if target.tickets is not None:
            target.tickets.close()

    def _candidates(self, refused_by: Sequence[int], row: int | None) -> list[_Target]:
        """Who may be asked, best first (rule 4)."""
        alive = [target for target in self._targets.values() if row in (None, target.row) and self._is_ready(target)]
        if not alive:
            return []
        newest = max(target.generation for target in alive)
        cells, oldest_beat = self._board.row, monotonic_ns() - scoreboard.STALE_BEAT_NS

        def cost(target: _Target) -> tuple[bool, int, int]:
            its = cells(target.row)
            # offers on their way are connections that the taker does not count yet
            busy = its[scoreboard.CONNECTIONS] + len(target.offers)
            return its[scoreboard.BEAT_NS] < oldest_beat, busy, len(target.offers)

        return sorted((t for t in alive if t.generation == newest and t.row not in refused_by), key=cost)

    def _is_ready(self, target: _Target) -> bool:
        if target.is_dead:
            return False
        row = self._board.row(target.row)
        return bool(row[scoreboard.STATE] == scoreboard.READY and row[scoreboard.GENERATION] == target.generation)

    def _flush(self) -> None:
        """Send queued offers until the queue is empty or every socket that may be asked is full."""
        while self._queue:
            offer = self._queue[0]
            candidates = self._candidates(offer.refused_by, offer.row)
            if not candidates:
                self._queue.popleft()
                self._verdicts.append(Refused(offer.token, "nobody can take it"))
            elif any(self._send(target, offer) for target in candidates):
                self._queue.popleft()
            elif not all(target.is_dead for target in candidates):
                break
        if self._waits_for_room != bool(self._queue):
            self._waits_for_room = bool(self._queue)
            for fd in self._targets:
                self._poll.modify(fd, EPOLLIN | EPOLLOUT if self._waits_for_room else EPOLLIN)

    def _send(self, target: _Target, offer: _Offer) -> bool:
        """Whether the offer is off the queue; False: the socket is full, or the taker died."""
        if target.tickets is not None:
            target.tickets.add()
        is_sent = False
        try:
            is_sent = send_packet(target.sock, _HEADER.pack(_OFFER, offer.token) + offer.data, (offer.fd,))
        except Closed:
            target.is_dead = True
        except OSError as error:  # the body closed the descriptor, or it is none that can travel: its mistake
            self._verdicts.append(Refused(offer.token, f"cannot be sent: {error.strerror}"))
            if target.tickets is not None:
                target.tickets.take()
            return True
        if not is_sent:
            if target.tickets is not None:
                target.tickets.take()
            return False
        offer.sent_ns = monotonic_ns()
        target.offers[offer.token] = offer
        return True

    def give_up_on_stuck(self) -> None:
        """Take back what takers that do not turn have not answered (rule 8). To be called now and then while offers are pending."""
        too_long_ago = monotonic_ns() - UNANSWERED_NS
        for target in list(self._targets.values()):
            oldest = next(iter(target.offers.values()), None)
            if oldest is None or oldest.sent_ns > too_long_ago or target.tickets is None:
                continue
            if self._board.row(target.row)[scoreboard.BEAT_NS] > too_long_ago:
                continue
            target.is_dead = True
            ours = target.tickets.take_all()
            if self._read_answers(target):
                # It has taken its tickets in the order of the offers: the last ones are ours. One may be in its hand.
                unanswered = list(target.offers.values())
                kept, taken_back = unanswered[: len(unanswered) - ours], unanswered[len(unanswered) - ours :]
                target.offers = {offer.token: offer for offer in taken_back}
                if kept:
                    self._take_back(target)
                    target.offers = {offer.token: offer for offer in kept}
                else:
                    self._end_target(target)
        self._flush()

    def _take_back(self, target: _Target) -> None:
        self._queue.extendleft(reversed(target.offers.values()))
        target.offers = {}

    # -- both ---------------------------------------------------------------------------------------------------------

    def receive(self, fds: list[int]) -> list[Adopt | Adopted | Refused]:
        """Read what the sockets ``fds`` have; what the body must know."""
        orders: list[Adopt | Adopted | Refused] = []
        for fd in fds:
            target, source = self._targets.get(fd), self._sources.get(fd)
            if target is not None:
                self._read_answers(target)
            elif source is not None:
                self._read_offers(source, orders)
        self._flush()
        self._close_retired()
        orders.extend(self._verdicts)
        self._verdicts.clear()
        return orders

    def _read_answers(self, target: _Target) -> bool:
        """Whether the taker is still there."""
        try:
            while (packet := receive_packet(target.sock, _PACKET_BYTES)) is not None:
                kind, token = _HEADER.unpack_from(packet[0])
                offer = target.offers.pop(token, None)
                if offer is None:
                    continue
                if kind == _ADOPTED:
                    self._row[scoreboard.HANDED_OVER] += 1
                    self._verdicts.append(Adopted(token))
                else:
                    offer.refused_by.append(target.row)
                    self._queue.append(offer)
        except Closed:
            self._end_target(target)
            return False
        return True

    def _end_target(self, target: _Target) -> None:
        """It died, or is given up: what it did not answer goes to another (rules 2, 8)."""
        self._drop(target.sock.fileno(), target)
        self._take_back(target)

    def _read_offers(self, source: _Source, orders: list[Adopt | Adopted | Refused]) -> None:
        self._answer(source, orders)  # room may have come; answers keep the order of their offers
        try:
            for _ in range(OFFERS_PER_TURN):
                packet = None if source.answers else receive_packet(source.sock, _PACKET_BYTES)
                if packet is None:
                    break
                data, fds, _ = packet
                kind, token = _HEADER.unpack_from(data)
                if kind == _TICKETS:  # the first packet; without a descriptor there was no room for one, and nobody gives up on us
                    source.tickets = Tickets(fds[0]) if fds else None
                elif source.tickets is not None and not source.tickets.take():  # rule 8: this one and the rest are the giver's again
                    for fd in fds:
                        close_quietly(fd)
                elif len(fds) != 1 or self.is_leaving:
                    for fd in fds:
                        close_quietly(fd)
                    source.answers.append((_HEADER.pack(_REFUSED, token), None))
                else:
                    source.answers.append((_HEADER.pack(_ADOPTED, token), Adopt(fds[0], data[_HEADER.size :])))
                self._answer(source, orders)
        except Closed:
            self._end_source(source)
            for _, adopt in source.answers:
                if adopt is not None:  # rule 3
                    self._row[scoreboard.ADOPTED] += 1
                    orders.append(adopt)

    def _end_source(self, source: _Source) -> None:
        fd = source.sock.fileno()
        del self._sources[fd]
        self._poll.unregister(fd)
        source.sock.close()
        if source.tickets is not None:
            source.tickets.close()

    def _answer(self, source: _Source, orders: list[Adopt | Adopted | Refused]) -> None:
        """Send answers; a connection is ours when its answer is on its way, or its giver is dead (rules 1, 3)."""
        while source.answers:
            answer, adopt = source.answers[0]
            try:
                if not send_packet(source.sock, answer):
                    break
            except Closed:
                pass  # the end of file comes when the offers are read
            source.answers.popleft()
            if adopt is not None:
                self._row[scoreboard.ADOPTED] += 1
                orders.append(adopt)
        self._poll.modify(source.sock.fileno(), EPOLLOUT if source.answers else EPOLLIN)


def _share_tickets(target: _Target) -> None:
    """The first packet to a taker. Where there is no descriptor to be had the pair does without: its taker is never given up on."""
    try:
        tickets = Tickets.create()
    except OSError:
        return
    try:
        if send_packet(target.sock, _HEADER.pack(_TICKETS, 0), (tickets.fd,)):
            target.tickets = tickets
            return
    except (Closed, OSError):
        pass  # the end of file will tell
    tickets.close()
