"""Long-lived connections are spread anew when a worker has many and another few."""

import contextlib
import os
import signal

import pytest

from prefork.balance import LEAST_GAP
from tests.prefork.harness import Server, until
from tests.prefork.test_upgrade import ask

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


@pytest.fixture
def server(tmp_path):
    return lambda **conf: Server(tmp_path, control=str(tmp_path / "control"), **conf)


def counts(s):
    return sorted(each["connections"] for each in ask(s.folder / "control", do="workers")["result"])


def uneven(s, stack, clients=40):
    """Connections of one worker only: the other has crashed, and whoever was connected to it does not come back."""
    everyone = [stack.enter_context(s.connect()) for _ in range(clients)]
    victim = everyone[0].who()[0]
    mine = [client for client in everyone if client.who()[0] != victim]
    os.kill(victim, signal.SIGKILL)
    until(lambda: victim not in s.workers() and len(s.workers()) == 2, "a replacement")
    return mine


def test_the_fullest_gives_to_the_emptiest(server):
    with server(workers=2) as s, contextlib.ExitStack() as stack:
        mine = uneven(s, stack)
        number = 0
        while max(counts(s)) - min(counts(s)) >= LEAST_GAP:
            for client in mine:
                number += 1
                assert client.call(b"%d" % number) == b"%d" % number
        assert sum(counts(s)) == len(mine)
        assert len({client.who()[0] for client in mine}) == 2
        stats = ask(s.folder / "control", do="stats")["result"]
        assert stats["handed_over"] == stats["adopted"] > 0
        assert "it gives up to" in s.log
        # the ways are closed again: no descriptor stays behind
        fds = [len(os.listdir(f"/proc/{pid}/fd")) for pid in s.workers()]
        until(lambda: abs(fds[0] - fds[1]) <= LEAST_GAP, "no pairs left open")
    assert s.errors == []


def test_not_where_it_is_switched_off(server):
    with server(workers=2, rebalance=False) as s, contextlib.ExitStack() as stack:
        mine = uneven(s, stack)
        before = counts(s)
        s.configure(graceful_timeout=5.0)
        s.reload()
        assert counts(s) == before
        s.configure(rebalance=True)
        s.reload()
        until(lambda: max(counts(s)) - min(counts(s)) < LEAST_GAP, "the workers to be level")
        assert all(client.call(b"x") == b"x" for client in mine)


def test_who_can_give_nothing_is_left_alone(server):
    with server(workers=2, gives_nothing=True) as s, contextlib.ExitStack() as stack:
        mine = uneven(s, stack)
        s.wait_log("it gives up to")
        before = s.log.count("it gives up to")
        s.signal(signal.SIGTTIN)  # a third one has nobody to get anything from either
        s.wait_log("SIGTTIN: 3 workers instead of 2")
        until(lambda: len(counts(s)) == 3, "a third worker")
        assert all(client.call(b"x") == b"x" for client in mine)
        assert s.log.count("it gives up to") == before
