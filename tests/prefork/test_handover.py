"""Handing connections over: exactly one owner at each moment, whoever dies, whatever is full."""

import os
import select
import socket

import pytest

from prefork import scoreboard
from prefork.channel import pair
from prefork.handover import MAX_HANDOVER_BYTES, Handovers
from prefork.orders import Adopt, Adopted, Refused
from prefork.primitives import monotonic_ns
from prefork.scoreboard import CONNECTIONS, READY, STATE, Scoreboard


class Side:
    """One worker's hand-overs, with its epoll and its row."""

    def __init__(self, board, slot, generation=1, connections=0):
        self.index = board.allot(slot, generation)
        self.generation = generation
        self.row = board.row(self.index)
        self.row[STATE], self.row[CONNECTIONS] = READY, connections
        self.row[scoreboard.BEAT_NS] = monotonic_ns() + 10**12
        self.poll = select.epoll()
        self.side = Handovers(self.poll, board, self.row)
        self.socks = []

    def receive(self):
        return self.side.receive([fd for fd, _ in self.poll.poll(0)])

    def give_to(self, taker):
        ours, theirs = pair()
        self.side.add_target(ours, taker.index, taker.generation)
        taker.side.add_source(theirs)
        self.socks.append(ours)
        taker.socks.append(theirs)

    def die(self):
        for sock in self.socks:
            sock.close()
        self.poll.close()


@pytest.fixture
def board():
    board = Scoreboard.create(capacity=8)
    board.publish(1, 1)
    return board


@pytest.fixture
def connection():
    """A client's end, and the server's end that travels."""
    client, server = socket.socketpair()
    yield client, server
    client.close()
    server.close()


@pytest.fixture
def sides(board):
    made = []

    def side(*arguments, **options):
        made.append(Side(board, *arguments, **options))
        return made[-1]

    yield side
    for each in made:
        each.die()


def test_a_connection_moves_with_its_bytes(sides, connection):
    client, server = connection
    giver, taker = sides(0), sides(1)
    giver.give_to(taker)
    token = giver.side.offer(server.fileno(), b"\x00half a frame")
    (adopt,) = taker.receive()
    assert isinstance(adopt, Adopt)
    assert adopt.data == b"\x00half a frame"
    assert giver.side.pending == 1
    assert giver.receive() == [Adopted(token)]
    assert giver.side.pending == 0
    with socket.socket(fileno=adopt.fd) as moved:
        client.send(b"ping")
        assert moved.recv(10) == b"ping"
    assert (giver.row[scoreboard.HANDED_OVER], taker.row[scoreboard.ADOPTED]) == (1, 1)


def test_nobody_to_take_it(sides, connection):
    assert sides(0).side.offer(connection[1].fileno(), b"") is None


def test_the_least_loaded_taker_is_chosen_and_offers_count(sides, connection):
    giver, busy, idle = sides(0), sides(1, connections=3), sides(2)
    giver.give_to(busy)
    giver.give_to(idle)
    for _ in range(5):
        giver.side.offer(connection[1].fileno(), b"")
    given = [order for order in idle.receive() if isinstance(order, Adopt)]
    others = [order for order in busy.receive() if isinstance(order, Adopt)]
    assert (len(given), len(others)) == (4, 1)
    for order in given + others:
        os.close(order.fd)


def test_only_ready_takers_of_the_newest_generation(sides, connection):
    giver, old, new, dead = sides(0), sides(0, 2), sides(0, 3, connections=9), sides(1, 3)
    for taker in (old, new, dead):
        giver.give_to(taker)
    dead.row[STATE] = scoreboard.DRAINING
    giver.side.offer(connection[1].fileno(), b"")
    assert not old.receive()
    assert not dead.receive()
    (adopt,) = new.receive()
    os.close(adopt.fd)


def test_a_stale_beat_is_the_last_choice(sides, connection):
    giver, stuck, alive = sides(0), sides(1), sides(2, connections=50)
    stuck.row[scoreboard.BEAT_NS] = 0
    giver.give_to(stuck)
    giver.give_to(alive)
    giver.side.offer(connection[1].fileno(), b"")
    (adopt,) = alive.receive()
    os.close(adopt.fd)


def test_a_taker_that_dies_unanswered_gives_the_offer_to_the_next(sides, connection):
    giver, victim, heir = sides(0), sides(1), sides(2, connections=5)
    giver.give_to(victim)
    giver.give_to(heir)
    token = giver.side.offer(connection[1].fileno(), b"x")
    victim.die()
    assert giver.receive() == []
    (adopt,) = heir.receive()
    assert adopt.data == b"x"
    os.close(adopt.fd)
    assert giver.receive() == [Adopted(token)]


