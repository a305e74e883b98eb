"""A worker that is ready has answered a call."""

from __future__ import annotations

import socket
from pathlib import Path

import gevent
import pytest

from prefork.application import LoadError
from tests.support.echo_stub import Echo
from tests.support.net import with_hub
from tests.support.service import PROBE_CODE, App
from weego.selfcall import call_self
from weego.serving import Serving


@with_hub
def test_who_serves_answers_and_nothing_is_counted() -> None:
    serving = Serving([Echo()])
    call_self(serving, 20)
    gevent.sleep(0.01)
    assert serving.connections == 0
    assert (serving.dispatcher.requests, serving.dispatcher.errors, serving.accepted) == (0, 0, 0)
    serving.close()


@with_hub
def test_who_does_not_answer_says_so() -> None:
    kept: list[socket.socket] = []
    serving = Serving([Echo()])
    serving.take = lambda fd, data=b"", **_: kept.append(socket.socket(fileno=fd))  # type: ignore[method-assign,assignment]
    with pytest.raises(LoadError, match=r"does not answer a call to itself .TimeoutError: no answer within 0.1 s"):
        call_self(serving, 0.1)
    kept[0].close()
    serving.close()


@with_hub
def test_who_hangs_up_says_so() -> None:
    serving = Serving([Echo()])
    serving.take = lambda fd, data=b"", **_: socket.socket(fileno=fd).close()  # type: ignore[method-assign,assignment]
    with pytest.raises(LoadError, match="does not answer a call to itself"):
        call_self(serving, 20)
    serving.close()


@with_hub
def test_a_protocol_of_the_users_that_takes_such_bytes_is_not_asked() -> None:
    serving = Serving([Echo()])
    serving.is_taken_by_others = lambda head: head[4:6] == b"\x10\0"  # type: ignore[method-assign,assignment]
    serving.take = lambda *_, **__: pytest.fail("asked")  # type: ignore[method-assign,assignment]
    call_self(serving, 20)
    serving.close()


@pytest.mark.e2e
@pytest.mark.timeout(120)
def test_a_reload_to_code_that_answers_nobody_fails_and_changes_nothing(tmp_path: Path, no_leaks: None) -> None:
    app = App(tmp_path / "app")
    with app.serve(workers=2, server='boot_timeout = "20s"', allow=["reload failed", "does not answer a call to itself"]) as server:
        before = server.workers()
        # A library that turns the loop's sockets off, such as one for tests that must not reach the network.
        deaf = "from weego.serving import Serving\nServing.take = lambda self, fd, data=b'', **_: __import__('os').close(fd)\n"
        app.write_code(deaf + PROBE_CODE.format(version=2))
        assert "does not answer a call to itself" in server.reload_fails()
        assert server.workers() == before
        app.write_version(3)
        server.reload_ok()
