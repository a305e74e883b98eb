"""gRPC connections shared by threads: who reads, who waits, and what becomes of both when something comes in between."""

from __future__ import annotations

import gc
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from codec.errors import Cancelled, ClosedError, DeadlineExceeded, Unavailable
from tests.interop import grpc_service
from tests.support.certs import Certificates
from tests.support.net import PATIENCE, served, wait_until, without_hub
from tests.weego.test_grpc_client import HEAD, OK, Conversation, answers, peer


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
    takes = 0.0

    def behave(c: Conversation, number: int) -> None:
        nonlocal most
        done = 0
        while c.turn(0.02):
            most = max(most, len(c.h2.streams))
            if len(c.asked) > done and c.asked[done].remote_done:
                time.sleep(takes)
                c.answer(c.asked[done])
                done += 1

    with peer(behave, max_streams=3) as server, t.TestServiceClient(server.address, timeout=20, max_idle=1) as client:
        client.empty_call(t.Empty())  # the peer's limit is known now
        assert in_threads(20, lambda _: client.empty_call(t.Empty())) == [None] * 20
        assert server.accepted == 1
        assert most <= 3
        takes = 0.01  # twenty of them, one after the other, are not done in time
        late = in_threads(20, lambda _: client.empty_call(t.Empty(), timeout=0.03))
        assert any(isinstance(each, DeadlineExceeded) for each in late)


@without_hub
def test_an_answer_that_takes_longer_than_anyone_waits_in_one_system_call(t: Any) -> None:
    def behave(c: Conversation, number: int) -> None:
        done = 0
        while c.turn(0.02):
            if len(c.asked) > done and c.asked[done].remote_done:
                time.sleep(0.06)
                c.answer(c.asked[done])
                done += 1

    with peer(behave) as server, t.TestServiceClient(server.address, timeout=20) as client:
        client.empty_call(t.Empty())
        # The others come while the first one waits, and one of them gives up.
        raised = in_threads(5, lambda number: client.empty_call(t.Empty(), timeout=0.05 if number == 4 else None))
        assert raised[:4] == [None] * 4
        assert isinstance(raised[4], DeadlineExceeded)
        assert server.accepted == 1


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
    with (
        served(grpc_service.service(t)) as server,
        t.TestServiceClient(server.addresses[0], timeout=PATIENCE) as client,
    ):
        asked = t.StreamingOutputCallRequest(response_parameters=[t.ResponseParameters(size=50_000)] * 100)
        slow = client.streaming_output_call(asked)
        assert len(next(slow).payload.body) == 50_000
        assert in_threads(4, lambda _: grpc_service.large_unary(t, client)) == [None] * 4
        assert sum(1 for _ in slow) == 99


@without_hub
def test_much_in_both_directions_at_once(t: Any) -> None:
    with (
        served(grpc_service.service(t)) as server,
        t.TestServiceClient(server.addresses[0], timeout=PATIENCE) as client,
    ):

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


# ---- turns: those for whom one read has news call each other -----------------------------------------------------------

MANY = 12


def link_of(client: Any) -> Any:
    """The one connection of a client of threads."""
    [transport] = client._transports.values()
    [links] = transport._links.values()
    [link] = links
    return link


def bursts(c: Conversation, number: int) -> None:
    """Answer all calls that wait but the last one, in one write, when there are MANY or no more come; a single one too."""
    answered = 0
    try:
        while True:
            before = len(c.asked)
            if not c.turn(0.02):
                return
            whole = [each for each in c.asked[answered:] if each.remote_done]
            if len(whole) >= MANY or (whole and len(c.asked) == before):
                for each in whole[:-1] or whole:
                    if each.is_open:
                        c.h2.respond(each, HEAD)
                        each.write_message(b"")
                        c.h2.respond(each, OK, True)
                    answered += 1
                c.flush()
    except OSError:
        pass


@without_hub
def test_nobody_waits_for_one_that_does_not_come_back(t: Any) -> None:
    """All have their answers before any of them goes on: whoever is called first calls nobody."""
    all_back = threading.Barrier(MANY)

    def call(_: int) -> None:
        for _ in range(5):
            client.empty_call(t.Empty())
            all_back.wait(PATIENCE)

    with peer(bursts) as server, t.TestServiceClient(server.address, timeout=PATIENCE) as client:
        assert in_threads(MANY, call) == [None] * MANY
        assert link_of(client).took_turns > 0