def test_the_last_taker_dies(sides, connection):
    giver, victim = sides(0), sides(1)
    giver.give_to(victim)
    token = giver.side.offer(connection[1].fileno(), b"x")
    victim.die()
    assert giver.receive() == [Refused(token, "nobody can take it")]
    assert giver.side.pending == 0


def test_an_answer_counts_even_from_a_taker_that_died_with_offers_unread(sides, connection):
    """The kernel puts ECONNRESET in front of the dead taker's last packets: to stop there would serve one twice."""
    giver, taker = sides(0), sides(1)
    giver.give_to(taker)
    first = giver.side.offer(connection[1].fileno(), b"1")
    (adopt,) = taker.receive()
    second = giver.side.offer(connection[1].fileno(), b"2")
    taker.die()
    assert giver.receive() == [Adopted(first), Refused(second, "nobody can take it")]
    os.close(adopt.fd)


def test_a_giver_that_died_has_given(sides, connection):
    giver, taker = sides(0), sides(1)
    giver.give_to(taker)
    giver.side.offer(connection[1].fileno(), b"1")
    giver.side.offer(connection[1].fileno(), b"2")
    giver.die()
    orders = taker.receive() + taker.receive()
    assert [order.data for order in orders] == [b"1", b"2"]
    for order in orders:
        os.close(order.fd)


def test_a_leaving_taker_refuses(sides, connection):
    giver, leaver, heir = sides(0), sides(1), sides(2, connections=5)
    giver.give_to(leaver)
    giver.give_to(heir)
    token = giver.side.offer(connection[1].fileno(), b"x")
    leaver.side.is_leaving = True
    assert leaver.receive() == []
    assert giver.receive() == []
    (adopt,) = heir.receive()
    os.close(adopt.fd)
    assert giver.receive() == [Adopted(token)]


def test_all_refuse(sides, connection):
    giver, leaver = sides(0), sides(1)
    giver.give_to(leaver)
    leaver.side.is_leaving = True
    token = giver.side.offer(connection[1].fileno(), b"x")
    leaver.receive()
    assert giver.receive() == [Refused(token, "nobody can take it")]


def test_more_than_the_sockets_take_waits_and_arrives_once(sides, connection):
    giver, taker = sides(0), sides(1)
    giver.give_to(taker)
    count = 60
    tokens = [giver.side.offer(connection[1].fileno(), bytes([n]) * MAX_HANDOVER_BYTES) for n in range(count)]
    assert giver.side.pending == count
    adopted, arrived = [], []
    while len(adopted) < count:
        for order in taker.receive():
            arrived.append(order.data[0])
            os.close(order.fd)
        adopted += [order.token for order in giver.receive()]
    assert arrived == list(range(count))
    assert adopted == tokens


def test_a_descriptor_that_is_none_is_refused_and_blocks_nobody(sides, connection):
    giver, taker = sides(0), sides(1)
    giver.give_to(taker)
    bad = giver.side.offer(10_000, b"")
    good = giver.side.offer(connection[1].fileno(), b"good")
    (refused,) = giver.receive()
    assert refused.token == bad
    (adopt,) = taker.receive()
    os.close(adopt.fd)
    assert giver.receive() == [Adopted(good)]


def test_too_many_bytes(sides, connection):
    with pytest.raises(ValueError, match="65537 bytes"):
        sides(0).side.offer(connection[1].fileno(), bytes(MAX_HANDOVER_BYTES + 1))


# ---------------------------------------------------------------- a taker that does not turn


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr("prefork.handover.UNANSWERED_NS", 0)


def stop(side):
    side.row[scoreboard.BEAT_NS] = 0


def test_who_does_not_answer_loses_the_offer_to_another(sides, connection, impatient):
    giver, stuck, heir = sides(0), sides(1), sides(2, connections=5)
    giver.give_to(stuck)
    giver.give_to(heir)
    token = giver.side.offer(connection[1].fileno(), b"half")
    stop(stuck)
    giver.side.give_up_on_stuck()
    (adopt,) = heir.receive()
    assert adopt.data == b"half"
    os.close(adopt.fd)
    assert giver.receive() == [Adopted(token)]
    # When it goes on it finds that there is no ticket, and touches nothing.
    before = len(os.listdir("/proc/self/fd"))
    assert stuck.receive() == []
    assert stuck.row[scoreboard.ADOPTED] == 0
    assert len(os.listdir("/proc/self/fd")) < before


