"""What generated clients stand on: deadlines, failover, restarts, threads, greenlets, forks."""

from __future__ import annotations

import os
import socket
import struct
import sys
import textwrap
import threading
from collections.abc import Callable
from typing import Any

import gevent
import gevent.event
import pytest

import weego
from codec.errors import (
    ApplicationError,
    ClosedError,
    DeadlineExceeded,
    EncodeError,
    Origin,
    ProtocolError,
    RpcError,
    Unavailable,
    UsageError,
)
from governance.chain import Handler
from governance.instance import Instance
from tests.support.echo_stub import Echo, EchoClient, Request, Response
from tests.support.net import Peer, answer_to, echo_forever, read_frame, served, wait_until, with_hub, without_hub
from tests.support.processes import Process, assert_clean
from weego import ClientPolicy, Policy
from weego.client import Client
from weego.server import Server

BOTH = pytest.mark.parametrize("decorate", [with_hub, without_hub])
Decorator = Callable[[Callable[[], None]], Callable[[], None]]


class EchoService(Echo):
    def echo(self, req: Request) -> Response:
        return Response(message=req.message)


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


# ---- mistakes of the user ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "options", "text"),
    [
        ("127.0.0.1", {}, "is not host:port; use tcp://host:port or unix:///path"),
        ("http://127.0.0.1:1", {}, "unknown scheme"),
        ("tcp://::1:80", {}, "write an IPv6 host in brackets"),
        ("unix://", {}, "names no path"),
        ("unix:///" + "x" * 200, {}, "longer than the 107 bytes"),
        ([], {}, "at least one address"),
        ("127.0.0.1:1", {"framing": "grpc"}, "unknown framing 'grpc'; choose one of buffered, framed, ttheader"),
        ("127.0.0.1:1", {"timeout": -1}, "0 or more, got -1"),
    ],
)
def test_wrong_arguments_are_said_clearly(target: Any, options: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        EchoClient(target, **options)


def test_a_client_that_was_not_generated() -> None:
    with pytest.raises(UsageError, match="use the one that `weego gen` wrote"):
        Client("tcp://127.0.0.1:1")


@BOTH
def test_a_closed_client(decorate: Decorator) -> None:
    @decorate
    def run() -> None:
        with Peer(echo_forever) as peer:
            with EchoClient(peer.address) as client:
                client.echo(Request())
            with pytest.raises(ClosedError, match="EchoClient is closed"):
                client.echo(Request())
            client.close()
            assert "closed" in repr(client)

    run()


@BOTH
def test_an_argument_that_does_not_fit_costs_no_connection(decorate: Decorator) -> None:
    @decorate
    def run() -> None:
        with Peer(echo_forever) as peer, EchoClient(peer.address, max_message=10_000) as client:
            client.echo(Request())
            with pytest.raises(EncodeError, match="message"):
                client.echo(Request(message=3))  # type: ignore[arg-type]
            with pytest.raises(EncodeError, match="more than the limit"):
                client.echo(Request(message="x" * 20_000))
            with pytest.raises(UsageError, match="0 or more, got -1"):
                client.echo(Request(), timeout=-1)
            assert client.echo(Request()).message == "0"
            assert peer.accepted == 1

    run()


# ---- reaching the peer ---------------------------------------------------------------------------------------------------


@BOTH
def test_who_cannot_be_reached_is_unavailable_and_nothing_was_sent(decorate: Decorator) -> None:
    @decorate
    def run() -> None:
        closed = socket.create_server(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{closed.getsockname()[1]}"
        closed.close()
        for target, text in (
            (address, "cannot connect to .*refused"),
            ("tcp://no.such.host.invalid:1", "cannot resolve 'no.such.host.invalid'"),
            ("unix:///no/such/socket", "no such file"),
        ):
            with EchoClient(target) as client, pytest.raises(Unavailable, match=text) as caught:
                client.echo(Request(), timeout=20)
            assert caught.value.sent is False
            assert caught.value.instance == target
            assert caught.value.attempt == 1
            assert caught.value.elapsed is not None
            assert caught.value.origin is Origin.NETWORK

    run()


@BOTH
def test_a_peer_that_never_accepts_is_given_up_at_the_limit_it_is(decorate: Decorator) -> None:
    @decorate
    def run() -> None:
        full = socket.socket()
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        name = full.getsockname()
        queued = []
        for _ in range(3):  # as many as the queue takes; further ones are not answered at all
            waiting = socket.socket()
            waiting.setblocking(False)
            waiting.connect_ex(name)
            queued.append(waiting)
        try:
            with EchoClient(f"tcp://127.0.0.1:{name[1]}", connect_timeout=0.1) as client:
                with pytest.raises(Unavailable, match="no answer in time") as caught:
                    client.echo(Request(), timeout=20)
                assert caught.value.sent is False
            with EchoClient(f"tcp://127.0.0.1:{name[1]}", connect_timeout=20) as client:
                with pytest.raises(DeadlineExceeded, match="the deadline has passed"):
                    client.echo(Request(), timeout=0.1)
            # And another instance has its turn.
            with Peer(echo_forever) as peer, EchoClient([f"tcp://127.0.0.1:{name[1]}", peer.address], connect_timeout=0.1) as client:
                assert client.echo(Request(), timeout=20).message == "0"
        finally:
            for each in (full, *queued):
                each.close()

    run()


@BOTH
def test_another_instance_is_tried_while_nothing_was_sent(decorate: Decorator) -> None:
    @decorate
    def run() -> None:
        closed = socket.create_server(("127.0.0.1", 0))
        dead = f"tcp://127.0.0.1:{closed.getsockname()[1]}"
        closed.close()
        with Peer(echo_forever) as peer, EchoClient(f"{dead}, {peer.address}") as client:
            for _ in range(10):
                assert client.echo(Request(), timeout=20).message == "0"

    run()


@BOTH
def test_every_address_of_a_name_is_tried(decorate: Decorator) -> None:
    @decorate
    def run() -> None:
        # "localhost" may be ::1 first, where nobody listens.
        with Peer(echo_forever) as peer, EchoClient(f"tcp://localhost:{peer.port}") as client:
            assert client.echo(Request(), timeout=20).message == "0"
        with Peer(echo_forever, host="::1") as peer, EchoClient(peer.address) as client:
            assert client.echo(Request(), timeout=20).message == "0"

    run()


@BOTH
def test_a_balancer_may_know_more_addresses_than_the_client(decorate: Decorator) -> None:
    @decorate
    def run() -> None:
        with Peer(echo_forever) as peer:

            class Fixed:
                def update(self, instances: Any) -> None:
                    assert [each.address for each in instances] == ["tcp://127.0.0.1:1"]

                def pick(self, call: Any, avoid: Any = ()) -> Instance:
                    return Instance(f"127.0.0.1:{peer.port}")

            with EchoClient("tcp://127.0.0.1:1", balancer=Fixed()) as client:
                assert client.echo(Request(), timeout=20).message == "0"

    run()


# ---- connections that end ------------------------------------------------------------------------------------------------


@BOTH
def test_a_restarted_peer_costs_no_error(decorate: Decorator) -> None:
    @decorate
    def run() -> None:
        first = Server([EchoService()], listen=["tcp://127.0.0.1:0"])
        address = first.addresses[0]
        with first, EchoClient(address) as client:
            for _ in range(3):
                client.echo(Request())
            for _ in range(5):
                first.stop()
                first = Server([EchoService()], listen=[address]).start()
                assert client.echo(Request(message="again"), timeout=20).message == "again"
            first.stop()

    run()


@with_hub
def test_a_pooled_connection_that_ends_is_removed_at_once() -> None:
    go = gevent.event.Event()

    def behave(connection: socket.socket, number: int) -> None:
        connection.sendall(answer_to(read_frame(connection), str(number)))
        closing.wait(20)

    closing = threading.Event()
    with Peer(behave) as peer, EchoClient(peer.address) as client:
        assert client.echo(Request()).message == "0"
        assert client.statistics()[0].idle == 1
        closing.set()
        wait_until(lambda: client.statistics()[0].idle == 0)
        assert client.statistics()[0].dead == 1
        go.set()
        assert client.echo(Request()).message == "1"


@BOTH
def test_a_peer_that_closes_after_each_answer_costs_no_error(decorate: Decorator) -> None:
    @decorate
    def run() -> None:
        ended = threading.Semaphore(0)

        def behave(connection: socket.socket, number: int) -> None:
            connection.sendall(answer_to(read_frame(connection), str(number)))
            if number % 2:
                reset(connection)
            connection.close()
            ended.release()

        with Peer(behave) as peer, EchoClient(peer.address) as client:
            for number in range(10):
                assert client.echo(Request(), timeout=20).message == str(number)
                # The end must be on this side before the next call, or it is lost for good, as it would be for anybody.
                assert ended.acquire(timeout=20)

    run()


@BOTH
def test_a_connection_that_breaks_during_the_call_is_not_tried_again(decorate: Decorator) -> None:
    @decorate
    def run() -> None:
        def behave(connection: socket.socket, number: int) -> None:
            frame = read_frame(connection)
            if number == 1:
                reset(connection)
            elif number == 2:
                connection.sendall(answer_to(frame, "x")[:-4])

        with Peer(behave) as peer, EchoClient(peer.address) as client:
            for number in range(3):
                with pytest.raises(Unavailable, match=r"closed by the peer|connection .*broke|reset") as caught:
                    client.echo(Request(), timeout=20)
                assert caught.value.sent is True
                assert peer.accepted == number + 1
            assert client.statistics()[0].idle == 0

    run()


@BOTH
def test_an_answer_in_front_of_a_reset_is_still_read(decorate: Decorator) -> None:
    """A server that refuses a long call answers before it has read all of it, and closes: that resets the connection."""

    @decorate
    def run() -> None:
        def behave(connection: socket.socket, number: int) -> None:
            frame = read_frame(connection)
            connection.sendall(answer_to(frame, "refused"))
            unread.wait(20)

        unread = threading.Event()
        with Peer(behave) as peer, EchoClient(peer.address) as client:
            assert client.echo(Request(message="y" * 1000), timeout=20).message == "refused"
            unread.set()

    run()


@BOTH
def test_answers_that_break_the_rules(decorate: Decorator) -> None:
    @decorate
    def run() -> None:
        def behave(connection: socket.socket, number: int) -> None:
            frame = read_frame(connection)
            good = answer_to(frame, "good")
            bad = {
                0: b"HTTP/1.1 400 Bad Request\r\n\r\n",
                1: good[:12] + b"ECHO" + good[16:],  # another method
                2: good[:16] + b"\x7f\x00\x00\x01" + good[20:],  # another sequence id
                3: good + good,  # one too many
                4: struct.pack("!I", 0x7FFFFFFF) + good[4:],
            }
            connection.sendall(bad.get(number, good))
            read_frame(connection)

        with Peer(behave) as peer, EchoClient(peer.address) as client:
            for number in (0, 1, 2, 3, 4):
                try:
                    client.echo(Request(), timeout=20)
                except (ProtocolError, ApplicationError) as error:
                    assert error.instance == peer.address
                else:
                    assert number == 3
                if number == 1:  # the connection was in step: have the next call on a fresh one all the same
                    for transport in client._transports.values():
                        while (kept := transport._take(peer.address)) is not None:  # type: ignore[attr-defined]
                            kept.close()
            wait_until(lambda: True)

    run()


@BOTH
def test_two_answers_do_not_poison_the_next_call(decorate: Decorator) -> None:
    @decorate
    def run() -> None:
        def behave(connection: socket.socket, number: int) -> None:
            while frame := read_frame(connection):
                connection.sendall(answer_to(frame, str(number)) * (2 if number == 0 else 1))

        with Peer(behave) as peer, EchoClient(peer.address) as client:
            seen = []
            for _ in range(5):
                try:
                    seen.append(client.echo(Request(), timeout=20).message)
                except RpcError as error:
                    assert isinstance(error, (ProtocolError, Unavailable))
            assert "1" in seen
            assert seen.count("0") <= 1

    run()


# ---- time ----------------------------------------------------------------------------------------------------------------


@BOTH
def test_a_deadline_that_passes_ends_the_call_and_the_connection(decorate: Decorator) -> None:
    @decorate
    def run() -> None:
        def behave(connection: socket.socket, number: int) -> None:
            frame = read_frame(connection)
            if number:
                connection.sendall(answer_to(frame, str(number)))
            read_frame(connection)

        with Peer(behave) as peer, EchoClient(peer.address, timeout=0.05) as client:
            with pytest.raises(DeadlineExceeded) as caught:
                client.echo(Request())
            assert caught.value.origin is Origin.LOCAL
            assert caught.value.instance == peer.address
            assert client.statistics()[0].idle == 0
            assert client.echo(Request(), timeout=20).message == "1"
            with pytest.raises(DeadlineExceeded):
                client.echo(Request(), timeout=0)

    run()


@without_hub
def test_an_error_says_whose_time_was_over() -> None:
    """Kitex has an option for it; there one cannot tell otherwise who set the deadline that has passed."""
    said: list[str] = []

    class Caller(Echo):
        @weego.thread
        def echo(self, req: Request) -> Response:
            for seconds in (None, 20, 0.01):
                with pytest.raises(DeadlineExceeded) as caught:
                    client.echo(Request(), timeout=seconds)
                said.insert(0, str(caught.value))
            return Response()

    def silent(connection: socket.socket, number: int) -> None:
        read_frame(connection)
        read_frame(connection)

    inherited = "the deadline of Echo.echo, which is being served, has passed"
    with Peer(silent) as peer, EchoClient(peer.address) as client:
        with pytest.raises(DeadlineExceeded, match=r"in time; the call's timeout of 0.05 s \["):
            client.echo(Request(), timeout=0.05)
        limited = ClientPolicy(Policy(timeout=20, attempt_timeout=0.05))
        with EchoClient(peer.address, policy=limited) as third:
            with pytest.raises(DeadlineExceeded, match=r"in time; the attempt_timeout of 0.05 s \["):
                third.echo(Request())
            with pytest.raises(DeadlineExceeded, match=r"in time; the call's timeout of 0.02 s \["):
                third.echo(Request(), timeout=0.02)
        with served(Caller()) as server, EchoClient(server.addresses, framing="ttheader") as outer, pytest.raises(DeadlineExceeded):
            outer.echo(Request(), timeout=0.2)
        wait_until(lambda: len(said) == 3)
        assert ["before the call was sent" in each for each in said] == [True, True, False]
        assert [inherited in each for each in said] == [True] * 3


# ---- who may call --------------------------------------------------------------------------------------------------------


@without_hub
def test_twenty_threads_share_a_client() -> None:
    with served(EchoService()) as server, EchoClient(server.addresses[0], max_idle=20) as client:
        failures: list[BaseException] = []

        def calls(name: int) -> None:
            try:
                for number in range(100):
                    text = f"{name}.{number}"
                    assert client.echo(Request(message=text), timeout=20).message == text
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=calls, args=(name,)) for name in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        assert len(client.statistics()) == 1
        assert server.serving.dispatcher.requests == 2000


@with_hub
def test_fifty_greenlets_share_a_client() -> None:
    with served(EchoService()) as server, EchoClient(server.addresses[0], max_idle=50) as client:

        def calls(name: int) -> None:
            for number in range(50):
                text = f"{name}.{number}"
                assert client.echo(Request(message=text), timeout=20).message == text

        gevent.joinall([gevent.spawn(calls, name) for name in range(50)], raise_error=True)
        statistics = client.statistics()[0]
        assert statistics.idle == 50
        assert statistics.reused == 2450


@with_hub
def test_a_greenlet_that_is_killed_gives_up_its_call_only() -> None:
    def behave(connection: socket.socket, number: int) -> None:
        while frame := read_frame(connection):
            if number:
                connection.sendall(answer_to(frame, str(number)))

    with Peer(behave) as peer, EchoClient(peer.address) as client:
        stuck = gevent.spawn(client.echo, Request())
        wait_until(lambda: peer.accepted == 1)
        stuck.kill()
        with pytest.raises(gevent.Timeout), gevent.Timeout(0.05):
            connected = peer.accepted
            assert connected == 1
            gevent.sleep(1)
        assert client.echo(Request(), timeout=20).message == "1"
        assert client.statistics()[0].idle == 1


@BOTH
def test_close_lets_the_calls_under_way_finish(decorate: Decorator) -> None:
    @decorate
    def run() -> None:
        from gevent._hub_local import get_hub_if_exists

        asked, answer = threading.Event(), threading.Event()

        def behave(connection: socket.socket, number: int) -> None:
            frame = read_frame(connection)
            asked.set()
            answer.wait(20)
            connection.sendall(answer_to(frame, "late"))
            assert not connection.recv(1)  # and closed afterwards

        found: list[Any] = []

        def call() -> None:
            try:
                found.append(client.echo(Request()).message)
            except BaseException as error:
                found.append(error)

        with Peer(behave) as peer:
            client = EchoClient(peer.address)
            if get_hub_if_exists() is not None:
                task: Any = gevent.spawn(call)
            else:
                task = threading.Thread(target=call)
                task.start()
            wait_until(asked.is_set)
            client.close()
            answer.set()
            task.join()
            assert found == ["late"]

    run()


@BOTH
def test_middleware_wraps_the_call(decorate: Decorator) -> None:
    @decorate
    def run() -> None:
        seen: list[str] = []

        def named(name: str) -> Callable[[Handler], Handler]:
            def wrap(handler: Handler) -> Handler:
                def handle(call: Any, args: tuple[Any, ...]) -> Any:
                    seen.append(f"+{name} {call.method}")
                    if args[0].action == name:
                        return Response(message=f"from {name}")
                    result = handler(call, args)
                    seen.append(f"-{name}")
                    return result

                return handle

            return wrap

        with Peer(echo_forever) as peer, EchoClient(peer.address, middleware=[named("a"), named("b")]) as client:
            client.echo(Request())
            assert seen == ["+a echo", "+b echo", "-b", "-a"]
            assert client.echo(Request(action="a")).message == "from a"
            assert peer.accepted == 1
            with pytest.raises(TypeError, match="which is no Handler"):
                EchoClient(peer.address, middleware=[lambda handler: None])  # type: ignore[arg-type, return-value]

    run()


@BOTH
def test_oneway_does_not_wait(decorate: Decorator) -> None:
    @decorate
    def run() -> None:
        seen: list[bytes] = []

        def behave(connection: socket.socket, number: int) -> None:
            while frame := read_frame(connection):
                seen.append(frame)

        with Peer(behave) as peer, EchoClient(peer.address) as client:
            for _ in range(3):
                client.note(Request(message="n"))
            wait_until(lambda: len(seen) == 3)
            assert client.statistics()[0].reused == 2

    run()


# ---- processes -----------------------------------------------------------------------------------------------------------


def python(code: str) -> Process:
    return Process([sys.executable, "-u", "-W", "error", "-c", textwrap.dedent(code)])


@pytest.mark.parametrize("with_gevent", [False, True])
def test_a_client_made_before_a_fork_works_on_both_sides(no_leaks: None, with_gevent: bool) -> None:
    code = f"""
        import os
        if {with_gevent}:
            from gevent import monkey
            monkey.patch_all()
            import gevent
            gevent.sleep(0)
        from tests.support.echo_stub import *
        client = EchoClient(os.environ["TARGET"])
        assert client.echo(Request()).message == "0"
        sockets = lambda: [1 for fd in os.listdir("/proc/self/fd") if os.path.exists(p := f"/proc/self/fd/{{fd}}") and "socket:" in os.readlink(p)]
        mine = len(sockets())
        child = os.fork()
        if child == 0:
            assert len(sockets()) == mine - 1, "the child has the parent's connection"
            assert client.echo(Request()).message == "1"
            client.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert client.echo(Request()).message == "0"
        client.close()
        print("done")
    """
    with Peer(echo_forever) as peer:
        os.environ["TARGET"] = peer.address
        try:
            with python(code) as process:
                assert process.wait() == 0, process.output
        finally:
            del os.environ["TARGET"]
    assert process.lines == ["done"]


def test_a_plain_program_never_meets_gevent(no_leaks: None) -> None:
    code = """
        import sys, os
        from tests.support.echo_stub import *
        with EchoClient(os.environ["TARGET"]) as client:
            print(client.echo(Request()).message, "gevent" in sys.modules)
    """
    with Peer(echo_forever) as peer:
        os.environ["TARGET"] = peer.address
        try:
            with python(code) as process:
                assert process.wait() == 0, process.output
        finally:
            del os.environ["TARGET"]
    assert process.lines == ["0 False"]
    assert_clean(process.output)


def test_a_patched_program_cooperates(no_leaks: None) -> None:
    code = """
        from gevent import monkey
        monkey.patch_all()
        import os, threading
        from tests.support.echo_stub import *
        with EchoClient(os.environ["TARGET"], max_idle=20) as client:
            found = []
            threads = [threading.Thread(target=lambda: found.append(client.echo(Request()).message)) for _ in range(20)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            print(len(found), len(client.statistics()))
    """

    together = threading.Barrier(20)

    def behave(connection: socket.socket, number: int) -> None:
        frame = read_frame(connection)
        together.wait(20)  # all twenty calls are under way at once
        connection.sendall(answer_to(frame, "x"))
        read_frame(connection)

    with Peer(behave) as peer:
        os.environ["TARGET"] = peer.address
        try:
            with python(code) as process:
                assert process.wait() == 0, process.output
        finally:
            del os.environ["TARGET"]
    assert process.lines == ["20 1"]


@pytest.mark.parametrize("timeout", [-1, float("nan"), "1", True, [1]])
def test_a_timeout_that_is_no_number_of_seconds(timeout: Any) -> None:
    with EchoClient("tcp://127.0.0.1:1") as client, pytest.raises(UsageError, match="timeout must be a number of seconds"):
        client.echo(Request(), timeout=timeout)
    with pytest.raises(UsageError, match="timeout must be a number of seconds"):
        EchoClient("tcp://127.0.0.1:1", timeout=timeout)


@BOTH
def test_an_endless_timeout_is_none(decorate: Decorator) -> None:
    def body() -> None:
        with served(EchoService()) as server, EchoClient(server.addresses[0], timeout=float("inf")) as client:
            assert client.echo(Request(message="a")).message == "a"
            assert client.echo(Request(message="b"), timeout=1e300).message == "b"

    decorate(body)()