@without_hub
def test_what_is_held_leaves_when_nobody_else_comes_back(t: Any) -> None:
    """The first that comes back calls again, and all others wait for what it gets."""
    first = threading.Lock()

    def call(number: int) -> None:
        for turn in range(5):
            client.empty_call(t.Empty())
            if first.acquire(blocking=False):
                client.empty_call(t.Empty())
                answered[turn].set()
                together.wait(PATIENCE)
                first.release()
            else:
                assert answered[turn].wait(PATIENCE)
                together.wait(PATIENCE)
            after.wait(PATIENCE)

    answered = [threading.Event() for _ in range(5)]
    together, after = threading.Barrier(MANY), threading.Barrier(MANY)
    with peer(bursts) as server, t.TestServiceClient(server.address, timeout=PATIENCE) as client:
        assert in_threads(MANY, call) == [None] * MANY
        assert link_of(client).took_turns > 0


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certs"))


@without_hub
@pytest.mark.parametrize("tls", [False, True], ids=["cleartext", "tls"])
@pytest.mark.parametrize("seed", range(3))
def test_turns_with_deadlines_cancellations_and_streams_in_between(
    t: Any, certs: Certificates, seed: int, tls: bool
) -> None:
    """Every call ends as it must, whatever the others do, and the connection is as good as new behind them."""
    outcomes: list[str] = []

    def calls(number: int) -> None:
        chance = random.Random(seed * 100 + number)
        for _ in range(60):
            what = chance.random()
            try:
                if what < 0.6:
                    size = chance.choice((0, 100, 30_000))
                    assert (
                        len(client.unary_call(t.SimpleRequest(response_size=size), timeout=PATIENCE).payload.body)
                        == size
                    )
                elif what < 0.8:
                    client.unary_call(
                        t.SimpleRequest(response_size=10), timeout=chance.choice((1e-6, 2e-4, 1e-3, 5e-3))
                    )
                elif what < 0.9:
                    stream = client.full_duplex_call(timeout=PATIENCE)
                    stream.send(grpc_service.ping(t, 10, 10))
                    killer = threading.Timer(chance.random() * 0.002, stream.cancel)
                    killer.start()
                    for _ in stream:
                        pass
                else:
                    with client.streaming_output_call(
                        t.StreamingOutputCallRequest(response_parameters=[t.ResponseParameters(size=20_000)] * 4)
                    ) as stream:
                        for _ in range(chance.randrange(5)):
                            next(stream)
                outcomes.append("well")
            except (DeadlineExceeded, Cancelled) as error:
                assert what >= 0.6, f"a call with all the time in the world: {error!r}"
                outcomes.append(type(error).__name__)

    theirs, ours = ({"tls": certs.server()}, {"tls": certs.client(server_name="localhost")}) if tls else ({}, {})
    with (
        served(grpc_service.service(t), **theirs) as server,
        t.TestServiceClient(server.addresses[0], **ours) as client,
    ):
        assert in_threads(24, calls) == [None] * 24
        assert {"well", "DeadlineExceeded", "Cancelled"} <= set(outcomes)
        link = link_of(client)
        wait_until(lambda: link.streams == 0)
        assert len(client.unary_call(t.SimpleRequest(response_size=7), timeout=PATIENCE).payload.body) == 7


@without_hub
def test_a_client_that_is_closed_in_the_middle_of_turns(t: Any) -> None:
    def calls(number: int) -> None:
        for turn in range(1000):
            try:
                client.empty_call(t.Empty(), timeout=PATIENCE)
            except ClosedError:
                return
            if number == 0 and turn == 100:
                client.close()
        raise AssertionError("it was never closed")

    with served(grpc_service.service(t)) as server:
        client = t.TestServiceClient(server.addresses[0])
        assert in_threads(24, calls) == [None] * 24


@without_hub
def test_a_connection_that_breaks_in_the_middle_of_turns(t: Any) -> None:
    """Who was still to be called is called with the others."""

    def behave(c: Conversation, number: int) -> None:
        c.request(MANY - 1)
        for each in c.asked[: MANY - 2]:
            c.h2.respond(each, HEAD)
            each.write_message(b"")
            c.h2.respond(each, OK, True)
        c.flush()
        c.sock.close()

    with peer(behave) as server, t.TestServiceClient(server.address, timeout=PATIENCE) as client:
        raised = in_threads(MANY, lambda _: client.empty_call(t.Empty()))
        assert sorted(type(each).__name__ for each in raised) == ["NoneType"] * (MANY - 2) + ["Unavailable"] * 2