def test_nobody_else_takes_it_so_it_stays(sides, connection, impatient):
    giver, stuck = sides(0), sides(1)
    giver.give_to(stuck)
    token = giver.side.offer(connection[1].fileno(), b"x")
    stop(stuck)
    giver.side.give_up_on_stuck()
    assert giver.side.has_verdicts
    assert giver.receive() == [Refused(token, "nobody can take it")]
    assert giver.side.pending == 0
    assert stuck.receive() == []


def test_what_was_answered_before_stays_answered(sides, connection, impatient):
    giver, stuck = sides(0), sides(1)
    giver.give_to(stuck)
    first = giver.side.offer(connection[1].fileno(), b"1")
    (adopt,) = stuck.receive()
    second = giver.side.offer(connection[1].fileno(), b"2")
    stop(stuck)
    giver.side.give_up_on_stuck()
    assert giver.receive() == [Adopted(first), Refused(second, "nobody can take it")]
    os.close(adopt.fd)
    assert stuck.receive() == []


def test_who_beats_is_waited_for(sides, connection, impatient):
    giver, taker = sides(0), sides(1)
    giver.give_to(taker)
    token = giver.side.offer(connection[1].fileno(), b"x")
    giver.side.give_up_on_stuck()
    assert giver.side.pending == 1
    (adopt,) = taker.receive()
    os.close(adopt.fd)
    assert giver.receive() == [Adopted(token)]


def test_who_was_stopped_with_one_in_its_hand_keeps_that_one(sides, connection, impatient):
    giver, stuck, heir = sides(0), sides(1), sides(2, connections=50)
    giver.give_to(stuck)
    giver.give_to(heir)
    stuck.receive()
    (source,) = stuck.side._sources.values()
    tokens = [giver.side.offer(connection[1].fileno(), b"%d" % n) for n in range(3)]
    assert source.tickets.take()  # for the first; and here it is stopped
    stop(stuck)
    giver.side.give_up_on_stuck()
    orders = heir.receive()
    assert [order.data for order in orders] == [b"1", b"2"]
    assert giver.receive() == [Adopted(token) for token in tokens[1:]]
    assert giver.side.pending == 1
    # It goes on: the one in its hand is its own, the others are not.
    giver.side.give_up_on_stuck()
    assert giver.side.pending == 1
    source.tickets.add()
    (adopt,) = stuck.receive()
    assert adopt.data == b"0"
    assert giver.receive() == [Adopted(tokens[0])]
    for order in (*orders, adopt):
        os.close(order.fd)


def test_a_taker_that_was_given_up_dies_with_one_in_its_hand(sides, connection, impatient):
    giver, stuck = sides(0), sides(1)
    giver.give_to(stuck)
    stuck.receive()
    (source,) = stuck.side._sources.values()
    tokens = [giver.side.offer(connection[1].fileno(), b"") for _ in range(2)]
    source.tickets.take()
    stop(stuck)
    giver.side.give_up_on_stuck()
    assert giver.receive() == [Refused(tokens[1], "nobody can take it")]
    stuck.die()
    assert giver.receive() == [Refused(tokens[0], "nobody can take it")]
    assert giver.side.pending == 0


def test_an_adoption_whose_answer_found_no_room_stands(sides, connection, impatient, monkeypatch):
    giver, stuck = sides(0), sides(1)
    giver.give_to(stuck)
    token = giver.side.offer(connection[1].fileno(), b"x")
    monkeypatch.setattr("prefork.handover.send_packet", lambda *_: False)
    assert stuck.receive() == []
    monkeypatch.undo()
    monkeypatch.setattr("prefork.handover.UNANSWERED_NS", 0)
    stop(stuck)
    giver.side.give_up_on_stuck()
    assert giver.side.pending == 1
    (adopt,) = stuck.receive()
    assert giver.receive() == [Adopted(token)]
    os.close(adopt.fd)


def test_without_tickets_nobody_is_given_up(sides, connection, impatient, monkeypatch):
    def refuse(*_):
        raise OSError(24, "no more")

    monkeypatch.setattr("prefork.tickets.eventfd", refuse)
    giver, stuck = sides(0), sides(1)
    giver.give_to(stuck)
    token = giver.side.offer(connection[1].fileno(), b"x")
    stop(stuck)
    giver.side.give_up_on_stuck()
    assert giver.side.pending == 1
    (adopt,) = stuck.receive()
    os.close(adopt.fd)
    assert giver.receive() == [Adopted(token)]
