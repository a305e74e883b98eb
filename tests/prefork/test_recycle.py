"""Workers that are due: replaced one at a time, and nobody's connection breaks."""

import contextlib

import pytest

from tests.prefork.harness import Server, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


@pytest.fixture
def server(tmp_path):
    return lambda **conf: Server(tmp_path, **conf)


def test_by_requests_and_no_call_is_lost(server):
    with server(workers=2, max_requests=300) as s, contextlib.ExitStack() as stack:
        first = s.workers()
        clients = [stack.enter_context(s.connect()) for _ in range(8)]
        done = 0
        while s.workers() & first or s.log.count("is due") < 2:
            for client in clients:
                body = b"%d" % done
                assert client.call(body) == body
                done += 1
        assert done >= 300
        assert "requests; its replacement starts" in s.log
        most = max(s.log.count("is due") - s.log.count("exited with status 0"), 0)
        assert most <= 1, "one at a time"
    assert s.errors == []
    assert "SIGKILL" not in s.log


def test_the_last_slot_is_due_later(server):
    with server(workers=2, max_lifetime=2.0) as s, s.connect() as client:
        s.wait_log("worker 1 gen 1", times=3)
        until(lambda: s.log.count("is due") >= 2, "both to be due")
        due = [line for line in s.log.splitlines() if "is due" in line]
        assert "worker 0 gen 1" in due[0]
        assert "s old" in due[0]
        assert client.call(b"x") == b"x"
    assert s.errors == []


def test_by_memory(server):
    with server(workers=1, max_memory=100 << 20) as s, s.connect() as client:
        pid, _ = client.who()
        client.call(b"eat 120")
        until(lambda: client.who()[0] != pid, "the connection to go over")
        assert "MiB of memory" in s.log
    assert s.errors == []


def test_a_limit_of_memory_that_nobody_can_keep(server):
    with server(workers=1, max_memory=1 << 20) as s:
        before = s.workers()
        s.wait_log("nobody is replaced for it")
        assert s.workers() == before
