"""Two ways to carry a call: pools, threads and hubs. What calls see of them is in tests/weego/test_client.py."""

from __future__ import annotations

import threading

import gevent
import pytest

from codec.errors import ClosedError
from governance.call import Call
from poller.address import parse
from tests.support.echo_stub import ECHO, EchoClient, Request
from tests.support.net import Peer, echo_forever, wait_until, with_hub, without_hub
from weego.thrift_channel import ThriftChannel
from weego.transport import PoolLimits, Transport


def channel(**options: float) -> ThriftChannel:
    given = {"max_idle": 10, "max_idle_total": 100, "idle_timeout": 60.0, "connect_timeout": 20.0, "max_message": 10**6, **options}
    return ThriftChannel(ECHO, framing="framed", limits=PoolLimits(**given))  # type: ignore[arg-type]


def call(transport: Transport, peer: Peer) -> str:
    return str(transport.call(Call(ECHO.methods["echo"]), parse(peer.address), (Request(),)).message)


@without_hub
def test_blocking_connections_are_used_again() -> None:
    with Peer(echo_forever) as peer:
        transport = channel().blocking()
        assert {call(transport, peer) for _ in range(10)} == {"0"}
        assert (transport.statistics().idle, transport.statistics().reused) == (1, 9)
        transport.close()
        with pytest.raises(ClosedError):
            call(transport, peer)


@with_hub
def test_idle_connections_are_closed_though_nobody_calls() -> None:
    with Peer(echo_forever) as peer:
        transport = channel(idle_timeout=0.02).with_hub(gevent.get_hub())
        call(transport, peer)
        assert transport.statistics().idle == 1
        wait_until(lambda: transport.statistics().idle == 0)
        assert transport.statistics().timed_out == 1
        transport.close()


@without_hub
def test_a_client_has_one_transport_for_all_threads_and_one_for_each_hub() -> None:
    with Peer(echo_forever) as peer:
        client = EchoClient(peer.address)
        client.echo(Request())
        closed = threading.Event()

        def in_a_hub() -> None:
            gevent.get_hub()
            client.echo(Request())
            ready.set()
            wait_until(closed.is_set)
            # Closed by another thread, the connection ends here, in the thread it belongs to.
            wait_until(lambda: gevent.get_hub()._weego_loop.members == 0)
            gevent.get_hub()._weego_loop.close()
            gevent.get_hub().destroy(destroy_loop=True)

        ready = threading.Event()
        thread = threading.Thread(target=in_a_hub)
        thread.start()
        assert ready.wait(20)
        threads = [threading.Thread(target=client.echo, args=(Request(),)) for _ in range(5)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert len(client.statistics()) == 2
        client.close()
        closed.set()
        thread.join(20)
        assert not thread.is_alive()


@without_hub
def test_a_client_outlives_a_hub_it_was_used_in() -> None:
    with Peer(echo_forever) as peer:
        client = EchoClient(peer.address)

        def in_a_hub() -> None:
            gevent.get_hub()
            client.echo(Request())
            gevent.get_hub()._weego_loop.close()
            gevent.get_hub().destroy(destroy_loop=True)

        thread = threading.Thread(target=in_a_hub)
        thread.start()
        thread.join(20)
        client.echo(Request())
        client.close()
