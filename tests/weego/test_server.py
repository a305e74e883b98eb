"""A server inside a program: starting, stopping, hostile peers, forks."""

from __future__ import annotations

import os
import signal
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from typing import Any

import gevent
import gevent.event
import pytest

from codec.errors import ApplicationError, ClosedError, RpcError, UsageError
from governance.chain import Handler
from tests.support.echo_stub import Echo, EchoClient, NotFound, Other, OtherClient, Request, Response
from tests.support.net import Wire, encode, records, served, wait_until, with_hub, without_hub
from tests.support.processes import Process, assert_clean
from weego.routes import ServiceError
from weego.server import Server


class EchoService(Echo):
    """Echoes; "hold" waits for `release`, "big" answers with as many bytes as the message says."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.release = gevent.event.Event()

    def echo(self, req: Request) -> Response:
        if req.action == "hold":
            self.entered.release()
            self.release.wait()
        if req.action == "big":
            return Response(message="x" * int(req.message))
        return Response(message=req.message)

    def entered_within(self, seconds: float = 20) -> bool:
        return self.entered.acquire(timeout=seconds)


class OtherService(Other):
    def echo(self, req: Request) -> Response:
        return Response(message="other " + req.message)


def let_go(server: Server, service: EchoService) -> None:
    assert server.serving is not None
    server.serving.hub.loop.run_callback_threadsafe(service.release.set)


# ---- starting and stopping -----------------------------------------------------------------------------------------------


@without_hub
def test_it_serves_in_the_background_of_a_plain_program() -> None:
    with served(EchoService()) as server, EchoClient(server.addresses[0]) as client:
        assert client.echo(Request(message="hi")).message == "hi"
        assert "serving" in repr(server)
    assert "stopped" in repr(server)
    server.stop()
    with pytest.raises(ClosedError, match="make a new one"):
        server.start()


@with_hub
def test_it_serves_on_the_hub_of_a_gevent_program() -> None:
    threads = threading.active_count()
    with served(EchoService()) as server, EchoClient(server.addresses[0]) as client:
        assert client.echo(Request(message="hi")).message == "hi"
        assert threading.active_count() == threads


@with_hub
def test_serve_forever_ends_at_stop() -> None:
    server = Server([EchoService()], listen=["tcp://127.0.0.1:0"])
    serving = gevent.spawn(server.serve_forever)
    with EchoClient(server.addresses[0]) as client:
        assert client.echo(Request(message="hi")).message == "hi"
    server.stop()
    serving.get(timeout=20)


@with_hub
def test_stop_from_another_thread() -> None:
    server = Server([EchoService()], listen=["tcp://127.0.0.1:0"])
    thread = threading.Thread(target=server.stop)
    gevent.spawn_later(0, thread.start)
    server.serve_forever()
    thread.join(20)
    assert not thread.is_alive()


@pytest.mark.parametrize("decorate", [with_hub, without_hub])
def test_stop_from_a_handler(decorate: Callable[[Callable[[], None]], Callable[[], None]]) -> None:
    @decorate
    def stops() -> None:
        class Stopper(Echo):
            def echo(self, req: Request) -> Response:
                server.stop(grace=20)
                return Response(message="stopped")

        server = Server([Stopper()], listen=["tcp://127.0.0.1:0"]).start()
        with EchoClient(server.addresses[0]) as client:
            assert client.echo(Request(), timeout=20).message == "stopped"
            serving = server.serving
            assert serving is not None
            wait_until(lambda: serving.connections == 0)
        thread = server._thread
        if thread is not None:
            thread.join(20)
        else:
            assert server._stopped is not None
            server._stopped.wait(20)

    stops()


@without_hub
def test_stop_finishes_the_calls_under_way() -> None:
    service = EchoService()
    server = Server([service], listen=["tcp://127.0.0.1:0"]).start()
    with Wire(server.addresses[0], framing="ttheader") as wire:
        wire.send(Request(action="hold", message="late"))
        assert service.entered_within()
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        serving = server.serving
        assert serving is not None
        wait_until(lambda: serving.dispatcher.draining)
        let_go(server, service)
        reply = wire.reply()
        assert reply.value.message == "late"
        assert reply.header.strings["crrst"] == "1"  # and do not send another
        assert wire.at_end()
        stopping.join(20)
        assert not stopping.is_alive()


@without_hub
def test_stop_cuts_off_what_does_not_end_in_time() -> None:
    service = EchoService()
    server = Server([service], listen=["tcp://127.0.0.1:0"]).start()
    with Wire(server.addresses[0]) as wire:
        wire.send(Request(action="hold"))
        assert service.entered_within()
        server.stop(grace=0.05)
        wire.at_end()


@without_hub
def test_a_connection_waiting_in_the_queue_is_served_at_stop() -> None:
    server = Server([EchoService()], listen=["tcp://127.0.0.1:0"]).start()
    serving = server.serving
    assert serving is not None
    blocked, go = threading.Event(), threading.Event()

    def block() -> None:
        blocked.set()
        go.wait(20)

    serving.hub.loop.run_callback_threadsafe(block)  # the hub looks at nothing meanwhile
    assert blocked.wait(20)
    with Wire(server.addresses[0]) as wire:
        wire.send(Request(message="queued"))
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        go.set()
        assert wire.reply().value.message == "queued"
        assert wire.at_end()
        stopping.join(20)


@without_hub
def test_two_servers_in_one_process() -> None:
    with served(EchoService()) as one, served(OtherService()) as two:
        with EchoClient(one.addresses[0]) as first, OtherClient(two.addresses[0]) as second:
            assert first.echo(Request(message="x")).message == "x"
            assert second.echo(Request(message="x")).message == "other x"


@with_hub
def test_two_servers_on_one_hub_end_separately() -> None:
    with served(EchoService()) as one:
        with served(OtherService(), idle_timeout=0.4) as two, OtherClient(two.addresses[0]) as second:
            assert second.echo(Request(message="x")).message == "other x"
            assert one.serving.loop is two.serving.loop
            assert one.serving.loop.sweep_interval == pytest.approx(0.1)
        with EchoClient(one.addresses[0]) as first:
            assert first.echo(Request(message="x")).message == "x"


@without_hub
def test_unix_and_ipv6() -> None:
    path = f"/tmp/weego-test-{os.getpid()}.sock"
    with served(EchoService(), listen=[f"unix://{path}", "tcp://[::1]:0"]) as server:
        for address in server.addresses:
            with EchoClient(address) as client:
                assert client.echo(Request(message=address)).message == address
    assert not os.path.exists(path)


# ---- mistakes of the user ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("services", "listen", "text"),
    [
        ([], "tcp://127.0.0.1:0", "no service to serve"),
        ([EchoService], "tcp://127.0.0.1:0", r"is a class; give an object of it: EchoService\(\)"),
        ([object()], "tcp://127.0.0.1:0", "does not implement a generated service base"),
        ([EchoService(), EchoService()], "tcp://127.0.0.1:0", "two services are called Echo"),
        ([EchoService()], "127.0.0.1", "use tcp://host:port or unix:///path"),
        ([EchoService()], "udp://127.0.0.1:1", "unknown kind of address"),
        ([EchoService()], "tcp://no.such.host.invalid:1", "unknown host"),
        ([EchoService()], "tcp://203.0.113.1:1", "no such address"),
    ],
)
@without_hub
def test_what_cannot_be_served_is_said_clearly(services: list[Any], listen: str, text: str) -> None:
    with pytest.raises(UsageError, match=text), Server(services, listen=[listen]):
        pytest.fail("it served")


@without_hub
def test_a_port_in_use() -> None:
    with served(EchoService()) as server:
        with pytest.raises(UsageError, match=r"cannot listen on .*another process listens there"):
            Server([EchoService()], listen=server.addresses)
        with pytest.raises(UsageError, match="started already"):
            server.start()


@without_hub
def test_a_coroutine_is_refused_at_the_start() -> None:
    class Asynchronous(Echo):
        async def echo(self, req: Request) -> Response:  # type: ignore[override]
            return Response()

    with pytest.raises(ServiceError, match=r"Asynchronous.echo is a coroutine .* write a plain `def`"):
        Server([Asynchronous()], listen=["tcp://127.0.0.1:0"]).start()


# ---- peers that misbehave ------------------------------------------------------------------------------------------------


@without_hub
def test_pipelined_calls_are_answered_in_order_however_they_are_cut() -> None:
    with served(EchoService()) as server, Wire(server.addresses[0]) as wire:
        data = b"".join(wire.write(Request(message=f"m{seqid}" * seqid), seqid) for seqid in range(1, 30))
        for start in range(0, len(data), 7):
            wire.sock.sendall(data[start : start + 7])
        for seqid in range(1, 30):
            assert wire.reply().value.message == f"m{seqid}" * seqid


@without_hub
def test_pipelined_calls_go_on_after_one_that_blocked() -> None:
    service = EchoService()
    with served(service) as server, Wire(server.addresses[0]) as wire:
        wire.sock.sendall(
            wire.write(Request(action="hold", message="a"), 1)
            + b"".join(wire.write(Request(message=str(n)), n) for n in range(2, 5000))
        )
        assert service.entered_within()
        with EchoClient(server.addresses[0]) as client:  # meanwhile the others are served
            assert client.echo(Request(message="meanwhile")).message == "meanwhile"
        let_go(server, service)
        for seqid in range(1, 5000):
            assert wire.reply().seqid == seqid


@without_hub
def test_a_message_that_fills_the_read_exactly_does_not_hide_the_next() -> None:
    """Edge triggering announces once: what a full read left behind must be fetched even when the handler blocked in between."""
    service = EchoService()
    with served(service) as server, Wire(server.addresses[0]) as wire:
        empty = len(encode(Request(action="hold")))
        first = wire.write(Request(action="hold", message="x" * (65536 - empty)), 1)
        assert len(first) == 65536
        blocked, go = threading.Event(), threading.Event()

        def block() -> None:
            blocked.set()
            go.wait(20)

        server.serving.hub.loop.run_callback_threadsafe(block)
        assert blocked.wait(20)
        wire.sock.sendall(first + wire.write(Request(message="second"), 2))
        time.sleep(0.05)  # until all of it is in the kernel over there: there is no event for that
        go.set()
        assert service.entered_within()
        let_go(server, service)
        assert wire.reply().seqid == 1
        assert wire.reply().value.message == "second"


@without_hub
def test_ten_thousand_calls_of_a_peer_that_does_not_read_are_held_back_and_not_lost() -> None:
    number, size = 10_000, 1000
    with served(EchoService(), write_timeout=0) as server, Wire(server.addresses[0], receive_buffer=4096) as wire:
        data = b"".join(wire.write(Request(message=f"{n}".zfill(size)), n) for n in range(1, number + 1))
        sender = threading.Thread(target=wire.sock.sendall, args=(data,), daemon=True)
        sender.start()
        dispatcher = server.serving.dispatcher
        counts: list[int] = []

        def at_rest() -> bool:
            counts.append(dispatcher.requests)
            time.sleep(0.02)
            return len(counts) > 10 and counts[-1] == counts[-10] > 0

        wait_until(at_rest)
        (connection,) = dispatcher.connections
        # What was answered and has not left is bounded, however long the peer does not read.
        answered = counts[-1] * (size + 40)
        assert answered - connection.bytes_out < 2 * 2**20
        assert counts[-1] < number
        for seqid in range(1, number + 1):
            reply = wire.reply()
            assert reply.seqid == seqid
            assert reply.value.message == f"{seqid}".zfill(size)
        sender.join(20)
        assert dispatcher.requests == number


@without_hub
def test_half_close_is_answered_and_then_closed() -> None:
    service = EchoService()
    with served(service) as server:
        with Wire(server.addresses[0]) as wire:  # data and FIN, most likely in one event
            wire.send(Request(message="a"))
            wire.finish()
            assert wire.reply().value.message == "a"
            assert wire.at_end()
        with Wire(server.addresses[0]) as wire:  # FIN while the handler runs, and more calls in front of it
            wire.send(Request(action="hold", message="b"), 1)
            wire.send(Request(message="c"), 2)
            wire.finish()
            assert service.entered_within()
            let_go(server, service)
            assert wire.reply().value.message == "b"
            assert wire.reply().value.message == "c"
            assert wire.at_end()
        with Wire(server.addresses[0]) as wire:  # in the middle of a message
            wire.sock.sendall(encode(Request(message="d"))[:-3])
            wire.finish()
            assert wire.at_end()
        wait_until(lambda: server.serving.connections == 0)


@without_hub
def test_a_reset_in_every_phase_leaves_nothing() -> None:
    service = EchoService()
    with records() as log, served(service) as server:
        Wire(server.addresses[0]).reset()  # before anything

        wire = Wire(server.addresses[0])  # in the middle of a message
        wire.sock.sendall(encode(Request(message="x" * 100))[:50])
        wait_until(lambda: any(c.bytes_in for c in server.serving.dispatcher.connections))
        wire.reset()

        wire = Wire(server.addresses[0])  # while the handler runs
        wire.send(Request(action="hold"))
        assert service.entered_within()
        wire.reset()
        wait_until(lambda: server.serving.connections == 0)
        assert server.serving.dispatcher.inflight == 1
        let_go(server, service)
        wait_until(lambda: server.serving.dispatcher.inflight == 0)

        wire = Wire(server.addresses[0], receive_buffer=4096)  # while the answer is on its way
        wire.send(Request(action="big", message=str(8 * 2**20)))
        wait_until(lambda: any(c.bytes_out for c in server.serving.dispatcher.connections))
        wire.reset()
        wait_until(lambda: server.serving.connections == 0)

        with EchoClient(server.addresses[0]) as client:
            assert client.echo(Request(message="alive")).message == "alive"
    assert not [record.getMessage() for record in log if record.levelname in {"WARNING", "ERROR"}]


@without_hub
def test_a_slow_reader_gets_all_of_it() -> None:
    with served(EchoService()) as server, Wire(server.addresses[0], receive_buffer=4096) as wire:
        wire.send(Request(action="big", message=str(3 * 2**20)))
        data = bytearray()
        while (count := data.count(b"x")) < 3 * 2**20:
            more = wire.sock.recv(50_000)
            assert more, f"the connection ended after {count} bytes"
            data += more
        assert count == 3 * 2**20


@pytest.mark.parametrize("phase", ["idle", "frame", "write"])
@without_hub
def test_limits_in_time_close_the_connection(phase: str) -> None:
    limits = {"idle_timeout": 0.0, "frame_timeout": 0.0, "write_timeout": 0.0, f"{phase}_timeout": 0.2}
    with served(EchoService(), **limits) as server:
        wire = Wire(server.addresses[0], receive_buffer=4096)
        kept = Wire(server.addresses[0]) if phase != "idle" else None
        if phase == "frame":
            data = encode(Request(message="x" * 1000))
            wire.sock.sendall(data[:10])  # one byte now and then would not help: the limit counts from the first
        elif phase == "write":
            wire.send(Request(action="big", message=str(16 * 2**20 - 1000)))
        wait_until(lambda: server.serving.connections == (1 if kept else 0))
        if kept:
            kept.send(Request(message="untouched"))
            assert kept.reply().value.message == "untouched"
            kept.close()
        wire.close()


@without_hub
def test_garbage_and_what_is_too_long_close_only_their_own_connection() -> None:
    with records() as log, served(EchoService(), max_message=1000) as server, EchoClient(server.addresses[0]) as good:
        good.echo(Request())
        for data in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 64, encode(Request(message="x" * 2000)), b"\x00\x00\x00\x00" * 4):
            with Wire(server.addresses[0]) as wire:
                wire.sock.sendall(data)
                wire.finish()
                while True:
                    try:
                        if not wire.sock.recv(4096):
                            break
                    except ConnectionResetError:
                        break
        assert good.echo(Request(message="alive")).message == "alive"
        assert good.statistics()[0].reused == 1
    assert not [record.getMessage() for record in log if record.levelname in {"WARNING", "ERROR"}]


@without_hub
def test_connections_that_do_not_fit_wait_in_the_queue() -> None:
    with served(EchoService(), max_connections=1) as server:
        first = Wire(server.addresses[0])
        first.send(Request(message="first"))
        assert first.reply().value.message == "first"
        second = Wire(server.addresses[0])
        second.send(Request(message="second"))
        first.close()
        assert second.reply().value.message == "second"
        second.close()
        assert server.serving.accepted == 2


# ---- what surrounds a call -----------------------------------------------------------------------------------------------


@without_hub
def test_middleware_wraps_in_order_and_may_answer_itself() -> None:
    seen: list[str] = []

    def named(name: str) -> Callable[[Handler], Handler]:
        def wrap(handler: Handler) -> Handler:
            def handle(call: Any, args: tuple[Any, ...]) -> Any:
                seen.append(f"+{name} {call.service}.{call.method}")
                if args[0].action == name:
                    return Response(message=f"from {name}")
                try:
                    return handler(call, args)
                finally:
                    seen.append(f"-{name}")

            return handle

        return wrap

    with served(EchoService(), middleware=[named("a"), named("b")]) as server, EchoClient(server.addresses[0]) as client:
        assert client.echo(Request(message="m")).message == "m"
        assert seen == ["+a Echo.echo", "+b Echo.echo", "-b", "-a"]
        seen.clear()
        assert client.echo(Request(action="b")).message == "from b"
        assert seen == ["+a Echo.echo", "+b Echo.echo", "-a"]
        assert client.echo(Request(action="a")).message == "from a"


@without_hub
def test_each_call_is_a_line_of_the_access_log() -> None:
    with records("weego.access") as lines, records():
        with served(EchoService(), access_log=True) as server:
            with EchoClient(server.addresses[0], framing="ttheader", caller="tests") as client:
                client.echo(Request(message="m"))
                with pytest.raises(RpcError):
                    client.boom(Request())
                with pytest.raises(RpcError):
                    client.get_item(Request())
    assert len(lines) == 3
    text = [line.getMessage() for line in lines]
    assert "echo" in text[0] and "OK" in text[0]
    assert "boom" in text[1] and "UNIMPLEMENTED" in text[1]
    assert "getItem" in text[2] and "UNIMPLEMENTED" in text[2]


@without_hub
def test_a_declared_exception_is_logged_and_is_no_error_of_the_server() -> None:
    class Service(EchoService):
        def boom(self, req: Request) -> Response:
            raise NotFound(what="it") if req.message == "declared" else ValueError("a mistake")

    with records("weego.access") as lines, records():
        with served(Service(), access_log=True) as server, EchoClient(server.addresses[0]) as client:
            for message in ("declared", "other"):
                with pytest.raises((NotFound, RpcError)):
                    client.boom(Request(message=message))
            assert server.serving.dispatcher.errors == 1
    entries: list[Any] = [vars(line)["access"] for line in lines]
    assert entries[0].error.startswith("NotFound")
    assert entries[1].error == "ValueError: a mistake"


# ---- forks and signals ---------------------------------------------------------------------------------------------------


def python(code: str) -> Process:
    return Process([sys.executable, "-u", "-W", "error", "-c", textwrap.dedent(code)])


@pytest.mark.parametrize("with_gevent", [False, True])
def test_a_forked_child_serves_nobody_and_disturbs_nobody(no_leaks: None, with_gevent: bool) -> None:
    code = f"""
        import os, sys
        from tests.support.echo_stub import *
        from weego.server import Server
        if {with_gevent}:
            import gevent.monkey
            gevent.monkey.patch_all()
            gevent.get_hub()
        class Service(Echo):
            def echo(self, req): return Response(message=str(os.getpid()))
        server = Server([Service()], listen=["tcp://127.0.0.1:0"]).start()
        client = EchoClient(server.addresses[0])
        assert client.echo(Request()).message == str(os.getpid())
        before = [os.readlink(f"/proc/self/fd/{{fd}}") for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{{fd}}")]
        parent = os.getpid()
        child = os.fork()
        if child == 0:
            # Neither the listening socket nor a connection is left in the child, and its own calls reach the parent.
            left = [os.readlink(f"/proc/self/fd/{{fd}}") for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{{fd}}")]
            assert not [each for each in left if each.startswith("socket:")], left
            for _ in range(50):
                assert client.echo(Request(), timeout=20).message == str(parent)
            client.close()
            server.stop()
            os._exit(0)
        assert client.echo(Request()).message == str(parent)
        _, status = os.waitpid(child, 0)
        print("child", status)
        for _ in range(50):
            assert client.echo(Request()).message == str(parent)
        print("reused", client.statistics()[0].reused)
        client.close()
        server.stop()
    """
    with python(code) as process:
        assert process.wait() == 0, process.output
    assert "child 0" in process.lines
    assert "reused 51" in process.lines
    assert_clean(process.output)


def test_a_program_that_patched_first_can_serve(no_leaks: None) -> None:
    code = """
        from gevent import monkey
        monkey.patch_all()
        from tests.support.echo_stub import *
        from weego.server import Server
        class Service(Echo):
            def echo(self, req): return Response(message="served")
        with Server([Service()], listen=["tcp://127.0.0.1:0"]) as server, EchoClient(server.addresses[0]) as client:
            print(client.echo(Request()).message)
    """
    with python(code) as process:
        assert process.wait() == 0, process.output
    assert process.lines == ["served"]


@pytest.mark.parametrize("handling", [False, True])
def test_control_c_ends_serve_forever(no_leaks: None, handling: bool) -> None:
    code = """
        import threading, gevent
        from tests.support.echo_stub import *
        from weego.server import Server
        class Service(Echo):
            def echo(self, req):
                print("handling", flush=True)
                while req.action == "spin":
                    pass
                return Response(message="ok")
        server = Server([Service()], listen=["tcp://127.0.0.1:0"])
        print("on", server.addresses[0], flush=True)
        server.serve_forever()
        print("ended", flush=True)
    """
    with python(code) as process:
        address = process.wait_for(r"^on (\S+)$")[1]
        with Wire(address) as wire:
            wire.send(Request(action="spin" if handling else ""))
            process.wait_for("handling")
            if not handling:
                wire.reply()
            process.signal(signal.SIGINT)
            if handling:
                assert wire.reply().error is not None
            assert wire.at_end()
        assert process.wait() == 0, process.output
    assert process.lines[-1] == "ended"


def test_the_limit_of_open_files_is_survived(no_leaks: None) -> None:
    code = """
        import resource, socket, sys
        from tests.support.echo_stub import *
        from tests.support.net import Wire, wait_until, records
        from weego.server import Server
        from weego import serving
        class Service(Echo):
            def echo(self, req): return Response(message=req.message)
        with records() as log, Server([Service()], listen=["tcp://127.0.0.1:0"], max_connections=10) as server:
            server.serving.max_connections = 10**6
            import os
            open_now = len(os.listdir("/proc/self/fd"))
            wires = [Wire(server.addresses[0]) for _ in range(40)]
            wait_until(lambda: server.serving.connections == 40)
            # No descriptor is left: a further connection waits in the queue.
            resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")), resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
            extra = Wire(server.addresses[0])
            extra.send(Request(message="waited"))
            wait_until(lambda: any("cannot accept" in record.getMessage() for record in log))
            for wire in wires[:3]:
                wire.send(Request(message="served"))
                assert wire.reply().value.message == "served"
            for wire in wires:
                wire.reset()
            assert extra.reply().value.message == "waited"
            extra.close()
            assert sum("cannot accept" in record.getMessage() for record in log) == 1
        print("done")
    """
    with python(code) as process:
        assert process.wait() == 0, process.output
    assert process.lines[-1] == "done"


@with_hub
def test_an_open_client_and_a_stopped_server_do_not_keep_the_hub_busy() -> None:
    with served(EchoService()) as server, EchoClient(server.addresses[0]) as client:
        client.echo(Request())
    gevent.wait(timeout=20)  # nothing is left to wait for


@without_hub
def test_one_service_and_one_address_need_no_list() -> None:
    with Server(EchoService(), listen="tcp://127.0.0.1:0") as server, EchoClient(server.addresses[0]) as client:
        assert client.echo(Request(message="a")).message == "a"


def test_a_server_needs_an_address() -> None:
    with pytest.raises(UsageError, match="at least one address"):
        Server(EchoService(), listen=[])


@without_hub
def test_a_keyboard_interrupt_of_a_handler_does_not_end_a_background_server() -> None:
    class Interrupting(EchoService):
        def echo(self, req: Request) -> Response:
            if req.message == "interrupt":
                raise KeyboardInterrupt
            return Response(message=req.message)

    with Server(Interrupting(), listen="tcp://127.0.0.1:0") as server, EchoClient(server.addresses[0], timeout=10) as client:
        with pytest.raises(ApplicationError, match="KeyboardInterrupt"):
            client.echo(Request(message="interrupt"))
        assert client.echo(Request(message="a")).message == "a"
