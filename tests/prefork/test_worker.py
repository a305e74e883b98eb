"""A worker as its body sees it, with the test in the master's place."""

import os
import select
import signal
import socket

import pytest

from prefork.application import Listen, Settings
from prefork.channel import Channel, pair
from prefork.orders import Adopt, Adopted, Drain, MasterGone, Reopen, Serve, Stop
from prefork.scoreboard import BEAT_NS, BOOTING, DRAINING, PID, READY, STATE, Scoreboard
from prefork.worker import Worker

SETTINGS = Settings(name="t", workers=1, listen=(Listen("tcp://127.0.0.1:0"),))


@pytest.fixture
def board():
    board = Scoreboard.create(capacity=4)
    board.publish(1, 1)
    return board


@pytest.fixture
def make(board, monkeypatch):
    monkeypatch.setattr("prefork.worker.set_title", titles.append)
    titles.clear()
    channels, workers = [], []

    def make(slot=0):
        ours, theirs = pair()
        channels.append(Channel(ours))
        worker = Worker(
            slot=slot,
            generation=1,
            index=board.allot(slot, 1),
            settings=SETTINGS,
            channel=Channel(theirs),
            board=board,
            listeners=[],
        )
        workers.append(worker)
        message, fds = channels[-1].receive()
        assert message == {"is": "born"}
        os.close(*fds)
        return worker, channels[-1]

    yield make
    for end in channels + workers:
        end.close()


titles = []


def readable(worker):
    return bool(select.select([worker.fileno()], [], [], 0)[0])


def test_its_row_says_who_it_is_and_how_far(make):
    worker, master = make()
    assert (worker.row[PID], worker.row[STATE]) == (os.getpid(), BOOTING)
    assert worker.row[BEAT_NS] > 0
    worker.ready()
    assert worker.row[STATE] == READY
    assert master.receive()[0] == {"is": "ready", "pid": os.getpid()}
    assert "ready" in repr(worker)


def test_it_may_accept_from_serve_to_drain(make):
    worker, master = make()
    worker.ready()
    assert not worker.may_accept()
    assert not readable(worker)
    master.send({"is": "serve"})
    assert readable(worker)
    assert worker.receive() == [Serve()]
    assert not readable(worker)
    assert worker.may_accept()
    master.send({"is": "drain", "deadline": 5.0, "closing": [1]})
    assert worker.receive() == [Drain(5.0, (1,))]
    assert not worker.may_accept()
    assert worker.row[STATE] == DRAINING
    master.send({"is": "stop", "deadline": 1.0, "fast": True})
    master.send({"is": "reopen"})
    assert worker.receive() == [Stop(1.0, fast=True), Reopen()]
    assert titles == ["weego: worker 0 gen 1 [t] (draining)"]


def test_the_end_of_the_channel_is_the_end_of_the_master(make, caplog):
    worker, master = make()
    worker.ready()
    master.close()
    (order,) = worker.receive()
    assert isinstance(order, MasterGone)
    assert worker.receive() == []
    assert not readable(worker)
    worker.leave("nobody listens")


def test_term_asks_the_master_once(make):
    worker, master = make()
    worker.on_term(signal.SIGTERM, None)
    worker.on_term(signal.SIGTERM, None)
    assert readable(worker)
    assert worker.receive() == []
    worker.leave("max_requests")
    assert master.receive()[0] == {"is": "leaving", "reason": "SIGTERM"}
    assert master.receive() is None


def test_an_order_from_the_future_is_ignored_and_its_descriptors_closed(make, caplog):
    worker, master = make()
    reader, writer = os.pipe()
    master.send({"is": "levitate"}, [writer])
    os.close(writer)
    assert worker.receive() == []
    assert "levitate" in caplog.text
    assert os.read(reader, 1) == b""
    os.close(reader)


def test_a_connection_goes_from_worker_to_worker(make):
    giver, giver_master = make(0)
    taker, taker_master = make(1)
    giver.ready()
    taker.ready()
    target, source = pair()
    giver_master.send({"is": "target", "row": taker.index, "generation": 1}, [target.fileno()])
    taker_master.send({"is": "source"}, [source.fileno()])
    target.close()
    source.close()
    client, server = socket.socketpair()
    assert giver.hand_over(server.fileno(), b"x") is None, "it does not know of the taker yet"
    assert (giver.receive(), taker.receive()) == ([], [])
    token = giver.hand_over(server.fileno(), b"half")
    assert giver.pending == 1
    assert readable(taker)
    (adopt,) = taker.receive()
    assert isinstance(adopt, Adopt)
    assert adopt.data == b"half"
    assert giver.receive() == [Adopted(token)]
    assert giver.pending == 0
    os.close(adopt.fd)
    client.close()
    server.close()


def test_a_verdict_wakes_the_body(make):
    giver, master = make(0)
    taker, _ = make(1)
    taker.ready()
    target, source = pair()
    master.send({"is": "target", "row": taker.index, "generation": 1}, [target.fileno()])
    target.close()
    assert giver.receive() == []
    token = giver.hand_over(9999, b"")  # no such descriptor
    assert readable(giver)
    assert giver.receive()[0].token == token
    source.close()


def test_which_listeners_end_with_the_server(board, monkeypatch):
    monkeypatch.setattr("prefork.worker.set_title", titles.append)
    for is_kept, orphaned in ((False, (1,)), (True, (0, 1))):
        ours, theirs = pair()
        listeners = [socket.socket() for _ in range(2)]
        worker = Worker(
            slot=0, generation=1, index=board.allot(0, 1), settings=SETTINGS, channel=Channel(theirs), board=board,
            listeners=listeners, activated=[1], is_kept=is_kept,
        )  # fmt: skip
        assert worker.held == (1,), "what systemd opened"
        Channel(ours).close()
        worker.receive()
        assert worker.held == orphaned, "and what it may have been given to keep"
        worker.close()
