"""What may be the user's own in governance, middleware and bundles, by the examples of docs/extending.md themselves."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest

import weego
import weego.discovery
from codec.errors import BusinessError, Code, ResourceExhausted, UsageError
from governance.errors import PermissionDenied
from governance.policy import ClientPolicy
from tests.support.echo_stub import Echo, EchoClient, Request, Response
from tests.support.grpc_echo import EchoService as GrpcEchoService
from tests.support.grpc_echo import Request as GrpcRequest
from tests.support.grpc_wire import GrpcWire
from tests.support.net import records, served, wait_until, with_hub, without_hub
from tests.support.stream_echo import Request as StreamRequest
from tests.support.stream_echo import TalkClient, TalkService
from tests.weego.test_extend import example
from weego import discovery, extend, settings
from weego.server import Server

BOTH = pytest.mark.parametrize("decorate", [with_hub, without_hub])
Decorator = Callable[[Callable[[], None]], Callable[[], None]]


class EchoService(Echo):
    def __init__(self, name: str = "", **actions: Callable[[], Any]) -> None:
        self.name = name
        self.calls = 0
        self.actions = actions

    def echo(self, req: Request) -> Response:
        self.calls += 1
        done = self.actions[req.action]() if req.action in self.actions else None
        return done if isinstance(done, Response) else Response(message=self.name or req.message)


@pytest.fixture(autouse=True)
def _nothing_counted_before() -> Iterator[None]:
    """Clients of one service share what they count; those of another test are not this one's."""
    before = settings.known()
    settings.remember(settings.Known())
    yield
    settings.remember(before)


def raises(error: BaseException) -> Callable[[], Any]:
    def action() -> Any:
        raise error

    return action


# ---- middleware


@without_hub
def test_a_tracer_an_error_handler_and_a_limiter_are_middleware() -> None:
    spans: list[Any] = []
    is_open = [True]
    names = example("Middleware", spans=spans, is_open=lambda: is_open[0])
    chain = [names["traced"], names["told_apart"], names["in_opening_hours"]]
    service = EchoService(missing=raises(KeyError("apple")))
    with served(service, middleware=chain) as server, EchoClient(server.addresses, framing="ttheader", caller="shop") as client:
        client.echo(Request())
        with pytest.raises(BusinessError, match="there is no apple") as told:
            client.echo(Request(action="missing"))
        assert told.value.status == 404
        is_open[0] = False
        with pytest.raises(ResourceExhausted, match="opening hours"):
            client.echo(Request())
        with served(EchoService("free")) as other, EchoClient([server.addresses[0], other.addresses[0]], policy=ClientPolicy()) as both:
            assert {both.echo(Request(), timeout=20).message for _ in range(10)} == {"free"}
    assert [span[:4] for span in spans[:3]] == [("Echo", "echo", "shop", outcome) for outcome in ("OK", "UNKNOWN", "RESOURCE_EXHAUSTED")]
    assert all(seconds > 0 for *_, seconds in spans)


# ---- streams


@without_hub
def test_a_middleware_sees_the_messages_of_thrifts_streams() -> None:
    counts: Counter[str] = Counter()
    counting = example("Messages of a stream", counts=counts)["counting"]
    with served(TalkService(), middleware=[counting]) as server, TalkClient(server.addresses) as client:
        assert len(list(client.watch(StreamRequest(count=7), timeout=20))) == 7
        assert counts == {"sent": 7}
        with client.chat(timeout=20) as talk:
            for _ in range(5):
                talk.send(StreamRequest())
            talk.close_send()
            assert len(list(talk)) == 5
        assert counts == {"sent": 12, "received": 5}
        assert client.say(StreamRequest(message="plain"), timeout=20).message == "plain"
    assert counts == {"sent": 12, "received": 5}


@without_hub
def test_a_metadata_handler_runs_when_a_stream_is_opened() -> None:
    names = example("Metadata handlers")
    carrying = extend.carrying(names["Region"]())
    with served(TalkService(), middleware=[carrying]) as server, TalkClient(server.addresses, middleware=[carrying]) as client:
        stream = client.watch(StreamRequest(count=2), timeout=20)
        assert len(list(stream)) == 2
        assert dict(stream.metadata)["region"] == "eu"  # type: ignore[attr-defined]
    assert sorted(names["regions"], key=str) == [(False, None), (True, "eu")]


@without_hub
def test_a_middleware_sees_the_messages_of_grpcs_streams() -> None:
    counts: Counter[str] = Counter()
    counting = example("Messages of a stream", counts=counts)["counting"]
    with served(GrpcEchoService(), middleware=[counting]) as server, GrpcWire(server.addresses[0]) as wire:
        assert wire.call("Watch", GrpcRequest(count=3))[0] == 0
        assert wire.call("Collect", GrpcRequest(), GrpcRequest())[0] == 0
        assert wire.call("Chat", GrpcRequest(), GrpcRequest())[0] == 0
        assert counts == {"sent": 5, "received": 4}


# ---- instances


@BOTH
def test_a_registry_and_a_resolver_of_ones_own_by_url(decorate: Decorator) -> None:
    @decorate
    def run() -> None:
        schemes, registries = dict(discovery._schemes), dict(discovery._registries)
        try:
            given: dict[str, Any] = {"EchoService": EchoService}
            table = example("Finding and announcing instances", **given)["Table"]
            names = example("Finding and announcing instances", 1, **given)
            with names["server"] as server, names["client"] as client:
                wait_until(lambda: list(table.known.get("echo", {})) == server.addresses, "the announcement")
                assert client.echo(Request(message="found"), timeout=20).message == "found"
            assert table.known == {"echo": {}}
        finally:
            for now, before in ((discovery._schemes, schemes), (discovery._registries, registries)):
                now.clear()  # type: ignore[attr-defined]
                now.update(before)  # type: ignore[attr-defined]

    run()


