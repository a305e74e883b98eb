"""gRPC connections shared by threads: who reads, who waits, and what becomes of both when something comes in between."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from codec.errors import DeadlineExceeded, Unavailable
from tests.interop import grpc_service
from tests.support.net import PATIENCE, served, wait_until, without_hub
from tests.weego.test_grpc_client import Conversation, answers, peer


@pytest.fixture(scope="module")
def t(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return grpc_service.module(tmp_path_factory.mktemp("gen"))


def in_threads(count: int, action: Callable[[int], object]) -> list[BaseException | None]:
    """Run `action(number)` in threads; what each raised."""
    raised: list[BaseException | None] = [None] * count

    def run(number: int) -> None:
        try:
            action(number)
        except BaseException as error:
            raised[number] = error

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(count)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(PATIENCE)
        assert not each.is_alive(), "a call hangs"
    return raised


@without_hub
def test_threads_share_a_connection(t: Any) -> None:
    with served(grpc_service.service(t)) as server, t.TestServiceClient(server.addresses[0], timeout=20) as client:

        def calls(number: int) -> None:
            for turn in range(50):
                size = number * 100 + turn
                assert len(client.unary_call(t.SimpleRequest(response_size=size)).payload.body) == size

        assert in_threads(20, calls) == [None] * 20
        [statistics] = client.statistics()
        assert statistics.idle == 1
        assert statistics.reused > 900


@without_hub
def test_threads_keep_to_the_limit_of_the_peer(t: Any) -> None:
    most = 0

    def behave(c: Conversation, number: int) -> None:
        nonlocal most
        done = 0
        while c.turn(0.02):
            most = max(most, len(c.h2.streams))
            if len(c.asked) > done and c.asked[done].remote_done:
                c.answer(c.asked[done])
                done += 1

    with peer(behave, max_streams=3) as server, t.TestServiceClient(server.address, timeout=20, max_idle=1) as client:
        client.empty_call(t.Empty())  # the peer's limit is known now
        assert in_threads(20, lambda _: client.empty_call(t.Empty())) == [None] * 20
        assert server.accepted == 1
        assert most <= 3
        late = in_threads(20, lambda _: client.empty_call(t.Empty(), timeout=0.03))
        assert any(isinstance(each, DeadlineExceeded) for each in late)


@without_hub
def test_more_connections_when_one_is_full(t: Any) -> None:
    def behave(c: Conversation, number: int) -> None:
        done = 0
        while c.turn(0.02):
            if len(c.asked) > done and c.asked[done].remote_done:
                c.answer(c.asked[done])
                done += 1

    with peer(behave, max_streams=1) as server, t.TestServiceClient(server.address, timeout=20, max_idle=3) as client:
        client.empty_call(t.Empty())
        assert in_threads(20, lambda _: client.empty_call(t.Empty())) == [None] * 20
        assert 1 < server.accepted <= 3


@without_hub
def test_a_reader_that_gives_up_has_another_one_read_on(t: Any) -> None:
    go_on = threading.Event()

    def behave(c: Conversation, number: int) -> None:
        c.request(1)
        while not go_on.is_set():
            c.turn(0.01)
        for each in c.asked:
            if each.is_open:
                c.answer(each)
        c.rest()

    with peer(behave) as server, t.TestServiceClient(server.address) as client:

        def call(number: int) -> None:
            if number == 0:  # it begins first, and reads
                with pytest.raises(DeadlineExceeded):
                    client.empty_call(t.Empty(), timeout=0.3)
                go_on.set()
            else:
                time.sleep(0.1)
                client.empty_call(t.Empty(), timeout=PATIENCE)

        assert in_threads(2, call) == [None, None]
        assert server.accepted == 1


@without_hub
def test_all_who_wait_learn_that_the_connection_ended(t: Any) -> None:
    def behave(c: Conversation, number: int) -> None:
        c.request(4)

    with peer(behave) as server, t.TestServiceClient(server.address, timeout=PATIENCE) as client:
        raised = in_threads(5, lambda _: client.empty_call(t.Empty()))
        assert [type(each) for each in raised] == [Unavailable] * 5
        assert all(isinstance(each, Unavailable) and each.sent for each in raised)


@without_hub
def test_a_stream_that_nobody_reads_does_not_hold_up_the_others(t: Any) -> None:
    with served(grpc_service.service(t)) as server, t.TestServiceClient(server.addresses[0], timeout=PATIENCE) as client:
        asked = t.StreamingOutputCallRequest(response_parameters=[t.ResponseParameters(size=50_000)] * 100)
        slow = client.streaming_output_call(asked)
        assert len(next(slow).payload.body) == 50_000
        assert in_threads(4, lambda _: grpc_service.large_unary(t, client)) == [None] * 4
        assert sum(1 for _ in slow) == 99


@without_hub
def test_much_in_both_directions_at_once(t: Any) -> None:
    with served(grpc_service.service(t)) as server, t.TestServiceClient(server.addresses[0], timeout=PATIENCE) as client:

        def calls(_: int) -> None:
            request = t.SimpleRequest(response_size=3_000_000, payload=t.Payload(body=bytes(3_000_000)))
            for _ in range(3):
                assert len(client.unary_call(request).payload.body) == 3_000_000

        assert in_threads(6, calls) == [None] * 6


@without_hub
def test_a_stream_that_is_dropped_is_reset(t: Any) -> None:
    told = threading.Event()

    def behave(c: Conversation, number: int) -> None:
        while not c.asked:
            c.turn(0.01)
        stream = c.asked[0]
        while not stream.reset_by_peer and c.turn():
            pass
        told.set()
        answers(c, number)

    with peer(behave) as server, t.TestServiceClient(server.address, timeout=PATIENCE) as client:
        stream = client.full_duplex_call()
        stream.send(grpc_service.ping(t, 1, 1))
        loop = [stream]
        loop.append(loop)  # only the garbage collector finds it
        del stream, loop
        gc.collect()
        wait_until(told.is_set)


@without_hub
def test_a_client_that_is_closed_lets_calls_finish(t: Any) -> None:
    def behave(c: Conversation, number: int) -> None:
        stream = c.request(0)
        c.turn(0.2)
        c.answer(stream)
        c.rest()

    with peer(behave) as server:
        client = t.TestServiceClient(server.address, timeout=PATIENCE)

        def call(number: int) -> None:
            if number:
                wait_until(lambda: server.accepted == 1)
                time.sleep(0.05)
                client.close()
            else:
                client.empty_call(t.Empty())

        assert in_threads(2, call) == [None, None]


@without_hub
def test_a_silent_peer_is_given_up_for_all(t: Any) -> None:
    def behave(c: Conversation, number: int) -> None:
        c.request(2)
        while c.sock.recv(1000):  # PINGs, which nobody answers
            pass

    options = {"keepalive_time": 0.05, "keepalive_timeout": 0.1}
    with peer(behave) as server, t.TestServiceClient(server.address, **options) as client:
        raised = in_threads(3, lambda _: client.empty_call(t.Empty(), timeout=PATIENCE))
        assert ["has not answered a PING" in str(each) for each in raised] == [True] * 3