@BOTH
def test_a_balancer_of_ones_own_that_learns(decorate: Decorator) -> None:
    @decorate
    def run() -> None:
        steady = example("Choosing an instance")["steady"]
        with served(EchoService("a")) as one, served(EchoService("b")) as two:
            addresses = sorted([one.addresses[0], two.addresses[0]])
            names = {one.addresses[0]: "a", two.addresses[0]: "b"}
            with EchoClient(addresses, policy=steady, timeout=20) as client:
                assert {client.echo(Request()).message for _ in range(5)} == {names[addresses[0]]}
                (one if one.addresses[0] == addresses[0] else two).stop()
                # The first attempt fails and is repeated elsewhere; then nobody asks there any more.
                assert {client.echo(Request()).message for _ in range(5)} == {names[addresses[1]]}

    run()


# ---- policies


@BOTH
def test_predicates_back_off_fallback_and_rule_of_ones_own(decorate: Decorator) -> None:
    @decorate
    def run() -> None:
        answers: list[Any] = [BusinessError(503, "busy"), Response(message="not yet"), Response(message="now")]

        def step() -> Any:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        names = example("Trying again, answering instead, refusing", Response=Response)
        assert [names["Linear"]()(number) for number in (1, 2)] == [0.002, 0.004]
        service = EchoService(step=step, gone=raises(BusinessError(404, "gone")), busy=raises(BusinessError(503, "busy")))
        with served(service) as server:
            with EchoClient(server.addresses, framing="ttheader", policy=names["careful"], timeout=20) as client:
                assert client.echo(Request(action="step")).message == "now"
                assert (service.calls, answers) == (3, [])
                with pytest.raises(BusinessError, match="gone"):
                    client.echo(Request(action="gone"))
                assert service.calls == 4
                assert client._governed is not None
                breaker = client._governed.breakers["echo"]
                assert (breaker.snapshot()["successes"], breaker.snapshot()["failures"]) == (1, 0)
                with pytest.raises(BusinessError, match="busy"):
                    client.echo(Request(action="busy"))
                assert (breaker.snapshot()["successes"], breaker.snapshot()["failures"], service.calls) == (1, 1, 8)
                service.calls = 4
                with pytest.raises(PermissionDenied) as denied:
                    client.echo(Request(action="forbidden"))
                assert denied.value.code is Code.PERMISSION_DENIED
                assert service.calls == 4
            address = server.addresses[0]
        with EchoClient(address, policy=names["careful"], timeout=20) as client:
            assert client.echo(Request()).message == "instead of UNAVAILABLE"

    run()


# ---- events


@without_hub
def test_a_handler_of_logging_hears_what_changes() -> None:
    heard: list[str] = []
    logger = logging.getLogger("weego.governance")
    with records("weego.governance"):
        names = example("Events", heard=heard, logging=logging)
        try:

            class Two:
                interval = 0.01
                instances: ClassVar = ["tcp://127.0.0.1:1"]

                def resolve(self) -> list[weego.Instance]:
                    return [weego.Instance(each) for each in self.instances]

            with EchoClient(Two(), timeout=20) as client:
                with pytest.raises(weego.Unavailable):
                    client.echo(Request())
                Two.instances = ["tcp://127.0.0.1:1", "tcp://127.0.0.1:2"]
                wait_until(lambda: any("tcp://127.0.0.1:2" in each for each in heard), "the new instance")
        finally:
            logger.removeHandler(names["listener"])


# ---- bundles


def named(name: str, seen: list[str]) -> Any:
    def middleware(next_: Any) -> Any:
        def handler(call: Any, args: Any) -> Any:
            seen.append(name)
            return next_(call, args)

        return handler

    return middleware


@without_hub
def test_suites_together() -> None:
    seen: list[str] = []
    names = example("Bundles", outer=named("outer", seen), inner=named("inner", seen))
    options = names["options"]
    assert {key: options[key] for key in ("framing", "caller", "timeout")} == {"framing": "ttheader", "caller": "shop", "timeout": 1.0}
    callers: list[str] = []

    def note(next_: Any) -> Any:
        def handler(call: Any, args: Any) -> Any:
            callers.append(call.caller)
            return next_(call, args)

        return handler

    class Noting:
        def options(self) -> dict[str, Any]:
            return {"middleware": [note], "listen": ["tcp://127.0.0.1:0"]}

    more = extend.together(names["Company"](), names["Careful"](), middleware=[named("own", seen)])
    with Server([EchoService()], **extend.together(Noting())) as server, EchoClient(server.addresses, **more) as client:
        client.echo(Request())
    assert seen == ["outer", "inner", "own"]
    assert callers == ["shop"]


def test_suites_that_disagree() -> None:
    class One:
        def options(self) -> dict[str, Any]:
            return {"timeout": 1.0, "middleware": []}

    class Other(One):
        pass

    with pytest.raises(UsageError, match="both One and Other give timeout; say which counts"):
        extend.together(One(), Other())
    assert extend.together(One(), Other(), timeout=3.0) == {"timeout": 3.0, "middleware": []}
    assert extend.together() == {}
